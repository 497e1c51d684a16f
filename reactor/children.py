"""Child processes that run a module of ours: ``python -m`` with this interpreter and its import path."""

from __future__ import annotations

import os
import sys

__all__ = ["command", "environment"]


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs ``module``, a dotted name, with this process's interpreter."""
    return [sys.executable, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Return this process's environment with a ``PYTHONPATH`` on which the child finds the same modules.

    The child then imports the same modules as this process, wherever they are: in a checkout, an
    installation, a folder that a program has added. The empty entry, the working directory, is left out.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
