"""The gateway's resident size while one batch of a million small operations streams through.

    python -m bench.memory [OPERATIONS]

The node is another process, and the keys repeat, so whatever grows here is the gateway's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from bench.batchstream import BatchStream
from bench.harness import Server, machine

KEYS = 10_000
LINES_A_PART = 500
SAMPLES = 10
MEBIBYTE = 2**20


def bodies(count: int) -> Iterator[bytes]:
    """Yield sets and gets of small documents in turn."""
    for start in range(0, count, LINES_A_PART):
        lines = []
        for number in range(start, min(start + LINES_A_PART, count)):
            if number // KEYS % 2:
                lines.append(b'{"op":"get","key":"memory-%d"}\n' % (number % KEYS))
            else:
                lines.append(b'{"op":"set","key":"memory-%d","value":%d}\n' % (number % KEYS, number))
        yield b"".join(lines)


def main() -> None:
    """Measure, and print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    sizes: list[tuple[int, int]] = []
    with Server("node") as node, Server("gateway", node.address) as gateway:
        BatchStream(
            gateway.address, bodies(min(count, 20_000))
        ).run()  # everything imported, every pool filled
        before = gateway.resident_bytes()

        def sample(answers: int) -> None:
            if answers >= (len(sizes) + 1) * count // SAMPLES:
                sizes.append((answers, gateway.resident_bytes()))

        batch = BatchStream(gateway.address, bodies(count), sample)
        batch.run()
        after = gateway.resident_bytes()
    if batch.answers != count or batch.failures:
        raise RuntimeError(f"{batch.answers} answers to {count} operations, {batch.failures} of them errors")
    print(f"{machine()}; one batch of {count} operations\n")
    print("| answers | resident MiB |\n| ---: | ---: |")
    for answers, size in [(0, before), *sizes]:
        print(f"| {answers:,} | {size / MEBIBYTE:.1f} |")
    print(f"| after | {after / MEBIBYTE:.1f} |")
    largest = max(size for _, size in sizes)
    print(f"\nlargest growth during the batch: {(largest - before) / MEBIBYTE:.1f} MiB")


if __name__ == "__main__":
    main()
