"""Every program of examples/guide prints what is kept for it, and leaves nothing behind.

A program's docstring says how to run it: the line with the command names the arguments, and "two nodes" asks
for a cluster of that many. What it has to print is in ``examples/guide/expected/NAME.txt``.

Standard library only, and Python 3.9, for the sake of PyPy; see :mod:`tests.couchbase.support`. Programs that
need more than the interpreter has are skipped.
"""

from __future__ import annotations

import ast
import atexit
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from unittest import SkipTest, TestCase
from urllib.request import urlopen

from couchbase.connection import Connection
from tests.couchbase.support import ROOT, NodeProcess

GUIDE = ROOT / "examples" / "guide"
EXPECTED = GUIDE / "expected"
PROGRAMS = {path.stem: path for path in sorted(GUIDE.glob("*.py"))}
SECONDS = 90
NEEDS = {"txcouchbase": ("twisted", "OpenSSL"), "gcouchbase": ("gevent",)}
_COMMAND = re.compile(
    r"^python examples/guide/(\w+)\.py couchbase://127\.0\.0\.1:11210( USER PASSWORD)?$", re.M
)


@cache
def one_node() -> NodeProcess:
    """Return a node for all programs that need no more."""
    return NodeProcess()


@cache
def two_nodes() -> NodeProcess:
    """Return two nodes that write to disks, with a replica of everything."""
    directory = tempfile.mkdtemp(prefix="guide-")
    # Before the node's own: cleanups run in reverse order.
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return NodeProcess(nodes=2, replicas=1, data_dir=directory)


def installed(library: str) -> bool:
    """Return whether this interpreter can use a library; our own folder ``twisted`` is none."""
    spec = importlib.util.find_spec(library)
    return spec is not None and spec.origin is not None and sys.version_info >= (3, 10)


@cache
def node_can(*modules: str) -> bool:
    """Return whether the interpreter that runs nodes has these modules."""
    python = os.environ.get("COUCHNODE_PYTHON", sys.executable)
    program = f"from importlib.util import find_spec; print(all(map(find_spec, {modules})))"
    answer = subprocess.run([python, "-c", program], capture_output=True, check=True, timeout=SECONDS)
    return answer.stdout.strip() == b"True"


def docstring(path: Path) -> str:
    """Return what a program says about itself."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


class ProgramTests(TestCase):
    """One test for each program; they are made below."""

    maxDiff = None

    def run_program(self, name: str) -> None:
        path = PROGRAMS[name]
        text = path.read_text(encoding="utf-8")
        about = docstring(path)
        for package, libraries in NEEDS.items():
            if f"from {package}" in text and not all(map(installed, libraries)):
                raise SkipTest(f"{package} needs {' and '.join(libraries)} and Python 3.10")
        if "design_create" in text and not node_can("py_mini_racer", "icu"):
            raise SkipTest("mini-racer or pyicu-wheels is not installed")
        command = _COMMAND.search(about)
        assert command is not None and command[1] == name, "the docstring has no command to run it by"
        kept = EXPECTED / f"{name}.txt"
        self.assertTrue(kept.exists(), f"nothing is kept for {name}.py to print")
        node = two_nodes() if "two nodes" in about else one_node()
        try:
            ended = subprocess.run(
                [
                    sys.executable,
                    str(path),
                    node.string,
                    *(("Administrator", "password") if command[2] else ()),
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            self.fail(f"{name}.py did not end; so far it printed {error.stdout!r} and {error.stderr!r}")
        self.assertEqual((ended.returncode, ended.stderr.decode()), (0, ""))
        self.assertEqual(ended.stdout.decode().splitlines(), kept.read_text(encoding="utf-8").splitlines())
        self._nothing_left(node)

    def _nothing_left(self, node: NodeProcess) -> None:
        cb = Connection(
            bucket="default", connection_string=node.string, username="Administrator", password="password"
        )
        self.addCleanup(cb._close)
        self.assertEqual(sum(cb.stats()["curr_items"].values()), 0, "documents were left behind")
        address = f"http://{cb.server_nodes[0]}/pools/default/buckets/default/ddocs"
        with urlopen(address, timeout=SECONDS) as answer:
            self.assertEqual(json.load(answer)["rows"], [], "design documents were left behind")


def _test_of(name: str) -> None:
    def test(self: ProgramTests) -> None:
        self.run_program(name)

    test.__doc__ = docstring(PROGRAMS[name]).partition("\n")[0]
    test.__name__ = f"test_{name}"
    setattr(ProgramTests, test.__name__, test)


for _name in PROGRAMS:
    _test_of(_name)


class GuideTests(TestCase):
    """The folder is complete."""

    def test_kept_output(self) -> None:
        """Every program has its output kept, and every kept output its program."""
        self.assertEqual(sorted(path.stem for path in EXPECTED.iterdir()), sorted(PROGRAMS))

    def test_table(self) -> None:
        """The README's tables have a row for every program, with the first line of its docstring."""
        rows = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) \| (.*) \|$", (GUIDE / "README.md").read_text(), re.M)
        self.assertEqual(len(rows), len(dict(rows)))
        self.assertEqual(
            dict(rows), {name: docstring(path).partition("\n")[0] for name, path in PROGRAMS.items()}
        )

    def test_names(self) -> None:
        """No program hides a module of the standard library, or of ours, from itself."""
        ours = {"couchbase", "txcouchbase", "gcouchbase", "twisted", "gevent"}
        self.assertEqual(set(PROGRAMS) & (set(getattr(sys, "stdlib_module_names", ())) | ours), set())
