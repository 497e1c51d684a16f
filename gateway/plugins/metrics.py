"""``/metrics`` for Prometheus.

Requests are counted in plain dictionaries; the families that Prometheus reads are made when it
asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
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
from twisted.plugin import IPlugin
from zope.interface import implementer

from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint, mount
from gateway.interfaces import IGatewayPlugin

if TYPE_CHECKING:
    from klein import Klein

    from gateway.app import Gateway

__all__ = ["BUCKETS", "Metrics", "metrics"]

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the latency histogram, in seconds."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})


@implementer(IPlugin, IGatewayPlugin)
class Metrics(Collector):
    """Counts requests and operations, and shows them.

    ``couchgateway_requests_total{route,method,status}``,
    ``couchgateway_request_seconds{route}`` (until the answer begins),
    ``couchgateway_operations_total{operation,outcome}``,
    ``couchgateway_client_connections``, ``couchgateway_cluster_connections``,
    ``couchgateway_requests_under_way``.
    """

    name = "metrics"
    # Requests are looked at when they are answered.
    on_request = None

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._gateway: Gateway | None = None
        self._requests: dict[tuple[str, str, int], int] = {}
        self._seconds: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._operations: dict[tuple[str, str], int] = {}

    def attach(self, gateway: Gateway) -> None:
        """Count for this gateway from now on."""
        self._gateway = gateway
        for counted in (self._requests, self._seconds, self._sums, self._operations):
            counted.clear()

    def routes(self, app: Klein) -> None:
        """Declare ``/metrics``."""
        assert self._gateway is not None
        mount(app, self, self._gateway.run_under_klein)

    def on_response(self, request: Request, response: Response, seconds: float) -> None:
        """Count a request."""
        route = request.endpoint.name if request.endpoint is not None else "none"
        method = request.method if request.method in _METHODS else "other"
        counted = (route, method, response.status)
        self._requests[counted] = self._requests.get(counted, 0) + 1
        histogram = self._seconds.get(route)
        if histogram is None:
            histogram = self._seconds[route] = [0] * (len(BUCKETS) + 1)
            self._sums[route] = 0.0
        histogram[bisect_left(BUCKETS, seconds)] += 1
        self._sums[route] += seconds

    def on_operation(self, operation: str, outcome: str, count: int) -> None:
        """Count operations."""
        counted = (operation, outcome)
        self._operations[counted] = self._operations.get(counted, 0) + count

    @endpoint("metrics", "GET", "/metrics")
    def show(self, request: Request) -> Response:
        """Everything counted, in Prometheus' text form."""
        return Response(
            200, [(b"Content-Type", CONTENT_TYPE_LATEST.encode("ascii"))], generate_latest(self._registry)
        )

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families."""
        requests = CounterMetricFamily(
            "couchgateway_requests", "Requests answered.", labels=["route", "method", "status"]
        )
        for (route, method, status), count in self._requests.items():
            requests.add_metric([route, method, str(status)], count)
        yield requests
        latency = HistogramMetricFamily(
            "couchgateway_request_seconds", "From a request's headers to its answer.", labels=["route"]
        )
        for route, counts in self._seconds.items():
            latency.add_metric([route], list(_cumulated(counts)), self._sums[route])
        yield latency
        operations = CounterMetricFamily(
            "couchgateway_operations", "Key-value operations.", labels=["operation", "outcome"]
        )
        for (operation, outcome), count in self._operations.items():
            operations.add_metric([operation, outcome], count)
        yield operations
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        gateway = self._gateway
        if gateway is None:
            return
        for name, text, value in (
            ("client_connections", "Open connections of clients.", gateway.count_clients()),
            ("cluster_connections", "Open connections to the cluster.", len(gateway.pool)),
            ("requests_under_way", "Requests not answered yet.", gateway.under_way),
        ):
            yield GaugeMetricFamily(f"couchgateway_{name}", text, value=value)


def _cumulated(counts: list[int]) -> Iterator[tuple[str, int]]:
    total = 0
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], counts, strict=True):
        total += count
        yield bound, total


metrics: Any = Metrics()
