"""Pipelines: operations collected, sent together, answered at the end of the block."""

from couchbase.exceptions import ArgumentError, CouchbaseError, NotFoundError, PipelineError
from couchbase.result import MultiResult, OperationResult, ValueResult
from tests.couchbase.support import ConnectionTestCase


class PipelineTests(ConnectionTestCase):
    """Section 10 of the reference."""

    options = {"nodes": 2, "replicas": 1}

    def test_results(self):
        """None inside; afterwards a result for each operation, in order."""
        pipe = self.cb.pipeline()
        self.assertIsNone(pipe.results)
        with pipe as given:
            self.assertIsNone(given)
            self.assertIsNone(self.cb.set(self.key(), 1))
            self.assertIsNone(self.cb.get(self.key()))
            self.assertIsNone(self.cb.incr(self.key()))
            self.assertIsNone(self.cb.get_multi([self.key()]))
            self.assertIsNone(self.cb.observe(self.key()))
            self.assertIsNone(self.cb.stats())
            self.assertIsNone(self.cb.endure(self.key(), persist_to=0, replicate_to=0))
            self.assertIsNone(self.cb.delete(self.key()))
            self.assertIsNone(self.cb.get(self.key(), quiet=True))
        kinds = [type(result) for result in pipe.results]
        self.assertEqual(
            kinds,
            [
                OperationResult,
                ValueResult,
                ValueResult,
                MultiResult,
                ValueResult,
                MultiResult,
                OperationResult,
                OperationResult,
                ValueResult,
            ],
        )
        self.assertEqual([pipe.results[index].value for index in (1, 2)], [1, 2])
        self.assertEqual(pipe.results[3][self.key()].value, 2)
        self.assertFalse(pipe.results[8].success)

    def test_used_again(self):
        """Results are kept until the next use; an empty block is allowed."""
        pipe = self.cb.pipeline()
        with pipe:
            self.cb.set(self.key(), 1)
        self.assertEqual(len(pipe.results), 1)
        with pipe:
            pass
        self.assertEqual(pipe.results, [])

    def test_argument_error(self):
        """Raised at the call; what was scheduled before is done and in results."""
        pipe = self.cb.pipeline()
        with self.assertRaises(ArgumentError), pipe:
            self.cb.set(self.key(), "stored")
            self.cb.set("", 1)
        self.assertEqual([result.key for result in pipe.results], [self.key()])
        self.assertEqual(self.cb.get(self.key()).value, "stored")

    def test_operation_error(self):
        """The first is raised at the end, when all are done; results are not updated."""
        pipe = self.cb.pipeline()
        with self.assertRaises(NotFoundError) as caught, pipe:
            self.cb.get(self.missing("1"))
            self.cb.get(self.missing("2"))
            self.cb.set(self.key(), "stored")
        self.assertEqual(caught.exception.key, self.missing("1"))
        self.assertIsNone(pipe.results)
        self.assertEqual(self.cb.get(self.key()).value, "stored")

    def test_other_exceptions(self):
        """They propagate when the operations are done; an operation's error goes before them."""
        with self.assertRaises(ZeroDivisionError), self.cb.pipeline():
            self.cb.set(self.key(), "stored")
            raise ZeroDivisionError
        self.assertEqual(self.cb.get(self.key()).value, "stored")
        with self.assertRaises(NotFoundError), self.cb.pipeline():
            self.cb.get(self.missing())
            raise ZeroDivisionError

    def test_nested(self):
        """PipelineError, also for the same object; the outer one ends as it should."""
        pipe = self.cb.pipeline()
        with pipe:
            self.cb.set(self.key(), "stored")
            for inner in (pipe, self.cb.pipeline()):
                with self.assertRaises(PipelineError):
                    inner.__enter__()
        self.assertTrue(pipe.results[0].success)
        self.assertEqual(self.cb.get(self.key()).value, "stored")

    def test_end_without_beginning(self):
        """PipelineError."""
        self.assertRaises(PipelineError, self.cb._pipeline_end)
        self.assertTrue(self.cb.set(self.key(), 1).success)

    def test_order(self):
        """Operations on one key take effect in the order given."""
        pipe = self.cb.pipeline()
        with pipe:
            for number in range(300):
                self.cb.set(self.key(), number)
                self.cb.get(self.key())
        self.assertEqual([result.value for result in pipe.results[1::2]], list(range(300)))

    def test_durability_inside(self):
        """A mutation that waits for copies is one entry like others."""
        pipe = self.cb.pipeline()
        with pipe:
            self.cb.set(self.key(), 1, replicate_to=1)
            self.cb.get(self.key())
        self.assertTrue(all(result.success for result in pipe.results))
        with self.assertRaises(CouchbaseError) as caught, self.cb.pipeline():
            self.cb.set(self.key(), 2, persist_to=9)
        self.assertEqual(caught.exception.rc, 0x21)
        self.assertEqual(self.cb.get(self.key()).value, 1)
