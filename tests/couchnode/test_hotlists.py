"""The cost of answers of a few rows on the node, counted in calls and bytecode: a view query, in the node's
process and in the worker's thread, and the range scan that lists keys.

The gateway's share is in :mod:`tests.gateway.test_hotlists`.
"""

from __future__ import annotations

import gc
import json
import socket
import sys
from base64 import b64encode
from collections.abc import Callable
from struct import pack
from typing import Any, cast

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from couchbase.protocol.constants import Feature, Opcode
from couchbase.protocol.frames import encode_request
from couchnode.cluster.cluster import Cluster
from couchnode.cluster.config import AdvertisedAddress
from couchnode.cluster.definition import BucketDefinition
from couchnode.rest.api import RestApi
from couchnode.views.index import ViewIndex
from couchnode.views.sandboxes import SandboxPool
from couchnode.views.service import Views
from couchnode.views.worker import ViewWorker
from couchnode.views.workerclient import WorkerClient, WorkerConnection
from reactor.framing import LENGTH, frame_of
from tests import work
from tests.couchnode.kv.test_server import InMemoryCase, store
from tests.couchnode.views.indexes import apply

MAP = "function (doc, meta) { emit(meta.id, null); }"
DESIGN = json.dumps({"views": {"v": {"map": MAP}}}).encode()
CREDENTIALS = b64encode(b"Administrator:password")
REQUEST = (
    b"GET /default/_design/d/_view/v?limit=10&stale=ok HTTP/1.1\r\nAccept: application/json\r\n"
    b"User-Agent: couchgateway/1.0\r\nAuthorization: Basic %b\r\nHost: 127.0.0.1:8091\r\n\r\n" % CREDENTIALS
)
ROWS = b'{"total_rows":11000,"rows":[\r\n' + b",\r\n".join([b'{"id":"k","key":"k","value":null}'] * 10)
SCAN = b'{"key_only": true, "range": {"start": "", "end": "' + b64encode(b"\xff" * 250) + b'"}}'
# Eleven rows in at most 64 KiB, without a limit in time.
LIMITS_OF_PAGE = pack(">III", 11, 0, 2**16)

# Request -> calls, then bytecode instructions on CPython 3.11.
LIMITS = {
    "view, node": (734, 9425),
    "view, worker": (266, 2915),
    "view of a range, worker": (285, 3115),
    "listing": (646, 11785),
}


Unit = Callable[[Callable[[], object]], int]


def check(case: SynchronousTestCase, name: str, cost: Callable[[Unit], int]) -> None:
    """Compare what a request costs with its limits.

    :param cost: makes the request, and returns what a unit counts.
    """
    for _ in range(3):
        cost(work.calls)
    gc.disable()
    try:
        for unit, most in zip((work.calls, work.instructions), LIMITS[name], strict=True):
            if unit is work.instructions and sys.version_info[:2] != (3, 11):
                continue
            used = cost(unit)
            case.assertLessEqual(used, most, f"{unit.__name__} for {name}")
            # A limit far above what is counted would guard nothing.
            case.assertGreater(used, most * 0.8, f"{unit.__name__} for {name}")
    finally:
        gc.enable()


class Worker(WorkerClient):
    """Stands in for the process: its connections end in memory."""

    last: WorkerConnection

    async def connect(self) -> WorkerConnection:
        """Return a connection."""
        self.last = connection = WorkerConnection(self)
        transport: Any = StringTransport()
        transport.abortConnection = connection.connectionLost
        connection.makeConnection(transport)
        return connection


class NodeTests(TestCase):
    """The process that takes the request."""

    @inlineCallbacks
    def test_view(self) -> Any:
        """A query of ten rows of an index as it is: its parameters, the caller, the worker, the rows."""
        clock = Clock()
        cluster = Cluster(1, clock=clock)
        yield cluster.users.add("Administrator", "password", admin=True)
        yield cluster.start()
        yield cluster.create_bucket(BucketDefinition("default", quota_bytes=2**26))
        yield cluster.put_design("default", "d", DESIGN)
        (node,) = cluster.nodes
        node.address = AdvertisedAddress("127.0.0.1", 11210, 8091, 8091)
        views, worker = Views(cluster, None), Worker()
        self.patch(views, "_worker", worker)
        self.patch(views._answers, "_worker", worker)
        site = RestApi(cluster, node, views).site()
        channel = site.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        bucket = cluster.bucket("default")
        indexer = views._indexer(bucket, node)
        file = indexer.file(bucket.designs["d"].views["v"], False)
        file.clean_at = indexer._change_log().voids
        answer = b"".join(
            (frame_of(("head", {})), *(LENGTH.pack(len(part)) + part for part in (ROWS + b"\r\n]\r\n}", b"")))
        )

        def ask() -> None:
            transport.clear()
            channel.dataReceived(REQUEST)
            worker.last.dataReceived(answer)

        ask()
        yield cluster.users.verify("Administrator", "password")
        ask()
        self.assertIn(ROWS, transport.value())
        check(self, "view, node", lambda unit: unit(ask))
        self.assertEqual(transport.value().count(b'{"id":"k"'), 10)
        self.assertEqual(views._answers.open, set())
        channel.connectionLost(None)
        yield cluster.stop()


class WorkerTests(SynchronousTestCase):
    """The thread that answers one connection."""

    def test_view(self) -> None:
        """Ten rows from the beginning, and from a key on."""
        index = ViewIndex(self.mktemp(), "v", MAP, None)
        self.addCleanup(index.close)
        apply(index, [(f"k{number:03}", f"k{number:03}", None) for number in range(1000)])
        given = {"path": index.path, "design": "d", "name": "v", "map": MAP, "reduce": None, "from": "local"}
        plan: dict[str, Any] = {"inclusive_end": True, "descending": False, "skip": 0, "reduce": False}
        plan |= {"group": 0, "debug": False, "on_error": "continue", "errors": [], "limit": 10}
        worker = ViewWorker(cast(SandboxPool, None))
        found = []

        for name, more, first in (
            ("view, worker", {}, b"k000"),
            ("view of a range, worker", {"startkey": "k500"}, b"k500"),
        ):
            request = frame_of(("query", {"indexes": [given], "query": {**plan, **more}}))

            def ask(request: bytes = request) -> None:
                ours, theirs = socket.socketpair()
                with ours:
                    ours.sendall(request)
                    ours.shutdown(socket.SHUT_WR)
                    worker._connections.acquire()
                    worker._serve(theirs)
                    found.append(ours.recv(65536))

            check(self, name, lambda unit, ask=ask: unit(ask))  # type: ignore[misc]
            self.assertEqual(found[-1].count(b'{"id":"k'), 10)
            self.assertIn(b'"rows":[\r\n{"id":"%b"' % first, found[-1])


class ListingTests(InMemoryCase):
    """The connection that lists keys."""

    def test_listing(self) -> None:
        """The scan of a vbucket is created between two HELLOs; its first keys are read, and it is ended."""
        features = b"".join(
            feature.to_bytes(2, "big")
            for feature in (Feature.COLLECTIONS, Feature.XERROR, Feature.MUTATION_SEQNO)
        )
        hello = [
            encode_request(Opcode.HELLO, key=b"agent", value=value)
            for value in (features + Feature.JSON.to_bytes(2, "big"), features)
        ]
        self.connection.dataReceived(hello[1])
        for number in range(100):
            self.connection.dataReceived(store(b"\0k%03d" % number, b"{}", vbucket=1))
        self.answers()
        create = encode_request(Opcode.RANGE_SCAN_CREATE, value=SCAN, vbucket=1, datatype=1)
        keys = b"".join(b"\4k%03d" % number for number in range(11))

        def cost(unit: Unit) -> int:
            receive = self.connection.dataReceived
            counted = unit(lambda: receive(hello[0] + create + hello[1]))
            _, made, _ = self.answers()
            more = {"extras": made.value + LIMITS_OF_PAGE, "vbucket": 1}
            read = encode_request(Opcode.RANGE_SCAN_CONTINUE, **more)
            counted += unit(lambda: receive(read))
            (page,) = self.answers()
            self.assertEqual(page.value, keys)
            end = encode_request(Opcode.RANGE_SCAN_CANCEL, extras=made.value, vbucket=1)
            counted += unit(lambda: receive(end))
            self.assertEqual([answer.specific for answer in self.answers()], [0])
            return counted

        check(self, "listing", cost)
