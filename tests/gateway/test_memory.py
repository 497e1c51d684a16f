"""A gateway that is out of memory refuses requests, and continues."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from gateway.dialect.errors import Retry, describe
from tests.gateway.support import Answer, HalfClosing, Site, Transport, read_reply
from tests.gateway.workers.support import DOCUMENT, LOOPBACK, WorkersTestCase, reactor

MEBIBYTE = 2**20
PUT = "PUT " + DOCUMENT + "k HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"

LIMITED = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (300 * {MEBIBYTE}, 300 * {MEBIBYTE}))
"""


class MemoryTests(SynchronousTestCase):
    """In memory."""

    def test_told(self) -> None:
        """It is not a bug, and a running write is ambiguous."""
        fault = describe(MemoryError(), "set")
        self.assertEqual((fault.problem.code, fault.problem.status), ("Overloaded", 503))
        self.assertEqual((fault.retry, fault.is_bug), (Retry.AMBIGUOUS, False))

    def test_body_is_dropped(self) -> None:
        """A body that is being collected is abandoned, with a 503 that says so."""
        site = Site({"get_with_expiry": Answer(b"{}")})
        client = site.client()
        site.send(client, PUT.format(size=100).encode() + b"0123456789")
        self.assertEqual(site.gateway.budget.used, 100)
        self.assertTrue(client.protocol.out_of_memory())
        reply, _ = read_reply(client.value())
        self.assertEqual(
            (reply.status, reply.json()["code"], reply.json()["retry"]), (503, "Overloaded", "safe")
        )
        site.send(client, b"x" * 90)
        self.assertEqual((site.gateway.budget.used, site.gateway.under_way), (0, 0))

    def refused(self, client: Transport) -> None:
        """Have no memory for what a client sends: it gets a 503 that it may repeat, and then the end."""
        self.assertTrue(client.protocol.out_of_memory())
        reply, _ = read_reply(client.value())
        self.assertEqual((reply.status, reply.header("connection")), (503, "close"))
        self.assertEqual((reply.json()["code"], reply.json()["retry"]), ("Overloaded", "safe"))

    def test_refused(self) -> None:
        """A request is refused wherever its bytes are missing: in its head, before its body and in it; so is
        one whose body is dropped already. What follows is dropped without a cut, and without memory, too."""
        missing = "PUT /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        for sent in ("", PUT[:30], PUT.format(size=10**6), PUT.format(size=10**6) + "12345", missing):
            site = Site()
            client = HalfClosing()
            site.client(client)
            site.send(client, sent.encode())
            if sent is missing:
                self.assertEqual(read_reply(client.value())[0].status, 404)
                self.assertTrue(client.protocol.out_of_memory())
            else:
                self.refused(client)
            self.assertTrue(client.half_closed)
            received = client.value()
            self.assertTrue(client.protocol.out_of_memory())
            site.send(client, b"x" * 5 * 10**5)
            self.assertEqual((client.value(), client.aborted), (received, False))
            self.assertEqual((site.gateway.budget.used, site.gateway.under_way), (0, 0))

    def test_handler_is_running(self) -> None:
        """A connection is cut if bytes are missing behind a request that is being served, or in a body that
        its handler reads."""
        site = Site({"get_with_expiry": lambda *args, **kwargs: Deferred()})
        client = site.client()
        site.send(client, f"GET {DOCUMENT}k HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.assertFalse(client.protocol.out_of_memory())
        client = site.client()
        head = "POST /v1/buckets/default/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
        site.send(client, head.encode())
        self.assertFalse(client.protocol.out_of_memory())
        self.assertEqual(client.value(), b"")


class ProcessTests(WorkersTestCase):
    """A whole service that may take little memory."""

    timeout = 25

    @inlineCallbacks
    def test_uploads(self) -> Any:
        """Sixteen large uploads at once are answered, each of them, without a traceback; then all is well.

        The clients read nothing before they have sent everything, as most do: a connection must not be reset
        while the rest of a refused upload arrives.
        """
        size = 20 * MEBIBYTE
        self.running.start("--ephemeral", "--listen", LOOPBACK, prelude=LIMITED)
        yield self.running.logged("embedded node: ")
        url = (yield self.running.logged(r"listens on (\S+)"))[0]
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        part = b"0" * 2**16
        clients = []
        for _ in range(16):
            client = socket.create_connection(address)
            client.sendall(PUT.format(size=size).encode())
            client.setblocking(False)
            clients.append([client, size, b""])
        waiting = clients
        while waiting:
            for one in waiting:
                client, left, _ = one
                try:
                    if left:
                        one[1] -= client.send(part[:left])
                    else:
                        one[2] += client.recv(65536) or b"cut"
                except BlockingIOError:
                    # There is no room at the moment, or no answer.
                    continue
                except OSError:
                    one[2] += b"cut"
            waiting = [one for one in waiting if b"\r\n\r\n" not in one[2] and b"cut" not in one[2]]
            yield deferLater(reactor, 0)
        for client, _, answer in clients:
            self.assertIn(answer[:13], (b"HTTP/1.1 503 ", b"HTTP/1.1 200 "))
            client.close()
        self.assertEqual((yield self.fetch("GET", url + "/ready"))[0], 200)
        self.assertNotIn("Traceback", self.running.log)
        yield self.stop()
