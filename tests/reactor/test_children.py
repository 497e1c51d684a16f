"""Child processes run a module of ours, wherever this process has it from."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from reactor import children


class ChildTests(SynchronousTestCase):
    """Real processes."""

    def run_child(self, module: str, *arguments: str) -> str:
        """Run a module in a folder that has nothing to import; return what it prints."""
        folder = self.mktemp()
        Path(folder).mkdir()
        finished = subprocess.run(
            children.command(module, *arguments), env=children.environment(), cwd=folder,
            check=True, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return finished.stdout

    def test_finds_what_we_find(self) -> None:
        """A module of a folder that this process has put on its path runs in the child, with arguments."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "printed.py").write_text("import sys, reactor\nprint(sys.argv[1:], reactor.__name__)\n")
        self.patch(sys, "path", [str(folder.resolve()), "", *sys.path])
        self.assertEqual(self.run_child("printed", "a b", "--c"), "['a b', '--c'] reactor\n")

    def test_this_interpreter(self) -> None:
        """The child is run by the interpreter of this process, with the rest of its environment."""
        self.patch(children.os, "environ", {**children.os.environ, "OF_THE_TEST": "kept"})
        self.assertEqual(children.command("m", "a"), [sys.executable, "-m", "m", "a"])
        self.assertEqual(children.environment()["OF_THE_TEST"], "kept")
        self.assertNotIn("", children.environment()["PYTHONPATH"].split(children.os.pathsep))


class LightTests(SynchronousTestCase):
    """Imports of the processes without Twisted."""

    def test_no_twisted(self) -> None:
        """``reactor.framing`` and ``reactor.children`` load the standard library and nothing else."""
        program = (
            "import sys; import reactor.framing, reactor.children; "
            "print(sorted(name for name in sys.modules if not name.startswith('__') "
            "and name.partition('.')[0] not in sys.stdlib_module_names))"
        )
        # Without site: .pth files of the environment may load other modules.
        finished = subprocess.run(
            [sys.executable, "-S", "-c", program], env=children.environment(),
            check=True, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        self.assertEqual(finished.stdout, "['reactor', 'reactor.children', 'reactor.framing']\n")

    def test_signals_of_a_group(self) -> None:
        """A child ignores what a terminal or systemd sends to all processes of a service, nothing else."""
        numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM)
        before = [signal.getsignal(number) for number in numbers]
        for number, handler in zip(numbers, before, strict=True):
            self.addCleanup(signal.signal, number, handler)
        children.leave_signals_to_parent()
        after = [signal.getsignal(number) for number in numbers]
        self.assertEqual(after, [signal.SIG_IGN, signal.SIG_IGN, signal.SIG_IGN, before[3]])
