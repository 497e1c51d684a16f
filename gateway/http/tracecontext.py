"""The trace that a request belongs to: ``traceparent`` and ``tracestate`` of W3C Trace Context, level 1.

https://www.w3.org/TR/trace-context-1/; the numbers of sections below are of that document.
"""

from __future__ import annotations

import os
import re
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.http.request import Request

__all__ = ["TraceContext", "continue_trace", "forwarded", "trace_of"]

SAMPLED = 1
"""The flag that a caller sets if it may have recorded the trace (3.2.2.5)."""

_NEWEST = b"00"
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE = b"0" * 32
_NO_PARENT = b"0" * 16

_MOST_MEMBERS = 32
# 3.3.1.3.1 and 3.3.1.3.2.
_MEMBER = re.compile(
    rb"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)

_RANDOM = re.compile("([0-9a-f]{32})([0-9a-f]{16})")
_ZEROS = "0" * 16


class TraceContext(NamedTuple):
    """A place in a trace."""

    trace_id: str
    """32 hexadecimal digits."""
    parent_id: str
    """16 hexadecimal digits: the caller's span, or the one that was started here."""
    flags: int
    """0 or :data:`SAMPLED`."""
    state: str = ""
    """The value of ``tracestate``, ``""`` for none."""
    is_new: bool = False
    """Whether the trace begins here: the caller sent no context, or an invalid one."""

    def headers(self) -> dict[str, str]:
        """Return the headers that pass the context to the next service."""
        headers = {"traceparent": f"00-{self.trace_id}-{self.parent_id}-{self.flags:02x}"}
        if self.state:
            headers["tracestate"] = self.state
        return headers


def continue_trace(request: Request) -> TraceContext:
    """Return the context in a request's headers; a new context if it is missing or invalid (4.3)."""
    if b"traceparent" not in request.headers:
        return _new_trace()
    given = request.header_values(b"traceparent")
    # If there are several values, none is more likely to be right than the others.
    found = _read_parent(given[0]) if len(given) == 1 else None
    if found is None:
        return _new_trace()
    trace_id, parent_id, flags = found
    return TraceContext(trace_id, parent_id, flags, _read_state(request.header_values(b"tracestate")))


def trace_of(request: Request) -> TraceContext:
    """Return the trace context of a request, the same one for all callers.

    It is the caller's context, or a new one; if spans are exported, its parent is the request's own span.
    """
    outer = request.outer
    if outer is not None:
        return trace_of(outer)
    trace = request.trace
    if trace is None:
        application = request.application
        begin = continue_trace if application is None else application.begin_trace
        trace = request.trace = begin(request)
    return trace


def forwarded(request: Request) -> dict[str, str]:
    """Return the headers that continue the request's trace in a request to another service.

    If the gateway has no spans of its own, it passes on the caller's context unchanged, so that the caller's
    span is the parent of the next one.
    """
    headers = trace_of(request).headers()
    record = (request.outer or request).record
    if record is not None and record.begun is None:
        record.begin(request)
    return headers


# Unused new contexts: random digits for many of them are read from the system at a time.
_new_contexts: list[TraceContext] = []
_NEW_AT_ONCE = 64
if hasattr(os, "register_at_fork"):
    # Two processes must not have the same ids.
    os.register_at_fork(after_in_child=_new_contexts.clear)


def _new_trace() -> TraceContext:
    """Return a context with random ids, neither of them zero."""
    while not _new_contexts:
        digits = os.urandom(_NEW_AT_ONCE * 24).hex()
        if _ZEROS not in digits:
            ids = zip(*_RANDOM.findall(digits), strict=True)
            # The class itself takes a Python function for each.
            rest = repeat(0), repeat(""), repeat(True)
            _new_contexts.extend(map(partial(tuple.__new__, TraceContext), zip(*ids, *rest, strict=False)))
    return _new_contexts.pop()


def _read_parent(value: bytes) -> tuple[str, str, int] | None:
    """Return trace id, parent id and known flags; ``None`` if the value is invalid (3.2)."""
    found = _PARENT.match(value)
    if found is None:
        return None
    version, trace_id, parent_id, flags = found.groups()
    rest = value[found.end() :]
    # A later version may only append to the fields of this one (3.2.4).
    if version == b"ff" or (rest and (version == _NEWEST or rest[:1] != b"-")):
        return None
    if trace_id == _NO_TRACE or parent_id == _NO_PARENT:
        return None
    return trace_id.decode("ascii"), parent_id.decode("ascii"), int(flags, 16) & SAMPLED


def _read_state(values: Sequence[bytes]) -> str:
    """Return the members of ``tracestate`` as one list, ``""`` if any of them is invalid (3.3)."""
    members = [member for value in values for one in value.split(b",") if (member := one.strip(b" \t"))]
    if len(members) > _MOST_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    return b",".join(members).decode("ascii")
