"""The packages and the gateway with what is missing on Windows and macOS taken away."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from twisted.trial.unittest import SynchronousTestCase

from bench.ports import free_port
from tests.tooling.sources import ROOT

SECONDS = 100


def command(platform: str, *arguments: str) -> list[str]:
    """Return the command line of something on a platform."""
    return [sys.executable, "-m", "tests.tooling.otherplatforms", platform, *arguments]


class OtherPlatformTests(SynchronousTestCase):
    """Nothing that is missing there is needed."""

    def outcome(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run something to its end."""
        return subprocess.run(
            command(*words),
            cwd=ROOT,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
        )

    def start(self, *words: str) -> tuple[subprocess.Popen[bytes], str, Path]:
        """Start a gateway, wait until it serves, and return it with its address and log."""
        port = free_port()
        log = Path(self.mktemp())
        listen = f"tcp:{port}:interface=127.0.0.1"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command(*words), "--listen", listen],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        until = time.monotonic() + SECONDS
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/ready", timeout=SECONDS).close()
                return process, f"http://127.0.0.1:{port}/v1/buckets/default", log
            except (URLError, ConnectionError):
                if process.poll() is not None or time.monotonic() > until:
                    self.fail(log.read_text())
            time.sleep(0.05)

    def check_serving(self, platform: str) -> str:
        """Store a document, start again, read it, and return the log."""
        data = ["--data", str(Path(self.mktemp()).absolute())]
        process, bucket, _ = self.start(platform, "couchgateway", *data)
        body = Request(
            f"{bucket}/documents/k", b'{"a":1}', {"Content-Type": "application/json"}, method="PUT"
        )
        urlopen(body, timeout=SECONDS).close()
        refused = self.outcome(platform, "couchgateway", *data, "--listen", "tcp:0:interface=127.0.0.1")
        self.assertIn("is in use by another process", refused.stdout + refused.stderr)
        self.assertNotIn("Traceback", refused.stdout + refused.stderr)
        process.terminate()
        process.wait(SECONDS)
        _, bucket, log = self.start(platform, "couchgateway", *data)
        with urlopen(f"{bucket}/documents/k", timeout=SECONDS) as answer:
            self.assertEqual(answer.read(), b'{"a":1}')
        text = log.read_text()
        self.assertNotIn("Traceback", text)
        return text

    def test_imports(self) -> None:
        """Every module can be imported."""
        for platform in ("windows", "macos"):
            done = self.outcome(platform, "imports")
            self.assertEqual((done.stdout.strip(), done.stderr, done.returncode), ("", "", 0), platform)

    def test_windows(self) -> None:
        """The gateway keeps documents, locks their folder, and explains that there are no views."""
        expected = "views are not available: the view engine needs Unix sockets"
        self.assertIn(expected, self.check_serving("windows"))

    def test_macos(self) -> None:
        """The gateway keeps documents, and locks their folder."""
        self.assertNotIn("views are not available: the view engine needs", self.check_serving("macos"))

    def test_refusals_on_windows(self) -> None:
        """What needs a POSIX system is refused in one line."""
        done = self.outcome("windows", "couchgateway", "--ephemeral", "--workers", "2")
        self.assertIn("--workers: it needs a POSIX system, where processes can share sockets", done.stderr)
        done = self.outcome("windows", "couchgateway", "--ephemeral", "--listen", "unix:/tmp/never")
        self.assertIn("cannot start: --listen: unix:/tmp/never: UNIX support is not present", done.stdout)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
