"""Errors of the programs that load and export documents."""

from __future__ import annotations

__all__ = ["LineError", "LoadError"]


class LoadError(Exception):
    """The program cannot continue; the message says why. Running the command again resumes it."""


class LineError(ValueError):
    """A line is not a document; the message says why."""
