"""The tests of the original SDK 1.2.5, where COUCHBASE_SDK_1_2 names a checkout of its sources."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from twisted.trial.unittest import TestCase

CHECKOUT = os.environ.get("COUCHBASE_SDK_1_2")
LIMIT_SECONDS = 240


def own_network() -> bool:
    """Return whether a process can have a private network here."""
    try:
        return subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0
    except OSError:
        return False


EXCEPTIONS = {
    "LockmodeTest.test_lockmode_defaults": "the guide's default is LOCKMODE_WAIT",
    "ConnectionLockTest.test_missing_expiry": "the guide's lock has a default, the server's",
    "ConnectionStatsDetailTest.test_stats_with_argument_list": "there is no TAP since Couchbase Server 5.0",
}
"""Tests that do not pass on any current cluster, and why."""

BARE = {"ConnectionTest.test_bucket_not_found", "BasicConnectionTest.testConnectionFailure"}
"""Tests that pass on a cluster without an administrator only: servers since 5.0 hide from strangers which
buckets there are, and 1.2 names no other user than the bucket's own."""


class OriginalTests(TestCase):
    """The suites on clusters of ours."""

    skip = (
        "COUCHBASE_SDK_1_2 names no checkout of the original SDK, tag 1.2.5"
        if not CHECKOUT
        else None
        if own_network()
        else "no network of its own for a process (unshare -rn)"
    )
    timeout = 2 * LIMIT_SECONDS

    def outcomes(self, suite: str, cluster: str, *names: str) -> dict[str, tuple[str, str]]:
        """Run a suite, or some of its tests."""
        module = "tests.judges.original"
        command = ["unshare", "-rn", sys.executable, "-m", module, str(CHECKOUT), suite, cluster, *names]
        done = subprocess.run(command, capture_output=True, timeout=LIMIT_SECONDS, check=True)
        found: dict[str, tuple[str, str]] = json.loads(done.stdout.splitlines()[-1])
        return found

    def run_suite(self, suite: str, least: int) -> None:
        """Each test that fails is named above, and each that is named fails."""
        outcomes = self.outcomes(suite, "administered")
        self.assertGreaterEqual(len(outcomes), least)
        failed = {name: text for name, (outcome, text) in outcomes.items() if outcome == "failed"}
        named = [name for name in outcomes if _plain(name) in EXCEPTIONS or _plain(name) in BARE]
        self.assertEqual({name: text for name, text in failed.items() if name not in named}, {})
        self.assertEqual([name for name in named if outcomes[name][0] == "passed"], [])
        bare = [name for name in named if _plain(name) in BARE]
        for name, (outcome, text) in self.outcomes(suite, "bare", *bare).items():
            self.assertEqual(outcome, "passed", f"{name}: {text}")

    def test_blocking(self) -> None:
        """couchbase."""
        self.run_suite("couchbase", 150)

    def test_gevent(self) -> None:
        """gcouchbase."""
        self.run_suite("gcouchbase", 140)

    def test_twisted(self) -> None:
        """txcouchbase."""
        self.run_suite("txcouchbase", 15)


def _plain(name: str) -> str:
    """Leave out the name of the connection's class, which the suites put behind the test's class."""
    kind, _, test = name.partition(".")
    return f"{kind.rpartition('_')[0] or kind}.{test}"
