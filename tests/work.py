"""Work in numbers that do not depend on the machine's load: function calls and bytecode instructions.

The garbage collector is off meanwhile: what it calls for the objects of earlier tests would be counted, too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from couchbase.protocol.jsonparsing import without_collecting

__all__ = ["INSTRUCTIONS_OF", "calls", "instructions"]

INSTRUCTIONS_OF = ((3, 10), (3, 11))
"""Versions of CPython on which :func:`instructions` counts: each compiles to different instructions, and
since 3.12 tracing does not report all of them."""


def calls(run: Callable[[], object]) -> int:
    """Return how many functions, of Python and of C, ``run`` calls; what makes an object is not seen."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    with without_collecting():
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            run()
        finally:
            sys.setprofile(before)
    # The call that ends the counting also counts.
    return count - 1


def instructions(run: Callable[[], object]) -> int:
    """Return how many bytecode instructions ``run`` executes."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "call":
            frame.f_trace_lines, frame.f_trace_opcodes = False, True
        count += event == "opcode"
        return trace

    with without_collecting():
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            run()
        finally:
            sys.settrace(before)
    return count
