"""Measures everything in one go, and writes the tables of docs/performance.md.

    python -m bench.page [--quick] [--only MODULE ...] [--again]

Runs the modules below one after the other and says how long each takes. What a module prints is kept in
build/bench; its tables replace those behind a comment with its name in the page, matched by the first cell of
their heads. Tables without such a comment, and all words, are left as they are: read them afterwards.
``--quick`` measures for shorter times and fewer rounds, in about half an hour instead of an hour
and a half; ``--only`` runs some modules; ``--again`` runs none, and uses what the last run kept.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from bench.harness import HERE, OWN_PYTHON, load, machine

ROOT = HERE.parent
PAGE = ROOT / "docs" / "performance.md"
KEPT = ROOT / "build" / "bench"
OVERDUE_SECONDS = 3600


class Part(NamedTuple):
    """A module, and what its command line takes."""

    module: str
    full: str
    quick: str


PARTS = (
    Part("client", "", "10000 5"),
    Part("guide", "", "--rounds 2 --seconds 0.4"),
    Part("singles", "", "--rounds 7 --seconds 0.4"),
    Part("node", "", "8000 3"),
    Part("interpreters", "", "--rounds 3 --seconds 1"),
    Part("gateway", "", "--rounds 5 --seconds 1"),
    Part("kinds", "", "--rounds 5 --seconds 0.3"),
    Part("workers", "2 128", "2 128 1 3"),
    Part("profile", "--top 18", "--top 18 --seconds 2"),
    Part("streams", "", "--rounds 4 --seconds 1"),
    Part("keyspaces", "", "--rounds 3 --seconds 1"),
    Part("subdocuments", "", "--rounds 3 --seconds 1"),
    Part("batch", "", "20000 3"),
    Part("export", "", "40000 2"),
    Part("fairness", "--seconds 2", "--seconds 1"),
    Part("connections", "", ""),
    Part("memory", "", "300000"),
    Part("endurance", "", "500000"),
    Part("views", "", "--rounds 2"),
)
"""In the order of the page."""

RUN = "run"
"""The name in the comment before the paragraph about the run."""


def tables_of(output: str) -> list[list[str]]:
    """Return the Markdown tables in what a module printed, each as its lines."""
    tables: list[list[str]] = []
    is_inside = False
    for line in output.splitlines():
        if not line.startswith("|"):
            is_inside = False
        elif is_inside:
            tables[-1].append(line)
        else:
            tables.append([line])
            is_inside = True
    return tables


def title_of(head: str) -> str:
    """Return the first cell of a table's first line."""
    return re.split(r"(?<!\\)\|", head)[1].strip()


def numbered(heads: Iterable[str]) -> list[tuple[str, int]]:
    """Return what identifies each of a module's tables: its title, and which of those with it."""
    seen: Counter[str] = Counter()
    names = []
    for title in map(title_of, heads):
        names.append((title, seen[title]))
        seen[title] += 1
    return names


def renewed(page: str, module: str, output: str) -> tuple[str, list[str]]:
    """Return the page with a module's tables, and the titles of those that it did not print."""
    comment = f"<!-- bench.{module} -->"
    found = tables_of(output)
    made = dict(zip(numbered(table[0] for table in found), found, strict=True))
    lines = page.splitlines()
    places = [at + 1 for at, line in enumerate(lines) if line == comment and at + 1 < len(lines)]
    names = numbered(lines[at] for at in places)
    missing = []
    # From the end, so that the places before it stay where they are.
    for at, name in reversed(list(zip(places, names, strict=True))):
        if name not in made:
            missing.append(name[0])
            continue
        end = at
        while end < len(lines) and lines[end].startswith("|"):
            end += 1
        lines[at:end] = made[name]
    return "\n".join(lines) + "\n", missing[::-1]


def with_run(page: str, words: str) -> str:
    """Return the page with another paragraph about the run."""
    comment = f"<!-- bench.{RUN} -->\n"
    before, _, behind = page.partition(comment)
    _, _, rest = behind.partition("\n\n")
    return f"{before}{comment}{words}\n\n{rest}" if behind else page


def run(part: Part, is_quick: bool) -> None:
    """Run a module, and keep its output.

    :raises subprocess.SubprocessError: it failed, or took an hour.
    """
    words = (part.quick if is_quick else part.full).split()
    command = [OWN_PYTHON, "-m", f"bench.{part.module}", *words]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=OVERDUE_SECONDS,
    )
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{part.module}.txt").write_text(done.stdout)
    done.check_returncode()


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description="See the module's docstring.")
    parser.add_argument("--quick", action="store_true", help="shorter times, fewer rounds")
    parser.add_argument("--only", nargs="+", choices=[part.module for part in PARTS], metavar="MODULE")
    parser.add_argument("--again", action="store_true", help="write the tables of the last run again")
    return parser.parse_args()


def main() -> None:
    """Measure, and write the page."""
    given = parse()
    begun, before = time.monotonic(), load()
    print(machine(), flush=True)
    failed = []
    for part in PARTS:
        if given.only and part.module not in given.only:
            continue
        part_begun = time.monotonic()
        if not given.again:
            print(f"bench.{part.module} ...", end=" ", flush=True)
            try:
                run(part, given.quick)
            except subprocess.SubprocessError as error:
                failed.append(part.module)
                print(error, flush=True)
                continue
            print(f"{time.monotonic() - part_begun:.0f} s", flush=True)
        kept = KEPT / f"{part.module}.txt"
        if kept.exists():
            page, missing = renewed(PAGE.read_text(encoding="utf-8"), part.module, kept.read_text())
            PAGE.write_text(page, encoding="utf-8")
            for title in missing:
                print(
                    f"bench.{part.module} has printed no table {title!r}; the page keeps its own", flush=True
                )
    minutes = (time.monotonic() - begun) / 60
    quickly = ", with --quick" if given.quick else ""
    words = (
        f"Measured on {time.strftime('%Y-%m-%d')} in {minutes:.0f} minutes{quickly}."
        f" {machine()} at the end. At the beginning: {before}."
    )
    if not given.again and not given.only:
        PAGE.write_text(with_run(PAGE.read_text(encoding="utf-8"), words), encoding="utf-8")
    print(words)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
