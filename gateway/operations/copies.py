"""The copies of a document: observe reports their state, and endure waits for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from couchbase.result import ValueResult
from gateway.dialect.conditions import CONDITIONS, TIMEOUT
from gateway.dialect.headers import MAX_COPIES
from gateway.dialect.numbers import checked_boolean, checked_number, checked_seconds
from gateway.http.request import Request
from gateway.http.response import Response, json_response
from gateway.operations.kind import Driver, Explained, Show, Source, Words, kind
from gateway.operations.lineresults import copies, with_cas, with_copies
from gateway.operations.renderer import Renderer

__all__ = ["ENDURE", "OBSERVE"]

MAX_TIMEOUT_SECONDS = 300.0
MAX_INTERVAL_SECONDS = 60.0
LEAST_SECONDS = 0.001


class Observe(NamedTuple):
    """Ask for the state of a document's copies."""

    master_only: bool

    @property
    def is_single(self) -> bool:
        """See :class:`gateway.operations.kind.Plan`."""
        return False

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        return driver.observe(key, master_only=True) if self.master_only else driver.observe(key)

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return _show_copies


def _show_copies(result: ValueResult, request: Request) -> Response:
    return json_response({"key": request.parameters["key"].decode("utf-8"), "copies": copies(result)})


def _read_observe(members: Mapping[str, Any], words: Words) -> Observe:
    return Observe(checked_boolean(members, "masterOnly"))


def _plan_observe(said: Observe, source: Source, now: float) -> Observe:
    return said


class Endure(NamedTuple):
    """Wait until a number of copies have a document, or its removal."""

    persist_to: int
    replicate_to: int
    check_removed: bool
    timeout: float
    interval: float
    cas: int = 0

    @property
    def is_single(self) -> bool:
        """See :class:`gateway.operations.kind.Plan`."""
        return True

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        if self.cas:
            about.cas_given = True
        persist_to, replicate_to, check_removed, timeout, interval, cas = self
        return driver.endure(
            key,
            persist_to=persist_to,
            replicate_to=replicate_to,
            cas=cas,
            check_removed=check_removed,
            timeout=timeout,
            interval=interval,
        )

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return renderer.touched


def _read_endure(members: Mapping[str, Any], words: Words) -> Endure:
    return Endure(
        checked_number(members.get("persistTo", -1), "persistTo", -1, MAX_COPIES),
        checked_number(members.get("replicateTo", -1), "replicateTo", -1, MAX_COPIES),
        checked_boolean(members, "checkRemoved"),
        checked_seconds(members, "timeout", "5s", LEAST_SECONDS, MAX_TIMEOUT_SECONDS),
        checked_seconds(members, "interval", "10ms", LEAST_SECONDS, MAX_INTERVAL_SECONDS),
    )


def _plan_endure(said: Endure, source: Source, now: float) -> Endure:
    return said._replace(cas=source.version())


OBSERVE = kind("observe", TIMEOUT, _plan_observe, with_copies, read=_read_observe, members="masterOnly")
ENDURE = kind(
    "endure",
    CONDITIONS[:1],
    _plan_endure,
    with_cas,
    read=_read_endure,
    members="persistTo replicateTo checkRemoved timeout interval",
)
