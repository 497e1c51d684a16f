"""The tests of the original SDK 1.2.5, where COUCHBASE_SDK_1_2 names a checkout of its sources."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.judges import programs

CHECKOUT = os.environ.get("COUCHBASE_SDK_1_2")
LIMIT_SECONDS = 240

EXCEPTIONS = {
    "LockmodeTest.test_lockmode_defaults": "the guide's default is LOCKMODE_WAIT",
    "ConnectionLockTest.test_missing_expiry": "the guide's lock has a default, the server's",
    "ConnectionTest.test_bucket_not_found": "servers since 5.0 refuse the user of a bucket that is not there",
    "ConnectionStatsTest.test_trivial_stats_without_argument": "the node has no curr_connections yet",
    "ConnectionStatsDetailTest.test_stats_with_argument_list": "there is no TAP since Couchbase Server 5.0",
    "DupKeyTestCase.test_duplicate_keys": "sets a flag of the C library's object",
    "ConverertSetTest.test_json_conversions": "reads the C library's helpers",
    "ConverertSetTest.test_pickle_conversions": "reads the C library's helpers",
    "AdminSimpleTest.test_http_request": "asks for pools/; the node knows no slash at the end",
    "AdminSimpleTest.test_bad_auth": "connects to port 8091",
    "ConnectionTest.test_multi_hosts": "connects to port 8091",
}
"""Tests that do not pass, and why; those of ViewIteratorTest need the beer documents, and are left out."""


class OriginalTests(TestCase):
    """The blocking and the gevent suite on a node of ours."""

    skip = None if CHECKOUT else "COUCHBASE_SDK_1_2 names no checkout of the original SDK, tag 1.2.5"
    timeout = 2 * LIMIT_SECONDS

    def run_suite(self, suite: str) -> None:
        """Run one; each test that fails is named above."""
        directory = Path(tempfile.mkdtemp())
        (directory / "password").write_text("password\n", encoding="utf-8")
        port = programs.free_port()
        node = programs.twistd(
            *f"couchnode --rest-port {port} --kv-port 0 --replicas 1 --data {directory / 'data'}".split(),
            *["--bucket", "default", "--bucket", "beer-sample", "--open-buckets", "--user", "Administrator"],
            f"--password-file={directory / 'password'}",
        )
        self.addCleanup(node.stop)
        node.until_answers(port, "/pools/default/b/default")
        command = [
            sys.executable,
            "-m",
            "tests.judges.original",
            str(CHECKOUT),
            suite,
            "localhost",
            str(port),
        ]
        done = subprocess.run(command, capture_output=True, timeout=LIMIT_SECONDS, check=True)
        outcomes = json.loads(done.stdout.splitlines()[-1])
        self.assertGreater(len(outcomes), 100)
        failed = {
            name: text
            for name, (outcome, text) in outcomes.items()
            if outcome == "failed" and not name.startswith("ViewIteratorTest")
        }
        self.assertEqual(
            {name: text for name, text in failed.items() if _plain(name) not in EXCEPTIONS},
            {},
        )

    def test_blocking(self) -> None:
        """couchbase."""
        self.run_suite("couchbase")

    def test_gevent(self) -> None:
        """gcouchbase."""
        self.run_suite("gcouchbase")


def _plain(name: str) -> str:
    """Leave out the name of the connection's class, which the suites put behind the test's class."""
    kind, _, test = name.partition(".")
    return f"{kind.rpartition('_')[0]}.{test}"
