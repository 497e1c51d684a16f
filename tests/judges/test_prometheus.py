"""promtool reads our metrics."""

from __future__ import annotations

import subprocess
import time
from urllib.request import urlopen

from twisted.trial.unittest import SynchronousTestCase

from tests.judges.programs import START_SECONDS, environment, free_port, missing, program, twistd


class PromtoolTests(SynchronousTestCase):
    """``promtool check metrics``."""

    skip = missing("promtool")

    def check(self, *arguments: str) -> str:
        """Return the metrics of a gateway, which promtool has nothing to say against."""
        port = free_port()
        gateway = twistd(
            "couchgateway", "--ephemeral", "--listen", f"tcp:{port}:interface=127.0.0.1", *arguments
        )
        self.addCleanup(gateway.stop)
        gateway.until_answers(port, "/ready")
        text = b""
        until = time.monotonic() + START_SECONDS
        names = (b"worker-1", b"worker-2") if arguments else (b"couchgateway_build_info",)
        while not all(name in text for name in names):
            # One worker may be ready before the other.
            self.assertLess(time.monotonic(), until, text.decode() + gateway.log)
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                text = answer.read()
        checked = subprocess.run(
            [program("promtool") or "", "check", "metrics"],
            input=text,
            capture_output=True,
            env=environment(),
            timeout=60,
            check=False,
        )
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, b""))
        return str(text, "utf-8")

    def test_one_process(self) -> None:
        """With the process's own figures, as of any program."""
        text = self.check()
        self.assertIn("\nprocess_resident_memory_bytes ", text)
        self.assertIn("\ncouchgateway_build_info{", text)

    def test_workers(self) -> None:
        """With those of each process."""
        text = self.check("--workers", "2")
        for process in ("supervisor", "worker-1", "worker-2"):
            self.assertIn(f'\nprocess_open_fds{{process="{process}"}} ', text)
