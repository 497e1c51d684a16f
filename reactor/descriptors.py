"""The limit on open files, which is also that on connections."""

from __future__ import annotations

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["raise_limit"]

# Where the hard limit is "any number", the kernel still has one; this is below that of Linux (fs.nr_open).
_ENOUGH = 2**20


def raise_limit() -> int | None:
    """Raise this process's soft limit on open file descriptors as far as its hard limit allows.

    The soft one is low by tradition (1024), for the sake of programs that use ``select``; this is none of
    them.
    Processes started from now on have the same limit.

    :returns: the limit now in force; ``None`` if there is none, or the system does not tell.
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
        # macOS has a smaller one of its own (kern.maxfilesperproc) behind "any number".
        return soft
    return wanted
