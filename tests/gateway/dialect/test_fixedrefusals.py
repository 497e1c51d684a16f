"""Refusals of a node, answered without an exception."""

from __future__ import annotations

import re
from contextlib import ExitStack
from itertools import product
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.frames import encode_response
from couchbase.protocol.operations import OPERATIONS
from couchbase.protocol.refused import PATH_STATUSES, STATUSES, Kind, Refused, path_kinds
from couchbase.protocol.statuses import result_code
from gateway.dialect.errors import describe
from gateway.dialect.fixedrefusals import fields_of, refusal_of
from gateway.http.request import Request
from gateway.resources import documentbase, documents, subdocuments
from gateway.resources.base import Asked
from tests.gateway.hotpath import CLIENT, HotPathCase
from tests.gateway.support import error, raw_request, read_reply
from tests.txcouchbase.memory import MemoryNode

DOCUMENT = "/v1/buckets/b/documents/"
COLLECTED = "/v1/buckets/b/scopes/s/collections/c/documents/"
VERSION = {"If-Match": "18d2f3a4c5e60000"}
PATHS = (
    b'{"operations":[{"operation":"DictSet","path":"a","value":1},'
    b'{"operation":"Delete","path":"b.\\"\xc3\xa4"}]}'
)
INSERT = b'{"operations":[{"operation":"DictSet","path":"a","value":1}],"storeSemantic":"Insert"}'
REQUESTS: list[tuple[str, str, bytes, dict[str, str]]] = [
    ("GET", "", b"", {}),
    ("GET", "?project=a", b"", {}),
    ("GET", "", b"", {"If-None-Match": "*"}),
    ("HEAD", "", b"", {}),
    ("PUT", "", b"1", {}),
    ("PUT", "", b"1", VERSION),
    ("PUT", "", b"1", {"If-Match": "*"}),
    ("PUT", "", b"1", {"If-None-Match": "*"}),
    ("POST", "", b"1", {}),
    ("DELETE", "", b"", {}),
    ("DELETE", "", b"", VERSION),
    ("POST", "/append", b"1", {}),
    ("POST", "/append", b"1", VERSION),
    ("POST", "/prepend", b"1", {}),
    ("POST", "/increment", b"", {}),
    ("POST", "/decrement", b'{"delta":2}', {}),
    ("POST", "/lock", b"", {}),
    ("POST", "/unlock", b"", VERSION),
    ("POST", "/touch", b'{"expiry":"1h"}', {}),
    ("POST", "/touch", b'{"expiry":"1h","returnContent":true}', {}),
    ("POST", "/lookup", PATHS.replace(b"DictSet", b"Get").replace(b',"value":1', b""), {}),
    ("POST", "/lookup", b'{"operations":[{"operation":"Get","path":"a"}]}', {}),
    ("POST", "/mutate", PATHS, {}),
    ("POST", "/mutate", PATHS, VERSION),
    ("POST", "/mutate", INSERT, {}),
]
_OF_CONNECTIONS = (Opcode.HELLO, Opcode.SELECT_BUCKET, Opcode.GET_CLUSTER_CONFIG, Opcode.GET_COLLECTION_ID)
KEYS = ["k", "a%22b%5C", "%C3%A4%00", "x" * 251]


class SameTests(SynchronousTestCase):
    """A refusal equals what is made from the SDK's exception."""

    def test_every_kind(self) -> None:
        """For all operations, statuses and facts."""
        kinds = [Kind(result_code(row.name, one), one, None) for row in OPERATIONS for one in STATUSES]
        kinds += [path_kinds[status, position] for status in PATH_STATUSES for position in (0, 15)]
        for name in {*(row.name for row in OPERATIONS), "insert_in"}:
            for asked in (None, Asked(True, False), Asked(False, True), Asked(True, True)):
                for kind in kinds:
                    request = Request("PUT", b"/", b"", {})
                    request.operation, request.context = name, asked
                    refusal = refusal_of(Refused(kind, "a.b"), request)
                    failed = error(kind.rc, status=kind.status, path_index=kind.path_index)
                    facts = asked or Asked()
                    fault = describe(failed, name, cas_given=facts.cas_given, durable=facts.durable)
                    self.assertEqual(fields_of(refusal), fault.fields(), (name, kind, asked))
                    self.assertEqual(refusal.problem, fault.problem)
                    # For others, more would have to be done.
                    self.assertEqual((fault.retry, fault.is_bug), (fault.problem.retry, False))
                    self.assertNotEqual(fault.problem.status, 503)
                    self.assertEqual(request.failed_part, "a.b")


class Node(MemoryNode):  # type: ignore[no-untyped-call, misc, unused-ignore]
    """A node that gives one answer to everything about documents."""

    said: tuple[int, bytes] = (0, b"")

    def answer(self, frame: Any) -> Any:
        """Answer one request."""
        if frame.opcode in _OF_CONNECTIONS:
            return super().answer(frame)  # type: ignore[no-untyped-call]
        status, value = self.said
        return encode_response(frame.opcode, status, opaque=frame.opaque, value=value)


class WholeTests(HotPathCase):
    """The answers of a gateway."""

    node_type = Node

    def setUp(self) -> None:
        """Open the connection of a client."""
        super().setUp()
        self.client = self.open()[0]

    def reply(self, request: tuple[str, str, bytes, dict[str, str]], said: Any) -> tuple[Any, ...]:
        """Return the answer to a request, without the request's id."""
        Node.said = said
        method, path, body, headers = request
        self.client.clear()
        self.client.protocol.dataReceived(raw_request(method, path, body, {**CLIENT, **headers}))
        for _ in range(4):
            self.carry_out()
        reply, rest = read_reply(self.client.value(), method)
        self.assertEqual(rest, b"")
        for name in ("x-request-id", "content-length"):
            self.assertEqual(len(reply.headers.pop(name)), 1)
        return reply.status, reply.headers, re.sub(rb"[0-9a-f]{8}-[0-9a-f]+", b"ID", reply.body)

    def check(self, request: tuple[str, str, bytes, dict[str, str]], said: Any, number: int) -> None:
        """Compare the answer with the one that an exception leads to; the key depends on a number."""
        method, suffix, body, headers = request
        path = (DOCUMENT, COLLECTED)[number % 2] + KEYS[number % len(KEYS)] + suffix
        asked = method, path, body, headers | ({"X-Request-Id": "mine"} if number % 5 == 0 else {})
        reply = self.reply(asked, said)
        self.assertIn(reply[0], (400, 404, 409, 412, 413, 500, 503))
        if headers == {"If-None-Match": "*"} and method == "PUT" and said[0] == Status.KEY_EEXISTS:
            # Here the condition is false.
            self.assertEqual(reply[0], 412)
            return
        with ExitStack() as stack:
            for module in (documentbase, documents, subdocuments):
                stack.enter_context(mock.patch.object(module, "REFUSALS", False))
            self.assertEqual(self.reply(asked, said), reply, (asked, said))

    def test_documents(self) -> None:
        """They are those that exceptions lead to, for every status and request."""
        statuses = [*STATUSES, Status.EINVAL, Status.E2BIG, Status.SUBDOC_DOC_NOT_JSON]
        values = (b"", b'{"error":{"context":"why"}}')
        for number, (request, status) in enumerate(product(REQUESTS, statuses)):
            self.check(request, (status, values[number % 3 // 2]), number)

    def test_paths(self) -> None:
        """The same, if a path of a mutation fails."""
        requests = [one for one in REQUESTS if one[1] == "/mutate"]
        statuses = [*PATH_STATUSES, Status.SUBDOC_CAN_ONLY_REVIVE_DELETED, 0xFF]
        for number, (request, status, position) in enumerate(product(requests, statuses, range(3))):
            value = bytes([position]) + status.to_bytes(2, "big")
            self.check(request, (Status.SUBDOC_MULTI_PATH_FAILURE, value), number)
