"""Operations given together keep their order for each key, as if each had been submitted alone."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.call import Step
from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.frames import Frame, encode_response
from couchbase.protocol.hashing import vbucket_of
from couchbase.protocol.keyspace import Keyspace
from couchbase.protocol.offers import is_durable
from couchbase.protocol.operations import GET, PRESERVE_EXPIRY_FRAMING, SET, mutation_framing
from tests import tries
from tests.protocol.memory_driver import VBUCKETS, MemoryCluster, cluster_of, step

LEVEL = mutation_framing(1, 1000, False)
FRAMINGS = (b"", PRESERVE_EXPIRY_FRAMING, LEVEL, LEVEL)
ROUNDS = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from((b"a", b"b", b"c")), st.sampled_from((None, *FRAMINGS))), max_size=9
        ),
        st.booleans(),
    ),
    max_size=4,
)
"""Operations that are given together, and whether the nodes answer before the next ones: key, and framing of
a store; ``None`` for a read."""


def asked(number: int, key: bytes, framing: bytes | None) -> Step:
    """Return an operation; its number is its value."""
    if framing is None:
        return step(GET, key)
    call = step(SET, key, b"%d" % number)
    call.framing = framing
    return call


class OrderTests(SynchronousTestCase):
    """``send_in_order`` does what ``submit`` does for each."""

    def check_alone(self, cluster: MemoryCluster) -> None:
        """A synchronous write that a node has is the only operation on its key there."""
        for peer in cluster.peers.values():
            under_way = [call for call in peer.talk.pending.values() if not call.done] if peer.talk else []
            for call in under_way:
                if is_durable(call.framing):
                    self.assertEqual(
                        [other for other in under_way if other.identity == call.identity], [call]
                    )

    def outcome(self, rounds: list[Any], refused: set[int], nodes: int, *, together: bool) -> Any:
        """Return what the nodes carried out, in its order, and how each operation ended."""
        cluster, members = cluster_of(nodes)
        for node in members:
            seen: list[Frame] = []

            def script(frame: Frame, seen: list[Frame] = seen) -> bytes | None:
                if frame.opcode != Opcode.SET:
                    return None
                seen.append(frame)
                if len(seen) in refused:
                    return encode_response(frame.opcode, Status.ETMPFAIL, opaque=frame.opaque)
                return None

            node.script = script
        calls: list[Step] = []
        for operations, is_answered in rounds:
            given_ = [asked(len(calls) + at, *operation) for at, operation in enumerate(operations)]
            calls += given_
            if together:
                cluster.send_in_order(given_, 100.0)
            else:
                for call in given_:
                    call.deadline = 100.0
                    cluster.submit(call)
            self.check_alone(cluster)
            cluster.flush()
            if is_answered:
                cluster.deliver()
                self.check_alone(cluster)
        for _ in range(40):
            cluster.deliver()
            cluster.advance(0.25)
        self.assertEqual(cluster._parked, {})
        self.assertTrue(all(call.done for call in calls))
        executed = [[(frame.opcode, frame.key, frame.value) for frame in node.executed] for node in members]
        ends = [None if call.result is None else getattr(call.result, "_value", "stored") for call in calls]
        return executed, ends

    @settings(max_examples=tries(150), deadline=None)
    @given(ROUNDS, st.sets(st.integers(1, 12), max_size=3), st.integers(1, 2))
    def test_same_as_one_by_one(self, rounds: list[Any], refused: set[int], nodes: int) -> None:
        """The nodes carry out the same operations in the same order, whatever they refuse for a while."""
        both = [self.outcome(rounds, refused, nodes, together=together) for together in (True, False)]
        self.assertEqual(*both)

    def test_other_keys(self) -> None:
        """While a key is held, operations on others leave together, and those on it wait with a deadline."""
        cluster, _ = cluster_of(1)
        held = asked(1, b"held", LEVEL)
        cluster.send_in_order([held], 1.0)
        others = [asked(number, b"%d" % number, b"") for number in range(8)]
        behind = asked(9, b"held", None)
        submitted: list[Any] = []
        cluster.submit = submitted.append  # type: ignore[method-assign]
        cluster.send_all([*others, behind], 2.0)
        self.assertEqual(submitted, [])
        self.assertTrue(all(call.pending for call in (held, *others)))
        self.assertEqual((behind.pending, behind.deadline), (None, 2.0))

    def test_held_meanwhile(self) -> None:
        """An operation waits for one before it that was put off, though its node has come back meanwhile."""
        cluster, (first, second) = cluster_of(2)
        lost = next(key for key in b"cdefgh" if vbucket_of(bytes((key,)), VBUCKETS) % 2)
        rows = first.rows
        held = [[-1] if number == vbucket_of(b"b", VBUCKETS) else row for number, row in enumerate(rows)]
        first.rows, first.rev = held, 2
        peer = cluster.peers[first.host, first.port]
        peer.receive(first.push())
        gone = cluster.peers[second.host, second.port]
        gone.lose(OSError("cut"))
        send = gone.send

        def changed(call: Any, vbucket: int) -> None:
            first.rows, first.rev = [[0]] * VBUCKETS, 3
            peer.receive(first.push())
            send(call, vbucket)

        gone.send = changed  # type: ignore[method-assign]
        put_off, other, behind = asked(1, b"b", b""), asked(2, bytes((lost,)), b""), asked(3, b"b", b"")
        cluster.send_all([put_off, other, behind], 2.0)
        self.assertEqual(list(cluster._parked[b"b"]), [behind])
        for call in (put_off, behind):
            self.assertIsNone(call.pending)

    def test_collections(self) -> None:
        """The same key in two collections is two documents; an id that is not known yet holds nothing."""
        cluster, _ = cluster_of(1)
        known, unknown = Keyspace("s", "known"), Keyspace("s", "unknown")
        known.prefix = b"\x09"
        calls = [asked(number, b"k", LEVEL) for number in range(4)]
        calls[1].keyspace = calls[3].keyspace = known
        calls[2].keyspace = unknown
        free = cluster.in_order(calls, 1.0)
        self.assertEqual(free, calls[:3])
        self.assertEqual([call.ended is None for call in calls], [False, False, True, True])
        self.assertEqual(list(cluster._parked[known, b"k"]), [calls[3]])
