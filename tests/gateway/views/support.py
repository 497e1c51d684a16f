"""A cluster's side of view queries, played by a test: real views of the SDK, no sockets."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from couchbase import exceptions
from couchbase.exceptions import HTTPError
from couchbase.result import HttpResult
from tests.gateway.support import Reply, Site, Transport, raw_request, read_reply
from txcouchbase.views import ViewMethods

VIEWS = "/v1/buckets/b/views/d/v"


def http_error(status: int, reason: str = "", code: str = "error") -> HTTPError:
    """Return what the SDK raises for an answer outside 200..299."""
    result = HttpResult(0, status, {"error": code, "reason": reason} if reason else "text", "/b/_design/d")
    try:
        result._maybe_raise()
    except HTTPError as error:
        return error
    raise AssertionError(f"{status} is no error")


class Stream:
    """A driver's state of a view, and a node that sends on command."""

    def __init__(self, view: Any) -> None:
        self.view = view
        self.told: list[str] = []
        self.request = view.request("b")

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def stop(self) -> None:
        self.told.append("stop")

    def send(self, data: bytes) -> Any:
        """Deliver a piece of a good answer; failures of on_rows go the way that a driver sends them."""
        view = self.view
        if view.raw.http_status == 0:
            view._answered(self.request.path, 200)
        try:
            outcome = view._received(data)
        except Exception as error:  # noqa: BLE001  # the test looks at it
            view._failed(error)
            return None
        if outcome is not None:
            outcome.addErrback(lambda failure: view._failed(failure.value))
        return outcome

    def finish(self) -> None:
        """The answer is complete."""
        self.view._last_rows()
        self.view._finished()

    def answer(self, *rows: Any, total: int | None = 7, **meta: Any) -> None:
        """Send a whole answer."""
        head = {} if total is None else {"total_rows": total}
        taken = self.send(json.dumps({**head, "rows": list(rows), **meta}).encode())
        if taken is None:
            self.finish()
        else:
            # As in a driver: the end is reported when the rows have been taken.
            taken.addCallback(lambda _: self.finish())

    def fail(self, error: Exception) -> None:
        """The query fails."""
        self.view._failed(error)


class ViewSite(Site):
    """A gateway whose connections can query views; ``streams`` are the running queries."""

    def __init__(self, answers: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.streams: list[Stream] = []
        self.designs: list[tuple[str, str]] = []
        super().__init__({**(answers or {}), "queryEx": self._query_ex}, **kwargs)

    def _query_ex(self, viewcls: Any, design: str, view: str, **kwargs: Any) -> Any:
        self.designs.append((design, view))
        return viewcls(self, design, view, **kwargs).start()

    _json_loads = ViewMethods._json_loads

    def _start_view(self, view: Any) -> Stream:
        stream = Stream(view)
        self.streams.append(stream)
        return stream

    def ask(self, query: str = "", body: bytes = b"", method: str = "", **headers: str) -> Transport:
        """Send a query, and return the client's connection."""
        client = self.client()
        verb = method or ("POST" if body else "GET")
        self.send(client, raw_request(verb, VIEWS + query, body, headers))
        return client

    def refused(self, query: str = "", body: bytes = b"") -> tuple[int, str, str]:
        """Send a query that must be refused before it reaches the cluster."""
        reply = read_reply(self.ask(query, body).value())[0]
        assert not self.streams, self.streams
        told = reply.json()
        return reply.status, told["code"], told["message"]

    def asked(self, query: str = "", body: bytes = b"") -> Any:
        """Send a query that must be accepted, and return what the node is asked."""
        self.ask(query, body)
        return self.streams[-1].request


def reply_of(client: Transport) -> Reply:
    """Return the complete answer that a client has got."""
    return read_reply(client.value())[0]


def chunks(client: Transport) -> tuple[bytes, bool]:
    """Return the body that a client has so far, and whether it is complete."""
    _, _, rest = client.value().partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            return body, True
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return body, False


def row(docid: str, key: Any = None, value: Any = None) -> dict[str, Any]:
    """Return a row of a map view."""
    return {"id": docid, "key": key, "value": value}


TIMED_OUT = exceptions.error_of(exceptions.ETIMEDOUT)


LINES = "application/x-ndjson"
EVENTS = "text/event-stream"


def hang_up(client: Transport) -> None:
    """The client closes its connection."""
    client.protocol.connectionLost(Failure(ConnectionDone()))
