"""The SDK guide's benchmark: a driver under a load of sets and gets, alone or beside all the others.

    python -m bench.guide [--driver NAME | --all] [OPTIONS] [CONNECTION_STRING]

Drivers: ``blocking``, ``threads``, ``deferreds``, ``async``, ``gevent``, ``official``. Prints operations a
second, the median and the 99th percentile of a call's duration, and the CPU time of the client's process per
operation. ``--all``, as without a driver, measures every one that can be imported, taking turns, and
prints the medians of the rounds in one table, with ratios to the official client; with none of --batch,
--ratio and --under-way for the loads of docs/performance.md.

Without a connection string a couchnode is started in a separate process. Otherwise documents whose keys begin
with ``guide-`` are left behind in the bucket.

``blocking`` makes one call after the other; ``threads`` has a connection in each thread. Twisted's drivers
(``deferreds``: Connection, ``async``: TxAsyncConnection) and ``gevent`` have all that is under way on one
connection. The official 4.x client is that of ``.venv-interop`` (``make interop``): its blocking face, in as
many threads as there are operations under way.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.harness import HERE, OFFICIAL_PYTHON, OWN_PYTHON, Samples, Server, machine
from bench.serve import PASSWORD, USER

DRIVERS = {
    "official": "official 4.x, blocking",
    "blocking": "couchbase Connection",
    "threads": "couchbase Connection, threads",
    "deferreds": "txcouchbase Connection",
    "async": "txcouchbase TxAsyncConnection",
    "gevent": "gcouchbase GConnection",
}
COLUMNS = {
    "operations a second": ("operations a second", 0),
    "median": ("median, us", 0),
    "99th": ("99th, us", 0),
    "cpu": ("CPU us an operation", 2),
}
SMALLEST_KEY, LARGEST_KEY = 12, 250
LARGEST_VALUE = 20 * 2**20
DEFAULT_SECONDS = 1.0
SLACK_SECONDS = 120


class Load(NamedTuple):
    """The load on a driver."""

    batch: int
    sets: int
    gets: int
    under_way: int

    def __str__(self) -> str:
        both = f"sets and gets {self.sets}:{self.gets}" if self.sets and self.gets else ""
        if self.batch > 1:
            names = both or ("set_multi" if self.sets else "get_multi")
            text = f"{names}, batches of {self.batch:,}"
        else:
            text = both or ("sets" if self.sets else "gets")
        return f"{text}, {f'{self.under_way:,} under way' if self.under_way > 1 else 'one at a time'}"

    def suits(self, driver: str) -> bool:
        """Return whether a driver can have that many operations under way, and then differs from its
        sibling."""
        return {"blocking": self.under_way == 1, "threads": self.under_way > 1}.get(driver, True)


# Quoted in docs/performance.md.
LOADS = [
    Load(1, 0, 1, 1),
    Load(1, 1, 0, 1),
    Load(1, 0, 1, 64),
    Load(1, 1, 0, 64),
    Load(1, 1, 3, 64),
    Load(1000, 0, 1, 1),
    Load(1000, 1, 0, 1),
]


def absence(driver: str) -> str | None:
    """Return why a driver cannot take part; ``None`` if it can."""
    module, cure = {
        "official": ("couchbase.cluster", "make interop"),
        "gevent": ("gcouchbase.connection", "it needs gevent"),
    }.get(driver, ("", ""))
    if not module:
        return None
    try:
        # Run it in another folder, so that the official client is not hidden by this checkout's package.
        done = subprocess.run(
            [python_of(driver), "-c", f"import {module}"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return f"{driver} did not take part: {cure}"
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        return f"{driver} did not take part ({cure}): {reason}"
    return None


def python_of(driver: str) -> str:
    """Return the interpreter whose environment has a driver."""
    return str(OFFICIAL_PYTHON) if driver == "official" else OWN_PYTHON


def run(driver: str, load: Load, options: argparse.Namespace, node: dict[str, str]) -> dict[str, float]:
    """Return the figures of a driver under a load, from a separate process.

    :raises RuntimeError: it failed.
    :raises subprocess.TimeoutExpired: it took far longer than requested.
    """
    settings = {
        "driver": driver,
        "key_size": options.key_size,
        "value_size": options.value_size,
        "operations": options.operations,
        "seconds": None if options.operations else options.seconds,
        **load._asdict(),
        **node,
    }
    limit = None if options.operations else options.seconds + SLACK_SECONDS
    # The settings hold a password, which the list of processes must not show.
    done = subprocess.run(
        [python_of(driver), str(HERE / "guide_worker.py")],
        cwd="/",
        input=json.dumps(settings),
        stdout=subprocess.PIPE,
        text=True,
        timeout=limit,
    )
    if done.returncode:
        raise RuntimeError(f"{driver} ended with status {done.returncode}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def table(samples: dict[Load, Samples]) -> str:
    """Return a Markdown table of medians: the drivers under each load, and ratios to the first of them."""
    titles = [title for title, _ in COLUMNS.values()]
    lines = [f"| load | driver | {' | '.join(titles)} |", "| --- | --- |" + " ---: |" * len(titles)]
    for load, figures in samples.items():
        rows = [driver for driver in DRIVERS if driver in figures.rows()]
        for driver in rows:
            cells = []
            for column, (_, digits) in COLUMNS.items():
                figure, unit = figures.median(driver, column), figures.median(rows[0], column)
                assert figure is not None and unit is not None
                ratio = f" ({figure / unit:.2f}x)" if driver != rows[0] and unit else ""
                cells.append(f"{figure:,.{digits}f}{ratio}")
            shown = str(load) if driver == rows[0] else ""
            lines.append(f"| {shown} | {DRIVERS[driver]} | {' | '.join(cells)} |")
    return "\n".join(lines)


@contextmanager
def target(options: argparse.Namespace, password: str) -> Iterator[dict[str, str]]:
    """Yield the settings with which a driver connects; start a node unless a cluster is given."""
    if options.connection_string:
        yield {
            "connection_string": options.connection_string,
            "user": options.user,
            "password": password,
            "bucket": options.bucket,
        }
        return
    with Server("node") as node:
        yield {
            "connection_string": node.address,
            "user": USER,
            "password": PASSWORD,
            "bucket": "default",
        }


def whole(least: int, most: int | None = None) -> Any:
    """Return a reader of whole numbers in a range, for argparse."""

    def read(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(
                f"must be at least {least}" + (f", at most {most}" if most else "")
            )
        return number

    read.__name__ = "whole number"
    return read


def ratio(text: str) -> tuple[int, int]:
    """Read ``sets:gets``."""
    sets, separator, gets = text.partition(":")
    if not (separator and sets.isdecimal() and gets.isdecimal() and int(sets) + int(gets)):
        raise argparse.ArgumentTypeError("must be two numbers like 1:3, not both 0")
    return int(sets), int(gets)


def seconds(text: str) -> float:
    """Read a positive time."""
    number = float(text)
    if not 0 < number < 86400:
        raise argparse.ArgumentTypeError("must be above 0, and below a day")
    return number


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench.guide", description="Measure drivers under a load of sets and gets."
    )
    what = made.add_mutually_exclusive_group()
    what.add_argument("--driver", choices=sorted(DRIVERS))
    what.add_argument("--all", action="store_true", help="every driver, side by side; the default")
    made.add_argument(
        "--batch", type=whole(1), metavar="N", help="keys in a call; from 2: get_multi, set_multi"
    )
    made.add_argument(
        "--ratio", type=ratio, metavar="SETS:GETS", help="sets to gets; 0:1 by default, gets only"
    )
    made.add_argument(
        "--under-way", "--threads", type=whole(1, 10000), metavar="N", help="calls at once; 1 by default"
    )
    made.add_argument(
        "--key-size",
        type=whole(SMALLEST_KEY, LARGEST_KEY),
        default=16,
        metavar="BYTES",
        help=f"length of a key, {SMALLEST_KEY} to {LARGEST_KEY}; 16 by default",
    )
    made.add_argument(
        "--value-size",
        type=whole(2, LARGEST_VALUE),
        default=100,
        metavar="BYTES",
        help="length of a JSON value; 100 by default",
    )
    length = made.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds", type=seconds, default=DEFAULT_SECONDS, help="time for each load; 1 by default"
    )
    length.add_argument(
        "--operations", type=whole(1), metavar="N", help="operations for each load, instead of a time"
    )
    made.add_argument(
        "--rounds", type=whole(1), help="rounds for the medians; 5 by default with --all, else 1"
    )
    made.add_argument("--user", default="", help="for a cluster: the user")
    made.add_argument(
        "--password-file", type=Path, metavar="FILE", help="for a cluster: a file that holds the password"
    )
    made.add_argument("--bucket", default="default", help="for a cluster: 'default' by default")
    made.add_argument("connection_string", nargs="?", metavar="CONNECTION_STRING")
    return made


def main() -> None:
    """Measure, and print a table."""
    reader = parser()
    options = reader.parse_args()
    options.all = options.driver is None
    if options.connection_string and not (options.user and options.password_file):
        reader.error("a connection string needs --user and --password-file")
    password = ""
    if options.password_file:
        try:
            password = options.password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reader.error(f"--password-file: {error}")
    given = options.batch is not None or options.ratio is not None or options.under_way is not None
    if options.all and not given:
        loads = LOADS
    else:
        sets, gets = options.ratio or (0, 1)
        loads = [Load(options.batch or 1, sets, gets, options.under_way or 1)]
    drivers = list(DRIVERS) if options.all else [options.driver]
    if options.driver == "blocking" and loads[0].under_way > 1:
        reader.error("blocking has one call under way; take threads")
    missing = {driver: why for driver in drivers if (why := absence(driver))}
    drivers = [driver for driver in drivers if driver not in missing]
    if not drivers:
        reader.exit(1, f"{missing[options.driver]}\n")
    rounds = options.rounds or (5 if options.all else 1)
    samples = {load: Samples() for load in loads}
    with target(options, password) as node:
        # All drivers run under one load before the next, so that they see the same machine; each round
        # starts with another driver, so that none always runs after the same one.
        for load, round_ in itertools.product(loads, range(rounds)):
            first = round_ % len(drivers)
            for driver in drivers[first:] + drivers[:first]:
                if options.all and not load.suits(driver):
                    continue
                try:
                    figures = run(driver, load, options, node)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    reader.exit(1, f"round {round_ + 1}, {load}: {error}\n")
                for column, figure in figures.items():
                    samples[load].add(driver, column, figure)
    amount = f"{options.operations:,} operations" if options.operations else f"{options.seconds:g} s"
    print(
        f"{machine()}; {amount} for each load, keys of {options.key_size} and values of"
        f" {options.value_size} bytes, " + (f"medians of {rounds} rounds" if rounds > 1 else "one round")
    )
    print("\n" + table(samples))
    for why in missing.values():
        print(f"\n{why}")


if __name__ == "__main__":
    main()
