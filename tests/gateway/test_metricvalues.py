"""MetricValues: counted, sent and added up by processes; and shown as metrics."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from gateway.dialect.errors import Refusal
from gateway.http.request import Request
from gateway.interfaces import ISharedMetrics
from gateway.metricvalues import MOST_RETIRED, MetricValues
from gateway.plugins.metrics import BUCKETS, Metrics
from tests.gateway.support import Answer, Site

DOCUMENT = "/v1/buckets/b/documents/k"


def metrics(counters: dict[tuple[str, ...], list[float]], **gauges: float) -> MetricValues:
    made = MetricValues()
    made.counters.update(counters)
    made.gauges.update({(name,): [value] for name, value in gauges.items()})
    return made


class FiguresTests(SynchronousTestCase):
    """Adding and sending."""

    def test_add(self) -> None:
        """Number by number, for each name and labels; the addend is unchanged."""
        total = metrics({("a", "x"): [1, 2.5]}, open=3)
        other = metrics({("a", "x"): [1, 1.5], ("a", "y"): [7, 0]}, open=4, new=1)
        total.add(other)
        total.add(other)
        self.assertEqual(total.counters, {("a", "x"): [3, 5.5], ("a", "y"): [14, 0]})
        self.assertEqual(total.gauges, {("open",): [11], ("new",): [2]})
        self.assertEqual(other.counters[("a", "y")], [7, 0])

    def test_retire(self) -> None:
        """Counters of an ended process are kept, gauges are not."""
        total = metrics({}, open=3)
        total.retire(metrics({("a",): [2]}, open=4))
        self.assertEqual((total.counters, total.gauges), ({("a",): [2]}, {("open",): [3]}))

    def test_retired_are_bounded(self) -> None:
        """However many names ended processes have counted; those known before still grow."""
        total = metrics({("a",): [1]})
        for number in range(3):
            names = {("b", f"{number}-{name}"): [1.0] for name in range(MOST_RETIRED // 2)}
            total.retire(metrics({**names, ("a",): [1]}))
        self.assertEqual(len(total.counters), MOST_RETIRED)
        self.assertEqual(total.counters["a",], [4])

    def test_json(self) -> None:
        """Received values are equal to the sent ones, in numbers and labels."""
        sent = metrics({("a", "x", ""): [1, 2.5], ("b", "é"): [0]}, open=3)
        arrived = MetricValues.from_json(json.loads(json.dumps(sent.to_json())))
        self.assertEqual((arrived.counters, arrived.gauges), (sent.counters, sent.gauges))

    def test_malformed(self) -> None:
        """Anything else is refused, not added up."""
        for counters in (None, {}, [1], [["a"]], [["a", 1]], [["a", ["1"]]], [["a", [True]]], [[1, [1]]]):
            with self.assertRaises(ValueError, msg=str(counters)):
                MetricValues.from_json({"counters": counters, "gauges": []})
        for value in (None, [], {"counters": []}):
            with self.assertRaises(ValueError, msg=str(value)):
                MetricValues.from_json(value)


class MetricsTests(SynchronousTestCase):
    """Metrics of ``/metrics`` about them."""

    def setUp(self) -> None:
        self.plugin = Metrics()
        self.site = Site({"get_with_expiry": Answer(b"{}")}, plugins=[self.plugin])

    def text(self) -> str:
        return self.site.request("GET", "/metrics").body.decode()

    def shows(self, *lines: str) -> None:
        text = self.text().splitlines()
        for line in lines:
            self.assertIn(line, text)

    def test_interface(self) -> None:
        """The plugin takes part in what workers share."""
        verifyObject(ISharedMetrics, self.plugin)

    def test_latency(self) -> None:
        """A request is in the bucket of its time and all above, over all methods and statuses."""
        request = Request("GET", b"/", b"", lambda name: None)
        for seconds, status in ((BUCKETS[0], 200), (0.3, 200), (9.0, 404), (9.0, 404)):
            self.plugin.on_end(request, status, seconds)
        big = Request("PUT", b"/", b"", {})
        big.received_bytes, big.sent_bytes, big.cut = 700, 30, "client"
        self.plugin.on_end(big, 499, 60.0)
        big.received_bytes, big.sent_bytes, big.cut = 0, 3, ""
        self.plugin.on_end(big, 204, 0.3)
        self.shows(
            'couchgateway_request_bytes_total{route="none"} 700.0',
            'couchgateway_response_bytes_total{route="none"} 33.0',
            'couchgateway_requests_cut_total{by="client",route="none"} 1.0',
            'couchgateway_requests_total{method="PUT",route="none",status="499"} 1.0',
            'couchgateway_request_seconds_bucket{le="0.0005",route="none"} 1.0',
            'couchgateway_request_seconds_bucket{le="0.25",route="none"} 1.0',
            'couchgateway_request_seconds_bucket{le="0.5",route="none"} 3.0',
            'couchgateway_request_seconds_bucket{le="+Inf",route="none"} 6.0',
            'couchgateway_request_seconds_count{route="none"} 6.0',
            'couchgateway_request_seconds_sum{route="none"} 78.6005',
            'couchgateway_requests_total{method="GET",route="none",status="200"} 2.0',
            'couchgateway_requests_total{method="GET",route="none",status="404"} 2.0',
        )

    def test_invented_methods(self) -> None:
        """However many methods clients make up, they are one figure."""
        for number in range(20):
            self.site.request(f"BREW{number}", "/pot")
        self.shows('couchgateway_requests_total{method="other",route="none",status="404"} 20.0')
        self.assertEqual(len(self.plugin._requests), 2)

    def test_others(self) -> None:
        """With workers the sums that they gather are shown, and the metrics that only those have."""
        self.site.request("GET", DOCUMENT)
        mine = self.plugin.metrics()
        asked: list[Deferred[MetricValues]] = []

        def gather() -> Deferred[MetricValues]:
            asked.append(Deferred())
            return asked[-1]

        self.plugin.gather = gather
        client = self.site.client()
        self.site.send(client, b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(client.value(), b"")
        total = metrics({("worker_restarts",): [5], ("requests", "old", "GET", "200"): [1, 2]}, workers=2)
        total.add(mine)
        total.add(mine)
        asked[0].callback(total)
        text = client.value().decode()
        for line in (
            'couchgateway_requests_total{method="GET",route="get_document",status="200"} 2.0',
            'couchgateway_operations_total{operation="get",outcome="ok"} 2.0',
            "couchgateway_workers 2.0",
            "couchgateway_worker_restarts_total 5.0",
        ):
            self.assertIn(line, text)
        self.assertNotIn('"old"', text, "counted with other buckets, by the code before an upgrade")

    def test_others_cannot_be_had(self) -> None:
        """Then there is an error: metrics of this process alone would look like counters going back."""
        failing: Deferred[MetricValues] = Deferred()
        self.plugin.gather = lambda: failing
        client = self.site.client()
        self.site.send(client, b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
        failing.errback(Refusal("UnderlyingServiceUnavailable"))
        self.assertTrue(client.value().startswith(b"HTTP/1.1 503 "))

    def test_alone(self) -> None:
        """Without workers nothing is said of them."""
        self.assertNotIn("worker", self.text())
