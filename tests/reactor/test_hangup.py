"""Signals that would end a service without an orderly stop."""

from __future__ import annotations

import signal
from typing import Any

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from reactor.hangup import HangUp


class HangUpTests(SynchronousTestCase):
    """SIGHUP and SIGUSR1."""

    def setUp(self) -> None:
        self.calls: list[str] = []
        self.terminal = True
        self.hangup = HangUp(self, lambda: self.terminal)
        self.hangup.start(lambda: self.calls.append("reload"))
        self.addCleanup(self.hangup.stop)

    def callFromThread(self, function: Any) -> None:
        function()

    def stop(self) -> None:
        self.calls.append("stop")

    def test_reload(self) -> None:
        """SIGHUP reloads the settings while the terminal exists, or if there never was one."""
        signal.raise_signal(signal.SIGHUP)
        self.hangup.stop()
        self.terminal = False
        self.hangup.start(lambda: self.calls.append("again"))
        signal.raise_signal(signal.SIGHUP)
        self.assertEqual(self.calls, ["reload", "again"])

    def test_terminal_is_gone(self) -> None:
        """Then the program goes with it, in order."""
        self.terminal = False
        signal.raise_signal(signal.SIGHUP)
        self.assertEqual(self.calls, ["stop"])

    def test_no_log_file(self) -> None:
        """SIGUSR1 is logged if nothing else handles it; its previous handlers are kept and restored."""
        lines: list[str] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace", "").startswith("reactor.hangup"):
                lines.append(event["log_format"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        signal.raise_signal(signal.SIGUSR1)
        self.assertEqual(lines, ["SIGUSR1: this process has no log file to open again"])
        self.hangup.stop()
        self.assertEqual(signal.getsignal(signal.SIGUSR1), signal.SIG_DFL)
        seen: list[int] = []
        self.addCleanup(
            signal.signal, signal.SIGUSR1, signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
        )
        self.hangup.start(lambda: None)
        signal.raise_signal(signal.SIGUSR1)
        self.hangup.stop()
        signal.raise_signal(signal.SIGUSR1)
        self.assertEqual((len(lines), len(seen)), (1, 2))
