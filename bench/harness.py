"""Parts for the measurements: servers in separate processes, medians, tables."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from bench.builds import build

HERE = Path(__file__).resolve().parent
OWN_PYTHON = sys.executable
OFFICIAL_PYTHON = HERE.parent / ".venv-interop" / "bin" / "python"
START_SECONDS = 60


class Server(AbstractContextManager["Server"]):
    """A role of :mod:`bench.serve` in its own process; use as a context manager.

    :param arguments: the role and its arguments.
    :param command: in place of ``python -m bench.serve``; such a program may not answer questions.
    :param first_line: sent to its standard input before anything else.
    :param root: the checkout whose code it runs.
    """

    def __init__(
        self,
        *arguments: str,
        command: Sequence[str] | None = None,
        first_line: str | None = None,
        root: Path = HERE.parent,
    ) -> None:
        begin = command or [OWN_PYTHON, "-m", "bench.serve"]
        self._name = " ".join(arguments if command is None else [*begin, *arguments])
        self._process = subprocess.Popen(
            [*begin, *arguments],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if first_line is not None:
            self._say(first_line)
        self.address: str = self._told()["address"]
        """URL or connection string."""

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Return user and system time that it has used so far."""
        return float(self._ask("cpu"))

    def resident_bytes(self) -> int:
        """Return its resident size now."""
        return int(self._ask("resident"))

    def start_sampling(self) -> None:
        """Begin to sample its functions; see :mod:`bench.sampler`."""
        self._ask("sample")

    def stop_sampling(self) -> dict[str, int]:
        """Return how often it was seen in which calls, outermost first, joined by semicolons."""
        stacks: dict[str, int] = self._ask("stacks")
        return stacks

    def start_counting(self) -> None:
        """Begin to count bytecode instructions; see :mod:`bench.instructions`."""
        self._ask("count")

    def stop_counting(self) -> int:
        """Return how many bytecode instructions its reactor has executed since then."""
        return int(self._ask("instructions"))

    def _ask(self, what: str) -> Any:
        self._say(what)
        return self._told()[what]

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with status {self._process.wait()}")
        told: dict[str, Any] = json.loads(line)
        return told

    def __exit__(self, *exception: object) -> None:
        """Stop it: it ends when its standard input does."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def run_json(command: Sequence[str], **options: Any) -> Any:
    """Run a command that prints one JSON text, and return it."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}")
    return json.loads(done.stdout)


class Ratio(NamedTuple):
    """What one figure is of another, in a run of several rounds."""

    median: float
    """The median of the rounds' own ratios: both figures of a round are made under the same load."""
    low: float
    high: float
    """The least and the greatest of them."""

    def __str__(self) -> str:
        spread = f" ({self.low:.2f}-{self.high:.2f})" if self.low < self.high else ""
        return f"{self.median:.2f}{spread}"


class Samples:
    """Figures by (row, column), one for each round."""

    def __init__(self) -> None:
        self._figures: dict[str, dict[str, list[float]]] = {}

    def add(self, row: str, column: str, figure: float) -> None:
        """Add the figure of one round."""
        self._figures.setdefault(row, {}).setdefault(column, []).append(figure)

    def median(self, row: str, column: str) -> float | None:
        """Return the median over the rounds; ``None`` if there was none."""
        figures = self._figures.get(row, {}).get(column)
        return statistics.median(figures) if figures else None

    def ratio(self, row: str, base: str, column: str) -> Ratio | None:
        """Return what a row's figures are of another's; ``None`` if one of the two has none.

        Where a round of one of them failed, it is the ratio of their medians, without a spread.
        """
        figures, units = (self._figures.get(name, {}).get(column, []) for name in (row, base))
        if not figures or not units or not all(units):
            return None
        if len(figures) != len(units):
            only = statistics.median(figures) / statistics.median(units)
            return Ratio(only, only, only)
        ratios = [figure / unit for figure, unit in zip(figures, units, strict=True)]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))

    def only(self, columns: Sequence[str]) -> Samples:
        """Return the figures of some columns."""
        some = Samples()
        for row, figures in self._figures.items():
            some._figures[row] = {column: figures[column] for column in columns if column in figures}
        return some

    def rows(self) -> list[str]:
        """Return the rows in the order of their first figures."""
        return list(self._figures)

    def columns(self) -> list[str]:
        """Return the columns in the order of their first figures."""
        return list(dict.fromkeys(column for row in self._figures.values() for column in row))

    def table(self, title: str, digits: int = 0, base: str | None = None) -> str:
        """Return a Markdown table of medians; with ``base`` each figure also has its ratio to that row.

        :param digits: after the decimal point.
        :param base: a row.
        """
        columns = self.columns()
        lines = [f"| {title} | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
        for row in self.rows():
            cells = []
            for column in columns:
                figure, unit = self.median(row, column), None
                if base is not None and row != base:
                    unit = self.median(base, column)
                if figure is None:
                    cells.append("-")
                else:
                    cells.append(f"{figure:,.{digits}f}" + (f" ({figure / unit:.2f}x)" if unit else ""))
            lines.append(f"| {row} | {' | '.join(cells)} |")
        return "\n".join(lines)


def machine() -> str:
    """Return one line about where and with which Python this was measured."""
    return (
        f"{platform.python_implementation()} {platform.python_version()} ({build()}),"
        f" {os.cpu_count()} cores, {platform.system()} {platform.machine()}, loopback, {load()}"
    )


def load() -> str:
    """Return how many processes wanted a core in the last minute and in the last quarter of an hour."""
    try:
        minute, _, quarter = os.getloadavg()
    except OSError:
        return "load unknown"
    return f"load {minute:.1f} and {quarter:.1f}"
