"""Queries while everything around them changes: designs, buckets, clients, processes, files."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater

from couchnode.views import answers, workerclient
from tests.couchnode.rest.test_api import Exchange, head
from tests.couchnode.views.nodes import BY_NAME, Steps, ViewCase

ADMIN = ("Administrator", "password")
LARGE = "function (doc, meta) { for (var i = 0; i < 1000; i++) { emit(i, doc.text); } }"


class RaceCase(ViewCase):
    """Helpers to hold an update up, and to look inside."""

    @property
    def views(self) -> Any:
        """The view engine."""
        return self.node._views

    def indexer(self, node: int = 0) -> Any:
        """The indexer of the open bucket."""
        return self.views._indexer(self.cluster.bucket("default"), self.cluster.nodes[node])

    @inlineCallbacks
    def until(self, condition: Any) -> Steps:
        """Wait for a condition."""
        while not condition():
            yield deferLater(reactor, 0.01)

    @inlineCallbacks
    def settled(self) -> Steps:
        """Wait for what the node does in the background."""
        yield self.until(lambda: not self.views._background)

    @inlineCallbacks
    def hang_up(self, path: str, when: Any) -> Steps:
        """Send a GET, and hang up once a condition holds."""
        port = self.cluster.nodes[0].address.rest_port
        exchange = yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Exchange())
        exchange.transport.write(head("GET", path, ADMIN))
        yield self.until(when)
        exchange.transport.abortConnection()
        yield exchange.closed

    def store_large(self) -> None:
        """Store documents that make 27 MB of rows with :data:`LARGE`."""
        for number in range(30):
            self.store(f"k{number}", {"text": "x" * 900})


class ClientTests(RaceCase):
    """Clients that go, and clients that do not read."""

    @inlineCallbacks
    def test_hanging_up_during_an_update(self) -> Steps:
        """The update ends with the client that waited for it, and the query is not run."""
        yield self.design("d", v=BY_NAME)
        self.store("a", {"name": "a"})
        indexer = self.indexer()
        update = indexer._update
        held: list[Deferred[None]] = []

        async def slow(*arguments: Any) -> None:
            held.append(Deferred())
            await held[-1]
            await update(*arguments)

        indexer._update = slow
        asked: list[object] = []
        answer = self.views._answers.ask

        def note(request: object) -> object:
            asked.append(request)
            return answer(request)

        self.views._answers.ask = note
        yield self.hang_up("/default/_design/d/_view/v", lambda: held)
        yield self.until(lambda: held[0].called)
        self.assertEqual(asked, [])
        indexer._update = update
        self.assertEqual((yield self.query()).ids, ["a"])
        self.assertEqual((self.views._answers.open, self.views._worker.updates.tokens), (set(), 8))

    @inlineCallbacks
    def test_clients_that_do_not_read(self) -> Steps:
        """They lose their places to others that wait for one, and only to those."""
        self.patch(answers, "SLOW_SECONDS", 0.2)
        yield self.design("d", v=LARGE)
        self.store_large()
        yield self.query(limit=1)
        self.views._answers.places.limit = self.views._answers.places.tokens = 2
        port = self.cluster.nodes[0].address.rest_port
        slow = []
        for _ in range(2):
            exchange = yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Exchange())
            exchange.transport.write(head("GET", "/default/_design/d/_view/v", ADMIN))
            yield self.until(lambda exchange=exchange: exchange.data)
            exchange.transport.pauseProducing()
            slow.append(exchange)
        yield self.until(lambda: all(one.paused_since is not None for one in self.views._answers.open))
        self.assertEqual(len(self.views._answers.open), 2)
        self.assertEqual((yield self.query(limit=1)).status, 200)
        self.assertEqual(len(self.views._answers.open), 1)
        for exchange in slow:
            exchange.transport.abortConnection()
        yield self.until(lambda: not self.views._answers.open)

    @inlineCallbacks
    def test_more_queries_than_places(self) -> Steps:
        """They wait for each other, and all get their answers."""
        yield self.design("d", v=BY_NAME)
        self.store("a", {"name": "a"})
        self.views._answers.places.limit = self.views._answers.places.tokens = 3
        answers = yield gatherResults([self.query(stale="ok" if n % 2 else "false") for n in range(60)])
        self.assertEqual({answer.status for answer in answers}, {200})

    @inlineCallbacks
    def test_connections_to_the_worker(self) -> Steps:
        """One serves many queries, one after the other. One whose answer was not read to its end is
        closed, and a new worker gets new ones."""
        self.store("a", {"name": "a"})
        self.store_large()
        yield self.design("d", v=BY_NAME, large=LARGE, thrown=(BY_NAME, "function () { throw 1; }"))
        yield self.query("large", limit=1)
        worker = self.views._worker
        made: list[Any] = []
        connect = worker.connect
        self.patch(worker, "connect", lambda: made.append(worker.pid) or connect())
        kept = worker._idle[:]
        self.assertEqual(len(kept), 1)
        for _ in range(3):
            self.assertEqual((yield self.query(stale="ok")).ids, ["a"])
            refused = yield self.query(stale="ok", startkey='"b"', endkey='"a"')
            self.assertEqual(refused.json["error"], "query_parse_error")
            self.assertEqual((yield self.query("thrown", stale="ok")).status, 500)
        self.assertEqual((worker._idle, made), (kept, []))
        yield self.hang_up(
            "/default/_design/d/_view/large?stale=ok",
            lambda: any(one.paused_since is not None for one in self.views._answers.open),
        )
        yield self.until(lambda: not self.views._answers.open)
        self.assertEqual(worker._idle, [])
        some = [self.query(stale="ok") for _ in range(20)]
        for one in some:
            self.assertEqual((yield one).ids, ["a"])
        self.assertLessEqual(len(worker._idle), workerclient._IDLE_CONNECTIONS)
        self.assertNotEqual(worker._idle, [])
        earlier = worker.pid
        os.kill(earlier, signal.SIGKILL)
        self.assertEqual((yield self.query(stale="ok")).ids, ["a"])
        yield self.until(lambda: worker.pid not in (None, earlier))
        self.assertEqual((yield self.query(stale="ok")).ids, ["a"])
        self.assertEqual(len(worker._idle), 1)
        self.assertEqual(self.views._answers.places.tokens, 100)

    @inlineCallbacks
    def test_hanging_up_during_a_change(self) -> Steps:
        """A design document whose client is gone is stored whole, on the disk and in memory."""
        running = self.cluster.put_design("default", "d", b'{"views": {}}')
        running.addErrback(lambda _: None)
        running.cancel()
        other = yield self.cluster.put_design("default", "e", b"{}")
        self.assertEqual(other.name, "e")
        self.assertEqual(set(self.cluster.bucket("default").designs), {"d", "e"})
        saved = json.loads((self.folder / "cluster.json").read_bytes())
        self.assertEqual(set(saved["buckets"]["default"]["designs"]), {"d", "e"})


class DesignTests(RaceCase):
    """Design documents and buckets that change while they are used."""

    @inlineCallbacks
    def test_a_view_that_comes_back(self) -> Steps:
        """A view that is changed and changed back, while its old index is being deleted, is complete."""
        self.store("a", {"name": "a"})
        yield self.design("d", v=BY_NAME)
        self.assertEqual((yield self.query()).ids, ["a"])
        for _ in range(20):
            yield self.design("d", v=BY_NAME + " ")
            yield self.design("d", v=BY_NAME)
            answers = yield gatherResults([self.query(), self.query()])
            self.assertEqual([(answer.status, answer.ids) for answer in answers], [(200, ["a"])] * 2)
        yield self.settled()
        self.assertEqual((yield self.query()).ids, ["a"])

    @inlineCallbacks
    def test_a_design_that_is_replaced_during_an_update(self) -> Steps:
        """Waiting clients are answered from the view that exists then."""
        for number in range(200):
            self.store(f"k{number}", {"name": number})
        # A second of work, so that even a slow disk has the new design before the update ends.
        yield self.design("d", v="function (doc, meta) { var n = 2e7; while (n--); emit('old', null); }")
        old = [self.query(limit=1), self.query(limit=1)]
        yield self.until(lambda: self.views._worker.updates.tokens < 8)
        yield self.design("d", v="function (doc, meta) { emit('new', null); }")
        for answer in (yield gatherResults(old)):
            self.assertEqual((answer.status, answer.keys), (200, ["new"]))
        yield self.settled()
        self.assertEqual(len(list((self.folder / "node0" / "default.views").glob("*.sqlite"))), 1)

    @inlineCallbacks
    def test_a_bucket_that_is_deleted_during_an_update(self) -> Steps:
        """The query fails with that reason, and nothing remains."""
        for number in range(200):
            self.store(f"k{number}", {"name": number})
        yield self.design("d", v="function (doc, meta) { var n = 2e6; while (n--); emit(1, null); }")
        waiting = self.query()
        yield self.until(lambda: self.views._worker.updates.tokens < 8)
        yield self.cluster.delete_bucket("default")
        answer = yield waiting
        self.assertIn(answer.status, (401, 404), answer.body)
        self.assertEqual(self.views._indexers, {})
        self.assertFalse((self.folder / "node0" / "default.views").exists())

    @inlineCallbacks
    def test_a_flush_during_an_update(self) -> Steps:
        """The query is answered, and later ones show what was stored since."""
        for number in range(200):
            self.store(f"k{number}", {"name": number})
        yield self.design("d", v="function (doc, meta) { var n = 1e6; while (n--); emit(doc.name, null); }")
        waiting = self.query()
        yield self.until(lambda: self.views._worker.updates.tokens < 8)
        yield self.cluster.flush_bucket("default")
        self.store("new", {"name": "new"})
        self.assertEqual((yield waiting).status, 200)
        self.assertEqual((yield self.query()).keys, ["new"])

    @inlineCallbacks
    def test_stale_ok_does_not_wait(self) -> Steps:
        """While an index is being built, queries with stale=ok get its present rows at once."""
        self.store("a", {"name": "a"})
        yield self.design("d", v=BY_NAME)
        self.assertEqual((yield self.query()).ids, ["a"])
        indexer = self.views._indexer(self.cluster.bucket("default"), self.cluster.nodes[0])
        (view,) = self.cluster.bucket("default").designs["d"].views.values()
        lock = indexer.file(view, False).lock
        yield lock.acquire()  # as an update does that takes long
        self.store("b", {"name": "b"})
        waiting = self.query()
        self.assertEqual((yield self.query(stale="ok")).ids, ["a"])
        self.assertFalse(waiting.called)
        lock.release()
        self.assertEqual((yield waiting).ids, ["a", "b"])

    @inlineCallbacks
    def test_files_that_vanish(self) -> Steps:
        """A deleted index is rebuilt by the next query, even without changes."""
        self.store("a", {"name": "a"})
        yield self.design("d", v=BY_NAME)
        self.assertEqual((yield self.query()).ids, ["a"])
        for path in (self.folder / "node0" / "default.views").iterdir():
            path.unlink()
        self.assertEqual((yield self.query()).ids, ["a"])

    @inlineCallbacks
    def test_files_that_vanish_before_the_query(self) -> Steps:
        """An index that is gone between its update and the query is made again: no rows would be a wrong
        answer. A query of the index as it is has none."""
        self.store("a", {"name": "a"})
        yield self.design("d", v=BY_NAME)
        yield self.query()
        ask = self.views._answers.ask
        folder = Path(self.folder) / "node0" / "default.views"
        vanished = []

        def ask_without(request: Any) -> Any:
            if len(vanished) < most:
                for path in folder.glob("*.sqlite"):
                    vanished.append(path)
                    path.unlink()
            return ask(request)

        self.patch(self.views._answers, "ask", ask_without)
        most = 2
        self.assertEqual((yield self.query()).ids, ["a"])
        self.assertEqual(len(vanished), 2)
        vanished.clear()
        self.assertEqual((yield self.query(stale="ok")).ids, [])
        most = 100
        answer = yield self.query()
        self.assertEqual((answer.status, answer.json["reason"]), (500, "the index was deleted"))

    @inlineCallbacks
    def test_a_folder_that_cannot_be_made(self) -> Steps:
        """The error says what the matter is, and it is over when the matter is."""
        self.store("a", {"name": "a"})
        yield self.design("d", v=BY_NAME)
        folder = Path(self.folder) / "node0" / "default.views"
        folder.write_bytes(b"in the way")
        answer = yield self.query()
        self.assertEqual((answer.status, answer.json["error"]), (500, "error"))
        self.assertIn("default.views cannot be made: ", answer.json["reason"])
        folder.unlink()
        self.assertEqual((yield self.query()).ids, ["a"])


class ProcessTests(RaceCase):
    """The worker process."""

    @inlineCallbacks
    def test_a_worker_that_is_killed_during_an_update(self) -> Steps:
        """Waiting clients are answered nevertheless."""
        for number in range(200):
            self.store(f"k{number:03}", {"name": number})
        yield self.design("d", v="function (doc, meta) { var n = 1e6; while (n--); emit(doc.name, null); }")
        waiting = self.query()
        yield self.until(lambda: self.views._worker.updates.tokens < 8 and self.views._worker.pid)
        os.kill(self.views._worker.pid, signal.SIGKILL)
        answer = yield waiting
        self.assertEqual((answer.status, answer.keys), (200, list(range(200))))

    @inlineCallbacks
    def test_a_flood_of_messages(self) -> Steps:
        """A function that fails for each document does not fill the log."""
        for number in range(1000):
            self.store(f"k{number}", {})
        lines: list[str] = []
        self.views._worker._log = type("Log", (), {"warn": lambda self, text, **_: lines.append(text)})()
        yield self.design("d", v="function (doc, meta) { throw new Error('no'); }")
        self.assertEqual((yield self.query()).ids, [])
        self.assertLess(len(lines), 150)
        self.assertGreater(len(lines), 50)
