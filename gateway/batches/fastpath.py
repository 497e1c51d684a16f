"""The fast path of a batch's operations: from the line to the driver, and from the result to the answer.

If a line is formatted as JSON libraries do it and needs a single request, the driver is called directly,
without a Deferred. Members other than key and value are parsed once for all lines that share them
(:mod:`gateway.batches.forms`). Every other line is left to :mod:`gateway.batches.lines`, which also reports
errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from twisted.python.failure import Failure

from couchbase.protocol.constants import MAX_COLLECTION_KEY_BYTES, MAX_KEY_BYTES
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace
from gateway.batches.answers import failure_line, success_line
from gateway.batches.forms import Form, Forms, with_value_last
from gateway.cluster.credentials import LineCheck
from gateway.dialect.errors import describe, public_code
from gateway.dialect.jsontools import is_json
from gateway.dialect.places import DEFAULT_PLACE, Place
from gateway.http.known import Known
from gateway.operations.kind import Kind
from gateway.operations.lineresults import LongValue
from txcouchbase.calls import Call

__all__ = ["FastSlot", "Places", "SlotOwner", "checked", "fast_slot"]

MOST_KEYSPACES = 64
"""Largest number of collections that a batch caches."""

# In JSON, a UTF-8 key without quotes, backslashes and control characters is written unchanged.
_KEY = rb'"key": ?("[ !#-\[\]-\xff]{1,%d}")' % MAX_KEY_BYTES
# The usual order of members; the text after the key matches only if it is the value or the end.
_usual_line = re.compile(rb'(\{"op": ?"[a-z_]+", ?)%b(, ?"value":|\}\Z)?' % _KEY).match
_find_key = re.compile(_KEY).search
_VALUE = b'"value":'


class SlotOwner(Protocol):
    """The batch that a slot belongs to."""

    def log_bug(self, failure: Failure) -> None:
        """Log an unexpected failure."""

    def render_long(self, slot: Any, key_json: bytes, kind: Kind, result: Any) -> None:
        """Render the answer for a result whose value is long."""

    def slot_done(self, slot: Any, answer_bytes: int, outcome: str) -> None:
        """Note that a slot's answer is ready."""


class Places:
    """The collections that the lines of a batch name.

    :param find: returns the keyspace of a scope and a collection.
    :param place: the collection for lines that name none.
    """

    def __init__(self, find: Callable[[str, str], Keyspace], place: Place) -> None:
        self.place = place
        self.default = DEFAULT_KEYSPACE if place == DEFAULT_PLACE else find(*place)
        """The keyspace for lines that name none."""
        self._find = find
        self._named: Known[tuple[str | None, str | None], Keyspace] = Known(MOST_KEYSPACES)

    def find(self, scope: str | None, collection: str | None) -> Keyspace:
        """Return the keyspace of a line.

        :param scope: the scope that the line names, ``None`` if it names none; likewise the collection.
        """
        found = self._named.get((scope, collection))
        if found is None:
            own_scope, own_collection = self.place
            found = self._find(
                own_scope if scope is None else scope, own_collection if collection is None else collection
            )
            self._named.learn((scope, collection), found)
        return found

    def members(self, keyspace: Keyspace) -> bytes:
        """Return the members that name a line's collection, each followed by a comma."""
        if keyspace is self.default:
            return b""
        return f'"scope":"{keyspace.scope}","collection":"{keyspace.collection}",'.encode()


class FastSlot(Call):
    """One operation of a batch; the driver reports the outcome to it."""

    __slots__ = ("answer", "batch", "form", "held", "index", "key_json", "kind")

    batch: SlotOwner
    index: int
    held: int
    """Its estimated size, in bytes."""
    key_json: bytes
    form: Form
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
        form = self.form
        fault = describe(error, form.name, cas_given=form.cas_given, durable=form.durable)
        if fault.is_bug:
            self.batch.log_bug(Failure(error))
        self.answer = answer = failure_line(self.index, self.key_json, fault)
        self.batch.slot_done(self, len(answer), public_code(fault.problem))

    def cancel(self, gone: Callable[[], None]) -> None:
        """Cancel the operation; there will be no answer.

        :param gone: called when none of its requests is in flight any more.
        """
        if self.done:
            # Its answer is being rendered.
            gone()
        else:
            self.give_up(gone)


def checked(start: Callable[[FastSlot, float | None], object], check: LineCheck) -> Callable[..., object]:
    """Return a function that starts an operation only if the caller may do it.

    :param check: raises Refusal (403) if not.
    """

    def start_allowed(slot: FastSlot, seconds: float | None) -> object:
        keyspace = slot.keyspace
        check(slot.kind.name, (keyspace.scope, keyspace.collection))
        return start(slot, seconds)

    return start_allowed


def fast_slot(line: bytes, places: Places, forms: Forms) -> FastSlot | None:
    """Return the driver's request for a line, ``None`` if the line needs the general parser.

    The caller fills in ``batch``, ``index`` and ``held``, and starts the operation with the timeout of its
    form.
    """
    found, at = _usual_line(line), 0
    if found is not None:
        head, key_json, tail = found.groups()
    else:
        found = _find_key(line)
        if found is None:
            return None
        head, key_json, tail = line[: found.start()], found[1], None
    if tail is None:
        end = found.end()
        at = line.find(_VALUE, end) + len(_VALUE)
        if at < end:
            at = len(line)
        tail = line[end:at]
    form, cas, value = forms.known[head + tail], 0, None
    if form is None or form.cas:
        known = forms.find(line, head, tail, at or found.end())
        if known is None:
            return None
        form, cas, value = known
    key = key_json[1:-1]
    if not key.isascii():
        try:
            key.decode("utf-8")
        except UnicodeDecodeError:
            return None
    slot = FastSlot(form.operation, key, key)
    keyspace = places.default
    if form.scope is not None or form.collection is not None:
        keyspace = places.find(form.scope, form.collection)
    if keyspace is not DEFAULT_KEYSPACE:
        if len(key) > MAX_COLLECTION_KEY_BYTES:
            return None
        slot.keyspace = keyspace
    if form.takes_value:
        if line[-1:] != b"}":
            line = line.rstrip()
            if line[-1:] != b"}":
                return None
        text = line[at or found.end() : -1].strip(b" \t\r\n")
        # If its value is JSON, the whole line is.
        if (text[:1] == b"{" and text[-1:] != b"}") or not is_json(text):
            usual = with_value_last(line, at or found.end())
            return None if usual is None else fast_slot(usual, places, forms)
        slot.value, slot.extras, slot.framing = text, form.extras, form.framing
    else:
        slot.value = form.value if value is None else value
        slot.extras, slot.framing = form.extras, form.framing
        if form.specs is not None:
            slot.specs = form.specs
    slot.cas = cas
    slot.answer = None
    slot.key_json = key_json
    slot.form = form
    slot.kind = form.kind
    return slot
