"""The command ``couchnode``."""

from __future__ import annotations

import select
import subprocess
import sys
from unittest import SkipTest

from twisted.internet import reactor as installed
from twisted.trial.unittest import SynchronousTestCase

PROGRAM = """
import sys
from couchnode.command import main
try:
    main()
finally:
    from twisted.internet import reactor
    print(type(reactor).__module__)
"""


class CommandTests(SynchronousTestCase):
    """The start of the node."""

    def reactor_of(self, *, first: str = "") -> str:
        """Return the module of the reactor of a command that prints its version.

        :param first: code that runs before it.
        """
        done = subprocess.run(
            [
                sys.executable,
                "-S",
                "-c",
                f"import sys; sys.path[:] = {sys.path!r}\n{first}\n{PROGRAM}",
                "--version",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        version, module = done.stdout.splitlines()
        self.assertRegex(version, r"^couchnode \d+\.\d+\.\d+$")
        return module

    def test_reactor(self) -> None:
        """The node runs on the direct reactor where there is epoll."""
        if not hasattr(select, "epoll"):
            raise SkipTest("no epoll")
        self.assertEqual(self.reactor_of(), "reactor.direct")

    def test_installed_reactor(self) -> None:
        """A reactor that is installed already stays."""
        module = type(installed).__module__
        self.assertEqual(self.reactor_of(first="import twisted.internet.reactor"), module)
