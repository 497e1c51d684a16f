"""Lock modes under real threads."""

import threading

from couchbase import LOCKMODE_EXC, LOCKMODE_NONE, LOCKMODE_WAIT
from couchbase.exceptions import ObjectThreadError
from couchbase.transcoder import Transcoder
from tests.couchbase.support import ConnectionTestCase


class Gate(Transcoder):
    """Holds a thread inside of an operation until it is let go."""

    def __init__(self):
        self.entered = threading.Event()
        self.go = threading.Event()

    def decode_value(self, value, flags):
        """Wait, then decode."""
        self.entered.set()
        self.go.wait(10)
        return super().decode_value(value, flags)


class ThreadTests(ConnectionTestCase):
    """Section 12 of the reference."""

    def busy(self, lockmode):
        """Return a connection inside of whose ``get`` a thread is held, the thread and the gate."""
        cb = self.connect(lockmode=lockmode)
        cb.set(self.key(), "value")
        cb.transcoder = gate = Gate()
        thread = self.in_thread(cb.get, self.key())
        self.assertTrue(gate.entered.wait(10))
        return cb, thread, gate

    def test_exc(self):
        """The second thread's operation raises, and the first one's is not disturbed."""
        cb, thread, gate = self.busy(LOCKMODE_EXC)
        for operation in (
            lambda: cb.set(self.key(), 1),
            lambda: cb.get_multi([self.key()]),
            lambda: cb.observe(self.key()),
            lambda: cb.stats(),
        ):
            self.assertRaises(ObjectThreadError, operation)
        gate.go.set()
        thread.join(10)
        self.assertEqual(thread.outcome.value, "value")
        self.assertTrue(cb.set(self.key(), 1).success)

    def test_wait(self):
        """The second thread waits, and both succeed."""
        cb, thread, gate = self.busy(LOCKMODE_WAIT)
        second = self.in_thread(cb.set, self.key(), "second")
        second.join(0.1)
        self.assertTrue(second.is_alive())
        self.assertEqual(self.cb.get(self.key()).value, "value")
        gate.go.set()
        second.join(10)
        thread.join(10)
        self.assertTrue(second.outcome.success)
        self.assertEqual(thread.outcome.value, "value")

    def test_wait_with_many(self):
        """Threads that share one connection lose nothing."""
        cb = self.connect(lockmode=LOCKMODE_WAIT)
        cb.set(self.key(), 0)

        def count(number):
            for turn in range(50):
                cb.incr(self.key())
                name = self.key(f"{number}-{turn}")
                cb.set(name, number)
                if cb.get_multi([name])[name].value != number:
                    return "another thread's answer"
            return "good"

        threads = [self.in_thread(count, number) for number in range(8)]
        for thread in threads:
            thread.join(30)
        self.assertEqual([thread.outcome for thread in threads], ["good"] * 8)
        self.assertEqual(cb.get(self.key()).value, 400)

    def test_lock_operations(self):
        """``_thr_lockop`` takes and releases the lock."""
        cb = self.connect()
        cb._thr_lockop(0)
        self.assertRaises(ObjectThreadError, cb.set, self.key(), 1)
        releaser = self.in_thread(cb._thr_lockop, 1)
        releaser.join(10)
        self.assertTrue(cb.set(self.key(), 1).success)
        cb = self.connect(lockmode=LOCKMODE_WAIT)
        cb._thr_lockop(0)
        waiter = self.in_thread(cb.set, self.key(), 2)
        waiter.join(0.1)
        self.assertTrue(waiter.is_alive())
        cb._thr_lockop(1)
        waiter.join(10)
        self.assertTrue(waiter.outcome.success)

    def test_none(self):
        """No lock; ``unlock_gil=False`` enforces it."""
        for keywords in ({"lockmode": LOCKMODE_NONE}, {"unlock_gil": False, "lockmode": LOCKMODE_WAIT}):
            cb = self.connect(**keywords)
            self.assertEqual(cb.lockmode, LOCKMODE_NONE)
            self.assertRaises(ObjectThreadError, cb._thr_lockop, 0)
            self.assertRaises(ObjectThreadError, cb._thr_lockop, 1)
            self.assertTrue(cb.set(self.key(), 1).success)

    def test_inside_of_itself(self):
        """An operation from inside of another one of the same thread raises instead of waiting forever."""
        cb = self.connect(lockmode=LOCKMODE_WAIT)
        cb.set(self.key(), 1)

        class Nosy(Transcoder):
            def decode_value(self, value, flags):
                try:
                    cb.get(key)
                except ObjectThreadError:
                    return "refused"
                return "went through"

        key = self.key()
        cb.transcoder = Nosy()
        self.assertEqual(cb.get(key).value, "refused")

    def test_connections_by_thread(self):
        """Threads with a connection each do not disturb one another."""

        def work(number):
            cb = self.connect()
            for turn in range(50):
                cb.set(self.key(str(number)), turn)
                if cb.get(self.key(str(number))).value != turn:
                    return False
            return True

        threads = [self.in_thread(work, number) for number in range(4)]
        for thread in threads:
            thread.join(30)
        self.assertEqual([thread.outcome for thread in threads], [True] * 4)
