"""The cost of writes with headers, and of single operations: those that clients send most.

Counted as in :mod:`tests.gateway.test_hotpath`, where the plain GET and PUT are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.frames import encode_response
from tests.gateway.hotpath import CLIENT, HotPathCase
from tests.gateway.support import Transport, raw_request
from tests.txcouchbase.memory import STORED, MemoryNode

PATH = "/v1/buckets/b/documents/key-17"
JSON = {"Content-Type": "application/json"}
VERSION = "18d2f3a4c5e60000"
LOOKUP = b'{"operations":[{"operation":"Get","path":"n"}]}'
MUTATIONS = (
    b'{"operations":[{"operation":"DictSet","path":"a.b","value":42},{"operation":"DictSet","path":"a.c",'
    b'"value":[1]},{"operation":"Counter","path":"n","value":1}]}'
)


def changes(count: int, value: str) -> bytes:
    """Return a body that sets so many members; ``@`` in the value becomes the number of the member."""
    one = '{"operation":"DictSet","path":"m%d","value":%s}'
    operations = ",".join(one % (number, value.replace("@", str(number))) for number in range(count))
    return f'{{"operations":[{operations}]}}'.encode()


EIGHT = b'{"operations":[%b]}' % b",".join(
    b'{"operation":"Get","path":"m%d"}' % number for number in range(8)
)
LOOKUPS = (
    b'{"operations":[{"operation":"Get","path":"n"},{"operation":"Exists","path":"a.b"},'
    b'{"operation":"GetCount","path":"c"}]}'
)

MISSING = LOOKUPS.replace(b"a.b", b"gone")

# Request -> calls, then bytecode instructions on CPython 3.11. A plain GET has 72 and 1415, a plain PUT 82
# and 1610.
LIMITS = {
    "GET with X-CB-Timeout": (79, 1560),
    "PUT with X-CB-Timeout": (86, 1720),
    "PUT with Expires": (80, 1620),
    "PUT until a date": (80, 1620),
    "PUT with X-CB-TTL": (80, 1620),
    "PUT with X-CB-Flags": (81, 1630),
    "PUT with If-Match": (91, 1775),
    "PUT with If-Match: *": (81, 1645),
    "PUT with If-None-Match: *": (82, 1650),
    "412 of a PUT": (82, 1665),
    "PUT of text": (82, 1615),
    "durable PUT": (89, 1790),
    "POST": (81, 1600),
    "409 of a POST": (83, 1640),
    "DELETE": (87, 1570),
    "DELETE with If-Match": (131, 2065),
    "404 of a DELETE": (89, 1605),
    "increment": (103, 1735),
    "decrement": (106, 1755),
    "increment with a body": (109, 1900),
    "404 of an increment": (103, 1730),
    "lock": (103, 1705),
    "unlock": (121, 1900),
    "touch": (97, 1730),
    "touch with content": (109, 1895),
    "lookup": (107, 1905),
    "lookup of three paths": (111, 2005),
    "lookup of a missing path": (113, 2050),
    "lookup of eight paths": (122, 2255),
    "mutate": (117, 2020),
    "mutate with If-Match": (127, 2190),
    "mutate of three paths": (136, 2190),
    "mutate of three objects": (136, 2190),
    "mutate that may create": (152, 2400),
    "mutate of eight paths": (181, 2605),
    "409 of a PUT with If-Match": (93, 1815),
    "409 of a DELETE with If-Match": (133, 2100),
    "409 of an append with If-Match": (97, 1865),
    "404 of an append": (88, 1700),
    "409 of a mutate": (138, 2275),
    "append": (86, 1665),
    "prepend": (86, 1665),
    "endure": (118, 2280),
    "observe": (303, 4135),
}


class Node(MemoryNode):  # type: ignore[no-untyped-call, misc, unused-ignore]
    """A node that carries out what is asked, except for documents named ``none`` and ``there``."""

    def answer(self, frame: Any) -> Any:
        """Answer one request."""
        parts: dict[str, Any] = {"opaque": frame.opaque, "cas": 0x18D2F3A4C5E60000}
        opcode = frame.opcode
        if frame.key == b"none":
            return encode_response(opcode, status=Status.KEY_ENOENT, **parts)
        if frame.key == b"there" and opcode == Opcode.SUBDOC_MULTI_MUTATION:
            failed = Status.SUBDOC_MULTI_PATH_FAILURE
            return encode_response(opcode, status=failed, value=b"\0\0\xc9", **parts)
        if frame.key == b"there":
            return encode_response(opcode, status=Status.KEY_EEXISTS, **parts)
        if opcode in (Opcode.ADD, Opcode.REPLACE, Opcode.APPEND, Opcode.PREPEND, Opcode.DELETE):
            return encode_response(opcode, extras=bytes(range(16)), **parts)
        if opcode in (Opcode.INCREMENT, Opcode.DECREMENT):
            return encode_response(opcode, extras=bytes(range(16)), value=bytes(7) + b"\7", **parts)
        if opcode in (Opcode.GAT, Opcode.GET_LOCKED):
            return encode_response(opcode, extras=bytes(4), value=STORED, **parts)
        if opcode == Opcode.SUBDOC_MULTI_LOOKUP and b"$" not in frame.value:
            one = bytes(2) + (2).to_bytes(4, "big") + b"42"
            if b"gone" in frame.value:
                missing = b"\0\xc0" + bytes(4)
                failed = Status.SUBDOC_MULTI_PATH_FAILURE
                return encode_response(opcode, status=failed, value=one + missing + one, **parts)
            count = 8 if b"m7" in frame.value else 3 if b"a.b" in frame.value else 1
            return encode_response(opcode, value=one * count, **parts)
        if opcode == Opcode.OBSERVE:
            persisted = frame.value + b"\1" + parts["cas"].to_bytes(8, "big")
            return encode_response(opcode, opaque=frame.opaque, value=persisted)
        return super().answer(frame)  # type: ignore[no-untyped-call]


class HotWritesTests(HotPathCase):
    """The whole way of writes and single operations; each client asks for a document of its own."""

    limits = LIMITS
    node_type = Node

    def cost(
        self, unit: Callable[[Callable[[], object]], int], clients: list[Transport], request: bytes
    ) -> int:
        """See :meth:`tests.gateway.hotpath.HotPathCase.cost`."""
        keys = [b"key-%02d" % number for number in range(len(clients))]
        requests = [
            (client, request.replace(b"key-17", key)) for client, key in zip(clients, keys, strict=True)
        ]

        def arrive() -> None:
            for client, own in requests:
                client.protocol.dataReceived(own)

        # What is sent on its own leaves in the next turn.
        counted = unit(arrive) + sum(unit(lambda: self.clock.advance(0)) for _ in range(2))
        answers = self.node.answers()
        return counted + unit(lambda: self.node.protocol.dataReceived(answers))

    def ask(self, name: str, request: tuple[str, str, bytes], status: int = 200, **headers: str) -> None:
        """Compare what a request costs with its limits."""
        method, suffix, body = request
        path = suffix if suffix.startswith("/v1/") else PATH + suffix
        more = {key.replace("_", "-"): value for key, value in headers.items()}
        sent = raw_request(method, path, body, {**CLIENT, **(JSON if body else {}), **more})
        self.check(name, sent, status=status)

    def test_time_limits(self) -> None:
        """A limit costs a tenth: it is given to the operation."""
        self.ask("GET with X-CB-Timeout", ("GET", "", b""), X_CB_Timeout="2s")
        self.ask("PUT with X-CB-Timeout", ("PUT", "", STORED), X_CB_Timeout="2s")

    def test_headers(self) -> None:
        """Headers of a PUT that are the same for many documents."""
        put = ("PUT", "", STORED)
        self.ask("PUT with Expires", put, Expires="1h")
        self.ask("PUT until a date", put, Expires="Wed, 21 Oct 2099 07:28:00 GMT")
        self.ask("PUT with X-CB-TTL", put, X_CB_TTL="3600")
        self.ask("PUT with X-CB-Flags", put, X_CB_Flags="7")
        self.ask("PUT of text", put, Content_Type="text/plain")
        self.ask("durable PUT", put, X_CB_DurabilityLevel="Majority")

    def test_conditions(self) -> None:
        """Conditions of a PUT, fulfilled or not."""
        put = ("PUT", "", STORED)
        self.ask("PUT with If-Match", put, If_Match=VERSION)
        self.ask("PUT with If-Match: *", put, If_Match="*")
        self.ask("PUT with If-None-Match: *", put, If_None_Match="*")
        there = ("PUT", "/v1/buckets/b/documents/there", STORED)
        self.ask("412 of a PUT", there, 412, If_None_Match="*")

    def test_new_and_removed(self) -> None:
        """Documents that are created and removed, and those that are there, or missing."""
        self.ask("POST", ("POST", "", STORED))
        self.ask("409 of a POST", ("POST", "/v1/buckets/b/documents/there", STORED), 409)
        self.ask("DELETE", ("DELETE", "", b""))
        self.ask("DELETE with If-Match", ("DELETE", "", b""), If_Match=VERSION)
        self.ask("404 of a DELETE", ("DELETE", "/v1/buckets/b/documents/none", b""), 404)

    def test_refused(self) -> None:
        """A refusal costs hardly more than a success, which has no body."""
        none, there = "/v1/buckets/b/documents/none", "/v1/buckets/b/documents/there"
        self.ask("409 of a PUT with If-Match", ("PUT", there, STORED), 409, If_Match=VERSION)
        self.ask("409 of a DELETE with If-Match", ("DELETE", there, b""), 409, If_Match=VERSION)
        self.ask("409 of an append with If-Match", ("POST", there + "/append", STORED), 409, If_Match=VERSION)
        self.ask("404 of an append", ("POST", none + "/append", b"x"), 404)
        self.ask("409 of a mutate", ("POST", there + "/mutate", MUTATIONS), 409)

    def test_counters(self) -> None:
        """Counters, with and without a body."""
        self.ask("increment", ("POST", "/increment", b""))
        self.ask("increment with a body", ("POST", "/increment", b'{"delta":2}'))
        self.ask("decrement", ("POST", "/decrement", b""))
        self.ask("404 of an increment", ("POST", "/v1/buckets/b/documents/none/increment", b""), 404)

    def test_locks(self) -> None:
        """Locks and expiry."""
        self.ask("lock", ("POST", "/lock", b""))
        self.ask("unlock", ("POST", "/unlock", b""), If_Match=VERSION)
        self.ask("touch with content", ("POST", "/touch", b'{"expiry":"1h","returnContent":true}'))

    def test_touch(self) -> None:
        """An answer without a body."""
        sent = raw_request("POST", PATH + "/touch", b'{"expiry":"1h"}', {**CLIENT, **JSON})
        self.check("touch", sent, status=204)

    def test_copies(self) -> None:
        """The state of copies: a first round without a plan, and a plan."""
        sent = raw_request("POST", PATH + "/endure", b'{"persistTo":0,"replicateTo":0}', {**CLIENT, **JSON})
        self.check("endure", sent, status=204)
        self.ask("observe", ("GET", "/observe", b""))

    def test_parts(self) -> None:
        """Paths of documents, and bytes added to them."""
        self.ask("lookup", ("POST", "/lookup", LOOKUP))
        self.ask("lookup of three paths", ("POST", "/lookup", LOOKUPS))
        self.ask("lookup of a missing path", ("POST", "/lookup", MISSING))
        self.ask("lookup of eight paths", ("POST", "/lookup", EIGHT))
        self.ask("mutate", ("POST", "/mutate", changes(1, '"text"')))
        self.ask("mutate with If-Match", ("POST", "/mutate", changes(1, '"text"')), If_Match=VERSION)
        self.ask("mutate of three paths", ("POST", "/mutate", MUTATIONS))
        self.ask("mutate of three objects", ("POST", "/mutate", changes(3, '{"a":[@,"text"]}')))
        creates = changes(3, '"text"')[:-1] + b',"storeSemantic":"Upsert"}'
        self.ask("mutate that may create", ("POST", "/mutate", creates))
        self.ask("mutate of eight paths", ("POST", "/mutate", changes(8, "@")))
        self.ask("append", ("POST", "/append", b" "))
        self.ask("prepend", ("POST", "/prepend", b" "))
