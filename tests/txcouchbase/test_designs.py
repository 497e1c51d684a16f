"""Design documents over a scripted view engine that keeps them."""

import json

from twisted.internet import reactor, task
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from couchbase.exceptions import (
    ArgumentError,
    CouchbaseError,
    HTTPError,
    NetworkError,
    ProtocolError,
    TimeoutError,
)
from tests.txcouchbase.capi import CapiTestCase, whole
from txcouchbase.designs import DesignMethods
from txcouchbase.http import HttpHeaders

DESIGN = {"views": {"v": {"map": "function (doc, meta) { emit(meta.id, null); }"}}}


class Store:
    """Answers like a view engine; what is written shows after ``delay`` more requests."""

    def __init__(self, capi):
        self.designs = {}
        self.later = []
        self.revision = 0
        self.delay = 0
        self.queries = 0
        self.refuse_queries = 0
        self.capi = capi
        capi.script = self.answer

    def change(self, name, text):
        self.revision += 1
        self.later.append([self.delay, name, text, self.revision])
        self.settle()

    def settle(self):
        for change in list(self.later):
            if change[0] <= 0:
                self.later.remove(change)
                _, name, text, revision = change
                if text is None:
                    self.designs.pop(name, None)
                else:
                    self.designs[name] = (text, revision)
            change[0] -= 1

    def answer(self, conversation, method, path):
        self.settle()
        name = path.removeprefix("/b/_design/").split("/")[0]
        headers = ()
        if path.endswith("/ddocs"):
            rows = [
                {"doc": {"meta": {"id": "_design/" + name, "rev": "1-x"}, "json": json.loads(text)}}
                for name, (text, _) in self.designs.items()
            ]
            status, value = 200, {"rows": rows}
        elif "/_view/" in path:
            self.queries += 1
            self.refuse_queries -= 1
            status, value = (404, {"error": "not_found"}) if self.refuse_queries >= 0 else (200, {"rows": []})
        elif method == "PUT":
            self.change(name, self.capi.requests[-1][3])
            status, value = 201, {"ok": True, "id": "_design/" + name}
        elif name not in self.designs:
            status, value = 404, {"error": "not_found", "reason": "missing"}
        elif method == "DELETE":
            self.change(name, None)
            status, value = 200, {"ok": True}
        else:
            text, revision = self.designs[name]
            meta = {"id": "_design/" + name, "rev": f"{revision}-abc", "type": "json"}
            headers = ("X-Couchbase-Meta: " + json.dumps(meta),)
            status, value = 200, text
        conversation.transport.write(whole(value, status, headers))


class DesignTests(CapiTestCase):
    """One node."""

    @inlineCallbacks
    def setUp(self):
        yield super().setUp()
        self.store = Store(self.capi)

    @inlineCallbacks
    def test_create_and_get(self):
        """A dict is stored under its name with its id, and is not changed; the header has the revision."""
        design = dict(DESIGN)
        made = yield self.connection.design_create("d", design)
        self.assertEqual((made.http_status, made.success, made.value["ok"]), (201, True, True))
        self.assertEqual(made.url, "/b/_design/dev_d")
        method, _, headers, body = self.capi.requests[-1]
        self.assertEqual((method, headers["content-type"]), ("PUT", "application/json"))
        self.assertEqual(json.loads(body), {**DESIGN, "_id": "_design/dev_d"})
        self.assertEqual(design, DESIGN)
        got = yield self.connection.design_get("d")
        self.assertEqual(got.value["views"], DESIGN["views"])
        self.assertEqual(json.loads(got.headers["X-Couchbase-Meta"])["rev"], "1-abc")

    @inlineCallbacks
    def test_names(self):
        """``dev_`` is put before once, and only if asked for."""
        yield self.connection.design_create("dev_d", DESIGN)
        yield self.connection.design_create("p/q", json.dumps(DESIGN), use_devmode=False)
        self.assertEqual(list(self.store.designs), ["dev_d", "p%2Fq"])
        yield self.assertFailure(self.connection.design_get("d", use_devmode=False), HTTPError)

    @inlineCallbacks
    def test_text(self):
        """Text goes as it is."""
        text = '{ "views" : {} }'
        yield self.connection.design_create("d", text, use_devmode=False)
        self.assertEqual(self.capi.requests[-1][3], text.encode())
        yield self.connection.design_create("draft", text)
        self.assertEqual(list(self.store.designs), ["d", "dev_draft"])

    @inlineCallbacks
    def test_publish(self):
        """The development form is copied, and kept; if it is missing, it is HTTPError 404."""
        error = yield self.assertFailure(self.connection.design_publish("d"), HTTPError)
        self.assertEqual(error.objextra.http_status, 404)
        yield self.connection.design_create("d", DESIGN)
        published = yield self.connection.design_publish("d")
        self.assertEqual(published.http_status, 201)
        listed = yield self.connection.design_list()
        self.assertEqual(
            {name: design["views"] for name, design in listed.value.items()},
            {"dev_d": DESIGN["views"], "d": DESIGN["views"]},
        )
        self.assertEqual(listed.value["d"]["_id"], "_design/d")

    @inlineCallbacks
    def test_delete(self):
        """Then it is gone; a second time is HTTPError."""
        yield self.connection.design_create("d", DESIGN)
        yield self.connection.design_delete("d")
        error = yield self.assertFailure(self.connection.design_delete("d"), HTTPError)
        self.assertEqual((error.objextra.http_status, error.key), (404, "/b/_design/dev_d"))
        self.assertEqual(error.objextra.value["reason"], "missing")
        self.assertIn("missing", str(error))

    @inlineCallbacks
    def test_list_of_nothing(self):
        """An empty dict; an answer that is no list is ProtocolError."""
        listed = yield self.connection.design_list()
        self.assertEqual(listed.value, {})
        self.capi.script = lambda conversation, *_: conversation.transport.write(whole([1]))
        yield self.assertFailure(self.connection.design_list(), ProtocolError)
        self.capi.script = lambda conversation, *_: conversation.transport.write(whole("no", 401))
        yield self.assertFailure(self.connection.design_list(), HTTPError)

    @inlineCallbacks
    def test_wrong_arguments(self):
        """They fail before anything is sent."""
        connection = self.connection
        for call in (
            lambda: connection.design_create("", DESIGN),
            lambda: connection.design_create(5, DESIGN),
            lambda: connection.design_create("d", 5),
            lambda: connection.design_create("d", {"views": object()}),
            lambda: connection.design_create("d", DESIGN, syncwait=-1),
            lambda: connection.design_create("d", DESIGN, syncwait="1"),
            lambda: connection.design_publish("d", syncwait=-0.5),
            lambda: connection.design_delete("d", syncwait=float("nan")),
            lambda: connection.design_get(None),
            lambda: self.open(bucket=None).design_get("d"),
        ):
            yield self.assertFailure(call(), ArgumentError)
        self.assertEqual(self.capi.requests, [])

    @inlineCallbacks
    def test_syncwait(self):
        """Returns when the change is visible: the new revision, a view that can be queried; then 404."""
        self.store.delay, self.store.refuse_queries = 3, 2
        made = yield self.connection.design_create("d", DESIGN, syncwait=5)
        self.assertEqual(made.http_status, 201)
        self.assertIn("dev_d", self.store.designs)
        self.assertEqual(self.store.queries, 3)
        self.assertIn(
            "/b/_design/dev_d/_view/v?limit=1&stale=ok", [request[1] for request in self.capi.requests]
        )
        other = {"views": {"w": {"map": "function () {}"}}}
        yield self.connection.design_create("d", other, syncwait=5)
        self.assertIn(b'"w"', self.store.designs["dev_d"][0])
        # The same again: nothing changes, and that is visible.
        self.store.delay = 10**6
        yield self.connection.design_create("d", other, syncwait=5)
        self.store.delay = 3
        yield self.connection.design_publish("d", syncwait=5)
        self.assertIn("d", self.store.designs)
        yield self.connection.design_delete("d", syncwait=5)
        self.assertNotIn("dev_d", self.store.designs)

    @inlineCallbacks
    def test_syncwait_in_vain(self):
        """TimeoutError when the change was made but does not show in time."""
        self.store.delay = 10**6
        for call in (
            lambda: self.connection.design_create("d", DESIGN, syncwait=0.15),
            lambda: self.connection.design_create("d", {"views": {}}, use_devmode=False, syncwait=0.05),
        ):
            yield self.assertFailure(call(), TimeoutError)
        self.store.designs["dev_d"] = (b"{}", 1)
        yield self.assertFailure(self.connection.design_delete("d", syncwait=0.05), TimeoutError)

    @inlineCallbacks
    def test_a_node_that_does_not_answer(self):
        """Silence for views_timeout is TimeoutError; a port without a listener is NetworkError."""
        yield self.connection.connect()
        self.connection.views_timeout = 0.05
        self.capi.script = lambda *_: None
        yield self.assertFailure(self.connection.design_get("d"), TimeoutError)
        self.connection.views_timeout = 75
        yield self.capi.stop()
        yield self.assertFailure(self.connection.design_get("d"), NetworkError)


class NodesTests(CapiTestCase):
    """Two nodes."""

    engines = 2

    @inlineCallbacks
    def test_cancelling(self):
        """Closes the connection, and asks no other node."""
        for capi in self.capis:
            capi.script = lambda *_: None
        asked = self.connection.design_get("d")
        while not any(capi.requests for capi in self.capis):
            yield task.deferLater(reactor, 0)
        asked.cancel()
        yield self.assertFailure(asked, CancelledError)
        while any(capi.connections for capi in self.capis):
            yield task.deferLater(reactor, 0)
        self.assertEqual(sum(len(capi.requests) for capi in self.capis), 1)

    @inlineCallbacks
    def test_syncwait_is_for_all_nodes(self):
        """It waits for the slower one, but not for one that is gone."""
        stores = [Store(capi) for capi in self.capis]
        done = []
        waiting = self.connection.design_create("d", DESIGN, syncwait=5).addCallback(done.append)
        while not any("dev_d" in store.designs for store in stores):
            yield task.deferLater(reactor, 0)
        slower = next(store for store in stores if "dev_d" not in store.designs)
        while not slower.capi.requests:
            yield task.deferLater(reactor, 0.01)
        self.assertEqual(done, [])
        slower.change("dev_d", json.dumps(DESIGN).encode())
        yield waiting
        self.assertEqual(len(done), 1)
        yield self.capis[1].stop()
        stores[0].designs.clear()
        yield self.connection.design_create("d", DESIGN, syncwait=5)


class Waiter(DesignMethods):
    """The methods with a clock, and one node that shows nothing before its time."""

    _bucket = "b"
    _views_timeout = 75.0

    def __init__(self, clock):
        self._client = self._http = self
        self.reactor, self.seconds = clock, clock.seconds
        self.shown_at = 1e9

    def addresses(self, service):
        return ["http://one"]

    def visible(self, base):
        answer = Deferred()
        answer.callback(self.seconds() >= self.shown_at)
        return answer


class PollTests(SynchronousTestCase):
    """Waiting, by a given clock."""

    def test_time(self):
        """Looks every tenth of a second, until it shows or the time is over."""
        clock = task.Clock()
        waiter = Waiter(clock)
        waiter.shown_at = 1.0
        waiting = waiter._wait_until(2.0, "d", waiter.visible)
        clock.pump([0.1] * 9)
        self.assertNoResult(waiting)
        clock.pump([0.1] * 2)
        self.successResultOf(waiting)
        waiter.shown_at = 1e9
        waiting = waiter._wait_until(2.0, "d", waiter.visible)
        clock.pump([0.1] * 19)
        self.assertNoResult(waiting)
        clock.pump([0.1] * 2)
        error = self.failureResultOf(waiting, TimeoutError).value
        self.assertIsInstance(error, CouchbaseError)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_a_node_that_hangs(self):
        """Is given up when the time is over."""
        clock = task.Clock()
        waiter = Waiter(clock)
        waiting = waiter._wait_until(2.0, "d", lambda base: Deferred())
        clock.pump([0.5] * 5)
        self.failureResultOf(waiting, TimeoutError)
        self.assertEqual(clock.getDelayedCalls(), [])


class HeadersTests(SynchronousTestCase):
    """Headers of answers."""

    def test_any_spelling(self):
        """A name is found however it is written, and listed as it came."""
        headers = HttpHeaders({"X-Couchbase-Meta": "x"})
        self.assertEqual(headers["x-couchbase-META"], "x")
        self.assertEqual((headers.get("X-COUCHBASE-META"), headers.get("nope", 5)), ("x", 5))
        self.assertIn("x-couchbase-meta", headers)
        self.assertNotIn("nope", headers)
        self.assertRaises(KeyError, headers.__getitem__, "nope")
        self.assertEqual(list(headers), ["X-Couchbase-Meta"])
