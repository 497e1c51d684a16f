"""Listening ports while no descriptor is left."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet import reactor, tcp
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import Logger, globalLogPublisher
from twisted.trial.unittest import TestCase

from reactor.ports import PAUSE_SECONDS, PortGuard, logged_in


class NoMore:
    """A listening socket whose ``accept`` fails, while there is an error to fail with."""

    def __init__(self, real: socket.socket) -> None:
        self.error = 0
        self._real = real

    def accept(self) -> Any:
        """Accept, or fail."""
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return self._real.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class PortTests(TestCase):
    """A real port; its socket fails when a test wants it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reasons: list[tuple[str, int]] = []
        self.port: Any = reactor.listenTCP(  # type: ignore[attr-defined]
            0, Factory.forProtocol(Protocol), interface="127.0.0.1"
        )
        self.addCleanup(self.port.stopListening)
        self.port.socket = self.socket = NoMore(self.port.socket)
        PortGuard(self.clock, lambda *reason: self.reasons.append(reason)).attach(self.port)

    def is_read(self) -> bool:
        """Return whether the reactor watches the port."""
        return self.port in reactor.getReaders()  # type: ignore[attr-defined]

    def test_pause(self) -> None:
        """A port that cannot accept waits before it tries again, however often that fails."""
        for number in (errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
            self.socket.error = number
            self.port.doRead()
            self.assertFalse(self.is_read())
            self.clock.advance(PAUSE_SECONDS)
            self.assertTrue(self.is_read())
        self.assertEqual(
            self.reasons, [(f"accept failed with {name}", 0) for name in ("ENFILE", "ENOMEM", "ENOBUFS")]
        )

    def test_one_client(self) -> None:
        """A client that has left while it waited says nothing about the descriptors."""
        self.socket.error = errno.ECONNABORTED
        self.port.doRead()
        self.assertTrue(self.is_read())
        self.assertEqual(self.reasons, [])

    def test_closed_meanwhile(self) -> None:
        """A port that is closed during the pause stays closed."""
        self.socket.error = errno.ENFILE
        self.port.doRead()
        closed = self.port.stopListening()
        self.clock.advance(PAUSE_SECONDS)
        self.assertFalse(self.is_read())
        return closed  # type: ignore[no-any-return]

    def test_spare_descriptor(self) -> None:
        """Twisted's spare descriptor, once lost, is opened again as soon as there is room."""
        spare: Any = tcp._reservedFD  # type: ignore[attr-defined]
        with spare:
            lost, spare._fileFactory = spare._fileFactory, None
            spare.reserve = lambda: None
        del spare.reserve
        spare._fileFactory = lost
        self.assertFalse(spare.available())
        self.socket.error = errno.EMFILE
        self.port.doRead()
        real_open = os.open

        def refuse(*arguments: Any, **more: Any) -> int:
            raise OSError(errno.EMFILE, "full")

        self.patch(os, "open", refuse)
        self.clock.advance(PAUSE_SECONDS)
        self.assertFalse(spare.available())
        self.assertTrue(self.is_read())
        self.port.doRead()
        self.patch(os, "open", real_open)
        self.clock.advance(PAUSE_SECONDS)
        self.assertTrue(spare.available())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_log(self) -> None:
        """One line a minute, with the limit and the remedy; the next one says how many were left out."""
        lines: list[str] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace") == "of the test":
                lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        exhausted = logged_in(Logger("of the test"), self.clock)
        for _ in range(50):
            exhausted("no file descriptor is left", 1)
        self.assertEqual(len(lines), 1)
        self.assertRegex(lines[0], r"^clients are refused: no file descriptor is left; the limit is \d+ file")
        self.assertIn("LimitNOFILE=", lines[0])
        self.clock.advance(60)
        exhausted("no file descriptor is left", 1)
        self.assertEqual(len(lines), 3)
        self.assertIn("49 lines left out", lines[1])
