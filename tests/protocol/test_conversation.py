"""Conversations and dispatch, driven by a driver over memory: answers in any order and pieces, losses,
repetitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.exceptions import (
    AuthError,
    ClientTemporaryFailError,
    CouchbaseError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    TimeoutError,
)
from couchbase.protocol import operations
from couchbase.protocol.answers import AnswerReader
from couchbase.protocol.call import Step
from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.conversation import LARGE_BYTES, Phase
from couchbase.protocol.dispatch import MAX_PENDING, Dispatcher
from couchbase.protocol.frames import Frame, encode_response
from couchbase.protocol.hashing import vbucket_of
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE
from couchbase.protocol.operations import GET, SET
from couchbase.protocol.stats import Statistics
from couchbase.result import MultiResult
from tests import tries
from tests.protocol.memory_driver import (
    VBUCKETS,
    MemoryCluster,
    MemoryNode,
    MemoryPeer,
    cluster_of,
    step,
)

keys = st.binary(min_size=1, max_size=6)
EXAMPLES = settings(max_examples=tries(60), deadline=None)
RETRIED = (Status.ETMPFAIL, Status.EBUSY, Status.SYNC_WRITE_IN_PROGRESS)


class Counted(Step):
    """A step that counts its ends."""

    __slots__ = ("ends",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ends = 0

    def succeed(self, result: Any) -> None:
        self.ends += 1
        super().succeed(result)

    def fail(self, error: BaseException) -> None:
        self.ends += 1
        super().fail(error)


def stores(count: int) -> list[Counted]:
    """Return that many writes of different documents."""
    calls = []
    for number in range(count):
        call = Counted(SET, str(number), str(number).encode())
        call.extras, call.value = bytes(8), b"value %d" % number
        calls.append(call)
    return calls


def only_peer(cluster: MemoryCluster) -> MemoryPeer:
    """Return the peer of a cluster of one node."""
    (peer,) = cluster.peers.values()
    return peer


def refusing(*statuses: int, opcode: int = Opcode.SET) -> Any:
    """Return a script that answers requests of one kind with these statuses first."""
    left = list(statuses)

    def script(frame: Frame) -> bytes | None:
        if frame.opcode == opcode and left:
            return encode_response(frame.opcode, left.pop(0), opaque=frame.opaque)
        return None

    return script


class AnswerTests(SynchronousTestCase):
    """Each answer finds its operation."""

    @EXAMPLES
    @given(st.data())
    def test_in_any_order_and_pieces(self, data: st.DataObject) -> None:
        """Whatever the order of answers and the pieces in which they come, each operation ends once, with
        its own."""
        cluster, nodes = cluster_of(data.draw(st.integers(1, 3)))
        for number in range(12):
            owner = nodes[vbucket_of(b"%d" % number, VBUCKETS) % len(nodes)]
            owner.documents[b"%d" % number] = b"v%d" % number
        calls = [Counted(GET, str(number), b"%d" % number) for number in range(14)]
        cluster.give(calls)
        for address, peer in cluster.peers.items():
            answers = data.draw(st.permutations(cluster.nodes[address].answers(peer)))
            stream = b"".join(answers)
            while stream:
                size = data.draw(st.integers(1, len(stream)))
                peer.receive(stream[:size])
                stream = stream[size:]
        self.assertEqual([call.ends for call in calls], [1] * 14)
        self.assertEqual([call.result.value for call in calls[:12]], [b"v%d" % n for n in range(12)])
        self.assertTrue(all(isinstance(call.error, NotFoundError) for call in calls[12:]))
        left = [peer.talk.pending for peer in cluster.peers.values() if peer.talk]
        self.assertEqual(left, [{}] * len(nodes))

    def test_an_answer_to_nothing(self) -> None:
        """Answers with unknown numbers are dropped, also those of cancelled operations."""
        cluster, (node,) = cluster_of(1)
        given_up, other = stores(2)
        cluster.give([given_up, other])
        given_up.abandon()
        given_up.abandon()
        only_peer(cluster).receive(encode_response(Opcode.GET, opaque=4242))
        cluster.deliver()
        self.assertEqual((given_up.ends, other.ends, len(node.executed)), (0, 1, 2))

    def test_garbage(self) -> None:
        """A node that breaks the protocol ends the conversation: operations in flight fail; the next one
        starts clean."""
        cluster, (node,) = cluster_of(1)
        (call,) = stores(1)
        cluster.give([call])
        node.answers(only_peer(cluster))
        before = only_peer(cluster).talk
        only_peer(cluster).receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert before is not None
        self.assertEqual((before.phase, call.ends), (Phase.LOST, 1))
        self.assertIsInstance(before.fault, ProtocolError)
        self.assertTrue(call.error.ambiguous)  # type: ignore[union-attr]
        again = step(GET, b"0")
        cluster.give([again])
        cluster.deliver()
        self.assertEqual(again.result.value, b"value 0")


class LossTests(SynchronousTestCase):
    """A connection is lost."""

    @EXAMPLES
    @given(st.integers(0, 10), st.integers(0, 23), st.booleans())
    def test_at_any_moment(self, answered: int, cut: int, reads: bool) -> None:
        """Operations end once: with their answer, or as lost, and ambiguous if they may have been carried
        out."""
        cluster, (node,) = cluster_of(1)
        peer = only_peer(cluster)
        calls = stores(10)
        if reads:
            calls = [Counted(GET, call.key, call.key_bytes) for call in calls]
        cluster.give(calls)
        talk = peer.talk
        answers = node.answers(peer)
        peer.receive(b"".join(answers[:answered]) + b"".join(answers[answered:])[:cut])
        peer.lose(OSError("cut"))
        self.assertEqual([call.ends for call in calls], [1] * 10)
        for call in calls[answered:]:
            self.assertIsInstance(call.error, NetworkError)
            self.assertEqual((getattr(call.error, "ambiguous", None), call.pending), (not reads, None))
        assert talk is not None
        self.assertEqual((talk.phase, talk.pending, talk.out), (Phase.LOST, {}, []))
        later = stores(3)
        cluster.give(later)
        cluster.deliver()
        self.assertEqual([call.error for call in later], [None] * 3)

    @EXAMPLES
    @given(st.integers(0, 6))
    def test_during_the_handshake(self, steps: int) -> None:
        """Operations that wait for a connection wait for the next one, in every phase of the handshake."""
        cluster, (node,) = cluster_of(1)
        peer = only_peer(cluster)
        peer.lose(OSError("cut"))
        (call,) = stores(1)
        cluster.give([call])
        for _ in range(steps):
            cluster.flush()
            answers = node.answers(peer)
            if not answers or call.done or peer.open_conversation is not None:
                break
            peer.receive(answers[0])
        if peer.open_conversation is None:
            peer.lose(OSError("cut again"))
        self.assertEqual(call.ends, 0)
        cluster.deliver()
        self.assertEqual((call.error, call.ends), (None, 1))

    def test_refused(self) -> None:
        """If the handshake is refused, what waits for it fails with that."""
        cluster, (node,) = cluster_of(1)
        peer = only_peer(cluster)
        peer.lose(OSError("cut"))
        node.script = refusing(Status.EACCESS, opcode=Opcode.SELECT_BUCKET)
        (call,) = stores(1)
        cluster.give([call])
        cluster.deliver()
        self.assertIsInstance(call.error, AuthError)

    def test_nothing_is_said_to_a_lost_one(self) -> None:
        """A conversation that is over refuses operations, and answers questions with ``None``."""
        cluster, _ = cluster_of(1)
        peer = only_peer(cluster)
        talk = peer.talk
        assert talk is not None
        peer.lose(OSError("cut"))
        talk.lose(OSError("twice"), "twice")
        (call,) = stores(1)
        talk.put(call, 0)
        heard: list[Frame | None] = []
        talk.ask(Opcode.NOOP, lambda frame: bool(heard.append(frame)), {})
        self.assertIsInstance(call.error, NetworkError)
        self.assertEqual((heard, talk.out), ([None], []))

    def test_questions_of_a_lost_one(self) -> None:
        """A pending question is notified of the loss, once; a forgotten one is not."""
        cluster, _ = cluster_of(1)
        peer = only_peer(cluster)
        talk = peer.talk
        assert talk is not None
        heard: list[Any] = []
        talk.ask(Opcode.NOOP, lambda frame: bool(heard.append(frame)), {})
        talk.forget(talk.ask(Opcode.NOOP, lambda frame: bool(heard.append("forgotten")), {}))
        peer.lose(OSError("cut"))
        self.assertEqual(heard, [None])


class StatisticsTests(SynchronousTestCase):
    """Questions with many answers."""

    def test_statistics(self) -> None:
        """Each node's values gather under its name; the end of each list, or the node's, is counted."""
        cluster, nodes = cluster_of(2)
        collected: MultiResult[dict[str, Any]] = MultiResult()
        ended: list[bool] = []
        statistics = Statistics(collected, ["", "memory"], lambda: ended.append(True))

        def script(frame: Frame) -> bytes | None:
            if frame.opcode != Opcode.STAT:
                return None
            values = ((b"pid", b"7"), (b"version", b"1.2"), (b"", b""))
            return b"".join(
                encode_response(frame.opcode, opaque=frame.opaque, key=frame.key + key, value=value)
                for key, value in values
                if not frame.key or key
            ) + (b"" if not frame.key else encode_response(frame.opcode, opaque=frame.opaque))

        for node in nodes:
            node.script = script
        for peer in cluster.peers.values():
            assert peer.talk is not None
            for question in statistics.questions(peer.name):
                peer.talk.ask(*question)
        self.assertEqual(statistics.open, 4)
        lost, kept = cluster.peers.values()
        lost.lose(OSError("cut"))
        cluster.deliver()
        self.assertEqual((statistics.open, ended, statistics.lost), (0, [True], [lost.name] * 2))
        self.assertEqual(collected["pid"], {kept.name: 7})
        self.assertEqual(collected["memoryversion"], {kept.name: "1.2"})
        self.assertEqual(collected.refused, {})

    def test_refused_groups(self) -> None:
        """A group that no node gives is named with a status; one that a single node gives is not."""
        cluster, nodes = cluster_of(2)
        collected: MultiResult[dict[str, Any]] = MultiResult()
        statistics = Statistics(collected, ["new", "old", "odd", "none"])

        def refuse(*groups: bytes) -> Callable[[Frame], bytes | None]:
            def script(frame: Frame) -> bytes | None:
                if frame.opcode != Opcode.STAT:
                    return None
                status = Status.EACCESS if frame.key == b"none" else Status.KEY_ENOENT
                return encode_response(
                    frame.opcode, status if frame.key in groups else 0, opaque=frame.opaque
                )

            return script

        nodes[0].script = refuse(b"new", b"odd", b"none")
        nodes[1].script = refuse(b"odd", b"none")
        for peer in cluster.peers.values():
            assert peer.talk is not None
            for question in statistics.questions(peer.name):
                peer.talk.ask(*question)
        cluster.deliver()
        self.assertEqual(statistics.open, 0)
        self.assertEqual(collected.refused, {"odd": Status.KEY_ENOENT, "none": Status.EACCESS})


class RepetitionTests(SynchronousTestCase):
    """Nodes that did not carry an operation out."""

    @EXAMPLES
    @given(st.lists(st.sampled_from(RETRIED), max_size=5), st.integers(1, 5))
    def test_each_is_carried_out_once(self, statuses: list[int], count: int) -> None:
        """However often operations are refused for now, each is carried out, once."""
        cluster, (node,) = cluster_of(1)
        node.script = refusing(*statuses)
        calls = stores(count)
        cluster.give(calls)
        for _ in range(40):
            cluster.deliver()
            cluster.advance(0.05)
        self.assertEqual([(call.ends, call.error) for call in calls], [(1, None)] * count)
        self.assertEqual(
            sorted(frame.key for frame in node.executed), sorted(call.key_bytes for call in calls)
        )
        self.assertEqual(cluster._parked, {})

    @EXAMPLES
    @given(st.integers(1, 3), st.lists(st.integers(0, 2), min_size=2, max_size=8))
    def test_in_the_order_of_the_key(self, refusals: int, numbers: list[int]) -> None:
        """Operations submitted while one of their key is repeated run after it, in order; others continue."""
        cluster, (node,) = cluster_of(1)
        script = refusing(*[Status.ETMPFAIL] * refusals)
        node.script = lambda frame: script(frame) if frame.key == b"0" else None
        first = step(SET, b"0", b"first")
        cluster.give([first])
        cluster.deliver()
        calls = [step(SET, b"%d" % number, b"%d" % at) for at, number in enumerate(numbers)]
        cluster.give(calls)
        for _ in range(40):
            cluster.deliver()
            cluster.advance(0.05)
        for number in range(3):
            wanted = [call.value for call in [first, *calls] if call.key == b"%d" % number]
            self.assertEqual([f.value for f in node.executed if f.key == b"%d" % number], wanted)

    def test_a_connection_of_no_use(self) -> None:
        """New operations are not given to it, those it refused are repeated on the next one."""
        cluster, (node,) = cluster_of(1)
        node.script = refusing(Status.AUTH_STALE)
        before = only_peer(cluster).talk
        (call,) = stores(1)
        cluster.give([call])
        cluster.deliver()
        cluster.advance(0.05)
        cluster.deliver()
        self.assertEqual((call.error, len(node.executed)), (None, 1))
        assert before is not None
        self.assertIsNot(only_peer(cluster).talk, before)

    def test_leaving(self) -> None:
        """Between the node's word and the end of the connection, nothing is put there, and answers still
        count."""
        cluster, (node,) = cluster_of(1)
        peer = only_peer(cluster)
        node.script = refusing(Status.AUTH_STALE)
        stale, fine = stores(2)
        cluster.give([stale, fine])
        talk = peer.talk
        assert talk is not None
        phases = []
        leave = peer.leave

        def noted() -> None:
            phases.append((talk.phase, peer.open_conversation))
            leave()

        peer.leave = noted  # type: ignore[method-assign]
        peer.receive(b"".join(node.answers(peer)))
        self.assertEqual(phases, [(Phase.LEAVING, None)])
        self.assertEqual((fine.error, fine.ends, stale.ends), (None, 1, 0))
        self.assertEqual(cluster.route, [None] * VBUCKETS)

    def test_a_moved_vbucket(self) -> None:
        """A node that does not own the key sends its map, and the operation goes where that says."""
        cluster, (first, second) = cluster_of(2)
        for node in (first, second):
            node.rows, node.rev = [[1]] * VBUCKETS, 2
        moved = []

        def script(frame: Frame) -> bytes | None:
            if frame.opcode != Opcode.SET:
                return None
            moved.append(frame.key)
            return encode_response(
                frame.opcode, Status.NOT_MY_VBUCKET, opaque=frame.opaque, value=first.config()
            )

        first.script = script
        calls = stores(8)
        cluster.give(calls)
        for _ in range(5):
            cluster.deliver()
            cluster.advance(0.05)
        self.assertEqual([call.error for call in calls], [None] * 8)
        self.assertTrue(moved)
        self.assertEqual((first.executed, len(second.executed)), ([], 8))

    def test_a_pushed_map(self) -> None:
        """An unsolicited map is used, and re-routes operations that wait for a removed node."""
        cluster, (first, second) = cluster_of(2)
        first.cluster, first.rows, first.rev = [first], [[0]] * VBUCKETS, 2
        cluster.peers[first.host, first.port].receive(first.push())
        self.assertEqual(list(cluster.peers), [(first.host, first.port)])
        calls = stores(8)
        cluster.give(calls)
        cluster.deliver()
        self.assertEqual((len(first.executed), second.executed), (8, []))

    def test_what_waits_goes_by_the_new_map(self) -> None:
        """Operations that wait for a connection leave for the node that a newer map names."""
        cluster, (first, second) = cluster_of(2)
        cluster.peers[second.host, second.port].lose(OSError("cut"))
        calls = stores(8)
        cluster.give(calls)
        self.assertTrue(cluster.peers[second.host, second.port].waiting)
        first.rows, first.rev = [[0]] * VBUCKETS, 2
        cluster.peers[first.host, first.port].receive(first.push())
        cluster.deliver()
        self.assertEqual((len(first.executed), second.executed), (8, []))
        self.assertEqual([call.error for call in calls], [None] * 8)

    def test_a_map_with_other_vbuckets(self) -> None:
        """If the number of vbuckets changes while many operations are given, the rest goes by the new one."""
        cluster, (first, second) = cluster_of(2)
        gone = cluster.peers[second.host, second.port]
        gone.lose(OSError("cut"))
        calls = stores(8)
        at = next(at for at, call in enumerate(calls) if vbucket_of(call.key_bytes, VBUCKETS) % 2)
        send = gone.send

        def changed(call: Any, vbucket: int) -> None:
            first.rows, first.rev = [[0]] * (VBUCKETS // 2), 2
            cluster.peers[first.host, first.port].receive(first.push())
            send(call, vbucket)

        gone.send = changed  # type: ignore[method-assign]
        cluster.give(calls)
        self.assertEqual(len(cluster.route), VBUCKETS // 2)
        for call in calls[at + 1 :]:
            self.assertEqual(call.vbucket, vbucket_of(call.key_bytes, VBUCKETS // 2))
        cluster.deliver()
        self.assertEqual([call.ends for call in calls[:at] + calls[at + 1 :]], [1] * 7)

    def test_a_synchronous_write_keeps_its_place(self) -> None:
        """It waits for an earlier write of its key that has no answer, and later operations wait for it."""
        cluster, (node,) = cluster_of(1)
        first, durable, last = (step(SET, b"k", value) for value in (b"1", b"2", b"3"))
        durable.framing = operations.mutation_framing(1, 1000, False)
        cluster.give([first])
        durable.deadline = last.deadline = 2.5
        cluster.submit(durable)
        cluster.submit(last)
        peer = only_peer(cluster)
        for wanted in ([b"1"], [b"1", b"2"], [b"1", b"2", b"3"]):
            cluster.flush()
            answers = b"".join(node.answers(peer))
            self.assertEqual([frame.value for frame in node.executed], wanted)
            peer.receive(answers)
        self.assertEqual([call.error for call in (first, durable, last)], [None] * 3)
        self.assertEqual(cluster._parked, {})

    def test_time_is_up(self) -> None:
        """An operation without an answer fails and leaves the table; its late answer is dropped."""
        cluster, (node,) = cluster_of(1)
        calls = stores(2)
        cluster.give(calls)
        late = node.exchange(only_peer(cluster))
        cluster.advance(2.6)
        for call in calls:
            self.assertIsInstance(call.error, TimeoutError)
            self.assertTrue(call.error.ambiguous)  # type: ignore[union-attr]
        only_peer(cluster).receive(late)
        self.assertEqual([call.ends for call in calls], [1, 1])

    def test_too_many(self) -> None:
        """Operations beyond the table of a conversation are refused, by both ways of sending."""
        self.assertEqual(Dispatcher.most_pending, MAX_PENDING)
        cluster, _ = cluster_of(1)
        cluster.most_pending = 2
        calls = stores(4)
        cluster.give(calls[:3])
        cluster.submit(calls[3])
        self.assertEqual([call.ends for call in calls], [0, 0, 1, 1])
        for call in calls[2:]:
            self.assertIsInstance(call.error, ClientTemporaryFailError)


requests = st.builds(
    lambda key, operation, value, extras, framing, cas: (key, operation, value, extras, framing, cas),
    keys,
    st.sampled_from([GET, SET, operations.DELETE, operations.TOUCH]),
    st.binary(max_size=20),
    st.binary(max_size=20),
    st.sampled_from([b"", operations.PRESERVE_EXPIRY_FRAMING]),
    st.integers(0, 2**64 - 1),
)


ONES = st.tuples(
    st.sampled_from(
        ["get", "get", "quiet", "undecodable", "set", "large set", "durable", "named", "unknown", "done"]
    ),
    st.sampled_from([b"a", b"b", b"c"]),
    st.sampled_from(
        [None, None, None, "silence", "garbage", "push", "twice", "later", *RETRIED, Status.KEY_EEXISTS]
    ),
    st.lists(st.integers(1, 60), max_size=3),
    st.booleans(),
)
"""An operation, the answer to it (``None`` for the usual one), where its bytes are cut, and whether they are
received before the next operation is sent."""


def refuse_value(value: bytes, flags: int) -> Any:
    """Fail, as a transcoder may."""
    raise ValueError("no value")


def one(cluster: MemoryCluster, kind: str, key: bytes) -> Counted:
    """Return one operation."""
    stores = kind in ("set", "large set", "durable", "named")
    call = Counted(SET if stores else GET, key.decode(), key, kind == "quiet")
    if stores:
        call.extras, call.value = bytes(8), bytes(LARGE_BYTES if kind == "large set" else 9)
    if kind == "durable":
        call.framing = operations.mutation_framing(1, 1000, False)
    if kind == "undecodable":
        call.decode_value = refuse_value
    if kind in ("named", "unknown"):
        call.keyspace = cluster.collections.keyspace("s", kind)
        call.keyspace.prefix = b"\x09" if kind == "named" else b""
    call.done = kind == "done"
    return call


def answering(answer: Any, node: MemoryNode) -> Callable[[Frame], bytes | None]:
    """Return a script for the kinds of answers in ``ONES``."""

    def script(frame: Frame) -> bytes | None:
        if frame.opcode not in (Opcode.GET, Opcode.SET) or answer is None:
            return None
        node.script = lambda _: None
        usual = node.answer(frame)
        node.script = script
        if isinstance(answer, int):
            return encode_response(frame.opcode, answer, opaque=frame.opaque)
        return {
            "silence": b"",
            "garbage": b"\x55" * 30,
            "push": node.push() + usual,
            "twice": usual + usual,
            "later": usual + node.push(),
        }[answer]

    return script


def answered(cluster: MemoryCluster, cuts: list[int]) -> list[bytes]:
    """Carry bytes to the nodes and back once, in pieces; return what was sent."""
    sent = []
    cluster.flush()
    for address, peer in list(cluster.peers.items()):
        sent.append(b"".join(peer.sent))
        received, at = cluster.nodes[address].exchange(peer), 0
        for size in (*cuts, len(received)):
            piece, at = received[at : at + size], at + size
            if piece:
                peer.receive(piece)
    return sent


class ManyTests(SynchronousTestCase):
    """The loop for many operations does what the way of one does."""

    @EXAMPLES
    @given(st.lists(requests, max_size=12), st.integers(1, 3))
    def test_same_bytes(self, given_: list[Any], count: int) -> None:
        """``send_all`` writes what ``submit`` writes for each, and notes the same."""
        seen = []
        for way in ("send_all", "send_one", "submit"):
            cluster, _ = cluster_of(count)
            calls = []
            for key, operation, value, extras, framing, cas in given_:
                call = step(operation, key, value)
                call.extras, call.framing, call.cas = extras, framing, cas
                calls.append(call)
            if way == "send_all":
                cluster.send_all(calls, 1.0)
            else:
                for call in calls:
                    cluster.send_one(call, 1.0) if way == "send_one" else cluster.submit(call)
            talks = [peer.talk for peer in cluster.peers.values() if peer.talk is not None]
            noted = [{number: call.key for number, call in talk.pending.items()} for talk in talks]
            numbers = [(call.opaque, call.vbucket) for call in calls]
            seen.append(([b"".join(talk.out) for talk in talks], noted, numbers))
        self.assertEqual(seen, seen[:1] * 3)

    @settings(max_examples=tries(200), deadline=None)
    @given(st.lists(ONES, max_size=8), st.booleans())
    def test_one_at_a_time(self, rounds: list[Any], has_collections: bool) -> None:
        """In any state, ``send_one`` does what ``send_all`` does for one operation, and a chunk that comes
        for the only operation that waits ends it as ``feed`` would."""
        seen = []
        for alone in (True, False):
            cluster, nodes = cluster_of(2)
            if has_collections:
                for peer in cluster.peers.values():
                    peer.talk.prefix = DEFAULT_KEYSPACE.prefix  # type: ignore[union-attr]
            cluster.most_pending = 3
            noted: list[Any] = []
            calls: list[Counted] = []
            for kind, key, answer, cuts, is_read in rounds:
                call = one(cluster, kind, key)
                calls.append(call)
                for node in nodes:
                    node.script = answering(answer, node)
                touched = cluster.send_one(call, 7.0) if alone else cluster.send_all((call,), 7.0)
                noted.append([getattr(call, name, None) for name in ("opaque", "vbucket", "deadline")])
                noted.append([talk.name for talk in touched])
                noted.append([peer.talk and peer.talk.has_large for peer in cluster.peers.values()])
                if not is_read:
                    continue
                with patch.object(AnswerReader, "single", AnswerReader.single if alone else lambda *_: None):
                    noted += answered(cluster, cuts)
                cluster.advance(0.5)
            noted += [(call.ends, repr(call.result), repr(call.error), call.done) for call in calls]
            seen.append(noted)
        self.assertEqual(*seen)

    @given(st.lists(keys), st.sampled_from([1, 3, 16, 64, 1024]))
    def test_vbuckets(self, some: list[bytes], count: int) -> None:
        """Operations that are sent together have the vbuckets of their keys."""
        cluster, _ = cluster_of(1)
        cluster.route = cluster.route[:1] * count
        calls = [step(GET, key) for key in some]
        cluster.send_all(calls, 7.0)
        self.assertEqual([call.vbucket for call in calls], [vbucket_of(key, count) for key in some])

    def test_without_a_map(self) -> None:
        """Operations that cannot be routed are handed to the driver one by one."""
        nodes = [MemoryNode(11210)]
        cluster = MemoryCluster(nodes)
        calls = stores(2)
        cluster.give(calls)
        for call in calls:
            self.assertIsInstance(call.error, ClientTemporaryFailError)

    def test_given_up_by_one_before(self) -> None:
        """An operation that another's end gives up, in the same round, is not sent."""
        cluster, (node,) = cluster_of(1)
        cluster.most_pending = 1
        first, refused, last = stores(3)
        refused.ended = lambda _: last.abandon()
        cluster.give([first, refused, last])
        cluster.deliver()
        self.assertEqual([frame.key for frame in node.executed], [b"0"])
        self.assertIsInstance(refused.error, CouchbaseError)
        self.assertEqual(last.ends, 0)
