"""Streams of documents: their contents, and the end of clients that do not read."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchnode.rest.streams import SEPARATOR, STALLED_SECONDS, DocumentStream


class FakeRequest:
    """A request as a stream sees it: it takes writes, and can be full after one."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.headers: dict[bytes, bytes] = {}
        self.producer: Any = None
        self.fills_up = False
        self.aborted = False
        self.channel = self
        self.transport = self

    def setHeader(self, name: bytes, value: bytes) -> None:
        """Note a header."""
        self.headers[name] = value

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Note the producer."""
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self.producer = None

    def write(self, data: bytes) -> None:
        """Take a document; the buffer may be full after it."""
        self.written.append(data)
        if self.fills_up:
            self.producer.pauseProducing()

    def abortConnection(self) -> None:
        """Note that the connection was cut."""
        self.aborted = True


class DocumentStreamTests(SynchronousTestCase):
    """One stream over a fake request."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.request = FakeRequest()
        self.document: bytes | None = b"one"
        self.ended: list[DocumentStream] = []
        self.stream = DocumentStream(self.request, lambda: self.document, self.clock, self.ended.append)

    def change(self, document: bytes | None) -> None:
        """Let there be another document."""
        self.document = document
        self.stream.refresh()

    def test_first_document_at_once_then_one_a_change(self) -> None:
        """Each document is followed by the separator; what did not change is not repeated."""
        waiting = self.stream.start()
        self.assertEqual(self.request.headers[b"content-type"], b"application/json")
        self.change(b"one")
        self.change(b"two")
        self.assertEqual(self.request.written, [b"one" + SEPARATOR, b"two" + SEPARATOR])
        self.assertNoResult(waiting)

    def test_ends_when_there_is_no_more(self) -> None:
        """When the document is gone the response ends, once, and the owner is notified."""
        waiting = self.stream.start()
        self.change(None)
        self.successResultOf(waiting)
        self.stream.end()
        self.change(b"three")
        self.assertEqual(self.request.written, [b"one" + SEPARATOR])
        self.assertEqual(self.ended, [self.stream])
        self.assertIsNone(self.request.producer)

    def test_slow_reader_gets_the_newest_only(self) -> None:
        """While the connection is full nothing is queued; afterwards one document is sent, the last."""
        self.stream.start()
        self.request.fills_up = True
        self.change(b"two")
        self.change(b"three")
        self.change(b"four")
        self.assertEqual(self.request.written, [b"one" + SEPARATOR, b"two" + SEPARATOR])
        self.request.fills_up = False
        self.clock.advance(STALLED_SECONDS - 1)
        self.stream.resumeProducing()
        self.assertEqual(self.request.written[2:], [b"four" + SEPARATOR])
        self.clock.advance(STALLED_SECONDS * 2)
        self.assertFalse(self.request.aborted)

    def test_reader_who_does_not_read_is_dropped(self) -> None:
        """A connection that is full for the time limit is cut."""
        waiting = self.stream.start()
        self.stream.pauseProducing()
        self.stream.pauseProducing()
        self.clock.advance(STALLED_SECONDS - 0.1)
        self.assertFalse(self.request.aborted)
        self.clock.advance(0.2)
        self.assertTrue(self.request.aborted)
        waiting.cancel()  # as Klein does when the connection is lost
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.ended, [self.stream])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost_connection_leaves_nothing(self) -> None:
        """After the connection is lost there is no timer, and changes are ignored."""
        waiting = self.stream.start()
        self.stream.pauseProducing()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.change(b"two")
        self.assertEqual(self.request.written, [b"one" + SEPARATOR])
        self.assertEqual(self.clock.getDelayedCalls(), [])
