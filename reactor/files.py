"""Locks and durable renames, on POSIX systems and on Windows."""

from __future__ import annotations

import os
import sys
from typing import IO, Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["BINARY", "lock", "sync_folder"]

BINARY: int = getattr(os, "O_BINARY", 0)
"""Flag for ``os.open``, without which Windows changes line feeds."""

_LOCKED_BYTE = 2**30
"""Windows locks bytes, which then nobody else can read; this one is behind what the file has."""


def lock(file: IO[Any]) -> None:
    """Lock a file until it is closed, or the process has ended in any way.

    :raises OSError: another process, or another file object of this one, has locked it.
    """
    if sys.platform == "win32":
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Make renamed, new and removed files of a folder durable. Windows has no way to ask for that.

    :raises OSError: the disk refused.
    """
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
