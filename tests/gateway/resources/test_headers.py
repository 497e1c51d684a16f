"""The headers of requests on documents: read once for all requests with the same head."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.factory import ChannelFactory
from gateway.http.known import Known
from gateway.resources import documents, headers
from tests.gateway.resources.test_documents import ANSWERS
from tests.gateway.support import Answer, Site, raw_request, read_reply

DOCUMENT = "/v1/buckets/b/documents/k"
VALUES = {
    "If-Match": ["*", "1234", '"ff"', "fe, 1234", 'W/"fe-gzip"', "none", "0"],
    "If-None-Match": ["*", "1234", "ff", "fe, 1234", '"other"'],
    "Expires": ["1h", "Wed, 21 Oct 2099 07:28:00 GMT", "tomorrow"],
    "X-CB-TTL": ["60", "-1"],
    "X-CB-Flags": ["7", "seven"],
    "X-CB-Timeout": ["2s", "never"],
    "X-CB-DurabilityLevel": ["Majority", "None", "Most"],
    "X-CB-DurabilityTimeout": ["1s"],
    "X-CB-PersistTo": ["1"],
    "Content-Encoding": ["identity", "snappy"],
    "Content-Range": ["bytes 0-1/2"],
    "Content-Type": ["application/json", "text/plain"],
    "Authorization": ["Basic YTpi", "Basic Yjph"],
}

CONDITIONS = {"If-Match", "If-None-Match"}
METHODS = "GET", "PUT", "POST", "DELETE", "POST /append", "POST /increment", "POST /touch"


def some(names: Iterable[str], most: int) -> st.SearchStrategy[list[tuple[str, str]]]:
    """Return a strategy for headers, of which one may be given twice."""
    return st.lists(
        st.sampled_from([(name, value) for name in names for value in VALUES[name]]), max_size=most
    )


def sent(asked: str, headers: list[tuple[str, str]]) -> bytes:
    """Return a request."""
    method, _, action = asked.partition(" ")
    body = b'{"expiry":"1h"}' if action == "/touch" else b"1" if method in ("PUT", "POST") else b""
    return raw_request(method, DOCUMENT + action, b"" if action == "/increment" else body, headers)


def outcome(site: Site, data: bytes) -> Any:
    """Return the answer to a request without its id, what the cluster was asked, and with which timeout."""
    for connection in site.connections:
        connection.calls.clear()
        connection.timeouts.clear()
    client = site.client()
    site.send(client, data)
    reply, rest = read_reply(client.value())
    headers = {name: values for name, values in reply.headers.items() if name != "x-request-id"}
    body = re.sub(rb'"requestId":"[^"]*"', b"", reply.body)
    return reply.status, headers, body, rest, site.calls, [one.timeouts for one in site.connections]


class SameTests(SynchronousTestCase):
    """What was read from a head for one request is right for all others with it."""

    @settings(max_examples=150)
    @given(
        st.sampled_from(METHODS),
        some(sorted(VALUES.keys() - CONDITIONS), 2),
        st.lists(some(sorted(CONDITIONS), 2), min_size=2, max_size=5),
    )
    def test_any_requests(
        self, method: str, common: list[tuple[str, str]], conditions: list[list[tuple[str, str]]]
    ) -> None:
        """In any order, repeatedly: each has the outcome that it has where no head was read yet."""
        used, other = Site(ANSWERS), Site(ANSWERS)
        for condition in conditions * 2:
            data = sent(method, [*common, *condition])
            other.factory = ChannelFactory(other.gateway, other.clock)
            self.assertEqual(outcome(used, data), outcome(other, data), data)

    def test_versions(self) -> None:
        """A version in an unusual form leaves nothing behind for the next one, nor does a usual one."""
        site = Site(ANSWERS)
        for tag, cas in (('W/"fe-gzip"', 0xFE), ("ff", 0xFF), ('W/"fd"', 0xFD), ('"fc"', 0xFC)):
            calls = outcome(site, sent("PUT", [("If-Match", tag)]))[4]
            self.assertEqual([(name, options["cas"]) for name, _, options in calls], [("replace", cas)])

    def test_excluded_versions(self) -> None:
        """Nor does a version in If-None-Match."""
        for method in ("PUT", "POST /append", "DELETE"):
            site = Site({**ANSWERS, "get": Answer(b"{}", cas=0x1234)})
            statuses = [
                outcome(site, sent(method, [("If-None-Match", tag)]))[0]
                for tag in ("1234", "ff", "1234", '"1234"', "fe")
            ]
            self.assertEqual(statuses, [412, 200, 412, 412, 200], method)


class MemoryTests(SynchronousTestCase):
    """What is kept of headers and queries is short."""

    def test_long_ones(self) -> None:
        """Long headers and queries are read each time."""
        site = Site(ANSWERS)
        most = documents._LONGEST_KNOWN
        for cached, module, long in (
            ("_of_type", headers, sent("PUT", [("Content-Type", "text/" + "x" * most)])),
            ("_known", headers, sent("PUT", [("X-CB-Flags", "7"), ("Content-Type", "text/" + "x" * most)])),
            ("_known_reads", documents, raw_request("GET", f"{DOCUMENT}?project={'x' * most}")),
        ):
            for name in ("_of_type", "_known"):
                self.patch(headers, name, Known(8))
            self.patch(documents, "_known_reads", Known(8))
            for data, count in ((long, 0), (long.replace(b"x" * most, b"x"), 1)):
                self.assertEqual(outcome(site, data)[0], 200)
                self.assertEqual(len(getattr(module, cached)), count, data)
