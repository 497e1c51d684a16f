"""Plans of operations, remembered for the next request: no answer depends on what was asked before."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import RELATIVE_EXPIRY_MAX
from gateway.resources import documentbase, headers
from gateway.resources.documentbase import DocumentResource
from gateway.resources.locks import Locks
from tests import tries
from tests.gateway.resources.test_documents import ANSWERS, LOOKUP, MUTATE
from tests.gateway.support import NOW, Site

BUCKET = "/v1/buckets/b"
PLACES = (BUCKET, BUCKET + "/scopes/s/collections/c", BUCKET + "/scopes/s!/collections/c")
VERSION = {"If-Match": "18d2f3a4c5e60000"}
HEADERS: tuple[dict[str, str], ...] = (
    {},
    VERSION,
    {"If-Match": "*"},
    {"If-Match": "nonsense"},
    {"If-None-Match": "*"},
    {"Expires": "1h"},
    {"Expires": "2000h"},
    {"Expires": "soon"},
    {"X-CB-TTL": "60"},
    {"X-CB-TTL": "60", "Expires": "1h"},
    {"X-CB-Flags": "7"},
    {"X-CB-Flags": "x"},
    {"X-CB-DurabilityLevel": "Majority"},
    {"X-CB-DurabilityLevel": "Majority", **VERSION},
    {"X-CB-PersistTo": "1"},
    {"X-CB-Timeout": "2s"},
    {"X-CB-Timeout": "soon"},
    {"Content-Encoding": "gzip"},
)
TYPES = (
    None,
    "application/json",
    "application/json; charset=utf-8",
    "application/json; charset=latin-1",
    "x",
)
BODIES = (
    b"",
    b"{}",
    b'{"delta":2}',
    b'{"delta":-2}',
    b'{"delta":1,"initial":5}',
    b'{"lockTime":20}',
    b'{"lockTime":"20"}',
    b'{"expiry":"1h"}',
    b'{"expiry":"2000h"}',
    b'{"expiry":"","returnContent":true}',
    b'{"expiry":"1h","returnContent":true}',
    LOOKUP,
    MUTATE,
    b'{"operations":[]}',
    b"nonsense",
)
OPERATIONS = (
    ("PUT", ""),
    ("POST", ""),
    ("DELETE", ""),
    *(
        ("POST", "/" + name)
        for name in ("increment", "decrement", "touch", "lock", "unlock", "append", "lookup", "mutate")
    ),
)
REQUESTS = st.tuples(
    st.sampled_from(OPERATIONS),
    st.sampled_from(PLACES),
    st.sampled_from(("", "?no=1")) | st.just(""),
    st.sampled_from(HEADERS) | st.just({}),
    st.sampled_from(TYPES),
    st.sampled_from(BODIES),
)


_OF_REQUEST = frozenset({"x-request-id", "date", "content-length"})


def outcome(site: Site, asked: Any) -> Any:
    """Send a request; return its answer, and what it asked of the cluster."""
    (method, suffix), place, query, more, kind, body = asked
    before, named = len(site.calls), dict(more)
    if kind is not None:
        named["Content-Type"] = kind
    reply = site.request(method, f"{place}/documents/k{suffix}{query}", body, named)
    seen = {name: value for name, value in reply.headers.items() if name not in _OF_REQUEST}
    told: Any = reply.body
    if reply.status >= 400:
        told = {name: value for name, value in reply.json().items() if name != "requestId"}
    return reply.status, seen, told, site.calls[before:]


class RememberedTests(SynchronousTestCase):
    """Requests one after the other."""

    @settings(deadline=None, max_examples=tries(25))
    @given(st.lists(REQUESTS, min_size=4, max_size=12))
    def test_as_if_first(self, asked: list[Any]) -> None:
        """Each request, asked twice among others, is answered as by a gateway that has forgotten them."""
        first: list[Any] = []
        again: list[Any] = []
        for found, forgets in ((first, True), (again, False)):
            site = Site(dict(ANSWERS))
            for one in (*asked, *asked):
                if forgets:
                    self.forget(site)
                found.append(outcome(site, one))
        self.assertEqual(first, again)

    def forget(self, site: Site) -> None:
        """Make it forget all that was asked before."""
        for one in self.resources(site):
            one._plans.clear()
        headers._of_type.clear()
        headers._known.clear()

    def test_times_are_counted_anew(self) -> None:
        """A duration beyond 30 days, which is stored as an instant, counts from each request."""
        site = Site(dict(ANSWERS))
        (locks,) = (one for one in site.gateway.resources if isinstance(one, Locks))
        for passed in (0, 500):
            locks._now = lambda: NOW + passed  # noqa: B023  # called in this round
            reply = site.request("POST", f"{BUCKET}/documents/k/touch", b'{"expiry":"1000h"}')
            self.assertEqual(reply.status, 204)
            self.assertEqual(site.calls[-1][2], {"ttl": int(NOW) + passed + 3_600_000})
        self.assertGreater(3_600_000, RELATIVE_EXPIRY_MAX)

    def test_as_many_as_there_is_room_for(self) -> None:
        """However many bodies clients send, only so many plans are kept, and none of a long body or type."""
        self.patch(documentbase, "_KNOWN_PLANS", 4)
        site = Site(dict(ANSWERS))
        json_type = {"Content-Type": "application/json"}
        kept: list[int] = []
        for delta in range(20):
            body = b'{"delta":%d}' % delta
            reply = site.request("POST", f"{BUCKET}/documents/k/increment", body, json_type)
            self.assertEqual((reply.status, site.calls[-1][2]["amount"]), (200, delta))
            kept.append(sum(len(one._plans) for one in self.resources(site)))
        self.assertEqual((max(kept), len(set(kept))), (4, 4))
        long = b'{"delta":1%s}' % (b" " * 512)
        for _ in range(2):
            self.assertEqual(
                site.request("POST", f"{BUCKET}/documents/k/increment", long, json_type).status, 200
            )
        long_type = {"Content-Type": "application/json; charset=utf-8; x=" + "x" * 512}
        reply = site.request("POST", f"{BUCKET}/documents/k/increment", b'{"delta":1}', long_type)
        self.assertEqual(reply.status, 200)
        self.assertEqual(sum(len(one._plans) for one in self.resources(site)), kept[-1])

    @staticmethod
    def resources(site: Site) -> list[DocumentResource]:
        """Return the resources that keep plans."""
        return [one for one in site.gateway.resources if isinstance(one, DocumentResource)]
