"""The gateway's resident size over ten million requests.

    python -m bench.endurance [REQUESTS]

Nine GETs to each PUT of 1 KiB, 32 keep-alive connections, the node in another process, 1,000 keys in turn:
growth here is the gateway's own. New connections replace the old ones every few seconds. Prints the size
after each million (or tenth of the requests), and the largest growth after the first of them.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from bench.harness import Server, machine
from bench.load import generator, run
from bench.peers import GATEWAY, start
from bench.processes import resident_bytes

CONNECTIONS = 32
PUTS_OF_TEN = 1
SECONDS = 5
"""Seconds of each part of the load."""
SAMPLES = 10
MEBIBYTE = 2**20


def main() -> None:
    """Measure, and print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    step = max(1, count // SAMPLES)
    sizes: list[tuple[int, float]] = []
    requests, busy = 0, 0.0
    with ExitStack() as stack:
        (peer,) = start(stack, [GATEWAY], stack.enter_context(Server("node")))
        peer.store()
        sizes.append((0, resident_bytes(peer.processes["gateway"]) / MEBIBYTE))
        while requests < count:
            outcome = run(peer.load(PUTS_OF_TEN, CONNECTIONS, SECONDS))
            requests += outcome.requests
            busy += outcome.seconds
            if requests >= min(count, step * len(sizes)):
                sizes.append((requests, resident_bytes(peer.processes["gateway"]) / MEBIBYTE))
    print(
        f"{machine()}; {requests:,} requests by {generator()}, {requests / busy:,.0f} a second,"
        f" {CONNECTIONS} connections\n"
    )
    print("| requests | resident MiB |\n| ---: | ---: |")
    for answers, size in sizes:
        print(f"| {answers:,} | {size:.1f} |")
    growth = max(size for _, size in sizes[1:]) - sizes[1][1]
    print(f"\nlargest growth after the first {sizes[1][0]:,} requests: {growth:.1f} MiB")


if __name__ == "__main__":
    main()
