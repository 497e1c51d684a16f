"""Compressed answers: bodies of any size, streams with back-pressure, in small turns."""

from __future__ import annotations

import zlib
from typing import Any

import cramjam
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.compression import ENCODINGS, PIECE_BYTES, SNAPPY, Compressing, _Stream, compressed
from gateway.http.response import BodySink, Response
from tests import tries

TEXT = b"".join(b'{"id":%d,"name":"a beer"}\n' % number for number in range(40_000))


def decoded(encoding: bytes, data: bytes) -> bytes:
    """Return what a client makes of a body."""
    if encoding == SNAPPY:
        return bytes(cramjam.snappy.decompress_raw(data))
    library = {b"gzip": cramjam.gzip, b"br": cramjam.brotli, b"zstd": cramjam.zstd}[encoding]
    return bytes(library.decompress(data))


class Turns(Clock):
    """A clock by which ``advance(1)`` is one turn of the reactor."""

    def callLater(self, delay: float, call: Any, *args: Any, **kwargs: Any) -> Any:
        return super().callLater(delay or 1, call, *args, **kwargs)


class Sink:
    """Takes a body, and notes how it ended."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.ended = ""
        self.producer: Any = None
        self.pause_after = 0

    def write(self, data: bytes) -> None:
        assert data and not self.ended
        self.parts.append(data)
        if self.pause_after and len(self.parts) % self.pause_after == 0:
            self.producer.pause()

    def finish(self) -> None:
        self.ended += "finished"

    def abort(self) -> None:
        self.ended += "aborted"

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


class Source:
    """A body that a test produces."""

    def __init__(self) -> None:
        self.sink: BodySink | None = None
        self.told: list[str] = []

    def start(self, sink: BodySink) -> None:
        self.sink = sink

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def cancel(self) -> None:
        self.told.append("cancel")


def run(producer: Any, clock: Turns, sink: Sink) -> int:
    """Produce a body to its end; return the number of turns."""
    sink.producer = producer
    producer.start(sink)
    turns = 0
    while not sink.ended:
        if not clock.getDelayedCalls():
            producer.resume()
        clock.advance(1)
        turns += 1
        assert turns < 10_000
    return turns


class WholeTests(SynchronousTestCase):
    """Bodies that are complete."""

    def test_every_coding(self) -> None:
        """Each decodes to the body, whatever its size; long ones take a turn for each piece."""
        self.assertEqual(set(ENCODINGS), {b"zstd", b"br", b"gzip"})
        for encoding in (*ENCODINGS, SNAPPY):
            for body in (b"", b"x", b"x" * 5000, TEXT[:PIECE_BYTES], TEXT[: PIECE_BYTES + 1], TEXT):
                clock, sink = Turns(), Sink()
                answer = compressed(Response(200, [(b"ETag", b"12ab")], body), encoding, clock)
                self.assertIn((b"Content-Encoding", encoding), answer.headers)
                self.assertIn((b"Vary", b"Accept-Encoding"), answer.headers)
                self.assertIn((b"ETag", b"12ab"), answer.headers)
                if isinstance(answer.body, bytes):
                    data = answer.body
                    self.assertLessEqual(len(body), PIECE_BYTES)
                else:
                    turns = run(answer.body, clock, sink)
                    data = sink.body
                    self.assertGreaterEqual(turns, len(body) // PIECE_BYTES)
                    self.assertEqual(sink.ended, "finished")
                self.assertEqual(decoded(encoding, data), body, encoding)
                if len(body) > 1000:
                    self.assertLess(len(data), len(body) / 2)

    def test_headers(self) -> None:
        """A quoted ETag becomes weak; an existing Vary is not repeated."""
        headers = [(b"ETag", b'"12ab"'), (b"Vary", b"Accept, Accept-Encoding")]
        answer = compressed(Response(200, headers, b"text"), b"gzip", Turns())
        self.assertEqual(
            list(answer.headers),
            [(b"ETag", b'W/"12ab"'), (b"Vary", b"Accept, Accept-Encoding"), (b"Content-Encoding", b"gzip")],
        )

    @settings(max_examples=tries(60), deadline=None)
    @given(st.binary(max_size=300_000), st.integers(0, 3))
    def test_blocks(self, body: bytes, pause_after: int) -> None:
        """A Snappy block that is made in parts is one block; a slow client changes nothing."""
        clock, sink = Turns(), Sink()
        sink.pause_after = pause_after
        answer = compressed(Response(200, [], body), SNAPPY, clock)
        if isinstance(answer.body, bytes):
            data = answer.body
        else:
            run(answer.body, clock, sink)
            data = sink.body
        self.assertEqual(decoded(SNAPPY, data), body)


class StreamTests(SynchronousTestCase):
    """Bodies that are produced."""

    def setUp(self) -> None:
        self.clock, self.sink, self.source = Turns(), Sink(), Source()

    def begin(self, encoding: bytes = b"gzip") -> Any:
        """Start a compressed body."""
        body = Compressing(self.source, _Stream(encoding), self.clock)
        self.sink.producer = body
        body.start(self.sink)
        assert self.source.sink is not None
        return body

    def test_sent_at_once(self) -> None:
        """What was written can be decoded after the turn, though more is to come."""
        self.begin()
        decoder = zlib.decompressobj(31)
        for line in (b"first\n", b"second\n"):
            self.source.sink.write(line)  # type: ignore[union-attr]
            self.sink.parts.clear()
            self.clock.advance(1)
            self.assertEqual(decoder.decompress(self.sink.body), line)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_source_waits(self) -> None:
        """A source that writes faster is paused at a piece, and goes on when that is compressed."""
        self.begin()
        self.source.sink.write(TEXT[: PIECE_BYTES * 3])  # type: ignore[union-attr]
        self.assertEqual(self.source.told, ["pause"])
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(self.source.told, ["pause"])
        self.clock.advance(1)
        self.assertEqual(self.source.told, ["pause", "resume"])

    def test_slow_client(self) -> None:
        """Nothing is written to a client that does not read; the source waits, too."""
        body = self.begin()
        body.pause()
        self.assertEqual(self.source.told, ["pause"])
        self.source.sink.write(b"text")  # type: ignore[union-attr]
        self.source.sink.finish()  # type: ignore[union-attr]
        self.clock.advance(1)
        self.assertEqual((self.sink.parts, self.sink.ended), ([], ""))
        body.resume()
        self.clock.advance(1)
        self.assertEqual((decoded(b"gzip", self.sink.body), self.sink.ended), (b"text", "finished"))

    def test_cut(self) -> None:
        """What was written is sent, and then the connection ends: the body is not complete."""
        self.begin()
        self.source.sink.write(b"text")  # type: ignore[union-attr]
        self.source.sink.abort()  # type: ignore[union-attr]
        self.clock.advance(1)
        self.assertEqual(self.sink.ended, "aborted")
        decoder = zlib.decompressobj(31)
        self.assertEqual((decoder.decompress(self.sink.body), decoder.eof), (b"text", False))

    def test_client_leaves(self) -> None:
        """Nothing is left to do, and the source is cancelled once."""
        body = self.begin()
        self.source.sink.write(TEXT)  # type: ignore[union-attr]
        body.cancel()
        self.assertEqual((self.source.told, self.clock.getDelayedCalls()), (["pause", "cancel"], []))
        self.source.sink.write(b"more")  # type: ignore[union-attr]
        self.clock.advance(1)
        self.assertEqual(self.sink.parts, [])

    @settings(max_examples=tries(100), deadline=None)
    @given(
        st.sampled_from(ENCODINGS),
        st.lists(
            st.one_of(st.binary(min_size=1, max_size=70_000), st.sampled_from(["turn", "slow"])), max_size=12
        ),
    )
    def test_any_order(self, encoding: bytes, events: list[Any]) -> None:
        """Parts, turns and pauses in any order come to the same body."""
        self.clock, self.sink, self.source = Turns(), Sink(), Source()
        body = self.begin(encoding)
        written = b""
        for event in events:
            if event == "turn":
                self.clock.advance(1)
            elif event == "slow":
                body.pause()
                self.clock.advance(1)
                body.resume()
            else:
                self.source.sink.write(event)  # type: ignore[union-attr]
                written += event
        self.source.sink.finish()  # type: ignore[union-attr]
        while not self.sink.ended:
            self.assertNotEqual(self.clock.getDelayedCalls(), [])
            self.clock.advance(1)
        self.assertEqual(decoded(encoding, self.sink.body), written)
