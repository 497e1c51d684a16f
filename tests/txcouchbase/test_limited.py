"""One connection with time limits for one request among many."""

from __future__ import annotations

import gc
import weakref

from couchbase.exceptions import TimeoutError as OperationTimeoutError
from couchbase.protocol.constants import FrameInfo
from couchbase.protocol.frames import decode_frame_infos
from tests.txcouchbase.memory import MemoryTestCase
from txcouchbase.connection import Connection
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
