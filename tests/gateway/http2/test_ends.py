"""How connections of HTTP/2 end: at shutdown, when they are idle, and when clients close them."""

from __future__ import annotations

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from gateway.http.factory import QUIET_SECONDS
from gateway.http2.frames import GOAWAY, PUSH_PROMISE
from gateway.limits import Limits
from tests.gateway.http2.app import MemoryTestCase
from tests.gateway.http2.peer import Client, frame
from tests.gateway.support import HalfClosing, in_every_split, raw_request

NO_ERROR = ErrorCodes.NO_ERROR
LAST = 2**31 - 1


class ShutdownTests(MemoryTestCase):
    """Clients are asked to go elsewhere, and no request is lost."""

    limits = Limits(grace_seconds=5, idle_seconds=20)

    def notices(self) -> list[tuple[int, int]]:
        """Return the last stream and the code of each GOAWAY."""
        return [(one.last_stream_id, one.error_code) for one in self.client.notices]  # type: ignore[misc]

    def test_leave(self) -> None:
        """A client is asked to leave; what crosses that is served, and the connection ends after the last
        answer, with the number of the last request."""
        one = self.client.request("GET", "/wait")
        self.wire.pump()
        self.served.factory.leave()
        two = self.client.request("GET", "/wait")
        self.wire.pump()
        self.assertEqual(self.notices(), [(LAST, NO_ERROR)])
        for waiting in self.handlers.waiting:
            self.assertTrue(self.wire.server.connected)
            waiting.callback(self.handlers.told_nothing())
            self.wire.pump()
        self.assertEqual([self.client.streams[number].status for number in (one, two)], [200, 200])
        self.assertEqual(self.notices(), [(LAST, NO_ERROR), (two, NO_ERROR)])
        self.assertTrue(self.wire.server.half_closed)

    def test_leave_idle(self) -> None:
        """An idle connection ends as soon as the client has read that it is to leave."""
        self.served.factory.leave()
        self.assertTrue(self.wire.server.connected)
        self.wire.pump()
        self.assertEqual(self.notices(), [(LAST, NO_ERROR), (0, NO_ERROR)])

    def test_new_clients_while_leaving(self) -> None:
        """A client that comes later is served once, and asked to leave with its first request."""
        self.served.factory.leave()
        self.wire = self.connect()
        self.client = self.wire.client
        self.assertEqual(self.notices(), [])
        self.assertEqual(self.wire.ask("GET", "/echo").status, 200)
        self.assertEqual(self.notices(), [(LAST, NO_ERROR), (1, NO_ERROR)])

    def test_stop(self) -> None:
        """A stop waits for running requests, up to the grace time, and is over with the last connection."""
        self.client.request("GET", "/wait")
        self.wire.pump()
        idle = self.connect()
        stopped = self.served.factory.stop()
        idle.pump()
        idle.server.end()
        self.wire.pump()
        self.assertNoResult(stopped)
        self.assertIsNone(self.served.factory.buildProtocol(None))
        self.served.clock.advance(QUIET_SECONDS)
        self.served.clock.advance(4)
        self.assertNoResult(stopped)
        self.served.clock.advance(1)
        self.successResultOf(stopped)
        self.assertEqual(self.served.ended, [("/wait", 499, "gateway")])
        self.assertEqual(self.handlers.cancelled, 1)

    def test_drain(self) -> None:
        """A drain is over when the last answer is sent."""
        number = self.client.request("GET", "/wait")
        self.wire.pump()
        drained = self.served.factory.drain()
        self.wire.pump()
        self.assertNoResult(drained)
        self.handlers.waiting[0].callback(self.handlers.told_nothing())
        self.wire.pump()
        self.wire.server.end()
        self.successResultOf(drained)
        self.assertEqual(self.client.streams[number].status, 200)

    def test_idle(self) -> None:
        """An idle connection ends after ``--idle-seconds``, counted from its last answer, with GOAWAY; PING
        does not keep it."""
        self.pass_seconds(15)
        self.wire.ask("GET", "/echo")
        for _ in range(18):
            self.client.h2.ping(bytes(8))
            self.client.flush()
            self.pass_seconds(1)
        self.assertTrue(self.wire.server.connected)
        self.pass_seconds(4)
        self.assertFalse(self.wire.server.connected)
        self.assertEqual(self.notices(), [(1, NO_ERROR)])


class ClientTests(MemoryTestCase):
    """Clients that close."""

    def test_half_closed(self) -> None:
        """A client that closes its half gets the answers to its complete requests; the others are lost."""
        complete = self.client.request("GET", "/wait")
        self.client.begin("POST", "/take")
        self.wire.pump()
        self.wire.server.end()
        self.wire.pump()
        self.assertEqual(self.handlers.takers[0].told, ["lost"])
        self.assertTrue(self.wire.server.connected)
        self.handlers.waiting[0].callback(self.handlers.told_nothing())
        self.wire.pump()
        self.assertEqual(self.client.streams[complete].status, 200)
        self.assertFalse(self.wire.server.connected)

    def test_dropped_answers(self) -> None:
        """Answers that are dropped with the last frame of a connection no longer count as unread, even if the
        client does not close, and for each way to end."""
        unread = self.served.application.unread_answers
        for end in (
            lambda wire: wire.client.send(frame(PUSH_PROMISE, 1, bytes(8))),
            lambda wire: wire.connection.close(),
            lambda wire: wire.client.send(frame(GOAWAY, 1, bytes(8))),
        ):
            wire = self.connect(Client({SettingCodes.INITIAL_WINDOW_SIZE: 0}, acknowledges=False))
            for _ in range(3):
                wire.client.request("GET", "/size/200000")
            wire.pump()
            self.assertEqual(unread.used, 600_000)
            end(wire)
            wire.pump()
            self.assertTrue(wire.server.half_closed)
            self.assertEqual(unread.used, 0)
            wire.server.end()

    def test_goaway(self) -> None:
        """A client that sends GOAWAY still gets its answers."""
        number = self.client.request("GET", "/wait")
        self.client.send(frame(GOAWAY, 0, bytes(8)))
        self.wire.pump()
        self.handlers.waiting[0].callback(self.handlers.told_nothing())
        self.wire.pump()
        self.assertEqual(self.client.streams[number].status, 200)

    def test_after_http_1(self) -> None:
        """The preface counts on a new connection only, in any pieces: behind a request of HTTP/1.1 it is a
        malformed one."""
        server = HalfClosing()
        server.protocol = self.served.factory.buildProtocol(None)
        server.protocol.makeConnection(server)
        server.protocol.dataReceived(raw_request("GET", "/echo"))
        self.assertTrue(server.value().startswith(b"HTTP/1.1 200 "))
        server.clear()
        server.protocol.dataReceived(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.assertTrue(server.value().startswith(b"HTTP/1.1 400 "))

    def test_first_bytes(self) -> None:
        """Both protocols are recognized however their first bytes are cut."""
        settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4)
        for request, expected in ((raw_request("GET", "/echo"), b"HTTP/1.1 200 "), (settings, b"\0\0")):
            for pieces in in_every_split(request):
                server = HalfClosing()
                server.protocol = self.served.factory.buildProtocol(None)
                server.protocol.makeConnection(server)
                for piece in pieces:
                    server.protocol.dataReceived(piece)
                self.served.clock.advance(0)
                self.assertTrue(server.value().startswith(expected), pieces)
                server.abortConnection()
