"""Metrics of the operating system about a process: Prometheus' usual ``process_*``."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.metricvalues import MetricValues

__all__ = ["add_process", "process_families"]

_NAME = "process"

# In the order of a figure's numbers.
_FAMILIES = (
    ("process_cpu_seconds", CounterMetricFamily, "User and system time spent, in seconds."),
    ("process_resident_memory_bytes", GaugeMetricFamily, "Resident memory, in bytes."),
    ("process_virtual_memory_bytes", GaugeMetricFamily, "Virtual memory, in bytes."),
    ("process_open_fds", GaugeMetricFamily, "Open file descriptors."),
    ("process_max_fds", GaugeMetricFamily, "File descriptors that may be open."),
    ("process_start_time_seconds", GaugeMetricFamily, "Start, in seconds of Unix time."),
)


def add_process(metrics: MetricValues, name: str | None = None) -> None:
    """Add the metrics of this process; none on systems without ``/proc``.

    :param name: its name among several processes; ``None`` if it is the only one.
    """
    values = {family.name: family.samples[0].value for family in _collector.collect() if family.samples}
    if values:
        numbers = [float(values.get(family, 0)) for family, _, _ in _FAMILIES]
        # CPU time is a gauge as well: the time of an ended process is not added to that of others.
        metrics.gauges[(_NAME,) if name is None else (_NAME, name)] = numbers


def process_families(metrics: MetricValues) -> Iterator[Metric]:
    """Yield the metric families; with a label ``process`` if there are several processes."""
    rows = {key[1:]: numbers for key, numbers in metrics.gauges.items() if key[0] == _NAME}
    if not rows:
        return
    labels = ["process"] if any(rows) else []
    for at, (name, kind, text) in enumerate(_FAMILIES):
        family = kind(name, text, labels=labels)
        for values, numbers in rows.items():
            if len(values) == len(labels) and at < len(numbers):
                family.add_metric(values, numbers[at])
        yield family


_collector = ProcessCollector(registry=CollectorRegistry())
