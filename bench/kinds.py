"""What every kind of request costs the gateway, as a ratio to a plain GET.

    python -m bench.kinds [--rounds N] [--seconds N] [--connections N] [--only WORD ...]

Prints, for each kind, the CPU of the gateway's process a request (its node is in another process), its ratio
to a plain GET and to the kind that it is compared with, the goal, and what explains the ratio. Documents have
1 KiB. The kinds take turns in every round (4), each for so many seconds (0.5) on 32 keep-alive connections,
one request under way on each. Plain GETs are measured again before every fifth kind, and a ratio is the
median of those to the GETs just before. ``--only`` takes the kinds whose names contain one of the words. The
status of every answer is checked. Batches count by line. The load is made in this process, and shares the
cores. Takes three minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import re
import tempfile
import time
from array import array
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from bench.harness import Samples, Server, machine
from bench.httpload import Client
from bench.kindaccess import access_files
from bench.kindlist import BASIC, BUCKET, DESIGN, GATEWAYS, GET, KINDS, PLAIN, VIEW, Kind, stored, with_login
from bench.serve import PASSWORD, USER

KEYS_EACH = 31
"""Keys of each connection; no two connections share a key."""
MOST_CONNECTIONS = 32
BETWEEN = 5
"""Kinds after which plain GETs are measured again."""
WARM_UP_SECONDS = 0.1
COST = "CPU us"

_LENGTH = re.compile(rb"Content-Length: \d+", re.IGNORECASE)


class Asker(Client):
    """A connection that sends requests of one kind, each with the next of its keys.

    Requests that a kind sends in turn have the same key. If one names an ETag, the connection has one key.

    :param number: that of the connection.
    """

    def __init__(self, kind: Kind, number: int, until: float, latencies: array[float]) -> None:
        super().__init__(iter(()), until, latencies)
        self._kind = kind
        self._first = number * KEYS_EACH
        self._keys = 1 if kind.has_tag else KEYS_EACH
        self._is_head = kind.requests[0].startswith(b"HEAD ")
        self._answered = 0
        self._tag = b""
        self._is_opening = kind.opening is not None

    def send(self) -> None:
        """Send the next request."""
        turn, step = divmod(self._answered, len(self._kind.requests))
        request = self._kind.requests[step]
        if self._is_opening and self._kind.opening is not None:
            request = self._kind.opening
        request = request.replace(b"{n}", b"%03d" % (self._first + turn % self._keys))
        self.sent = time.perf_counter()
        self.transport.write(request.replace(b"{etag}", self._tag))

    def data_received(self, data: bytes) -> None:
        """Handle received bytes. The answer to HEAD names a length, but ends with its head."""
        if self._is_head:
            data = _LENGTH.sub(b"Content-Length: 0", data)
        super().data_received(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Remember the ETag."""
        if name == b"ETag":
            self._tag = value

    def on_message_complete(self) -> None:
        """Check the answer, and continue until the time is over and all requests of a turn are sent."""
        now, status = time.perf_counter(), self.parser.get_status_code()
        if self._is_opening:
            self._is_opening = False
            self.send()
            return
        expected = self._kind.statuses[self._answered % len(self._kind.requests)]
        if status != expected:
            self.fail(f"{self._kind.name}: status {status}, not {expected}")
            return
        self._answered += 1
        self.latencies.append(now - self.sent)
        if now < self.until or self._answered % len(self._kind.requests):
            self.send()
            return
        self.transport.close()
        if not self.finished.done():
            self.finished.set_result(None)


async def load(url: str, kind: Kind, connections: int, seconds: float) -> int:
    """Send requests of one kind for so long; return how many were answered."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    until, latencies = time.perf_counter() + seconds, array("d")
    numbers = iter(range(connections))
    waiting = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Asker(kind, next(numbers), until, latencies), str(parts.hostname), parts.port or 0
        )
        waiting.append(client.finished)
    await asyncio.gather(*waiting)
    return len(latencies)


class Figures:
    """Measured values by kind.

    :param gateways: by name, for the kinds.
    """

    def __init__(self, gateways: dict[str, Server], connections: int, seconds: float) -> None:
        self._gateways = gateways
        self._connections = connections
        self._seconds = seconds
        self._costs = Samples()
        self._ratios: dict[str, list[float]] = {}

    def warm_up(self, kinds: list[Kind]) -> None:
        """Send some requests of each kind."""
        for kind in kinds:
            asyncio.run(load(self._gateways[kind.gateway].address, kind, self._connections, WARM_UP_SECONDS))

    def measure(self, kinds: list[Kind]) -> None:
        """Measure each kind once."""
        unit = 0.0
        for position, kind in enumerate(kind for kind in kinds if kind.name != GET):
            if position % BETWEEN == 0:
                unit = self._cost(KINDS[0])
                self.add(GET, unit, unit)
            self.add(kind.name, self._cost(kind), unit)

    def _cost(self, kind: Kind) -> float:
        server = self._gateways[kind.gateway]
        before = server.cpu_seconds()
        count = asyncio.run(load(server.address, kind, self._connections, self._seconds))
        return (server.cpu_seconds() - before) / (count * kind.lines) * 1e6

    def add(self, name: str, cost: float, unit: float) -> None:
        """Record the costs of a kind, and of a plain GET just before, in microseconds."""
        self._costs.add(name, COST, cost)
        self._ratios.setdefault(name, []).append(cost / unit)

    def table(self, kinds: list[Kind]) -> str:
        """Return a Markdown table of kinds that were measured."""
        lines = [
            "| kind | CPU us | of a GET | compared with | ratio | goal | | why |",
            "| --- | ---: | ---: | --- | ---: | ---: | --- | --- |",
        ]
        for kind in kinds:
            ratio, base = self._ratio(kind.name), self._ratio(kind.beside)
            cells = ["-", "", "", ""]
            if kind.goal is not None and base:
                verdict = "met" if round(ratio / base, 2) <= kind.goal else "**missed**"
                cells = [kind.beside, f"{ratio / base:.2f}", f"{kind.goal:g}", verdict]
            cost = self._costs.median(kind.name, COST)
            lines.append(
                " | ".join([f"| {kind.name}", f"{cost:.1f}", f"{ratio:.2f}", *cells, f"{kind.why} |"])
            )
        return "\n".join(lines)

    def _ratio(self, name: str) -> float:
        return median(self._ratios.get(name, [0.0]))


def ask(method: str, url: str, body: bytes | None = None) -> None:
    """Send one request of the preparation."""
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(url, body, headers, method=method), timeout=60) as answer:
        answer.read()


def prepare(url: str) -> None:
    """Store the documents and the view, and build its index."""
    for path, body in stored().items():
        ask("POST", url + path, body)
    ask("PUT", url + DESIGN, VIEW)
    ask("GET", f"{url}{BUCKET}/views/kinds/all?limit=1&stale=false")


def chosen(words: list[str]) -> list[Kind]:
    """Return the kinds whose names contain one of the words, and those that they are compared with."""
    some = [kind for kind in KINDS if any(word in kind.name for word in words)]
    names = {GET, *(kind.name for kind in some), *(kind.beside for kind in some)}
    proof = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return [
        with_login(kind, proof) if kind.gateway in BASIC and kind.statuses != (401,) else kind
        for kind in KINDS
        if kind.name in names
    ]


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.kinds", description="See the docstring.")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--connections", type=int, default=32, choices=range(1, MOST_CONNECTIONS + 1))
    parser.add_argument("--only", nargs="+", default=[""], help="parts of kinds' names")
    return parser.parse_args()


def main() -> None:
    """Measure, and print the table."""
    given = parse()
    kinds = chosen(given.only)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        access_files(folder)
        node = stack.enter_context(Server("node"))
        gateways = {}
        for name in dict.fromkeys([PLAIN, *(kind.gateway for kind in kinds)]):
            options = [option.replace("{folder}", str(folder)) for option in GATEWAYS[name]]
            gateways[name] = stack.enter_context(Server("gateway", node.address, *options))
        prepare(gateways[PLAIN].address)
        figures = Figures(gateways, given.connections, given.seconds)
        figures.warm_up(kinds)
        for _ in range(given.rounds):
            figures.measure(kinds)
    print(
        f"{machine()}; {given.seconds:g} s of each, {given.connections} connections, "
        f"medians of {given.rounds} rounds\n"
    )
    print(figures.table(kinds))


if __name__ == "__main__":
    main()
