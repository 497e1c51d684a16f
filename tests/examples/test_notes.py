"""The example of another Klein app on the gateway's HTTP server, as a program, over sockets."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.forking import Program
from tests.tooling.sources import ROOT


class NotesTests(SynchronousTestCase):
    """``examples/notes.py``."""

    def setUp(self) -> None:
        self.program = Program(
            [sys.executable, "examples/notes.py", "--port", "0"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.stop)
        assert self.program.stdout is not None
        ready = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/notes\n", self.program.stdout.readline())
        assert ready is not None
        self.client = http.client.HTTPConnection("127.0.0.1", int(ready[1]), timeout=60)
        self.addCleanup(self.client.close)

    def stop(self) -> None:
        """End the program, however the test went."""
        if self.program.poll() is None:
            self.program.kill()
        self.program.communicate()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body of an answer; all come by one connection."""
        self.client.request(method, path, body)
        answer = self.client.getresponse()
        self.assertIsNotNone(answer.headers["X-Request-Id"])
        return answer.status, answer.read()

    def test_notes(self) -> None:
        """Notes are stored, listed and deleted; errors are explained in the app's words and in HTTP's;
        Klein's own route is served; and running requests do not keep the program from ending."""
        self.assertEqual(self.ask("PUT", "/notes/a%2Fb", b"milk"), (200, b'{"name":"a/b","bytes":4}'))
        self.assertEqual(self.ask("PUT", "/notes/c", b"bread")[0], 200)
        self.assertEqual(self.ask("GET", "/notes"), (200, b"a/b: milk\nc: bread\n"))
        self.assertEqual(self.ask("DELETE", "/notes/c"), (204, b""))
        self.assertEqual(self.ask("GET", "/hello/7"), (200, b"hello, number 7\n"))
        for method, path, body, status, code in (
            ("GET", "/notes/c", None, 404, "NoteNotFound"),
            ("PUT", "/notes/large", b"x" * 10_001, 413, "PayloadTooLarge"),
            ("POST", "/notes/c", b"", 405, "MethodNotAllowed"),
            ("GET", "/nowhere", None, 404, "RouteNotFound"),
            ("GET", "/notes/%zz", None, 400, "InvalidArgument"),
        ):
            answered, told = self.ask(method, path, body)
            self.assertEqual((answered, json.loads(told)["code"]), (status, code), path)
        self.program.send_signal(signal.SIGINT)
        self.assertEqual(self.program.wait(60), 0)
