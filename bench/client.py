"""txcouchbase beside the official client, against the same couchnode; then couchnode itself.

    python -m bench.client [OPERATIONS] [ROUNDS] [stub]

First comes txcouchbase against bench/stub.py, a server that costs less than any client: this shows what
the clients can do if the server does not delay them, without TLS and with it. With ``stub`` that is all.

The official 4.x client takes part if ``.venv-interop`` has it (``make interop``), with the Twisted of
bench/requirements.txt.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from contextlib import ExitStack

from bench.harness import HERE, OFFICIAL_PYTHON, OWN_PYTHON, Samples, Server, machine, run_json
from bench.rawclient import VBUCKETS, RawClient, set_request
from bench.securepeers import certificate
from bench.serve import PASSWORD, USER
from couchbase.protocol.constants import Opcode
from couchbase.protocol.frames import encode_request
from couchbase.protocol.hashing import vbucket_of

FLAVOURS = {
    "official 4.x, Deferreds": "official",
    "txcouchbase Connection": "deferred",
    "txcouchbase TxAsyncConnection": "async",
}
# The cases in which the node is measured: with one operation under way it mostly waits.
STUB_CASES = ("get, 64", "set, 64", "get_multi of 1,000")
STUB_TIMES = 3
BASE = "official 4.x, Deferreds"
WORKER_SECONDS = 300
BLOCK = 100
BLOCKS_UNDER_WAY = 4


def has_official() -> bool:
    """Return whether the official client can take part."""
    if not OFFICIAL_PYTHON.exists():
        return False
    check = [str(OFFICIAL_PYTHON), "-c", "import txcouchbase.cluster"]
    return subprocess.run(check, cwd="/", capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


def measure_clients(
    node: Server, count: int, rounds: int, flavours: dict[str, str]
) -> tuple[Samples, Samples]:
    """Return (operations a second, CPU microseconds an operation)."""
    rates, costs = Samples(), Samples()
    for _ in range(rounds):
        for name, kind in flavours.items():
            python = str(OFFICIAL_PYTHON) if kind == "official" else OWN_PYTHON
            command = [python, str(HERE / "client_worker.py"), kind, node.address, USER, PASSWORD, str(count)]
            # Run it in another folder, so that the official client is not hidden by this checkout's package.
            for case, (rate, cost) in run_json(command, cwd="/", timeout=WORKER_SECONDS).items():
                rates.add(name, case, rate)
                costs.add(name, case, cost)
    return rates, costs


def measure_node(node: Server, count: int, rounds: int) -> Samples:
    """Return gets a second of the node: by the clock, and by the CPU time it used.

    The generator sends ready-made bytes and only counts the answer's, so that the node is what is measured.
    """
    samples = Samples()
    with RawClient(node.address) as client:
        connection = client.connection
        keys = [b"bench-raw-%d" % number for number in range(BLOCK * 10)]
        client.ask([set_request(key, b"x" * 100) for key in keys])
        gets = [encode_request(Opcode.GET, key=key, vbucket=vbucket_of(key, VBUCKETS)) for key in keys]
        blocks_of_gets = itertools.cycle(
            [b"".join(gets[start : start + BLOCK]) for start in range(0, len(gets), BLOCK)]
        )
        # Every answer has the same length, so counting bytes counts answers; the last one is checked.
        answer_bytes = 24 + 4 + 100
        for _ in range(rounds):
            begun, used = time.perf_counter(), node.cpu_seconds()
            for _ in range(BLOCKS_UNDER_WAY):
                connection.sendall(next(blocks_of_gets))
            expected, blocks = count * answer_bytes, count // BLOCK - BLOCKS_UNDER_WAY
            received, acknowledged = 0, 0
            while received < expected:
                data = connection.recv(262144)
                received += len(data)
                while blocks and received >= (acknowledged + 1) * BLOCK * answer_bytes:
                    acknowledged += 1
                    blocks -= 1
                    connection.sendall(next(blocks_of_gets))
            if received != expected or not data.endswith(b"x" * 100):
                raise RuntimeError(f"{received} bytes of answers where {expected} were expected")
            samples.add("couchnode", "gets a second", count / (time.perf_counter() - begun))
            samples.add("couchnode", "gets a CPU second of the node", count / (node.cpu_seconds() - used))
    return samples


def measure_stub(count: int, rounds: int) -> tuple[Samples, Samples]:
    """Return what :func:`measure_clients` returns, for this project's clients against the stub, without TLS
    and with it in turn."""
    rates, costs = Samples(), Samples()
    with ExitStack() as stack:
        stubs = {
            "": stack.enter_context(Server("stub")),
            ", TLS": stack.enter_context(Server("stub", certificate(stack))),
        }
        for _, (suffix, stub) in itertools.product(range(rounds), stubs.items()):
            flavours = {name + suffix: kind for name, kind in FLAVOURS.items() if kind != "official"}
            for found, all_found in zip(
                measure_clients(stub, count, 1, flavours), (rates, costs), strict=True
            ):
                for row, column in itertools.product(found.rows(), found.columns()):
                    figure = found.median(row, column)
                    if figure is not None:
                        all_found.add(row, column, figure)
    return rates.only(STUB_CASES), costs.only(STUB_CASES)


def main() -> None:
    """Measure, and print tables."""
    arguments = sys.argv[1:]
    stub_only = "stub" in arguments
    numbers = [int(text) for text in arguments if text != "stub"]
    count, rounds = (*numbers, *(20_000, 5)[len(numbers) :])
    rates, costs = measure_stub(count * STUB_TIMES, rounds)
    print(f"{machine()}; {count} operations a round ({STUB_TIMES} times that against the stub),", end=" ")
    print(f"medians of {rounds} rounds\n")
    print(rates.table("against a stub, operations a second"), end="\n\n")
    print(costs.table("against a stub, CPU us of the client an operation", digits=2))
    if stub_only:
        return
    flavours = {name: kind for name, kind in FLAVOURS.items() if kind != "official" or has_official()}
    with Server("node") as node:
        rates, costs = measure_clients(node, count, rounds, flavours)
        own = measure_node(node, count * 5, rounds)
    base = BASE if BASE in rates.rows() else None
    print()
    print(rates.table("operations a second", base=base), end="\n\n")
    print(costs.table("CPU us of the client an operation", digits=2, base=base), end="\n\n")
    print(own.table("raw pipelining client, 400 gets of 1,000 keys under way"))
    if base is None:
        print("\nThe official client did not take part: make interop, and see bench/requirements.txt.")


if __name__ == "__main__":
    main()
