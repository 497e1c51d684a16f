"""Clients that cause work without use, over sockets: each is stopped, and others are served."""

from __future__ import annotations

import struct
from typing import Any

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder
from twisted.internet.defer import inlineCallbacks

from gateway.http.opening import PREFACE
from gateway.http2.frames import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    MAX_CONTINUATIONS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from gateway.http2.policing import FRAMES, FRAMES_A_SECOND, RESETS_A_SECOND, RESETS_A_STREAM
from gateway.limits import Limits
from tests.gateway.http2.app import SocketTestCase
from tests.gateway.http2.peer import Attacker, Client, Received, Silent, frame

END_STREAM, END_HEADERS, ACK = 1, 4, 1
STREAMS = 10
RESETS = RESETS_A_STREAM * STREAMS

CALM = ErrorCodes.ENHANCE_YOUR_CALM
PROTOCOL = ErrorCodes.PROTOCOL_ERROR


def head(path: bytes = b"/wait", method: bytes = b"GET", *more: tuple[bytes, bytes]) -> bytes:
    """Return a head as it is sent, which changes no table."""
    fields = [(b":method", method), (b":scheme", b"http"), (b":authority", b"h"), (b":path", path), *more]
    return Encoder().encode([(name, value, True) for name, value in fields])


class AttackTestCase(SocketTestCase):
    """Few streams, so that limits are reached soon."""

    make = Attacker
    limits = Limits(max_streams=STREAMS, idle_seconds=30, header_seconds=5, body_seconds=20)

    @inlineCallbacks
    def is_ended(self, code: ErrorCodes, words: str = "", client: Client | None = None) -> Any:
        """Check that the connection ends, with a code and words that say why, and that others go on."""
        client = client or self.client
        yield self.until(lambda: client.ended is not None or client.is_lost)
        assert client.ended is not None
        self.assertEqual(client.ended.error_code, code)
        self.assertIn(words.encode(), client.ended.additional_data or b"")
        yield self.until(lambda: self.served.application.under_way == 0)
        yield self.others_are_served()


class ResetTests(AttackTestCase):
    """Requests that are reset at once (CVE-2023-44487), and what has the same effect."""

    @inlineCallbacks
    def test_rapid_resets(self) -> Any:
        """Requests that are reset as soon as they are sent are cancelled, and end the connection when they
        are too many; not many more have reached their handlers."""
        for number in range(1, 2 * RESETS * 3, 2):
            self.client.send(
                frame(HEADERS, number, head(), END_STREAM | END_HEADERS),
                frame(RST_STREAM, number, struct.pack(">L", ErrorCodes.CANCEL)),
            )
        yield self.is_ended(CALM, "are reset")
        self.assertEqual(self.handlers.cancelled, len(self.handlers.waiting))
        self.assertLessEqual(len(self.handlers.waiting), RESETS + 1)

    @inlineCallbacks
    def test_resets_in_turn(self) -> Any:
        """The same, if each reset waits until its request has reached its handler."""
        for number in range(1, 2 * RESETS * 3, 2):
            self.client.send(frame(HEADERS, number, head(), END_STREAM | END_HEADERS))
            count = len(self.handlers.waiting)
            yield self.until(lambda count=count: len(self.handlers.waiting) > count or self.client.ended)
            if self.client.ended is not None:
                break
            self.client.send(frame(RST_STREAM, number, struct.pack(">L", ErrorCodes.CANCEL)))
        yield self.is_ended(CALM, "are reset")
        self.assertEqual(self.handlers.cancelled, len(self.handlers.waiting))

    @inlineCallbacks
    def test_a_few_resets(self) -> Any:
        """As many as are earned with time are no attack, for any length of time."""
        self.assertLessEqual(RESETS, RESETS_A_SECOND)
        self.client = yield self.connect()
        for _ in range(5):
            yield self.pass_seconds(1)
            for _ in range(RESETS):
                number = self.client.request("GET", "/wait")
                self.client.h2.reset_stream(number)
                self.client.flush()
            yield self.until(lambda: len(self.served.ended) == RESETS)
            self.served.ended.clear()
        answer = yield self.ask()
        self.assertEqual(answer.status, 200)

    @inlineCallbacks
    def test_resets_by_the_server(self) -> Any:
        """Requests that the client has the server reset, by a window that overflows, count as well."""
        for number in range(1, 2 * RESETS * 3, 2):
            self.client.send(
                frame(HEADERS, number, head(), END_STREAM | END_HEADERS),
                frame(WINDOW_UPDATE, number, struct.pack(">L", 2**31 - 1)),
            )
        yield self.is_ended(CALM, "are reset")
        self.assertEqual(self.handlers.cancelled, len(self.handlers.waiting))

    @inlineCallbacks
    def test_malformed_requests(self) -> Any:
        """Malformed requests count as well: each is answered, and reset."""
        for number in range(1, 2 * RESETS * 3, 2):
            self.client.send(frame(HEADERS, number, head(b"nonsense"), END_STREAM | END_HEADERS))
        yield self.is_ended(CALM, "are reset")

    @inlineCallbacks
    def test_too_many_streams(self) -> Any:
        """Requests beyond ``--max-streams`` are refused so that they may be sent again; those within are
        served. If they do not cease, the connection ends."""
        numbers = range(1, 2 * STREAMS, 2)
        for number in numbers:
            self.client.send(frame(HEADERS, number, head(), END_STREAM | END_HEADERS))
        for number in range(2 * STREAMS + 1, 2 * STREAMS + 11, 2):
            self.client.send(frame(HEADERS, number, head(), END_STREAM | END_HEADERS))
        yield self.until(lambda: len(self.handlers.waiting) == STREAMS)
        yield self.turns()
        self.assertEqual(len(self.handlers.waiting), STREAMS)
        for waiting in self.handlers.waiting:
            waiting.callback(self.handlers.told_nothing())
        yield self.until(
            lambda: all(
                number in self.client.streams and self.client.streams[number].is_complete
                for number in numbers
            )
        )
        yield self.others_are_served()
        self.assertEqual(self.client.streams[2 * STREAMS + 1].error, ErrorCodes.REFUSED_STREAM)
        other = yield self.connect(Attacker())
        for number in range(1, 2 * (STREAMS + RESETS + 5), 2):
            other.send(frame(HEADERS, number, head(), END_STREAM | END_HEADERS))
        yield self.is_ended(CALM, "are reset", other)


class FloodTests(AttackTestCase):
    """Frames that make no progress."""

    @inlineCallbacks
    def flood(self, *frames: bytes, code: ErrorCodes = CALM, words: str = "make no progress") -> Any:
        """Send the same again and again; it has to end."""
        data = b"".join(frames)
        for _ in range(FRAMES // len(frames) // 50 + 3):
            self.client.send(data * 50)
            yield self.turns(1)
        yield self.is_ended(code, words)

    def test_pings(self) -> Any:
        """PING."""
        return self.flood(frame(PING, 0, bytes(8)))

    def test_ping_answers(self) -> Any:
        """Answers to a PING that was not sent."""
        return self.flood(frame(PING, 0, bytes(8), ACK))

    def test_settings(self) -> Any:
        """SETTINGS, empty or with a value that changes."""
        return self.flood(
            frame(SETTINGS),
            frame(SETTINGS, 0, struct.pack(">HL", SettingCodes.INITIAL_WINDOW_SIZE, 1)),
            frame(SETTINGS, 0, struct.pack(">HL", SettingCodes.INITIAL_WINDOW_SIZE, 2)),
        )

    def test_large_settings(self) -> Any:
        """SETTINGS with thousands of values cost more."""
        many = struct.pack(">HL", SettingCodes.HEADER_TABLE_SIZE, 2**20) * 2700
        self.client.send(*[frame(SETTINGS, 0, many)] * 20)
        return self.is_ended(CALM)

    def test_priorities(self) -> Any:
        """PRIORITY, also of streams that do not exist."""
        return self.flood(*[frame(2, number, bytes(5)) for number in range(1, 101, 2)])

    def test_unknown(self) -> Any:
        """Frames of no known kind."""
        return self.flood(frame(0xFE, 0, b"x"))

    @inlineCallbacks
    def test_empty_data(self) -> Any:
        """DATA without data, or with a byte."""
        self.client.send(frame(HEADERS, 1, head(b"/take", b"POST"), END_HEADERS))
        yield self.flood(frame(DATA, 1), frame(DATA, 1, b"x"))
        self.assertEqual(self.handlers.takers[0].told, ["lost"])

    @inlineCallbacks
    def test_data_behind_the_end(self) -> Any:
        """DATA on a stream that was refused."""
        self.client.send(frame(HEADERS, 1, head(b"nonsense", b"POST"), END_HEADERS))
        yield self.turns()
        yield self.flood(frame(DATA, 1))

    @inlineCallbacks
    def test_tiny_windows(self) -> Any:
        """A window that is opened byte by byte."""
        self.client = yield self.connect(Attacker({SettingCodes.INITIAL_WINDOW_SIZE: 1}))
        self.client.send(frame(HEADERS, 1, head(b"/size/100000"), END_STREAM | END_HEADERS))
        yield self.flood(frame(WINDOW_UPDATE, 1, struct.pack(">L", 1)))

    @inlineCallbacks
    def test_usual_frames(self) -> Any:
        """What a busy client sends is no flood: PING now and then, a window opened twice for each frame of an
        answer, a body in small frames, for any length of time."""
        self.client = yield self.connect()
        for _ in range(5):
            yield self.pass_seconds(1)
            self.client.send(frame(PING, 0, bytes(8)) * (FRAMES_A_SECOND // 2))
            number = self.client.begin("PUT", "/echo")
            for _ in range(FRAMES_A_SECOND // 4):
                self.client.data(number, b"x")
            self.client.data(number, b"x" * 100, ends=True)
            for _ in range(10):
                large = self.client.request("GET", "/size/200000")
                yield self.until(lambda large=large: self.client.streams[large].is_complete)
        self.assertIsNone(self.client.ended)

    @inlineCallbacks
    def test_many_requests(self) -> Any:
        """Small requests with bodies are no flood, in whatever number, and however small the bodies."""
        self.client = yield self.connect()
        for _ in range(FRAMES // 5):
            numbers = [self.client.request("PUT", "/echo", b"1") for _ in range(STREAMS)]
            yield self.until(lambda numbers=numbers: all(self.client.streams[n].is_over for n in numbers))
        self.assertEqual({stream.status for stream in self.client.streams.values()}, {200})

    @inlineCallbacks
    def test_unread_answers(self) -> Any:
        """Who floods and does not read fills no memory: nothing more is read from it."""
        self.client.transport.pauseProducing()
        (connection,) = self.served.factory.channels
        self.client.send(frame(PING, 0, bytes(8)) * (FRAMES - 100))
        yield self.turns(100)
        for number in range(1, 2 * STREAMS, 2):
            self.client.send(frame(HEADERS, number, head(b"/size/250000"), END_STREAM | END_HEADERS))
        yield self.turns(100)
        self.assertLessEqual(connection._cutter.waiting_bytes, 2**17)
        yield self.others_are_served()


class HeadTests(AttackTestCase):
    """Heads that are too large, or never end."""

    @inlineCallbacks
    def test_bomb(self) -> Any:
        """A few bytes that decompress to more than four times the limit end the connection; up to there they
        are refused, and the connection goes on."""
        encoder = Encoder()
        large = encoder.encode([(b"x-large", b"y" * 3000)])
        index = bytes([0x80 | 62])
        pseudo = head()
        self.client.send(frame(HEADERS, 1, pseudo + large + index * 9, END_STREAM | END_HEADERS))
        answer = self.client.streams[1] = Received()
        yield self.until(lambda: answer.is_over)
        self.assertEqual(answer.status, 431)
        self.client.send(frame(HEADERS, 3, pseudo + index * 4000, END_STREAM | END_HEADERS))
        yield self.is_ended(CALM)

    def test_continuations(self) -> Any:
        """A head in frames without content."""
        self.client.send(frame(HEADERS, 1, head(), END_STREAM))
        self.client.send(frame(CONTINUATION, 1) * (MAX_CONTINUATIONS + 1))
        return self.is_ended(CALM, "CONTINUATION")

    def test_endless_head(self) -> Any:
        """A head that does not end."""
        self.client.send(frame(HEADERS, 1, head(), END_STREAM), *[frame(CONTINUATION, 1, bytes(16000))] * 3)
        return self.is_ended(CALM, "a head has more than")

    @inlineCallbacks
    def test_slow_head(self) -> Any:
        """A head whose rest does not arrive within ``--header-seconds``, also if some of it does."""
        for begun in (
            frame(HEADERS, 1, head(), END_STREAM),
            frame(HEADERS, 1, head(), 5)[:-1],
            b"\0\0\x08\x06",
        ):
            self.client = yield self.connect(Attacker())
            self.client.send(begun)
            yield self.pass_seconds(8)
            yield self.is_ended(CALM, "in time")

    @inlineCallbacks
    def test_dribble(self) -> Any:
        """A connection on which frames arrive byte by byte, and no request, is idle."""
        data = frame(PING, 0, bytes(8)) * 5
        for position in range(len(data)):
            self.client.send(data[position : position + 1])
            yield self.pass_seconds(1)
        yield self.until(lambda: self.client.ended is not None)

    @inlineCallbacks
    def test_slow_preface(self) -> Any:
        """A preface that does not arrive, or not all of it, or nothing behind it."""
        for sent in (PREFACE[:3], PREFACE[:20], PREFACE):
            silent = Silent(sent)
            yield self.connect_any(silent)
            yield self.pass_seconds(8)
            for _ in range(40):
                yield self.pass_seconds(1)
            yield self.until(lambda silent=silent: silent.is_lost)
        yield self.others_are_served()


class RuleTests(AttackTestCase):
    """Frames that break a rule of the protocol: the connection ends with the code that the RFC names."""

    @inlineCallbacks
    def breaks(self, code: ErrorCodes, *frames: bytes) -> Any:
        """Send frames on a new connection; it has to end."""
        self.client = yield self.connect(Attacker())
        self.client.send(*frames)
        yield self.is_ended(code)

    @inlineCallbacks
    def test_stream_numbers(self) -> Any:
        """Numbers that are even, used before, or lower than one that was used."""
        request = lambda number: frame(HEADERS, number, head(b"/echo"), END_STREAM | END_HEADERS)  # noqa: E731  # short
        yield self.breaks(PROTOCOL, request(2))
        yield self.breaks(PROTOCOL, request(5), request(3))
        yield self.breaks(PROTOCOL, request(0))
        self.client = yield self.connect(Attacker())
        self.client.send(request(1))
        yield self.until(lambda: 1 in self.client.streams and self.client.streams[1].is_complete)
        self.client.send(request(1))
        yield self.is_ended(ErrorCodes.STREAM_CLOSED)

    @inlineCallbacks
    def test_a_second_head(self) -> Any:
        """A head on a stream whose request is complete ends that stream only."""
        request = frame(HEADERS, 1, head(), END_STREAM | END_HEADERS)
        self.client.send(request)
        yield self.until(lambda: bool(self.handlers.waiting))
        self.client.send(request)
        yield self.until(lambda: 1 in self.client.streams and self.client.streams[1].is_over)
        self.assertEqual(self.client.streams[1].error, ErrorCodes.STREAM_CLOSED)
        self.assertEqual(self.handlers.cancelled, 1)
        self.assertIsNone(self.client.ended)

    @inlineCallbacks
    def test_windows(self) -> Any:
        """The connection's window opened beyond its limit, or by nothing; a body beyond its window."""
        overflow = frame(WINDOW_UPDATE, 0, struct.pack(">L", 2**31 - 1))
        yield self.breaks(ErrorCodes.FLOW_CONTROL_ERROR, overflow)
        yield self.breaks(PROTOCOL, frame(WINDOW_UPDATE, 0, bytes(4)))
        self.client = yield self.connect(Attacker())
        self.client.send(frame(HEADERS, 1, head(b"/take", b"POST"), END_HEADERS))
        yield self.until(lambda: bool(self.handlers.takers))
        self.handlers.takers[0].stream.pause()
        self.client.send(*[frame(DATA, 1, bytes(16384))] * 40)
        yield self.is_ended(ErrorCodes.FLOW_CONTROL_ERROR)

    @inlineCallbacks
    def test_frames(self) -> Any:
        """Frames that are too large, of a wrong size, out of place, or first on a connection."""
        yield self.breaks(ErrorCodes.FRAME_SIZE_ERROR, b"\xff\xff\xff\0\0\0\0\0\1")
        yield self.breaks(ErrorCodes.FRAME_SIZE_ERROR, frame(PING, 0, bytes(7)))
        yield self.breaks(ErrorCodes.FRAME_SIZE_ERROR, frame(GOAWAY, 0, bytes(7)))
        yield self.breaks(PROTOCOL, frame(GOAWAY, 1, bytes(8)))
        yield self.breaks(PROTOCOL, frame(HEADERS, 1, head(), END_STREAM), frame(PING, 0, bytes(8)))
        yield self.breaks(PROTOCOL, frame(HEADERS, 1, head(), END_STREAM), frame(GOAWAY, 0, bytes(8)))
        yield self.breaks(PROTOCOL, frame(CONTINUATION, 1, head(), END_HEADERS))
        yield self.breaks(PROTOCOL, frame(5, 1, bytes(8), END_HEADERS))
        silent = Silent(PREFACE + frame(PING, 0, bytes(8)))
        yield self.connect_any(silent)
        yield self.until(lambda: b"SETTINGS" in silent.received)

    @inlineCallbacks
    def test_compression(self) -> Any:
        """A head that cannot be decompressed."""
        yield self.breaks(ErrorCodes.PROTOCOL_ERROR, frame(HEADERS, 1, b"\xff" * 8, END_STREAM | END_HEADERS))
