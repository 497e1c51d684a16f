"""Documents of 1 KiB per second that one batch stores and reads.

    python -m bench.batch [DOCUMENTS] [ROUNDS] [CHECKOUT]

The requests are prepared before the clock runs, and the answers are only counted. With CHECKOUT, the path
of another checkout of this repository, its gateway (with its node) is measured in turn.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path

from bench.batchstream import BatchStream
from bench.harness import HERE, Samples, Server, machine

DOCUMENT_BYTES = 1024
PART_BYTES = 65536
EMBEDDED, SEPARATE = "gateway with embedded node", "gateway, node in its own process"


def bodies(count: int, operation: str) -> list[bytes]:
    """Return the operations, some in each part."""
    filling = b"x" * (DOCUMENT_BYTES - 11)
    line = {
        "set": b'{"op":"set","key":"batch-%d","value":{"text":"' + filling + b'"}}\n',
        "get": b'{"op":"get","key":"batch-%d"}\n',
    }[operation]
    step = PART_BYTES // len(line)
    return [
        b"".join(line % number for number in range(start, min(start + step, count)))
        for start in range(0, count, step)
    ]


def measure(
    server: Server, node: Server | None, parts: list[bytes], count: int
) -> tuple[float, float, float]:
    """Return documents a second, CPU microseconds of the gateway a document, and those of the node."""
    batch = BatchStream(server.address, parts)
    begun, used = time.perf_counter(), server.cpu_seconds()
    used_by_node = node.cpu_seconds() if node is not None else 0.0
    batch.run()
    seconds, used = time.perf_counter() - begun, server.cpu_seconds() - used
    used_by_node = node.cpu_seconds() - used_by_node if node is not None else 0.0
    if batch.answers != count or batch.failures:
        raise RuntimeError(f"{batch.answers} answers to {count} documents, {batch.failures} of them errors")
    return count / seconds, used / count * 1e6, used_by_node / count * 1e6


def main() -> None:
    """Measure, and print tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    roots = {"": HERE.parent}
    if len(sys.argv) > 3:
        roots[f", {sys.argv[3]}"] = Path(sys.argv[3])
    prepared = {operation: bodies(count, operation) for operation in ("set", "get")}
    rates, costs, costs_of_node = Samples(), Samples(), Samples()
    with ExitStack() as stack:
        peers: dict[str, tuple[Server, Server | None]] = {}
        for name, root in roots.items():
            node = stack.enter_context(Server("node", root=root))
            separate = stack.enter_context(Server("gateway", node.address, root=root))
            embedded = stack.enter_context(Server("gateway", root=root))
            peers |= {SEPARATE + name: (separate, node), EMBEDDED + name: (embedded, None)}
        for server, node_or_none in peers.values():
            measure(server, node_or_none, bodies(2000, "set"), 2000)
        for _ in range(rounds):
            for operation, parts in prepared.items():
                for name, (server, node_or_none) in peers.items():
                    rate, cost, cost_of_node = measure(server, node_or_none, parts, count)
                    rates.add(name, operation, rate)
                    costs.add(name, operation, cost)
                    if node_or_none is not None:
                        costs_of_node.add(name, operation, cost_of_node)
    print(f"{machine()}; {count} documents of {DOCUMENT_BYTES} bytes a round, medians of {rounds} rounds\n")
    print(rates.table("documents a second in one batch"), end="\n\n")
    print(costs.table("CPU us of the gateway a document", digits=1), end="\n\n")
    print(costs_of_node.table("CPU us of the node a document", digits=1))


if __name__ == "__main__":
    main()
