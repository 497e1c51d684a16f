"""A busy machine, to run tests beside: processes that do nothing but compute, for a while.

    python -m tests.tooling.busy [PROCESSES [SECONDS]]

8 processes and 60 seconds by default; at most 64 and an hour. They end by themselves, and with the process
that started them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time

MOST_PROCESSES = 64
MOST_SECONDS = 3600.0


def compute(until: float, parent: int) -> None:
    """Keep one processor busy until the monotonic clock says so, or the parent is gone."""
    while time.monotonic() < until and os.getppid() == parent:
        sum(range(20_000))


def read(arguments: list[str]) -> tuple[int, float]:
    """Return how many processes, and for how many seconds.

    :raises SystemExit: the arguments are no such numbers, or beyond the limits.
    """
    try:
        processes = int(arguments[0]) if arguments else 8
        seconds = float(arguments[1]) if len(arguments) > 1 else 60.0
        if len(arguments) > 2 or not (1 <= processes <= MOST_PROCESSES and 0 < seconds <= MOST_SECONDS):
            raise ValueError
    except ValueError:
        raise SystemExit(
            f"usage: python -m tests.tooling.busy [PROCESSES (1 to {MOST_PROCESSES}) "
            f"[SECONDS (up to {MOST_SECONDS:g})]]"
        ) from None
    return processes, seconds


def main(arguments: list[str]) -> None:
    """Compute."""
    processes, seconds = read(arguments)
    until = time.monotonic() + seconds
    others = [
        multiprocessing.Process(target=compute, args=(until, os.getpid()), daemon=True)
        for _ in range(processes - 1)
    ]
    for other in others:
        other.start()
    compute(until, os.getppid())
    for other in others:
        other.join()


if __name__ == "__main__":
    main(sys.argv[1:])
