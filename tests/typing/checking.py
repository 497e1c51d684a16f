"""Messages of type checkers about the programs in this folder, compared with the marks in them.

A line ``...  # wrong: CODES | RULES`` is a mistake: CODES are mypy's, RULES pyright's, each list with commas.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
FACES = ("blocking", "twisted", "gevent")
PYRIGHT = ROOT / "build/judges/pyright/node_modules/.bin/pyright"
SECONDS = 600
"""A cold check reads all of the SDK and Twisted."""

Findings = dict[str, dict[int, list[str]]]
"""File name -> line -> codes, sorted, each once."""

_MARK = re.compile(r"# wrong: (?P<mypy>[\w, -]+) \| (?P<pyright>[\w, -]+)$")
_MYPY_LINE = re.compile(r"(?P<path>[^:]+):(?P<line>\d+): error: .*\[(?P<code>[\w-]+)\]$")


def marked(path: Path, checker: str) -> dict[int, list[str]]:
    """Return what a checker must find in a program: line -> codes.

    :param checker: ``"mypy"`` or ``"pyright"``.
    """
    wrong = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark = _MARK.search(line)
        if mark is not None:
            wrong[number] = sorted(mark[checker].split(", "))
        elif "wrong:" in line:
            raise ValueError(f"{path.name}:{number}: a mark that is not understood")
    return wrong


def missing_mypy() -> str | None:
    """Return why mypy cannot run, or ``None``."""
    return None if importlib.util.find_spec("mypy") else "mypy is not installed"


def missing_pyright() -> str | None:
    """Return why pyright cannot run, or ``None``."""
    return None if PYRIGHT.exists() else "pyright is not there: make judges fetches it where there is npm"


def programs() -> list[Path]:
    """Return every program."""
    return [FOLDER / f"{face}_{kind}.py" for face in FACES for kind in ("program", "mistakes")]


def mypy_findings() -> Findings:
    """Return what ``mypy --strict`` finds in the programs."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file", str(FOLDER / "mypy.ini")),
            # Apart from the project's own, whose options differ.
            *("--cache-dir", str(ROOT / ".mypy_cache/programs"), "--no-error-summary", "--no-pretty"),
            *(str(path.relative_to(ROOT)) for path in programs()),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    if done.returncode not in (0, 1) or done.stderr:
        raise RuntimeError(f"mypy ended with {done.returncode}: {done.stdout}{done.stderr}")
    found = [_MYPY_LINE.match(line) for line in done.stdout.splitlines() if ": error: " in line]
    return _by_line((Path(one["path"]).name, int(one["line"]), one["code"]) for one in found if one)


def pyright_findings() -> Findings:
    """Return what pyright in its strict mode finds in the programs."""
    done = subprocess.run(
        [str(PYRIGHT), "--pythonpath", sys.executable, "--project", str(FOLDER), "--outputjson"],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pyright ended with {done.returncode}: {done.stdout}{done.stderr}")
    return _by_line(
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1, one["rule"])
        for one in json.loads(done.stdout)["generalDiagnostics"]
        # A consequence of the mistake itself: an unknown type.
        if not one["rule"].startswith("reportUnknown")
    )


def _by_line(found: Iterable[tuple[str, int, str]]) -> Findings:
    lines: defaultdict[str, defaultdict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, line, code in found:
        lines[name][line].add(code)
    return {name: {line: sorted(codes) for line, codes in by.items()} for name, by in lines.items()}
