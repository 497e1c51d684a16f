"""The activity figures of REST documents: rates from growing counters, and sums over the parts of buckets."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

from couchnode.cluster import machine
from couchnode.data.bucket import NodeBucket
from couchnode.data.stats import default_counters, items_by_state

RATE_SECONDS = 1.0
"""Minimum age in seconds of a rate before it is computed again."""
_RATES = ("cmd_get", "cmd_set", "get_hits", "get_misses")
"""Counters that REST documents report as operations per second, and the STAT command as totals."""


class Rates:
    """Converts totals into changes per second between two calls.

    :param seconds: the time now.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._started_at = seconds()
        self._known: dict[Hashable, tuple[float, float, float]] = {}

    def of(self, name: Hashable, total: float) -> float:
        """Return the growth rate of the total with that name, in units per second; never below 0."""
        now = self._seconds()
        then, before, rate = self._known.get(name, (self._started_at, 0, 0.0))
        if now - then >= RATE_SECONDS:
            rate = max(0, total - before) / (now - then)
            self._known[name] = now, total, rate
        return rate

    def forget(self, bucket: str) -> None:
        """Forget the totals of a deleted bucket; their names begin with its name."""
        self._known = {name: known for name, known in self._known.items() if _bucket_of(name) != bucket}


def _bucket_of(name: Hashable) -> Hashable:
    return name[0] if isinstance(name, tuple) else name


class SystemStats:
    """The ``systemStats`` of a node: those of the machine, the same for every node."""

    def __init__(self) -> None:
        self._times = machine.cpu_times()
        self._utilization = 0.0

    def read(self) -> dict[str, float]:
        """Return the figures. The processor utilisation is in percent, measured since the last call."""
        busy, ticks = machine.cpu_times()
        busy_before, ticks_before = self._times
        if ticks > ticks_before:
            self._utilization = 100 * (busy - busy_before) / (ticks - ticks_before)
            self._times = busy, ticks
        total, free = machine.memory()
        swap_total, swap_used = machine.swap()
        return {
            "cpu_utilization_rate": self._utilization,
            "cpu_cores_available": machine.processors(),
            "swap_total": swap_total,
            "swap_used": swap_used,
            "mem_total": total,
            "mem_free": free,
            "mem_limit": total,
        }


def interesting_stats(node: int, parts: Iterable[NodeBucket], rates: Rates) -> dict[str, float]:
    """Return the ``interestingStats`` of a node: sums over its parts of buckets, and rates per second.

    Every document is in memory, so none is ever fetched from the disk (``ep_bg_fetched``).
    """
    sums: dict[str, float] = dict.fromkeys(
        ("cmd_get", "get_hits", "ops", "curr_items", "curr_items_tot", "vb_replica_curr_items", "mem_used"), 0
    )
    disk_bytes = 0
    for part in parts:
        items = items_by_state(part)
        sums["curr_items"] += sum(items["active"])
        sums["curr_items_tot"] += sum(map(sum, items.values()))
        sums["vb_replica_curr_items"] += sum(items["replica"])
        sums["mem_used"] += part.memory_bytes
        for name, total in (
            ("cmd_get", part.gets),
            ("get_hits", part.gets - part.misses),
            ("ops", part.gets + part.stores),
        ):
            sums[name] += rates.of((part.name, node, name), total)
        disk_bytes += part.disk_bytes
    return {
        **sums,
        "vb_active_num_non_resident": 0,
        "ep_bg_fetched": 0,
        "couch_docs_data_size": disk_bytes,
        "couch_docs_actual_disk_size": disk_bytes,
    }


def bucket_samples(
    name: str, parts: Sequence[NodeBucket], connections: int, rates: Rates
) -> dict[str, list[float]]:
    """Return the ``samples`` of a bucket except the time: one value each, over all nodes.

    Commands, and documents that enter and leave the disk queue, are rates per second, as the cluster manager
    reports them; all other figures are those of the STAT command.
    """
    totals: dict[str, float] = {}
    for part in parts:
        for stat, value in default_counters(part).items():
            if isinstance(value, int):
                totals[stat] = totals.get(stat, 0) + value
    gets = totals.get("cmd_get", 0)
    written = totals.get("ep_total_persisted", 0)
    values = totals | {
        "ops": rates.of((name, "ops"), gets + totals.get("cmd_set", 0)),
        "hit_ratio": 100 * totals.get("get_hits", 0) / gets if gets else 0.0,
        "ep_cache_miss_rate": 0.0,
        "ep_bg_fetched": 0,
        "ep_diskqueue_drain": rates.of((name, "ep_diskqueue_drain"), written),
        "ep_diskqueue_fill": rates.of(
            (name, "ep_diskqueue_fill"), written + totals.get("ep_diskqueue_items", 0)
        ),
        "curr_connections": connections,
        "couch_docs_data_size": sum(part.disk_bytes for part in parts),
        "couch_docs_actual_disk_size": sum(part.disk_bytes for part in parts),
    }
    for stat in _RATES:
        values[stat] = rates.of((name, stat), totals.get(stat, 0))
    return {stat: [value] for stat, value in values.items()}
