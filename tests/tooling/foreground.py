"""Runs a program for make, and takes its stop by Ctrl-C or SIGTERM as success.

    python -I tests/tooling/foreground.py PROGRAM [ARGUMENT ...]

To make, a program that a signal ends has failed ("Error 143"). Here a signal is the usual way to stop
the program. Make sends SIGTERM to its own child only, so it is passed on; Ctrl-C reaches every process of the
terminal. Standard library only: it runs in an environment without the packages of tests.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from types import FrameType

__all__ = ["main"]

_ON_PURPOSE = (signal.SIGINT, signal.SIGTERM)


def main(command: list[str]) -> int:
    """Run a command until it ends; return its exit status, 0 if it was stopped on purpose."""
    child: subprocess.Popen[bytes] | None = None
    is_wanted = True

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal is_wanted
        is_wanted = False
        if child is not None:
            child.terminate()

    # Set before the start, and with functions: a child takes over signals that are ignored.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    signal.signal(signal.SIGTERM, stop)
    child = subprocess.Popen(command)
    if not is_wanted:
        child.terminate()
    status = child.wait()
    if -status in _ON_PURPOSE:
        return 0
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
