"""What the lines of a batch ask for, apart from the document: read once for all lines that say the same.

The lines of a load differ in keys and values, and have the same other members. The first line with such
members is read in the general way, up to the request that its plan makes; the others become copies of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.task import Clock

from couchbase.commands import Commands
from couchbase.driver import Driver
from couchbase.exceptions import CouchbaseError
from couchbase.protocol import operations
from couchbase.protocol.keyspace import DEFAULT_NAME
from couchbase.protocol.request import Operation, Request
from couchbase.transcoder import RawTranscoder
from gateway.batches.lines import LineOperation, limits_of, plan_of, read_operation
from gateway.cluster.timelimits import NO_LIMITS, TimedConnection
from gateway.dialect.errors import Refusal
from gateway.dialect.places import place_of
from gateway.http.known import Known
from gateway.operations.kind import Kind
from txcouchbase.limited import TimeBudget

__all__ = ["Form", "Forms", "with_value_last"]

MOST_FORMS = 256
MOST_BYTES = 1024
"""Longest members, without key, version and value, that are remembered."""

# Members that are neither objects nor lists, in the format of every JSON library: in such a text no name can
# be anything but that of a member of the line itself.
_MEMBER = rb'"[A-Za-z_0-9]{1,32}": ?(?:"[ !#-\[\]-~]*"|-?[0-9]{1,20}|true|false|null)'
_is_head = re.compile(rb"\{(?:%b, ?)*\Z" % _MEMBER).match
_is_tail = re.compile(rb'(?:, ?%b)*(?:, ?"value":|\}[ \t\r\n]*)\Z' % _MEMBER).match
_find_cas = re.compile(rb', ?"cas": ?"([0-9A-Fa-f]{1,16})"').search
_find_text = re.compile(rb', ?"text": ?"([ !#-\[\]-~]+)"').search

# Where a version, or a text, was cut out. No line contains them.
_CAS, _TEXT = b"\n", b"\r\n"


_find_behind = re.compile(rb"((?:, ?%b)+)\}[ \t\r\n]*\Z" % _MEMBER).search


def with_value_last(line: bytes, at: int) -> bytes | None:
    """Return a line with the members behind its value in front of it; ``None`` if there are none.

    If the line is an object, so is the result, with the same members.

    :param at: where the value begins.
    """
    found = _find_behind(line, max(at, len(line) - MOST_BYTES))
    if found is None or b'"value"' in found[1]:
        return None
    name = at - len(b'"value":')
    return b"%b%b,%b}" % (line[:name], found[1].lstrip(b", "), line[name : found.start()])


class Form:
    """What lines with the same members ask for."""

    __slots__ = (
        "cas",
        "cas_given",
        "collection",
        "durable",
        "extras",
        "framing",
        "is_get",
        "kind",
        "name",
        "operation",
        "scope",
        "seconds",
        "specs",
        "takes_value",
        "value",
    )

    kind: Kind
    """The row of the operation."""
    operation: Operation
    extras: bytes
    framing: bytes
    value: bytes
    """What is sent if the line has neither ``value`` nor ``text``."""
    specs: Any
    """The paths that it reads or changes, ``None`` for other operations."""
    cas: int
    """The version that the line names, unless it was cut out."""
    seconds: float | None
    """The operation's timeout; ``None`` for the connection's."""
    scope: str | None
    """The line's own scope."""
    collection: str | None
    takes_value: bool
    """Whether the line ends with its ``value``."""
    name: str
    """The SDK's name of the operation, which explains failures, like the next two."""
    cas_given: bool
    durable: bool
    is_get: bool
    """Whether it is a read without any options."""

    def __init__(self, line: LineOperation, request: _Asked, *, takes_value: bool) -> None:
        assert line.kind is not None
        self.kind, self.operation = line.kind, request.operation
        self.extras, self.framing, self.value = request.extras, request.framing, request.value
        self.specs = getattr(request, "specs", None)
        self.cas, self.seconds = request.cas, request.seconds
        self.scope, self.collection = line.members.get("scope"), line.members.get("collection")
        self.takes_value = takes_value
        self.name, self.cas_given, self.durable = line.operation, line.cas_given, line.durable
        self.is_get = request.operation is operations.GET and self.seconds is None


class _Known(Known[bytes, Form]):
    """``None`` for what is not known."""

    def __missing__(self, members: bytes) -> None:
        return None


class Forms:
    """The forms of lines that were read before.

    :param now: returns the Unix time in seconds.
    :param seconds: the connections' timeout of an operation.
    """

    def __init__(self, now: Callable[[], float], seconds: float = 2.5) -> None:
        self.known = _Known(MOST_FORMS)
        """The form of lines without key and ``value``; ``None`` if it is not known yet."""
        # Those that depend on the time, of this second; and members that have none.
        self._passing: Known[bytes, Form] = Known(MOST_FORMS)
        self._general: Known[bytes, bool] = Known(MOST_FORMS)
        self._now, self._second = now, 0
        self._seconds = seconds

    def follow(self, seconds: float) -> None:
        """Take the connections' timeout, on which the time for a durability level depends."""
        if seconds != self._seconds:
            self._seconds = seconds
            for known in (self.known, self._passing):
                known.clear()

    def find(self, line: bytes, head: bytes, tail: bytes, at: int) -> tuple[Form, int, bytes] | None:
        """Return the form of a line that is not :attr:`known`, its version, and its text.

        :param head: what is before the key's member.
        :param tail: what is behind that member: as far as ``"value":``, or all of it.
        :param at: where ``tail`` ends.
        :returns: ``None`` for a line that has to be read in the general way: it is wrong, in a rare format,
            or asks for more than one request.
        """
        if not _is_head(head):
            return None
        if not _is_tail(tail):
            # Objects or lists: what looked like the value may be a part of them.
            form = self._find(head + line[at - len(tail) :], line, takes_value=False)
            return None if form is None else (form, form.cas, form.value)
        takes_value = tail.endswith(b'"value":')
        whole = line[:at] + b"0}" if takes_value else line
        cas = _find_cas(tail)
        if cas is not None:
            tail = tail[: cas.start()] + _CAS + tail[cas.end() :]
        text = _find_text(tail)
        if text is not None:
            tail = tail[: text.start()] + _TEXT + tail[text.end() :]
        form = self._find(head + tail, whole, takes_value=takes_value, is_cut=text is not None)
        if form is None:
            return None
        version = form.cas if cas is None else int(cas[1], 16)
        if cas is not None and not version:
            return None
        return form, version, form.value if text is None else text[1]

    def _find(self, members: bytes, line: bytes, *, takes_value: bool, is_cut: bool = False) -> Form | None:
        if members in self._general:
            return None
        form = self.known[members]
        if form is None:
            second = int(self._now())
            if second != self._second:
                self._second = second
                self._passing.clear()
            form = self._passing.get(members) or self._learn(members, line, takes_value, is_cut)
        return form

    def _learn(self, members: bytes, whole: bytes, takes_value: bool, is_cut: bool) -> Form | None:
        """Read a line in the general way."""
        line, now = LineOperation(), self._now()
        try:
            read_operation(whole, line)
            if takes_value is not (line.raw_value is not None):
                return None
            plan = plan_of(line, now)
            place = line.members.get("scope", DEFAULT_NAME), line.members.get("collection", DEFAULT_NAME)
            if place_of(*place) != place:
                return None
            maker: Any = _Maker(self._seconds)
            limits = limits_of(line)
            if limits is not NO_LIMITS:
                maker = TimedConnection(maker, limits, _STILL)
            request = plan.start(maker, line.key, line)
            passing = plan != plan_of(line, 0.0)
        except (Refusal, CouchbaseError):
            return None
        except _NotOneRequest:
            self._general.learn(members, True)
            return None
        assert line.kind is not None
        form = Form(line, request, takes_value=takes_value)
        # A value among the members is another one in the next line.
        if len(members) <= MOST_BYTES and (takes_value or is_cut or not line.kind.has_value):
            (self._passing if passing else self.known).learn(members, form)
        return form


# ---- the requests that plans make ----------------------------------------------------------------


class _NotOneRequest(Exception):
    """The operation is more than one request, or asks more than one node."""


class _Asked(Request):
    """A request that nobody sends."""

    __slots__ = ("seconds",)

    seconds: float | None


class _Maker(Commands[Any, Any, Any, Any, Any, Any, Any, Any]):
    """The operations of a connection; returns requests in place of carrying them out.

    :param seconds: the connections' timeout of an operation.
    """

    _request_type = _Asked

    def __init__(self, seconds: float, budget: TimeBudget | None = None) -> None:
        self._driver = _KeepingDriver(seconds, budget)
        self._seconds = seconds
        self.transcoder = RawTranscoder()

    def limited(self, budget: TimeBudget) -> _Maker:
        """Return the same with the timeouts of one line."""
        return _Maker(self._seconds, budget)

    @property
    def configured_replica_count(self) -> int:
        """Refuse: the answer depends on the cluster."""
        raise _NotOneRequest


class _KeepingDriver(Driver[_Asked]):
    """Returns requests as they are."""

    def __init__(self, seconds: float, budget: TimeBudget | None) -> None:
        super().__init__()
        self.timeout = seconds
        self._budget = budget

    @property
    def level_ms(self) -> int:
        """Milliseconds that the cluster has for a durability level."""
        usual = super().level_ms
        return usual if self._budget is None else self._budget.level_ms(usual)

    def submit(self, request: _Asked, durability: tuple[int, int] | None = None) -> _Asked:
        """Return the request."""
        if durability is not None or request.replica is not None:
            raise _NotOneRequest
        request.seconds = None if self._budget is None else self._budget.seconds(self.timeout)
        return request

    def submit_level(self, request: _Asked) -> _Asked:
        """Return a synchronous write."""
        request.seconds = None if self._budget is None else self._budget.write_seconds(self.timeout)
        return request

    def _refuse(self, *given: object, **options: object) -> NoReturn:
        raise _NotOneRequest

    submit_to_replica = submit_multi = submit_observe = submit_endure = submit_stats = _refuse


# It stands still: all of a line's time is left.
_STILL = Clock()
