"""Several who wait for one Deferred do not disturb each other."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from reactor.deferreds import own, uncancellable


class OwnTests(SynchronousTestCase):
    """``own``."""

    def test_all_hear_of_a_result(self) -> None:
        """Each waiter gets the result, whatever another one returned, and so does a late one."""
        shared: Deferred[int] = Deferred()
        first, second = own(shared), own(shared)
        first.addCallback(lambda result: result + 1)
        shared.callback(1)
        self.assertEqual(self.successResultOf(first), 2)
        self.assertEqual(self.successResultOf(second), 1)
        self.assertEqual(self.successResultOf(own(shared)), 1)
        self.assertEqual(self.successResultOf(own(succeed("there"))), "there")

    def test_all_hear_of_a_failure(self) -> None:
        """Each waiter fails with the same exception; if one handles it, the others still get it."""
        error = ValueError("broken")
        shared: Deferred[None] = Deferred()
        first, second = own(shared), own(shared)
        first.addErrback(lambda _: None)
        shared.errback(error)
        self.assertIsNone(self.successResultOf(first))
        self.assertIs(self.failureResultOf(second).value, error)
        self.assertIs(self.failureResultOf(own(shared)).value, error)
        self.assertIs(self.failureResultOf(shared).value, error)

    def test_cancelled(self) -> None:
        """A cancellation ends only the waiter's own wait, and the result is not passed to it."""
        shared: Deferred[int] = Deferred()
        first, second = own(shared), own(shared)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertFalse(shared.called)
        shared.callback(1)
        self.assertEqual(self.successResultOf(second), 1)


class UncancellableTests(SynchronousTestCase):
    """``uncancellable``."""

    def test_passes_on(self) -> None:
        """Every waiter gets the result or failure; no failure remains in the work, to be logged."""
        self.assertEqual(self.successResultOf(uncancellable(succeed(1))), 1)
        self.failureResultOf(uncancellable(fail(ValueError())), ValueError)

    def test_work_goes_on(self) -> None:
        """A cancellation does not reach the work; its result is dropped, a failure without a log line."""
        cancelled: list[object] = []
        for finish in (lambda work: work.callback(1), lambda work: work.errback(ValueError())):
            work: Deferred[int] = Deferred(cancelled.append)
            waiting = uncancellable(work)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            finish(work)
        self.assertEqual(cancelled, [])
