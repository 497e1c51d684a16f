"""Waiting for copies: the first round without a plan, and the plan."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from couchbase.exceptions import (
    KEY_EEXISTS,
    CouchbaseError,
    KeyExistsError,
    NotFoundError,
)
from couchbase.protocol.constants import Datatype, ObserveState, Opcode, Status
from couchbase.protocol.firstround import FirstRound
from couchbase.protocol.frames import encode_response
from couchbase.result import OperationResult
from tests.txcouchbase.memory import VBUCKETS, MemoryNode, MemoryTestCase
from txcouchbase.connection import Connection

NODES = 3
CAS = 1
"""What the nodes answer to a mutation."""
INTERVAL, TIMEOUT = 1.0, 3.3
LONGEST = 12.0
"""Seconds after which every waiting has ended."""
GONE = "gone"
SILENT = "silent"


class Node(MemoryNode):  # type: ignore[no-untyped-call, misc, unused-ignore]
    """A node that answers OBSERVE as its script says, one step for each question; the last step stays."""

    script: list[Any]
    asked: int
    last: bytes
    """The value of the last question."""

    def answer(self, frame: Any) -> bytes:
        """Answer one request."""
        if frame.opcode != Opcode.OBSERVE:
            return super().answer(frame)  # type: ignore[no-untyped-call, no-any-return]
        self.asked += 1
        self.last = frame.value
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        parts: dict[str, Any] = {"opaque": frame.opaque}
        if step in (GONE, SILENT):
            self.is_gone = step == GONE
            return b""
        if isinstance(step, bytes):
            return encode_response(frame.opcode, value=step, **parts)
        if isinstance(step, Status):
            return encode_response(frame.opcode, step, **parts)
        state, cas, *datatype = step
        value = frame.value + state.to_bytes(1, "big") + cas.to_bytes(8, "big")
        return encode_response(
            frame.opcode, value=value, datatype=int(datatype[0] if datatype else 0), **parts
        )

    is_gone = False

    def config(self) -> bytes:
        """Return a map in which all nodes have all documents."""
        config = json.loads(super().config())  # type: ignore[no-untyped-call]
        server_map = config["vBucketServerMap"]
        server_map.update(numReplicas=NODES - 1, vBucketMap=[list(range(NODES))] * VBUCKETS)
        return json.dumps(config).encode()


TAIL = b"\1" + CAS.to_bytes(8, "big")
MALFORMED = [
    *(b"", b"\0", bytes(4)),
    # Another document, another vbucket, no prefix, two answers, and one that is cut short.
    *(b"\0\0\0\2\0q" + TAIL, b"\7\7\0\2\0k" + TAIL, b"\0\0\0\1k" + TAIL),
    *(2 * (b"\0\0\0\2\0k" + TAIL), b"\0\0\0\2\0k" + TAIL[:-1]),
]
"""Values other than the expected one."""


seen = st.tuples(st.sampled_from([0, 0, 1, 1, 1, 0x80, 0x81]), st.sampled_from([CAS, CAS, CAS, 5]))
steps = st.one_of(
    seen,
    seen,
    seen,
    st.tuples(st.just(1), st.just(CAS), st.sampled_from(list(Datatype))),
    st.sampled_from([GONE, SILENT]),
    st.sampled_from([Status.ETMPFAIL, Status.NOT_MY_VBUCKET, Status.EACCESS, Status.UNKNOWN_COMMAND]),
    st.sampled_from(MALFORMED),
)
scripts = st.lists(steps, min_size=1, max_size=3)


class EnduranceTests(MemoryTestCase):  # type: ignore[no-untyped-call, misc, unused-ignore]
    """Both ways lead to the same outcome, by the same questions."""

    node_type = Node

    def open(self, of_nodes: list[list[Any]], **options: Any) -> Any:
        """Return a connection to nodes with these scripts."""
        connection = self.connect(Connection, NODES, **options)  # type: ignore[no-untyped-call]
        for node, script in zip(self.nodes.values(), of_nodes, strict=True):
            node.script, node.asked = list(script), 0
        return connection

    def outcome(self, waited: Any) -> Any:
        """Return the comparable outcome of a Deferred, or ``None``."""
        found: list[Any] = []
        waited.addBoth(found.append)
        passed = 0.0
        while passed < LONGEST and not found:
            self.carry_out()
            for node in self.nodes.values():
                if node.is_gone:
                    node.is_gone = False
                    node.protocol.connectionLost(Failure(ConnectionLost()))
            self.clock.advance(0.05)
            passed += 0.05
        if not found:
            return None
        (result,) = found
        if isinstance(result, Failure):
            error: Any = result.value
            self.assertIsInstance(error, CouchbaseError, result)
            told = (
                error.message,
                error.key,
                error.operation,
                error.status,
                error.ambiguous,
                repr(error.result),
            )
            return type(error), error.rc, told, repr(error.all_results)
        return type(result), result._rc, result._cas, result._key

    def both(self, of_nodes: list[list[Any]], begin: Any) -> tuple[Any, Any]:
        """Return the outcome and the number of questions to each node: of the first round, and of the plan
        alone."""

        def run() -> tuple[Any, list[int]]:
            connection = self.open(of_nodes)
            found = self.outcome(begin(connection))
            for link in connection._client.peers.values():
                self.assertFalse(link.conversation is not None and link.conversation.pending)
            connection._close()
            return found, [node.asked for node in self.nodes.values()]

        usual = run()
        with mock.patch.object(FirstRound, "ask", lambda *_: False):
            return usual, run()

    @settings(deadline=None, max_examples=150)
    @given(
        st.lists(scripts, min_size=NODES, max_size=NODES),
        st.integers(-1, NODES + 1),
        st.integers(-1, NODES),
        st.sampled_from([0, 0, CAS]),
        st.booleans(),
    )
    def test_endure(
        self, of_nodes: list[list[Any]], persist_to: int, replicate_to: int, cas: int, removed: bool
    ) -> None:
        """One document, whatever the nodes answer."""

        def begin(connection: Any) -> Any:
            return connection.endure(
                "k",
                persist_to,
                replicate_to,
                cas=cas,
                check_removed=removed,
                timeout=TIMEOUT,
                interval=INTERVAL,
            )

        usual, planned = self.both(of_nodes, begin)
        self.assertEqual(usual, planned)

    @settings(deadline=None, max_examples=150)
    @given(
        st.lists(scripts, min_size=NODES, max_size=NODES),
        st.integers(-1, NODES + 1),
        st.integers(-1, NODES),
        st.booleans(),
    )
    def test_mutations(
        self, of_nodes: list[list[Any]], persist_to: int, replicate_to: int, delete: bool
    ) -> None:
        """A mutation that waits for its copies, whatever the nodes answer."""

        def begin(connection: Any) -> Any:
            connection._durability_timeout = TIMEOUT
            connection._durability_interval = INTERVAL
            if delete:
                return connection.delete("k", persist_to=persist_to, replicate_to=replicate_to)
            return connection.set("k", 1, persist_to=persist_to, replicate_to=replicate_to)

        usual, planned = self.both(of_nodes, begin)
        self.assertEqual(usual, planned)

    def test_collections(self) -> None:
        """The key is asked for with the id of its collection; before that is known, a plan asks for it."""
        connection = self.open([[(1, CAS)]] * NODES)
        view = connection.collection("c", "s")
        for of, name in ((view, b"\x08k"), (view, b"\x08k"), (connection, b"\0k")):
            found = self.outcome(of.endure("k", persist_to=-1, replicate_to=-1))
            self.assertEqual(found[1:], (0, 0, "k"))
            self.assertEqual({node.last[2:] for node in self.nodes.values()}, {b"\0\2" + name})
        self.assertEqual([node.asked for node in self.nodes.values()], [3, 3, 3])

    def test_questions_hold_nobody_up(self) -> None:
        """A synchronous write does not wait for the answer to a question about its document."""
        connection = self.open([[SILENT]] * NODES)
        connection.endure("k", persist_to=1, replicate_to=0).addErrback(lambda _: None)
        self.carry_out()
        found = self.outcome(connection.set("k", 1, durability_level=1))
        self.assertEqual(found[1:], (0, CAS, "k"))

    def test_cancelled(self) -> None:
        """A call that is cancelled asks no more, whether the plan has begun or not."""
        for turns, sent, answered in ((0, 0, 1), (1, 1, 1), (3, 2, 2)):
            connection = self.open([[(ObserveState.FOUND, CAS)]] * NODES)
            waited = connection.endure("k", persist_to=1, replicate_to=0, interval=0.1)
            waited.addErrback(lambda _: None)
            for _ in range(turns):
                self.carry_out()
                self.clock.advance(0.05)
            asked = self.node.asked
            waited.cancel()
            for _ in range(20):
                self.carry_out()
                self.clock.advance(0.1)
            # A question that was sent before is answered.
            self.assertEqual((asked, self.node.asked), (sent, answered))

    def test_direct(self) -> None:
        """The same without a Deferred, in one round and in two."""
        connection = self.open([[(ObserveState.PERSISTED, CAS)]] * NODES)
        outcomes: list[Any] = []
        for options in ({}, {"cas": 7}, {"replicate_to": 0, "timeout": 1}):
            call = connection.direct().endure("k", **options)
            call.receiver = mock.Mock(succeeded=outcomes.append, failed=outcomes.append)
            self.carry_out()
        for node in self.nodes.values():
            node.script = [(ObserveState.FOUND, CAS), (ObserveState.PERSISTED, CAS)]
        call = connection.direct().endure("k", interval=1)
        call.receiver = mock.Mock(succeeded=outcomes.append, failed=outcomes.append)
        self.carry_out()
        self.assertEqual([type(one) for one in outcomes[:1]], [OperationResult])
        self.assertEqual([one.rc for one in outcomes], [0, KEY_EEXISTS, 0])
        self.clock.advance(1)
        self.carry_out()
        self.assertEqual((outcomes[3].rc, outcomes[3].key), (0, "k"))

    def test_usual_questions(self) -> None:
        """The usual case needs neither a plan nor a timer."""
        connection = self.open([[(ObserveState.PERSISTED, CAS)]] * NODES)
        with mock.patch.object(type(connection._client), "run", side_effect=AssertionError):
            self.assertEqual(self.outcome(connection.endure("k"))[1], 0)
            self.assertEqual(self.outcome(connection.endure("k", cas=CAS))[1], 0)
            self.assertEqual(self.outcome(connection.set("k", 1, persist_to=-1))[1], 0)
            self.assertTrue(issubclass(self.outcome(connection.endure("k", cas=7))[0], KeyExistsError))
            for node in self.nodes.values():
                node.script = [(ObserveState.NOT_FOUND, 0)]
            self.assertTrue(issubclass(self.outcome(connection.endure("k"))[0], NotFoundError))
            self.assertEqual(self.outcome(connection.endure("k", check_removed=True))[1], 0)
            self.assertEqual(self.outcome(connection.delete("k", persist_to=-1))[1], 0)
        self.assertEqual(self.node.asked, 7)
