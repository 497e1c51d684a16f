"""Timeouts of requests about design documents."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchbase.exceptions import CouchbaseError
from txcouchbase.designs import STORE_SECONDS, DesignMethods
from txcouchbase.http import VIEWS, HttpHeaders, HttpService


class Recorder:
    """An HTTP service that notes for how long it would wait."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    def whole(self, service: str, method: str, path: str, **options: Any) -> Deferred[Any]:
        self.timeouts.append(options["timeout"])
        return succeed((200, HttpHeaders(), b'{"rows":[]}'))


class Designs(DesignMethods):
    """The methods, on a service that answers at once."""

    def __init__(self) -> None:
        self._http: Any = Recorder()
        self._bucket = "b"
        self._views_timeout = 75.0

    def _ready(self) -> Deferred[None]:
        return succeed(None)


class Client:
    """A client of two nodes."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.seconds = self.reactor.seconds


class Silent(HttpService):
    """Nodes that take requests and never answer."""

    def addresses(self, service: str) -> list[str]:
        return ["http://a", "http://b"]

    def request(self, *arguments: Any, **keywords: Any) -> Deferred[Any]:
        return Deferred()


class TimeoutTests(SynchronousTestCase):
    """Limits of time."""

    def test_of_its_own(self) -> None:
        """Reading, listing and deleting have the limit that is set; storing at least what compiling takes."""
        designs = Designs()
        for limit, expected in (
            (None, [75.0] * 4),
            (2.5, [2.5, 2.5, 2.5, STORE_SECONDS]),
            (20.0, [20.0] * 4),
        ):
            designs.design_timeout = limit
            designs._http.timeouts.clear()
            self.successResultOf(designs.design_get("d"))
            self.successResultOf(designs.design_list())
            self.successResultOf(designs.design_delete("d"))
            self.successResultOf(designs.design_create("d", {"views": {}}))
            self.assertEqual(designs._http.timeouts, expected)

    def test_all_nodes_together(self) -> None:
        """The limit is for all of it, however many nodes are asked one after the other."""
        client = Client()
        asked = Silent(client).whole(VIEWS, "GET", "/", timeout=2.5)
        client.reactor.advance(1.25)
        self.assertNoResult(asked)
        client.reactor.advance(1.25)
        self.failureResultOf(asked, CouchbaseError)
