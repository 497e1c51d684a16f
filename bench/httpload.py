"""A load generator: so many requests over so many HTTP connections, and how long they took.

    python -m bench.httpload URL METHOD CONNECTIONS REQUESTS [BODY_BYTES]

Each connection has one request under way. Prints ``{"seconds": ..., "requests": ..., "cpu": ...}``; fails
on any answer that is no 200. ``{n}`` in the URL becomes 0 to 999 in turn, so that the documents differ.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import httptools

KEYS = 1000


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: list[bytes], numbers: Any, finished: asyncio.Future[None]) -> None:
        self.requests = requests
        self.numbers = numbers
        self.finished = finished
        self.parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self.transport = transport
        self.next()

    def next(self) -> None:
        """Send a request, if any is left."""
        number = next(self.numbers, None)
        if number is None:
            self.transport.close()
            if not self.finished.done():
                self.finished.set_result(None)
        else:
            self.transport.write(self.requests[number % len(self.requests)])

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Check the answer, and go on."""
        if self.parser.get_status_code() != 200:
            self.fail(f"status {self.parser.get_status_code()}")
        else:
            self.next()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail unless everything is done."""
        self.fail(f"the server closed the connection: {error}")

    def fail(self, reason: str) -> None:
        """End the measurement."""
        if not self.finished.done():
            self.finished.set_exception(RuntimeError(reason))


def requests_for(url: str, method: str, body_bytes: int) -> list[bytes]:
    """Return the requests, ready to be sent."""
    parts = urlsplit(url)
    made = []
    for number in range(KEYS if "{n}" in url else 1):
        head = f"{method} {parts.path.replace('{n}', str(number))} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        body = b""
        if method != "GET":
            body = b'{"text":"' + b"x" * (body_bytes - 11) + b'"}'
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        made.append(head.encode() + b"\r\n" + body)
    return made


async def measure(url: str, method: str, connections: int, count: int, body_bytes: int) -> dict[str, float]:
    """Send everything, and return what it took."""
    parts = urlsplit(url)
    requests = requests_for(url, method, body_bytes)
    numbers = iter(itertools.islice(itertools.count(), count))
    loop = asyncio.get_running_loop()
    waiting = []
    begun, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(connections):
        finished: asyncio.Future[None] = loop.create_future()
        waiting.append(finished)
        await loop.create_connection(
            lambda done=finished: Client(requests, numbers, done), parts.hostname, parts.port
        )
    await asyncio.gather(*waiting)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return {"seconds": seconds, "requests": count, "cpu": cpu}


def main() -> None:
    """Measure as the command line says."""
    url, method, connections, count, *rest = sys.argv[1:]
    found = asyncio.run(measure(url, method, int(connections), int(count), int(rest[0]) if rest else 0))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
