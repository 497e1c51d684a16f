"""The cost of answers of a few rows: view queries, which are requests over HTTP to a node, and listings,
which are range scans.

Counted as in :mod:`tests.gateway.test_hotpath`. The node answers in one piece, as it does on loopback.
"""

from __future__ import annotations

import json
import re
from operator import attrgetter
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.frames import encode_response
from tests.gateway.hotpath import CLIENT, Arrival, HotPathCase
from tests.gateway.support import raw_request, read_reply
from tests.txcouchbase.memory import STORED, MemoryNode
from txcouchbase import webclient
from txcouchbase.webconnection import WebConnection

BUCKET = "/v1/buckets/b"
VIEW = f"{BUCKET}/views/d/v?limit=10&stale=ok"
LISTING = f"{BUCKET}/documents?limit=10"
ROWS = [{"id": f"key-{number}", "key": f"key-{number}", "value": None} for number in range(10)]
PRINTED = ",\r\n".join(json.dumps(row, separators=(",", ":")) for row in ROWS)
BODY = f'{{"total_rows":11000,"rows":[\r\n{PRINTED}\r\n]\r\n}}'.encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: TwistedWeb/25.5.0\r\nDate: Sun, 29 Nov 2026 09:41:53 GMT\r\n"
    b"Content-Type: application/json\r\nCache-Control: must-revalidate\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
)
# The eleventh shows that others follow.
KEYS = [f"key-{number:02}".encode() for number in range(11)]
META = bytes(8 + 8) + (7).to_bytes(8, "big") + b"\1"

# Request -> calls, then bytecode instructions on CPython 3.11.
LIMITS = {
    "view": (582, 6990),
    "view as lines": (574, 6915),
    "view with documents": (1617, 21380),
    "listing": (589, 8615),
    "listing of documents": (784, 11765),
}


class Node(MemoryNode):  # type: ignore[no-untyped-call, misc, unused-ignore]
    """A node with a view engine, whose first vbucket has more than ten documents."""

    keys_only = True

    def config(self) -> bytes:
        """Return the cluster map."""
        config = json.loads(super().config())  # type: ignore[no-untyped-call]
        for node in config["nodesExt"]:
            node["services"]["capi"] = 8092
        return json.dumps(config).encode()

    def answer(self, frame: Any) -> Any:
        """Answer one request."""
        parts: dict[str, Any] = {"opaque": frame.opaque}
        if frame.opcode == Opcode.RANGE_SCAN_CREATE:
            self.keys_only = b"key_only" in frame.value
            return encode_response(frame.opcode, value=bytes(16), **parts)
        if frame.opcode == Opcode.RANGE_SCAN_CONTINUE:
            rows = [_sized(key) if self.keys_only else META + _sized(key) + _sized(STORED) for key in KEYS]
            extras = b"" if self.keys_only else (1).to_bytes(4, "big")
            parts.update(value=b"".join(rows), extras=extras, status=Status.RANGE_SCAN_MORE)
            return encode_response(frame.opcode, **parts)
        if frame.opcode == Opcode.RANGE_SCAN_CANCEL:
            return encode_response(frame.opcode, **parts)
        return super().answer(frame)  # type: ignore[no-untyped-call]


def _sized(data: bytes) -> bytes:
    return bytes([len(data)]) + data


class HotListsTests(HotPathCase):
    """The whole way of view queries and listings of ten rows."""

    limits = LIMITS
    node_type = Node

    def setUp(self) -> None:
        """Let connections to the view engine lead into memory."""
        super().setUp()
        self.wires: list[tuple[WebConnection, StringTransport]] = []
        # Twisted's clock calls a function for each timer that waits whenever one is added; a reactor has a
        # heap.
        self.patch(Clock, "_sortCalls", lambda clock: clock.calls.sort(key=attrgetter("time")))
        self.patch(webclient, "connect_quietly", self.reach)

    def reach(self, endpoint: object, connection: WebConnection) -> Deferred[WebConnection]:
        """Make a connection to the view engine."""
        wire = StringTransport()
        wire.abortConnection = lambda: None  # type: ignore[method-assign]
        self.wires.append((connection, wire))
        connection.makeConnection(wire)  # type: ignore[arg-type]
        return succeed(connection)

    def arrivals(self) -> list[Arrival]:
        """Add the answers of the view engine."""
        found = super().arrivals()
        for connection, wire in self.wires:
            asked = wire.value()
            if asked:
                self.assertTrue(asked.startswith(b"GET /b/_design/d/_view/v?"), asked)
                wire.clear()
                found.append((connection, ANSWER * asked.count(b"\r\n\r\n")))
        return found

    def listed(self, name: str, path: str, **headers: str) -> None:
        """Check a request whose answer has ten rows."""
        clients = self.open()
        self.check(name, raw_request("GET", path, headers={**CLIENT, **headers}), clients=clients)
        reply, _ = read_reply(clients[0].value(), "GET")
        self.assertEqual(len(re.findall(rb'^\{"id":"key-', reply.body, re.MULTILINE)), 10, reply.body)

    def test_views(self) -> None:
        """Ten rows, passed on as they are."""
        self.listed("view", VIEW)
        self.listed("view as lines", VIEW, Accept="application/x-ndjson")

    def test_documents_of_views(self) -> None:
        """Ten rows with their documents."""
        self.listed("view with documents", f"{VIEW}&include_docs=true")

    def test_listings(self) -> None:
        """Ten of more keys, which takes one vbucket; and ten documents."""
        self.listed("listing", LISTING)
        self.listed("listing of documents", f"{LISTING}&include_docs=true")
