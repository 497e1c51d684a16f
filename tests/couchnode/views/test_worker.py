"""The worker as a process: its answers on the socket, what it survives, and what survives it."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sqlite3
import struct
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from couchnode.views.index import IndexReader, ViewIndex
from couchnode.views.wire import Blocked, Wire
from tests.couchnode.views.indexes import PATIENCE_SECONDS, Peer, WorkerProcess, change, stored, text

MAP = "function (doc, meta) { if ('k' in doc) emit(doc.k, doc.v); }"
TWICE = "function (doc, meta) { emit([meta.id, 1], null); emit([meta.id, 2], null); }"


def document(doc: str, key: Any, value: Any = None, vb: int = 0, seqno: int = 1) -> tuple[Any, ...]:
    """Return the change of a document that MAP makes one row of."""
    return change(doc, vb, text({"k": key, "v": value}).encode(), seqno)


class _Case(TestCase):
    @cached_property
    def folder(self) -> str:
        # The path of a Unix socket may not be long, and trial's folders are.
        folder = Path(os.path.relpath(self.mktemp()))
        folder.mkdir(parents=True)
        return str(folder)

    @cached_property
    def worker(self) -> WorkerProcess:
        return self.start()

    def start(self, *limits: str) -> WorkerProcess:
        """Start a worker, which ends with the test."""
        worker = WorkerProcess(self.folder, *limits)
        self.addCleanup(worker.stop)
        return worker

    def view(self, name: str = "v", map_source: str = MAP, reduce: str | None = None) -> dict[str, Any]:
        """Return how a request names an index."""
        path = os.path.abspath(os.path.join(self.folder, f"{name}.sqlite"))
        return {"path": path, "design": "b/d", "name": name, "map": map_source, "reduce": reduce}

    def opened(self, *views: dict[str, Any]) -> Peer:
        """Return a connection that has opened indexes."""
        peer = self.worker.connect()
        kind, states = peer.ask(("open", {"indexes": list(views)}))
        self.assertEqual("ok", kind, states)
        self.states = states
        return peer

    def apply(self, peer: Peer, changes: list[Any], marks: Any = None, views: Any = (0,)) -> Any:
        """Apply changes; return the answer's content."""
        kind, states = peer.ask(("apply", {"views": list(views), "changes": changes, "marks": marks or {}}))
        self.assertEqual("ok", kind, states)
        return states


class ActivitiesTests(_Case):
    """The operations of the protocol, from beginning to end."""

    def test_open_apply_query(self) -> None:
        """Documents go in, rows come out, in two views of one design."""
        views = [self.view(), self.view("twice", TWICE, "_count")]
        peer = self.opened(*views)
        self.assertEqual([{"marks": {}, "rows": 0, "error": None}] * 2, self.states)
        states = self.apply(
            peer,
            [document("b", 2), document("a", 1, "x", vb=5), change("c")],
            {0: (2**64 - 1, 7), 5: (3, 1)},
            (0, 1),
        )
        self.assertEqual([{"rows": 2, "error": None}, {"rows": 6, "error": None}], states)
        self.assertEqual(
            {
                "total_rows": 2,
                "rows": [{"id": "a", "key": 1, "value": "x"}, {"id": "b", "key": 2, "value": None}],
            },
            self.worker.query(views[:1]),
        )
        self.assertEqual(
            {"rows": [{"key": [name], "value": 2} for name in "abc"]},
            self.worker.query(views[1:], reduce=True, group=1),
        )
        peer.close()
        self.opened(*views)
        self.assertEqual({0: (2**64 - 1, 7), 5: (3, 1)}, self.states[0]["marks"])

    def test_no_ghost_rows(self) -> None:
        """Overwritten, uninteresting now, deleted, reconciled and dropped documents have no rows."""
        view = self.view()
        peer = self.opened(view)
        self.apply(peer, [document(name, 1, vb=number % 2) for number, name in enumerate("abcdef")])
        self.apply(
            peer,
            [
                document("a", 2),
                change("b", 1, value=None),
                change("c", value=b'{"x":1}'),
                document("e", 5),
                document("e", 6),
            ],
        )
        self.assertEqual(
            [("d", 1, None), ("f", 1, None), ("a", 2, None), ("e", 6, None)], stored(view["path"])
        )
        self.assertEqual("ok", peer.ask(("reconcile", {"views": [0], "vb": 0, "keys": [b"e"]}))[0])
        self.assertEqual([("d", 1, None), ("f", 1, None), ("e", 6, None)], stored(view["path"]))
        kind, states = peer.ask(("drop", {"views": [0], "vbs": [1]}))
        self.assertEqual([{"rows": 1, "error": None}], states)
        self.assertEqual([("e", 6, None)], stored(view["path"]))

    def test_check(self) -> None:
        """Each function gets ``None`` or, the first bad one, what is wrong; again and again on one
        connection."""
        peer = self.worker.connect()
        for _ in range(2):
            kind, told = peer.ask(
                ("check", {"functions": [("map", MAP), ("reduce", "function (k"), ("map", TWICE)]})
            )
            self.assertEqual(("ok", None, 2), (kind, told[0], len(told)))
            self.assertIn("SyntaxError", told[1])

    def test_custom_reduce(self) -> None:
        """A function in JavaScript gets keys with ids, and its own results."""
        source = (
            "function (keys, values, rereduce) { return rereduce"
            " ? [values.length, sum(values.map(function (v) { return v[1]; }))]"
            " : [keys[0][1], sum(values)]; }"
        )
        view = self.view(reduce=source)
        self.apply(
            self.opened(view), [document(f"d{n:04}", n % 2, n) for n in range(2500)] + [document("one", 7, 5)]
        )
        self.assertEqual(
            {
                "rows": [
                    {"key": 0, "value": [2, sum(range(0, 2500, 2))]},
                    {"key": 1, "value": [2, sum(range(1, 2500, 2))]},
                    {"key": 7, "value": ["one", 5]},
                ]
            },
            self.worker.query([view], reduce=True, group=-1),
        )
        thrower = self.view(reduce="function () { throw new Error('no') }")
        self.apply(self.opened(thrower), [document("a", 1)])
        kind, refused = self.worker.query([thrower], reduce=True)
        self.assertEqual(("refused", 500, "error"), (kind, refused["status"], refused["error"]))
        self.assertIn("no", refused["reason"])

    def test_forget(self) -> None:
        """The files are deleted, even if they are open elsewhere, and can be created again."""
        view = self.view()
        peer = self.opened(view)
        self.apply(peer, [document("a", 1)])
        self.assertEqual(1, self.worker.query([view])["total_rows"])
        other = self.worker.connect()
        missing = os.path.join(self.folder, "missing.sqlite")
        self.assertEqual(("ok", None), other.ask(("forget", {"paths": [view["path"], missing]})))
        self.assertEqual([], [name for name in os.listdir(self.folder) if "sqlite" in name])
        self.assertEqual(0, self.worker.query([view])["total_rows"])
        kind, reason = peer.ask(("apply", {"views": [0], "changes": [document("a", 1)], "marks": {}}))
        self.assertEqual("error", kind)
        self.assertIn("deleted", reason)
        self.apply(self.opened(view), [document("b", 1)])
        self.assertEqual([("b", 1, None)], stored(view["path"]))

    def test_pipelined_batches_are_answered_in_order(self) -> None:
        """Two are outstanding, and each answer counts its own rows; after the last one everything is
        stored."""
        view = self.view()
        peer = self.opened(view)
        for n in range(20):
            peer.send(("apply", {"views": [0], "changes": [document(f"d{n}", n)], "marks": {0: (1, n + 1)}}))
            if n:
                self.assertEqual(("ok", [{"rows": n, "error": None}]), peer.answer())
        self.assertEqual(("ok", [{"rows": 20, "error": None}]), peer.answer())
        self.assertEqual(20, self.worker.query([view])["total_rows"])


class BuildErrorTests(_Case):
    """Builds that fail."""

    def test_numbers_are_due(self) -> None:
        """Later requests on the connection are answered with the error and not executed; then they are
        repeated."""
        views = [self.view("sums", reduce="_sum"), self.view("all")]
        peer = self.opened(*views)
        (failed, fine) = self.apply(peer, [document("a", 1, "x", vb=1)], {1: (1, 5)}, (0, 1))
        self.assertIn(
            "Error building index for view `sums`, reason: Value is not a number (key 1)", failed["error"]
        )
        self.assertEqual({"rows": 1, "error": None}, fine)
        (again, fine) = self.apply(peer, [document("b", 1, 4, vb=1)], {1: (1, 6)}, (0, 1))
        self.assertEqual((failed["error"], 0, 2), (again["error"], again["rows"], fine["rows"]))
        peer.close()
        peer = self.opened(*views)
        self.assertEqual([{}, {1: (1, 6)}], [state["marks"] for state in self.states])
        self.assertEqual([failed["error"], None], [state["error"] for state in self.states])
        kind, refused = self.worker.query(views[:1])
        self.assertEqual(("refused", 500, failed["error"]), (kind, refused["status"], refused["reason"]))
        (state,) = self.apply(peer, [document("a", 1, 3, vb=1), document("b", 1, 4, vb=1)], {1: (1, 7)})
        self.assertEqual({"rows": 2, "error": None}, state)
        self.assertEqual([{"key": None, "value": 7}], self.worker.query(views[:1], reduce=True)["rows"])

    def test_only_the_guilty_view_fails(self) -> None:
        """A function that cannot be loaded, or emits too much, stops its own view."""
        views = [self.view("bad", "function (doc) { emit(1, 'x'.repeat(17000000)); }"), self.view("good")]
        failed, fine = self.apply(self.opened(*views), [document("a", 1)], {0: (1, 1)}, (0, 1))
        self.assertIsNotNone(failed["error"])
        self.assertEqual({"rows": 1, "error": None}, fine)
        self.assertEqual("refused", self.worker.query(views[:1])[0])
        self.assertEqual(1, self.worker.query(views[1:])["total_rows"])


class TroubleTests(_Case):
    """Requests that cannot be carried out, files that break, peers that misbehave."""

    def test_unknown_operations_are_answered(self) -> None:
        """With an error, and the end of the connection."""
        for first, request in (
            (None, ("dance", {})),
            (None, ("open", {})),
            (None, 5),
            (None, ("query", {"indexes": [], "query": None})),
            (self.view(), ("dance", {"views": [0]})),
            (self.view(), ("apply", {"views": [0]})),
            (self.view(), ("apply", {"views": [3], "changes": [], "marks": {}})),
        ):
            peer = self.opened(first) if first is not None else self.worker.connect()
            kind, reason = peer.ask(request)
            self.assertEqual("error", kind, request)
            self.assertTrue(reason)
            self.assertIsNone(peer.answer())

    def test_frames_that_are_none_end_the_connection(self) -> None:
        """Too long, not a value, cut off; the worker lives on."""
        for data in (struct.pack("!I", 2**31), struct.pack("!I", 3) + b"???", b"\0\0"):
            peer = self.worker.connect()
            peer.send_raw(data)
            if len(data) < 4:
                peer.close()
            else:
                self.assertIsNone(peer.answer())
        self.assertEqual(("ok", []), self.worker.connect().ask(("check", {"functions": []})))

    def test_the_last_to_open_an_index_has_it(self) -> None:
        """Later writes of an earlier connection are refused, so that they cannot undo anything."""
        view = self.view()
        first = self.opened(view)
        self.apply(first, [document("a", 1)], {0: (1, 1)})
        second = self.opened(view)
        self.assertEqual({0: (1, 1)}, self.states[0]["marks"])
        self.apply(second, [document("a", 2)], {0: (1, 2)})
        self.assertEqual(
            "error", first.ask(("apply", {"views": [0], "changes": [document("a", 1)], "marks": {}}))[0]
        )
        self.apply(second, [document("b", 3)], {0: (1, 3)})
        self.assertEqual([("a", 2, None), ("b", 3, None)], stored(view["path"]))

    def test_two_connections_write_different_sets_of_files(self) -> None:
        """Both make progress: neither waits for the other forever."""
        views = [self.view(name) for name in "abcd"]
        peers = [self.opened(views[0], views[3]), self.opened(views[2], views[1])]
        for n in range(10):
            for peer in peers:
                for view in (0, 1):
                    batch = {"views": [view], "changes": [document(f"d{n}", n)], "marks": {}}
                    peer.send(("apply", batch))
        for peer in peers:
            for _ in range(20):
                self.assertEqual("ok", peer.answer()[0])
        self.assertEqual([10] * 4, [self.worker.query([view])["total_rows"] for view in views])

    def test_a_damaged_file_is_made_anew(self) -> None:
        """A query says so; the next one who opens it starts from nothing."""
        view = self.view()
        peer = self.opened(view)
        self.apply(peer, [document(f"d{n:04}", "x" * 50 + str(n)) for n in range(2000)], {0: (1, 1)})
        peer.close()
        self.worker.stop()
        del self.worker
        # The worker leaves its log, whose pages would hide those that are damaged here.
        connection = sqlite3.connect(view["path"])
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        with open(view["path"], "r+b") as file:
            file.seek(8192 * 5)
            file.write(os.urandom(8192 * 20))
        kind, refused = self.worker.query([view])
        self.assertEqual(("refused", 500), (kind, refused["status"]))
        self.assertIn("cannot be read", refused["reason"])
        self.opened(view)
        self.assertEqual([{"marks": {}, "rows": 0, "error": None}], self.states)

    def test_a_folder_that_is_not_there_is_an_error(self) -> None:
        """Nothing is created in a folder that does not exist."""
        kind, reason = self.worker.connect().ask(
            ("open", {"indexes": [{**self.view(), "path": "/nowhere/x/v"}]})
        )
        self.assertEqual("error", kind)
        self.assertIn("unable to open", reason)

    def test_a_full_disk_is_an_error_and_leaves_the_marks(self) -> None:
        """Committed rows are kept; when there is room, the update continues."""
        view = self.view()
        peer = self.opened(view)
        self.apply(peer, [document("a", 1)], {0: (1, 1)})
        pid = self.worker.process.pid
        old = resource.prlimit(pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        large = [document(f"d{n}", n, "x" * 1000) for n in range(1000)]
        kind, reason = peer.ask(("apply", {"views": [0], "changes": large, "marks": {0: (1, 2)}}))
        self.assertEqual("error", kind, reason)
        self.assertIsNone(peer.answer())
        resource.prlimit(pid, resource.RLIMIT_FSIZE, old)
        peer = self.opened(view)
        self.assertEqual([{"marks": {0: (1, 1)}, "rows": 1, "error": None}], self.states)
        self.assertEqual([{"rows": 1001, "error": None}], self.apply(peer, large, {0: (1, 2)}))

    def test_too_many_queries_are_refused(self) -> None:
        """With 503, while the ones before are being read; when one ends there is room."""
        self.worker = self.start("queries=2")
        view = self.view()
        self.apply(self.opened(view), [document(f"d{n}", n, "x" * 2000) for n in range(2000)])
        request = ("query", {"indexes": [{**view, "from": "local"}], "query": {}})
        held = [self.worker.connect() for _ in range(2)]
        for peer in held:
            self.assertEqual("head", peer.ask(request)[0])
        kind, refused = self.worker.query([view])
        self.assertEqual(("refused", 503, "too_many_requests"), (kind, refused["status"], refused["error"]))
        self.assertEqual(2000, len(json.loads(held[0].body())["rows"]))
        self.assertEqual(2000, len(json.loads(held[1].body())["rows"]))

    def test_a_query_whose_reader_hangs_up_ends(self) -> None:
        """Its place is free again."""
        self.worker = self.start("queries=1")
        view = self.view()
        self.apply(self.opened(view), [document(f"d{n}", n, "x" * 2000) for n in range(2000)])
        request = ("query", {"indexes": [{**view, "from": "local"}], "query": {}})
        peer = self.worker.connect()
        self.assertEqual("head", peer.ask(request)[0])
        peer.close()
        self.assertEqual("head", self._ask_until_it_is_let_in(request)[0])

    def _ask_until_it_is_let_in(self, request: Any) -> Any:
        pause = threading.Event()
        for _ in range(PATIENCE_SECONDS * 100):
            reply = self.worker.connect().ask(request)
            if reply[0] != "refused":
                return reply
            pause.wait(0.01)
        return None

    def test_bad_arguments_are_told(self) -> None:
        """The process ends with status 2 and says which argument it does not take."""
        for limits, told in (
            (["nonsense=1"], "nonsense"),
            (["queries=x"], "'x'"),
            (["sandboxes=0"], "sandboxes"),
        ):
            self.assertRaises(AssertionError, WorkerProcess, self.folder, *limits)
            self.assertIn(told, Path(self.folder, "stderr").read_text())


class WireTests(TestCase):
    """Peers that take nothing."""

    def test_a_blocked_send_pauses_once_and_then_gives_up(self) -> None:
        """The snapshot is abandoned first, the connection later."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        pauses: list[int] = []
        self.assertRaises(
            Blocked, Wire(ours).send_data, bytes(10_000_000), 0.05, 0.01, lambda: pauses.append(1)
        )
        self.assertEqual([1], pauses)

    def test_a_send_goes_on_when_the_peer_reads_again(self) -> None:
        """After a pause everything arrives, in order."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        theirs.settimeout(PATIENCE_SECONDS)
        body = os.urandom(3_000_000)
        received = bytearray()

        def read() -> None:
            while len(received) < len(body) + 4:
                received.extend(theirs.recv(65536))

        reader = threading.Thread(target=read, daemon=True)

        def paused() -> None:
            # On a busy machine there may be several pauses.
            if reader.ident is None:
                reader.start()

        Wire(ours).send_data(body, PATIENCE_SECONDS, 0.01, paused)
        reader.join(PATIENCE_SECONDS)
        self.assertEqual(struct.pack("!I", len(body)) + body, bytes(received))


class EndTests(_Case):
    """Ends of a worker, and what remains of it."""

    def test_it_ends_with_its_parent(self) -> None:
        """The end of standard input is the end, and so is SIGTERM."""
        self.opened(self.view())
        self.assertEqual(0, self.worker.stop())
        del self.worker
        self.worker.process.send_signal(signal.SIGTERM)
        self.assertEqual(0, self.worker.process.wait(PATIENCE_SECONDS))

    def test_killed_in_the_middle_of_batches(self) -> None:
        """Whenever the process is killed, each index holds exactly what its marks say."""
        views = [self.view("one"), self.view("two", TWICE)]
        batches = [[document(f"d{n:03}-{i}", n) for i in range(50)] for n in range(40)]
        for answers in (0, 1, 7, 20, 39):
            for view in views:
                for suffix in ("", "-wal", "-shm"):
                    Path(view["path"] + suffix).unlink(missing_ok=True)
            peer = self.opened(*views)
            for n, batch in enumerate(batches[: answers + 2]):
                peer.send(("apply", {"views": [0, 1], "changes": batch, "marks": {0: (1, n + 1)}}))
                if n >= 2:
                    peer.answer()
            self.worker.kill()
            del self.worker
            for view, each in zip(views, (1, 2), strict=True):
                index = ViewIndex(view["path"], view["name"], view["map"], None)
                (_, known) = index.marks.get(0, (1, 0))
                self.assertEqual(known * 50 * each, index.rows)
                index.close()
                reader = IndexReader(view["path"])
                self.assertEqual([(known * 50 * each,)], reader.fetch("SELECT count(*) FROM rows", ()))
                self.assertEqual([(known * 50,)], reader.fetch("SELECT count(DISTINCT doc) FROM rows", ()))
                self.assertEqual([(b"ok",)], reader.fetch("PRAGMA integrity_check", ()))
                reader.close()
            peer = self.opened(*views)
            for n in range(40):
                self.apply(peer, batches[n], {0: (1, n + 1)}, (0, 1))
            peer.close()
            self.assertEqual([2000, 4000], [self.worker.query([view])["total_rows"] for view in views])
