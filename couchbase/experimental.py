"""SDK 1.2's switch for experimental features; it has no effect any more."""

from __future__ import annotations

_enabled = False


def enable() -> None:
    """Enable experimental features. There are none, so this changes nothing else."""
    global _enabled
    _enabled = True


def enabled_or_raise() -> None:
    """Do nothing if :func:`enable` was called.

    :raises ImportError: it was not called.
    """
    if not _enabled:
        raise ImportError("call couchbase.experimental.enable() first")
