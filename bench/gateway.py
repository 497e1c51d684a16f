"""GET and PUT of a 1 KiB document at 32 connections: the gateway beside bare peers.

    python -m bench.gateway [REQUESTS] [ROUNDS]

Peers: a Klein route that returns 1 KiB, and a plain resource of twisted.web. Server and load generator have a
process each; where the node has one of its own, it is the third on the machine's cores.
"""

from __future__ import annotations

import sys

from bench.harness import OWN_PYTHON, Samples, Server, machine, run_json

CONNECTIONS = 32
DOCUMENT_BYTES = 1024
PATH = "/v1/buckets/default/documents/bench-{n}"
BASE = "bare Klein route"


def load(server: Server, method: str, count: int) -> tuple[float, float]:
    """Return (requests a second, CPU microseconds of the server a request)."""
    before = server.cpu_seconds()
    command = [
        OWN_PYTHON,
        "-m",
        "bench.httpload",
        server.address + PATH,
        method,
        str(CONNECTIONS),
        str(count),
    ]
    found = run_json([*command, str(DOCUMENT_BYTES)])
    used = server.cpu_seconds() - before
    return count / found["seconds"], used / count * 1e6


def main() -> None:
    """Measure, and print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    rates, costs = Samples(), Samples()
    with (
        Server("klein") as klein,
        Server("resource") as plain,
        Server("node") as node,
        Server("gateway", node.address) as separate,
        Server("gateway") as embedded,
    ):
        peers = {
            BASE: klein,
            "plain twisted.web resource": plain,
            "gateway, node in its own process": separate,
            "gateway with embedded node": embedded,
        }
        for server in peers.values():  # the first use warms up, and stores what will be read
            load(server, "PUT", 1000)
            load(server, "GET", 1000)
        for _ in range(rounds):
            for name, server in peers.items():
                for method in ("GET", "PUT"):
                    rate, cost = load(server, method, count)
                    rates.add(name, method, rate)
                    costs.add(name, method, cost)
    print(f"{machine()}; {CONNECTIONS} connections, {count} requests a round, medians of {rounds} rounds\n")
    print(rates.table("requests a second", base=BASE), end="\n\n")
    print(costs.table("CPU us of the server a request", base=BASE))


if __name__ == "__main__":
    main()
