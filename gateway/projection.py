"""``?project=a,b.c,d[0]``: parts of a JSON document, copied out of it byte for byte.

The parts are cut out of the stored text and never parsed and printed again, so numbers keep all
their digits. Rules of the Data API: paths that lead nowhere are left out, ``null`` if none leads
anywhere; elements of an array come back as an array of just those.
"""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from operator import itemgetter
from typing import Any

from gateway.errors import Refusal, bad_request

__all__ = ["Path", "member_text", "parse_projection", "project"]

Path = tuple[str | int, ...]
"""Member names and array indexes, outermost first."""

MAX_LEVELS = 32
"""Levels of a path, as the protocol limits them."""

_NAME = re.compile(r"[^.,\[\]`]+")
_QUOTED = re.compile(r"`((?:[^`]|``)+)`")
_INDEX = re.compile(r"\[(0|-1|[1-9][0-9]{0,8})\]")
_SPACE = re.compile(r"[ \t\n\r]*")


def parse_projection(text: str) -> list[tuple[str, Path]]:
    """Read the value of ``project``.

    Names are separated by dots and may be quoted with backticks (a backtick inside is doubled);
    ``[n]`` is an element, ``[-1]`` the last.

    :returns: each path as written, and its steps.
    :raises Refusal: 400, for a path that is none.
    """
    paths: list[tuple[str, Path]] = []
    at = 0
    while True:
        begin = at
        steps: list[str | int] = []
        while True:
            name = _QUOTED.match(text, at) or _NAME.match(text, at)
            if name is not None and (not steps or text[at - 1] == "."):
                steps.append(name[1].replace("``", "`") if name.re is _QUOTED else name[0])
                at = name.end()
            elif steps or not _INDEX.match(text, at):
                raise _bad_path(text[begin:])
            while (index := _INDEX.match(text, at)) is not None:
                steps.append(int(index[1]))
                at = index.end()
            if text[at : at + 1] != ".":
                break
            at += 1
        if len(steps) > MAX_LEVELS:
            raise bad_request(f"project: a path has more than {MAX_LEVELS} levels: {text[begin:at][:80]!r}")
        paths.append((text[begin:at], tuple(steps)))
        if at == len(text):
            return paths
        if text[at] != ",":
            raise _bad_path(text[begin:])
        at += 1


def _bad_path(text: str) -> Refusal:
    return bad_request(
        f"project: {text[:80]!r} does not begin with a path such as a, b.c or d[0]; "
        "names with other signs are put in backticks"
    )


class _Node(dict[str | int, "_Node"]):
    """What is wanted below one step. ``path`` is set where the wanted part ends."""

    path: str | None = None
    any_path: str = ""


def _tree(paths: list[tuple[str, Path]]) -> _Node:
    root = _Node()
    for text, steps in paths:
        node = root
        node.any_path = node.any_path or text
        for step in steps:
            node = node.setdefault(step, _Node())
            node.any_path = node.any_path or text
        node.path = text
    return root


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_scan = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]


def _cut(text: str, at: int, wanted: _Node) -> tuple[str | None, int]:
    """Return the wanted parts of the value at ``at`` as JSON (``None``: there are none), and its end.

    The whole document was checked before, so the text is JSON here.
    """
    if wanted.path is not None:
        end = _scan(text, at)[1]
        return text[at:end], end
    first = text[at]
    is_object = isinstance(next(iter(wanted)), str)
    if any(isinstance(step, str) != is_object for step in wanted) or first != ("{" if is_object else "["):
        raise Refusal("PathMismatch", None, path=wanted.any_path)
    return _cut_object(text, at, wanted) if is_object else _cut_array(text, at, wanted)


def _cut_object(text: str, at: int, wanted: _Node) -> tuple[str | None, int]:
    found: dict[str | int, str] = {}
    at = _skip(text, at + 1)
    while text[at] != "}":
        name, at = scanstring(text, at + 1)
        at = _skip(text, _skip(text, at) + 1)
        below = wanted.get(name)
        # Of a repeated name the first counts, as in the protocol's sub-document reads.
        if below is None or name in found:
            at = _scan(text, at)[1]
        else:
            part, at = _cut(text, at, below)
            if part is not None:
                found[name] = part
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    parts = [f"{json.dumps(name, ensure_ascii=False)}:{found[name]}" for name in wanted if name in found]
    return ("{" + ",".join(parts) + "}" if parts else None), at + 1


def _cut_array(text: str, at: int, wanted: _Node) -> tuple[str | None, int]:
    starts = []
    at = _skip(text, at + 1)
    while text[at] != "]":
        starts.append(at)
        at = _skip(text, _scan(text, at)[1])
        if text[at] == ",":
            at = _skip(text, at + 1)
    parts = []
    last = len(starts) - 1
    # _cut saw to it that these steps are all indexes.
    indexes = [(last if step == -1 else int(step), below) for step, below in wanted.items()]
    for index, below in sorted(indexes, key=itemgetter(0)):
        if 0 <= index < len(starts):
            part = _cut(text, starts[index], below)[0]
            if part is not None:
                parts.append(part)
    return ("[" + ",".join(parts) + "]" if parts else None), at + 1


def project(document: bytes, paths: list[tuple[str, Path]]) -> bytes:
    """Return the parts of ``document`` that ``paths`` name, as JSON.

    :raises Refusal: 400 DocumentNotJson; 400 PathMismatch if a path goes through a value of
        another type, with the path; 400 DocumentTooDeep.
    """
    try:
        text = document.decode("utf-8")
        start = _skip(text, 0)
        if _skip(text, _scan(text, start)[1]) != len(text):
            raise Refusal("DocumentNotJson")
        part = _cut(text, start, _tree(paths))[0]
    except RecursionError:
        raise Refusal("DocumentTooDeep") from None
    except ValueError:
        raise Refusal("DocumentNotJson") from None
    return b"null" if part is None else part.encode("utf-8")


def member_text(document: bytes, name: str) -> bytes:
    """Return the text of a member of a JSON object as it is written there; the last one counts.

    :param document: a JSON object that has the member.
    """
    text = document.decode("utf-8")
    found = ""
    at = _skip(text, _skip(text, 0) + 1)
    while text[at] != "}":
        member, at = scanstring(text, at + 1)
        start = _skip(text, _skip(text, at) + 1)
        end = _scan(text, start)[1]
        if member == name:
            found = text[start:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found.encode("utf-8")
