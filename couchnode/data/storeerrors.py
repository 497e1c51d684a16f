"""The errors of a store, and their translation from SQLite's errors."""

from __future__ import annotations

import sqlite3
from pathlib import Path


class StoreError(Exception):
    """A store operation failed; the message names the file and the cause."""


class StoreVersionError(StoreError):
    """The file was written by another version of this program: use that one, or another folder."""


class StoreDamagedError(StoreError):
    """The file is not a store, or its content is damaged; the message names the remedy."""


class StoreLostError(StoreError):
    """The file is gone, empty, or older than its cluster; the message names the remedy."""


class StoreLockedError(StoreError):
    """Another process has the file open: stop it, or use another folder."""


class StoreFullError(StoreError):
    """The disk is full. Pending changes stay in memory and are retried."""


class StoreClosedError(StoreError):
    """The store was closed before this."""


_DAMAGES = ("malformed", "not a database", "no such", "decode", "syntax error", "no query solution")


def translate(path: Path, remedy: str, error: sqlite3.Error) -> StoreError:
    """Return the store's error for an error of SQLite.

    :param remedy: what to do about a damaged file, for the message.
    """
    text = str(error)
    if "locked" in text:
        return StoreLockedError(f"{path}: {text}")
    if "full" in text or "space" in text:
        return StoreFullError(f"{path}: {text}")
    if any(words in text for words in _DAMAGES):
        return StoreDamagedError(f"{path} is damaged ({text}): {remedy}")
    return StoreError(f"{path}: {text}")
