"""Endpoint strings, and the backlog of their sockets."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from gateway.listeners import BACKLOG, ignore_new, listen_on, with_backlog

reactor: Any = installed_reactor

_MOST = Path("/proc/sys/net/core/somaxconn")


def tcp_backlog(listening: socket.socket) -> int:
    """Return the backlog that the kernel has for a TCP socket that listens (Linux: ``tcpi_sacked``)."""
    told = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    return int(struct.unpack_from("I", told, 28)[0])


class DescriptionTests(SynchronousTestCase):
    """The number is added to the string where it belongs."""

    def test_kinds(self) -> None:
        """Every kind of Twisted's own that has a backlog gets one, also behind a wrapper; others are left
        alone."""
        for given in ("tcp:80", "tcp6:80:interface=\\:\\:1", "ssl:443", "unix:/run/x", "haproxy:tcp:80"):
            self.assertEqual(with_backlog(given), f"{given}:backlog={BACKLOG}")
        for given in ("systemd:domain=INET:index=0", "fd:3", "onion:80", "stdio:"):
            self.assertEqual(with_backlog(given), given)

    def test_named(self) -> None:
        """A number in the string is kept; one inside a value is not a backlog."""
        for given in ("tcp:80:backlog=5", "unix:/run/x:mode=660:backlog=4096", "unix:a\\\\:backlog=7"):
            self.assertEqual(with_backlog(given), given)
        for given in ("unix:/run/x\\:backlog=5", "unix:/run/backlog=5", "tcp:80:interface=backlog"):
            self.assertEqual(with_backlog(given), f"{given}:backlog={BACKLOG}")


class _Nobody(Factory):
    noisy = False
    protocol = Protocol


def may_filter() -> bool:
    """Return whether this process may attach a filter to a socket; this one keeps everything."""
    keep = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF))
    with socket.socket() as one:
        try:
            one.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, ctypes.addressof(keep)))
        except PermissionError:
            return False
    return True


class BacklogTests(TestCase):
    """The backlog as passed to the kernel."""

    @inlineCallbacks
    def listen(self, description: str) -> Any:
        """Listen, and stop at the test's end."""
        port = yield listen_on(reactor, description, _Nobody())
        self.addCleanup(port.stopListening)
        return port

    def adopt(self, opened: socket.socket) -> Any:
        """Listen on a socket as on one of systemd's."""
        # The endpoint closes the descriptor that it is given.
        endpoint = AdoptedStreamServerEndpoint(reactor, opened.detach(), socket.AF_INET)
        self.patch(sys.modules["gateway.listeners"], "serverFromString", lambda *_: endpoint)
        return self.listen("systemd:domain=INET:index=0")

    @inlineCallbacks
    def test_tcp(self) -> Any:
        """A TCP socket has 1024, or the number that the string names."""
        if not sys.platform.startswith("linux"):
            self.skipTest("the kernel does not tell")
        most = int(_MOST.read_text())
        for description, expected in (
            ("tcp:0:interface=127.0.0.1", BACKLOG),
            ("tcp:0:interface=127.0.0.1:backlog=7", 7),
        ):
            port = yield self.listen(description)
            self.assertEqual(tcp_backlog(port.socket), min(expected, most), description)

    @inlineCallbacks
    def test_unix_burst(self) -> Any:
        """Hundreds of clients of a Unix socket come within one turn of the reactor: none is refused, as it
        would be with a full backlog, for which connect() does not wait."""
        name = self.mktemp()[-60:].replace("/", "_")
        yield self.listen(f"unix:{name}")
        count = min(400, int(_MOST.read_text())) if _MOST.exists() else 100
        clients = []
        try:
            for _ in range(count):
                client = socket.socket(socket.AF_UNIX)
                clients.append(client)
                client.setblocking(False)
                client.connect(name)
        finally:
            for client in clients:
                client.close()

    @inlineCallbacks
    def test_adopted(self) -> Any:
        """A socket that another process opened, as systemd does, does not get Twisted's backlog of 50."""
        if not sys.platform.startswith("linux"):
            self.skipTest("the kernel does not tell")
        opened = socket.socket()
        opened.bind(("127.0.0.1", 0))
        opened.listen(2000)
        port = yield self.adopt(opened)
        self.assertEqual(tcp_backlog(port.socket), min(BACKLOG, int(_MOST.read_text())))

    def connect(self, port: Any) -> socket.socket:
        """Begin to connect to a port; on loopback the handshake is over when this returns."""
        client = socket.socket()
        client.setblocking(False)
        self.addCleanup(client.close)
        with contextlib.suppress(BlockingIOError):
            client.connect(("127.0.0.1", port.getHost().port))
        return client

    @inlineCallbacks
    def test_closing(self) -> Any:
        """When a port is being closed, its backlog can still be accepted, and no new connection joins it,
        which would be reset."""
        if not sys.platform.startswith("linux"):
            self.skipTest("the kernel cannot be asked")
        port = yield self.listen("tcp:0:interface=127.0.0.1")
        if not may_filter():
            self.skipTest("a sandbox forbids this user to choose what a socket ignores")
        waiting = self.connect(port)
        ignore_new(port)
        self.connect(port)
        accepted, _ = port.socket.accept()
        with accepted:
            waiting.sendall(b"x")
            accepted.setblocking(True)
            self.assertEqual(accepted.recv(1), b"x")
        self.assertRaises(BlockingIOError, port.socket.accept)

    @inlineCallbacks
    def test_closing_adopted(self) -> Any:
        """A socket that systemd keeps open still takes connections, for the next start."""
        opened = socket.socket()
        opened.bind(("127.0.0.1", 0))
        opened.listen(5)
        port = yield self.adopt(opened)
        ignore_new(port)
        self.connect(port)
        accepted, _ = port.socket.accept()
        accepted.close()

    @inlineCallbacks
    def test_closing_unix(self) -> Any:
        """A Unix socket is left alone."""
        path = self.mktemp()
        port = yield self.listen(f"unix:{path}")
        ignore_new(port)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            accepted, _ = port.socket.accept()
            accepted.close()
