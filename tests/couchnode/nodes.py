"""A node without a control side, and a client that speaks frames to it."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from couchbase.protocol.constants import Opcode
from couchbase.protocol.frames import Frame, FrameReader, encode_request
from couchbase.protocol.sasl import ScramClient, encode_plain
from couchnode.access.rights import Rights
from couchnode.access.roles import Role
from couchnode.cluster.accounts import bucket_roles
from couchnode.cluster.users import UserStore
from couchnode.data.bucket import NodeBucket
from couchnode.data.storage import MemoryStore
from couchnode.kv.server import KeyValueFactory

UUID = "0123456789abcdef0123456789abcdef"
USER, PASSWORD = "ada", "secret"


@functools.cache
def rights_of(roles: tuple[Role, ...]) -> Rights:
    """Return the rights of these roles; they are immutable, and take long to work out."""
    return Rights(roles)


class StubCluster:
    """The part of a cluster that the key-value server sees, in the open."""

    version = "7.6.0-couchnode"

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.users = UserStore()
        self.on_config_change: list[Callable[[str], None]] = []
        self.unauthenticated_bucket: str | None = "default"
        self.allowed: set[tuple[str, str]] = set()
        self.roles: dict[str, tuple[Role, ...]] = {}
        self.revision = (1, 7)

    def rights(self, user: str | None) -> Rights:
        """Return the roles that were given, and the full use of each bucket that was allowed."""
        if user is None:
            open_bucket = self.unauthenticated_bucket
            return rights_of(() if open_bucket is None else tuple(bucket_roles([open_bucket])))
        buckets = [bucket for name, bucket in self.allowed if name == user]
        return rights_of((*bucket_roles(buckets), *self.roles.get(user, ())))

    def config_bytes(self, bucket_name: str | None, node: Any) -> bytes:
        """Return a value that a test can recognise."""
        return f'{{"config":"{bucket_name}","rev":{self.revision[1]}}}'.encode()

    def config_revision(self, bucket_name: str | None) -> tuple[int, int]:
        """Return the one revision there is."""
        return self.revision


class StubNode:
    """A node: buckets, and a separate cluster."""

    def __init__(self, clock: Any = reactor) -> None:
        self.cluster = StubCluster(clock)
        self.buckets: dict[str, NodeBucket] = {}
        self.open_connections = 0
        self.total_connections = 0


class Client(Protocol):
    """Sends requests and hands out the answers in the order in which they come."""

    def __init__(self) -> None:
        self.reader = FrameReader()
        self.answers: deque[Frame] = deque()
        self.waiting: deque[Deferred[Frame]] = deque()
        self.lost: Deferred[None] = Deferred()
        self.is_lost = False
        self.opaque = 0

    def dataReceived(self, data: bytes) -> None:
        """Twisted: bytes arrived."""
        for frame in self.reader.feed(data):
            if self.waiting:
                self.waiting.popleft().callback(frame)
            else:
                self.answers.append(frame)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Twisted: the connection is gone."""
        self.is_lost = True
        self.lost.callback(None)
        for waiting in self.waiting:
            waiting.errback(reason)

    def next_answer(self) -> Deferred[Frame]:
        """Fire with the next answer."""
        answer: Deferred[Frame] = Deferred()
        if self.answers:
            answer.callback(self.answers.popleft())
        else:
            self.waiting.append(answer)
        return answer

    def send(self, opcode: int, **parts: Any) -> int:
        """Write a request and return its opaque."""
        self.opaque += 1
        self.transport.write(encode_request(opcode, opaque=self.opaque, **parts))  # type: ignore[union-attr]
        return self.opaque

    def ask(self, opcode: int, **parts: Any) -> Deferred[Frame]:
        """Write a request and fire with the next answer, whosever it is."""
        self.send(opcode, **parts)
        return self.next_answer()

    def hello(self, *features: int) -> Deferred[Frame]:
        """Negotiate these features."""
        return self.ask(Opcode.HELLO, key=b"test", value=b"".join(f.to_bytes(2, "big") for f in features))

    def plain(self, user: str = USER, password: str = PASSWORD) -> Deferred[Frame]:
        """Authenticate by PLAIN."""
        return self.ask(Opcode.SASL_AUTH, key=b"PLAIN", value=encode_plain(user, password))

    @inlineCallbacks
    def scram(
        self, mechanism: str = "SCRAM-SHA512", user: str = USER, password: str = PASSWORD
    ) -> Generator[Deferred[Any], Any, Frame]:
        """Authenticate by SCRAM; checks that the node knows the password, too."""
        exchange = ScramClient(mechanism, user, password, "nonce")
        first = yield self.ask(Opcode.SASL_AUTH, key=mechanism.encode(), value=exchange.first())
        last = yield self.ask(Opcode.SASL_STEP, key=mechanism.encode(), value=exchange.step(first.value))
        if not last.specific:
            exchange.finish(last.value)
        return last


class ServedNode(TestCase):
    """Tests that speak to a node over a socket on loopback."""

    timeout = 120
    max_connections = 64

    def setUp(self) -> Any:
        """Start a node with the ephemeral bucket ``default``, open to everybody."""
        self.node = StubNode()
        self.factory = KeyValueFactory(self.node, self.max_connections)
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.clients: list[Client] = []
        return self.add_bucket("default")

    @inlineCallbacks
    def tearDown(self) -> Generator[Deferred[Any], Any, None]:
        """Stop everything that was started."""
        yield self.port.stopListening()
        self.factory.close()
        for client in self.clients:
            client.transport.abortConnection()  # type: ignore[union-attr]
            if not client.is_lost:
                yield client.lost
        for bucket in self.node.buckets.values():
            yield bucket.close()
        while self.factory.connections:
            yield sleep(0.01)

    @inlineCallbacks
    def add_bucket(self, name: str, **options: Any) -> Generator[Deferred[Any], Any, NodeBucket]:
        """Make a bucket and wait until it is ready."""
        settings: dict[str, Any] = {
            "vbucket_count": 16, "quota_bytes": 2**26, "store": MemoryStore(), "clock": reactor, **options,
        }  # fmt: skip
        bucket = self.node.buckets[name] = NodeBucket(name, UUID, **settings)
        yield bucket.start()
        return bucket

    @inlineCallbacks
    def connect(self) -> Generator[Deferred[Any], Any, Client]:
        """Connect a client."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        client = yield connectProtocol(endpoint, Client())
        self.clients.append(client)
        return client


def sleep(seconds: float) -> Deferred[None]:
    """Fire after some seconds of the real clock."""
    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)  # type: ignore[attr-defined]
    return done
