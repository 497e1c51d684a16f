"""The files that say who may call: read whole, up to a size, without waiting for a writer; and copies of
them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import IO

__all__ = ["Copies", "ReadFile", "read_file"]

_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)

ReadFile = Callable[["str | Path", int], bytes]
"""Returns the content of a file, as :func:`read_file` does."""


def read_file(path: str | Path, most: int) -> bytes:
    """Return the content of a regular file.

    :param most: limit in bytes.
    :raises ValueError: it cannot be read, is larger, or is not a regular file; the text has no path.
    """
    try:
        # To open a pipe would block until another program writes to it, and a device may have no end.
        descriptor = os.open(path, _OPEN)
        with open(descriptor, "rb") as file:
            if not S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError("it is not a regular file")
            content = file.read(most + 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    if len(content) > most:
        raise ValueError(f"it has more than {most} bytes")
    return content


def _nameless_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("couchgateway"), "wb")
    return tempfile.TemporaryFile()


class Copies:
    """The content of files as it was read at some time.

    :param contents: path -> content.
    :param read: reads the files to copy.
    """

    def __init__(self, contents: Mapping[str, bytes] = {}, read: ReadFile = read_file) -> None:
        self._contents = dict(contents)
        self._read = read

    def take(self, path: str | Path, most: int) -> bytes:
        """Read a file as :func:`read_file` does, and keep the content."""
        content = self._contents[str(path)] = self._read(path, most)
        return content

    def read(self, path: str | Path, most: int) -> bytes:
        """Return the content that was kept; raises ValueError if there is none."""
        content = self._contents.get(str(path))
        if content is None:
            raise ValueError("there is no copy of it")
        return content

    def add(self, others: Copies) -> None:
        """Add the copies of other files."""
        self._contents.update(others._contents)

    def write(self) -> int:
        """Write the copies to a file without a name, which another process can inherit.

        :returns: its descriptor. The file is in memory where the system has such files.
        :raises OSError: there is no room for it.
        """
        sizes = [[path, len(content)] for path, content in self._contents.items()]
        with _nameless_file() as file:
            file.write(json.dumps(sizes).encode("ascii") + b"\n")
            for content in self._contents.values():
                file.write(content)
            file.flush()
            return os.dup(file.fileno())

    @classmethod
    def of(cls, descriptor: int) -> Copies:
        """Return the copies that :meth:`write` has written, and close the descriptor."""
        try:
            # Processes that inherit a descriptor share its position.
            data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        finally:
            os.close(descriptor)
        at = data.index(b"\n") + 1
        contents = {}
        for path, size in json.loads(data[:at]):
            contents[path] = data[at : at + size]
            at += size
        return cls(contents)
