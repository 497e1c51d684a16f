"""The receiver of OpenTelemetry's own collector takes our spans."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

from twisted.trial.unittest import SynchronousTestCase

from tests.judges.programs import ROOT, Process, free_port, twistd

RECEIVER = ROOT / "build" / "judges" / "collector" / "receiver"
"""Built by ``make judges`` from tests/judges/collector."""

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SERVER, CLIENT = 2, 3


def spans_in(log: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each span with the attributes of its resource."""
    for line in log.splitlines():
        if line.startswith("{"):
            for resource in json.loads(line)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]:
                        yield attributes(resource["resource"]), span


def attributes(owner: dict[str, Any]) -> dict[str, Any]:
    """Return attributes by name."""
    return {one["key"]: next(iter(one["value"].values())) for one in owner.get("attributes", [])}


class CollectorTests(SynchronousTestCase):
    """Spans over OTLP/HTTP, compressed."""

    if not RECEIVER.exists():
        skip = "not built: the collector's receiver (make judges does that, with go)"

    def test_spans(self) -> None:
        """They arrive as they were meant: in the caller's trace, with kinds, parents and attributes."""
        collector = free_port()
        receiver = Process([str(RECEIVER), f"127.0.0.1:{collector}"])
        self.addCleanup(receiver.stop)
        receiver.until_says("ready")
        given = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        }
        self.patch(os, "environ", {**given, **settings})
        port = free_port()
        gateway = twistd(
            "couchgateway", "--ephemeral", "--listen", f"tcp:{port}:interface=127.0.0.1", "--tracing"
        )
        self.addCleanup(gateway.stop)
        gateway.until_answers(port, "/ready")
        url = f"http://127.0.0.1:{port}/v1/buckets/default"
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=1,b=2"}
        lines = b"".join(b'{"op":"set","key":"k%d","value":1}\n' % number for number in range(500))
        for request in (
            Request(url + "/batch", lines, headers, method="POST"),
            Request(url + "/documents/k1", headers=headers),
        ):
            with urlopen(request, timeout=30) as answer:
                answer.read()
        # At its stop the gateway sends what is left.
        gateway.stop()
        receiver.until_says("get default")
        found = [(resource, span) for resource, span in spans_in(receiver.log) if span["traceId"] == TRACE]
        self.assertEqual(
            sorted((span["name"], span["kind"]) for _, span in found),
            [
                ("BATCH set default", CLIENT),
                ("GET /v1/buckets/{bucket}/documents/{key}", SERVER),
                ("POST /v1/buckets/{bucket}/batch", SERVER),
                ("get default", CLIENT),
            ],
        )
        servers = {span["spanId"] for _, span in found if span["kind"] == SERVER}
        for resource, span in found:
            self.assertEqual(resource["service.name"], "couchgateway")
            self.assertEqual(resource["deployment.environment.name"], "test")
            self.assertEqual(span["traceState"], "a=1,b=2")
            self.assertLessEqual(int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"]))
            if span["kind"] == SERVER:
                self.assertEqual(span["parentSpanId"], PARENT)
                self.assertEqual(attributes(span)["http.response.status_code"], "200")
            else:
                self.assertIn(span["parentSpanId"], servers)
                self.assertEqual(attributes(span)["db.system.name"], "couchbase")
        batch = next(attributes(span) for _, span in found if span["name"].startswith("BATCH"))
        self.assertEqual(
            (batch["db.operation.batch.size"], batch["couchgateway.batch.set.ok"]), ("500", "500")
        )
