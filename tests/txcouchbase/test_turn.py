"""Operations of one turn of the reactor are sent together."""

from twisted.internet.defer import CancelledError

from couchbase.exceptions import ClientTemporaryFailError, TimeoutError
from couchbase.protocol import operations
from couchbase.protocol.call import Step
from couchbase.protocol.constants import Opcode
from couchbase.protocol.dispatch import Dispatcher
from couchbase.protocol.hashing import vbucket_of
from tests.txcouchbase.memory import VBUCKETS, MemoryTestCase
from txcouchbase.cluster import SWEEP_SECONDS
from txcouchbase.connection import Connection, TxAsyncConnection
from txcouchbase.turn import MAX_QUEUED


class TurnTests(MemoryTestCase):
    """Order, time, limits."""

    def test_one_write(self):
        """Operations of all kinds leave in one write, in their order, with what belongs to them."""
        connection = self.connect(Connection)
        given = [
            connection.set("k", 1, cas=3, ttl=4, preserve_expiry=True),
            connection.get("k"),
            connection.get_multi(["a", "b"]),
            connection.set("d", 2, durability_level=1),
            connection.delete("k", cas=5),
        ]
        self.assertEqual(self.node.transport.writes, [])
        self.clock.advance(0)
        self.assertEqual(len(self.node.transport.writes), 1)
        self.carry_out()
        for deferred in given:
            self.successResultOf(deferred)
        seen = self.node.seen
        self.assertEqual([frame.opcode for frame in seen], [1, 0, 0, 0, 1, 4])
        self.assertEqual([frame.magic for frame in seen], [0x08, 0x80, 0x80, 0x80, 0x08, 0x80])
        self.assertEqual([frame.cas for frame in seen], [3, 0, 0, 0, 0, 5])
        self.assertEqual([frame.value for frame in seen], [b"1", b"", b"", b"", b"2", b""])
        self.assertEqual([frame.key for frame in seen], [b"k", b"k", b"a", b"b", b"d", b"k"])
        for frame in seen:
            self.assertEqual(frame.specific, vbucket_of(frame.key, VBUCKETS))
        self.assertEqual(seen[0].extras, bytes(7) + b"\4")
        self.assertEqual(len({frame.opaque for frame in seen}), 6)

    def test_what_takes_its_own_way_keeps_its_place(self):
        """An operation that waits for copies is not sent before those given earlier."""
        connection = self.connect(Connection)
        connection.set("k", 1)
        connection.set("k", 2, persist_to=1).addErrback(lambda failure: None)
        connection.set("k", 3)
        self.carry_out()
        self.assertEqual([frame.value for frame in self.node.seen[:3]], [b"1", b"2", b"3"])
        connection._close()

    def test_timeouts_are_checked_while_operations_are_queued(self):
        """The last check of timeouts finds only an operation that is not sent yet, and is not the last."""
        connection = self.connect(Connection)
        self.clock.advance(1)
        started = []
        self.clock.callLater(SWEEP_SECONDS, lambda: started.append(connection.get("k")))
        # It begins to check timeouts.
        self.successResultOf(self.carried_out(connection.get("k")))
        self.clock.advance(SWEEP_SECONDS)
        self.assertEqual(len(self.node.transport.writes), 1)
        # No answer comes.
        self.clock.pump([SWEEP_SECONDS] * 60)
        self.failureResultOf(*started, TimeoutError)

    def carried_out(self, deferred):
        """Return a Deferred after a turn."""
        self.carry_out()
        return deferred

    def test_answers_are_followed_by_one_write(self):
        """Operations that callbacks start are sent at the end of the answers; those for other nodes in the
        next turn."""
        connection = self.connect(Connection, count=2)
        first, second = self.nodes.values()
        of_first, of_second = (
            [key for key in map(str, range(50)) if vbucket_of(key.encode(), VBUCKETS) % 2 == index]
            for index in (0, 1)
        )
        for key in of_first:
            connection.get(key).addCallback(
                lambda _: [connection.get(of_first[0]), connection.get(of_second[0])]
            )
        self.clock.advance(0)
        self.assertEqual((len(first.transport.writes), second.transport.writes), (1, []))
        first.protocol.dataReceived(first.answers())
        self.assertEqual((len(first.transport.writes), second.transport.writes), (1, []))
        self.clock.advance(0)
        self.assertEqual((len(first.transport.writes), len(second.transport.writes)), (1, 1))
        self.carry_out()
        self.assertEqual((len(first.seen), len(second.seen)), (len(of_first) * 2, len(of_first)))

    def test_a_node_that_is_out_of_reach(self):
        """Operations for it wait; operations for the other nodes are sent, in any order."""
        for index in (1, 2):
            connection = self.connect(Connection, count=3, unreachable=(index,))
            keys = [str(number) for number in range(60)]
            owners = {key: vbucket_of(key.encode(), VBUCKETS) % 3 for key in keys}
            given = {key: connection.get(key) for key in keys}
            self.carry_out()
            self.carry_out()
            for key, deferred in given.items():
                if owners[key] == index:
                    self.assertNoResult(deferred)
                else:
                    self.assertEqual(self.successResultOf(deferred).key, key)
            for owner, node in enumerate(self.nodes.values()):
                wanted = [key for key in keys if owners[key] == owner != index]
                self.assertEqual([frame.key.decode() for frame in node.seen], wanted)
            connection._close()
            for key in keys:
                if owners[key] == index:
                    self.failureResultOf(given[key], ClientTemporaryFailError)

    def test_time_begins_when_it_leaves(self):
        """However long the turn takes that an operation is given in, it never ends early."""
        connection = self.connect(Connection, timeout=1.0)
        given = connection.get("k")
        self.clock.rightNow += 0.5
        self.clock.advance(0)
        self.clock.pump([0.1] * 9)
        self.assertNoResult(given)
        self.clock.pump([0.1] * 2)
        self.failureResultOf(given, TimeoutError)

    def test_a_new_timeout_is_not_for_what_was_given(self):
        """Not even in the same turn."""
        connection = self.connect(Connection, timeout=1.0)
        before = connection.get("k")
        connection.timeout = 5.0
        after = connection.get("k")
        connection.timeout = 2.0
        self.clock.pump([0.1] * 12)
        self.failureResultOf(before, TimeoutError)
        self.assertNoResult(after)
        self.clock.pump([0.1] * 30)
        self.assertNoResult(after)
        self.clock.pump([0.1] * 12)
        self.failureResultOf(after, TimeoutError)

    def test_timeouts_of_their_own(self):
        """Started calls may have their own timeouts: they leave in their order, in the same write, and only
        their own time ends them."""
        connection = self.connect(Connection, timeout=1.0)
        calls = []
        for number, seconds in enumerate((None, 3.0, 3.0, 0.5, None, 3.0)):
            call = Step(operations.GET, "k", b"k")
            call.value = b"%d" % number
            calls.append(call)
            connection.start(call, seconds)
        self.clock.advance(0)
        self.assertEqual(len(self.node.transport.writes), 1)
        self.node.answers()
        self.assertEqual([frame.value for frame in self.node.seen], [b"%d" % number for number in range(6)])
        ended = []
        for _ in range(7):
            self.clock.pump([0.1] * 5)
            ended.append([number for number, call in enumerate(calls) if call.error is not None])
        self.assertEqual(ended[1], [3])
        self.assertEqual(ended[2], [0, 3, 4])
        self.assertEqual((ended[4], ended[6]), ([0, 3, 4], [0, 1, 2, 3, 4, 5]))
        connection._close()

    def test_timeouts_before_there_is_a_map(self):
        """A call that waits for the map has its own timeout as well, and so has a synchronous write."""
        self.connect(Connection)._close()
        self.node.reachable = False
        connection = Connection(
            bucket="b", connection_string="couchbase://127.0.0.1", reactor=self.clock, timeout=9.0
        )
        calls = [Step(operations.GET, "k", b"k") for _ in range(2)]
        calls[1].framing = operations.mutation_framing(1, 450, False)
        for call in calls:
            connection.start(call, 0.5)
        self.clock.pump([0.1] * 7)
        for call in calls:
            self.assertIsInstance(call.error, TimeoutError)
        connection._close()

    def test_given_up_before_it_left(self):
        """It never does."""
        connection = self.connect(Connection)
        given = [connection.set(key, 1) for key in "abc"]
        given[1].cancel()
        self.failureResultOf(given[1], CancelledError)
        self.carry_out()
        self.assertEqual([frame.key for frame in self.node.seen], [b"a", b"c"])

    def test_very_many(self):
        """They do not wait for the turn's end, so that little is held."""
        for cls in (Connection, TxAsyncConnection):
            connection = self.connect(cls)
            ended = []
            for number in range(MAX_QUEUED * 2 + 1):
                given = connection.get(str(number))
                if cls is Connection:
                    given.addCallback(ended.append)
                else:
                    given.set_callbacks(ended.append, ended.append)
            self.assertEqual(len(self.node.transport.writes), 2)
            self.carry_out()
            self.assertEqual(len(ended), MAX_QUEUED * 2 + 1)

    def test_lots(self):
        """Direct operations leave in lots of the size asked for, in order, the last at the turn's end."""
        connection = self.connect(Connection)
        direct = connection.direct(together=4)
        ended = []

        class Receiver:
            def __init__(self, key):
                self.key = key

            def succeeded(self, result):
                ended.append(self.key)

        keys = [f"k{number}" for number in range(10)]
        for number, key in enumerate(keys):
            direct.get(key).receiver = Receiver(key)
            self.assertEqual(len(self.node.transport.writes), number // 4)
        self.clock.advance(0)
        self.assertEqual(len(self.node.transport.writes), 3)
        self.carry_out()
        self.assertEqual(ended, keys)
        self.assertEqual([frame.key.decode() for frame in self.node.seen], keys)

    def test_too_many(self):
        """Operations beyond the table of a node fail at once; the others are sent."""
        self.patch(Dispatcher, "most_pending", 10)
        connection = self.connect(Connection)
        given = [connection.get(str(number)) for number in range(12)]
        self.clock.advance(0)
        for deferred in given[10:]:
            self.failureResultOf(deferred, ClientTemporaryFailError)
        self.carry_out()
        for deferred in given[:10]:
            self.assertTrue(self.successResultOf(deferred).success)
        again = connection.get("k")
        self.carry_out()
        self.assertTrue(self.successResultOf(again).success)

    def test_closed_before_it_left(self):
        """They fail, and nothing is written."""
        connection = self.connect(Connection)
        given = connection.get("k")
        connection._close()
        self.failureResultOf(given, ClientTemporaryFailError)
        self.clock.advance(0)
        self.assertEqual(self.node.transport.writes, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_by_a_failure_of_the_same_turn(self):
        """The other operations of the turn are not sent either."""
        self.patch(Dispatcher, "most_pending", 1)
        connection = self.connect(Connection)
        given = [connection.get("k") for _ in range(4)]
        given[1].addErrback(lambda failure: connection._close())
        self.clock.advance(0)
        for deferred in given[2:]:
            self.failureResultOf(deferred, ClientTemporaryFailError)
        given[0].addErrback(lambda failure: None)

    def test_in_the_order_of_the_key(self):
        """Operations that are started while an earlier one of their key is repeated wait behind it."""
        connection = self.connect(Connection)
        refused = []
        answer = self.node.answer

        def once_busy(frame):
            if frame.opcode == Opcode.SET and not refused:
                refused.append(frame)
                return (
                    bytes.fromhex("8101000000000086") + bytes(4) + frame.opaque.to_bytes(4, "big") + bytes(8)
                )
            return answer(frame)

        self.node.answer = once_busy
        order = []
        connection.set("k", 1).addCallback(lambda _: order.append("first"))
        self.carry_out()
        connection.set("k", 2).addCallback(lambda _: order.append("second"))
        connection.set("other", 3).addCallback(lambda _: order.append("other"))
        self.carry_out()
        self.assertEqual(order, ["other"])
        self.clock.advance(1)
        self.carry_out()
        self.carry_out()
        self.assertEqual(order, ["other", "first", "second"])
        self.assertEqual([frame.value for frame in self.node.seen], [b"3", b"1", b"2"])
