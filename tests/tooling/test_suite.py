"""The runner of ``make test`` finds all tests, counts each outcome, and survives the end of a process."""

from __future__ import annotations

import ast
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sources import ROOT, parsed
from tests.tooling.suite import LONGEST, OUTCOMES, QUICK, TOGETHER, everything, run, units

SAMPLE = """
import os
from twisted.trial.unittest import SkipTest, SynchronousTestCase

class SampleTests(SynchronousTestCase):
    def test_success(self):
        print("on standard output")

    def test_failure(self):
        self.assertEqual(1, 2)

    def test_error(self):
        raise ValueError("an error")

    def test_skip(self):
        raise SkipTest("a reason")

    def test_todo(self):
        self.fail()
    test_todo.todo = "later"

    def test_unexpected(self):
        pass
    test_unexpected.todo = "later"

    def test_input(self):
        self.assertEqual(os.read(0, 1), b"")
"""

ENDS = """
import os
from twisted.trial.unittest import SynchronousTestCase

class EndTests(SynchronousTestCase):
    def test_end(self):
        os._exit(3)
"""

INTERRUPTS = """
import signal, subprocess, sys
from twisted.trial.unittest import SynchronousTestCase

class InterruptTests(SynchronousTestCase):
    def test_program(self):
        program = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
        self.assertEqual(subprocess.check_output([sys.executable, "-c", program], text=True), "False\\n")
"""

COMPILES = """
import os, sys
from twisted.trial.unittest import SynchronousTestCase

class ByteCodeTests(SynchronousTestCase):
    def test_written(self):
        self.assertFalse(sys.dont_write_bytecode)
        self.assertNotIn("PYTHONDONTWRITEBYTECODE", os.environ)
"""


WAITS = """
import os, signal
from pathlib import Path
from twisted.trial.unittest import SynchronousTestCase

class WaitTests(SynchronousTestCase):
    def test_wait(self):
        Path(os.environ["PID_FILE"] + ".new").write_text(str(os.getpid()))
        os.rename(os.environ["PID_FILE"] + ".new", os.environ["PID_FILE"])
        signal.pause()
"""


class SuiteTests(SynchronousTestCase):
    """``python -m tests.tooling.suite``."""

    def sample(self, **modules: str) -> list[str]:
        """Write test modules that the runner's processes find; returns their names."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": str(folder)})
        return list(modules)

    def test_outcomes(self) -> None:
        """Each outcome is counted and shown with its reason; the last line is that of trial."""
        output = io.StringIO()
        results = run(self.sample(sample_outcomes=SAMPLE), 2, Path(self.mktemp()).absolute(), output)
        self.assertEqual(
            dict(results.counts),
            {"successes": 2} | {one: 1 for one in OUTCOMES if one != "successes"},
        )
        text = output.getvalue()
        for words in (
            "1 != 2",
            "ValueError: an error",
            "a reason",
            "The slowest tests, in seconds:",
            "Ran 7 tests",
        ):
            self.assertIn(words, text)
        closing = "skips=1, expectedFailures=1, failures=1, errors=1, unexpectedSuccesses=1, successes=2"
        self.assertEqual(text.splitlines()[-1], f"FAILED ({closing})")
        self.assertTrue(results.failed)

    def test_in_the_background(self) -> None:
        """Programs that tests start heed SIGINT, although a shell has background jobs ignore it."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            names = self.sample(sample_interrupts=INTERRUPTS)
            results = run(names, 1, Path(self.mktemp()).absolute(), io.StringIO())
        finally:
            signal.signal(signal.SIGINT, before)
        self.assertEqual(dict(results.counts), {"successes": 1})

    def test_byte_code(self) -> None:
        """It is stored for the programs that tests start, although the environment says not to."""
        names = self.sample(sample_compiles=COMPILES)
        self.patch(os, "environ", {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
        results = run(names, 1, Path(self.mktemp()).absolute(), io.StringIO())
        self.assertEqual(dict(results.counts), {"successes": 1})

    def test_a_process_that_ends(self) -> None:
        """The test that ended it is an error; the modules after it run in a new process."""
        output = io.StringIO()
        names = self.sample(sample_end=ENDS, sample_after=SAMPLE)
        results = run(names, 1, Path(self.mktemp()).absolute(), output)
        self.assertEqual((results.counts["errors"], results.counts["successes"]), (2, 2))
        self.assertIn("its process ended with status 3", output.getvalue())
        self.assertIn("sample_end.EndTests.test_end", output.getvalue())

    def test_stopped(self) -> None:
        """SIGTERM ends the processes, too, and no other one is started in their place."""
        self.sample(sample_waits=WAITS)
        pid_file = Path(self.mktemp()).absolute()
        environment = {**os.environ, "PID_FILE": str(pid_file), "JOBS": "1"}
        command = [sys.executable, "-m", "tests.tooling.suite", "sample_waits"]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
            while not pid_file.exists():
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            process.terminate()
            self.assertEqual(process.wait(60), 128 + signal.SIGTERM)
        self.assertRaises(ProcessLookupError, os.kill, int(pid_file.read_text(encoding="utf-8")), 0)

    def test_a_name_that_does_not_exist(self) -> None:
        """It is an error, not an empty success."""
        results = run(["tests.no_such_module"], 1, Path(self.mktemp()).absolute(), io.StringIO())
        self.assertEqual((results.failed, results.counts["successes"]), (True, 0))

    def test_units(self) -> None:
        """Packages become their modules, the longest first; other names stay."""
        found = units(["tests.gateway", "tests.gateway.workers", "tests.protocol.test_core.SomeTests"])
        longest = [name for name in LONGEST if name.startswith("tests.gateway.")]
        self.assertEqual(found[: len(longest)], longest)
        self.assertEqual(units(reversed(TOGETHER)), [" ".join(TOGETHER)])
        self.assertEqual(len(found), len(set(found)))
        self.assertIn("tests.protocol.test_core.SomeTests", found)
        self.assertIn("tests.gateway.dialect.test_errors", found)

    def test_nothing_is_left_out(self) -> None:
        """Without names every test module runs, except for the judges; listed names exist."""
        modules = {
            ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for path in (ROOT / "tests").rglob("test_*.py")
            if path.relative_to(ROOT).parts[1] != "judges"
        }
        self.assertEqual(sorted(" ".join(units(everything())).split()), sorted(modules))
        self.assertEqual({*LONGEST, *TOGETHER} - modules, set())
        self.assertEqual(set(" ".join(units(QUICK)).split()) - modules, set())


class SleepTests(SynchronousTestCase):
    """Tests wait for events."""

    def test_no_fixed_sleep(self) -> None:
        """No test calls ``sleep`` with a number except in a loop, which looks for an event each time."""
        found = []
        for path in sorted((ROOT / "tests").rglob("*.py")):
            if "judges" not in path.parts:
                found += [f"{path.relative_to(ROOT)}:{line}" for line in fixed_sleeps(parsed(path))]
        self.assertEqual(found, [])

    def test_finder(self) -> None:
        """It tells a pause for an event from a pause."""
        for text, lines in {
            "def f():\n    time.sleep(1)": [2],
            "def f():\n    yield sleep(0.02)": [2],
            "def f():\n    yield deferLater(reactor, 1, g)": [2],
            "def f():\n    while not ready():\n        time.sleep(0.01)": [],
            "def f():\n    time.sleep(0)": [],
            "def f(seconds):\n    time.sleep(seconds)": [],
            "def f():\n    return task.deferLater(clock, 1, g)": [],
        }.items():
            self.assertEqual(list(fixed_sleeps(ast.parse(text))), lines, text)


def fixed_sleeps(tree: ast.AST, *, within_loop: bool = False) -> list[int]:
    """Return the lines of pauses with a number, outside of loops."""
    found = []
    for node in ast.iter_child_nodes(tree):
        inside = isinstance(node, (ast.While, ast.For)) or (
            within_loop and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        )
        if isinstance(node, ast.Call) and not inside and is_pause(node):
            found.append(node.lineno)
        found += fixed_sleeps(node, within_loop=inside)
    return found


def is_pause(node: ast.Call) -> bool:
    """Return whether a call waits for a number of seconds of the real clock."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name == "deferLater":
        if len(node.args) < 2 or ast.unparse(node.args[0]) != "reactor":
            return False
        seconds = node.args[1]
    elif name == "sleep" and node.args:
        seconds = node.args[0]
    else:
        return False
    return isinstance(seconds, ast.Constant) and seconds.value != 0
