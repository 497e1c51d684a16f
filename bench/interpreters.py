"""The same code on every Python of this machine.

    python -m bench.interpreters [--rounds N] [--seconds N] [--operations N] [--warm-up N] [PYTHON ...]

Prints, for each Python, its build, and medians over the rounds (5) of CPU microseconds: of the gateway's
process for a GET and a PUT of 1 KiB (32 connections; the node runs on the Python of this program), of
couchnode for a get (1 KiB, many under way), and of the client for a get (Deferreds, 64 under way) and for a
key of a ``get_multi`` of 1,000, with Deferreds and blocking, against bench.stub. The Pythons take turns in
every round. Without names: that of this program, those in /usr/bin, pyenv's, and PyPy 3. Each gets an
environment of its own in build/interpreters, which is kept. A PyPy that is too old for the gateway only has
the blocking client's figure, and so has a Python whose environment cannot be made, with a line that says why.
Before the first round the gateway and the node of a PyPy are under load for ``--warm-up`` seconds (20), since
it compiles what runs often; its clients warm up for as long as those of CPython. Needs Linux.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench.builds import build_of
from bench.harness import HERE, OWN_PYTHON, Samples, Server, machine
from bench.load import generator, run
from bench.peers import GATEWAY, Peer
from bench.rawclient import VBUCKETS, RawClient, set_request
from bench.serve import PASSWORD, USER
from couchbase.protocol.constants import Opcode
from couchbase.protocol.frames import encode_request
from couchbase.protocol.hashing import vbucket_of

ROOT = HERE.parent
ENVIRONMENTS = ROOT / "build" / "interpreters"
LOCK = ROOT / "requirements" / "run.txt"
SYSTEM = Path("/usr/bin")
LEAST = (3, 10)
"""The oldest Python for the gateway, the node and Twisted's client."""
CONNECTIONS = 32
BATCH = 1000
DOCUMENT = b'"' + b"x" * 1022 + b'"'
INSTALL_SECONDS = 900
WORKER_SECONDS = 300


class Interpreter(NamedTuple):
    """A Python that takes part."""

    name: str
    python: str
    """The one in its environment, if it has one."""
    is_complete: bool
    """Whether it runs more than the SDK's core."""

    @property
    def compiles(self) -> bool:
        """Whether it gets faster while it runs, because it compiles what runs often."""
        return self.name.startswith("PyPy")


def found() -> Iterator[str]:
    """Yield the Pythons of this machine, the one of this program first."""
    yield OWN_PYTHON
    yield from filter(None, [shutil.which("/usr/bin/python3")])
    own = [path for path in SYSTEM.glob("python3.*") if re.fullmatch(r"python3\.\d+", path.name)]
    yield from map(str, sorted(own, key=lambda path: int(path.suffix[1:])))
    versions = Path.home() / ".pyenv" / "versions"
    yield from map(str, sorted(versions.glob("3.*/bin/python"), key=lambda path: _number(path.parts[-3])))
    yield from filter(None, [shutil.which("pypy3")])


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]


def facts(python: str) -> dict[str, Any]:
    """Return version and place of a Python.

    :raises OSError, subprocess.SubprocessError: it cannot be run.
    """
    code = (
        "import json, os, platform, sys; print(json.dumps({'version': sys.version_info[:3],"
        " 'home': os.path.realpath(sys.base_prefix), 'kind': platform.python_implementation()}))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def environment(python: str, name: str) -> str:
    """Return the Python of an environment with the gateway's dependencies, which is made if missing.

    :raises OSError, subprocess.SubprocessError: it cannot be made; nothing of it is kept, so that the next
        run tries again.
    """
    folder = ENVIRONMENTS / name.replace(" ", "-").replace("/", "-")
    own = str(folder / "bin" / "python")
    if not (folder / "bin" / "python").exists():
        print(f"making {folder} ...", file=sys.stderr, flush=True)
        try:
            for command in (
                [python, "-m", "venv", str(folder)],
                [own, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "-r", str(LOCK)],
            ):
                subprocess.run(command, check=True, timeout=INSTALL_SECONDS, stdin=subprocess.DEVNULL)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return own


def interpreter(python: str, told: dict[str, Any]) -> Interpreter | None:
    """Return a Python with its name; ``None`` if it is a CPython that is too old.

    :param told: see :func:`facts`. Several versions may have one place: those of a distribution do.
    """
    version = tuple(told["version"])
    place = "pyenv" if "pyenv" in told["home"] else told["home"]
    is_complete = version >= LEAST
    if not is_complete and told["kind"] != "PyPy":
        return None
    return Interpreter(f"{told['kind']} {'.'.join(map(str, version))}, {place}", python, is_complete)


def with_dependencies(one: Interpreter) -> Interpreter:
    """Return a Python in its environment. If none can be made, it takes part for the SDK alone, and a line is
    printed that says why."""
    if not one.is_complete or one.python == OWN_PYTHON:
        return one
    try:
        return one._replace(python=environment(one.python, one.name))
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{one.name} only runs the blocking client, for lack of an environment: {error}", flush=True)
        return one._replace(is_complete=False)


def interpreters(pythons: Sequence[str]) -> list[Interpreter]:
    """Return those that take part, each once; print a line for each that cannot."""
    taken: dict[str, Interpreter] = {}
    for python in pythons or found():
        try:
            one = interpreter(python, facts(python))
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{python} is left out: {error}", flush=True)
            continue
        if one is not None and one.name not in taken:
            taken[one.name] = with_dependencies(one)
    return list(taken.values())


def server(python: str, *arguments: str) -> Server:
    """Run a role of bench.serve on another Python."""
    return Server(*arguments, command=[python, "-m", "bench.serve"])


class Round:
    """Measures one Python at a time.

    :param stub: of the clients.
    :param node: of the gateways.
    """

    def __init__(self, stub: Server, node: Server, options: argparse.Namespace) -> None:
        self._stub = stub
        self._node = node
        self._options = options
        self.costs = Samples()

    def warm(self, gateway: Server, node: Server) -> None:
        """Let a Python that compiles do so, for gets and puts alike, and add no figure."""
        until = time.monotonic() + self._options.warm_up
        while time.monotonic() < until:
            for puts in (0, 10):
                run(Peer(GATEWAY, gateway.address, {}).load(puts, CONNECTIONS, self._options.seconds))
            self._gets_of(node)

    def measure(self, one: Interpreter, gateway: Server | None, node: Server | None) -> None:
        """Add a figure to each column."""
        if gateway is not None and node is not None:
            self._gateway(one, gateway)
            self.costs.add(one.name, "node get", self._gets_of(node))
            self._twisted(one)
        self._blocking(one)

    def _gateway(self, one: Interpreter, gateway: Server) -> None:
        peer = Peer(GATEWAY, gateway.address, {})
        for method, puts in (("GET", 0), ("PUT", 10)):
            before = gateway.cpu_seconds()
            outcome = run(peer.load(puts, CONNECTIONS, self._options.seconds))
            self.costs.add(one.name, method, (gateway.cpu_seconds() - before) / outcome.requests * 1e6)

    def _gets_of(self, node: Server) -> float:
        keys = [b"bench-%d" % number for number in range(100)]
        gets = [encode_request(Opcode.GET, key=key, vbucket=vbucket_of(key, VBUCKETS)) for key in keys]
        with RawClient(node.address) as client:
            client.ask([set_request(key, DOCUMENT) for key in keys])
            before, until, count = node.cpu_seconds(), time.perf_counter() + self._options.seconds / 2, 0
            while time.perf_counter() < until:
                client.ask(gets * 4)
                count += len(gets) * 4
            return (node.cpu_seconds() - before) / count * 1e6

    def _twisted(self, one: Interpreter) -> None:
        told = self._told(
            [one.python, str(HERE / "client_worker.py"), "deferred", self._stub.address, USER, PASSWORD]
            + [str(self._options.operations)]
        )
        self.costs.add(one.name, "client get", told["get, 64"][1])
        self.costs.add(one.name, "get_multi", told["get_multi of 1,000"][1])

    def _blocking(self, one: Interpreter) -> None:
        settings = {
            "driver": "blocking",
            "key_size": 16,
            "value_size": 100,
            "seconds": None,
            "operations": self._options.operations,
            "batch": BATCH,
            "sets": 0,
            "gets": 1,
            "under_way": 1,
            "connection_string": self._node.address,
            "user": USER,
            "password": PASSWORD,
            "bucket": "default",
        }
        told = self._told([one.python, str(HERE / "guide_worker.py")], json.dumps(settings))
        self.costs.add(one.name, "blocking get_multi", told["cpu"])

    def _told(self, command: list[str], given: str = "") -> Any:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
            input=given,
            stdout=subprocess.PIPE,
            text=True,
            timeout=WORKER_SECONDS,
            check=True,
        )
        return json.loads(done.stdout)


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.interpreters", description="See the docstring.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON")
    given = parser.parse_args()
    parts = interpreters(given.pythons)
    with ExitStack() as stack:
        stub, node = (stack.enter_context(Server(role)) for role in ("stub", "node"))
        measured = Round(stub, node, given)
        servers: dict[str, tuple[Server, Server]] = {}
        for one in parts:
            if one.is_complete:
                gateway = stack.enter_context(server(one.python, "gateway", node.address))
                Peer(GATEWAY, gateway.address, {}).store()
                servers[one.name] = gateway, stack.enter_context(server(one.python, "node"))
                if one.compiles:
                    measured.warm(*servers[one.name])
        for _, one in itertools.product(range(given.rounds), parts):
            measured.measure(one, *servers.get(one.name, (None, None)))
    print(
        f"{machine()}; {given.seconds} s of each load by {generator()}, {given.operations} operations of a"
        f" client, medians of {given.rounds} rounds\n"
    )
    print(measured.costs.table("interpreter, CPU us an operation", digits=2), end="\n\n")
    print("| interpreter | build |\n| --- | --- |")
    for one in parts:
        print(f"| {one.name} | {build_of(one.python).partition('; ')[2]} |")


if __name__ == "__main__":
    main()
