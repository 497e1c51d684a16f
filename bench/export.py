"""Documents of 1 KiB that ``couchgateway-export`` writes and ``couchgateway-load`` stores, a second.

    python -m bench.export [DOCUMENTS] [ROUNDS] [--profile]

Prints medians over the rounds (3) of documents (100,000) a second, of CPU microseconds a document in each
process: the program, the gateway and the node, and of the memory of program (at most) and gateway, which does
not grow with the documents. The goal is 40,000 a second on one core: 25 us in all of them together. With
``--profile``, the programs print the functions that take their time instead.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench.harness import HERE, Samples, Server, machine

DOCUMENT_BYTES = 1024
GOAL = 40_000
PROGRAMS = {"export": "gateway.loader.exportcommand", "load": "gateway.loader.command"}


def write_lines(path: Path, count: int) -> None:
    """Write a file of ordinary lines."""
    filling = "x" * (DOCUMENT_BYTES - 60)
    with open(path, "w", encoding="ascii") as file:
        for number in range(count):
            document = f'{{"n":{number},"type":"beer","abv":5.20,"text":"{filling}"}}'
            file.write(f'{{"id":"document-{number}","doc":{document}}}\n')


def run(name: str, file: Path, address: str, profile: bool) -> tuple[float, float, float]:
    """Run a program to its end; return seconds, seconds of CPU, and its peak memory in MiB."""
    code = f"from {PROGRAMS[name]} import main; main()"
    if profile:
        code = f"import cProfile; cProfile.run({code!r}, sort='tottime')"
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(file), "--bucket", "default", "--url", address], cwd=HERE.parent
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{name} ended with status {process.returncode}")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.export", description="See the docstring.")
    parser.add_argument("documents", type=int, nargs="?", default=100_000)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    rates, costs, sizes = Samples(), Samples(), Samples()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # The documents with all that a node stores about each of them.
        mebibytes = 256 + given.documents * 2 * DOCUMENT_BYTES // 2**20
        node = stack.enter_context(Server("node", str(mebibytes)))
        gateway = stack.enter_context(Server("gateway", node.address))
        ordinary, exported = folder / "ordinary.jsonl", folder / "exported.jsonl"
        write_lines(ordinary, given.documents)
        for _ in range(given.rounds):
            exported.unlink(missing_ok=True)
            for row, name, file in (
                ("load of ordinary lines", "load", ordinary),
                ("export", "export", exported),
                ("load of an export", "load", exported),
            ):
                servers = {"gateway": gateway, "node": node}
                before = {server: servers[server].cpu_seconds() for server in servers}
                seconds, used, mebibytes_used = run(name, file, gateway.address, given.profile)
                sizes.add(row, "program", mebibytes_used)
                sizes.add(row, "gateway", gateway.resident_bytes() / 2**20)
                rates.add(row, "documents a second", given.documents / seconds)
                used_by = {"program": used}
                used_by |= {server: servers[server].cpu_seconds() - before[server] for server in servers}
                for process, cpu in (*used_by.items(), ("together", sum(used_by.values()))):
                    costs.add(row, process, cpu / given.documents * 1e6)
    print(f"{machine()}; {given.documents} documents of {DOCUMENT_BYTES} bytes, {given.rounds} rounds\n")
    print(rates.table("programs"), end="\n\n")
    print(costs.table("CPU us a document", digits=1), end="\n\n")
    print(sizes.table("MiB"), end="\n\n")
    for row in costs.rows():
        cost = costs.median(row, "together") or 0.0
        print(f"{row}: {1e6 / cost:.0f} a second on one core: {'met' if 1e6 / cost >= GOAL else 'MISSED'}")


if __name__ == "__main__":
    main()
