"""Counts by keys that clients choose."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.limits import Limits
from gateway.plugins.metrics import Metrics
from gateway.topcounts import FORMER, WINDOW, TopCounts
from tests.gateway.support import Answer, Site, basic, error, passthrough

DOCUMENT = "/v1/buckets/b/documents/k"


class CountTests(SynchronousTestCase):
    """Which keys are counted separately."""

    def test_few(self) -> None:
        """As long as there are few keys, each has its exact count."""
        counts: TopCounts[str] = TopCounts(3)
        for key in "abcab":
            counts.count(key)
        self.assertEqual((dict(counts.items()), counts.others), ({"a": 2, "b": 2, "c": 1}, 0))

    def test_busier(self) -> None:
        """A busy key replaces one that is not, which keeps its count; a busy one keeps its place."""
        counts: TopCounts[str] = TopCounts(2)
        for key in "ab":
            counts.count(key)
        for _ in range(WINDOW):
            counts.count("a")
            counts.count("c")
        self.assertEqual(counts.others, WINDOW)
        counts.count("c")
        self.assertEqual(dict(counts.items()), {"a": WINDOW + 1, "c": 1, "b": 1})
        for _ in range(2 * WINDOW):
            counts.count("b")
        counts.count("b")
        # It returned, and counts from where it was.
        self.assertEqual(dict(counts.items())["b"], 1 + WINDOW + 1)

    def test_noise(self) -> None:
        """Keys that come once replace none that comes often."""
        counts: TopCounts[str] = TopCounts(2)
        for number in range(5 * WINDOW):
            counts.count("a")
            counts.count("b")
            counts.count(f"noise {number}")
        self.assertEqual(dict(counts.items()), {"a": 5 * WINDOW, "b": 5 * WINDOW})
        self.assertEqual(counts.others, 5 * WINDOW)

    def test_bounded(self) -> None:
        """Busy keys that change all the time do not add up."""
        counts: TopCounts[int] = TopCounts(5)
        for number in range(200):
            for _ in range(WINDOW):
                counts.count(number)
        self.assertLessEqual(len(dict(counts.items())), 5 + FORMER * 5)

    @given(st.lists(st.integers(0, 12), max_size=60), st.integers(0, 4))
    def test_any_order(self, keys: list[int], most: int) -> None:
        """No event is lost, and no count is too high."""
        counts: TopCounts[int] = TopCounts(most)
        for key in keys:
            counts.count(key)
        found = dict(counts.items())
        real = Counter(keys)
        self.assertTrue(all(found[key] <= real[key] for key in found))
        if most:
            self.assertEqual(sum(found.values()) + counts.others, len(keys))
        else:
            self.assertEqual((found, counts.others), ({}, 0))


class MetricTests(SynchronousTestCase):
    """``couchgateway_caller_requests_total``."""

    def lines(self, site: Site) -> set[str]:
        """Return what ``/metrics`` says of callers."""
        text = site.request("GET", "/metrics").body.decode()
        return {
            line.partition("_total")[2]
            for line in text.splitlines()
            if line.startswith("couchgateway_caller_r")
        }

    def site(self, most: int, answers: dict[str, object] | None = None) -> Site:
        """Return a gateway whose callers have passwords."""
        return Site(
            {"get_with_expiry": Answer(b"{}"), **(answers or {})},
            authorizer=passthrough(),
            plugins=[Metrics()],
            limits=Limits(metrics_callers=most),
        )

    def test_callers(self) -> None:
        """Callers by name, with the account that the cluster sees; others together, after them."""
        site = self.site(3)
        for user in ("jane", "jane", 'jo"e\\', "third"):
            site.request("GET", DOCUMENT, headers=basic(user, "pass"))
        self.assertEqual(
            self.lines(site),
            {
                '{account="jane",caller="jane",kind="user"} 2.0',
                '{account="jo\\"e\\\\",caller="jo\\"e\\\\",kind="user"} 1.0',
                '{account="third",caller="third",kind="user"} 1.0',
                '{account="",caller="",kind="other"} 0.0',
            },
        )
        # The request for the metrics was one of nobody.
        self.assertIn('{account="",caller="",kind="other"} 1.0', self.lines(site))

    def test_not_admitted(self) -> None:
        """A name that the cluster has not confirmed is not shown."""
        site = self.site(5, {"connect": error(2)})
        site.request("GET", DOCUMENT, headers=basic("made-up", "pass"))
        site.request("GET", DOCUMENT)
        self.assertEqual(
            self.lines(site),
            {'{account="",caller="",kind="none"} 2.0', '{account="",caller="",kind="other"} 0.0'},
        )

    def test_anyone(self) -> None:
        """With --auth none all callers are one."""
        site = Site({"get_with_expiry": Answer(b"{}")}, plugins=[Metrics()], limits=Limits(metrics_callers=5))
        site.request("GET", DOCUMENT)
        self.assertIn('{account="",caller="",kind="anyone"} 1.0', self.lines(site))

    def test_off(self) -> None:
        """By default nothing says who calls."""
        site = self.site(0)
        site.request("GET", DOCUMENT, headers=basic("jane", "pass"))
        self.assertEqual(self.lines(site), set())
        self.assertNotIn("jane", site.request("GET", "/metrics").body.decode())
