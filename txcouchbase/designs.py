"""Design documents: create, read, list, publish, delete, and wait until every node shows the change."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater

from couchbase import exceptions
from couchbase.asynchronous.view import decode_answer
from couchbase.exceptions import ArgumentError, error_of
from couchbase.result import HttpResult
from couchbase.views.params import make_dvpath, with_devmode
from txcouchbase.http import MANAGEMENT, VIEWS, HttpHeaders, HttpService

POLL_SECONDS = 0.1
"""Seconds between two checks of ``syncwait``."""
STORE_SECONDS = 10.0
_META = "X-Couchbase-Meta"
_JSON = {"Content-Type": "application/json"}
_ID_PREFIX = "_design/"


class DesignMethods:
    """Methods of a connection for the design documents of its bucket; each returns a Deferred.

    It fires with an HttpResult that has headers. It fails with HTTPError for a status outside
    200..299 (``objextra``: the HttpResult), ArgumentError, or a network error.

    ``use_devmode`` puts ``dev_`` before the name, unless the name has this prefix. ``syncwait`` is the number
    of seconds to wait until every node with the view engine has the change; TimeoutError if it takes longer.
    """

    _bucket: str | None
    _client: Any
    _http: HttpService
    _views_timeout: float
    design_timeout: float | None = None
    """Timeout in seconds to read, list or delete a design document, ``None`` for ``views_timeout``. Storing
    one takes longer, since the node compiles its functions: its timeout is at least :data:`STORE_SECONDS`.
    (An addition to SDK 1.2.)"""

    def _ready(self) -> Deferred[None]:
        raise NotImplementedError

    @inlineCallbacks
    def design_create(
        self, name: str, ddoc: dict[str, Any] | str, use_devmode: bool = True, syncwait: float = 0
    ) -> Generator[Any, Any, HttpResult]:
        """Store a design document, replacing one of the same name.

        :param ddoc: a dict (copied, with its ``_id`` added), or JSON text, which is sent as it is.
        :param syncwait: seconds to wait until the new document can be read and its views queried.
        """
        wait = _check_syncwait(syncwait)
        if isinstance(ddoc, dict):
            name = self._design_name(name, use_devmode)
            try:
                text = json.dumps({**ddoc, "_id": _ID_PREFIX + name})
            except (TypeError, ValueError, RecursionError) as error:
                raise ArgumentError.pyexc(
                    f"ddoc cannot be serialized as JSON: {error}", obj=ddoc, inner=error
                ) from error
        elif isinstance(ddoc, str):
            name, text = self._design_name(name, use_devmode), ddoc
        else:
            raise ArgumentError.pyexc("ddoc must be a dict or a str of JSON", obj=ddoc)
        before = None
        if wait:
            before = _revision((yield self._design_request("GET", name)))
        result: HttpResult = yield self._design_request("PUT", name, text.encode())
        result._maybe_raise()
        if wait:
            yield self._wait_until(wait, name, lambda base: self._shows(base, name, text, before))
        return result

    @inlineCallbacks
    def design_get(self, name: str, use_devmode: bool = True) -> Generator[Any, Any, HttpResult]:
        """Read a design document, as ``value`` of the result.

        The header ``X-Couchbase-Meta`` has JSON with its ``rev``.
        """
        result: HttpResult = yield self._design_request("GET", self._design_name(name, use_devmode))
        result._maybe_raise()
        return result

    @inlineCallbacks
    def design_publish(self, name: str, syncwait: float = 0) -> Generator[Any, Any, HttpResult]:
        """Copy ``dev_NAME`` to ``NAME``, so that queries cover all data; the development form stays."""
        _check_syncwait(syncwait)
        if isinstance(name, str):
            name = name[4:] if name.startswith("dev_") else name
        found = yield self.design_get(name, use_devmode=True)
        if not isinstance(found.value, dict):
            raise error_of(
                exceptions.PROTOCOL_ERROR, "the design document is not a JSON object", objextra=found
            )
        result: HttpResult = yield self.design_create(name, found.value, use_devmode=False, syncwait=syncwait)
        return result

    @inlineCallbacks
    def design_delete(
        self, name: str, use_devmode: bool = True, syncwait: float = 0
    ) -> Generator[Any, Any, HttpResult]:
        """Delete a design document and its index.

        :param syncwait: seconds to wait until it cannot be read any more.
        """
        wait = _check_syncwait(syncwait)
        name = self._design_name(name, use_devmode)
        result: HttpResult = yield self._design_request("DELETE", name)
        result._maybe_raise()
        if wait:
            yield self._wait_until(wait, name, lambda base: self._is_gone(base, name))
        return result

    @inlineCallbacks
    def design_list(self) -> Generator[Any, Any, HttpResult]:
        """Read all design documents of the bucket. (An addition to SDK 1.2.)

        ``value`` is a dict from the document's name (``dev_`` included) to the document.
        """
        yield self._ready()
        path = f"/pools/default/buckets/{quote(self._design_bucket(), safe='')}/ddocs"
        answer = yield self._http.whole(MANAGEMENT, "GET", path, timeout=self._seconds_for("GET"))
        result = _result(path, *answer)
        result._maybe_raise()
        try:
            result._value = {
                row["doc"]["meta"]["id"][len(_ID_PREFIX) :]: row["doc"]["json"]
                for row in result.value["rows"]
            }
        except (KeyError, TypeError) as error:
            raise error_of(
                exceptions.PROTOCOL_ERROR, "this is not a list of design documents", objextra=result
            ) from error
        return result

    # ---- one request -----------------------------------------------------------------------------

    def _seconds_for(self, method: str) -> float:
        seconds = self.design_timeout
        if seconds is None:
            return self._views_timeout
        return max(seconds, STORE_SECONDS) if method == "PUT" else seconds

    def _design_bucket(self) -> str:
        if self._bucket is None:
            raise ArgumentError.pyexc("this connection has no bucket, so it has no design documents")
        return self._bucket

    def _design_name(self, name: object, use_devmode: bool) -> str:
        if not isinstance(name, str) or not name:
            raise ArgumentError.pyexc(
                "the name of a design document must be a str that is not empty", obj=name
            )
        return with_devmode(name) if use_devmode else name

    @inlineCallbacks
    def _design_request(
        self, method: str, name: str, body: bytes | None = None, base: str | None = None, below: str = ""
    ) -> Generator[Any, Any, HttpResult]:
        """Send a request to any node, or the one at ``base``; an answer of any status is a result."""
        yield self._ready()
        bucket = quote(self._design_bucket(), safe="")
        path = f"/{bucket}/{below}" if below else f"/{bucket}/{_ID_PREFIX}{quote(name, safe='')}"
        common: dict[str, Any] = {
            "body": body,
            "headers": None if body is None else _JSON,
            "timeout": self._seconds_for(method),
        }
        if base is None:
            answer = yield self._http.whole(VIEWS, method, path, **common)
        else:
            answer = yield self._http.ask(base, method, path, **common)
        return _result(path, *answer)

    # ---- waiting ---------------------------------------------------------------------------------

    @inlineCallbacks
    def _wait_until(
        self, seconds: float, name: str, visible: Callable[[str], Deferred[bool]]
    ) -> Generator[Any, Any, None]:
        """Poll every node until it has the change; unreachable nodes do not count."""
        reactor = self._client.reactor
        deadline = self._client.seconds() + seconds
        waiting = self._http.addresses(VIEWS)
        shown = 0
        while True:
            still = []
            unreachable = 0
            for base in waiting:
                left = deadline - self._client.seconds()
                if left <= 0:
                    still.append(base)
                    continue
                looked = visible(base)
                looked.addTimeout(left, reactor)
                try:
                    if (yield looked):
                        shown += 1
                    else:
                        still.append(base)
                except Exception:  # noqa: BLE001  # whatever it is, this node does not answer
                    unreachable += 1
                    still.append(base)
            waiting = still
            if not waiting or (shown and unreachable == len(waiting)):
                return
            left = deadline - self._client.seconds()
            if left <= 0:
                raise error_of(
                    exceptions.ETIMEDOUT,
                    f"the change of design document {name!r} was made, but did not become "
                    f"visible in {seconds:g} s",
                )
            yield deferLater(reactor, min(POLL_SECONDS, left), lambda: None)

    @inlineCallbacks
    def _shows(self, base: str, name: str, text: str, before: str | None) -> Generator[Any, Any, bool]:
        """Return whether a node has the new document, and its views can be queried."""
        found: HttpResult = yield self._design_request("GET", name, base=base)
        if not found.success or not isinstance(found.value, dict):
            return False
        wanted = decode_answer(text.encode())
        # Storing the same document again may keep its revision.
        if _revision(found) == before and found.value.get("views") != wanted.get("views"):
            return False
        views = found.value.get("views")
        for view in views if isinstance(views, dict) else ():
            below = f"{make_dvpath(name, view)}limit=1&stale=ok"
            asked: HttpResult = yield self._design_request("GET", name, base=base, below=below)
            return asked.success
        return True

    @inlineCallbacks
    def _is_gone(self, base: str, name: str) -> Generator[Any, Any, bool]:
        found: HttpResult = yield self._design_request("GET", name, base=base)
        return found.http_status == 404


def _check_syncwait(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise ArgumentError.pyexc("syncwait must be a number of seconds, 0 or more", obj=seconds)
    return float(seconds)


def _result(path: str, status: int, headers: HttpHeaders, body: bytes) -> HttpResult:
    return HttpResult(0, status, decode_answer(body), path, headers)


def _revision(result: HttpResult) -> str | None:
    """Return the revision in the answer to a read, ``None`` if there is none."""
    meta = decode_answer((result.headers or {}).get(_META, "").encode()) if result.success else None
    return meta.get("rev") if isinstance(meta, dict) else None
