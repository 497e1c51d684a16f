"""Counts the bytecode instructions of this thread: work in a number that no other program's load changes.

While it counts, everything takes about fifty times as long. What C functions do is not counted. CPython 3.10
and 3.11 only: later versions do not report every instruction.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

CAN_COUNT = sys.implementation.name == "cpython" and sys.version_info[:2] in ((3, 10), (3, 11))
"""Whether this Python reports every instruction."""


class InstructionCounter:
    """Counts between :meth:`start` and :meth:`stop`, which the same thread calls."""

    def __init__(self) -> None:
        self._count = 0

    def start(self) -> None:
        """Begin at 0, with the functions that run now, as the reactor's loop does."""
        self._count = 0
        frame: FrameType | None = sys._getframe(1)
        sys.settrace(self._enter)
        while frame is not None:
            frame.f_trace, frame.f_trace_lines, frame.f_trace_opcodes = self._note, False, True
            frame = frame.f_back

    def stop(self) -> int:
        """Return how many instructions were executed."""
        sys.settrace(None)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            frame.f_trace = None
            frame = frame.f_back
        return self._count

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._note

    def _note(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self._count += 1
        return self._note
