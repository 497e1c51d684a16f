"""The meaning of a batch's lines apart from key and value: parsed once for all lines with the same members.

The lines of a bulk load differ only in keys and values. The first line with certain members goes through the
general parser, up to the request that its plan makes; for the other lines this request is copied.
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
from gateway.batches.lines import DenseLine, LineOperation, limits_of, plan_of, read_operation
from gateway.cluster.timelimits import NO_LIMITS, TimedConnection
from gateway.dialect.errors import Refusal
from gateway.dialect.places import place_of
from gateway.http.known import Known
from gateway.operations.kind import Kind
from txcouchbase.limited import TimeBudget

__all__ = ["Form", "Forms", "with_value_last"]

MOST_FORMS = 256
MOST_BYTES = 1024
"""Longest text of members, without key, version and value, that is cached, in bytes."""

# Members that are neither objects nor lists, formatted as JSON libraries do it: in such a text, every name is
# that of a member of the line itself.
_MEMBER = rb'"[A-Za-z_0-9]{1,32}": ?(?:"[ !#-\[\]-~]*"|-?[0-9]{1,20}|true|false|null)'
_is_head = re.compile(rb"\{(?:%b, ?)*\Z" % _MEMBER).match
_is_tail = re.compile(rb'(?:, ?%b)*(?:, ?"value":|\}[ \t\r\n]*)\Z' % _MEMBER).match
_find_cas = re.compile(rb', ?"cas": ?"([0-9A-Fa-f]{1,16})"').search
_find_text = re.compile(rb', ?"text": ?"([ !#-\[\]-~]+)"').search

# Placeholders for a version or a text that was cut out. No line contains them.
_CAS, _TEXT = b"\n", b"\r\n"


_find_behind = re.compile(rb"((?:, ?%b)+)\}[ \t\r\n]*\Z" % _MEMBER).search


def with_value_last(line: bytes, at: int) -> bytes | None:
    """Return a line with the members after its value moved before it; ``None`` if there are none.

    If the line is an object, so is the result, with the same members.

    :param at: position of the value.
    """
    found = _find_behind(line, max(at, len(line) - MOST_BYTES))
    if found is None or b'"value"' in found[1]:
        return None
    name = at - len(b'"value":')
    return b"%b%b,%b}" % (line[:name], found[1].lstrip(b", "), line[name : found.start()])


class Form:
    """The meaning of lines with the same members."""

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
    """The value that is sent if the line has neither ``value`` nor ``text``."""
    specs: Any
    """The paths that it reads or changes, ``None`` for other operations."""
    cas: int
    """The line's version, unless it was cut out."""
    seconds: float | None
    """The operation's timeout; ``None`` for the connection's."""
    scope: str | None
    """The scope that the line names."""
    collection: str | None
    takes_value: bool
    """Whether the line ends with its ``value``."""
    name: str
    """The SDK's name of the operation; like the next two attributes, it is used to explain failures."""
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
    """A cache that gives ``None`` for unknown members."""

    def __missing__(self, members: bytes) -> None:
        return None


class Forms:
    """A cache of the forms of lines.

    :param now: returns the Unix time in seconds.
    :param seconds: the connection's timeout of an operation, in seconds.
    """

    def __init__(self, now: Callable[[], float], seconds: float = 2.5) -> None:
        self.known = _Known(MOST_FORMS)
        """The text of a line without key and ``value`` -> its form; ``None`` if it is not known yet."""
        # Forms that depend on the time and are valid for this second; and members without a form.
        self._passing: Known[bytes, Form] = Known(MOST_FORMS)
        self._general: Known[bytes, bool] = Known(MOST_FORMS)
        self._now, self._second = now, 0
        self._seconds = seconds

    def follow(self, seconds: float) -> None:
        """Take the connection's timeout, which determines the time for a durability level."""
        if seconds != self._seconds:
            self._seconds = seconds
            for known in (self.known, self._passing):
                known.clear()

    def find(self, line: bytes, head: bytes, tail: bytes, at: int) -> tuple[Form, int, bytes] | None:
        """Return the form of a line that is not :attr:`known`, its version, and its text.

        :param head: the text before the key's member.
        :param tail: the text after that member: up to ``"value":``, or all of it.
        :param at: where ``tail`` ends.
        :returns: ``None`` for a line that needs the general parser: it is invalid, has an unusual format, or
            needs more than one request.
        """
        if not _is_head(head):
            return None
        if not _is_tail(tail):
            # There are objects or lists: what looked like the value may be a part of them.
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
        """Parse a line with the general parser."""
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
        except (Refusal, CouchbaseError, DenseLine):
            return None
        except _NotOneRequest:
            self._general.learn(members, True)
            return None
        assert line.kind is not None
        form = Form(line, request, takes_value=takes_value)
        # There is a value among the members, which will differ in the next line.
        if len(members) <= MOST_BYTES and (takes_value or is_cut or not line.kind.has_value):
            (self._passing if passing else self.known).learn(members, form)
        return form


# ---- the requests that plans make ----------------------------------------------------------------


class _NotOneRequest(Exception):
    """The operation needs more than one request, or more than one node."""


class _Asked(Request):
    """A request that is not sent."""

    __slots__ = ("seconds",)

    seconds: float | None


class _Maker(Commands[Any, Any, Any, Any, Any, Any, Any, Any]):
    """The operations of a connection; returns requests instead of executing them.

    :param seconds: the connection's timeout of an operation, in seconds.
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
    """Returns requests unchanged."""

    def __init__(self, seconds: float, budget: TimeBudget | None) -> None:
        super().__init__()
        self.timeout = seconds
        self._budget = budget

    @property
    def level_ms(self) -> int:
        """The cluster's timeout for a durability level, in milliseconds."""
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


# The clock stands still: the line's whole timeout is left.
_STILL = Clock()
