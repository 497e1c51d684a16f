"""A program that ends with a view still in its hands."""

import os
import subprocess
import sys
from unittest import TestCase

from tests.couchbase.support import ROOT, shared_node

# A list that holds itself is let go when the interpreter ends, after its greenlets.
PROGRAM = """
import sys
from gcouchbase import GConnection
connection = GConnection(bucket="default", connection_string=sys.argv[1])
kept = [connection.query("design", "view")]
kept.append(kept)
"""


class ExitTests(TestCase):
    """Its end is silent."""

    def test_a_view_that_is_kept_until_the_end(self):
        """Nothing is said about a view that is collected when there are no greenlets any more."""
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, shared_node().string],
            capture_output=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
        )
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, b"", b""))
