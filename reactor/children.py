"""Child processes that run a module of ours: ``python -m`` with this interpreter and its import path."""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["command", "environment", "leave_signals_to_parent"]

_OF_A_GROUP = ("SIGINT", "SIGHUP", "SIGUSR1")


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs ``module``, a dotted name, with this process's interpreter."""
    return [sys.executable, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Return this process's environment with a ``PYTHONPATH`` on which the child finds the same modules.

    The child then imports the same modules as this process, wherever they are: in a checkout, an
    installation, a folder that a program has added. The empty entry, the working directory, is left out.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}


def leave_signals_to_parent() -> None:
    """Ignore, in a child, the signals that a terminal or systemd sends to all processes of a service: Ctrl-C,
    the loss of the terminal, and "open the log file again".

    The parent decides what happens; a child ends when its parent is gone.
    """
    for name in _OF_A_GROUP:
        # Windows has SIGINT only.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
