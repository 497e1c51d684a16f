"""The system clock is set while the gateway runs: timers and deadlines do not notice, dates follow."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.request import Request, urlopen

from twisted.trial.unittest import SynchronousTestCase

HOUR = 3600


class Running:
    """A gateway in a process whose clock can be set."""

    def __init__(self, case: SynchronousTestCase, *options: str) -> None:
        command = [sys.executable, "-m", "tests.gateway.clockgateway", "gateway", "--ephemeral"]
        command += ["--listen", "tcp:0:interface=127.0.0.1", *options]
        name = Path(case.mktemp())
        with name.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        case.addCleanup(self.end)
        found = None
        while found is None:
            case.assertIsNone(self.process.poll(), "the gateway has ended")
            time.sleep(0.05)
            found = re.search(rb"Ready: http://127\.0\.0\.1:(\d+)", name.read_bytes())
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"
        while not self.is_ready():
            time.sleep(0.05)

    def is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/ready", timeout=60):
                return True
        except OSError:
            return False

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def set_clock(self, off: float) -> None:
        """Set the process's clock to be off by so many seconds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(b"%d\n" % off)
        self.process.stdin.flush()
        self.process.stdout.readline()

    def date(self) -> float:
        with urlopen(f"{self.url}/health", timeout=60) as answer:
            return parsedate_to_datetime(answer.headers["Date"]).timestamp()

    def half_a_request(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), 60)
        client.sendall(b"GET /hea")
        return client


class SetClockTests(SynchronousTestCase):
    """A complete gateway with its node. The tests wait for events and measure no time."""

    def test_set_back(self) -> None:
        """Behind a step of an hour back half a request is ended, the idle connection closed, ``Date``
        follows, and documents still expire when their time has come by the new clock."""
        running = Running(self, "--header-seconds", "1", "--idle-seconds", "1")
        document = f"{running.url}/v1/buckets/default/documents/k"
        began = running.half_a_request()
        idle = socket.create_connection(("127.0.0.1", running.port), 60)
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        running.set_clock(-HOUR)
        with began:
            # Both would wait for an hour, and the test with them, were the timers bound to that clock.
            self.assertIn(b" 408 ", began.recv(65536))
        with idle:
            while idle.recv(65536):
                pass
        with running.half_a_request() as later:
            self.assertIn(b" 408 ", later.recv(65536))
        while abs(running.date() - (time.time() - HOUR)) > HOUR / 2:
            time.sleep(0.05)
        put = Request(document, b"1", {"X-CB-TTL": "1"}, method="PUT")
        with urlopen(put, timeout=60) as stored:
            self.assertEqual(stored.status, 200)
        while True:
            try:
                with urlopen(document, timeout=60):
                    time.sleep(0.1)
            except OSError as gone:
                self.assertEqual(json.loads(gone.read())["code"], "DocumentNotFound")  # type: ignore[attr-defined]
                break
        running.set_clock(0)
        while abs(running.date() - time.time()) > HOUR / 2:
            time.sleep(0.05)
