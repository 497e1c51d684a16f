"""Resource usage of running processes, read from /proc, also of programs that cannot report it (Linux
only)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def family(pid: int) -> list[int]:
    """Return a process and all its descendants that run."""
    return [pid, *(below for child in _children(pid) for below in family(child))]


def cpu_seconds(pid: int) -> float:
    """Return user and system time that a process and its descendants have used, those that ended included."""
    return sum(own_cpu_seconds(one) for one in family(pid))


def own_cpu_seconds(pid: int) -> float:
    """Return user and system time of one process and of its children that ended; 0 if it is gone."""
    try:
        # After the name, which may hold anything: state is the first, utime the twelfth.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICKS


def kernel_seconds(pid: int) -> float:
    """Return system time alone that one process has used; 0 if it is gone."""
    try:
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[12]) / TICKS
    except OSError:
        return 0.0


def resident_bytes(pid: int) -> int:
    """Return the resident size of one process now; 0 if it is gone."""
    try:
        return int((PROC / str(pid) / "statm").read_bytes().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def largest_resident_bytes() -> int:
    """Return the largest resident size of this process so far."""
    # Not getrusage: it also counts the size of the process that started this one.
    for line in (PROC / "self" / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def module_of(pid: int) -> str:
    """Return what follows ``-m`` in the command line of a process; ``""`` if nothing does."""
    try:
        words = (PROC / str(pid) / "cmdline").read_text().split("\0")
    except OSError:
        return ""
    return words[words.index("-m") + 1] if "-m" in words[:-1] else ""


def _children(pid: int) -> Iterator[int]:
    for file in (PROC / str(pid) / "task").glob("*/children"):
        try:
            yield from (int(word) for word in file.read_text().split())
        except OSError:  # that thread has ended meanwhile
            continue
