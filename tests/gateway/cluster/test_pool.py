"""Connections of callers: their assignment, the verification of callers, and the closing of connections."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from gateway.cluster import pool as pool_module
from gateway.cluster.credentials import CallerCredentials
from gateway.cluster.pool import FAILURES_KEPT, ConnectionPool
from gateway.dialect.errors import Refusal
from tests.gateway.support import SECRET, error


class Opening:
    """A connection that a test opens or refuses."""

    def __init__(self, bucket: str | None, user: str, password: str) -> None:
        self.credentials = (bucket, user, password)
        self.connecting: Deferred[None] = Deferred()
        self.closed = False

    def connect(self) -> Deferred[None]:
        return self.connecting

    def _close(self) -> None:
        self.closed = True


def caller(user: str = "ann", password: str = "right") -> CallerCredentials:
    """Return credentials as a request brings them."""
    return CallerCredentials(user, password, SECRET)


class PoolTests(SynchronousTestCase):
    """The pool, on a clock."""

    def make(self, **options: Any) -> ConnectionPool:
        self.clock = Clock()
        self.made: list[Opening] = []

        def connect(bucket: str | None, user: str, password: str) -> Opening:
            self.made.append(Opening(bucket, user, password))
            return self.made[-1]

        pool = ConnectionPool(connect, self.clock, **options)
        pool.start()
        return pool

    def open(self, pool: ConnectionPool, who: CallerCredentials | None = None, bucket: str = "b") -> Any:
        waiting = pool.connection(bucket, who or caller())
        self.made[-1].connecting.callback(None)
        return self.successResultOf(waiting)

    def test_confirmed_connection_is_handed_out_at_once(self) -> None:
        """The second time there is no Deferred, and nothing is opened."""
        pool = self.make()
        connection = self.open(pool)
        self.assertIs(pool.connection("b", caller()), connection)
        self.assertEqual(self.made[0].credentials, ("b", "ann", "right"))
        self.assertEqual(len(self.made), 1)

    def test_digest_is_compared_once(self) -> None:
        """The same object is not compared again; another password still gets no connection."""
        pool = self.make()
        connection = self.open(pool)
        known = caller()
        compared: list[bytes] = []
        compare = pool_module.compare_digest
        self.patch(pool_module, "compare_digest", lambda *both: compared.append(both[1]) or compare(*both))
        for _ in range(3):
            self.assertIs(pool.connection("b", known), connection)
        self.assertEqual(compared, [known.digest])
        self.assertNoResult(pool.connection("b", caller(password="wrong")))
        self.assertIs(pool.connection("b", known), connection)
        self.assertEqual(len(compared), 2)

    def test_buckets_and_users_are_apart(self) -> None:
        """Each pair has its own connection."""
        pool = self.make()
        found = {self.open(pool), self.open(pool, bucket="c"), self.open(pool, caller("bob"))}
        self.assertEqual(len(found), 3)

    def test_wrong_password(self) -> None:
        """It is put to the cluster, gets no connection of the right one's, and does not disturb it."""
        pool = self.make()
        connection = self.open(pool)
        waiting = pool.connection("b", caller(password="wrong"))
        self.assertNoResult(waiting)
        self.made[-1].connecting.errback(error(exceptions.AUTH_ERROR))
        self.failureResultOf(waiting, exceptions.AuthError)
        self.assertTrue(self.made[-1].closed)
        self.assertIs(pool.connection("b", caller()), connection)
        self.assertFalse(connection.closed)

    def test_wrong_password_is_remembered_for_a_moment(self) -> None:
        """So that trying again and again asks the cluster only now and then; others still may try."""
        pool = self.make(failure_seconds=2)
        for _ in range(3):
            waiting = pool.connection("b", caller(password="wrong"))
            if not self.made[0].connecting.called:
                self.made[0].connecting.errback(error(exceptions.AUTH_ERROR))
            self.failureResultOf(waiting, exceptions.AuthError)
        self.assertEqual(len(self.made), 1)
        self.open(pool)
        self.clock.advance(2)
        pool.connection("b", caller(password="wrong"))
        self.assertEqual(len(self.made), 3)

    def test_memory_of_failures_is_bounded(self) -> None:
        """Guessing passwords does not fill the memory."""
        pool = self.make()
        for number in range(FAILURES_KEPT + 10):
            waiting = pool.connection("b", caller(password=f"guess {number}"))
            self.made[-1].connecting.errback(error(exceptions.AUTH_ERROR))
            self.failureResultOf(waiting, exceptions.AuthError)
        self.assertEqual(len(pool._failures), FAILURES_KEPT)

    def test_failures_keep_no_names(self) -> None:
        """Names that nobody has confirmed may be long, and are not kept; failures are those of one name."""
        pool = self.make()
        for user in ("ann" * 3000, "bob" * 3000):
            self.made.clear()
            waiting = pool.connection("b", caller(user))
            self.made[0].connecting.errback(error(exceptions.AUTH_ERROR))
            self.failureResultOf(waiting, exceptions.AuthError)
            self.failureResultOf(pool.connection("b", caller(user)), exceptions.AuthError)
            self.assertEqual(len(self.made), 1)
        self.assertEqual(len(pool._failures), 2)
        self.assertNotIn("ann", str(pool._failures))

    def test_network_failure_is_not_remembered(self) -> None:
        """The next caller tries again."""
        pool = self.make()
        waiting = pool.connection("b", caller())
        self.made[-1].connecting.errback(error(exceptions.NETWORK_ERROR))
        self.failureResultOf(waiting, exceptions.NetworkError)
        self.open(pool)

    def test_one_opening_for_many_callers(self) -> None:
        """Requests that arrive while a connection is opened share it; a cancelled one leaves."""
        pool = self.make()
        waiting = [pool.connection("b", caller()) for _ in range(3)]
        waiting[1].cancel()
        self.failureResultOf(waiting[1])
        self.made[0].connecting.callback(None)
        self.assertEqual(len(self.made), 1)
        self.assertIs(self.successResultOf(waiting[0]), self.successResultOf(waiting[2]))

    def test_changed_password(self) -> None:
        """The new one takes the place of the old connection, and the old password has to prove itself."""
        pool = self.make()
        old = self.open(pool)
        new = self.open(pool, caller(password="new"))
        self.assertIsNot(old, new)
        self.assertFalse(old.closed, "what is under way on it may finish")
        self.clock.advance(10)
        self.assertTrue(old.closed)
        self.assertIsInstance(pool.connection("b", caller()), Deferred)

    def test_confirmed_again_after_a_time(self) -> None:
        """The caller waits for the proof; the warm connection is kept, the asking one closed."""
        pool = self.make(verify_seconds=60)
        connection = self.open(pool)
        self.clock.advance(60)
        self.assertIs(self.open(pool), connection)
        self.assertTrue(self.made[1].closed)
        self.assertIs(pool.connection("b", caller()), connection)

    def test_no_longer_right(self) -> None:
        """A password that was taken back closes its connection."""
        pool = self.make(verify_seconds=60)
        connection = self.open(pool)
        self.clock.advance(60)
        waiting = pool.connection("b", caller())
        self.made[-1].connecting.errback(error(exceptions.AUTH_ERROR))
        self.failureResultOf(waiting, exceptions.AuthError)
        self.clock.advance(10)
        self.assertTrue(connection.closed)
        self.assertEqual(len(pool), 0)

    def test_closed_connection_is_opened_again(self) -> None:
        """One that died is not handed out."""
        pool = self.make()
        first = self.open(pool)
        first.closed = True
        self.assertIsNot(self.open(pool), first)

    def test_least_recently_used_makes_room(self) -> None:
        """But not one that is leased."""
        pool = self.make(max_connections=2)
        leased = self.open(pool, caller("a"))
        pool.lease(leased)
        self.clock.advance(1)
        old = self.open(pool, caller("b"))
        self.clock.advance(1)
        self.open(pool, caller("c"))
        self.clock.advance(10)
        self.assertEqual((leased.closed, old.closed, len(pool)), (False, True, 2))

    def test_all_leased(self) -> None:
        """Then the newcomer is refused, not let in beyond the bound."""
        pool = self.make(max_connections=1)
        pool.lease(self.open(pool, caller("a")))
        waiting = pool.connection("b", caller("b"))
        self.made[-1].connecting.callback(None)
        failure = self.failureResultOf(waiting, Refusal)
        self.assertEqual(failure.value.problem.code, "Overloaded")
        self.assertTrue(self.made[-1].closed)

    def test_leased_connection_outlives_its_retirement(self) -> None:
        """A running batch keeps its connection until its end."""
        pool = self.make()
        old = self.open(pool)
        pool.lease(old)
        self.open(pool, caller(password="new"))
        self.clock.advance(100)
        self.assertFalse(old.closed)
        pool.release(old)
        self.assertTrue(old.closed)

    def test_idle_connections_are_closed(self) -> None:
        """Used ones are not."""
        pool = self.make(idle_seconds=100, grace_seconds=1)
        idle, used = self.open(pool, caller("idle")), self.open(pool, caller("used"))
        for _ in range(12):
            self.clock.advance(10)
            pool.connection("b", caller("used"))
        self.assertEqual((idle.closed, used.closed), (True, False))

    def test_openings_are_bounded(self) -> None:
        """The number of openings at once and the queue are limited."""
        pool = self.make(max_opening=2, max_waiting=1)
        waiting = [pool.connection("b", caller(f"user {n}")) for n in range(4)]
        self.assertEqual(len(self.made), 2)
        self.assertEqual(self.failureResultOf(waiting[3], Refusal).value.problem.code, "Overloaded")
        self.made[0].connecting.callback(None)
        self.assertEqual(len(self.made), 3)
        self.made[2].connecting.callback(None)
        self.assertIs(self.successResultOf(waiting[2]), self.made[2])

    def test_close(self) -> None:
        """Everything is closed, waiting callers are notified, and no timer is left."""
        pool = self.make()
        old = self.open(pool)
        new = self.open(pool, caller(password="new"))
        waiting = pool.connection("b", caller("bob"))
        pool.close()
        self.assertEqual(self.failureResultOf(waiting, Refusal).value.problem.code, "ShuttingDown")
        self.assertTrue(old.closed and new.closed and self.made[2].closed)
        self.failureResultOf(pool.connection("b", caller()), Refusal)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.made[2].connecting.callback(None)
        self.assertEqual(len(pool), 0)

    def test_no_password_is_kept(self) -> None:
        """The pool stores a keyed hash."""
        pool = self.make()
        self.open(pool)
        self.assertNotIn("right", repr([vars(pool), [e.digest for e in pool._entries.values()]]))


class DigestTests(SynchronousTestCase):
    """The keyed hash."""

    def test_user_and_password_cannot_be_confused(self) -> None:
        """The boundary between the two matters, and so does the key."""
        digests = {
            CallerCredentials("ab", "c", SECRET).digest,
            CallerCredentials("a", "bc", SECRET).digest,
            CallerCredentials("ab", "c", b"t" * 32).digest,
        }
        self.assertEqual(len(digests), 3)
