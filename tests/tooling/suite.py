"""Runs tests in several processes: whole modules, the longest first; `make test` is this.

    python -m tests.tooling.suite [NAME ...]

A name is a package, a module, a class or a method of tests, or ``quick`` for the tests to run at every save;
without names it is everything but ``tests.judges``.
``JOBS`` in the environment is the number of processes, one more than the machine has processors by default,
because some tests wait for others. It ends with the failures, the ten slowest tests, and trial's closing
line; the exit status is 1 if a test failed. ``trial --jobs`` hands out single tests in their order: the
longest module may come last, and what the tests of a module share is made in each process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import FrameType
from typing import Any, TextIO

from tests.tooling.sources import ROOT, module_name

# They take longest, so they begin; a test compares the names with the modules.
LONGEST = (
    "tests.couchnode.views.test_sandbox",
    "tests.interop.test_official_client",
    "tests.gateway.workers.test_roll",
    "tests.gateway.workers.test_processes",
    "tests.guide.test_programs",
    "tests.gcouchbase.test_as_blocking",
    "tests.tooling.test_console",
    "tests.examples.test_beer",
    "tests.gateway.tracing.test_export",
    "tests.gateway.loader.test_exportcommand",
    "tests.servers.test_gateway_certificates",
    "tests.gateway.http.test_overtls",
    "tests.tooling.test_otherplatforms",
    "tests.couchnode.views.test_service",
    "tests.couchnode.views.test_worker",
    "tests.gateway.loader.test_program",
    "tests.gateway.views.test_wellformed",
    "tests.gateway.views.test_behaviour",
    "tests.gateway.resources.test_documents",
    "tests.couchnode.rest.test_capi",
    "tests.gateway.fairness.test_steps",
    "tests.examples.test_beer_safety",
)
# The tests of `make quick`: pure code, and the rules that every file keeps.
QUICK = (
    "tests.protocol",
    "tests.couchbase.views",
    "tests.couchnode.access",
    "tests.couchnode.data.test_vbucket",
    "tests.couchnode.kv.test_commands",
    "tests.gateway.dialect.test_formats",
    "tests.gateway.operations",
    "tests.gateway.http.test_channel",
    "tests.gateway.test_options",
    "tests.gateway.test_hotpath",
    "tests.reactor.test_window",
    "tests.tooling.test_imports",
    "tests.tooling.test_pages",
)
OUTCOMES = ("skips", "expectedFailures", "failures", "errors", "unexpectedSuccesses", "successes")
BAD = ("failures", "errors", "unexpectedSuccesses")
SLOWEST = 10
PATIENCE_SECONDS = 5.0
"""Time for a process to end when it is asked to: a test may be waiting in the reactor."""
QUICK_PERCENT = "10"


# They read the same files, and keep what they have parsed.
TOGETHER = (
    "tests.tooling.test_prose",
    "tests.tooling.test_style",
    "tests.tooling.test_sources",
    "tests.tooling.test_shape",
    "tests.tooling.test_imports",
    "tests.tooling.test_folders",
    "tests.tooling.test_nodefolders",
    "tests.tooling.test_picture",
    "tests.tooling.test_suite",
)


def units(names: Iterable[str]) -> list[str]:
    """Return what is handed out at once: the modules of packages, and all other names as they are.

    Names that belong together are one unit, with spaces between them.
    """
    found: dict[str, None] = {}
    for name in names:
        folder = ROOT.joinpath(*name.split("."))
        if folder.is_dir():
            found.update((module_name(path), None) for path in sorted(folder.rglob("test_*.py")))
        else:
            found[name] = None
    together = " ".join(name for name in TOGETHER if name in found)
    rest = [name for name in found if name not in TOGETHER]
    order = {name: number for number, name in enumerate(LONGEST)}
    return ([together] if together else []) + sorted(rest, key=lambda name: order.get(name, len(order)))


def everything() -> list[str]:
    """Return the packages of tests, without the judges, which need programs of others."""
    packages = (module_name(path) for path in sorted((ROOT / "tests").glob("*/__init__.py")))
    return [name for name in packages if name != "tests.judges"]


@dataclass
class Results:
    """The outcomes of tests, and their times."""

    counts: Counter[str] = field(default_factory=Counter)
    texts: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """Names of tests by outcome and reason."""
    seconds: dict[str, float] = field(default_factory=dict)
    modules: Counter[str] = field(default_factory=Counter)
    """Seconds of whole modules, set-up included."""
    processor: float = 0.0

    def add(self, outcome: str, test: str, text: str) -> None:
        """Count a test."""
        self.counts[outcome] += 1
        if outcome != "successes":
            self.texts.setdefault((outcome, text), []).append(test)

    def write(self, stream: TextIO, seconds: float) -> None:
        """Print everything that is not a success, the slowest, and the closing line."""
        for (outcome, text), tests in sorted(self.texts.items(), key=lambda item: OUTCOMES.index(item[0][0])):
            print("=" * 79, f"[{outcome}]", text.rstrip(), "", *sorted(tests), sep="\n", file=stream)
        for title, times in (("tests", self.seconds), ("modules", self.modules)):
            print("-" * 79, f"The slowest {title}, in seconds:", sep="\n", file=stream)
            for name in sorted(times, key=lambda name: -times[name])[:SLOWEST]:
                print(f"{times[name]:8.2f}  {name}", file=stream)
        number = sum(self.counts.values())
        took = f"Ran {number} tests in {seconds:.1f} s; they used {self.processor:.0f} s of processor time"
        print("-" * 79, took, sep="\n", file=stream)
        counted = ", ".join(f"{one}={self.counts[one]}" for one in OUTCOMES if self.counts[one])
        print(f"\n{'FAILED' if self.failed else 'PASSED'} ({counted})", file=stream, flush=True)

    @property
    def failed(self) -> bool:
        """Whether a test failed, or none was run."""
        return any(self.counts[one] for one in BAD) or not self.counts["successes"]


class Worker:
    """A process that runs tests, and the thread that hands them to it.

    :param folder: where it may write; it is made.
    :param waiting: names that are still to be run.
    :param events: what it reports is put here; ``None`` when there is nothing more to run.
    """

    def __init__(self, folder: Path, waiting: SimpleQueue[str | None], events: SimpleQueue[Any]) -> None:
        self._folder = folder
        self._waiting = waiting
        self._events = events
        self._is_over = False
        self._process = self._start()
        Thread(target=self._serve, daemon=True).start()

    def stop(self) -> None:
        """End the process."""
        self._is_over = True
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        other = filter(None, [os.environ.get("PYTHONPATH")])
        # Tests start hundreds of interpreters: without stored byte code, each would compile every module.
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.tooling.suiteworker"],
            cwd=self._folder,
            env={**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), *other])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _serve(self) -> None:
        while not self._is_over and (name := self._waiting.get()) is not None:
            self._run(name)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._events.put(None)

    def _run(self, name: str) -> None:
        began = time.monotonic()
        test = name
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(name, file=self._process.stdin, flush=True)
            for line in self._process.stdout:
                event = json.loads(line)
                if event["event"] == "begins":
                    test = event["test"]
                    continue
                if event["event"] == "done":
                    self._events.put({**event, "seconds": time.monotonic() - began})
                    return
                self._events.put(event)
        except BrokenPipeError:
            pass
        if self._is_over:
            return
        text = f"its process ended with status {self._process.wait()}; see {self._folder}/output.log"
        self._events.put({"event": "outcome", "test": test, "outcome": "errors", "text": text})
        self._process = self._start()


def run(names: list[str], jobs: int, folder: Path, stream: TextIO) -> Results:
    """Run these units.

    :param jobs: number of processes, at most one for each unit.
    :param folder: the processes write into folders below it.
    """
    waiting: SimpleQueue[str | None] = SimpleQueue()
    events: SimpleQueue[Any] = SimpleQueue()
    jobs = min(jobs, len(names))
    for name in [*names, *[None] * jobs]:
        waiting.put(name)
    results = Results()
    began = time.monotonic()
    workers = [Worker(folder / str(number), waiting, events) for number in range(jobs)]
    try:
        done = 0
        while workers and done < jobs:
            event = events.get()
            if event is None:
                done += 1
            elif event["event"] == "outcome":
                results.add(event["outcome"], event["test"], event["text"])
                if event["outcome"] in BAD:
                    print(f"[{event['outcome']}] {event['test']}", file=stream, flush=True)
            elif event["event"] == "ended":
                results.seconds[event["test"]] = event["seconds"]
            else:
                results.modules[event["name"]] = event["seconds"]
                results.processor += event["processor"]
    finally:
        for worker in workers:
            worker.stop()
    results.write(stream, time.monotonic() - began)
    return results


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(arguments: list[str]) -> int:
    """Run what the arguments name; return the exit status."""
    # Ends the processes, too.
    signal.signal(signal.SIGTERM, _stop)
    jobs = int(os.environ.get("JOBS") or (os.cpu_count() or 1) + 1)
    # Several runs may share a checkout. Paths of sockets are limited, so the folder has a short one.
    folder = Path(tempfile.mkdtemp(prefix="_trial_temp-", dir=ROOT))
    names = arguments or everything()
    if names == ["quick"]:
        names = QUICK
        os.environ.setdefault("EXAMPLES", QUICK_PERCENT)
    try:
        results = run(units(names), jobs, folder, sys.stdout)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if results.failed:
        print(f"Logs, and what the tests printed: {folder.name}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return int(results.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
