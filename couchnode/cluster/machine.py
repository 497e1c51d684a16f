"""The operating system's figures for the machine: memory, swap, processors, the disk of a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

_MEMINFO = Path("/proc/meminfo")
_CPU_TIMES = Path("/proc/stat")
_IDLE_COLUMNS = (4, 5)
"""Columns of the line ``cpu`` for idle time and for I/O wait."""


class Disk(NamedTuple):
    """A file system, in bytes."""

    total: int
    used: int
    free: int


def memory() -> tuple[int, int]:
    """Return the machine's total and free memory, in bytes; 0 if unknown."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # no sysconf on Windows
        return 0, 0
    try:
        return total, page * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError):  # not known on macOS
        return total, 0


def swap(source: Path = _MEMINFO) -> tuple[int, int]:
    """Return the total and used swap space, in bytes; 0 if unknown."""
    try:
        lines = [line.split() for line in source.read_text("ascii").splitlines()]
        found = {words[0]: int(words[1]) * 1024 for words in lines if words and words[0].startswith("Swap")}
    except (OSError, ValueError, IndexError):
        return 0, 0
    total = found.get("SwapTotal:", 0)
    return total, max(0, total - found.get("SwapFree:", total))


def cpu_times(source: Path = _CPU_TIMES) -> tuple[int, int]:
    """Return the busy ticks and all ticks of the processors since the machine started.

    (0, 0) if unknown. The utilisation between two calls is the quotient of the two increases.
    """
    try:
        with source.open("rb") as lines:
            words = lines.readline().split()
        # user and nice already include guest and guest_nice (columns 9 and 10).
        ticks = [int(word) for word in words[1:9]]
        idle = sum(ticks[column - 1] for column in _IDLE_COLUMNS)
    except (OSError, ValueError, IndexError):
        return 0, 0
    return sum(ticks) - idle, sum(ticks)


def disk(folder: Path | None) -> Disk:
    """Return the file system that ``folder`` is on; all 0 for ``None`` or if unknown."""
    if folder is None:
        return Disk(0, 0, 0)
    try:
        return Disk(*shutil.disk_usage(folder))
    except OSError:
        return Disk(0, 0, 0)


def processors() -> int:
    """Return the number of processors that this process may use, at least 1."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
