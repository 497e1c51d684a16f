"""``/metrics`` for Prometheus.

A request costs one dictionary lookup; the metrics are computed when Prometheus asks for them.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer

import twisted
from couchbase.protocol.version import VERSION
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint, mount
from gateway.interfaces import Gateway, IGatewayPlugin, ISharedMetrics
from gateway.metricvalues import MetricValues
from gateway.openapi.description import Answer, Example, described
from gateway.openapi.schemas import TEXT
from gateway.processes import add_process, process_families
from gateway.topcounts import TopCounts

if TYPE_CHECKING:
    from klein import Klein

__all__ = ["BUCKETS", "Metrics", "metrics"]

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the latency histogram, in seconds."""

# Number of requests in each bucket and above the last, then their total seconds and the bytes of their
# bodies.
_NUMBERS = len(BUCKETS) + 4
SECONDS, RECEIVED, SENT = range(len(BUCKETS) + 1, _NUMBERS)

_LONGEST_NAME = 128

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})

_GAUGES = {
    "client_connections": "Open connections of clients.",
    "cluster_connections": "Open connections to the cluster.",
    "requests_under_way": "Requests not answered yet.",
    "buffered_bytes": "Memory held for requests, out of --max-buffered.",
    "buffered_limit_bytes": "The limit set by --max-buffered.",
    "unread_bytes": "Answers, without large documents, that wait because their clients read slowly.",
    "workers": "Workers that accept connections.",
}


@implementer(IPlugin, IGatewayPlugin, ISharedMetrics)
class Metrics:
    """Counts requests and operations, and serves the counts.

    docs/howto/operations.md lists them. With ``--workers`` they are totals over all workers.
    """

    name = "metrics"
    # Requests are counted when they are over.
    on_request = on_response = None

    def __init__(self) -> None:
        self._gateway: Gateway | None = None
        self.gather: Callable[[], Deferred[MetricValues]] | None = None
        # (route, method, status) -> _NUMBERS
        self._requests: dict[tuple[str, str, int], list[float]] = {}
        self._operations: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._cut: defaultdict[tuple[str, str], int] = defaultdict(int)
        # (kind, caller, account); ``None`` if they are not counted.
        self._callers: TopCounts[tuple[str, str, str]] | None = None

    def attach(self, gateway: Gateway) -> None:
        """Attach to a gateway, and count from now on."""
        self._gateway = gateway
        self.gather = None
        self._requests.clear()
        self._operations.clear()
        self._cut.clear()
        most = gateway.limits.metrics_callers
        self._callers = TopCounts(most) if most else None

    def routes(self, app: Klein) -> None:
        """Declare ``/metrics``."""
        assert self._gateway is not None
        mount(app, self, self._gateway.run_under_klein)

    def on_end(self, request: Request, status: int, seconds: float) -> None:
        """Count a request."""
        served = request.endpoint
        route = "none" if served is None else served.name
        try:
            counts = self._requests[route, request.method, status]
        except KeyError:
            counts = self._counts(route, request.method, status)
        counts[bisect_left(BUCKETS, seconds)] += 1
        counts[SECONDS] += seconds
        if request.received_bytes:
            counts[RECEIVED] += request.received_bytes
        counts[SENT] += request.sent_bytes
        if request.cut:
            self._cut[route, request.cut] += 1
        if self._callers is not None:
            self._callers.count(_caller(request))

    def _counts(self, route: str, method: str, status: int) -> list[float]:
        """Return the counts for a request that is the first of its kind, or has an unknown method."""
        # Clients can send any method, so unknown ones are counted together.
        method = method if method in _METHODS else "other"
        return self._requests.setdefault((route, method, status), [0] * _NUMBERS)

    def on_operation(self, operation: str, outcome: str, count: int) -> None:
        """Count operations."""
        self._operations[operation, outcome] += count

    @endpoint("metrics", "GET", "/metrics")
    @described(
        "Operations",
        {200: Answer("The metrics, in Prometheus' text format.", {"text/plain": TEXT})},
        credentials=False,
        examples=(Example("Always"),),
    )
    def show(self, request: Request) -> Response | Deferred[Response]:
        """Return all metrics in Prometheus' text format; totals over all workers, if there are several."""
        if self.gather is None:
            metrics = self.metrics()
            add_process(metrics)
            return _response(metrics)
        return self.gather().addCallback(_response)

    def metrics(self) -> MetricValues:
        """Return the counts of this process."""
        metrics = MetricValues()
        for (route, method, status), counts in self._requests.items():
            metrics.counters["requests", route, method, str(status)] = counts.copy()
        for (route, by), count in self._cut.items():
            metrics.counters["requests_cut", route, by] = [count]
        for (operation, outcome), count in self._operations.items():
            metrics.counters["operations", operation, outcome] = [count]
        callers = self._callers
        if callers is not None:
            for caller, count in callers.items():
                key = ("caller_requests", *caller)
                metrics.counters[key] = [count]
            metrics.counters["caller_requests", "other", "", ""] = [callers.others]
        gateway = self._gateway
        if gateway is not None:
            metrics.gauges["client_connections",] = [gateway.count_clients()]
            metrics.gauges["cluster_connections",] = [len(gateway.pool)]
            metrics.gauges["requests_under_way",] = [gateway.under_way]
            metrics.gauges["buffered_bytes",] = [gateway.budget.used]
            metrics.gauges["buffered_limit_bytes",] = [gateway.budget.limit]
            metrics.gauges["unread_bytes",] = [gateway.unread_answers.used]
            for cause, count in gateway.count_refused().items():
                metrics.counters["connections_refused", cause] = [count]
        return metrics


class _Families(Collector):
    """Metrics in the form of Prometheus' library."""

    def __init__(self, metrics: MetricValues) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families."""
        requests = CounterMetricFamily(
            "couchgateway_requests", "Requests answered.", labels=["route", "method", "status"]
        )
        by_route: dict[str, list[float]] = {}
        for labels, counts in self._metrics.named("requests"):
            if len(counts) != _NUMBERS:
                continue  # from a worker started before an upgrade that changed the buckets
            requests.add_metric(labels, sum(counts[:SECONDS]))
            known = by_route.setdefault(labels[0], [0] * _NUMBERS)
            by_route[labels[0]] = [one + other for one, other in zip(known, counts, strict=True)]
        yield requests
        latency = HistogramMetricFamily(
            "couchgateway_request_seconds",
            "Time from a request's headers to the end of its answer.",
            labels=["route"],
        )
        received = CounterMetricFamily(
            "couchgateway_request_bytes", "Size of request bodies.", labels=["route"]
        )
        sent = CounterMetricFamily("couchgateway_response_bytes", "Size of answer bodies.", labels=["route"])
        for route, counts in by_route.items():
            latency.add_metric([route], list(_cumulated(counts[:SECONDS])), counts[SECONDS])
            received.add_metric([route], counts[RECEIVED])
            sent.add_metric([route], counts[SENT])
        yield from (latency, received, sent)
        cut = CounterMetricFamily(
            "couchgateway_requests_cut",
            "Requests and answers cut off, by the client (status 499) or the gateway.",
            labels=["route", "by"],
        )
        for labels, (count,) in self._metrics.named("requests_cut"):
            cut.add_metric(labels, count)
        yield cut
        callers = CounterMetricFamily(
            "couchgateway_caller_requests",
            "Requests by caller: of up to --metrics-callers callers, and of all others together.",
            labels=["kind", "caller", "account"],
        )
        for labels, (count,) in self._metrics.named("caller_requests"):
            callers.add_metric(labels, count)
        if callers.samples:
            yield callers
        operations = CounterMetricFamily(
            "couchgateway_operations", "Key-value operations.", labels=["operation", "outcome"]
        )
        for labels, (count,) in self._metrics.named("operations"):
            operations.add_metric(labels, count)
        yield operations
        refused = CounterMetricFamily(
            "couchgateway_connections_refused",
            "Connections closed at once, because of --max-clients or for lack of file descriptors.",
            labels=["cause"],
        )
        for labels, (count,) in self._metrics.named("connections_refused"):
            refused.add_metric(labels, count)
        yield refused
        for _, (count,) in self._metrics.named("worker_restarts"):
            yield CounterMetricFamily(
                "couchgateway_worker_restarts", "Workers started to replace one that had ended.", value=count
            )
        for name, text in _GAUGES.items():
            if (name,) in self._metrics.gauges:
                (value,) = self._metrics.gauges[name,]
                yield GaugeMetricFamily(f"couchgateway_{name}", text, value=value)
        build = GaugeMetricFamily(
            "couchgateway_build_info",
            "Always 1; the labels are versions.",
            labels=["version", "python", "twisted"],
        )
        build.add_metric([VERSION, platform.python_version(), twisted.__version__], 1)
        yield build
        yield from process_families(self._metrics)


def _caller(request: Request) -> tuple[str, str, str]:
    """Return the caller of a request: its kind, its name, and its account at the cluster.

    Only callers that were admitted by the cluster, or by a check of their token, have a name.
    """
    caller = request.caller
    if caller is None:
        return "none", "", ""
    if caller.stands_for_anyone:
        return "anyone", "", ""
    return "user", caller.name[:_LONGEST_NAME], caller.user[:_LONGEST_NAME]


def _response(metrics: MetricValues) -> Response:
    registry = CollectorRegistry()
    registry.register(_Families(metrics))
    content_type = CONTENT_TYPE_LATEST.encode("ascii")
    return Response(200, [(b"Content-Type", content_type)], generate_latest(registry))


def _cumulated(counts: list[float]) -> Iterator[tuple[str, float]]:
    total = 0.0
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], counts, strict=True):
        total += count
        yield bound, total


metrics: Any = Metrics()
