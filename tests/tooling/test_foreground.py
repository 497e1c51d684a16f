"""``make run``: a stop on purpose is no failure, other ends are; and what make says without python3-venv."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.tooling.sources import ROOT

# Prints its id once a signal would end it in the usual way, and waits for one.
_WAITS = "import os, signal; print('up', os.getpid(), flush=True); signal.pause()"


class MakeCase(SynchronousTestCase):
    """Runs the Makefile with an environment of its own, in which nothing is installed."""

    def setUp(self) -> None:
        if shutil.which("make") is None:
            raise SkipTest("make is not installed")
        self.venv = Path(self.mktemp()).absolute()

    def installed(self, program: str) -> None:
        """Have an environment whose ``couchgateway`` is this code of Python."""
        (self.venv / "bin").mkdir(parents=True)
        (self.venv / "bin" / "python").symlink_to(sys.executable)
        command = self.venv / "bin" / "couchgateway"
        command.write_text(f"#!{sys.executable}\n{program}\n")
        command.chmod(0o755)
        (self.venv / ".runnable").touch()

    def make(self, *variables: str) -> subprocess.Popen[str]:
        """Start ``make run``, in a process group of its own as a shell does."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        running = subprocess.Popen(
            ["make", "run", f"VENV={self.venv}", *variables],
            cwd=ROOT,
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

        def end() -> None:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
            assert running.stdout is not None
            running.stdout.close()
            running.wait()

        self.addCleanup(end)
        return running

    def until_up(self, running: subprocess.Popen[str]) -> int:
        """Return the id of the program's process when it waits."""
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("up "):
                return int(line.split()[1])
        raise AssertionError("it has ended")


class RunTests(MakeCase):
    """The ends of ``make run``."""

    def test_stop(self) -> None:
        """SIGTERM to the program, and Ctrl-C: make ends with 0 and reports nothing."""
        self.installed(_WAITS)
        for number in (signal.SIGTERM, signal.SIGINT):
            running = self.make()
            os.kill(self.until_up(running), number)
            rest, _ = running.communicate(timeout=60)
            self.assertNotIn("make:", rest)
            self.assertEqual(running.returncode, 0, rest)

    def test_interrupt(self) -> None:
        """Ctrl-C in a terminal goes to all its processes, make among them, which then reports no error."""
        self.installed(_WAITS)
        running = self.make()
        self.until_up(running)
        os.killpg(running.pid, signal.SIGINT)
        rest, _ = running.communicate(timeout=60)
        self.assertNotIn("make:", rest)
        self.assertNotIn("foreground.py", rest)

    def test_stop_of_make(self) -> None:
        """SIGTERM to make stops the program in order: it does not go on without make."""
        self.installed(
            "import os, signal, sys\n"
            "signal.signal(signal.SIGTERM, lambda *_: (print('in order', flush=True), sys.exit(0)))\n"
            "print('up', os.getpid(), flush=True)\nsignal.pause()"
        )
        running = self.make()
        self.until_up(running)
        running.terminate()
        rest, _ = running.communicate(timeout=60)
        self.assertIn("in order\n", rest)

    def test_failure(self) -> None:
        """A status, or another signal, is an error."""
        for program, status in (("raise SystemExit(1)", 1), ("import os; os.kill(os.getpid(), 9)", 137)):
            shutil.rmtree(self.venv, ignore_errors=True)
            self.installed(program)
            running = self.make()
            rest, _ = running.communicate(timeout=60)
            self.assertEqual(running.returncode, 2, rest)
            self.assertIn(f"Error {status}", rest)

    def test_arguments(self) -> None:
        """PORT and ARGS reach the program as they are."""
        self.installed("import sys; print('up', sys.argv[1:])")
        rest, _ = self.make("PORT=1234", "ARGS=--ephemeral --bucket 'a b'").communicate(timeout=60)
        self.assertIn("['--listen', 'tcp:1234:interface=127.0.0.1', '--ephemeral', '--bucket', 'a b']", rest)


class WithoutVenvTests(MakeCase):
    """A Python that lacks ensurepip, as Debian's without python3-venv."""

    def python(self, has_pip: bool) -> str:
        """Return a Python whose ``-m venv`` makes an environment with or without pip; with it, pip fails."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        status = int(not has_pip)
        inner = f'case "$*" in "-m pip --version") exit {status};; *) echo "called: $*"; exit 3;; esac'
        path = folder / "python3"
        path.write_text(
            '#!/bin/sh\ncase "$*" in "-m venv "*)\n'
            f"mkdir -p {self.venv}/bin; printf '%s\\n' '#!/bin/sh' '{inner}' > {self.venv}/bin/python\n"
            f"chmod +x {self.venv}/bin/python; exit {status};; esac\n"
            f'exec {sys.executable} "$@"\n'
        )
        path.chmod(0o755)
        return str(path)

    def test_message(self) -> None:
        """Make says what to install; afterwards the environment that was half made is completed."""
        python = self.python(has_pip=False)
        for _ in range(2):
            running = self.make(f"PYTHON={python}")
            rest, _ = running.communicate(timeout=60)
            self.assertEqual(running.returncode, 2, rest)
            self.assertIn(
                f"{python} could not make {self.venv}; it needs the modules venv and ensurepip", rest
            )
            self.assertIn("apt install python3-venv). Then run again: make run", rest)
            self.assertNotIn("called:", rest)
        rest, _ = self.make(f"PYTHON={self.python(has_pip=True)}").communicate(timeout=60)
        self.assertIn("Installing the versions of requirements/run.txt", rest)
        self.assertIn("called: -m pip", rest)
