"""Documents of 1 KiB over HTTP/2, beside HTTP/1.1.

    python -m bench.streams [--rounds N] [--seconds N]

Prints medians over the rounds (5) of requests a second, and CPU of the gateway and of its node (in another
process) a request, for GET and PUT with 32 requests under way: on 32 connections of HTTP/1.1, on one
connection of HTTP/2, and on 32 connections of HTTP/2 with one stream each. They take turns, each for so many
seconds (2), on 1,000 keys in turn. The load is made in this process, and shares the cores; its heads of
HTTP/2 are compressed beforehand, as those of a client that repeats itself.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import struct
import time
from contextlib import ExitStack
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from hpack import Encoder
from hpack.struct import NeverIndexedHeaderTuple

from bench.harness import Samples, Server, machine
from bench.httpload import connected
from bench.load import DOCUMENT, KEYS
from bench.rounds import load

PATH = "/v1/buckets/default/documents/bench-{n}"
UNDER_WAY = 32
METHODS = {"PUT": DOCUMENT, "GET": ""}
# Protocol and connections -> connections, streams of each; no streams for HTTP/1.1.
WAYS = {
    f"HTTP/1.1, {UNDER_WAY} connections": (UNDER_WAY, 0),
    f"HTTP/2, {UNDER_WAY} streams": (1, UNDER_WAY),
    f"HTTP/2, {UNDER_WAY} connections": (UNDER_WAY, 1),
}

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGEST = 2**31 - 1
_OK = 0x88
_CREDIT = 2**29


def frame(kind: int, stream: int, content: bytes, flags: int = 0) -> bytes:
    """Return a frame."""
    return struct.pack(">HBBBL", len(content) >> 8, len(content) & 255, kind, flags, stream) + content


class Heads:
    """Compressed heads of requests on one connection."""

    def __init__(self, authority: str, method: str) -> None:
        self._fields = [(":method", method), (":scheme", "http"), (":authority", authority)]
        self._behind = [("user-agent", "bench/1"), ("accept", "*/*")]
        if METHODS[method]:
            length = str(len(METHODS[method]))
            self._behind += [("content-type", "application/json"), ("content-length", length)]
        self._encoder = Encoder()
        self.first = self._encode(0)
        # From now on the table does not change.
        self.others = [self._encode(number) for number in range(KEYS)]

    def _encode(self, number: int) -> bytes:
        path = NeverIndexedHeaderTuple(":path", PATH.replace("{n}", str(number)))
        return self._encoder.encode([*self._fields, path, *self._behind])


@cache
def heads_of(authority: str, method: str) -> Heads:
    """Return the heads, which are the same on each connection."""
    return Heads(authority, method)


class Client(asyncio.Protocol):
    """One connection.

    :param streams: number of requests under way.
    """

    def __init__(self, authority: str, method: str, streams: int, until: float) -> None:
        heads = heads_of(authority, method)
        self._heads = itertools.chain([heads.first], itertools.cycle(heads.others))
        self._body = METHODS[method].encode()
        self._streams = streams
        self._until = until
        self._next = 1
        self._under_way = 0
        self._received = 0
        self._buffer = b""
        self.count = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Send the settings and the first requests."""
        self._transport = transport
        settings = struct.pack(">HL", 4, _LARGEST)
        window = frame(8, 0, struct.pack(">L", _CREDIT))
        transport.write(_PREFACE + frame(4, 0, settings) + window)
        transport.write(b"".join([self._request() for _ in range(self._streams)]))

    def _request(self) -> bytes:
        number, self._next = self._next, self._next + 2
        self._under_way += 1
        head = next(self._heads)
        if not self._body:
            return frame(1, number, head, 5)
        return frame(1, number, head, 4) + frame(0, number, self._body, 1)

    def data_received(self, data: bytes) -> None:
        """Count the answers, and send as many further requests."""
        data = self._buffer + data
        start, answered = 0, 0
        while len(data) - start >= 9:
            end = start + 9 + int.from_bytes(data[start : start + 3], "big")
            if end > len(data):
                break
            kind, flags = data[start + 3], data[start + 4]
            if kind == 1 and data[start + 9] != _OK:
                self._fail("a status other than 200")
                return
            if kind in (3, 7):
                self._fail(f"frame {kind}: {data[start + 9 : end]!r}")
                return
            if kind == 4 and not flags & 1:
                self._transport.write(frame(4, 0, b"", 1))
            if kind == 0:
                self._received += end - start - 9
            answered += kind < 2 and flags & 1
            start = end
        self._buffer = data[start:]
        self.count += answered
        self._under_way -= answered
        more = b""
        if self._received > _CREDIT // 2:
            more = frame(8, 0, struct.pack(">L", self._received))
            self._received = 0
        if time.perf_counter() < self._until:
            self._transport.write(more + b"".join([self._request() for _ in range(answered)]))
        elif not self._under_way and not self.finished.done():
            self._transport.close()
            self.finished.set_result(None)

    def _fail(self, reason: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(RuntimeError(reason))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail unless everything is done."""
        self._fail(f"the server closed the connection: {error}")


async def load_2(url: str, method: str, connections: int, streams: int, seconds: float) -> tuple[int, float]:
    """Send requests over HTTP/2 until the time is over; return their number, and the seconds."""
    netloc = urlsplit(url).netloc
    heads_of(netloc, method)
    begun = time.perf_counter()
    clients = []
    for _ in range(connections):
        clients.append(await connected(url, lambda: Client(netloc, method, streams, begun + seconds)))
    await asyncio.gather(*[client.finished for client in clients])
    return sum(client.count for client in clients), time.perf_counter() - begun


def measure(url: str, method: str, way: str, seconds: float) -> tuple[int, float]:
    """Load the gateway; return the number of requests, and the seconds."""
    connections, streams = WAYS[way]
    if streams:
        return asyncio.run(load_2(url, method, connections, streams, seconds))
    return asyncio.run(load(url, (method, PATH, METHODS[method]), connections, seconds))


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description="See the docstring.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    given = parser.parse_args()
    rates, costs = Samples(), Samples()
    with ExitStack() as stack:
        node = stack.enter_context(Server("node"))
        gateway = stack.enter_context(Server("gateway", node.address))
        for method, way in itertools.product(METHODS, WAYS):
            measure(gateway.address, method, way, 1)
        for _, method, way in itertools.product(range(given.rounds), METHODS, WAYS):
            used = gateway.cpu_seconds(), node.cpu_seconds()
            count, seconds = measure(gateway.address, method, way, given.seconds)
            rates.add(way, method, count / seconds)
            for server, process, before in ((gateway, "gateway", used[0]), (node, "node", used[1])):
                costs.add(f"{way}: {process}", method, (server.cpu_seconds() - before) / count * 1e6)
    print(f"{machine()}; {given.seconds:g} s of each, medians of {given.rounds} rounds\n")
    print(rates.table("requests a second"), end="\n\n")
    print(costs.table("CPU us a request", digits=1))


if __name__ == "__main__":
    main()
