"""One operation at a time, beside the bare system calls that it needs.

    python -m bench.singles [--rounds N] [--seconds N]

Prints medians over the rounds (5) of CPU an operation, of the client and of the node, for gets and sets of
100 bytes, each sent after the answer to the one before, for so many seconds (1). "Bare system calls" are two
processes of Python that wait for each other's bytes with epoll and hold nothing else: the client sends a
request of the same length and waits for the answer, the server receives and sends an answer of the same
length. The goal: client and node each cost at most 1.2 of that. Needs Linux.
"""

from __future__ import annotations

import argparse
import itertools
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.guide import Load, run
from bench.guide_worker import WARM_SECONDS
from bench.harness import HERE, OWN_PYTHON, Samples, Server, machine
from bench.processes import cpu_seconds
from bench.serve import PASSWORD, USER

GOAL = 1.2
BARE = "bare system calls"
CLIENTS = {
    "couchbase Connection": "blocking",
    "txcouchbase Connection": "deferred",
    "txcouchbase TxAsyncConnection": "async",
}
# Bytes of a request and of its answer: header (24), extras (4, 8, 16), collection and key (17), value (100).
SIZES = {"get": (41, 128), "set": (149, 40)}
CHUNK_BYTES = 65536


def echo(request: int, answer: int) -> None:
    """Answer requests of one length on one connection until it closes, by epoll and non-blocking calls."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        connection, _ = listening.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = b"x" * answer
    for received in arrivals(connection):
        if received != request:
            raise RuntimeError(f"a request of {received} bytes")
        connection.send(data)


def arrivals(connection: socket.socket) -> Iterator[int]:
    """Yield how many bytes arrived at a time, until the peer closes."""
    connection.setblocking(False)
    with select.epoll() as poller:
        poller.register(connection, select.EPOLLIN)
        while True:
            poller.poll()
            data = connection.recv(CHUNK_BYTES)
            if not data:
                return
            yield len(data)


@contextmanager
def echoing(what: str) -> Iterator[tuple[int, int]]:
    """Run :func:`echo` in a process; yields (pid, port)."""
    command = [OWN_PYTHON, "-m", "bench.singles", "echo", what]
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())


def ask(port: int, what: str, seconds: float) -> int:
    """Send requests one at a time for so long; return how many."""
    request, answer = SIZES[what]
    data, count = b"x" * request, 0
    until = time.perf_counter() + seconds
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.send(data)
        for received in arrivals(connection):
            if received != answer:
                raise RuntimeError(f"an answer of {received} bytes")
            count += 1
            if time.perf_counter() >= until:
                break
            connection.send(data)
    return count


def measure_bare(what: str, seconds: float, costs: Samples) -> None:
    """Add the costs of the system calls alone."""
    with echoing(what) as (pid, port):
        before, own = cpu_seconds(pid), time.process_time()
        count = ask(port, what, seconds)
        costs.add(BARE, f"{what}, client", (time.process_time() - own) / count * 1e6)
        costs.add(BARE, f"{what}, node", (cpu_seconds(pid) - before) / count * 1e6)


def measure_client(name: str, what: str, options: argparse.Namespace, node: Server, costs: Samples) -> None:
    """Add the costs of a client, and of the node meanwhile, warm-up included."""
    load = Load(batch=1, sets=int(what == "set"), gets=int(what == "get"), under_way=1)
    reached = {"connection_string": node.address, "user": USER, "password": PASSWORD, "bucket": "default"}
    before = node.cpu_seconds()
    figures = run(CLIENTS[name], load, options, reached)
    count = figures["operations a second"] * (options.seconds + WARM_SECONDS)
    costs.add(name, f"{what}, client", figures["cpu"])
    costs.add(name, f"{what}, node", (node.cpu_seconds() - before) / count * 1e6)


def verdicts(costs: Samples) -> str:
    """Return a table of what each client costs, and the node with it, as ratios to the calls alone."""
    columns = costs.columns()
    lines = [f"| of the bare calls | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for name in CLIENTS:
        cells = []
        for column in columns:
            ratio = costs.ratio(name, BARE, column)
            verdict = "met" if ratio is not None and ratio.median <= GOAL else "**missed**"
            cells.append(f"{ratio}, {verdict}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print tables; or run the bare server."""
    if sys.argv[1:2] == ["echo"]:
        echo(*SIZES[sys.argv[2]])
        return
    parser = argparse.ArgumentParser(prog="python -m bench.singles", description="See the docstring.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    given = parser.parse_args()
    options = argparse.Namespace(key_size=16, value_size=100, operations=None, seconds=given.seconds)
    costs = Samples()
    with Server("node") as node:
        for _, what in itertools.product(range(given.rounds), SIZES):
            measure_bare(what, given.seconds, costs)
            for name in CLIENTS:
                measure_client(name, what, options, node, costs)
    print(f"{machine()}; {given.seconds:g} s of each, medians of {given.rounds} rounds\n")
    print(costs.table("one at a time, CPU us an operation", digits=1), end="\n\n")
    print(verdicts(costs))


if __name__ == "__main__":
    main()
