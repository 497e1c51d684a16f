"""Frames: cut in any pieces they are the same, and whatever arrives, nothing is left behind."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.opening import PREFACE
from gateway.http2.allowance import Allowance
from gateway.http2.frames import FrameCutter, Misuse
from gateway.limits import Limits
from tests import tries
from tests.gateway.http2.app import Served
from tests.gateway.http2.peer import frame
from tests.gateway.support import HalfClosing, in_every_split, raw_request


def head(method: str, path: str, *more: tuple[str, str]) -> bytes:
    """Return a head as it is sent, which changes no table."""
    fields = [(":method", method), (":scheme", "http"), (":authority", "h"), (":path", path), *more]
    return Encoder().encode([(name, value, True) for name, value in fields])


HEADS = [
    head("GET", "/echo"),
    head("GET", "/wait"),
    head("GET", "/produce"),
    head("GET", "/size/100000"),
    head("GET", "/size/300000"),
    head("GET", "/plain/7"),
    head("HEAD", "/echo"),
    head("PUT", "/echo"),
    head("PUT", "/echo", ("content-length", "5")),
    head("PUT", "/echo", ("content-length", "5"), ("expect", "100-continue")),
    head("PUT", "/nothing", ("content-length", "500")),
    head("POST", "/take"),
    head("POST", "/take", ("content-length", "20")),
    head("GET", "nonsense"),
    Encoder().encode([("x-trailer", "1", True)]),
]


class RandomClient:
    """Makes frames of a client that mostly keeps to the protocol."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._next = 1
        self._uploads: list[int] = []
        self._known: list[int] = [1]

    def frame(self) -> bytes:
        """Return the next frame."""
        random = self._random
        if random.random() < 0.01:
            return frame(random.randrange(11), random.randrange(9), random.randbytes(9), random.randrange(64))
        makers = [self._request] * 6 + [self._data] * 5 + [self._reset, self._window, self._other]
        return random.choice(makers)()

    def _request(self) -> bytes:
        number, self._next = self._next, self._next + 2
        self._known.append(number)
        content = self._random.choice(HEADS)
        ends = self._random.random() < 0.6
        if not ends:
            self._uploads.append(number)
        return frame(1, number, content, 5 if ends else 4)

    def _data(self) -> bytes:
        if not self._uploads:
            return self._request()
        number = self._random.choice(self._uploads)
        ends = self._random.random() < 0.4
        if ends:
            self._uploads.remove(number)
        if ends and self._random.random() < 0.2:
            return frame(1, number, HEADS[-1], 5)
        return frame(0, number, b"x" * self._random.choice([0, 1, 5, 20, 500, 2000]), int(ends))

    def _reset(self) -> bytes:
        number = self._random.choice(self._known)
        if number in self._uploads:
            self._uploads.remove(number)
        return frame(3, number, struct.pack(">L", 8))

    def _window(self) -> bytes:
        number = self._random.choice([0, *self._known])
        return frame(8, number, struct.pack(">L", self._random.choice([1, 1000, 2**16, 2**20])))

    def _other(self) -> bytes:
        size = struct.pack(">HL", 4, self._random.choice([0, 10, 2**16, 2**20]))
        return self._random.choice([frame(6, 0, bytes(8)), frame(4, 0, size), frame(2, 1, bytes(5))])


class CutterTests(SynchronousTestCase):
    """:class:`gateway.http2.frames.FrameCutter`."""

    def test_any_pieces(self) -> None:
        """The frames are the same, however their bytes arrive, and each is complete."""
        sent = [frame(4), frame(1, 1, b"abc", 4), frame(0, 1, b"x" * 40, 1), frame(6, 0, bytes(8))]
        for pieces in in_every_split(PREFACE + b"".join(sent)):
            cutter = FrameCutter(1000)
            found = []
            for piece in pieces:
                cutter.receive(piece)
                self.assertLessEqual(len(got := cutter.take(2)), 2)
                found += got
            while cutter.has_frame:
                found += cutter.take(2)
            self.assertEqual([one.data for one in found], sent)
            self.assertEqual(cutter.waiting_bytes, 0)
            self.assertFalse(cutter.awaits_head)

    @given(st.binary(max_size=100), st.booleans())
    def test_any_bytes(self, data: bytes, has_preface: bool) -> None:
        """Arbitrary bytes are frames, or a misuse with words; nothing else is raised, and no byte is lost."""
        cutter = FrameCutter(1000)
        try:
            cutter.receive(PREFACE + data if has_preface else data)
            taken = cutter.take(100)
        except Misuse as error:
            self.assertTrue(error.text)
        else:
            expected = data if has_preface else data[len(PREFACE) :]
            self.assertEqual(sum(len(one.data) for one in taken) + cutter.waiting_bytes, len(expected))


class AllowanceTests(SynchronousTestCase):
    """:class:`gateway.http2.allowance.Allowance`."""

    @given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 3))))
    def test_bound(self, spent: list[tuple[int, float]]) -> None:
        """What is granted is at most the burst and what is earned with time, and no less is refused."""
        allowance, now, granted = Allowance(10, 2, 0.0), 0.0, 0
        for cost, pause in spent:
            now += pause
            if not allowance.spend(cost, now):
                self.assertGreater(granted + cost, 10)
                break
            granted += cost
            self.assertLessEqual(granted, 10 + 2 * now + 1e-6)


class ConnectionTests(SynchronousTestCase):
    """Whole connections."""

    @settings(max_examples=tries(400), deadline=None)
    @given(st.integers(0, 2**32), st.integers(1, 40))
    def test_any_frames(self, seed: int, count: int) -> None:
        """Whatever a client sends, in any pieces, while handlers answer, produce, pause and fail, and time
        passes: no error is logged, each request is counted once, and nothing is left when the connection is
        gone."""
        random = Random(seed)
        served = Served(Limits(max_streams=4, max_body=1000))
        server = HalfClosing()
        server.protocol = served.factory.buildProtocol(None)
        server.protocol.makeConnection(server)
        self.deliver(server, PREFACE + frame(4))
        client = RandomClient(random)
        for _ in range(count):
            data = client.frame()
            for cut in sorted({0, random.randrange(len(data) + 1), len(data)})[1:]:
                self.deliver(server, data[:cut])
                data = data[cut:]
            self.act(served, server, random)
        self.assertGreaterEqual(served.application.under_way, 0)
        for _ in range(3):
            served.clock.advance(0)
        if server.protocol is not None:
            server._closed()
        served.clock.advance(0)
        self.assertEqual(served.application.under_way, 0)
        self.assertEqual(served.application.budget.used, 0)
        self.assertFalse(served.factory.channels)
        self.assertEqual(self.flushLoggedErrors(), [])

    @staticmethod
    def deliver(server: Any, data: bytes) -> None:
        if server.protocol is not None and data:
            server.protocol.dataReceived(data)

    @staticmethod
    def act(served: Served, server: Any, random: Random) -> None:
        """Let handlers, the client's system and the clock do something."""
        handlers = served.handlers
        match random.randrange(9):
            case 0 if handlers.waiting:
                waiting = handlers.waiting.pop()
                if not waiting.called:
                    waiting.callback(handlers.told_nothing())
            case 1 if handlers.produced:
                produced = random.choice(handlers.produced)
                if "cancel" not in produced.told and produced.sink is not None:
                    produced.write(b"x" * random.choice([1, 1000, 100000]))
            case 2 if handlers.produced:
                produced = handlers.produced.pop()
                if "cancel" not in produced.told and produced.sink is not None:
                    random.choice([produced.sink.finish, produced.sink.abort])()
            case 3 if handlers.takers:
                taker = random.choice(handlers.takers)
                if taker.stream is not None:
                    random.choice([taker.stream.pause, taker.stream.resume])()
            case 4:
                served.clock.advance(random.choice([1, 7, 70]))
            case 5 if server.producer is not None:
                server.producer.pauseProducing()
                served.clock.advance(0)
                if server.producer is not None:
                    server.producer.resumeProducing()
            case 6 if random.random() < 0.1:
                served.factory.leave()
            case _:
                served.clock.advance(0)

    def test_other_protocols(self) -> None:
        """HTTP/1.1 behind a preface is a misuse, and nothing of it is served."""
        served = Served()
        server = HalfClosing()
        server.protocol = served.factory.buildProtocol(None)
        server.protocol.makeConnection(server)
        server.protocol.dataReceived(PREFACE + raw_request("GET", "/echo"))
        served.clock.advance(0)
        self.assertEqual(served.handlers.seen, [])
        self.assertTrue(server.half_closed)
