"""Fast path for the usual operations of a batch: directly from the line to the driver, and from there to the
answer.

Nearly every line of a load is a get, set, add, replace or delete with only the required members, in the
format of every JSON library. Such a line is recognised as a whole, and becomes a request to the driver
without a Deferred. Every other line is left to :mod:`gateway.batches.lines`, which knows all options and
reports errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from twisted.python.failure import Failure

from couchbase.protocol import operations
from couchbase.protocol.constants import MAX_COLLECTION_KEY_BYTES, MAX_KEY_BYTES
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace
from couchbase.protocol.request import Operation
from gateway.batches.answers import failure_line, success_line
from gateway.cluster.credentials import LineCheck
from gateway.dialect.contenttypes import FLAGS_JSON
from gateway.dialect.errors import describe, public_code
from gateway.dialect.jsontools import is_json
from gateway.dialect.places import DEFAULT_PLACE, Place
from gateway.operations.kind import Kind
from gateway.operations.lineresults import LongValue
from gateway.operations.table import OPERATIONS
from txcouchbase.calls import Call

__all__ = ["FastSlot", "Places", "SlotOwner", "checked", "fast_slot"]

# A key in UTF-8 without quotes, backslashes and control characters is its own JSON.
_usual_line = re.compile(
    rb'\{"op": ?"(get|set|add|replace|delete)"'
    rb'(?:, ?"scope": ?"([\w%%-]{1,251})")?(?:, ?"collection": ?"([\w%%-]{1,251})")?'
    rb', ?"key": ?("[ !#-\[\]-\xff]{1,%d}")'
    rb'(?:(\})[ \t\r\n]*\Z|(, ?"flags": ?(0|[1-9]\d{0,8}), ?"ttl": ?(0|[1-9]\d{0,8}|[1-3]\d{9}))?, ?"value":)'
    % MAX_KEY_BYTES
).match


class SlotOwner(Protocol):
    """The batch that a slot belongs to."""

    def log_bug(self, failure: Failure) -> None:
        """Log an unexpected failure."""

    def render_long(self, slot: Any, key_json: bytes, kind: Kind, result: Any) -> None:
        """Render the answer for a result whose value is long."""

    def slot_done(self, slot: Any, answer_bytes: int, outcome: str) -> None:
        """Note that a slot has its answer."""


class Places:
    """The collections that the lines of a batch are for.

    :param find: returns the keyspace of a scope and a collection.
    :param place: the collection of lines that name none.
    """

    def __init__(self, find: Callable[[str, str], Keyspace], place: Place) -> None:
        self.place = place
        self.default = DEFAULT_KEYSPACE if place == DEFAULT_PLACE else find(*place)
        """The keyspace of lines that name none."""
        self._find = find

    def find(self, scope: bytes | None, collection: bytes | None) -> Keyspace:
        """Return the keyspace of a line.

        :param scope: as the line names it, ``None`` if it does not; likewise the collection.
        """
        own_scope, own_collection = self.place
        return self._find(
            own_scope if scope is None else scope.decode(),
            own_collection if collection is None else collection.decode(),
        )

    def members(self, keyspace: Keyspace) -> bytes:
        """Return the members that name a line's collection, each with a comma behind it."""
        if keyspace is self.default:
            return b""
        return f'"scope":"{keyspace.scope}","collection":"{keyspace.collection}",'.encode()


class _Form(NamedTuple):
    """The request for an operation of that name without any options."""

    operation: Operation
    kind: Kind
    takes_value: bool
    extras: bytes
    framing: bytes


class FastSlot(Call):
    """One operation of a batch; the driver ends it with its outcome."""

    __slots__ = ("answer", "batch", "held", "index", "key_json", "kind")

    batch: SlotOwner
    index: int
    held: int
    """Its estimated size, in bytes."""
    key_json: bytes
    kind: Kind
    answer: bytes | None
    """The line of the answer, ``None`` while there is none."""

    def succeed(self, result: object) -> None:
        """Render the answer for a result."""
        if self.done:
            return
        try:
            self.answer = answer = success_line(self.index, self.key_json, self.kind, result)
        except LongValue:
            self._end()
            self.batch.render_long(self, self.key_json, self.kind, result)
            return
        except Exception as error:  # noqa: BLE001  # becomes the 500 of this operation, and is logged
            self.fail(error)
            return
        self.done = True
        if self.ended is not None:
            self.ended(self)
        self.batch.slot_done(self, len(answer), "ok")

    def fail(self, error: BaseException) -> None:
        """Render the answer for an error."""
        if self.done:
            return
        self._end()
        fault = describe(error, self.kind.name)
        if fault.is_bug:
            self.batch.log_bug(Failure(error))
        self.answer = answer = failure_line(self.index, self.key_json, fault)
        self.batch.slot_done(self, len(answer), public_code(fault.problem))

    def cancel(self, gone: Callable[[], None]) -> None:
        """Cancel the operation; there will be no answer.

        :param gone: called when nothing of it is in flight any more.
        """
        if self.done:
            # Its answer is being rendered.
            gone()
        else:
            self.give_up(gone)


def checked(start: Callable[[FastSlot], object], check: LineCheck) -> Callable[[FastSlot], object]:
    """Return a function that starts an operation only if the caller may do it.

    :param check: raises Refusal (403) if not.
    """

    def start_allowed(slot: FastSlot) -> object:
        keyspace = slot.keyspace
        check(slot.kind.name, (keyspace.scope, keyspace.collection))
        return start(slot)

    return start_allowed


def fast_slot(line: bytes, places: Places) -> FastSlot | None:
    """Return the request to the driver for a usual line, ``None`` for any other.

    The caller fills in ``batch``, ``index`` and ``held`` before it starts it.
    """
    match = _usual_line(line)
    if match is None:
        return None
    name, scope, collection, key_json, closed, options, flags, ttl = match.groups()
    operation, kind, takes_value, extras, framing = _FORMS[name]
    if takes_value is (closed is not None):
        return None
    key = key_json[1:-1]
    if not key.isascii():
        try:
            key.decode("utf-8")
        except UnicodeDecodeError:
            return None
    slot = FastSlot(operation, key, key)
    keyspace = places.default
    if scope or collection:
        keyspace = places.find(scope, collection)
    if keyspace is not DEFAULT_KEYSPACE:
        if len(key) > MAX_COLLECTION_KEY_BYTES:
            return None
        slot.keyspace = keyspace
    if takes_value:
        line = line.rstrip()
        if line[-1:] != b"}":
            return None
        text = line[match.end() : -1].strip(b" \t\r\n")
        # If its value is JSON, the whole line is.
        if not is_json(text):
            return None
        if options is not None:
            # The expiry that the document has is not kept.
            extras, framing = operations.store_extras(int(flags), int(ttl)), b""
        slot.value, slot.extras, slot.framing = text, extras, framing
    slot.answer = None
    slot.key_json = key_json
    slot.kind = kind
    return slot


_STORE_EXTRAS = operations.store_extras(FLAGS_JSON, 0)
_KEEP_EXPIRY = operations.mutation_framing(0, 0, preserve_expiry=True)

_FORMS = {
    b"get": _Form(operations.GET, OPERATIONS["get"], False, b"", b""),
    b"set": _Form(operations.SET, OPERATIONS["set"], True, _STORE_EXTRAS, _KEEP_EXPIRY),
    b"add": _Form(operations.ADD, OPERATIONS["add"], True, _STORE_EXTRAS, b""),
    b"replace": _Form(operations.REPLACE, OPERATIONS["replace"], True, _STORE_EXTRAS, _KEEP_EXPIRY),
    b"delete": _Form(operations.DELETE, OPERATIONS["delete"], False, b"", b""),
}
