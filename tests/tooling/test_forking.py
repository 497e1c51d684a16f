"""Programs forked from one that has imported them are as those that an interpreter runs."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.tooling.forking import Program, adopt_orphans, fork_server, output_of
from tests.tooling.sources import ROOT

TELLS = """
import json, os, resource, signal, sys, threading
from twisted.internet import reactor
told = {
    "name": __name__,
    "arguments": sys.argv[1:],
    "folder": os.getcwd(),
    "variables": {name: os.environ.get(name) for name in ("FORK_TEST", "HOME", "PATH")},
    "parent": os.getppid(),
    "group": os.getpgrp(),
    "descriptors": sorted(fd for fd in map(int, os.listdir("/proc/self/fd")) if fd < 3),
    "limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "signals": [signal.getsignal(number) is signal.SIG_IGN for number in (1, 2, 15, 13)],
    "path": sys.path,
    "threads": threading.active_count(),
    "input": sys.stdin.read(),
}
reactor.callWhenRunning(lambda: reactor.callLater(0, reactor.stop))
reactor.run()
print(json.dumps(told))
print("to the other", file=sys.stderr)
sys.exit(3)
"""


class ForkTests(TestCase):
    """Programs of :mod:`tests.tooling.forking`."""

    timeout = 120
    maxDiff = None

    def told(self, kind: type[subprocess.Popen[Any]], *words: str) -> Any:
        """Run the sample in one of two ways; return what it says."""
        environment = {**os.environ, "FORK_TEST": "ä", "PYTHONPATH": str(ROOT)}
        with kind(
            [sys.executable, *words],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            output, errors = process.communicate("some input")
        self.assertEqual((errors, process.returncode), ("to the other\n", 3))
        return json.loads(output)

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        (self.folder / "tells.py").write_text(TELLS)

    def test_the_same(self) -> None:
        """Arguments, environment, folder, descriptors, limits, signals and path are those of a new
        interpreter, and so are its outputs and its status."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0] - 1, limits[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        for words in (["-c", TELLS], ["-m", "tells"], [str(self.folder / "tells.py")]):
            forked = self.told(Program, *words, "one", "--two")
            self.assertEqual(forked, self.told(subprocess.Popen, *words, "one", "--two"), words)
            self.assertEqual(forked["parent"], os.getpid())
            self.assertEqual(forked["limit"], limits[0] - 1)

    def test_it_is_forked(self) -> None:
        """Where that is possible, no interpreter starts."""
        code = "import sys; print('gateway.service' in sys.modules)"
        with Program([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            printed, _ = process.communicate()
        self.assertEqual(printed, b"True\n" if fork_server() is not None else b"False\n")

    @inlineCallbacks
    def test_output(self) -> Any:
        """Both outputs and the status are there at the end; that of a program that was killed is negative."""
        code = (
            "import os, sys; print(1); print(2, file=sys.stderr); sys.stdout.flush(); os.kill(os.getpid(), 9)"
        )
        self.assertEqual((yield output_of("-c", code)), (b"1\n", b"2\n", -signal.SIGKILL))
        output, errors, status = yield output_of("-c", "raise ValueError('wrong')")
        self.assertEqual((output, status), (b"", 1))
        self.assertIn(b"ValueError: wrong", errors)

    def test_views(self) -> None:
        """The processes of views are forks for those that ask for it, but not with another import path."""
        code = (
            "import subprocess, sys\n"
            "from pathlib import Path\n"
            "from tests.tooling.forking import fork_views\n"
            "from reactor import children\n"
            "fork_views()\n"
            "for path in (), ('/elsewhere',):\n"
            "    sys.path += path\n"
            "    words, ends = children.command('couchnode.views.sandbox'), dict(stdin=-1, stdout=-1)\n"
            "    with subprocess.Popen(words, env=children.environment(), **ends) as process:\n"
            "        print('forkserver' in Path(f'/proc/{process.pid}/cmdline').read_text())\n"
            "    assert process.returncode == 0\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        self.assertEqual(told.stdout, f"{fork_server() is not None}\nFalse\n", told.stderr)

    def test_signals(self) -> None:
        """Signals reach the program itself."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            code = "import signal; print(1, flush=True); signal.pause()"
            with Program([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                process.send_signal(number)
                self.assertEqual(process.wait(), -number)

    def test_ends(self) -> None:
        """The fork server ends with the process that has started it."""
        code = (
            "from tests.tooling.forking import _kept, fork_server\n"
            "print(fork_server() and _kept[0].pid, flush=True)\n"
            "import os; os._exit(0)"
        )
        adopt_orphans()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        printed = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE).stdout
        if printed != b"None\n":
            # It was adopted by this process, which can wait for it.
            self.assertEqual(os.waitpid(int(printed), 0)[0], int(printed))
