"""The limit on open files, which also limits connections."""

from __future__ import annotations

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["descriptor_limit", "raise_limit"]

# If the hard limit is unlimited, the kernel still has one; this is below that of Linux (fs.nr_open).
_ENOUGH = 2**20


def descriptor_limit() -> int | None:
    """Return how many file descriptors this process may have open; ``None`` if there is no limit."""
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> int | None:
    """Raise this process's soft limit on open file descriptors as far as its hard limit allows.

    The soft limit is low by tradition (1024), for programs that use ``select``; this is not one of them.
    Processes started from now on inherit the limit.

    :returns: the limit now in effect; ``None`` if there is none, or the system does not report it.
    """
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else hard
    if wanted <= soft:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        # macOS has a smaller limit (kern.maxfilesperproc) behind an unlimited one.
        return soft
    return wanted
