"""The log of a node: few lines at its start, few for mistakes of clients, no traceback."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher

from couchbase.protocol.constants import Opcode, Status
from couchnode.cluster import metadata
from couchnode.cluster.metadata import DataDirectory, DataDirectoryError
from reactor.sparselog import LINES
from tests.couchnode.rest.test_api import ADMIN, head
from tests.couchnode.rest.test_closed import KEY, VBUCKET, NodeCase

Steps = Generator[Deferred[Any], Any, Any]


class NodeLogTests(NodeCase):
    """A node's lines."""

    def setUp(self) -> None:
        super().setUp()
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def lines(self) -> list[str]:
        """Return what couchnode wrote since the last call."""
        lines = [
            formatEvent(event) for event in self.events if event["log_namespace"].startswith("couchnode")
        ]
        failures = [event for event in self.events if event.get("log_failure")]
        self.assertEqual(failures, [])
        self.events.clear()
        return lines

    @inlineCallbacks
    def test_a_start(self) -> Steps:
        """When its buckets are ready, a node logs one line with its address; ports have a name that shows
        their owner."""
        folder = Path(self.mktemp())
        node = yield self.start(folder, buckets=[("default", "pw")])
        yield node.stop()
        opened = [formatEvent(event) for event in self.events if " starting on " in formatEvent(event)]
        self.assertEqual(
            sorted(line.split(" starting")[0] for line in opened), ["couchnode REST", "couchnode key-value"]
        )
        self.lines()
        yield self.start(folder, buckets=[("default", "pw")])
        self.assertEqual([line for line in self.lines() if "no views" not in line], [])

    @inlineCallbacks
    def test_refusals_do_not_flood(self) -> Steps:
        """However many commands, logins, frames and paths are refused, each kind has ten lines at most."""
        node = yield self.start()
        client = yield self.client(node, *ADMIN)
        yield client.ask(Opcode.SELECT_BUCKET, key=b"default")
        self.lines()
        for _ in range(300):
            client.send(Opcode.SET, key=KEY, value=b"v", extras=b"odd", vbucket=VBUCKET)
        for _ in range(300):
            answer = yield client.next_answer()
            self.assertEqual(answer.specific, Status.EINVAL)
        self.assertEqual(len(self.lines()), LINES)
        for _ in range(2 * LINES):
            stranger = yield self.client(node, "ghost", "pw")
            stranger.transport.write(b"no frame at all, but longer than a header")
            yield stranger.lost
        lines = self.lines()
        self.assertEqual(sum("authentication failed" in line for line in lines), LINES)
        self.assertEqual(sum("closing" in line for line in lines), LINES)
        for path in ("/%ff", "/pools/%fe", "/%ff/_design/x", "/nothing"):
            yield self.ask(node, path, auth=ADMIN)
        yield self.ask(node, "", raw=head("GET", "/pools", ADMIN).replace(b"localhost", b"\xff"))
        self.assertEqual(self.lines(), [])

    @inlineCallbacks
    def test_a_full_disk_is_told(self) -> Steps:
        """While nothing can be written the node logs the reason with the file, and stops when it can write
        again."""
        node = yield self.start(Path(self.mktemp()), buckets=[("default", None)])
        self.assertIsNone(node.persistence_problem)
        part = node.cluster.nodes[0].buckets["default"]
        store: Any = part._store
        yield store._submit(lambda: store._db.execute("PRAGMA max_page_count=10").fetchall())
        self.lines()
        vbucket = part.vbuckets[VBUCKET]
        item = vbucket.store(0, KEY, bytes(100_000))
        while node.persistence_problem is None:
            yield deferLater(reactor, 0.005)
        problem = node.persistence_problem
        self.assertIn("bucket default cannot be written to disk: ", problem)
        self.assertIn("node0/default.sqlite: database or disk is full", problem)
        self.assertEqual(sum("cannot write" in line for line in self.lines()), 1)
        yield store._submit(lambda: store._db.execute("PRAGMA max_page_count=100000").fetchall())
        yield part.flusher.wait(vbucket, item.seqno)
        self.assertIsNone(node.persistence_problem)

    @inlineCallbacks
    def test_a_start_on_a_full_disk(self) -> Steps:
        """It fails with one line that names the file and the reason, and works once there is room."""
        folder = Path(self.mktemp()).absolute()
        node = yield self.start(folder)
        yield node.stop()
        real = os.open

        def full(path: Any, flags: int, *rest: Any) -> int:
            if str(path).endswith(".new"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(path, flags, *rest)

        with mock.patch.object(metadata.os, "open", full):
            fault = yield self.assertFailure(self.start(folder), DataDirectoryError)
        self.assertEqual(str(fault), f"{folder / 'cluster.json'} cannot be written: No space left on device")
        self.lines()
        yield self.start(folder)

    def test_the_lock_needs_no_room(self) -> None:
        """The process id in the lock is for people; where there is no room for it, the lock holds."""
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with mock.patch.object(metadata.os, "write", side_effect=full):
            directory = DataDirectory(self.mktemp())
        self.assertRaises(DataDirectoryError, DataDirectory, directory.path)
        directory.close()
