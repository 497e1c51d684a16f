"""Counters: documents that are an unsigned decimal number of 64 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.dialect.conditions import DURABILITY, EXPIRY, TIMEOUT
from gateway.dialect.errors import bad_request
from gateway.dialect.headers import Durability
from gateway.dialect.numbers import checked_number
from gateway.operations.documents import waiting
from gateway.operations.kind import Driver, Explained, Kind, Show, Source, Words, kind
from gateway.operations.lineresults import with_number
from gateway.operations.renderer import Renderer

__all__ = ["DECR", "INCR"]

MAX_COUNTER = 2**64 - 1


class _Amounts(NamedTuple):
    delta: int
    initial: int | None


def _read_amounts(members: Mapping[str, Any], words: Words) -> _Amounts:
    delta = members.get("delta", 1)
    if type(delta) in (int, float) and delta < 0:
        raise bad_request(
            f"delta: expected a whole number from 0 to {MAX_COUNTER}, not {str(delta)[:24]}; "
            f"{words.add} adds it and {words.subtract} subtracts it"
        )
    delta = checked_number(delta, "delta", 0, MAX_COUNTER)
    initial = members.get("initial")
    if initial is not None:
        initial = checked_number(initial, "initial", 0, MAX_COUNTER)
    # In the protocol, this value means "do not create".
    return _Amounts(delta, None if initial == MAX_COUNTER else initial)


class Count(NamedTuple):
    """Add to a counter, or subtract from it.

    :ivar method: ``incr`` or ``decr``.
    """

    method: str
    delta: int
    initial: int | None
    """Initial value of a new counter; ``None`` if the counter must exist."""
    expiry: int
    waits: Durability

    @property
    def is_single(self) -> bool:
        """Whether the operation does not wait for copies."""
        return not self.waits.wants_copies

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        waits = waiting(self.waits, about)
        count = driver.incr if self.method == "incr" else driver.decr
        return count(key, amount=self.delta, initial=self.initial, ttl=self.expiry, **waits)

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return renderer.counted


def _counting(name: str) -> Kind:
    def plan(said: _Amounts, source: Source, now: float) -> Count:
        expiry = source.expiry(now)
        waits = source.durability()
        if expiry and said.initial is None:
            raise bad_request(
                f"{source.words.expiry} 'initial': an expiry counts only if the counter is created"
            )
        return Count(name, *said, expiry or 0, waits)

    headers = (*EXPIRY, *DURABILITY, *TIMEOUT)
    return kind(name, headers, plan, with_number, read=_read_amounts, members="delta initial")


INCR = _counting("incr")
DECR = _counting("decr")
