"""The time of one request in the gateway's process, or in the node's.

    python -m bench.profile [--method GET|PUT] [--connections N] [--seconds N] [--embedded | --node]
        [--top N] [--folded FILE]

Loads a gateway as bench.gateway does and has it look at itself every few milliseconds of its CPU time
(bench.sampler). Rounds without that say what a request costs; the samples say how it is shared. Prints a
table of stages, and one of the functions in which most time was spent, what they call not included except for
C functions. ``--embedded`` puts the node into the gateway's process; ``--node`` looks at the node's process
instead of the gateway's. ``--folded`` writes stacks for a flame graph, in the format of flamegraph.pl and
speedscope: outermost function first, joined by semicolons, and a count.
"""

from __future__ import annotations

import argparse
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from bench.harness import Samples, Server, machine
from bench.load import generator, run
from bench.peers import EMBEDDED, GATEWAY, Peer
from bench.processes import kernel_seconds

ROUNDS = 3

# A sample counts for the innermost function that has a rule, and for the longest prefix.
STAGES = {
    "twisted.internet.": "reactor: waiting, and choosing whose turn it is",
    "twisted.internet.defer:": "Deferreds",
    "twisted.python.failure:": "Deferreds",
    "reactor.direct:": "reactor: waiting, and choosing whose turn it is",
    "reactor.gate:": "reactor: waiting, and choosing whose turn it is",
    "gateway.http.channel:": "HTTP: reading requests",
    "gateway.http.factory:": "HTTP: reading requests",
    "gateway.http.body:": "HTTP: one request and its answer",
    "gateway.http.exchange:": "HTTP: one request and its answer",
    "gateway.http.http1:": "HTTP: one request and its answer",
    "gateway.http2.": "HTTP/2: frames, streams and windows",
    "h2.": "HTTP/2: frames, streams and windows",
    "hpack.": "HTTP/2: frames, streams and windows",
    "hyperframe.": "HTTP/2: frames, streams and windows",
    "gateway.http.outlet:": "HTTP: one request and its answer",
    "gateway.http.request:": "HTTP: one request and its answer",
    "gateway.http.response:": "HTTP: one request and its answer",
    "gateway.http.": "dispatch: routes, refusals, hooks",
    "gateway.app:": "dispatch: routes, refusals, hooks",
    "gateway.": "handler: what the request asks for, and the answer",
    "gateway.cluster.credentials:": "credentials and connection pool",
    "gateway.cluster.pool:": "credentials and connection pool",
    "gateway.plugins.": "metrics and other plugins",
    "gateway.metricvalues:": "metrics and other plugins",
    "klein.": "Klein and twisted.web",
    "werkzeug.": "Klein and twisted.web",
    "twisted.web.": "Klein and twisted.web",
    "txcouchbase.": "key-value client",
    "couchbase.": "key-value client",
    "couchbase.protocol.": "key-value frames",
    "couchnode.": "node",
    "bench.": "the measurement itself",
}
SOCKETS = {
    "doRead": "receive",
    "_dataReceived": "receive",
    "writeSomeData": "send",
    "doWrite": "send",
    "write": "send",
    "writeSequence": "send",
}
"""Methods of Twisted's transports -> what they do to a socket."""


def stage_of(stack: str) -> str:
    """Return what a stack, as :mod:`bench.sampler` writes it, was about."""
    sends = False
    for frame in reversed(stack.split(";")):
        function, _, protocol = frame.partition("(")
        if function.startswith("reactor.writer:"):
            # The caller determines whose socket it is.
            sends = True
            continue
        if sends:
            return f"socket: send ({_side(function)})"
        action = SOCKETS.get(function.rpartition(".")[2]) if protocol else None
        if action is not None:
            return f"socket: {action} ({_side(protocol)})"
        prefixes = [prefix for prefix in STAGES if function.startswith(prefix)]
        if prefixes:
            return STAGES[max(prefixes, key=len)]
    return "other"


def _side(name: str) -> str:
    return "key-value" if name.startswith(("txcouchbase", "couchbase", "couchnode")) else "HTTP"


def table(title: str, counts: Counter[str], cost_us: float, top: int | None = None) -> str:
    """Return a Markdown table of shares.

    :param cost_us: of one request.
    """
    total = counts.total()
    lines = [f"| {title} | share | us a request |", "| --- | ---: | ---: |"]
    for name, count in counts.most_common(top):
        lines.append(f"| {name} | {count / total:.1%} | {count / total * cost_us:.2f} |")
    if top is None:
        lines.append(f"| together | {1:.1%} | {cost_us:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.profile", description="See the module's docstring."
    )
    parser.add_argument("--method", choices=["GET", "PUT"], default="GET")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=5)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--embedded", action="store_true", help="the node in the gateway's process")
    where.add_argument("--node", action="store_true", help="look at the node's process, not at the gateway's")
    parser.add_argument("--top", type=int, default=30)
    parser.add_argument("--folded", type=Path, metavar="FILE")
    given = parser.parse_args()
    samples = Samples()
    stacks: Counter[str] = Counter()
    with ExitStack() as stack:
        node = None if given.embedded else stack.enter_context(Server("node"))
        gateway = stack.enter_context(Server("gateway", *([] if node is None else [node.address])))
        name = EMBEDDED if node is None else GATEWAY
        server = node if given.node and node is not None else gateway
        peer = Peer(name, gateway.address, {"gateway": gateway.pid})
        peer.store()
        load = peer.load(10 if given.method == "PUT" else 0, given.connections, given.seconds)
        run(load._replace(seconds=1))
        for _ in range(ROUNDS):
            used, in_kernel = server.cpu_seconds(), kernel_seconds(server.pid)
            requests = run(load).requests
            samples.add("cost", "us", (server.cpu_seconds() - used) / requests * 1e6)
            samples.add("cost", "kernel", (kernel_seconds(server.pid) - in_kernel) / requests * 1e6)
            server.start_sampling()
            run(load)
            stacks.update(server.stop_sampling())
    cost = samples.median("cost", "us") or 0.0
    stages: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for frames, count in stacks.items():
        stages[stage_of(frames)] += count
        functions[frames.rpartition(";")[2]] += count
    print(
        f"{machine()}; {name}; the {'node' if given.node else 'gateway'}'s process\n"
        f"{given.method} of 1 KiB, {given.connections} connections, load by {generator()};"
        f" {stacks.total():,} samples; a request costs {cost:.1f} us of CPU,"
        f" {samples.median('cost', 'kernel'):.1f} of them in the kernel\n"
    )
    print(table("stage", stages, cost), end="\n\n")
    print(table("function", functions, cost, given.top))
    if given.folded is not None:
        given.folded.write_text("".join(f"{frames} {count}\n" for frames, count in sorted(stacks.items())))


if __name__ == "__main__":
    main()
