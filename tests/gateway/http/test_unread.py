"""The limit on answers that wait for slow clients: the rule, and clients of both protocols over sockets."""

from __future__ import annotations

import socket
from typing import Any

from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.unread import UnreadAnswers
from gateway.limits import Limits
from tests.gateway.http.test_backpressure import BackPressureTestCase
from tests.gateway.http2.app import SocketTestCase
from tests.gateway.http2.peer import Client

LIMIT = 1000


class SlowReader:
    """A connection whose client reads slowly."""

    def __init__(self, host: str | None) -> None:
        address = UNIXAddress(None) if host is None else IPv4Address("TCP", host, 1)
        self.transport = StringTransport(peerAddress=address)
        self.is_cut = False

    def abort(self) -> None:
        self.is_cut = True


class RuleTests(SynchronousTestCase):
    """Who is cut when too many bytes wait."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.unread = UnreadAnswers(LIMIT, self.clock)

    def holding(self, *sizes: int, host: str | None = "10.0.0.1") -> list[SlowReader]:
        readers = [SlowReader(host) for _ in sizes]
        for reader, size in zip(readers, sizes, strict=True):
            self.unread.hold(reader, size)
        return readers

    def test_up_to_the_limit(self) -> None:
        """Up to the limit nobody is cut, however long it takes."""
        readers = self.holding(400, 600)
        self.clock.advance(3600)
        self.assertEqual(([reader.is_cut for reader in readers], self.unread.used), ([False, False], LIMIT))

    def test_largest(self) -> None:
        """The connection with most bytes is cut in the next turn, and no more than needed."""
        readers = self.holding(300, 500, 400)
        self.assertFalse(any(reader.is_cut for reader in readers))
        self.clock.advance(0)
        self.assertEqual([reader.is_cut for reader in readers], [False, True, False])
        self.assertEqual(self.unread.used, 700)

    def test_largest_address(self) -> None:
        """A client with many connections is cut before one that has a single large answer."""
        (single,) = self.holding(450, host="10.0.0.9")
        many = self.holding(*[100] * 6)
        self.clock.advance(0)
        self.assertEqual((single.is_cut, sum(reader.is_cut for reader in many)), (False, 1))
        more = self.holding(*[100] * 3)
        self.clock.advance(0)
        # 450 beside 500, so one address is as good as the other, but not a third time.
        self.assertFalse(single.is_cut)
        self.assertEqual(sum(reader.is_cut for reader in many + more), 4)

    def test_read_meanwhile(self) -> None:
        """Nobody is cut if enough was read by the next turn, or a client is gone."""
        for end in (lambda reader: self.unread.hold(reader, 10), self.unread.release):
            first, second = self.holding(600, 600)
            end(first)
            self.clock.advance(0)
            self.assertFalse(first.is_cut or second.is_cut)
            self.unread.release(second)
            self.unread.release(first)
            self.assertEqual(self.unread.used, 0)

    def test_unix_sockets(self) -> None:
        """Clients of a Unix socket count as one address."""
        readers = self.holding(600, 500, host=None)
        self.clock.advance(0)
        self.assertEqual([reader.is_cut for reader in readers], [True, False])

    @given(
        st.lists(
            st.tuples(st.integers(0, 5), st.integers(0, 700), st.sampled_from(["hold", "release", "turn"])),
            max_size=40,
        )
    )
    def test_any_order(self, steps: list[tuple[int, int, str]]) -> None:
        """Whatever happens, the sum is right, a turn brings it down to the limit, and nobody is cut while it
        is not above."""
        clock = Clock()
        unread = UnreadAnswers(LIMIT, clock)
        readers = [SlowReader(f"10.0.0.{number % 2}") for number in range(6)]
        sizes = dict.fromkeys(readers, 0)
        for number, size, step in steps:
            reader = readers[number]
            if step == "hold":
                unread.hold(reader, size)
                sizes[reader] = size
            elif step == "release":
                unread.release(reader)
                sizes[reader] = 0
            else:
                before = sum(sizes.values())
                for other in readers:
                    other.is_cut = False
                clock.advance(0)
                cut = [other for other in readers if other.is_cut]
                self.assertEqual(bool(cut), before > LIMIT)
                sizes.update(dict.fromkeys(cut, 0))
                self.assertLessEqual(unread.used, LIMIT)
            self.assertEqual(unread.used, sum(sizes.values()))


class StreamTests(SocketTestCase):
    """Answers that a client of HTTP/2 asks for and does not read."""

    limits = Limits(max_buffered=2**21)

    @inlineCallbacks
    def test_greedy_client(self) -> Any:
        """A client that asks for a hundred answers of 255 KiB and opens no window does not make the server
        hold them all: its connection is cut, and others are served."""
        unread = self.served.application.unread_answers
        greedy = yield self.connect(
            Client({SettingCodes.INITIAL_WINDOW_SIZE: 0}, acknowledges=False),
        )
        for _ in range(100):
            greedy.request("GET", "/size/255000")
        yield self.until(lambda: greedy.is_lost)
        yield self.others_are_served()
        yield self.until(lambda: not unread.used)

    @inlineCallbacks
    def test_slow_clients(self) -> Any:
        """Clients that are slow and within the limit get all of their answers, and nothing stays counted."""
        unread = self.served.application.unread_answers
        slow = yield self.connect(Client({SettingCodes.INITIAL_WINDOW_SIZE: 0}, acknowledges=False))
        numbers = [slow.request("GET", "/size/200000") for _ in range(10)]
        yield self.until(lambda: unread.used == 10 * 200_000)
        slow.h2.increment_flow_control_window(2**24)
        for number in numbers[:5]:
            slow.h2.increment_flow_control_window(200_000, number)
        slow.flush()
        yield self.until(lambda: all(slow.streams[number].is_complete for number in numbers[:5]))
        yield self.turns()
        self.assertEqual(unread.used, 5 * 200_000)
        slow.h2.reset_stream(numbers[5])
        slow.flush()
        yield self.until(lambda: unread.used == 4 * 200_000)
        slow.transport.abortConnection()
        yield self.until(lambda: not unread.used)


class ConnectionTests(BackPressureTestCase):
    """Answers that clients of HTTP/1.1 do not read."""

    limits = Limits(max_buffered=2**20)

    @inlineCallbacks
    def test_many_connections(self) -> Any:
        """Connections that read nothing hold no more than the limit together: the others are cut. Those that
        are left get the rest of their answers."""
        unread = self.application.unread_answers
        request = b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n"
        clients = []
        for _ in range(40):
            clients.append(self.client())
            yield self.send(clients[-1], request * 60)
            self.clock.advance(0)
            self.assertLessEqual(unread.used, 2**20)
        yield self.until(lambda: len(self.factory.channels) < 40)
        yield self.turns(3)
        left = len(self.factory.channels)
        self.assertGreater(left, 5)
        whole = [client for client in clients if not was_cut(client)]
        self.assertEqual(len(whole), left)
        got = yield self.receive(whole[0], 60 * 100_000)
        self.assertGreater(len(got), 60 * 100_000)

    @inlineCallbacks
    def test_read_slowly(self) -> Any:
        """What a client reads is no longer counted, at the latest with the next sweep."""
        unread = self.application.unread_answers
        client = self.client()
        yield self.send(client, b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n" * 60)
        yield self.until(lambda: unread.used > 0)
        yield self.receive(client, 60 * 100_000)
        yield self.until(lambda: not unread.used)


def was_cut(client: socket.socket) -> bool:
    """Return whether the server has reset a connection; reads nothing that it has sent."""
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
