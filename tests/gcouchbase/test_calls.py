"""The operations of one round of the hub: queued, sent together, and ended, each for its greenlet."""

import gc
import os
import socket
import sys
import time
from unittest import TestCase, mock

import gevent
from gevent.event import Event
from gevent.exceptions import BlockingSwitchOutError
from hypothesis import given, settings
from hypothesis import strategies as some

import couchbase.blocking.cluster
import gcouchbase.cluster
from couchbase.exceptions import ClientTemporaryFailError, CouchbaseError, NetworkError, TimeoutError
from couchbase.protocol import operations
from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.frames import encode_response
from gcouchbase import GConnection
from gcouchbase.calls import GCall
from gcouchbase.cluster import EARLY_CALLS
from tests import tries, work
from tests.couchbase.scripted import ScriptedNode
from tests.gcouchbase.support import InGreenlets

GREENLETS = 64

# Bytecode instructions of an operation with 64 greenlets, on each of work.INSTRUCTIONS_OF; a little above
# what was counted.
LIMITS = {"get": (514, 514), "set": (550, 550)}


class Recorder:
    """A socket whose sends the test sees, and decides on.

    :param outcomes: of the next sends: ``None``, an exception, or the number of bytes that are taken.
    """

    def __init__(self, sock, outcomes=()):
        self.sock = sock
        self.sent = []
        self.outcomes = list(outcomes)

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def send(self, data):
        """Send, or not."""
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, BaseException):
            raise outcome
        data = bytes(data)[:outcome]
        self.sent.append(data)
        return self.sock.send(data)


def name(frame):
    """Return the key of a request, without the id of the default collection."""
    return frame.key.lstrip(b"\0")


def answer(frame):
    """Return the bytes of a success; what a read finds is its key."""
    extras = bytes(4) if frame.opcode == Opcode.GET else b""
    value = b'"%s"' % name(frame) if frame.opcode == Opcode.GET else b""
    return encode_response(frame.opcode, opaque=frame.opaque, extras=extras, cas=7, value=value)


class QueueTestCase(InGreenlets, TestCase):
    """A connection to a scripted node."""

    features = tuple(Feature)

    def setUp(self):
        self.node = ScriptedNode()
        self.node.features = self.features
        self.addCleanup(self.node.stop)
        self.node.script = lambda peer, frame: peer.write(answer(frame))
        self.cb = GConnection(bucket="b", connection_string=self.node.string, password="p")
        self.addCleanup(self.cb._close)
        self.cluster = self.cb._cluster
        self.loop = gevent.get_hub().loop
        self.cb.get("first")
        del self.node.seen[:]

    def record(self, *outcomes):
        """Return a recorder of what the connection sends from now on."""
        (node,) = self.cluster.data_nodes()
        node._sock = recorder = Recorder(node._sock, outcomes)
        return recorder

    def ended(self, function, *arguments):
        """Return what a function returns, or the exception that it raises."""
        try:
            return function(*arguments)
        except (CouchbaseError, BlockingSwitchOutError, gevent.Timeout) as error:
            return error

    def spawn(self, function, *arguments):
        return gevent.spawn(self.ended, function, *arguments)

    def keys_seen(self):
        return [name(frame) for frame in self.node.seen]

    def errors_of_the_hub(self):
        """Return a context manager that gives what callbacks of the hub have raised."""
        return mock.patch.object(gevent.get_hub(), "handle_error")

    def check_empty(self):
        """Nothing is left of any operation."""
        cluster = self.cluster
        self.assertEqual((cluster._queued, cluster._waiting, list(cluster._woken)), ([], {}, []))
        self.assertEqual((cluster._parked, cluster._watching), ({}, []))
        self.assertEqual([node.pending for node in cluster.data_nodes()], [{}])


class TogetherTests(QueueTestCase):
    """What one round starts leaves together."""

    def test_one_send(self):
        """Single operations and those of a multi operation, in the order in which they were started."""
        recorder = self.record()
        keys = [f"k{number}" for number in range(GREENLETS)]
        greenlets = [self.spawn(self.cb.get, key) for key in keys[:40]]
        greenlets.append(self.spawn(self.cb.get_multi, keys[40:50]))
        greenlets += [self.spawn(self.cb.get, key) for key in keys[50:]]
        gevent.joinall(greenlets)
        self.assertEqual(len(recorder.sent), 1)
        self.assertEqual(self.keys_seen(), [key.encode() for key in keys])
        single = [greenlet.value.value for greenlet in greenlets if greenlet is not greenlets[40]]
        self.assertEqual(single, keys[:40] + keys[50:])
        self.assertEqual([greenlets[40].value[key].value for key in keys[40:50]], keys[40:50])
        self.check_empty()

    def test_answered_together(self):
        """Greenlets whose answers come together send their next operations together, if there are few; of
        many, sockets have their turn between."""
        for count, sends in ((GREENLETS, [1, 1]), (2 * EARLY_CALLS + 1, [3, 3])):
            held = []

            def script(peer, frame, held=held, count=count):
                held.append(frame)
                if len(held) % count == 0:
                    peer.write(b"".join(map(answer, held[-count:])))

            self.node.script = script
            recorder = self.record()
            by_round = [[], []]

            def twice(number, recorder=recorder, by_round=by_round):
                for sent in by_round:
                    self.assertEqual(self.cb.get(f"k{number}").value, f"k{number}")
                    sent.append(len(recorder.sent))

            gevent.joinall([gevent.spawn(twice, number) for number in range(count)], raise_error=True)
            self.assertEqual(len(held), 2 * count)
            self.assertEqual(len(recorder.sent), sum(sends))
            self.check_empty()

    def test_others_have_their_turn(self):
        """Sockets and timers are handled between the greenlets that one chunk of answers wakes."""
        count = 4 * EARLY_CALLS
        held, seen = [], []

        def script(peer, frame):
            held.append(frame)
            if len(held) == count:
                peer.write(b"".join(map(answer, held)))

        self.node.script = script
        readable, writable = socket.socketpair()
        self.addCleanup(readable.close)
        self.addCleanup(writable.close)
        watcher = self.loop.io(readable.fileno(), 1)

        def first(key):
            self.cb.get(key)
            if not seen:
                writable.send(b"x")
            seen.append(key)

        def event():
            seen.append("event")
            watcher.stop()
            watcher.close()

        watcher.start(event)
        # gevent itself looks at the clock after a thousand callbacks.
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(60)
        gevent.joinall([gevent.spawn(first, f"k{number}") for number in range(count)], raise_error=True)
        self.assertLessEqual(seen.index("event"), 2 * EARLY_CALLS)

    def test_partly_taken(self):
        """What the socket does not take at once follows, before later operations."""
        recorder = self.record(BlockingIOError(), 3, 40)
        first = [self.spawn(self.cb.get, f"a{number}") for number in range(3)]
        gevent.sleep(0)
        gevent.sleep(0)
        second = [self.spawn(self.cb.get, f"b{number}") for number in range(3)]
        gevent.joinall(first + second)
        self.assertEqual([one.value.value for one in first + second], ["a0", "a1", "a2", "b0", "b1", "b2"])
        self.assertEqual(self.keys_seen(), [b"a0", b"a1", b"a2", b"b0", b"b1", b"b2"])
        self.assertEqual([len(data) for data in recorder.sent][:2], [3, 40])
        self.check_empty()

    def test_broken(self):
        """If sending fails, each operation of the round fails; the next ones have another connection."""
        self.record(BrokenPipeError(32, "Broken pipe"))
        greenlets = [self.spawn(self.cb.set, f"k{number}", number) for number in range(3)]
        greenlets.append(self.spawn(self.cb.set_multi, {"m0": 0, "m1": 1}))
        gevent.joinall(greenlets, timeout=10)
        for greenlet in greenlets:
            self.assertIsInstance(greenlet.value, NetworkError)
            self.assertIn("Broken pipe", str(greenlet.value))
            self.assertTrue(greenlet.value.ambiguous)
        self.assertEqual(len(greenlets[3].value.all_results), 2)
        self.assertEqual(self.node.seen, [])
        self.assertEqual(self.cb.get("k").value, "k")
        self.check_empty()

    def test_interrupted(self):
        """An exception of a signal handler while the hub sends ends all operations, and the connection."""
        script = self.node.script
        for error in (ZeroDivisionError("handler"), MemoryError()):
            for method in ("send_all", "flush"):
                self.node.script = lambda peer, frame: None
                seen = len(self.node.seen)
                in_flight = self.spawn(self.cb.get, "in flight")
                while len(self.node.seen) < seen + 1:
                    gevent.sleep(0.001)
                owner = self.cluster if method == "send_all" else self.cluster.data_nodes()[0]
                with self.errors_of_the_hub() as said, mock.patch.object(owner, method, side_effect=error):
                    greenlets = [self.spawn(self.cb.get, f"k{number}") for number in range(3)]
                    gevent.joinall([*greenlets, in_flight], timeout=10)
                self.assertIs(said.call_args.args[2], error)
                for greenlet in (*greenlets, in_flight):
                    self.assertIsInstance(greenlet.value, NetworkError)
                    self.assertIn("sending was interrupted", str(greenlet.value))
                self.node.script = script
                self.assertEqual(self.cb.get("k").value, "k")
                self.check_empty()


class OldNodeTests(TogetherTests):
    """The same with a node that lacks features, so that each operation is looked at."""

    features = (Feature.XERROR, Feature.SELECT_BUCKET)


class EndTests(QueueTestCase):
    """Operations that end before they are sent, and greenlets that do not wait any more."""

    def queued(self, *keys):
        """Return greenlets whose operations are queued, but not sent."""
        greenlets = [self.spawn(self.cb.get, key) for key in keys]
        gevent.sleep(0)
        self.assertEqual([call.key for call in self.cluster._queued], list(keys))
        return greenlets

    def test_killed_before(self):
        """The operation of a greenlet that is killed before is not sent."""
        for kind in (gevent.GreenletExit, gevent.Timeout):
            greenlets = []
            for key in ("a", "b", "c"):
                greenlets.append(self.spawn(self.cb.get, key))
            several = self.spawn(self.cb.get_multi, ["m", "n"])
            for one in (greenlets[1], several):
                self.loop.run_callback(one.throw, kind())
            gevent.joinall([*greenlets, several], timeout=10)
            self.assertEqual([greenlets[0].value.value, greenlets[2].value.value], ["a", "c"])
            self.assertEqual(self.keys_seen(), [b"a", b"c"])
            del self.node.seen[:]
            self.check_empty()

    def test_killed_after(self):
        """Its answer is dropped; the others get theirs."""
        held = []
        self.node.script = lambda peer, frame: held.append((peer, frame))
        greenlets = [self.spawn(self.cb.get, key) for key in ("a", "b", "c")]
        while len(held) < 3:
            gevent.sleep(0.001)
        greenlets[1].kill()
        for peer, frame in held:
            peer.write(answer(frame))
        gevent.joinall(greenlets)
        self.assertEqual([greenlets[0].value.value, greenlets[2].value.value], ["a", "c"])
        self.check_empty()

    def test_killed_when_answered(self):
        """One that is killed between its answer and its turn is not woken a second time."""
        held, woken, event = [], [], Event()

        def script(peer, frame):
            held.append(frame)
            if len(held) == 2:
                peer.write(b"".join(map(answer, held)))

        def first():
            self.cb.get("a")
            # The other one gives control to the hub, which comes back here.
            self.loop.run_callback(gevent.getcurrent().switch)
            second.throw(gevent.GreenletExit())

        def wait():
            try:
                self.cb.get("b")
            finally:
                woken.append("killed")
                event.wait(10)
                woken.append("set")

        self.node.script = script
        with self.errors_of_the_hub() as said:
            one, second = gevent.spawn(first), gevent.spawn(wait)
            one.join(10)
            for _ in range(3):
                gevent.sleep(0)
            self.assertEqual(woken, ["killed"])
            event.set()
            second.join(10)
        said.assert_not_called()
        self.assertEqual(woken, ["killed", "set"])
        self.check_empty()

    def test_timed_out_before(self):
        """An operation that times out before it is sent is not sent, and the error says so."""
        (late,) = self.queued("late")
        self.cluster._queued[0].limit = 0.0
        self.cluster._clock.stop(self.cluster._sweeping)
        self.cluster._sweep()
        late.join()
        self.assertIsInstance(late.value, TimeoutError)
        self.assertFalse(late.value.ambiguous)
        self.assertEqual(self.cb.get("next").value, "next")
        self.assertEqual(self.keys_seen(), [b"next"])
        self.check_empty()

    def test_timed_out_behind(self):
        """If operations on a key time out together, none is sent because the one before it is over."""

        def script(peer, frame):
            peer.write(encode_response(frame.opcode, Status.ETMPFAIL, opaque=frame.opaque))

        self.node.script = script
        self.cb.timeout = 0.2
        greenlets = [self.spawn(self.cb.set, "k", number) for number in range(20)]
        while not self.cluster._parked:
            gevent.sleep(0.001)
        greenlets += [self.spawn(self.cb.set, "k", number) for number in range(20, 40)]
        gevent.sleep(0)
        self.assertEqual(len(self.cluster._waiting), 40)
        limit = time.monotonic() + 0.1
        for call in self.cluster._waiting:
            call.limit = limit
        gevent.joinall(greenlets, timeout=10)
        self.assertLess(max(int(frame.value) for frame in self.node.seen), 20)
        for greenlet in greenlets:
            self.assertIsInstance(greenlet.value, CouchbaseError)
        self.check_empty()

    def test_closed(self):
        """Closing ends what is queued, and what is started before the hub runs again."""
        before = self.queued("a", "b")
        self.cb._close()
        after = self.spawn(self.cb.get, "c")
        gevent.joinall([*before, after], timeout=10)
        for greenlet in (*before, after):
            self.assertIsInstance(greenlet.value, ClientTemporaryFailError)
        self.assertEqual(self.node.seen, [])
        self.assertEqual((self.cluster._queued, self.cluster._waiting), ([], {}))

    def test_closed_by_one_of_many(self):
        """Also those whose turn would have come after the sockets' end."""
        count = 3 * EARLY_CALLS
        held = []

        def script(peer, frame):
            held.append(frame)
            if len(held) == count:
                peer.write(b"".join(map(answer, held)))

        def first(number):
            found = self.cb.get(f"k{number}").value
            if not number:
                self.loop.run_callback(self.cb._close)
            return found

        self.node.script = script
        greenlets = [gevent.spawn(first, number) for number in range(count)]
        gevent.joinall(greenlets, timeout=1, raise_error=True)
        self.assertEqual([greenlet.value for greenlet in greenlets], [f"k{n}" for n in range(count)])

    def test_fork(self):
        """What is queued at a fork is sent by the parent alone; the child has connections of its own."""
        (before,) = self.queued("before")
        child = os.fork()
        if not child:
            try:
                os._exit(0 if self.cb.get("child").value == "child" else 1)
            finally:
                os._exit(2)
        before.join(timeout=10)
        self.assertEqual(before.value.value, "before")
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(sorted(self.keys_seen()), [b"before", b"child"])
        self.check_empty()

    def test_signal_handler(self):
        """An operation of a signal handler, at the worst moment, delays others by a moment only."""
        handled = []

        class Interrupted(list):
            def append(queued, call):
                if not handled:
                    handled.append("begun")
                    handled.append(self.cb.get("handler").value)
                super().append(call)

        self.cluster._queued = Interrupted()
        for number in range(2):
            self.assertEqual(self.cb.get(f"k{number}").value, f"k{number}")
        self.assertEqual(handled, ["begun", "handler"])
        # As if it had run and found nothing, because the handler's operation let the hub run.
        early = mock.Mock()
        early.run_callback.side_effect = [None]
        self.cluster._woken._loop = early
        self.assertEqual(self.cb.get("k").value, "k")
        early.run_callback.assert_called_once()
        self.cluster._woken._loop = self.loop
        self.check_empty()

    def test_silent_copies(self):
        """A read from replicas that is never answered ends with its time, as the first operation, too."""
        self.node.rows = [[0, 0]]
        self.node.rev += 1
        (peer,) = self.node.peers
        peer.push(self.node.config())
        self.cb.get("k")
        self.cluster._clock.stop(self.cluster._sweeping)
        self.cluster._sweep()
        self.assertIsNone(self.cluster._sweeping)
        self.node.script = lambda peer, frame: None
        self.cb.timeout = 0.1
        with gevent.Timeout(10):
            self.assertRaises(TimeoutError, self.cb.rget, "k", 0)

    def test_in_the_hub(self):
        """An operation in a callback of the hub is refused by gevent, and not sent."""
        refused = []
        for start in (lambda: self.cb.get("x"), lambda: self.cb.get_multi(["x", "y"])):
            self.loop.run_callback(lambda start=start: refused.append(self.ended(start)))
            self.assertEqual(self.cb.get("k").value, "k")
        self.assertEqual([type(error) for error in refused], [BlockingSwitchOutError] * 2)
        self.assertEqual(self.keys_seen(), [b"k", b"k"])
        self.check_empty()

    def test_failing_greenlet(self):
        """A bare greenlet that fails when it is woken does not keep the others from being woken."""
        held = []

        def script(peer, frame):
            held.append(frame)
            if len(held) == 3:
                peer.write(b"".join(map(answer, held)))

        def fail():
            self.cb.get("bare")
            raise ZeroDivisionError

        self.node.script = script
        with self.errors_of_the_hub() as said:
            before = gevent.spawn(self.cb.get, "a")
            gevent.spawn_raw(fail)
            after = gevent.spawn(self.cb.get, "b")
            gevent.joinall([before, after], timeout=1, raise_error=True)
        self.assertIs(said.call_args.args[1], ZeroDivisionError)
        self.assertEqual((before.value.value, after.value.value), ("a", "b"))
        self.check_empty()

    def test_woken_by_another(self):
        """A greenlet that is switched to by other code continues to wait for its answer."""
        held = []
        self.node.script = lambda peer, frame: held.append((peer, frame))
        greenlets = [self.spawn(self.cb.get, "a"), self.spawn(self.cb.get_multi, ["b"])]
        while len(held) < 2:
            gevent.sleep(0.001)
        for greenlet in greenlets:
            self.loop.run_callback(greenlet.switch)
        for _ in range(3):
            gevent.sleep(0)
        self.assertFalse(any(greenlet.ready() for greenlet in greenlets))
        for peer, frame in held:
            peer.write(answer(frame))
        gevent.joinall(greenlets, timeout=10)
        self.assertEqual((greenlets[0].value.value, greenlets[1].value["b"].value), ("a", "b"))

    def test_another(self):
        """A copy of a call is one of the same kind."""
        self.assertIs(type(GCall(operations.GET, "k", b"k").another()), GCall)


# ---- orders --------------------------------------------------------------------------------------

keys = some.sampled_from(["a", "b", "c"])
steps = some.one_of(
    *[some.tuples(some.just("get"), keys)] * 3,
    *[some.tuples(some.just("set"), keys)] * 3,
    some.tuples(some.just("multi"), some.lists(keys, min_size=1, max_size=3, unique=True)),
    some.tuples(some.just("kill"), some.integers(0, 20)),
    some.tuples(some.just("sleep"), some.sampled_from([0, 0, 0.001])),
)


class OrderTests(QueueTestCase):
    """Any operations of any greenlets, some of which are killed."""

    @settings(max_examples=tries(60), deadline=None)
    @given(some.lists(steps, max_size=20), some.sets(some.integers(1, 30), max_size=3))
    def check_any(self, planned, refused):
        """Each greenlet gets its own answer; each operation is executed once, in order for each key."""
        documents, executed = {}, []
        refusing = set(refused)

        def script(peer, frame):
            fields = {"opaque": frame.opaque}
            if len(self.node.seen) in refusing:
                peer.write(encode_response(frame.opcode, Status.ETMPFAIL, **fields))
                return
            if frame.opcode == Opcode.SET:
                documents[name(frame)] = frame.value
                executed.append(int(frame.value))
                peer.write(encode_response(frame.opcode, cas=int(frame.value) + 1, **fields))
            else:
                value = b'["%s", %s]' % (name(frame), documents.get(name(frame), b"-1"))
                peer.write(encode_response(frame.opcode, cas=1, extras=bytes(4), value=value, **fields))

        self.node.script = script
        del self.node.seen[:]
        started, killed, begun = [], set(), []

        def begin(number, step, argument):
            begun.append(number)
            if step == "get":
                return self.cb.get(argument).value
            if step == "set":
                return self.cb.set(argument, number).cas
            return {key: result.value for key, result in self.cb.get_multi(argument).items()}

        for step, argument in planned:
            if step == "kill" and argument < len(started):
                killed.add(argument)
                started[argument][2].kill(block=False)
            elif step == "sleep":
                gevent.sleep(argument)
            elif step in ("get", "set", "multi"):
                number = len(started)
                started.append((step, argument, gevent.spawn(begin, number, step, argument)))
        gevent.joinall([greenlet for _, _, greenlet in started], timeout=30, raise_error=True)
        last = {}
        for number, (step, argument, greenlet) in enumerate(started):
            self.assertTrue(greenlet.ready())
            whole = not isinstance(greenlet.value, gevent.GreenletExit)
            self.assertTrue(whole or number in killed)
            if step == "set":
                if whole:
                    self.assertEqual(greenlet.value, number + 1)
                    self.assertIn(number, executed)
                last.setdefault(argument, []).append(number)
                continue
            found = {} if not whole else greenlet.value if step == "multi" else {argument: greenlet.value}
            for key, (own, seen) in found.items():
                self.assertEqual(own, key)
                before = last.get(key, [])
                if not refused:
                    # The last store that was started before and not killed, or a killed one after it.
                    certain = [one for one in before if one not in killed]
                    self.assertIn(seen, [-1, *before])
                    self.assertGreaterEqual(seen, certain[-1] if certain else -1)
        for numbers in last.values():
            # A refused operation comes after those that were sent together with it.
            if not refused:
                done = [number for number in executed if number in numbers]
                self.assertEqual(done, sorted(done))
        self.assertEqual(len(executed), len(set(executed)))
        self.check_empty()

    def test_any(self):
        """As :meth:`check_any` says."""
        self.check_any()


# ---- cost ----------------------------------------------------------------------------------------


class CostTests(QueueTestCase):
    """Instructions of an operation, the hub's part included."""

    def test_get(self):
        """A read."""
        self.check("get", lambda number: self.cb.get(f"key-{number}"))

    def test_set(self):
        """A store."""
        value = {"text": "x" * 85, "number": 7}
        self.check("set", lambda number: self.cb.set(f"key-{number}", value))

    def check(self, kind, start):
        """Compare the cost of operations of 64 greenlets, answered together, with the limit."""
        held, count = [], 0

        def script(peer, frame):
            held.append(frame)
            if len(held) == GREENLETS:
                peer.write(b"".join(map(answer, held)))
                del held[:]

        def trace(frame, event, argument):
            nonlocal count
            if event == "call":
                if frame.f_globals.get("__name__", "").partition(".")[0] not in ("couchbase", "gcouchbase"):
                    return None
                frame.f_trace_lines, frame.f_trace_opcodes = False, True
            count += event == "opcode"
            return trace

        def traced(number):
            sys.settrace(trace)
            start(number)
            sys.settrace(None)

        if sys.implementation.name != "cpython" or sys.version_info[:2] not in work.INSTRUCTIONS_OF:
            return
        self.node.script = script
        # Tracing takes time.
        for module in (gcouchbase.cluster, couchbase.blocking.cluster):
            self.patch(module, "IDLE_SECONDS", 60.0)
        self.patch(gcouchbase.cluster, "SWEEP_SECONDS", 60.0)
        for function in (start, traced):
            gc.collect()
            self.loop.run_callback(sys.settrace, None if function is start else trace)
            gevent.joinall([gevent.spawn(function, n) for n in range(GREENLETS)], raise_error=True)
        self.loop.run_callback(sys.settrace, None)
        gevent.sleep(0)
        most = LIMITS[kind][work.INSTRUCTIONS_OF.index(sys.version_info[:2])]
        self.assertLessEqual(count / GREENLETS, most)

    def patch(self, module, constant, value):
        """Change a module's constant until the end of the test."""
        patched = mock.patch.object(module, constant, value)
        patched.start()
        self.addCleanup(patched.stop)
