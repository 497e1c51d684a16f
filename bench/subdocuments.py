"""One path of a 1 KiB document changed and read over HTTP, beside the whole document.

    python -m bench.subdocuments [--rounds N] [--seconds N] [--connections N]

Prints medians over the rounds (5) of requests a second, and CPU of the gateway and of its node (in another
process) a request, for PUT, mutate, GET and lookup in turn, each for so many seconds (2) at 32 keep-alive
connections, one request under way on each, on 1,000 keys in turn. The goal: mutate at no less than 1/1.3 of
PUT's rate. The load is made in this process, and shares the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from array import array
from contextlib import ExitStack
from urllib.parse import urlsplit

from bench.harness import Samples, Server, machine
from bench.httpload import Client
from bench.load import KEYS

PATH = "/v1/buckets/default/documents/part-{n}"
DOCUMENT = '{"n":1,"text":"' + "x" * (1024 - 17) + '"}'
REQUESTS = {
    "PUT": ("PUT", PATH, DOCUMENT),
    "mutate": ("POST", PATH + "/mutate", '{"operations":[{"operation":"DictSet","path":"n","value":42}]}'),
    "GET": ("GET", PATH, ""),
    "lookup": ("POST", PATH + "/lookup", '{"operations":[{"operation":"Get","path":"n"}]}'),
}
GOAL = 1.3


async def load(
    url: str, request: tuple[str, str, str], connections: int, seconds: float
) -> tuple[int, float]:
    """Send one kind of request for so long; return how many were answered, and the seconds.

    :param request: method, path with ``{n}`` for the number of a key, body.
    """
    parts = urlsplit(url)
    method, path, body = request
    made = []
    for key in range(KEYS):
        head = f"{method} {path.replace('{n}', str(key))} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        made.append(f"{head}\r\n{body}".encode())
    requests, latencies = itertools.cycle(made), array("d")
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    waiting = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Client(requests, begun + seconds, latencies), parts.hostname, parts.port
        )
        waiting.append(client.finished)
    await asyncio.gather(*waiting)
    return len(latencies), time.perf_counter() - begun


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.subdocuments", description="See the docstring.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    rates, costs = Samples(), Samples()
    with ExitStack() as stack:
        node = stack.enter_context(Server("node"))
        gateway = stack.enter_context(Server("gateway", node.address))
        seconds = 1.0
        while asyncio.run(load(gateway.address, REQUESTS["PUT"], given.connections, seconds))[0] < KEYS:
            seconds *= 2
        for name in REQUESTS:
            asyncio.run(load(gateway.address, REQUESTS[name], given.connections, 1))
        for _, name in itertools.product(range(given.rounds), REQUESTS):
            used = gateway.cpu_seconds(), node.cpu_seconds()
            count, seconds = asyncio.run(
                load(gateway.address, REQUESTS[name], given.connections, given.seconds)
            )
            rates.add("requests a second", name, count / seconds)
            for server, process, before in ((gateway, "gateway", used[0]), (node, "node", used[1])):
                costs.add(process, name, (server.cpu_seconds() - before) / count * 1e6)
    print(
        f"{machine()}; {given.seconds:g} s of each, {given.connections} connections, "
        f"medians of {given.rounds} rounds\n"
    )
    print(rates.table("rate"), end="\n\n")
    print(costs.table("CPU us a request", digits=1), end="\n\n")
    ratio = rates.median("requests a second", "PUT") / rates.median("requests a second", "mutate")
    print(f"a mutate takes {ratio:.2f} of a PUT; the goal is {GOAL}: {'met' if ratio <= GOAL else 'MISSED'}")


if __name__ == "__main__":
    main()
