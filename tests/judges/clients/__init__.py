"""The official clients of other languages: one program each with the same checks, and what the checks say.

A program gets ``CONNECTION-STRING USER PASSWORD BUCKET REPLICAS [CHECK ...]`` and writes one line of JSON for
each check: ``{"check": name, "result": value}``, or ``{"check": name, "raised": text}``. With the variable
``TLS_CA`` it trusts the certificates in that file.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]
BUILT = ROOT / "build" / "judges"
SOURCES = Path(__file__).parent


class Program(NamedTuple):
    """One client's program.

    :ivar command: starts it; ``{prefix}`` is in the names that it creates.
    :ivar needs: what must be there, with the words for a test that is skipped.
    :ivar env: additional variables of its environment.
    """

    command: list[str]
    needs: list[tuple[Path, str]]
    env: dict[str, str]

    def missing(self) -> str | None:
        """Return why it cannot be started, ``None`` if it can."""
        for path, words in self.needs:
            if not path.exists():
                return f"{words} is not there: make judges fetches it"
        if shutil.which(self.command[0]) is None:
            return f"{self.command[0]} is not installed"
        return None


_PYTHON = ROOT / ".venv-interop" / "bin" / "python"
_NODE = BUILT / "node" / "node_modules"
_GO = BUILT / "go" / "client"
_JAVA = BUILT / "java"

PROGRAMS = {
    "python": Program(
        [str(_PYTHON), str(SOURCES / "python" / "client.py")],
        [(_PYTHON, "the official Python client")],
        {},
    ),
    "node": Program(
        ["node", str(SOURCES / "node" / "client.js")],
        [(_NODE / "couchbase", "the official Node.js client")],
        {"NODE_PATH": str(_NODE)},
    ),
    "go": Program([str(_GO)], [(_GO, "the program of the official Go client")], {}),
    "java": Program(
        ["java", "-cp", f"{_JAVA / 'classes'}:{_JAVA / 'lib'}/*", "Client"],
        [(_JAVA / "classes" / "Client.class", "the program of the official Java client")],
        {},
    ),
}

EXPECTED: dict[str, object] = {
    "documents": [{"name": "Ada", "n": 1}, True, True, False],
    "expiry": [True, True, True, True, True],
    "locks": 3,
    "binary": ["abc", 10, 15, 8],
    "subdocuments": [
        [
            3,
            False,
            6,
            {
                "n": 3,
                "list": [0, 1, 2, 2.5, 3, 4],
                "old": False,
                "new": {"deep": "v"},
                "s": "x",
                "unique": ["u"],
            },
            "PathNotFound",
            4,
        ],
        {"a": 1},
    ],
    "attributes": [5, True, 0, False, True, 2, 5],
    "collections": [False, True, [["books", 1000], ["gone", 0]], False],
    "buckets": [True, 128, True, 500, False],
    "users": [1, ["data_reader"], True, {"v": 1}, True],
    "views": [[1, 2, 3], 3],
    "durability": [{"v": 2}, True, False],
    "transactions": [True, {"v": "new"}, {"v": 2}, False, False, 4],
    "cleanup": [
        True,
        [True, True],
        [{"v": 1}, True, False],
        [{"v": 2}, {"v": "late"}, False],
        {"v": 3},
    ],
    "scans": [list(range(20)), [f"scan-{n:02}" for n in range(5, 11)], 5],
    "large": True,
    "health": [True, True, True],
}
"""Check -> its result. Errors that a check expects are compared by the program itself."""

OVER_TLS = ("documents", "views", "scans", "buckets")
"""The checks that are made over TLS: each kind of port, and a bucket that comes and goes."""

ONE_COPY = {**EXPECTED, "durability": "one copy"}
"""The same for a bucket without replicas."""
