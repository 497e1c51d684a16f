"""Plans on Twisted: answers in any order, late ones, none, and plans that end early."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchbase.exceptions import BUCKET_ENOENT, BucketNotFoundError, error_of
from couchbase.protocol.plans import Ask, Pause
from txcouchbase.planrunner import PlanRunner


class Talk:
    """A conversation: keeps its questions until they are answered or forgotten."""

    def __init__(self, at_once=False):
        self.questions = {}
        self.asked = 0
        self.at_once = at_once

    def ask(self, opcode, listener, fields):
        self.asked += 1
        if self.at_once:
            listener(None)
            return -1
        self.questions[self.asked] = listener
        return self.asked

    def forget(self, number, instead=None):
        if self.questions.pop(number, None) and instead is not None:
            self.questions[number] = instead

    def answer(self, frame):
        """Answer the oldest question."""
        self.questions.pop(min(self.questions))(frame)


class Frame:
    """An answer, whose status is none of a part."""

    specific = 0


class Link:
    """A node, connected or not."""

    def __init__(self, conversation=None, connected=True):
        self.talk = conversation
        self.protocol = self if connected else None
        self.last_error = None
        self.waiters = []

    @property
    def conversation(self):
        return self.talk if self.protocol else None

    def up(self):
        waiter = Deferred(self.waiters.remove)
        self.waiters.append(waiter)
        return waiter


class PlanRunnerTests(SynchronousTestCase):
    """A plan, carried out."""

    def setUp(self):
        self.clock = Clock()
        self.closed = False

    def plan(self, *steps, error=None):
        """A plan of these steps, which returns their results."""
        results = []
        try:
            for step in steps:
                results.append((yield step))
            if error is not None:
                raise error
            return results
        except GeneratorExit:
            self.closed = True
            raise

    def run_plan(self, plan, *links):
        return PlanRunner(self.clock, lambda: links, 2.0).run(plan)

    def test_answers_in_any_order(self):
        """Each answer is in the place of its question; nodes that cannot be asked answer nothing."""
        talks = Talk(), Talk()
        links = Link(talks[0]), None, Link(talks[1]), Link(connected=False)
        running = self.run_plan(self.plan(Ask([(server, 1, {}) for server in range(5)])), *links)
        first, second = Frame(), Frame()
        talks[1].answer(second)
        self.assertNoResult(running)
        talks[0].answer(first)
        self.assertEqual(self.successResultOf(running), [[first, None, second, None, None]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_answers(self):
        """A node that does not answer in time has not answered; its question is forgotten."""
        fast, slow = Talk(), Talk()
        running = self.run_plan(
            self.plan(Ask([(0, 1, {}), (1, 1, {})]), Pause(1.0), Ask([(0, 1, {})])), Link(fast), Link(slow)
        )
        frame = Frame()
        fast.answer(frame)
        self.clock.advance(1.9)
        self.assertEqual(len(slow.questions), 1)
        self.clock.advance(0.1)
        self.assertEqual(slow.questions, {})
        self.clock.advance(1.0)
        last = Frame()
        fast.answer(last)
        self.assertEqual(self.successResultOf(running), [[frame, None], None, [last]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_step_has_its_time(self):
        """The timer of a step that has ended is reset for the next one, and is gone in a pause."""
        talk = Talk()
        running = self.run_plan(
            self.plan(Ask([(0, 1, {})]), Ask([(0, 1, {})]), Pause(9.0), Ask([(0, 1, {})])), Link(talk)
        )
        for _ in range(2):
            self.clock.advance(1.5)
            talk.answer(None)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(8.9)
        self.assertEqual(talk.questions, {})
        self.clock.advance(0.1)
        self.clock.advance(1.9)
        self.assertEqual(len(talk.questions), 1)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(running), [[None], [None], None, [None]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connections_to_come(self):
        """A step may wait for connections: within its time, and not after it."""
        talk = Talk()
        for comes in (True, False, None):
            link = Link(talk, connected=False)
            running = self.run_plan(self.plan(Ask([(0, 1, {})], connect=True)), link)
            (waiter,) = link.waiters
            link.protocol = link if comes else None
            if comes is None:
                self.clock.advance(2.0)
                self.assertEqual(link.waiters, [])
            else:
                waiter.callback(link if comes else None)
            frame = Frame() if comes else None
            if comes:
                talk.answer(frame)
            self.assertEqual(self.successResultOf(running), [[frame]])
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_connection_that_fails(self):
        """What goes wrong with a question is the plan's end; the other questions are forgotten."""
        talk = Talk()
        link = Link(connected=False)
        asks = Ask([(0, 1, {}), (1, 1, {})], connect=True)
        running = self.run_plan(self.plan(asks), Link(talk), link)
        link.waiters[0].errback(OSError("x"))
        self.failureResultOf(running, OSError)
        self.assertEqual((talk.questions, self.closed, self.clock.getDelayedCalls()), ({}, True, []))

    def test_undone(self):
        """What answers say was done is undone if the plan does not get them: they are late, or it ended."""

        def undo(fields, frame):
            return (9, {"undo": fields["n"]}) if frame.specific == 0 and "n" in fields else None

        talk, sent = Talk(), []
        ask = talk.ask
        talk.ask = lambda opcode, listener, fields: (
            sent.append((opcode, fields)) or ask(opcode, listener, fields)
        )
        step = Ask([(0, 1, {}), (0, 1, {"n": 1}), (0, 1, {"n": 2})], undo=undo)
        for cancelled in (False, True):
            running = self.run_plan(self.plan(step, Pause(5.0)), Link(talk))
            del sent[:]
            for _ in range(2):
                talk.answer(Frame())
            if cancelled:
                running.cancel()
                self.failureResultOf(running, CancelledError)
            else:
                self.clock.advance(2.0)
            talk.answer(Frame())
            self.assertEqual([fields["undo"] for _, fields in sent], [1, 2] if cancelled else [2])
            while talk.questions:
                talk.answer(Frame())
        self.clock.advance(5.0)

    def test_refused(self):
        """If no node is connected and one refuses, the plan fails, even if it does not wait for connections:
        a new attempt tells. A plan goes on while any node is connected."""
        refusal = error_of(BUCKET_ENOENT, "gone")
        for connect in (True, False):
            links = Link(connected=False), Link(connected=False)
            links[0].last_error = refusal
            running = self.run_plan(self.plan(Ask([(0, 1, {}), (1, 1, {})], connect)), *links)
            for link in links:
                self.assertNoResult(running)
                link.waiters.pop().callback(None)
            error = self.failureResultOf(running, BucketNotFoundError).value
            self.assertIs(error.inner_cause, refusal)
            self.assertIsNot(error, refusal)
            self.assertEqual((self.closed, self.clock.getDelayedCalls()), (True, []))
            talk = Talk()
            running = self.run_plan(self.plan(Ask([(0, 1, {})], connect)), links[0], Link(talk))
            if connect:
                links[0].waiters.pop().callback(None)
            self.assertEqual(self.successResultOf(running), [[None]])
            self.assertEqual(links[0].waiters, [])

    def test_cancelled(self):
        """Cancelling ends the plan, whatever it waits for, and leaves neither timer nor question."""
        for step in (Pause(1.0), Ask([(0, 1, {})]), Ask([(1, 1, {})], connect=True)):
            self.closed = False
            talk, link = Talk(), Link(connected=False)
            running = self.run_plan(self.plan(step), Link(talk), link)
            running.cancel()
            self.failureResultOf(running, CancelledError)
            self.assertTrue(self.closed)
            self.assertEqual((talk.questions, link.waiters, self.clock.getDelayedCalls()), ({}, [], []))

    def test_failures(self):
        """What the plan raises, and a step that nobody knows, fail it."""
        self.failureResultOf(self.run_plan(self.plan(error=KeyError("x"))), KeyError)
        self.failureResultOf(self.run_plan(self.plan("step")), TypeError)

    def test_answers_at_once(self):
        """Many steps that are answered at once need no deeper stack."""
        talk = Talk(at_once=True)
        running = self.run_plan(self.plan(*[Ask([(0, 1, {})])] * 5000), Link(talk))
        self.assertEqual((len(self.successResultOf(running)), talk.asked), (5000, 5000))
