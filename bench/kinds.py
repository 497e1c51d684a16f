"""What every kind of request costs the gateway, as a ratio to a plain GET.

    python -m bench.kinds [--rounds N] [--seconds N] [--connections N] [--only WORD ...]

Prints, for each kind, the CPU of the gateway's process a request (its node is in another process), its ratio
to a plain GET and to the kind that it is compared with, the goal, the bytecode instructions a request, and
what explains the ratio. Documents have 1 KiB. The kinds take turns in every round (4), each for so many
seconds (0.5) on 32 keep-alive connections, one request under way on each. Each kind is measured right after
the one that it is compared with, and a ratio is the median of the rounds' own, with the least and the
greatest. Instructions are counted after the rounds. They vary by less than 2 %, whatever else the machine
does, so they decide where a goal lies within the range of a ratio. ``--only`` takes the kinds whose names
contain one of the words. The status of every answer is checked. Batches count by line. The load is made in
this process, and shares the cores. Takes seven minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import re
import tempfile
import time
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

from bench.harness import Ratio, Samples, Server, machine
from bench.httpload import Client, connected
from bench.instructions import CAN_COUNT
from bench.kindaccess import access_files
from bench.kindlist import BASIC, BUCKET, DESIGN, GATEWAYS, GET, KINDS, PLAIN, VIEW, Kind, stored, with_login
from bench.serve import PASSWORD, USER

KEYS_EACH = 31
"""Keys of each connection; no two connections share a key."""
MOST_CONNECTIONS = 32
WARM_UP_SECONDS = 0.1
COST = "CPU us"
BASE = "that of the kind beside it"
TURNS = 8
"""How often each connection sends its requests while instructions are counted, and before that; a batch only
once."""

NAMED_KINDS = {kind.name: kind for kind in KINDS}

_LENGTH = re.compile(rb"Content-Length: \d+", re.IGNORECASE)


class Asker(Client):
    """A connection that sends requests of one kind, each with the next of its keys.

    Requests that a kind sends in turn have the same key. If one names an ETag, the connection has one key.

    :param number: that of the connection.
    :param turn_over: called with it and the time when all requests of a turn are answered; calls :meth:`send`
        or :meth:`leave`, now or later.
    """

    def __init__(self, kind: Kind, number: int, turn_over: Callable[[Asker, float], None]) -> None:
        super().__init__(iter(()), 0.0, array("d"))
        self._kind = kind
        self._first = number * KEYS_EACH
        self._keys = 1 if kind.has_tag else KEYS_EACH
        self._is_head = kind.requests[0].startswith(b"HEAD ")
        self._turn_over = turn_over
        self.answered = 0
        """Answers so far."""
        self._tag = b""
        self._is_opening = kind.opening is not None

    def send(self) -> None:
        """Send the next request."""
        turn, step = divmod(self.answered, len(self._kind.requests))
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
        """Check the answer, and send the next request of the turn."""
        now, status = time.perf_counter(), self.parser.get_status_code()
        if self._is_opening:
            self._is_opening = False
            self.send()
            return
        expected = self._kind.statuses[self.answered % len(self._kind.requests)]
        if status != expected:
            self.fail(f"{self._kind.name}: status {status}, not {expected}")
            return
        self.answered += 1
        if self.answered % len(self._kind.requests):
            self.send()
        else:
            self._turn_over(self, now)


class Gate:
    """Counts the instructions of a server from one moment at which no request is under way to another one."""

    def __init__(self, server: Server, kind: Kind, connections: int) -> None:
        self._server = server
        self._turn = max(1, TURNS // kind.lines) * len(kind.requests)
        self._connections = connections
        self._waiting: list[Asker] = []
        self.count = 0
        """The instructions."""

    def turn_over(self, asker: Asker, now: float) -> None:
        """Let a connection wait for the others before the first request that counts, and after the last."""
        if asker.answered % self._turn:
            asker.send()
            return
        self._waiting.append(asker)
        if len(self._waiting) < self._connections:
            return
        waiting, self._waiting = self._waiting, []
        is_first = asker.answered == self._turn
        if is_first:
            self._server.start_counting()
        else:
            self.count = self._server.stop_counting()
        for one in waiting:
            one.send() if is_first else one.leave()


async def converse(url: str, kind: Kind, connections: int, turn_over: Callable[[Asker, float], None]) -> int:
    """Send requests of one kind over connections until they leave; return how many were answered."""
    askers: list[Asker] = []
    for number in range(connections):
        askers.append(await connected(url, partial(Asker, kind, number, turn_over)))
    await asyncio.gather(*(asker.finished for asker in askers))
    return sum(asker.answered for asker in askers)


def load(url: str, kind: Kind, connections: int, seconds: float) -> int:
    """Send requests of one kind for so long; return how many were answered."""
    until = time.perf_counter() + seconds

    def turn_over(asker: Asker, now: float) -> None:
        asker.send() if now < until else asker.leave()

    return asyncio.run(converse(url, kind, connections, turn_over))


def count(server: Server, kind: Kind, connections: int) -> float:
    """Return the bytecode instructions of one request of a kind."""
    gate = Gate(server, kind, connections)
    answered = asyncio.run(converse(server.address, kind, connections, gate.turn_over))
    return gate.count / (answered // 2 * kind.lines)


class Figures:
    """Measured values by kind.

    :param gateways: by name, for the kinds.
    """

    def __init__(self, gateways: dict[str, Server], connections: int, seconds: float) -> None:
        self._gateways = gateways
        self._connections = connections
        self._seconds = seconds
        self._costs = Samples()
        self.instructions: dict[str, float] = {}
        """Those of one request, by the kind's name; empty where Python does not report them."""

    def warm_up(self, kinds: list[Kind]) -> None:
        """Send some requests of each kind."""
        for kind in kinds:
            load(self._gateways[kind.gateway].address, kind, self._connections, WARM_UP_SECONDS)

    def measure(self, kinds: list[Kind]) -> None:
        """Measure each kind once, right after the one that it is compared with."""
        for kind in kinds:
            base = self._cost(NAMED_KINDS[kind.beside])
            self.add(kind.name, self._cost(kind), base)

    def count(self, kinds: list[Kind]) -> None:
        """Count the instructions of each kind."""
        for kind in kinds:
            server = self._gateways[kind.gateway]
            self.instructions[kind.name] = count(server, kind, self._connections)

    def _cost(self, kind: Kind) -> float:
        server = self._gateways[kind.gateway]
        before = server.cpu_seconds()
        answered = load(server.address, kind, self._connections, self._seconds)
        return (server.cpu_seconds() - before) / (answered * kind.lines) * 1e6

    def add(self, name: str, cost: float, base: float) -> None:
        """Record the costs of a kind, and of the one measured just before it, in microseconds."""
        self._costs.add(name, COST, cost)
        self._costs.add(f"{BASE}: {name}", COST, base)

    def table(self, kinds: list[Kind]) -> str:
        """Return a Markdown table of kinds that were measured."""
        lines = [
            "| kind | CPU us | of a GET | compared with | ratio | goal | | bytecode | why |",
            "| --- | ---: | ---: | --- | ---: | ---: | --- | ---: | --- |",
        ]
        for kind in kinds:
            ratio = self._ratio(kind)
            beside, compared, goal, verdict = "-", "", "", ""
            if kind.goal is not None:
                beside, compared = kind.beside, str(ratio)
                goal, verdict = f"{kind.goal:g}", self._verdict(kind, ratio)
            cost = self._costs.median(kind.name, COST)
            cells = [kind.name, f"{cost:.1f}", f"{self._of_get(kind):.2f}", beside, compared, goal, verdict]
            lines.append(f"| {' | '.join([*cells, self._bytecode(kind), kind.why])} |")
        return "\n".join(lines)

    def _ratio(self, kind: Kind) -> Ratio:
        ratio = self._costs.ratio(kind.name, f"{BASE}: {kind.name}", COST)
        assert ratio is not None
        return ratio

    def _of_get(self, kind: Kind) -> float:
        if kind.name == GET:
            return 1.0
        return self._ratio(kind).median * self._of_get(NAMED_KINDS[kind.beside])

    def _of_base(self, kind: Kind) -> float | None:
        """Return the ratio of the instructions, if they were counted."""
        if kind.name not in self.instructions or kind.beside not in self.instructions:
            return None
        return self.instructions[kind.name] / self.instructions[kind.beside]

    def _bytecode(self, kind: Kind) -> str:
        of_base = self._of_base(kind)
        return "-" if of_base is None else f"{self.instructions[kind.name]:,.0f} ({of_base:.2f}x)"

    def _verdict(self, kind: Kind, ratio: Ratio) -> str:
        """Return whether the goal is met.

        A ratio above it whose range includes it is decided by the instructions.
        """
        goal, of_base = kind.goal or 0.0, self._of_base(kind)
        if round(ratio.median, 2) <= goal:
            return "met"
        if round(ratio.low, 2) <= goal and of_base is not None and round(of_base, 2) <= goal:
            return "met by bytecode"
        return "**missed**"


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
    names = {GET, *(kind.name for kind in some)}
    for kind in some:
        while kind.name != GET:
            kind = NAMED_KINDS[kind.beside]
            names.add(kind.name)
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
        if CAN_COUNT:
            figures.count(kinds)
    print(
        f"{machine()}; {given.seconds:g} s of each, {given.connections} connections, "
        f"medians of {given.rounds} rounds\n"
    )
    print(figures.table(kinds))


if __name__ == "__main__":
    main()
