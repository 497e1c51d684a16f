"""Many requests in a packet: how the reactor's time is shared."""

from __future__ import annotations

from typing import Any

from hpack import Encoder
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.factory import ChannelFactory
from gateway.http.opening import PREFACE
from gateway.http.pipelines import SLOT_SECONDS, TURN_SECONDS, Pipelines
from gateway.http2.frames import HEADERS, SETTINGS
from gateway.http2.server import HTTP2
from tests.gateway.http2.peer import frame
from tests.gateway.support import HalfClosing, Site, Transport, raw_request, read_reply

COST = 0.0004
"""How long each request takes in these tests, in seconds."""
END_STREAM, END_HEADERS = 1, 4
REQUEST = raw_request("GET", "/none")


class Costly(Site):
    """A gateway each of whose requests takes time, which the clock shows."""

    def __init__(self) -> None:
        super().__init__()
        self.served = 0
        self.factory = ChannelFactory(self.gateway, self.clock, None, HTTP2)
        dispatch = self.gateway.dispatch

        def slow(request: Any) -> bool:
            # Not advance(), which would call what is due.
            self.clock.rightNow += COST
            self.served += 1
            return dispatch(request)

        self.gateway.dispatch = slow  # type: ignore[method-assign]

    def turn(self) -> float:
        """Let the reactor make one turn; return how long it takes."""
        began = self.clock.seconds()
        # advance() would also call what becomes due meanwhile.
        for call in [each for each in self.clock.calls if each.getTime() <= began]:
            self.clock.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)
        return self.clock.seconds() - began

    def turns(self) -> list[float]:
        """Let it make turns until nothing waits."""
        found = []
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.calls):
            found.append(self.turn())
        return found


def answers(client: Transport) -> list[int]:
    """Return the statuses of the answers that a client has got."""
    data, found = client.value(), []
    while data:
        reply, data = read_reply(data)
        found.append(reply.status)
    return found


def streams(count: int) -> bytes:
    """Return the beginning of a connection of HTTP/2, with requests."""
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/none")]
    head = Encoder().encode([(*field, True) for field in fields])
    requests = [frame(HEADERS, 2 * number + 1, head, END_STREAM | END_HEADERS) for number in range(count)]
    return b"".join([PREFACE, frame(SETTINGS), *requests])


class SharedTests(SynchronousTestCase):
    """Clients that send many requests at once."""

    def test_turns_are_short(self) -> None:
        """However many requests come at once, on however many connections, a turn is short, a request of
        another client is served in the next one, and all are answered."""
        site = Costly()
        clients = [site.client() for _ in range(20)]
        for client in clients:
            # It serves at least one of them when they arrive, like the first of any client.
            before = site.clock.seconds()
            client.protocol.dataReceived(REQUEST * 100)
            self.assertLess(site.clock.seconds() - before, TURN_SECONDS + 3 * COST)
        arrived = sum(len(answers(client)) for client in clients)
        self.assertLess(arrived * COST, TURN_SECONDS + 3 * COST * len(clients))
        served = []
        other = site.client()
        for _ in range(5):
            served.append(site.turn())
            other.protocol.dataReceived(REQUEST)
        self.assertEqual(answers(other), [404] * 5)
        served += site.turns()
        self.assertLess(max(served), TURN_SECONDS + SLOT_SECONDS + 2 * COST)
        self.assertEqual([answers(client) for client in clients], [[404] * 100] * 20)

    def test_in_turns(self) -> None:
        """Connections that wait are served in turn, a slot each."""
        site = Costly()
        clients = [site.client() for _ in range(4)]
        for client in clients:
            client.protocol.dataReceived(REQUEST * 100)
        counts = [len(answers(client)) for client in clients]
        site.turn()
        more = [len(answers(client)) - count for client, count in zip(clients, counts, strict=True)]
        self.assertGreater(min(more), 0)
        self.assertLessEqual(max(more) - min(more), SLOT_SECONDS / COST + 1)

    def test_http2(self) -> None:
        """The same with HTTP/2: a few frames of each connection are read at once, the rest in turns."""
        site = Costly()
        clients = [site.client() for _ in range(20)]
        for client in clients:
            client.protocol.dataReceived(streams(90))
        self.assertLess(site.served * COST, 3 * TURN_SECONDS + 9 * COST * len(clients))
        site.clock.rightNow += 1
        other = site.client()
        served = []
        for _ in range(5):
            served.append(site.turn())
            other.protocol.dataReceived(REQUEST)
        self.assertEqual(answers(other), [404] * 5)
        # The last connection of a turn may read 64 frames.
        served += site.turns()
        self.assertLess(max(served), TURN_SECONDS + 65 * COST)
        self.assertEqual(site.served, 20 * 90 + 5)
        for client in clients:
            client._closed()
        site.turns()
        self.assertEqual((len(site.factory.pipelines._waiting), site.gateway.under_way), (0, 0))

    def test_one_client(self) -> None:
        """While no other connection waits, one has the whole share of each turn."""
        site = Costly()
        client = site.client()
        client.protocol.dataReceived(REQUEST * 100)
        self.assertGreaterEqual(len(answers(client)) * COST, TURN_SECONDS)
        self.assertLess(len(site.turns()), 100 * COST / TURN_SECONDS + 3)
        self.assertEqual(answers(client), [404] * 100)
        self.assertEqual((len(site.factory.pipelines._waiting), site.gateway.under_way), (0, 0))

    def test_client_leaves(self) -> None:
        """A connection that is lost while it waits is forgotten."""
        site = Costly()
        client = site.client()
        client.protocol.dataReceived(REQUEST * 100)
        served = site.gateway.under_way, len(answers(client))
        client._closed()
        site.turns()
        self.assertEqual((site.gateway.under_way, len(answers(client))), served)
        self.assertEqual(len(site.factory.pipelines._waiting), 0)

    def test_half_closed(self) -> None:
        """A client that has closed its half gets all answers, then the connection ends."""
        site = Costly()
        client = HalfClosing()
        site.client(client)
        client.protocol.dataReceived(REQUEST * 100)
        client.end()
        site.turns()
        self.assertEqual(answers(client), [404] * 100)
        self.assertTrue(client.disconnecting)

    def test_more_arrives(self) -> None:
        """What arrives while a connection waits is served behind; the client is not read without bound."""
        site = Costly()
        client = site.client()
        client.protocol.dataReceived(REQUEST * 100)
        for _ in range(30):
            client.protocol.dataReceived(REQUEST * 100)
            if client.producerState != "producing":
                break
        self.assertEqual(client.producerState, "paused")
        sent = len(answers(client)) + len(client.protocol._unread) // len(REQUEST)
        site.turns()
        self.assertEqual((answers(client), client.producerState), ([404] * sent, "producing"))

    def test_malformed_behind(self) -> None:
        """An error in a request that waits is answered as at once."""
        site = Costly()
        client = site.client()
        client.protocol.dataReceived(REQUEST * 50 + b"GET\r\n\r\n" + REQUEST)
        site.turns()
        self.assertEqual(answers(client), [404] * 50 + [400])

    def test_failure(self) -> None:
        """A connection that fails does not stop those behind it."""
        clock = Clock()
        pipelines = Pipelines(clock)
        called: list[str] = []

        class Waiting:
            def go_on(self) -> None:
                called.append("")
                if len(called) == 1:
                    raise ValueError("wrong")

        self.assertTrue(pipelines.may_go_on())
        for _ in range(2):
            pipelines.wait(Waiting())
        clock.advance(0)
        self.assertEqual(len(called), 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        clock.advance(0)
        self.assertEqual(clock.getDelayedCalls(), [])
