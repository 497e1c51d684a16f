"""Installs the wheel into clean environments, one for each Python of this machine, and uses it there.

    python -m tests.tooling.installs [--wheel FILE] [INTERPRETER ...]

On CPython 3.10 and later: ``pip install``, ``pip check``, ``couchgateway --version``, then a gateway with its
embedded node that stores and reads a document, runs a view, and ends by SIGTERM. On PyPy, for which some
packages have no wheels, and on 3.9, the SDK alone: ``pip install --no-deps --ignore-requires-python``, and a
program that stores and reads on a node of the Python that runs this. Without ``--wheel`` it is built from the
checkout. Ends with status 1 if something failed somewhere. Only the standard library is needed, so it also
runs in a chroot.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from bench.ports import free_port
from tests.tooling.sources import ROOT
from tests.tooling.versions import PIP, installed

__all__ = ["CANDIDATES", "Failure", "Outcome", "attempt", "wheel"]

CANDIDATES = ["pypy3", *(f"python3.{minor}" for minor in range(9, 15))]
SECONDS = 300
OLDEST = (3, 10)

DESIGN = {"views": {"all": {"map": "function (doc, meta) { emit(meta.id, doc.a); }"}}}

WHICH = "import json, sys; print(json.dumps([sys.version_info[:2], sys.implementation.name]))"
COUNT = "from importlib.metadata import distributions; print(len(list(distributions())))"

SDK = """
import sys
from couchbase import Couchbase
client = Couchbase.connect(bucket="default", connection_string=sys.argv[1])
client.set("k", {"a": 1})
assert client.get("k").value == {"a": 1}
print(sys.version)
"""


class Failure(Exception):
    """A step failed; its output is the message."""


class Outcome(NamedTuple):
    """What an installation came to."""

    version: tuple[int, int]
    whole: bool
    """The gateway works, and not only the SDK."""
    packages: int
    """Installed, pip included."""
    views: bool
    seconds: float
    """From the empty environment to the end of pip."""


def wheel(folder: Path) -> Path:
    """Build the wheel of the checkout into a folder, from a copy; return its path."""
    copy = folder / "sources"
    # Tests leave sockets in their folders, which cannot be copied.
    passed_over = (".*", "__pycache__", "build", "dist", "*.egg-info", "node_modules", "_trial_temp*")
    kept = shutil.ignore_patterns(*passed_over)
    shutil.copytree(ROOT, copy, ignore=kept)
    _run(sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", str(folder), str(copy))
    shutil.rmtree(copy)
    return next(folder.glob("couchgateway-*.whl"))


def attempt(interpreter: str, package: Path, folder: Path) -> Outcome:
    """Install into an environment below a folder, and use it.

    :raises Failure: something failed.
    """
    version, kind = json.loads(_run(interpreter, "-c", WHICH))
    environment = folder / "environment"
    _run(interpreter, "-m", "venv", str(environment))
    programs = environment / "bin"
    python = str(programs / "python")
    whole = kind == "cpython" and tuple(version) >= OLDEST
    begun = time.monotonic()
    only_sdk = [] if whole else ["--no-deps", "--ignore-requires-python"]
    _run(python, *PIP, "install", *only_sdk, str(package))
    seconds = time.monotonic() - begun
    if whole:
        _run(python, *PIP, "check")
        _run(str(programs / "couchgateway"), "--version")
    count = int(_run(python, "-c", COUNT))
    views = _serve(programs) if whole else _call(python)
    return Outcome((version[0], version[1]), whole, count, views, seconds)


def _run(*command: str) -> str:
    """Run to the end; return standard output."""
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SECONDS, cwd="/"
    )
    if done.returncode:
        raise Failure(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _serve(programs: Path) -> bool:
    """Store, read and stop; return whether there are views."""
    port = free_port()
    listen = f"tcp:{port}:interface=127.0.0.1"
    bucket = f"http://127.0.0.1:{port}/v1/buckets/default"
    with _Running(programs / "couchgateway", "--ephemeral", "--listen", listen) as running:
        running.until_answers(f"http://127.0.0.1:{port}/ready")
        _ask("PUT", f"{bucket}/documents/k", {"a": 1})
        found = _ask("GET", f"{bucket}/documents/k")
        if found != {"a": 1}:
            raise Failure(f"the document has become {found}")
        try:
            _ask("PUT", f"{bucket}/designs/d", DESIGN)
            rows = _ask("GET", f"{bucket}/views/d/all?stale=false")["rows"]
        except HTTPError as error:
            if error.code != 501:
                raise Failure(f"a view: {error} {error.read().decode()}") from error
            return False
        if [row["value"] for row in rows] != [1]:
            raise Failure(f"the view has the rows {rows}")
    return True


def _call(python: str) -> bool:
    """Use the SDK on a node of this Python; there are no views."""
    kv, rest = free_port(), free_port()
    ports = ["--kv-port", str(kv), "--rest-port", str(rest)]
    program = Path(sys.executable).parent / "couchnode"
    with _Running(program, "--ephemeral", "--bucket", "default", *ports) as running:
        running.until_answers(f"http://127.0.0.1:{rest}/pools")
        _run(python, "-c", SDK, f"couchbase://127.0.0.1:{kv}")
    return False


def _ask(method: str, url: str, value: object = None) -> Any:
    """Send JSON, and return that of the answer."""
    body = None if value is None else json.dumps(value).encode()
    request = Request(url, body, {"Content-Type": "application/json"}, method=method)
    with urlopen(request, timeout=SECONDS) as answer:
        text = answer.read()
    return json.loads(text) if text else None


class _Running:
    """A program, from its start until SIGTERM has ended it."""

    def __init__(self, *command: str | Path) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # it is open as long as the program runs
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd="/",
        )

    def __enter__(self) -> _Running:
        return self

    def until_answers(self, url: str) -> None:
        """Wait until it answers with 200.

        :raises Failure: it ended, or needs too long.
        """
        until = time.monotonic() + SECONDS
        while True:
            try:
                with urlopen(url, timeout=SECONDS):
                    return
            except (URLError, ConnectionError):
                if self._process.poll() is not None or time.monotonic() > until:
                    raise Failure(f"it does not answer:\n{self._said()}") from None
            time.sleep(0.1)

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def __exit__(self, kind: object, *_: object) -> None:
        self._process.terminate()
        try:
            status = self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
        with self._log:
            # After an orderly end twistd sends the signal to itself once more.
            if kind is None and status not in (0, -signal.SIGTERM):
                raise Failure(f"SIGTERM ended it with status {status}:\n{self._said()}")


def main() -> int:
    """Try everything, one after the other; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.tooling.installs", description=__doc__)
    parser.add_argument("--wheel", type=Path, help="The wheel; by default it is built from the checkout.")
    parser.add_argument("interpreters", nargs="*", default=CANDIDATES)
    arguments = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        package = arguments.wheel.absolute() if arguments.wheel else wheel(Path(scratch))
        for name in arguments.interpreters:
            path = installed(name)
            if path is None:
                print(f"{name}: not on this machine", flush=True)
                continue
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                try:
                    told = _words(attempt(path, package, Path(folder)))
                except (Failure, subprocess.TimeoutExpired) as failure:
                    failed.append(name)
                    told = f"failed: {failure}"
            print(f"{name}: {told}", flush=True)
    return 1 if failed else 0


def _words(outcome: Outcome) -> str:
    version = ".".join(map(str, outcome.version))
    parts = "views" if outcome.views else "no views"
    what = f"the gateway, {parts}" if outcome.whole else "the SDK alone"
    return f"{version}: {what}, {outcome.packages} packages, installed in {outcome.seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
