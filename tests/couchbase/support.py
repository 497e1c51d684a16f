"""Parts for tests of the blocking client: a node in another process, and connections to it.

Standard library only, and Python 3.9: these tests run on PyPy, too, which need not have Twisted. The node
itself is run by ``COUCHNODE_PYTHON`` if that names an interpreter.
"""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from unittest import TestCase

from couchbase.connection import Connection

ROOT = Path(__file__).parent.parent.parent


class NodeProcess:
    """A running node.

    :param disk: keep documents in a folder, so that they can be persisted.
    :param options: see :mod:`tests.couchbase.node_process`.
    """

    def __init__(self, disk=False, **options):
        if disk:
            options["data_dir"] = folder = tempfile.mkdtemp()
            # Functions are called in the reverse order: this one after the node has ended.
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self._process = subprocess.Popen(
            [
                os.environ.get("COUCHNODE_PYTHON", sys.executable),
                "-m",
                "tests.couchbase.node_process",
                json.dumps(options),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"no node started, exit status {self._process.wait()}")
        place = json.loads(line)
        self.string = place["string"]
        self.kv_ports = place["kv"]
        self.rest_ports = [int(url.rsplit(":", 1)[1]) for url in place["rest"]]
        atexit.register(self.stop)

    def stop(self):
        """End the process."""
        if self._process.poll() is None:
            self._process.stdin.close()
            self._process.wait(10)
            self._process.stdout.close()


_shared = {}


def shared_node(**options):
    """Return a node for many tests: one for each set of options, started when first asked for."""
    key = tuple(sorted(options.items()))
    if key not in _shared:
        _shared[key] = NodeProcess(**options)
    return _shared[key]


class ConnectionTestCase(TestCase):
    """Tests against a node that they share; keys have the test's name before them."""

    options = {}
    bucket = "default"

    def setUp(self):
        self.node = shared_node(**self.options)
        self.cb = self.connect()

    def connect(self, cls=Connection, **keywords):
        """Return a connection that is closed after the test; ``None`` stands for a default."""
        arguments = {
            "bucket": self.bucket,
            "connection_string": self.node.string,
            "username": "Administrator",
            "password": "password",
            # Patient: the machine may be busy.
            "timeout": 30,
        }
        arguments.update(keywords)
        connection = cls(**{name: value for name, value in arguments.items() if value is not None})
        self.addCleanup(connection._close)
        return connection

    def key(self, name="key"):
        """Return a key that no other test uses."""
        return f"{self.id()}-{name}"

    def missing(self, name="missing"):
        """Return a key without a document."""
        return self.key(name)

    def in_thread(self, function, *args):
        """Start a thread; returns it, with ``outcome`` once it ended: a value or an exception."""
        thread = threading.Thread(target=self._run, args=(function, args), daemon=True)
        thread.outcome = None
        thread.start()
        return thread

    @staticmethod
    def _run(function, args):
        thread = threading.current_thread()
        try:
            thread.outcome = function(*args)
        except Exception as error:  # noqa: BLE001  # the test looks at it
            thread.outcome = error
