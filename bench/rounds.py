"""Kinds of requests to one gateway in turn: their rates and their costs.

The gateway and its node are in processes of their own; the load is made in this one, and shares the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from array import array
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from urllib.parse import urlsplit

from bench.harness import Samples, Server, machine
from bench.httpload import Client, connected
from bench.load import KEYS

Kind = tuple[str, str, str]
"""Method, path with ``{n}`` for the number of a key, body."""

RATE = "requests a second"


async def load(url: str, request: Kind, connections: int, seconds: float) -> tuple[int, float]:
    """Send one kind of request for so long; return how many were answered, and the seconds."""
    parts = urlsplit(url)
    method, path, body = request
    made = []
    for key in range(KEYS):
        head = f"{method} {path.replace('{n}', str(key))} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        made.append(f"{head}\r\n{body}".encode())
    requests, latencies = itertools.cycle(made), array("d")
    begun = time.perf_counter()
    waiting = []
    for _ in range(connections):
        client = await connected(url, lambda: Client(requests, begun + seconds, latencies))
        waiting.append(client.finished)
    await asyncio.gather(*waiting)
    return len(latencies), time.perf_counter() - begun


def measure(
    program: str, requests: Mapping[str, Kind], prepare: Callable[[str], None] = lambda url: None
) -> Samples:
    """Measure as the command line says, and print tables; return the rates, in one row.

    :param program: for the help text.
    :param requests: kinds of requests by their names, which are columns; the first ones store documents.
    :param prepare: called with the gateway's address before all else.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description="See the docstring.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    rates, costs = Samples(), Samples()
    with ExitStack() as stack:
        node = stack.enter_context(Server("node"))
        gateway = stack.enter_context(Server("gateway", node.address))
        prepare(gateway.address)
        for kind in requests.values():
            # Each key once: those that store documents come first.
            seconds = 1.0
            while asyncio.run(load(gateway.address, kind, given.connections, seconds))[0] < KEYS:
                seconds *= 2
        for _, name in itertools.product(range(given.rounds), requests):
            used = gateway.cpu_seconds(), node.cpu_seconds()
            count, seconds = asyncio.run(
                load(gateway.address, requests[name], given.connections, given.seconds)
            )
            rates.add(RATE, name, count / seconds)
            for server, process, before in ((gateway, "gateway", used[0]), (node, "node", used[1])):
                costs.add(process, name, (server.cpu_seconds() - before) / count * 1e6)
    print(
        f"{machine()}; {given.seconds:g} s of each, {given.connections} connections, "
        f"medians of {given.rounds} rounds\n"
    )
    print(rates.table("rate"), end="\n\n")
    print(costs.table("CPU us a request", digits=1), end="\n\n")
    return rates


def ratio(rates: Samples, base: str, other: str) -> float:
    """Return how much longer another kind of request takes."""
    first, second = (rates.median(RATE, name) for name in (base, other))
    assert first is not None and second is not None
    return first / second
