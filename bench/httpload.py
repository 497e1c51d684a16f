"""A load generator for machines without wrk: requests over HTTP connections for a given time.

    python -m bench.httpload URL GET_PATH PUT_PATH PUTS CONNECTIONS SECONDS

Each connection has one request under way; PUTS of ten requests are PUTs. ``{n}`` in a path becomes 0 to 999
in turn, so that the documents differ. Prints ``{"requests": ..., "seconds": ..., "p50_us": ..., "p99_us":
...}``; fails on any answer whose status is not 2xx.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httptools

from bench.load import Load, any_certificate, requests_of


async def connected(url: str, make: Callable[[], Any], context: ssl.SSLContext | None = None) -> Any:
    """Open a connection to the server of a URL, and return its protocol, which ``make`` returns."""
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port or 0
    _, protocol = await asyncio.get_running_loop().create_connection(make, host, port, ssl=context)
    return protocol


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: Any, until: float, latencies: array[float]) -> None:
        self.requests = requests
        self.until = until
        self.latencies = latencies
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.parser = httptools.HttpResponseParser(self)
        self.sent = 0.0

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self.transport = transport
        self.send()

    def send(self) -> None:
        """Send a request."""
        self.sent = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        """Handle received bytes."""
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Check the answer, and continue until the time is over."""
        now = time.perf_counter()
        if self.parser.get_status_code() // 100 != 2:
            self.fail(f"status {self.parser.get_status_code()}")
            return
        self.latencies.append(now - self.sent)
        if now < self.until:
            self.send()
        else:
            self.leave()

    def leave(self) -> None:
        """Close the connection: everything is done."""
        self.transport.close()
        if not self.finished.done():
            self.finished.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail unless everything is done."""
        self.fail(f"the server closed the connection: {error}")

    def fail(self, reason: str) -> None:
        """End the measurement."""
        if not self.finished.done():
            self.finished.set_exception(RuntimeError(reason))


async def measure(load: Load) -> dict[str, float]:
    """Send requests until the time is over, and return the results."""
    parts = urlsplit(load.url)
    made = []
    for method, path, body in requests_of(load):
        head = f"{method} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        made.append(f"{head}\r\n{body}".encode())
    requests, latencies = itertools.cycle(made), array("d")
    context = any_certificate() if parts.scheme == "https" else None
    waiting = []
    begun = time.perf_counter()
    for _ in range(load.connections):
        client = await connected(load.url, lambda: Client(requests, begun + load.seconds, latencies), context)
        waiting.append(client.finished)
    await asyncio.gather(*waiting)
    seconds = time.perf_counter() - begun
    in_order = sorted(latencies)
    p50, p99 = (in_order[int(len(in_order) * part)] * 1e6 for part in (0.5, 0.99))
    return {"requests": len(in_order), "seconds": seconds, "p50_us": p50, "p99_us": p99}


def main() -> None:
    """Measure as the command line says."""
    url, get, put, puts, connections, seconds = sys.argv[1:]
    load = Load(url, get, put, int(puts), int(connections), int(seconds))
    print(json.dumps(asyncio.run(measure(load))))


if __name__ == "__main__":
    main()
