"""Documents of 1 KiB in a named collection over HTTP, beside those of the default one.

    python -m bench.keyspaces [--rounds N] [--seconds N] [--connections N]

Prints medians over the rounds (5) of requests a second, and CPU of the gateway and of its node (in another
process) a request, for GET and PUT in both collections in turn, each for so many seconds (2) at 32 keep-alive
connections, one request under way on each, on 1,000 keys in turn. The goal: a named collection takes no more
than 1.1 of the time. The load is made in this process, and shares the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from contextlib import ExitStack
from urllib.request import Request, urlopen

from bench.harness import Samples, Server, machine
from bench.load import DOCUMENT
from bench.subdocuments import load

BUCKET = "/v1/buckets/default"
COLLECTION = f"{BUCKET}/scopes/bench/collections/bench"
PATHS = {"default": BUCKET + "/documents/{n}", "named": COLLECTION + "/documents/{n}"}
REQUESTS = {
    f"{method}, {name}": (method, path, DOCUMENT if method == "PUT" else "")
    for method in ("PUT", "GET")
    for name, path in PATHS.items()
}
GOAL = 1.1


def create(url: str) -> None:
    """Create the collection."""
    for path in (COLLECTION.partition("/collections/")[0], COLLECTION):
        with urlopen(Request(url + path, method="PUT"), timeout=30) as answer:
            answer.read()


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.keyspaces", description="See the docstring.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    rates, costs = Samples(), Samples()
    with ExitStack() as stack:
        node = stack.enter_context(Server("node"))
        gateway = stack.enter_context(Server("gateway", node.address))
        create(gateway.address)
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
    for method in ("GET", "PUT"):
        default, named = (rates.median("requests a second", f"{method}, {name}") for name in PATHS)
        verdict = "met" if default / named <= GOAL else "MISSED"
        print(f"a {method} in a named collection takes {default / named:.2f}; the goal is {GOAL}: {verdict}")


if __name__ == "__main__":
    main()
