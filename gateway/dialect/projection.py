"""``?project=a,b.c,d[0]``: parts of a JSON document, copied byte for byte.

The parts are cut out of the stored text, never parsed and serialized again, so numbers keep all their digits.
Rules of the Data API: paths without a match are left out, ``null`` if none matches; selected elements of an
array are returned as an array of only these elements.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from itertools import islice
from operator import itemgetter

from couchbase.protocol.jsontext import (
    STEP_BYTES,
    NotJson,
    TooDeep,
    at_once,
    check,
    members,
    past_blanks,
    skip,
)
from gateway.dialect.errors import PathMismatch, Refusal, bad_request
from gateway.dialect.jsontools import fast_loads
from gateway.dialect.quickprojection import known_part, plain_members, quoted

__all__ = ["Path", "member_text", "object_members", "parse_projection", "project", "projecting"]

Path = tuple[str | int, ...]
"""Member names and array indexes, outermost first."""


class Projection(list[tuple[str, Path]]):
    """Paths: each as written, and its steps.

    :ivar names: if each path is a plain member name, and none is repeated: these names, also in their JSON
        form.
    :ivar tree: the paths as a tree; ``None`` if two may lead to one element, by its index and as the last.
    """

    names: tuple[tuple[str, bytes], ...] = ()
    tree: _Node | None = None


MAX_LEVELS = 32
"""Largest number of levels in a path, as in the protocol."""

_NAME = re.compile(r"[^.,\[\]`]+")
_QUOTED = re.compile(r"`((?:[^`]|``)+)`")
_INDEX = re.compile(r"\[(0|-1|[1-9][0-9]{0,8})\]")


def parse_projection(text: str) -> Projection:
    """Read the value of ``project``.

    Names are separated by dots and may be quoted with backticks (a backtick inside is doubled);
    ``[n]`` is an element, ``[-1]`` the last.

    :returns: each path as written, and its steps.
    :raises Refusal: 400 for an invalid path.
    """
    paths = Projection()
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
            names = [steps[0] for _, steps in paths if len(steps) == 1]
            if len(names) == len(paths) == len(set(names)) and all(map(_is_plain, names)):
                paths.names = tuple((str(name), quoted(name)) for name in names)
            if len(paths) == 1 or all(-1 not in steps for _, steps in paths):
                paths.tree = _tree(paths)
            return paths
        if text[at] != ",":
            raise _bad_path(text[begin:])
        at += 1


def _is_plain(name: str | int) -> bool:
    """Return whether a text without backslashes can have only one spelling of a name, which cannot also be
    the text between two strings."""
    return isinstance(name, str) and name.isidentifier()


def _bad_path(text: str) -> Refusal:
    return bad_request(
        f"project: {text[:80]!r} does not begin with a path such as a, b.c or d[0]; "
        "names with other characters must be in backticks"
    )


class _Node(dict[str | int, "_Node"]):
    """The wanted parts below one step. ``path`` is set if a wanted part ends here."""

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


_SCALAR_RUN = re.compile(rb'[^"\[\]{}]*')
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_FLAT = rb"[\[{][^\"\[\]{}]*(?:" + _STRING + rb"[^\"\[\]{}]*)*[\]}]"
_ITEM = re.compile(
    rb"(?:[ \t\r\n]*(?:" + _STRING + rb"|" + _FLAT + rb")[ \t\r\n]*|[^\"\[\]{},]+),", re.DOTALL
)
_WHOLE = re.compile(_STRING + rb"|" + _FLAT, re.DOTALL)
_ITEMS = re.compile(rb"(?:" + _ITEM.pattern + rb")*", re.DOTALL)
_MEMBER = re.compile(
    rb"("
    + _STRING
    + rb")[ \t\r\n]*:[ \t\r\n]*(?:("
    + _STRING
    + rb"|"
    + _FLAT
    + rb")|([^\"\[\]{}, \t\r\n]+))?",
    re.DOTALL,
)
_MEMBERS = re.compile(
    rb"(?:[ \t\r\n]*" + _STRING + rb"[ \t\r\n]*:(?:[ \t\r\n]*(?:" + _STRING + rb"|" + _FLAT
    + rb")[ \t\r\n]*|[^\"\[\]{},]+),)*",
    re.DOTALL,
)  # fmt: skip
_BLANKS = re.compile(rb"[ \t\r\n,]*")
_FEW = 32
_MOST_SOUGHT = 16
"""Largest number of names to search for in a whole run of members; with more, each member is looked up."""

_SMALL_BYTES = 2**16
"""A document up to this size in bytes is checked in one step."""

_OVERHEAD_BYTES = 48
"""Cost of a member or element that is visited individually, in addition to its length."""

_MOST_PASSES = 64
"""Limit on the work, in multiples of the document's length; paths without repetition need less."""

_Part = list["bytes | memoryview"]
_Cut = Generator[None, None, tuple["_Part | None", int]]


class _Cutter:
    """Cuts parts out of one document, in steps: each generator yields after a few milliseconds of work.

    :param text: JSON.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._view = memoryview(text)
        self._step = STEP_BYTES
        self._left = _MOST_PASSES * (len(text) + STEP_BYTES)

    def _pause(self, size: int) -> bool:
        """Count work on so many bytes; return whether it is time to yield."""
        self._step -= size
        if self._step > 0:
            return False
        self._left -= STEP_BYTES - self._step
        self._step = STEP_BYTES
        if self._left < 0:
            raise bad_request("project: the paths lead through the same elements too often; name each once")
        return True

    def cut(self, at: int, wanted: _Node, needs_end: bool) -> _Cut:
        """Return the wanted parts of the value at ``at`` (``None`` if there are none), and the value's end.

        :param needs_end: if false, the returned end may be any number.
        """
        text = self._text
        if wanted.path is not None:
            match = _WHOLE.match(text, at, at + STEP_BYTES)
            if match is not None:
                return [match[0]], match.end()
            end = yield from skip(text, at)
            if self._pause(end - at):
                yield
            return [self._view[at:end]], end
        first = text[at]
        is_object = isinstance(next(iter(wanted)), str)
        if any(isinstance(step, str) != is_object for step in wanted) or first != (
            0x7B if is_object else 0x5B
        ):
            raise PathMismatch(wanted.any_path)
        return (yield from (self._object if is_object else self._array)(at, wanted, needs_end))

    def _object(self, at: int, wanted: _Node, needs_end: bool) -> _Cut:
        text = self._text
        names = {quoted(name): name for name in wanted}
        sought = list(names) if len(names) <= _MOST_SOUGHT else []
        found: dict[bytes, _Part | None] = {}
        at += 1
        while True:
            limit = at + STEP_BYTES
            at = _BLANKS.match(text, at, limit).end()  # type: ignore[union-attr]
            if at == limit:
                at = yield from past_blanks(text, at)
            if text[at] == 0x7D:
                break
            limit = at + STEP_BYTES
            if sought and len(text) - at > _SMALL_BYTES:
                end = _MEMBERS.match(text, at, limit).end()  # type: ignore[union-attr]
                if end > at and not self._may_have(at, end, sought):
                    if self._pause(end - at):
                        yield
                    at = end
                    continue
            match = _MEMBER.match(text, at, limit)
            begin = at
            end = 0
            if match is not None:
                name = match[1]
                if match[2] is not None or (match[3] is not None and match.end() < limit):
                    start = match.start(match.lastindex or 0)
                    end = match.end()
                else:
                    start = yield from past_blanks(text, match.end(1))
            else:
                at = yield from skip(text, at)
                name = text[begin:at]
                start = yield from past_blanks(text, at)
            if b"\\" in name:
                name = json.dumps(json.loads(name), ensure_ascii=False).encode("utf-8", "surrogatepass")
            # The first of repeated names counts, as in the protocol's sub-document reads.
            if name in names and name not in found:
                goes_on = needs_end or len(found) + 1 < len(names)
                found[name], at = yield from self.cut(start, wanted[names[name]], goes_on)
                if not goes_on:
                    break
            else:
                at = end or (yield from skip(text, start))
            if self._pause(at - begin + _OVERHEAD_BYTES):
                yield
        part: _Part = []
        for name in names:
            below = found.get(name)
            if below is not None:
                part += [b"," if part else b"{", name, b":", *below]
        return ([*part, b"}"] if part else None), at + 1

    def _may_have(self, at: int, end: int, sought: list[bytes]) -> bool:
        find = self._text.find
        if find(b"\\", at, end) >= 0:
            return True
        return any(find(name, at, end) >= 0 for name in sought)

    def _array(self, at: int, wanted: _Node, needs_end: bool) -> _Cut:
        text = self._text
        # cut() has checked that these steps are all indexes.
        targets = sorted((int(step) for step in wanted if step != -1), reverse=True)
        parts: dict[int, _Part | None] = {}
        wants_last = -1 in wanted
        count = 0
        last = 0
        at = yield from past_blanks(text, at + 1)
        while text[at] != 0x5D:
            # The element number `count` begins at `at`.
            if targets and targets[-1] == count:
                index = targets.pop()
                goes_on = needs_end or wants_last or bool(targets)
                last = at
                parts[index], at = yield from self.cut(at, wanted[index], goes_on)
                if not goes_on:
                    break
            else:
                passed, after = self._run(at, targets[-1] - count if targets else None)
                if passed:
                    if self._pause(after - at):
                        yield
                    count += passed
                    at = yield from past_blanks(text, after)
                    last = at
                    continue
                last = at
                at = yield from skip(text, at)
            count += 1
            if self._pause(at - last + _OVERHEAD_BYTES):
                yield
            limit = at + STEP_BYTES
            at = _BLANKS.match(text, at, limit).end()  # type: ignore[union-attr]
            if at == limit:
                at = yield from past_blanks(text, at)
        if wants_last and count:
            parts[-1] = (yield from self.cut(last, wanted[-1], False))[0]
        resolved = [(count - 1 if step == -1 else int(step), parts.get(int(step))) for step in wanted]
        result: _Part = []
        for _, part in sorted(resolved, key=itemgetter(0)):
            if part is not None:
                result += [b"," if result else b"[", *part]
        return ([*result, b"]"] if result else None), at + 1

    def _run(self, at: int, most: int | None) -> tuple[int, int]:
        """Skip elements followed by commas: return their number, and the position of the next one.

        :param most: largest number to skip.
        """
        text = self._text
        limit = at + STEP_BYTES
        end = text.rfind(b",", at, _SCALAR_RUN.match(text, at, limit).end()) + 1  # type: ignore[union-attr]
        if end:
            count = text.count(b",", at, end)
            if most is None or count <= most:
                return count, end
            for _ in range(most):
                at = text.find(b",", at) + 1
            return most, at
        if most is not None and most < _FEW:
            count = 0
            while count < most and (match := _ITEM.match(text, at, limit)) is not None:
                at = match.end()
                count += 1
            return count, at
        end = _ITEMS.match(text, at, limit).end()  # type: ignore[union-attr]
        count = len(_ITEM.findall(text, at, end))
        if most is not None and count > most:
            for match in islice(_ITEM.finditer(text, at, end), most):
                at = match.end()
            return most, at
        return count, end


def projecting(document: bytes, paths: list[tuple[str, Path]]) -> Generator[None, None, bytes]:
    """Return the parts of ``document`` that ``paths`` name, as JSON; yields after each step of work.

    :raises Refusal: 400 DocumentNotJson; 400 PathMismatch if a path goes through a value of
        another type, with the path; 400 DocumentTooDeep; 400 InvalidArgument if paths select the same
        elements so often, by number and as the last one, that the work would be excessive.
    """
    try:
        if len(document) > _SMALL_BYTES:
            yield from check(document, fast_loads)
        else:
            try:
                fast_loads(document)
            except ValueError:
                yield from check(document)
    except TooDeep:
        raise Refusal("DocumentTooDeep") from None
    except NotJson:
        raise Refusal("DocumentNotJson") from None
    start = yield from past_blanks(document, 0)
    part = (yield from _Cutter(document).cut(start, _tree(paths), False))[0]
    if part is None:
        return b"null"
    return b"".join(part)


def project(document: bytes, paths: list[tuple[str, Path]]) -> bytes:
    """Do all of :func:`projecting` at once."""
    if isinstance(paths, Projection) and len(document) <= _SHORT_BYTES:
        part = plain_members(document, paths.names) if paths.names else None
        if part is None and paths.tree is not None:
            part = known_part(document, paths.tree)
        if part is not None:
            return part
    return at_once(projecting(document, paths))


_SHORT_BYTES = 8192
"""Documents up to this size in bytes take the fast path."""


def object_members(document: bytes) -> Generator[None, None, list[tuple[bytes, int, int]]]:
    """Return (name as written, start and end of the value) of each member of a JSON object, in steps."""
    start = yield from past_blanks(document, 0)
    return (yield from members(document, start))


def member_text(document: bytes, name: str) -> bytes:
    """Return the text of a JSON object's member, unchanged; if the member is repeated, the last one counts.

    :param document: a JSON object that has the member.
    """
    found = b""
    for written, start, end in at_once(object_members(document)):
        if json.loads(written) == name:
            found = document[start:end]
    return found
