"""The files that say who may call: read whole, up to a size, without waiting for a writer."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG

__all__ = ["read_file"]

_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


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
