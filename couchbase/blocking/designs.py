"""Design documents of the blocking connection."""

from __future__ import annotations

import json
from time import monotonic
from typing import Any, Callable
from urllib.parse import quote

from couchbase import exceptions
from couchbase.blocking import http
from couchbase.blocking.views import Views
from couchbase.exceptions import ArgumentError, CouchbaseError, error_of
from couchbase.result import HttpResult
from couchbase.views.params import make_dvpath, with_devmode

POLL_SECONDS = 0.1
"""Seconds between two checks of ``syncwait``."""
_PREFIX = "_design/"


class Designs:
    """Create, read, publish, delete; see :class:`couchbase.designs.DesignCommands`.

    :param sleep: waits between two checks of a node.
    """

    def __init__(self, views: Views, sleep: Callable[[float], None]) -> None:
        self._views = views
        self._bucket = views.driver.bucket
        self._sleep = sleep

    def create(
        self, name: str, ddoc: dict[str, Any] | str, use_devmode: bool = True, syncwait: float = 0
    ) -> HttpResult:
        """Store a design document, replacing one of the same name.

        :param ddoc: a dict (copied, with its ``_id`` added), or JSON text, which is sent as it is.
        :raises ArgumentError: another type.
        """
        wait = _check_syncwait(syncwait)
        if isinstance(ddoc, dict):
            name = _name(name, use_devmode)
            try:
                text = json.dumps({**ddoc, "_id": _PREFIX + name})
            except (TypeError, ValueError, RecursionError) as error:
                raise ArgumentError.pyexc(
                    f"ddoc cannot be serialized as JSON: {error}", obj=ddoc, inner=error
                ) from error
        elif isinstance(ddoc, str):
            name, text = _name(name, use_devmode), ddoc
        else:
            raise ArgumentError.pyexc("ddoc must be a dict or a str of JSON", obj=ddoc)
        before = _revision(self._views.ask("GET", self._design_path(name), raising=False)) if wait else None
        result = self._views.ask("PUT", self._design_path(name), text.encode())
        if wait:
            self._wait_until(wait, name, lambda base, left: self.shows(base, left, name, text, before))
        return result

    def get(self, name: str, use_devmode: bool = True) -> HttpResult:
        """Read a design document, as ``value`` of the result.

        The header ``X-Couchbase-Meta`` has JSON with its ``rev``.
        """
        return self._views.ask("GET", self._design_path(_name(name, use_devmode)))

    def publish(self, name: str, syncwait: float = 0) -> HttpResult:
        """Copy ``dev_NAME`` to ``NAME``; the development form stays."""
        _check_syncwait(syncwait)
        plain = name[4:] if isinstance(name, str) and name.startswith("dev_") else name
        found = self.get(plain, use_devmode=True)
        if not isinstance(found.value, dict):
            raise error_of(
                exceptions.PROTOCOL_ERROR, "the design document is not a JSON object", objextra=found
            )
        return self.create(plain, found.value, use_devmode=False, syncwait=syncwait)

    def delete(self, name: str, use_devmode: bool = True, syncwait: float = 0) -> HttpResult:
        """Delete a design document and its index."""
        wait = _check_syncwait(syncwait)
        name = _name(name, use_devmode)
        result = self._views.ask("DELETE", self._design_path(name))
        if wait:
            self._wait_until(wait, name, lambda base, left: self.is_gone(base, left, name))
        return result

    # ---- inside ----------------------------------------------------------------------------------

    def _design_path(self, name: str) -> str:
        return f"/{quote(self._bucket, safe='')}/{_PREFIX}{quote(name, safe='')}"

    def _wait_until(self, seconds: float, name: str, visible: Callable[[http.Target, float], bool]) -> None:
        """Poll every node until it has the change; unreachable nodes do not count."""
        deadline = monotonic() + seconds
        waiting = self._views.targets()
        shown = 0
        while True:
            still = []
            unreachable = 0
            for base in waiting:
                left = deadline - monotonic()
                try:
                    if left > 0 and visible(base, left):
                        shown += 1
                        continue
                except CouchbaseError:
                    unreachable += 1
                still.append(base)
            waiting = still
            if not waiting or (shown and unreachable == len(waiting)):
                return
            left = deadline - monotonic()
            if left <= 0:
                raise error_of(
                    exceptions.ETIMEDOUT,
                    f"the change of design document {name!r} was made, but did not become "
                    f"visible in {seconds:g} s",
                )
            self._sleep(min(POLL_SECONDS, left))

    def shows(self, base: http.Target, left: float, name: str, text: str, before: str | None) -> bool:
        """Return whether a node has the new document, and its views can be queried."""
        path = self._design_path(name)
        found = self._views.ask("GET", path, base=base, timeout=left, raising=False)
        if not found.success or not isinstance(found.value, dict):
            return False
        try:
            wanted = json.loads(text)
        except ValueError:
            return True
        # Storing the same document again may keep its revision.
        views = found.value.get("views")
        if _revision(found) == before and views != wanted.get("views"):
            return False
        for view in views if isinstance(views, dict) else ():
            below = f"/{quote(self._bucket, safe='')}/{make_dvpath(name, view)}limit=1&stale=ok"
            return self._views.ask("GET", below, base=base, timeout=left, raising=False).success
        return True

    def is_gone(self, base: http.Target, left: float, name: str) -> bool:
        """Return whether a node has no such document any more."""
        found = self._views.ask("GET", self._design_path(name), base=base, timeout=left, raising=False)
        return found.http_status == 404


def _name(name: object, use_devmode: bool) -> str:
    if not isinstance(name, str) or not name:
        raise ArgumentError.pyexc("the name of a design document must be a str that is not empty", obj=name)
    return with_devmode(name) if use_devmode else name


def _check_syncwait(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise ArgumentError.pyexc("syncwait must be a number of seconds, 0 or more", obj=seconds)
    return float(seconds)


def _revision(result: HttpResult) -> str | None:
    """Return the revision in the answer to a read, ``None`` if there is none."""
    if not result.success or result.headers is None:
        return None
    try:
        meta = json.loads(result.headers.get("X-Couchbase-Meta", ""))
    except (ValueError, RecursionError):
        return None
    return meta.get("rev") if isinstance(meta, dict) else None
