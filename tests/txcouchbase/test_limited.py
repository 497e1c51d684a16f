"""One connection with time limits for one request among many."""

from __future__ import annotations

import gc
import weakref

from couchbase.exceptions import NotSupportedError
from couchbase.exceptions import TimeoutError as OperationTimeoutError
from couchbase.protocol.constants import FrameInfo
from couchbase.protocol.frames import decode_frame_infos
from couchbase.transcoder import RawTranscoder
from tests.txcouchbase.memory import MemoryTestCase
from txcouchbase.connection import Connection
from txcouchbase.direct import DirectCall
from txcouchbase.limited import limited


class Budget:
    """Grants numbers, and records who got them."""

    left = 0.5

    def seconds(self, usual: float) -> float:
        return self.left

    def level_ms(self, usual: int) -> int:
        return usual // 10

    def write_seconds(self, usual: float) -> float:
        return usual * 2

    def copies_seconds(self, usual: float) -> float:
        return usual / 10


class LimitedTests(MemoryTestCase):
    """A node that does not answer, and a clock."""

    def setUp(self) -> None:
        super().setUp()
        self.connection = self.connect(Connection)
        self.budget = Budget()
        self.limited = limited(self.connection, self.budget)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)

    def test_operations(self) -> None:
        """Single ones, many together, and those with a receiver end in their own time, others in theirs."""
        outcomes = []

        class Receiver:
            def succeeded(self, result: object) -> None:
                raise AssertionError("nothing answers")

            def failed(self, error: BaseException) -> None:
                outcomes.append(error)

        usual = [self.connection.get("a"), self.connection.set("b", 1)]
        short = [
            self.limited.get("a"),
            self.limited.set("b", 1),
            self.limited.delete("c"),
            self.limited.incr("c"),
            self.limited.get_multi(["d", "e"]),
        ]
        usual.append(self.connection.get_multi(["a", "f"]))
        self.limited.direct().get("g").receiver = Receiver()
        self.pass_time(0.45)
        for waiting in (*usual, *short):
            self.assertNoResult(waiting)
        self.pass_time(0.25)
        for waiting in short:
            self.failureResultOf(waiting, OperationTimeoutError)
        self.assertEqual([isinstance(error, OperationTimeoutError) for error in outcomes], [True])
        for waiting in usual:
            self.assertNoResult(waiting)
        self.pass_time(2)
        for waiting in usual:
            self.failureResultOf(waiting, OperationTimeoutError)

    def test_nothing_shared_changes(self) -> None:
        """No setting of the connection, its driver or its turn differs while or after operations start."""

        def settings() -> object:
            driver = self.connection._driver
            return (
                self.connection.timeout,
                self.connection.views_timeout,
                self.connection.design_timeout,
                driver.durability_timeout,
                driver.timeout,
                self.connection._turn.timeout,
                self.connection.direct()._driver.timeout,
            )

        before = settings()
        started = [self.limited.get("a"), self.limited.set("b", 1, persist_to=1)]
        self.assertEqual(settings(), before)
        self.assertEqual((self.limited.timeout, self.limited.views_timeout), (0.5, 0.5))
        self.assertEqual((self.limited.design_timeout, self.limited._durability_timeout), (0.5, 0.5))
        self.assertRaises(AttributeError, setattr, self.limited, "timeout", 1.0)
        self.assertEqual(settings(), before)
        self.pass_time(3)
        for waiting in started:
            self.failureResultOf(waiting)

    def test_each_gets_what_is_left(self) -> None:
        """The budget is asked before each operation."""
        first = self.limited.get("a")
        self.budget.left = 1.0
        second = self.limited.get("a")
        self.pass_time(0.7)
        self.failureResultOf(first, OperationTimeoutError)
        self.assertNoResult(second)
        self.pass_time(0.5)
        self.failureResultOf(second, OperationTimeoutError)

    def test_collections(self) -> None:
        """A collection of the limited object is limited, too; one of the connection is not."""
        short = self.limited.collection("c").get("a")
        usual = self.connection.collection("c").get("a")
        self.pass_time(0.7)
        self.failureResultOf(short, OperationTimeoutError)
        self.assertNoResult(usual)
        self.pass_time(2)
        self.failureResultOf(usual, OperationTimeoutError)

    def test_level(self) -> None:
        """A synchronous write waits as long as writes may, and its frame has the cluster's share."""
        started = [
            self.limited.set("a", 1, durability_level=1),
            self.connection.set("b", 1, durability_level=1),
        ]
        self.clock.advance(0)
        frames = self.node.reader.feed(b"".join(self.node.transport.writes))
        shares = [dict(decode_frame_infos(frame.framing)) for frame in frames]
        self.assertEqual(
            [share[FrameInfo.DURABILITY] for share in shares],
            [b"\1" + (225).to_bytes(2, "big"), b"\1" + (2250).to_bytes(2, "big")],
        )
        self.pass_time(2.8)
        self.failureResultOf(started[1])
        self.assertNoResult(started[0])
        self.pass_time(2.5)
        self.failureResultOf(started[0])

    def test_cancelled(self) -> None:
        """Cancelling one operation ends only this one."""
        first, second = self.limited.get("a"), self.limited.get("a")
        first.addErrback(lambda failure: None)
        first.cancel()
        self.assertTrue(first.called)
        self.carry_out()
        self.assertEqual(self.successResultOf(second).key, "a")

    def test_keeps_the_connection(self) -> None:
        """The connection is open exactly as long as the limited one is used."""
        alive = weakref.ref(self.connection)
        self.connection = None
        gc.collect()
        self.assertIsNotNone(alive())
        self.assertFalse(self.limited.closed)
        self.limited = None
        gc.collect()
        self.assertIsNone(alive())


class Outcome:
    """A receiver that keeps the calls that it gets."""

    def __init__(self, call: DirectCall) -> None:
        self.told: list[object] = []
        call.receiver = self

    def succeeded(self, result: object) -> None:
        self.told.append(result)

    def failed(self, error: BaseException) -> None:
        self.told.append(isinstance(error, OperationTimeoutError))


class WithinTests(MemoryTestCase):
    """Operations that report to a receiver, each with a timeout of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.connection = self.connect(Connection, transcoder=RawTranscoder())
        self.usual = self.connection.direct(together=4)
        self.short = self.usual.within(0.5)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)

    def test_their_own_time(self) -> None:
        """They end in it, whatever is sent with them, and others in the connection's."""
        started = []
        for number in range(12):
            direct = (self.usual, self.short, self.usual.within(1.0))[number % 3]
            started.append(Outcome(direct.get(b"k%d" % number)))
            started.append(Outcome(direct.set(b"s%d" % number, b"1", durability_level=number % 2)))
        self.pass_time(0.4)
        self.assertEqual([one.told for one in started], [[]] * 24)
        for passed, ended in ((0.2, 1), (0.5, 2), (1.6, 3)):
            self.pass_time(passed)
            for number, one in enumerate(started):
                # The third of each three has a second, the first the connection's time.
                over = ended > (2, 0, 1)[number // 2 % 3]
                self.assertEqual(one.told, [True] if over else [], number)

    def test_answers(self) -> None:
        """Their answers come as usual, in the order of the turn, and nothing of them is kept."""
        outcomes = [Outcome(direct.get(b"k")) for direct in (self.short, self.usual, self.short)]
        self.carry_out()
        self.assertEqual([len(one.told) for one in outcomes], [1, 1, 1])
        self.assertEqual([frame.key for frame in self.node.seen], [b"k"] * 3)
        self.pass_time(3)
        self.assertEqual([len(one.told) for one in outcomes], [1, 1, 1])

    def test_abandoned(self) -> None:
        """One that is cancelled before it is sent is never sent; one that was sent is not reported."""
        early = self.short.get(b"early")
        late = Outcome(self.short.get(b"late"))
        early.receiver = late
        early.abandon()
        self.clock.advance(0)
        sent = self.short.get(b"sent")
        sent.receiver = late
        self.clock.advance(0)
        sent.abandon()
        self.carry_out()
        self.assertEqual(len(late.told), 1)
        self.assertEqual([frame.key for frame in self.node.seen], [b"late", b"sent"])

    def test_connections_that_end(self) -> None:
        """One that was started before the connection is closed fails at once, and once."""
        before = Outcome(self.short.get(b"k"))
        self.connection._close()
        self.assertEqual(len(before.told), 1)
        self.pass_time(1)
        self.assertEqual(len(before.told), 1)

    def test_lost_node(self) -> None:
        """One that waits for a lost node to come back ends in its own time."""
        self.node.reachable = False
        self.node.protocol.connectionLost()
        waiting = Outcome(self.short.get(b"k")), Outcome(self.usual.get(b"k"))
        self.pass_time(0.4)
        self.assertEqual([one.told for one in waiting], [[], []])
        self.pass_time(0.2)
        self.assertEqual([len(one.told) for one in waiting], [1, 0])

    def test_nothing_shared_changes(self) -> None:
        """Neither the operations that they were made from nor the connection have another timeout."""
        self.assertEqual((self.usual._driver.timeout, self.connection.timeout), (2.5, 2.5))
        self.assertEqual(self.short._driver.timeout, 0.5)
        self.assertRaises(AttributeError, setattr, self.short._driver, "timeout", 1.0)
        # Nine tenths, as of the connection's.
        self.assertEqual((self.short._driver.level_ms, self.usual._driver.level_ms), (450, 2250))

    def test_more_than_one_document(self) -> None:
        """Copies and replicas are for the connection, as for all such operations."""
        for options in ({"persist_to": 1}, {"replicate_to": 1}):
            self.assertRaises(NotSupportedError, self.short.set, b"k", b"1", **options)
        self.assertRaises(NotSupportedError, self.short.rget, b"k")
