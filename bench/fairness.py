"""The effect of an abusive client on the others.

    python -m bench.fairness [--seconds S] [--rate N] [--only TEXT] [--node] [--checkout PATH]

For each attack of :mod:`bench.attacks` a new gateway is started (with its embedded node in the same process,
as by default; with ``--node`` the node is another process). A well-behaved client requests a small document
and ``/health`` at a steady rate, without waiting for earlier answers, and a request's time counts from the
moment at which it was due. Prints its times and errors, the longest turn of the gateway's reactor in
CPU time and where that was spent (see :mod:`bench.turns`), and what the attacker saw. With ``--checkout``,
the path of another checkout, its gateway is measured in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httptools

from bench.attacks import ATTACKS, DOCUMENTS, request, run
from bench.harness import HERE, OWN_PYTHON, Server, machine

SMALL = "fair-small"
CONNECTIONS = 500
WAIT_SECONDS = 10.0
AIM_GET_MS, AIM_HEALTH_MS, AIM_TURN_MS = 100, 50, 50


class Victim:
    """Sends requests when they are due, each on an idle connection."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._opened = 0
        self.times: dict[str, list[float]] = {"get": [], "health": []}
        self.errors: Counter[str] = Counter()

    async def run(self, seconds: float, rate: float) -> None:
        """Send requests for the given time, then wait for the answers that are still due."""
        begun = time.monotonic()
        waiting = []
        sent = {"get": request("GET", DOCUMENTS + SMALL), "health": request("GET", "/health")}
        for number in range(int(seconds * rate)):
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for kind, data in sent.items():
                waiting.append(asyncio.ensure_future(self._one(kind, data, due)))
        await asyncio.gather(*waiting)

    async def _one(self, kind: str, data: bytes, due: float) -> None:
        try:
            status = await asyncio.wait_for(self._ask(data), WAIT_SECONDS)
        except (OSError, asyncio.TimeoutError, EOFError) as error:
            status = type(error).__name__
        self.times[kind].append(time.monotonic() - due)
        if status != "200":
            self.errors[f"{kind} {status}"] += 1

    async def _ask(self, data: bytes) -> str:
        if self._idle:
            reader, writer = self._idle.pop()
        elif self._opened < CONNECTIONS:
            self._opened += 1
            reader, writer = await asyncio.open_connection(*self._address)
        else:
            raise OSError("no connection is free")
        writer.write(data)
        answer = _Answer()
        while not answer.is_complete:
            got = await reader.read(65536)
            if not got:
                raise EOFError
            answer.parser.feed_data(got)
        self._idle.append((reader, writer))
        return answer.text()


class _Answer:
    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.is_complete = False
        self._body = b""

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.is_complete = True

    def text(self) -> str:
        status = self.parser.get_status_code()
        return str(status) if status == 200 else f"{status} {json.loads(self._body)['code']}"


def be_victim(host: str, port: int, seconds: float, rate: float, tell: Any) -> None:
    """Run the victim in a separate process, and print its results."""
    victim = Victim(host, port)
    asyncio.run(victim.run(seconds, rate))
    tell.send((victim.times, victim.errors))


def be_attacker(name: str, host: str, port: int, seconds: float, tell: Any) -> None:
    """Run the attack in a separate process."""
    tell.send(run(name, host, port, seconds))


class Row(NamedTuple):
    """Results of one attack."""

    get: list[float]
    health: list[float]
    errors: Counter[str]
    turns: list[Any]
    peak_mib: int
    attacker: Counter[str]

    def cells(self) -> list[str]:
        """Return the row as text."""
        turn: Any = self.turns[0] if self.turns else [0, 0, "-"]
        return [
            " / ".join(f"{value:.0f}" for value in at_percentiles(self.get)),
            " / ".join(f"{value:.0f}" for value in at_percentiles(self.health)),
            told(self.errors),
            f"{turn[1] * 1000:.0f} / {turn[0] * 1000:.0f}",
            str(self.peak_mib),
            told(self.attacker),
        ]


def at_percentiles(seconds: list[float]) -> list[float]:
    """Return the median, the 99th percentile and the longest, in ms."""
    if not seconds:
        return []
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return [ordered[int(last * part)] * 1000 for part in (0.5, 0.99, 1.0)]


def told(counts: Counter[str]) -> str:
    """Return counts as text."""
    return ", ".join(f"{count} x {what}" for what, count in sorted(counts.items())) or "-"


def peak_mib(pid: int) -> int:
    """Return the largest resident size that a process has had."""
    found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) // 1024 if found else 0


def store(url: str, key: str, value: bytes) -> None:
    """Store a document."""
    put = urllib.request.Request(
        url + DOCUMENTS + key, value, {"Content-Type": "application/json"}, method="PUT"
    )
    for attempt in range(5):
        try:
            urllib.request.urlopen(put, timeout=30).read()
            return
        except OSError:
            if attempt == 4:
                raise
            time.sleep(0.5)


def measure(name: str, root: Path, seconds: float, rate: float, *, with_node: bool) -> Row:
    """Start a gateway, attack it, and return what its other client saw."""
    attack = ATTACKS[name]
    processes = get_context("spawn")
    with ExitStack() as stack:
        where = []
        if with_node:
            where = [stack.enter_context(Server("node", root=root)).address]
        command = [OWN_PYTHON, str(HERE / "turns.py"), str(root)]
        server = stack.enter_context(Server("gateway", *where, command=command, root=root))
        parts = urlsplit(server.address)
        store(server.address, SMALL, b'{"small":true}')
        for key, make in attack.documents.items():
            store(server.address, key, make())
        time.sleep(0.5)
        server._ask("turns")
        from_victim, victim_tells = processes.Pipe(False)
        from_attacker, attacker_tells = processes.Pipe(False)
        victim = processes.Process(
            target=be_victim, args=(parts.hostname, parts.port, seconds + 1, rate, victim_tells), daemon=True
        )
        attacker = processes.Process(
            target=be_attacker, args=(name, parts.hostname, parts.port, seconds, attacker_tells), daemon=True
        )
        victim.start()
        attacker.start()
        seen = from_attacker.recv() if from_attacker.poll(seconds + 30) else Counter(["no end"])
        times, errors = from_victim.recv()
        for process in (attacker, victim):
            process.kill()
            process.join()
        turns = server._ask("turns")
        return Row(times["get"], times["health"], errors, turns, peak_mib(server.pid), seen)


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.fairness")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--node", action="store_true")
    parser.add_argument("--checkout", type=Path)
    given = parser.parse_args()
    roots = {"": HERE.parent}
    if given.checkout is not None:
        roots[f", {given.checkout.name}"] = given.checkout.resolve()
    print(
        f"{machine()}; {given.rate:.0f} requests a second of each kind for {given.seconds:.0f} s", flush=True
    )
    print("times in ms: median / 99th percentile / longest\n")
    print(
        "| attack | GET | `/health` | errors | longest turn, CPU / wall | peak MiB | what the attacker saw |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    missed, places = [], []
    for name in ATTACKS:
        if not re.search(given.only, name):
            continue
        for which, root in roots.items():
            row = measure(name, root, given.seconds, given.rate, with_node=given.node)
            print(f"| {name}{which} | {' | '.join(row.cells())} |", flush=True)
            places += [f"{name}{which}: {cpu * 1000:.0f} ms in {place}" for _, cpu, place in row.turns[:3]]
            get, health = at_percentiles(row.get)[1], at_percentiles(row.health)[1]
            turn = row.turns[0][1] * 1000 if row.turns else 0
            if get > AIM_GET_MS or health > AIM_HEALTH_MS or turn > AIM_TURN_MS or row.errors:
                missed.append(name + which)
    print(
        f"\nThe aim: GET within {AIM_GET_MS} ms and /health within {AIM_HEALTH_MS} ms at the 99th percentile,"
        f" no error, no turn over {AIM_TURN_MS} ms of CPU.",
        "Missed by: " + "; ".join(missed) if missed else "Met.",
    )
    print("\nLongest turns:", *places, sep="\n- ", file=sys.stderr)


if __name__ == "__main__":
    main()
