"""Views and their failures without httptools, where Twisted's Agent is the client."""

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.txcouchbase import test_http, test_view_failures, test_views
from txcouchbase import http
from txcouchbase.agentclient import AgentClient


class ImportTests(SynchronousTestCase):
    """The driver with nothing but Twisted, as on PyPy."""

    def test_without(self):
        """It is imported, and takes the other client."""
        program = (
            "import sys\n"
            "sys.modules.update(dict.fromkeys(('httptools', 'cryptography', 'cramjam', 'orjson')))\n"
            "import txcouchbase.connection, txcouchbase.http\n"
            "print(txcouchbase.http._Client.__name__)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout, "AgentClient\n")


class _WithAgent:
    def setUp(self):
        self.patch(http, "_Client", AgentClient)
        return super().setUp()


class QueryTests(_WithAgent, test_views.QueryTests):
    """Queries."""


class FlowTests(_WithAgent, test_views.FlowTests):
    """Pauses and ends."""


class FailureTests(_WithAgent, test_view_failures.FailureTests):
    """Failures."""


class NodesTests(_WithAgent, test_view_failures.NodesTests):
    """Several nodes."""


class ManagerTests(_WithAgent, test_http.ManagerTests):
    """Requests to managers."""
