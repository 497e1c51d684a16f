"""Expiry and locks of a document, apart from its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from gateway.dialect.conditions import CONDITIONS, TIMEOUT
from gateway.dialect.errors import bad_request
from gateway.dialect.numbers import checked_boolean, checked_number
from gateway.operations.kind import Driver, Explained, Show, Source, Words, kind
from gateway.operations.lineresults import with_cas, with_value
from gateway.operations.renderer import Renderer

__all__ = ["LOCK", "TOUCH", "UNLOCK"]

DEFAULT_LOCK_SECONDS = 15


class Touch(NamedTuple):
    """Set a document's expiry."""

    expiry: int
    """New expiry; 0 clears it."""
    return_content: bool

    @property
    def is_single(self) -> bool:
        """Whether the plan is a single operation, not a touch followed by a get."""
        return bool(self.expiry) or not self.return_content

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        if not self.return_content:
            return driver.touch(key, ttl=self.expiry)
        if self.expiry:
            return driver.get(key, ttl=self.expiry)
        # A get with expiry 0 is a plain get in SDK 1.2, so clearing it takes two operations.
        cleared: Deferred[Any] = driver.touch(key, ttl=0)
        return cleared.addCallback(lambda _: driver.get(key))

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return renderer.document if self.return_content else renderer.touched


def _read_touch(members: Mapping[str, Any], words: Words) -> bool:
    return checked_boolean(members, "returnContent")


def _plan_touch(return_content: bool, source: Source, now: float) -> Touch:
    return Touch(source.touched_expiry(now), return_content)


class Lock(NamedTuple):
    """Read a document, and lock it: only the returned CAS allows a change."""

    seconds: int

    @property
    def is_single(self) -> bool:
        """See :class:`gateway.operations.kind.Plan`."""
        return True

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        return driver.lock(key, ttl=self.seconds)

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return renderer.document


def _read_lock(members: Mapping[str, Any], words: Words) -> Lock:
    seconds = checked_number(members.get("lockTime", 0), "lockTime", 0, 2**32 - 1)
    return Lock(seconds or DEFAULT_LOCK_SECONDS)


def _plan_lock(said: Lock, source: Source, now: float) -> Lock:
    return said


class Unlock(NamedTuple):
    """Release a lock."""

    cas: int

    @property
    def is_single(self) -> bool:
        """See :class:`gateway.operations.kind.Plan`."""
        return True

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        about.cas_given = True
        return driver.unlock(key, self.cas)

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return renderer.unlocked


def _plan_unlock(_: None, source: Source, now: float) -> Unlock:
    cas = source.version()
    if not cas:
        version, told_as = source.words[:2]
        raise bad_request(f"{version} is missing: expected {told_as} that the lock returned")
    return Unlock(cas)


TOUCH = kind(
    "touch",
    ("X-CB-TTL", *TIMEOUT),
    _plan_touch,
    with_cas,
    read=_read_touch,
    body_only="expiry returnContent",
    line_only="expires",
)
LOCK = kind("lock", TIMEOUT, _plan_lock, with_value, read=_read_lock, members="lockTime", is_read=True)
UNLOCK = kind("unlock", (CONDITIONS[0], *TIMEOUT), _plan_unlock, with_cas)
