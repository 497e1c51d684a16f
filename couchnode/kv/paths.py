"""The paths of sub-document commands: dots between names, brackets around indexes, back quotes around names
that contain dots or brackets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from couchbase.protocol.constants import Status
from couchnode.data.item import StatusError

MAX_STEPS = 31
"""Most steps of a path: a document has up to 32 levels, and its root is one of them."""

Component = bytes | int
"""One step of a path: a member's key as JSON escapes it, or an index (-1 is the last)."""

Steps = Sequence[Component]

_MAX_INDEX = 2**64
# A name ends at a dot, a bracket or the end of the path. Back quotes in it are paired. Inside and outside of
# them, a name has no double quote, no control character and no invalid JSON escape.
_SIGN = rb'(?:[^"\\\x00-\x1f%b]|\\["/\\bfnrt])'
_PLAIN, _QUOTED = _SIGN % rb"`.\[\]", rb"`" + _SIGN % rb"`" + rb"*`"
_NAME = re.compile(rb"(?:" + _PLAIN + rb"|" + _QUOTED + rb")+")
_INDEX = re.compile(rb"\[(-1|[0-9]*)\]")
_DOT, _OPEN_ARRAY, _BACK_QUOTE = b".[`"


@lru_cache(maxsize=1024)
def parse_path(path: bytes) -> Steps:
    """Split a path into its steps; an empty path has none.

    ``a.b``, ``a[0].b`` and ``a.[0]`` have the usual meaning; ``[-1]`` is the last element. In back quotes,
    dots and brackets are part of a name; a doubled back quote is a literal one. A final dot is ignored.

    :raises StatusError: SUBDOC_PATH_E2BIG over 31 steps, SUBDOC_PATH_EINVAL.
    """
    steps: list[Component] = []
    at, end = 0, len(path)
    while at < end:
        if path[at] == _OPEN_ARRAY:
            match = _INDEX.match(path, at)
            step: Component = _index(match[1]) if match is not None else -2
            if match is None or step == _MAX_INDEX:
                raise StatusError(Status.SUBDOC_PATH_EINVAL)
            if match.end() < end and path[match.end()] not in (_DOT, _OPEN_ARRAY):
                raise StatusError(Status.SUBDOC_PATH_EINVAL)
        else:
            match = _NAME.match(path, at)
            if match is None or (match.end() < end and path[match.end()] not in (_DOT, _OPEN_ARRAY)):
                raise StatusError(Status.SUBDOC_PATH_EINVAL)
            step = _unquoted(match[0])
            if not step:
                raise StatusError(Status.SUBDOC_PATH_EINVAL)
        if len(steps) == MAX_STEPS:
            raise StatusError(Status.SUBDOC_PATH_E2BIG)
        steps.append(step)
        at = match.end()
        if at < end and path[at] == _DOT:
            at += 1
    return tuple(steps)


def _index(digits: bytes) -> int:
    return min(int(digits or b"0"), _MAX_INDEX)


def _unquoted(name: bytes) -> bytes:
    """Return a name without the back quotes that are not part of it."""
    if _BACK_QUOTE not in name:
        return name
    if len(name) > 1 and name[0] == name[-1] == _BACK_QUOTE:
        name = name[1:-1]
    return b"`".join(part.replace(b"`", b"") for part in name.split(b"``"))
