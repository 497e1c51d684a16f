"""GET and PUT of 1 KiB documents over HTTP: the gateway beside its peers, in one run.

    python -m bench.gateway [--rounds N] [--seconds N] [--connections N ...] [--only WORD ...]

Prints medians over the rounds (5) of requests a second, latencies, and CPU of every process that serves, for
GET and PUT at 32 and 128 keep-alive connections, one request under way on each; then whether the aims of this
project are met. A ratio is the median of the rounds' own, with the least and the greatest. The peers take
turns, each for as many whole seconds (2) a round, method and number of connections, 1,000 keys in turn.
``--only`` takes the peers whose names contain one of the words.

Beside the gateway, with its node in another process, embedded, and with two workers: webdis, in C, with
Redis, one thread, nothing written to disk (``apt-get install webdis redis-server``); a bare Klein route and
twisted.web's plain resource, which return 1 KiB and store nothing; FastAPI with uvicorn, with the official
client against the same node and bare (``make interop``, then bench/requirements.txt). With TLS 1.3 and
a certificate of an elliptic curve: the gateway, the same with Twisted's TLS, the plain gateway and webdis
behind nginx (``apt-get install nginx-light``), FastAPI bare. The load comes from wrk
(``apt-get install wrk``) or else from bench.httpload, and shares the cores. Latencies are those that wrk
reports, with the time that a request would have waited for its busy connection. Needs Linux, since CPU is
read from /proc.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from contextlib import ExitStack

from bench.harness import Samples, Server, machine
from bench.load import NoAnswerError, generator, run
from bench.peers import CLIENT, EMBEDDED, GATEWAY, KLEIN, PEERS, WEBDIS, WEBDIS_POOL, WORKERS, Peer, start
from bench.processes import cpu_seconds
from bench.securepeers import NGINX, SECURE, SECURE_PEERS, TWISTED

METHODS = {"GET": 0, "PUT": 10}
"""Method -> how many of ten requests are PUTs."""
WARM_UP_SECONDS = 2

AIM_RATIOS = {WEBDIS: 1.0, KLEIN: 4.0, CLIENT: 6.0}
"""Peer -> the least ratio of the gateway's GETs a second to the peer's."""
AIM_CPU_US = 20.0
"""Microseconds of the gateway's process per GET, at most."""
AIM_TLS = 1.3
"""What a GET over TLS may cost of the gateway's process, as a ratio to a plain one."""

ALL = {**PEERS, **SECURE_PEERS}


class Figures:
    """Measured values, by program (or one of its processes) and load."""

    def __init__(self) -> None:
        self.rates = Samples()
        self.medians_ms = Samples()
        self.p99_ms = Samples()
        self.costs = Samples()
        self.generator_us = Samples()

    def measure(self, peer: Peer, method: str, connections: int, seconds: int) -> None:
        """Load a peer once."""
        before = {name: cpu_seconds(pid) for name, pid in peer.processes.items()}
        outcome = run(peer.load(METHODS[method], connections, seconds))
        column = column_of(method, connections)
        for name, pid in peer.processes.items():
            used = cpu_seconds(pid) - before[name]
            self.costs.add(f"{peer.name}: {name}", column, used / outcome.requests * 1e6)
        self.rates.add(peer.name, column, outcome.rate)
        self.medians_ms.add(peer.name, column, outcome.p50_us / 1e3)
        self.p99_ms.add(peer.name, column, outcome.p99_us / 1e3)
        self.generator_us.add("load generator", column, outcome.cpu_seconds / outcome.requests * 1e6)

    def ratios(self) -> str:
        """Return a table of what the gateway serves for each request of a peer."""
        return ratios_of(
            self.rates,
            [
                *((GATEWAY, peer) for peer in AIM_RATIOS),
                (GATEWAY, WEBDIS_POOL),
                (EMBEDDED, WEBDIS),
                (WORKERS, WEBDIS),
                (WORKERS, GATEWAY),
                (SECURE, GATEWAY),
                (SECURE, TWISTED),
                (SECURE, NGINX),
            ],
        )

    def secure(self) -> str:
        """Return a table of what TLS costs, in CPU of the gateway's process."""
        rows = [f"{name}: gateway" for name in (SECURE, TWISTED, NGINX)]
        return ratios_of(self.costs, [(row, f"{GATEWAY}: gateway") for row in rows])

    def aims(self, connections: Sequence[int]) -> str:
        """Return a table of aims."""
        lines = ["| aim | connections | measured | |", "| --- | ---: | ---: | --- |"]
        for count in connections:
            column = column_of("GET", count)
            for peer, least in AIM_RATIOS.items():
                ratio = self.rates.ratio(GATEWAY, peer, column)
                met = None if ratio is None else ratio.median >= least
                lines.append(_aim(f"GETs a second at least {least:g} of {peer}", count, ratio, met))
            cost = self.costs.median(f"{GATEWAY}: gateway", column)
            met = None if cost is None else cost <= AIM_CPU_US
            words = f"at most {AIM_CPU_US:g} us of the gateway's CPU a GET"
            lines.append(_aim(words, count, None if cost is None else f"{cost:.2f}", met))
            ratio = self.costs.ratio(f"{SECURE}: gateway", f"{GATEWAY}: gateway", column)
            met = None if ratio is None else ratio.median <= AIM_TLS
            lines.append(_aim(f"a GET over TLS at most {AIM_TLS:g} of a plain one's CPU", count, ratio, met))
            ratio = self.p99_ms.ratio(GATEWAY, WEBDIS, column)
            met = None if ratio is None else ratio.median <= 1
            lines.append(_aim(f"99th percentile of a GET at most that of {WEBDIS}", count, ratio, met))
        return "\n".join(lines)


def column_of(method: str, connections: int) -> str:
    """Return the name of a load's column."""
    return f"{method}, {connections}"


def ratios_of(samples: Samples, pairs: Sequence[tuple[str, str]]) -> str:
    """Return a table of how figures relate, for the pairs of rows that took part."""
    columns = samples.columns()
    lines = [f"| ratio | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for row, base in pairs:
        found = [samples.ratio(row, base, column) for column in columns]
        if any(ratio is not None for ratio in found):
            cells = ["-" if ratio is None else str(ratio) for ratio in found]
            lines.append(f"| {row} / {base} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _aim(text: str, connections: int, measured: object, met: bool | None) -> str:
    verdict = {True: "met", False: "**missed**", None: "not measured"}[met]
    return f"| {text} | {connections} | {'-' if measured is None else measured} | {verdict} |"


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gateway", description="See the module's docstring."
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--only", nargs="+", default=[""], help="parts of peers' names")
    return parser.parse_args()


def main() -> None:
    """Measure, and print tables."""
    given = parse()
    names = [name for name in ALL if any(word.lower() in name.lower() for word in given.only)]
    figures = Figures()
    with ExitStack() as stack:
        peers = start(stack, names, stack.enter_context(Server("node")), makers=ALL)
        for peer in peers:
            peer.store()
            for puts in METHODS.values():
                run(peer.load(puts, given.connections[0], WARM_UP_SECONDS))
        loads = itertools.product(range(given.rounds), given.connections, METHODS)
        for (_, connections, method), peer in itertools.product(loads, peers):
            try:
                figures.measure(peer, method, connections, given.seconds)
            except NoAnswerError as error:
                print(
                    f"{peer.name}, {column_of(method, connections)}, one round is left out: {error}",
                    flush=True,
                )
    print(
        f"{machine()}; {given.seconds} s of each load by {generator()}, medians of {given.rounds} rounds;"
        " columns: method, connections\n"
    )
    print(figures.rates.table("requests a second"), end="\n\n")
    print(figures.ratios(), end="\n\n")
    print(figures.medians_ms.table("median latency, ms", digits=2), end="\n\n")
    print(figures.p99_ms.table("99th percentile of latency, ms", digits=2), end="\n\n")
    print(figures.costs.table("CPU us of a process a request", digits=1), end="\n\n")
    print(figures.secure(), end="\n\n")
    print(figures.generator_us.table("CPU us a request", digits=1), end="\n\n")
    print(figures.aims(given.connections))


if __name__ == "__main__":
    main()
