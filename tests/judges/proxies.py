"""Gateways and proxies as separate processes, and clients that speak to the proxies' Unix sockets."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.judges.programs import START_SECONDS, Process, twistd


class Gateway:
    """A gateway on a free TCP port and a Unix socket, with its embedded node in memory."""

    def __init__(self, case: SynchronousTestCase, folder: Path, name: str, *options: str) -> None:
        self.unix = folder / f"{name}.sock"
        listen = ["--listen", "tcp:0:interface=127.0.0.1", "--listen", f"unix:{self.unix}"]
        process = twistd("couchgateway", "--ephemeral", *listen, *options)
        case.addCleanup(process.stop)
        wait_until(case, process, lambda: "Ready: " in process.log)
        found = re.search(r"Ready: http://(127\.0\.0\.1:\d+)", process.log)
        assert found is not None, process.log
        self.address = found[1]


def wait_until(case: SynchronousTestCase, process: Process, happened: Callable[[], bool]) -> None:
    """Wait for something; the test fails if the program ends before, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not happened():
        if process.process.poll() is not None or time.monotonic() > deadline:
            case.fail(f"{process.process.args!r} does not start:\n{process.log[-2000:]}")
        time.sleep(0.05)


def folder_of(case: SynchronousTestCase) -> Path:
    """Return a new folder whose path is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="judge"))
    case.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


def start_proxy(case: SynchronousTestCase, command: list[str], folder: Path) -> Path:
    """Start a proxy that listens on ``proxy.sock`` in its folder; returns that path."""
    path = folder / "proxy.sock"
    proxy = Process(command)
    case.addCleanup(proxy.stop)

    def answers() -> bool:
        try:
            return ask(path, "GET", "/health").status == 200
        except (OSError, http.client.HTTPException):
            return False

    wait_until(case, proxy, answers)
    return path


def connect(path: Path) -> http.client.HTTPConnection:
    """Return a connection to a Unix socket."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(60)
    connection.sock.connect(str(path))
    return connection


class Answer:
    """An answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.body = response.read()
        self.getheader = response.getheader


def ask(
    path: Path,
    method: str,
    target: str,
    body: bytes | None = None,
    *,
    headers: dict[str, str] | None = None,
    reads_on: bool = False,
) -> Answer:
    """Send a request on a new connection; returns the parsed answer."""
    connection = connect(path)
    try:
        try:
            connection.request(method, target, body, headers or {})
        except (BrokenPipeError, ConnectionResetError):
            # The proxy takes no more of the body; what it has answered may be there to read.
            if not reads_on:
                raise
        return Answer(connection.getresponse())
    finally:
        connection.close()


def outcome(
    path: Path, method: str, target: str, body: bytes | None = None, *, reads_on: bool = False
) -> str:
    """Return the status of an answer, or what happened instead.

    :param reads_on: look for an answer also if not all of the body was taken.
    """
    try:
        return str(ask(path, method, target, body, reads_on=reads_on).status)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


def at_once(count: int, call: Callable[[], str]) -> dict[str, int]:
    """Return the number of each outcome for that many simultaneous calls."""
    with ThreadPoolExecutor(count) as threads:
        outcomes = [one.result() for one in [threads.submit(call) for _ in range(count)]]
    return {kind: outcomes.count(kind) for kind in sorted(set(outcomes))}
