"""The load of a cluster: rates, the machine's figures, and the numbers in REST documents and STAT."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import Opcode
from couchnode.cluster import activity, machine
from couchnode.cluster.activity import Rates, SystemStats
from tests.couchnode.kv.test_commands import CommandCase
from tests.couchnode.rest.test_api import RestCase, Steps

BUCKET = "/pools/default/buckets/default"


class RateTests(SynchronousTestCase):
    """Totals become changes a second."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.rates = Rates(self.clock.seconds)

    def test_changes_a_second(self) -> None:
        """A rate is what was added since the last one, over the seconds that passed; then it falls to 0."""
        self.clock.advance(2)
        self.assertEqual(self.rates.of("b", 10), 5)
        self.clock.advance(4)
        self.assertEqual(self.rates.of("b", 12), 0.5)
        self.clock.advance(1)
        self.assertEqual(self.rates.of("b", 12), 0)

    def test_asked_often(self) -> None:
        """A repeated request within a second gets the same rate, not that of a moment."""
        self.clock.advance(1)
        self.assertEqual(self.rates.of("b", 10), 10)
        self.clock.advance(0.5)
        self.assertEqual(self.rates.of("b", 1000), 10)
        self.clock.advance(0.5)
        self.assertEqual(self.rates.of("b", 1000), 990)

    def test_started_anew(self) -> None:
        """A total that shrank, as that of a bucket made again, is no negative rate."""
        self.clock.advance(1)
        self.rates.of(("b", "ops"), 10)
        self.clock.advance(1)
        self.assertEqual(self.rates.of(("b", "ops"), 3), 0)

    def test_forgotten(self) -> None:
        """A deleted bucket leaves nothing; others keep what is known of them."""
        self.clock.advance(1)
        for name in (("b", "ops"), ("b", 0, "ops"), ("c", "ops")):
            self.rates.of(name, 10)
        self.rates.forget("b")
        self.assertEqual([self.rates.of(("b", "ops"), 0), self.rates.of(("c", "ops"), 0)], [0, 10])


class _Part:
    """The part of a bucket that these tests use."""

    disk_bytes = 0


class QueueTests(SynchronousTestCase):
    """The queue for the disk."""

    def test_fill_and_drain(self) -> None:
        """Documents a second that come in and that are written, over all parts of a bucket."""
        clock = Clock()
        rates = Rates(clock.seconds)
        parts: list[Any] = [_Part(), _Part()]
        seen = []
        for written, queued in ((0, 10), (8, 4), (12, 0), (12, 0)):
            figures = {"ep_total_persisted": written, "ep_diskqueue_items": queued}
            self.patch(activity, "default_counters", lambda part, figures=figures: figures)
            clock.advance(2)
            samples = activity.bucket_samples("b", parts, 0, rates)
            seen.append((samples["ep_diskqueue_fill"], samples["ep_diskqueue_drain"]))
        self.assertEqual(seen, [([10], [0]), ([2], [8]), ([0], [4]), ([0], [0])])

    def test_words(self) -> None:
        """A name is not a number, even if it looks like one: a bucket may be called 7."""
        self.patch(activity, "default_counters", lambda part: {"bucket": "7", "curr_items": 1})
        samples = activity.bucket_samples("7", cast(Any, [_Part(), _Part()]), 0, Rates(Clock().seconds))
        self.assertNotIn("bucket", samples)
        self.assertEqual(samples["curr_items"], [2])


class MachineTests(SynchronousTestCase):
    """Figures of the system; a missing one is 0."""

    def _file(self, text: str) -> Path:
        path = Path(self.mktemp())
        path.write_text(text)
        return path

    def test_swap(self) -> None:
        """Total and used, in bytes."""
        text = "MemTotal:  100 kB\nSwapCached: 7 kB\nSwapTotal:  1000 kB\nSwapFree:  600 kB\n"
        self.assertEqual(machine.swap(self._file(text)), (1024000, 409600))

    def test_cpu_times(self) -> None:
        """Busy and all: waiting for a disk is idle, and guests are counted once."""
        text = "cpu  10 1 2 100 5 3 4 6 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
        self.assertEqual(machine.cpu_times(self._file(text)), (26, 131))

    def test_unknown(self) -> None:
        """No file, or one of another form, is 0 and no exception."""
        for path in (Path("/nonexistent/file"), self._file(""), self._file("SwapTotal: many\ncpu x")):
            self.assertEqual(machine.swap(path), (0, 0))
            self.assertEqual(machine.cpu_times(path), (0, 0))
        self.assertEqual(machine.disk(None), (0, 0, 0))
        self.assertEqual(machine.disk(Path("/nonexistent/folder")), (0, 0, 0))

    def test_utilization(self) -> None:
        """The processors' utilisation is that since the last call, in percent."""
        times = iter([(10, 100), (40, 200), (40, 200)])
        self.patch(machine, "cpu_times", lambda: next(times))
        stats = SystemStats()
        self.assertEqual(stats.read()["cpu_utilization_rate"], 30)
        self.assertEqual(stats.read()["cpu_utilization_rate"], 30)


class DocumentTests(RestCase):
    """The numbers that monitoring programs read over REST."""

    nodes = 2

    @inlineCallbacks
    def test_nodes(self) -> Steps:
        """Each node reports its own documents, memory, operations, and machine."""
        part = self.cluster.nodes[0].buckets["default"]
        active = next(vbucket for vbucket in part.vbuckets if vbucket is not None)
        active.store(0, b"\0k", b"v")
        pool = (yield self.ask("/pools/default")).json
        first, second = (node["interestingStats"] for node in pool["nodes"])
        self.assertEqual([first["curr_items"], second["curr_items"]], [1, 0])
        self.assertGreater(first["mem_used"], second["mem_used"])
        self.assertLessEqual({"ops", "cmd_get", "get_hits", "couch_docs_data_size"}, set(first))
        system = pool["nodes"][0]["systemStats"]
        self.assertEqual(system["mem_total"], machine.memory()[0])
        self.assertLessEqual(
            {
                "cpu_utilization_rate",
                "swap_total",
                "swap_used",
                "mem_free",
                "mem_limit",
                "cpu_cores_available",
            },
            set(system),
        )
        hdd = pool["storageTotals"]["hdd"]
        self.assertEqual(set(hdd), {"total", "quotaTotal", "used", "usedByData", "free"})
        self.assertEqual(hdd["usedByData"], sum(node["couch_docs_data_size"] for node in (first, second)))

    @inlineCallbacks
    def test_bucket(self) -> Steps:
        """Operations are rates of the whole bucket, over the time since they were last asked for."""
        clock = Clock()
        self.cluster.reports.rates = Rates(clock.seconds)
        clock.advance(1)
        yield self.ask(f"{BUCKET}/stats")
        self.cluster.nodes[1].buckets["default"].gets += 30
        self.cluster.nodes[0].open_connections = 2
        clock.advance(3)
        samples: dict[str, Any] = (yield self.ask(f"{BUCKET}/stats")).json["op"]["samples"]
        self.assertEqual((samples["ops"], samples["cmd_get"]), ([10], [10]))
        self.assertEqual((samples["ep_cache_miss_rate"], samples["hit_ratio"]), ([0], [100]))
        self.assertEqual(samples["curr_connections"], [2])
        self.assertEqual({len(values) for values in samples.values()}, {1})


class ConnectionCountTests(CommandCase):
    """The STAT command reports the number of connections."""

    def test_connections(self) -> None:
        """Open ones and all since the start; one that is gone counts no more."""
        other, _ = self.connect()
        self.assertEqual(self.counts(), ("2", "2"))
        other.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.counts(), ("1", "2"))

    def counts(self) -> tuple[str, str]:
        """Return what STAT says."""
        stats = {answer.key: answer.value.decode() for answer in self.all(Opcode.STAT)}
        return stats[b"curr_connections"], stats[b"total_connections"]
