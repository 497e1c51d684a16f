"""How many 1 KiB documents a second one batch stores.

python -m bench.batch [DOCUMENTS] [ROUNDS]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from bench.harness import Samples, Server, machine
from bench.streaming import Batch

DOCUMENT_BYTES = 1024
LINES_A_PART = 64


def bodies(count: int) -> Iterator[bytes]:
    """Yield the operations, some at a time."""
    filling = b"x" * (DOCUMENT_BYTES - 11)
    for start in range(0, count, LINES_A_PART):
        numbers = range(start, min(start + LINES_A_PART, count))
        yield b"".join(
            b'{"op":"set","key":"batch-%d","value":{"text":"%b"}}\n' % (n, filling) for n in numbers
        )


def measure(server: Server, count: int) -> tuple[float, float]:
    """Return (documents a second, CPU microseconds of the gateway a document)."""
    batch = Batch(server.address, bodies(count))
    begun, used = time.perf_counter(), server.cpu_seconds()
    batch.run()
    seconds, used = time.perf_counter() - begun, server.cpu_seconds() - used
    if batch.answers != count or batch.failures:
        raise RuntimeError(f"{batch.answers} answers to {count} documents, {batch.failures} of them errors")
    return count / seconds, used / count * 1e6


def main() -> None:
    """Measure, and print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    samples = Samples()
    with Server("node") as node, Server("gateway", node.address) as separate, Server("gateway") as embedded:
        peers = {"gateway, node in its own process": separate, "gateway with embedded node": embedded}
        for server in peers.values():
            measure(server, 2000)
        for _ in range(rounds):
            for name, server in peers.items():
                rate, cost = measure(server, count)
                samples.add(name, "documents a second", rate)
                samples.add(name, "CPU us of the gateway a document", cost)
    print(f"{machine()}; {count} documents of {DOCUMENT_BYTES} bytes a round, medians of {rounds} rounds\n")
    print(samples.table("one batch"))


if __name__ == "__main__":
    main()
