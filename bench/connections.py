"""Memory of an idle keep-alive connection in the server.

    python -m bench.connections [--connections N] [--only WORD ...]

Opens 10,000 connections, each of which makes one request and then stays idle. Reads the resident size of the
server's process before, with all of them, and after they were closed. A second pass shows how much of the
memory is reused. Rows are those of bench.gateway that have one process to look at. The kernel's own
memory for sockets is not included. Needs Linux, for /proc and for the whole of 127.0.0.0/8.
"""

from __future__ import annotations

import argparse
import re
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from bench.harness import Samples, Server, machine
from bench.peers import CLIENT, GATEWAY, PEERS, PLAIN, UNLOGGED, WEBDIS, WORKERS, Peer, start
from bench.processes import resident_bytes

MEBIBYTE = 2**20
OWN_FILES = 200
"""Open files that a process needs beside the connections."""
CONNECTIONS_AN_ADDRESS = 5000
"""Limit for one source address, so that closed ones that the kernel still holds do not use up its ports."""
SETTLE_SECONDS = 1.0
NODE_SECONDS = 60.0

BIND_ADDRESS_NO_PORT = 24
"""IP_BIND_ADDRESS_NO_PORT of Linux, which Python does not name: the port is chosen when the peer is known."""


def allow_files(count: int) -> None:
    """Let this process and those it will start open as many files.

    :raises SystemExit: the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise SystemExit(f"{count} open files are needed, and the hard limit here is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


@contextmanager
def idle_connections(peer: Peer, count: int) -> Iterator[None]:
    """Hold connections open that have made one request each."""
    parts = urlsplit(peer.url)
    request = f"GET {peer.get.replace('{n}', '0')} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    opened: list[socket.socket] = []
    try:
        for number in range(count):
            connection = socket.socket()
            opened.append(connection)
            connection.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
            connection.bind((f"127.0.0.{2 + number // CONNECTIONS_AN_ADDRESS}", 0))
            connection.settimeout(NODE_SECONDS)
            connection.connect((parts.hostname, parts.port))
            connection.sendall(request)
            read_answer(connection)
        yield
        for connection in opened:
            connection.setblocking(False)
            try:
                data = connection.recv(1)
            except BlockingIOError:
                continue
            raise RuntimeError(f"{peer.name} did not keep a connection: received {data!r}")
    finally:
        for connection in opened:
            connection.close()


def read_answer(connection: socket.socket) -> None:
    """Read one answer with a Content-Length.

    :raises RuntimeError: its status is not 200, or it ends early.
    """
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        if end:
            length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
            if not head.startswith(b"HTTP/1.1 200 ") or length is None:
                raise RuntimeError(f"a GET was answered with {head!r}")
            if len(body) >= int(length[1]):
                return
        more = connection.recv(65536)
        if not more:
            raise RuntimeError(f"the connection was closed after {data!r}")
        data += more


def measure(peer: Peer, count: int, samples: Samples) -> None:
    """Open and close connections twice, and record the sizes."""
    (_, pid), *_ = peer.processes.items()
    with idle_connections(peer, 100):  # everything imported and stored, every pool filled
        pass
    time.sleep(SETTLE_SECONDS)
    for turn in ("", ", again"):
        before = resident_bytes(pid)
        samples.add(peer.name, f"MiB before{turn}", before / MEBIBYTE)
        with idle_connections(peer, count):
            time.sleep(SETTLE_SECONDS)
            during = resident_bytes(pid)
        time.sleep(SETTLE_SECONDS)
        samples.add(peer.name, f"MiB with them{turn}", during / MEBIBYTE)
        if not turn:
            samples.add(peer.name, "bytes a connection", (during - before) / count)
    samples.add(peer.name, "MiB after", resident_bytes(pid) / MEBIBYTE)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.connections", description="See the module's docstring."
    )
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", default=[GATEWAY, PLAIN, WEBDIS, CLIENT])
    given = parser.parse_args()
    allow_files(given.connections + OWN_FILES)
    names = [
        name
        for name in PEERS
        if name not in (UNLOGGED, WORKERS) and any(word.lower() in name.lower() for word in given.only)
    ]
    samples = Samples()
    # Neither limit may end the measurement: all connections must stay open.
    options = [f"--max-clients={given.connections + OWN_FILES}", "--idle-seconds=600"]
    with ExitStack() as stack:
        for peer in start(stack, names, stack.enter_context(Server("node")), options):
            peer.store()
            measure(peer, given.connections, samples)
    print(f"{machine()}; {given.connections} idle keep-alive connections\n")
    print(samples.table("resident size", digits=1))


if __name__ == "__main__":
    main()
