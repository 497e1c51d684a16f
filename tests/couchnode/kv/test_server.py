"""The key-value server over real sockets: order, limits, peers that misbehave, pushes."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from struct import pack
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import Feature, Magic, Opcode, ServerOpcode, Status
from couchbase.protocol.frames import FrameReader, encode_frame_infos, encode_request
from couchbase.protocol.sasl import encode_plain
from couchnode.cluster.users import UserStore
from couchnode.data.bucket import NodeBucket
from couchnode.data.storage import MemoryStore
from couchnode.kv import connection as kvconnection
from couchnode.kv import fastpath
from couchnode.kv.commands import dispatch
from couchnode.kv.connection import (
    CLOSE_SECONDS,
    HANDSHAKE_SECONDS,
    MAX_OUTPUT_BYTES,
    MAX_STRANGER_BYTES,
    MAX_WAITING,
    TURN_SECONDS,
    KeyValueConnection,
)
from couchnode.kv.phases import Flow
from couchnode.kv.server import KeyValueFactory
from tests import tries
from tests.couchnode.data.test_replication import one_turn
from tests.couchnode.nodes import PASSWORD, USER, UUID, ServedNode, StubNode, sleep
from tests.couchnode.stores import ManualStore

Steps = Generator[Deferred[Any], Any, None]
PERSIST = encode_frame_infos([(1, b"\3")])


def store(key: bytes, value: bytes = b"v", **parts: Any) -> bytes:
    """Return a SET."""
    return encode_request(Opcode.SET, key=key, value=value, extras=bytes(8), **parts)


class Conversations(ServedNode):
    """A client without credentials on the open bucket."""

    @inlineCallbacks
    def test_what_is_set_is_got(self) -> Steps:
        """A value comes back with its flags, and with the CAS that SET answered."""
        client = yield self.connect()
        stored = yield client.ask(Opcode.SET, key=b"k", value=b"v", extras=b"\0\0\0\5\0\0\0\0", vbucket=3)
        self.assertEqual((stored.specific, stored.extras, stored.value), (Status.SUCCESS, b"", b""))
        found = yield client.ask(Opcode.GET, key=b"k", vbucket=3)
        self.assertEqual((found.specific, found.extras, found.value), (Status.SUCCESS, b"\0\0\0\5", b"v"))
        self.assertEqual((found.cas, found.opaque), (stored.cas, 2))
        missing = yield client.ask(Opcode.GET, key=b"k", vbucket=4)
        self.assertEqual((missing.specific, missing.value), (Status.KEY_ENOENT, b""))

    @inlineCallbacks
    def test_pipelined_requests_in_any_chunking(self) -> Steps:
        """Requests that arrive in one piece or byte by byte are answered in their order."""
        requests = b"".join(
            store(b"%d" % n, b"%d" % n, opaque=2 * n)
            + encode_request(Opcode.GET, key=b"%d" % n, opaque=2 * n + 1)
            for n in range(50)
        )
        for size in (len(requests), 1000, 7):
            client = yield self.connect()
            for at in range(0, len(requests), size):
                client.transport.write(requests[at : at + size])
                if size == 7:
                    yield sleep(0)
            answers = []
            for _ in range(100):
                answers.append((yield client.next_answer()))
            self.assertEqual([answer.opaque for answer in answers], list(range(100)))
            self.assertEqual([answer.value for answer in answers[1::2]], [b"%d" % n for n in range(50)])

    @inlineCallbacks
    def test_quiet_commands(self) -> Steps:
        """Quiet stores that succeed and quiet gets that miss say nothing; errors and hits speak."""
        client = yield self.connect()
        client.send(Opcode.SETQ, key=b"k", value=b"v", extras=bytes(8))
        client.send(Opcode.ADDQ, key=b"k", value=b"v", extras=bytes(8))
        client.send(Opcode.GETQ, key=b"missing")
        client.send(Opcode.GETKQ, key=b"k")
        client.send(Opcode.DELETEQ, key=b"k")
        client.send(Opcode.DELETEQ, key=b"k")
        client.send(Opcode.NOOP)
        answers = []
        for _ in range(4):
            answer = yield client.next_answer()
            answers.append((answer.opaque, answer.specific, answer.key))
        self.assertEqual(
            answers,
            [
                (2, Status.KEY_EEXISTS, b""),
                (4, Status.SUCCESS, b"k"),
                (6, Status.KEY_ENOENT, b""),
                (7, 0, b""),
            ],
        )

    @inlineCallbacks
    def test_quit(self) -> Steps:
        """QUIT is answered, then the connection ends; what follows it is ignored. QUITQ only ends it."""
        client = yield self.connect()
        client.transport.write(encode_request(Opcode.QUIT, opaque=7) + store(b"after"))
        answer = yield client.next_answer()
        self.assertEqual((answer.opcode, answer.opaque), (Opcode.QUIT, 7))
        yield client.lost
        self.assertEqual(self.node.buckets["default"].item_count, 0)
        client = yield self.connect()
        client.send(Opcode.QUITQ)
        yield client.lost
        self.assertEqual(list(client.answers), [])

    @inlineCallbacks
    def test_large_values(self) -> Steps:
        """A value of 20 MiB goes in and comes out; one byte more is too large, and that is all."""
        self.node.buckets["default"].ledger.quota_bytes = 2**30
        client = yield self.connect()
        value = os.urandom(2**20) * 20
        stored = yield client.ask(Opcode.SET, key=b"k", value=value, extras=bytes(8))
        self.assertEqual(stored.specific, Status.SUCCESS)
        refused = yield client.ask(Opcode.SET, key=b"k", value=value + b"x", extras=bytes(8))
        self.assertEqual(refused.specific, Status.E2BIG)
        found = yield client.ask(Opcode.GET, key=b"k")
        self.assertEqual(found.value, value)


class WaitingAnswers(ServedNode):
    """Answers that have to wait hold their place."""

    @inlineCallbacks
    def test_requests_behind_a_synchronous_write(self) -> Steps:
        """Requests after a write that waits for the disk are carried out, and answered after it."""
        disk = ManualStore(is_slow=True)
        self.node.cluster.unauthenticated_bucket = "disk"
        yield self.add_bucket("disk", store=disk)
        client = yield self.connect()
        client.send(Opcode.SET, key=b"k", value=b"1", extras=bytes(8), framing=PERSIST)
        client.send(Opcode.GET, key=b"k")
        client.send(Opcode.SET, key=b"other", value=b"2", extras=bytes(8))
        client.send(Opcode.ADD, key=b"k", value=b"3", extras=bytes(8))
        client.send(Opcode.QUIT)
        while not disk.batches or self.node.buckets["disk"].item_count < 1:
            yield sleep(0.01)
        for _ in range(10):
            yield sleep(0)
        self.assertEqual(list(client.answers), [])
        disk.finish()
        statuses = []
        for _ in range(5):
            answer = yield client.next_answer()
            statuses.append((answer.opaque, answer.specific))
        without_xerror = Status.ETMPFAIL
        self.assertEqual(statuses, [(1, 0), (2, Status.KEY_ENOENT), (3, 0), (4, without_xerror), (5, 0)])
        yield client.lost
        disk.is_slow = False
        if disk._waiting:
            disk.finish()

    @inlineCallbacks
    def test_pipelined_handshake(self) -> Steps:
        """Requests behind PLAIN, whose check takes a while, see its outcome."""
        yield self.node.cluster.users.add(USER, PASSWORD)
        self.node.cluster.allowed.add((USER, "default"))
        self.node.cluster.unauthenticated_bucket = None
        client = yield self.connect()
        client.send(Opcode.HELLO, value=pack(">H", Feature.XERROR))
        client.send(Opcode.SASL_AUTH, key=b"PLAIN", value=encode_plain(USER, PASSWORD))
        client.send(Opcode.SELECT_BUCKET, key=b"default")
        client.send(Opcode.SET, key=b"k", value=b"1", extras=bytes(8))
        statuses = []
        for _ in range(4):
            statuses.append((yield client.next_answer()).specific)
        self.assertEqual(statuses, [0, 0, 0, 0])


class Hostility(ServedNode):
    """Peers that send nonsense, stop half way, or do not read."""

    max_connections = 2

    @inlineCallbacks
    def test_garbage_ends_the_connection_after_what_was_right(self) -> Steps:
        """A frame that cannot be is the end; requests before it are answered."""
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n" + bytes(24),
            b"\x81" + bytes(23),
            encode_request(Opcode.GET, key=b"k")[:8] + b"\xff\xff\xff\xff" + bytes(12),
            b"\x80\0\0\xff\0\0\0\0\0\0\0\1" + bytes(12),
        ):
            client = yield self.connect()
            client.transport.write(encode_request(Opcode.NOOP, opaque=9) + garbage)
            answer = yield client.next_answer()
            self.assertEqual((answer.opcode, answer.opaque), (Opcode.NOOP, 9))
            yield client.lost

    @inlineCallbacks
    def test_half_a_frame(self) -> Steps:
        """A peer that goes away in the middle of a frame leaves nothing behind."""
        client = yield self.connect()
        client.transport.write(store(b"k")[:-1])
        while not any(connection._held_input for connection in self.factory.connections):
            yield sleep(0.001)
        client.transport.abortConnection()
        yield client.lost
        while self.factory.connections:
            yield sleep(0.01)
        self.assertEqual(self.node.buckets["default"].item_count, 0)

    @inlineCallbacks
    def test_a_peer_that_does_not_read(self) -> Steps:
        """A flood of requests for a large value by a peer that reads nothing is not answered into
        memory; when it reads, everything comes, in order."""
        client = yield self.connect()
        value = bytes(2**20)
        yield client.ask(Opcode.SET, key=b"k", value=value, extras=bytes(8))
        client.transport.pauseProducing()
        count = 300
        client.transport.write(b"".join(encode_request(Opcode.GET, key=b"k", opaque=n) for n in range(count)))
        (connection,) = self.factory.connections
        transport = connection.transport
        held = quiet = 0
        while not held or quiet < 20:
            before, held = held, len(transport.dataBuffer) + transport._tempDataLen
            quiet = quiet + 1 if held == before else 0
            yield sleep(0.001)
        self.assertGreater(len(connection._input) - connection._at, 0)
        self.assertLess(held, MAX_OUTPUT_BYTES + 2 * len(value))
        client.transport.resumeProducing()
        for n in range(count):
            answer = yield client.next_answer()
            self.assertEqual((answer.opaque, len(answer.value)), (n, len(value)))

    @inlineCallbacks
    def test_too_many_connections(self) -> Steps:
        """One connection more than allowed is closed at once; when one goes, another may come."""
        first = yield self.connect()
        yield first.ask(Opcode.NOOP)
        second = yield self.connect()
        yield second.ask(Opcode.NOOP)
        third = yield self.connect()
        yield third.lost
        first.transport.loseConnection()
        yield first.lost
        while len(self.factory.connections) == 2:
            yield sleep(0.01)
        fourth = yield self.connect()
        self.assertEqual((yield fourth.ask(Opcode.NOOP)).specific, 0)


class InMemoryCase(SynchronousTestCase):
    """Tests with one connection and no socket."""

    def setUp(self) -> None:
        """Connect."""
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.node = StubNode(self.clock)
        self.disk = ManualStore(is_slow=True)
        self.bucket = self.add("default", self.disk)
        self.factory = KeyValueFactory(self.node)
        self.connection, self.transport = self.connect()

    def add(self, name: str, store: Any) -> NodeBucket:
        """Start a bucket."""
        bucket = NodeBucket(name, UUID, vbucket_count=4, quota_bytes=2**26, store=store, clock=self.clock)
        self.successResultOf(bucket.start())
        self.node.buckets[name] = bucket
        return bucket

    def connect(self) -> tuple[KeyValueConnection, StringTransport]:
        """Connect another client."""
        return self.connect_to(self.factory)

    @staticmethod
    def connect_to(factory: KeyValueFactory) -> tuple[KeyValueConnection, StringTransport]:
        """Connect a client to a node of that factory."""
        connection = factory.buildProtocol(None)
        transport = StringTransport()
        # Features of TCP that StringTransport lacks.
        for name in ("setTcpNoDelay", "setTcpKeepAlive"):
            setattr(transport, name, lambda value: None)
        connection.makeConnection(transport)
        return connection, transport

    def answers(self, transport: StringTransport | None = None) -> list[Any]:
        """Return what was answered since the last call."""
        used = transport or self.transport
        data = used.value()
        used.clear()
        return FrameReader().feed(data)


class InMemory(InMemoryCase):
    """Tests without a socket."""

    @settings(max_examples=tries(200), deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=60),
                st.builds(
                    lambda opcode, key, extras, value, cas, vbid: encode_request(
                        opcode, key=key, extras=extras, value=value, cas=cas, vbucket=vbid
                    ),
                    st.integers(0, 255),
                    st.binary(max_size=5),
                    st.sampled_from([0, 1, 3, 4, 8, 16, 20]).flatmap(
                        lambda n: st.binary(min_size=n, max_size=n)
                    ),
                    st.binary(max_size=20),
                    st.sampled_from([0, 1, 2**64 - 1]),
                    st.sampled_from([0, 3, 4, 65535]),
                ),
            ),
            max_size=6,
        )
    )
    def test_any_bytes_at_all(self, chunks: list[bytes]) -> None:
        """Whatever arrives is answered with frames or the end of the connection, never an error of
        our own: no answer says EINTERNAL."""
        connection, transport = self.connect()
        connection.dataReceived(encode_request(Opcode.HELLO, value=pack(">H", Feature.XERROR)))
        for chunk in chunks:
            if not transport.disconnecting:
                connection.dataReceived(chunk)
        reader = FrameReader()
        for answer in reader.feed(transport.value()):
            self.assertNotEqual(answer.specific, Status.EINTERNAL, answer)
        self.assertIsNone(reader.violation)
        self.assertEqual(reader.buffered_bytes, 0)
        connection.connectionLost()
        self.flushLoggedErrors()

    def test_one_write_for_all_answers_of_a_chunk(self) -> None:
        """Answers of requests that came together leave together."""
        writes: list[bytes] = []
        self.transport.write = writes.append  # type: ignore[method-assign,assignment]
        self.connection.dataReceived(b"".join(store(b"%d" % n) for n in range(100)))
        self.assertEqual(len(writes), 1)
        self.assertEqual(len(FrameReader().feed(writes[0])), 100)

    def test_long_work_is_spread_over_turns(self) -> None:
        """Requests that take long leave the reactor to others in between; meanwhile nothing is read, and what
        arrives all the same waits. The answers keep their order."""

        def slow(*arguments: Any) -> Any:
            self.clock.rightNow += 0.4 * TURN_SECONDS
            return dispatch(*arguments)

        self.patch(kvconnection, "dispatch", slow)
        noops = b"".join(encode_request(Opcode.NOOP, opaque=n) for n in range(10))
        self.connection.dataReceived(noops[:-30])
        opaques = [answer.opaque for answer in self.answers()]
        self.assertEqual((opaques, self.transport.producerState), ([0, 1, 2], "paused"))
        self.connection.dataReceived(noops[-30:])
        self.assertEqual(self.answers(), [])
        one_turn(self.clock)
        self.connection.resumeProducing()
        self.assertEqual([answer.opaque for answer in self.answers()], [3, 4, 5])
        one_turn(self.clock)
        one_turn(self.clock)
        self.assertEqual([answer.opaque for answer in self.answers()], [6, 7, 8, 9])
        self.assertEqual(self.transport.producerState, "producing")
        self.connection.dataReceived(noops)
        self.connection.connectionLost()
        now = self.clock.seconds()
        self.assertFalse([call for call in self.clock.getDelayedCalls() if call.getTime() <= now])

    def test_the_fast_path_is_asked_once(self) -> None:
        """A request that the fast path has declined is not offered to it again; the next one is."""
        offered: list[int] = []

        def quick_answers(*arguments: Any) -> Any:
            offered.append(arguments[3])
            return fastpath.quick_answers(*arguments)

        self.patch(kvconnection, "quick_answers", quick_answers)
        noop, get = encode_request(Opcode.NOOP), encode_request(Opcode.GET, key=b"k")
        for data, expected in (
            (get, [0]),
            (noop, [0]),
            (noop + get, [0, 24]),
            (get + noop + noop + get, [0, 49, 73]),
            (get[:-1], [0]),
            (get[-1:], [0]),
        ):
            offered.clear()
            self.connection.dataReceived(data)
            self.assertEqual(offered, expected)
        self.assertEqual(len(self.answers()), 9)
        # An answer fills a write: what comes behind it was not declined.
        self.patch(kvconnection, "MAX_OUTPUT_BYTES", 24)
        for data, expected in ((get * 3, [0, 25, 50]), (noop + get * 2, [0, 24, 49])):
            offered.clear()
            self.connection.dataReceived(data)
            self.assertEqual(offered, expected)

    def test_what_comes_in_spite_of_a_pause(self) -> None:
        """A transport that hands over more while it is paused is answered in order, when there is room."""
        self.connection.dataReceived(store(b"k", b"value"))
        self.answers()
        self.connection.pauseProducing()
        gets = b"".join(encode_request(Opcode.GET, key=b"k", opaque=n) for n in range(3))
        for at in range(0, len(gets), 10):
            self.connection.dataReceived(gets[at : at + 10])
        self.assertEqual((self.answers(), self.transport.producerState), ([], "paused"))
        self.connection.resumeProducing()
        self.assertEqual([(a.opaque, a.value) for a in self.answers()], [(n, b"value") for n in range(3)])
        self.assertEqual(self.transport.producerState, "producing")

    def test_too_many_waiting_answers_stop_the_reading(self) -> None:
        """Behind a waiting answer only a limited number of answers queue up; then reading stops, and
        continues later."""
        self.connection.dataReceived(
            encode_request(Opcode.SET, key=b"k", extras=bytes(8), framing=PERSIST)
            + encode_request(Opcode.NOOP) * (MAX_WAITING + 50)
        )
        self.assertEqual(len(self.connection._places), MAX_WAITING)
        self.assertEqual(self.transport.producerState, "paused")
        self.assertEqual(self.answers(), [])
        self.clock.advance(1)
        self.disk.finish()
        self.assertEqual(len(self.answers()), MAX_WAITING + 51)
        self.assertEqual(self.transport.producerState, "producing")

    def test_a_peer_that_does_not_read_its_last_answers_is_cut_off(self) -> None:
        """After QUIT the connection closes when the answers are read, or after a while anyway."""
        self.connection.dataReceived(encode_request(Opcode.QUIT))
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)
        cut: list[bool] = []
        self.transport.abortConnection = lambda: cut.append(True)  # type: ignore[method-assign]
        self.clock.advance(CLOSE_SECONDS)
        self.assertEqual(cut, [True])

    def abort(self) -> list[bool]:
        """Return a list that shows whether the connection was cut."""
        cut: list[bool] = []
        self.transport.abortConnection = lambda: cut.append(True)  # type: ignore[method-assign]
        return cut

    def test_strangers_send_little(self) -> None:
        """If credentials are required, a long frame before them ends the connection early."""
        self.node.cluster.unauthenticated_bucket = None
        cut = self.abort()
        self.connection.dataReceived(store(b"k", bytes(2**20))[:MAX_STRANGER_BYTES])
        self.assertEqual(cut, [])
        self.connection.dataReceived(b"x")
        self.assertEqual(cut, [True])

    def test_strangers_stay_for_a_while_only(self) -> None:
        """A connection that never authenticates is cut; one that needs no credentials is not."""
        cut = self.abort()
        self.clock.advance(HANDSHAKE_SECONDS)
        self.assertEqual(cut, [])
        self.node.cluster.unauthenticated_bucket = None
        _, transport = self.connect()
        transport.abortConnection = lambda: cut.append(True)  # type: ignore[method-assign]
        self.clock.advance(HANDSHAKE_SECONDS)
        self.assertEqual(cut, [True])

    def test_all_connections_together_hold_so_much_and_no_more(self) -> None:
        """Many incomplete requests, or unread answers, cost the connection that goes over the limit."""
        self.factory.max_held_bytes = 500_000
        big = store(b"k", bytes(200_000))
        others = [self.connect() for _ in range(2)]
        for connection, _ in others:
            connection.dataReceived(big[:-1])
        cut = self.abort()
        self.connection.dataReceived(big[:-1])
        self.assertEqual(cut, [True])
        self.connection.connectionLost()
        for connection, _ in others:
            connection.dataReceived(big[-1:])
        self.assertEqual(self.factory.held_bytes, 0)
        connection, transport = others[0]
        full: list[bool] = []
        transport.abortConnection = lambda: full.append(True)  # type: ignore[method-assign]
        get, write = encode_request(Opcode.GET, key=b"k"), transport.write

        def write_to_a_full_transport(data: bytes) -> None:
            write(data)
            connection.pauseProducing()

        transport.write = write_to_a_full_transport  # type: ignore[method-assign]
        for _ in range(3):
            connection.dataReceived(get)
            connection._output.flow = Flow.OPEN
        self.assertEqual(full, [True])
        connection.resumeProducing()
        self.assertEqual(self.factory.held_bytes, 0)

    def test_a_lost_connection_forgets_what_it_waited_for(self) -> None:
        """An answer that comes after the peer has gone is dropped, without an error."""
        self.connection.dataReceived(encode_request(Opcode.SET, key=b"k", extras=bytes(8), framing=PERSIST))
        self.connection.connectionLost()
        self.clock.advance(1)
        self.disk.finish()
        self.assertEqual(self.bucket.item_count, 1)

    # ---- pushes ----------------------------------------------------------------------------------

    def hello(self, *features: Feature) -> None:
        """Negotiate, and drop the answer."""
        value = b"".join(pack(">H", feature) for feature in features)
        self.connection.dataReceived(encode_request(Opcode.HELLO, value=value))
        self.answers()

    def change_config(self, bucket: str = "default") -> None:
        """Make a new configuration known."""
        cluster = self.node.cluster
        cluster.revision = (1, cluster.revision[1] + 1)
        for listener in list(cluster.on_config_change):
            listener(bucket)

    def test_config_push_in_full(self) -> None:
        """A client that asked for it gets the new configuration, once a version."""
        self.hello(Feature.DUPLEX, Feature.CLUSTERMAP_CHANGE_NOTIFICATION, Feature.JSON)
        self.change_config()
        (push,) = self.answers()
        self.assertEqual((push.magic, push.opcode), (Magic.SERVER_REQUEST, ServerOpcode.CLUSTERMAP_CHANGE))
        self.assertEqual((push.extras, push.key), (pack(">qq", 1, 8), b"default"))
        self.assertEqual(json.loads(push.value), {"config": "default", "rev": 8})
        for listener in self.node.cluster.on_config_change:
            listener("default")
        self.assertEqual(self.answers(), [])
        # A reply to a push is ignored.
        self.connection.dataReceived(encode_request(1, magic=Magic.CLIENT_RESPONSE))
        self.assertEqual(self.answers(), [])

    def test_config_push_in_brief(self) -> None:
        """Brief wins over full, and carries the version only."""
        self.hello(
            Feature.DUPLEX,
            Feature.CLUSTERMAP_CHANGE_NOTIFICATION,
            Feature.CLUSTERMAP_CHANGE_NOTIFICATION_BRIEF,
        )
        self.change_config()
        (push,) = self.answers()
        self.assertEqual((push.extras, push.value), (pack(">qq", 1, 8), b""))

    def test_no_push_unless_asked_for_or_for_another_bucket(self) -> None:
        """Without the feature, and for other buckets, nothing is sent."""
        self.hello(Feature.DUPLEX)
        self.change_config()
        self.assertEqual(self.answers(), [])
        self.hello(Feature.DUPLEX, Feature.CLUSTERMAP_CHANGE_NOTIFICATION)
        self.change_config("other")
        self.assertEqual(self.answers(), [])

    def test_a_peer_that_does_not_read_gets_the_newest_only(self) -> None:
        """Pushes do not pile up: once the peer reads, it gets one with the latest version."""
        self.hello(Feature.DUPLEX, Feature.CLUSTERMAP_CHANGE_NOTIFICATION)
        self.connection.pauseProducing()
        for _ in range(5):
            self.change_config()
        self.assertEqual(self.answers(), [])
        self.connection.resumeProducing()
        (push,) = self.answers()
        self.assertEqual(json.loads(push.value)["rev"], 12)

    def test_a_bucket_that_is_gone_takes_its_connections_along(self) -> None:
        """Deleting (or recreating) a bucket ends the connections that use it, and no others."""
        self.hello(Feature.XERROR)
        cut: list[bool] = []
        self.transport.abortConnection = lambda: cut.append(True)  # type: ignore[method-assign]
        self.connection.dataReceived(encode_request(Opcode.NOOP))
        self.change_config("other")
        self.assertEqual(cut, [])
        del self.node.buckets["default"]
        self.change_config()
        self.assertEqual(cut, [True])

    def test_close(self) -> None:
        """A factory that closes cuts its connections and gets no more notifications of changes."""
        cut: list[bool] = []
        self.transport.abortConnection = lambda: cut.append(True)  # type: ignore[method-assign]
        self.factory.close()
        self.assertEqual(cut, [True])
        self.assertEqual(self.node.cluster.on_config_change, [])


class Users(UserStore):
    """Checks passwords at once, or on command."""

    verdict: Deferred[bool] | None = None

    def verify(self, user: str, password: str) -> Deferred[bool]:  # type: ignore[override]
        """Fire at once, or with the verdict."""
        return self.verdict or succeed(password == PASSWORD)


class Barriers(InMemoryCase):
    """A password is checked before any request after it is read."""

    def test_nothing_runs_before_the_verdict(self) -> None:
        """A store after PLAIN runs as the new user or not at all, and reading stops."""
        self.node.cluster.users = Users()
        self.add(USER, MemoryStore())
        self.node.cluster.allowed.add((USER, USER))
        verdict = self.node.cluster.users.verdict = Deferred()
        self.connection.dataReceived(
            encode_request(Opcode.SASL_AUTH, key=b"PLAIN", value=encode_plain(USER, PASSWORD)) + store(b"k")
        )
        self.assertEqual((self.answers(), self.transport.producerState), ([], "paused"))
        verdict.callback(True)
        self.assertEqual([answer.specific for answer in self.answers()], [0, 0])
        self.assertEqual((self.node.buckets[USER].item_count, self.bucket.item_count), (1, 0))
        self.assertEqual(self.transport.producerState, "producing")

    def test_requests_after_it(self) -> None:
        """PLAIN with an answer at hand, and what follows in the same chunk."""
        self.node.cluster.users = Users()
        self.add(USER, MemoryStore())
        self.node.cluster.allowed.add((USER, USER))
        self.connection.dataReceived(
            encode_request(Opcode.SASL_AUTH, key=b"PLAIN", value=encode_plain(USER, PASSWORD)) + store(b"k")
        )
        self.assertEqual([answer.specific for answer in self.answers()], [0, 0])
        self.assertEqual(self.node.buckets[USER].item_count, 1)
