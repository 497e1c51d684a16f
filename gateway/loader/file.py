"""The file that ``couchgateway-load`` reads."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gateway.dialect.jsontools import BYTE_ORDER_MARK
from gateway.loader.errors import LoadError

__all__ = ["LINE_BYTES", "Source"]

LINE_BYTES = 32 * 2**20
"""Longest line. A document has at most 20 MiB; the rest is room for escapes, attributes and the key."""


class Source:
    """The lines of a file, plain or compressed by gzip (told apart by content, not by name).

    :raises LoadError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._raw: IO[bytes] = open(path, "rb")  # noqa: SIM115  # closed by close()
            self.size_bytes = os.fstat(self._raw.fileno()).st_size
            compressed = self._raw.read(2) == b"\x1f\x8b"
            self._raw.seek(0)
        except OSError as error:
            raise LoadError(f"cannot read {path}: {error.strerror}") from None
        self._file: IO[bytes] = gzip.GzipFile(fileobj=self._raw) if compressed else self._raw  # type: ignore[assignment]

    def position_bytes(self) -> int:
        """Return how many bytes of the file on disk have been read."""
        return self._raw.tell()

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield (number from 1, content) of each line that is not blank; only the beginning of an overlong
        one.

        :raises LoadError: the file cannot be read to its end.
        """
        number = 0
        try:
            while data := self._file.readline(LINE_BYTES + 2):
                number += 1
                if number == 1:
                    data = data.removeprefix(BYTE_ORDER_MARK)
                rest = data
                while len(rest) > LINE_BYTES and not rest.endswith(b"\n"):
                    rest = self._file.readline(LINE_BYTES + 2)
                if data.strip():
                    yield number, data.rstrip(b"\r\n")
        except (OSError, EOFError, zlib.error) as error:
            raise LoadError(f"cannot read {self.path} after line {number}: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()
