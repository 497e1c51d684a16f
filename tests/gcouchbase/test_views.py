"""Views in greenlets: the specific parts of GView. The rest is in test_as_blocking."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import TestCase

import gevent

from couchbase.exceptions import ArgumentError, ClientTemporaryFailError, HTTPError, TimeoutError
from couchbase.views.iterator import AlreadyQueriedError, View
from gcouchbase import GConnection, GView
from tests.couchbase.scripted import ScriptedNode
from tests.couchbase.support import ConnectionTestCase
from tests.gcouchbase.support import InGreenlets

COUNT = 200
DESIGN = {"views": {"all": {"map": "function (d, m) { emit(d.n, null); }"}}}


class ScriptedTests(InGreenlets, TestCase):
    """Tests against a view engine that answers on command."""

    def setUp(self):
        test = self
        self.asked = threading.Event()
        self.answer = threading.Event()
        self.gone = threading.Event()

        class Engine(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"total_rows": 2, "rows": [\r\n{"id": "a", "key": 1, "value": 2}')
                test.asked.set()
                test.answer.wait(10)
                try:
                    for _ in range(100):
                        self.wfile.write(b',\r\n{"id": "b", "key": 2, "value": "' + bytes(100_000) + b'"}')
                except OSError:
                    test.gone.set()

            def log_message(self, format, *args):
                pass

        engine = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
        engine.daemon_threads = True
        threading.Thread(target=engine.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(engine.server_close)
        self.addCleanup(engine.shutdown)
        self.addCleanup(self.answer.set)
        node = ScriptedNode()
        self.addCleanup(node.stop)
        config = json.loads(node.config())
        config["nodesExt"][0]["services"]["capi"] = engine.server_address[1]
        node.config = lambda: json.dumps(config).encode()
        self.cb = GConnection(bucket="b", connection_string=node.string, password="p")
        self.addCleanup(self.cb._close)

    def wait_for(self, event):
        """Let greenlets run until something happened in another thread."""
        with gevent.Timeout(10):
            while not event.is_set():
                gevent.sleep(0.005)

    def test_sent_at_once(self):
        """The request reaches the node before any iteration; other greenlets run, also between rows."""
        view = self.cb.query("d", "v")
        self.assertIsNone(view.raw)
        self.wait_for(self.asked)
        rows = iter(view)
        self.assertEqual(next(rows).docid, "a")
        second = gevent.spawn(next, rows)
        self.assertEqual(self.cb.get("k").value, 1)
        self.assertFalse(second.ready())
        second.kill()

    def test_dropped(self):
        """A view that is let go, iterated or not, closes its connection."""
        view = self.cb.query("d", "v")
        self.wait_for(self.asked)
        gevent.sleep(0)
        del view
        self.answer.set()
        self.wait_for(self.gone)

    def test_dropped_half_read(self):
        """So does one whose iterator is dropped."""
        for _ in self.cb.query("d", "v"):
            break
        self.answer.set()
        self.wait_for(self.gone)

    def test_dropped_at_once(self):
        """A view that is dropped before its request was sent sends none, and does not affect others."""
        self.cb.query("d", "v")
        for _ in range(20):
            gevent.sleep(0)
        self.assertFalse(self.asked.is_set())
        self.assertEqual(self.cb.get("k").value, 1)

    def test_time(self):
        """TimeoutError when nothing comes."""
        self.cb.views_timeout = 0.1
        rows = iter(self.cb.query("d", "v"))
        self.assertEqual(next(rows).docid, "a")
        self.assertRaises(TimeoutError, next, rows)

    def test_closed(self):
        """Failures wait for the iteration."""
        self.cb._close()
        view = self.cb.query("d", "v")
        self.assertRaises(ClientTemporaryFailError, list, view)


class NodeTests(InGreenlets, ConnectionTestCase):
    """Against a real node."""

    options = {"nodes": 2, "replicas": 1}

    def setUp(self):
        super().setUp()
        self.cb.set_multi({f"g{number:03}": {"n": number} for number in range(COUNT)})
        self.cb.design_create("greenlets", DESIGN, use_devmode=False, syncwait=10)

    def read(self, number):
        """Return the documents' numbers from 1 on, by a separate view."""
        view = self.cb.query(
            "greenlets", "all", startkey=number, endkey=COUNT, include_docs=True, stale=False
        )
        self.assertIs(type(view), GView)
        return [row.doc.value["n"] for row in view]

    def test_side_by_side(self):
        """Many greenlets query, documents included."""
        greenlets = [gevent.spawn(self.read, number) for number in range(0, COUNT, 10)]
        gevent.joinall(greenlets, raise_error=True)
        for number, greenlet in zip(range(0, COUNT, 10), greenlets, strict=True):
            self.assertEqual(greenlet.value, list(range(number, COUNT)))

    def test_twice(self):
        """A view is iterated once."""
        view = self.cb.query("greenlets", "all", itercls=View, limit=1)
        self.assertIsInstance(view, GView)
        self.assertEqual(len(list(view)), 1)
        self.assertRaises(AlreadyQueriedError, list, view)

    def test_failures(self):
        """The node's failures are raised by the iteration, invalid arguments by the call."""
        view = self.cb.query("nothing", "there")
        gevent.sleep(0)
        with self.assertRaises(HTTPError) as caught:
            list(view)
        self.assertEqual(caught.exception.objextra.http_status, 404)
        self.assertRaises(ArgumentError, self.cb.query, "greenlets", "all", nonsense=1)
        self.assertRaises(ArgumentError, self.cb.query, "greenlets", "all", include_docs=True, group=True)
