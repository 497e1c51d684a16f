"""The file that ``couchgateway-export`` writes."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import IO, Any

from gateway.loader.errors import LoadError
from reactor.files import BINARY

__all__ = ["Output"]

_GZIP_WINDOW = 31
_WRITE_BYTES = 2**20


class Output:
    """A file of lines, plain, or compressed by gzip if its name ends in ``.gz``.

    A compressed file gets a new member after each :meth:`mark`, so that it can be cut there.

    :param size_bytes: number of bytes that are known to be written; the rest of the file is cut off.
    :ivar written: number of bytes written by this run, before compression.
    :raises LoadError: the file cannot be opened, or is shorter than ``size_bytes``.
    """

    def __init__(self, path: Path, size_bytes: int = 0) -> None:
        self.path = path
        self.written = 0
        self._compressed = path.name.endswith(".gz")
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0
        self._compressor: Any = None
        try:
            # Unlike "wb", this does not empty the file.
            self._file: IO[bytes] = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o666), "r+b")
            there = self._file.seek(0, os.SEEK_END)
            if there >= size_bytes:
                # The part that was written after the progress was recorded, possibly with half a line.
                self._file.truncate(size_bytes)
                self._file.seek(size_bytes)
        except OSError as error:
            raise LoadError(f"cannot write {path}: {error.strerror}") from None
        if there < size_bytes:
            self._file.close()
            words = f"{path} has {there} bytes, but {size_bytes} were written to it"
            raise LoadError(f"{words}; --restart replaces it")

    @staticmethod
    def check_new(path: Path) -> None:
        """Check that the file does not exist yet.

        :raises LoadError: it exists.
        """
        if path.exists():
            raise LoadError(f"{path} exists; --restart replaces it")

    def write(self, data: bytes) -> None:
        """Write some lines; they are on disk after the next :meth:`mark`.

        :raises LoadError: they cannot be written.
        """
        self._unwritten.append(data)
        self._unwritten_bytes += len(data)
        self.written += len(data)
        if self._unwritten_bytes >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._unwritten)
        self._unwritten, self._unwritten_bytes = [], 0
        if self._compressed and data:
            if self._compressor is None:
                self._compressor = zlib.compressobj(wbits=_GZIP_WINDOW)
            data = self._compressor.compress(data)
        self._put(data)

    def _put(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise LoadError(f"cannot write {self.path}: {error.strerror}") from None

    def mark(self) -> int:
        """Write everything to the disk, and return the file's size in bytes.

        :raises LoadError: it cannot be written.
        """
        self._flush()
        compressor, self._compressor = self._compressor, None
        if compressor is not None:
            self._put(compressor.flush())
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()
        except OSError as error:
            raise LoadError(f"cannot write {self.path}: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
