"""gcouchbase without gevent."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase


class AbsenceTests(SynchronousTestCase):
    """The extra is optional."""

    def test_the_extra_is_named(self) -> None:
        """The error of the import tells what to install."""
        code = "import sys; sys.modules['gevent'] = None; import gcouchbase"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        self.assertIn("gcouchbase needs gevent: pip install 'couchgateway[gevent]'", done.stderr)
