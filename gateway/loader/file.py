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
"""Longest line in bytes. A document has at most 20 MiB; the rest is room for escapes, attributes and the
key."""

READ_BYTES = 2**20
"""Number of bytes to read at a time."""


class Source:
    """The lines of a file, plain or compressed by gzip (detected from the content, not from the name).

    :raises LoadError: the file cannot be opened.
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
        # The beginning of the incomplete line.
        begun: list[bytes] = []
        begun_bytes = 0
        try:
            # One read of the file at a time, so that the lines before a damaged place are read.
            while data := self._file.read1(READ_BYTES):  # type: ignore[attr-defined]
                first, *lines = data.split(b"\n")
                if begun_bytes <= LINE_BYTES:
                    begun.append(first)
                    begun_bytes += len(first)
                if not lines:
                    continue
                lines.insert(0, b"".join(begun))
                begun = [lines.pop()]
                begun_bytes = len(begun[0])
                if number == 0:
                    lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
                for line in lines:
                    number += 1
                    if line and not line.isspace():
                        yield number, line.rstrip(b"\r")
            last = b"".join(begun)
            if number == 0:
                last = last.removeprefix(BYTE_ORDER_MARK)
            if last.strip():
                yield number + 1, last.rstrip(b"\r")
        except (OSError, EOFError, zlib.error) as error:
            raise LoadError(f"cannot read {self.path} after line {number}: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()
