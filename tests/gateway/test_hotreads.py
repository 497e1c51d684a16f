"""The cost of reads with options, and of the errors of reads: those that clients send most.

Counted as in :mod:`tests.gateway.test_hotpath`, where the plain GET is.
"""

from __future__ import annotations

from typing import Any

from couchbase.protocol.constants import Status
from couchbase.protocol.frames import encode_response
from gateway.clients.accesslog import AccessLog
from gateway.clients.origins import Doors
from gateway.clients.proxies import TrustedProxies
from tests.gateway.hotpath import CLIENT, HotPathCase
from tests.gateway.support import passthrough, raw_request
from tests.txcouchbase import memory
from tests.txcouchbase.memory import MemoryNode

DOCUMENTS = "/v1/buckets/b/documents/"
PATH = DOCUMENTS + "key-17"
PAGE = "https://app.example.com"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

# Request -> calls, then bytecode instructions on CPython 3.11. A plain GET has 72 and 1415.
LIMITS = {
    "binary document": (72, 1425),
    "HEAD": (76, 1480),
    "If-Match": (83, 1615),
    "If-None-Match: 304": (84, 1590),
    "projection of three paths": (103, 1805),
    "projection of nested paths": (99, 1750),
    "projection": (96, 1720),
    "Accept-Encoding": (77, 1505),
    "traceparent": (77, 1485),
    "origin": (77, 1540),
    "access log": (102, 1815),
    "access log, combined": (96, 1685),
    "access log, extended": (104, 1775),
    "404 of a document": (73, 1410),
    "404 of a route": (53, 895),
    "400": (47, 830),
    "401": (62, 1015),
    "405": (64, 1060),
    "412": (86, 1630),
}


class Node(MemoryNode):  # type: ignore[no-untyped-call, misc, unused-ignore]
    """A node that lacks the document ``none``."""

    def answer(self, frame: Any) -> Any:
        """Answer one request."""
        if frame.key == b"none":
            return encode_response(frame.opcode, status=Status.KEY_ENOENT, opaque=frame.opaque)
        return super().answer(frame)  # type: ignore[no-untyped-call]


class HotReadsTests(HotPathCase):
    """The whole way of reads with options, and of errors."""

    limits = LIMITS
    node_type = Node

    def read(self, name: str, path: str = PATH, status: int = 200, **headers: str) -> None:
        """Check a GET with further headers, whose names have underscores for hyphens."""
        given = {header.replace("_", "-"): value for header, value in headers.items()}
        self.check(name, raw_request("GET", path, headers={**CLIENT, **given}), status=status)

    def test_conditions(self) -> None:
        """A condition is read once, and the 304 costs no more than a document."""
        self.read("If-Match", If_Match="1")
        self.read("If-None-Match: 304", status=304, If_None_Match="1")

    def test_options(self) -> None:
        """Parts of a document; an answer that could be compressed; the caller's trace."""
        self.read("projection", PATH + "?project=number")
        self.read("projection of three paths", PATH + "?project=number,text,more")
        self.read("projection of nested paths", PATH + "?project=number,more.nested,more.last[0]")
        self.read("Accept-Encoding", Accept_Encoding="gzip")
        self.read("traceparent", traceparent=TRACE)

    def test_binary(self) -> None:
        """A document that is not JSON."""
        self.patch(memory, "LOOKUP", memory.LOOKUP.replace(b"33554432", b"50331648"))
        self.read("binary document")

    def test_head(self) -> None:
        """HEAD costs as much as GET."""
        clients = self.open()
        self.check("HEAD", raw_request("HEAD", PATH, headers=CLIENT), clients=clients, method="HEAD")

    def test_origin(self) -> None:
        """A page of another origin gets its headers from the cached head."""
        clients = self.open(guard=Doors(is_open=True, origins=[PAGE]))
        self.check("origin", raw_request("GET", PATH, headers={**CLIENT, "Origin": PAGE}), clients=clients)

    def test_access_log(self) -> None:
        """A line for each request, in each form."""
        request = raw_request("GET", PATH, headers=CLIENT)
        for name, form in (
            ("access log", "json"),
            ("access log, combined", "combined"),
            ("access log, extended", "extended"),
        ):
            lines: list[str] = []
            log = AccessLog(TrustedProxies(()), lines.append, form)
            self.check(name, request, clients=self.open(end_hooks=[log.on_end]))
            self.assertTrue(lines)

    def test_missing_document(self) -> None:
        """The node's refusal does not become an exception."""
        self.read("404 of a document", DOCUMENTS + "none", 404)

    def test_refusals(self) -> None:
        """Refusals that need no node cost less than a document, and a false condition little more."""
        self.read("404 of a route", "/v1/nothing", 404)
        self.read("400", PATH + "?no=1", 400)
        self.read("412", PATH, 412, If_Match="ff")
        self.check("401", raw_request("GET", PATH, headers=CLIENT), passthrough(), 401)
        self.check("405", raw_request("PATCH", PATH, headers=CLIENT), status=405)
