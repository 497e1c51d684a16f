"""Writes a batch's answers: in their order, small ones joined, large ones in pieces."""

from __future__ import annotations

from collections import deque

from gateway.batches.accounting import Account
from gateway.batches.fastpath import FastSlot
from gateway.batches.slot import Slot
from gateway.http.exchange import SLICED_BYTES
from gateway.http.response import BodySink

__all__ = ["ARRAY", "LINES", "AnswerWriter"]

LINES = b"application/x-ndjson"
ARRAY = b"application/json"


class AnswerWriter:
    """Writes answers as fast as the client reads them.

    :ivar form: content type of the answer; ``None`` while it is not known.
    :ivar is_paused: whether the client reads slowly.
    :param slots: operations in their order; those with written answers are removed.
    :param account: counts the written bytes.
    """

    def __init__(self, slots: deque[Slot | FastSlot], account: Account, form: bytes | None) -> None:
        self.form = form
        self.is_paused = False
        self._slots = slots
        self._account = account
        self._sink: BodySink | None = None
        self._has_begun = False
        # The rest of large answers that are being written.
        self._pieces: deque[memoryview] = deque()

    @property
    def can_write(self) -> bool:
        """Whether the answer has begun."""
        return self._sink is not None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing left to write."""
        return not self._pieces

    def start(self, sink: BodySink) -> None:
        """Write to ``sink`` from now on."""
        self._sink = sink

    def drop(self) -> None:
        """Write nothing more."""
        self._pieces.clear()

    def write(self) -> bool:
        """Write the finished answers; return whether any could be written."""
        sink = self._sink
        assert sink is not None
        if not self._write_pieces(sink):
            return False
        slots = self._slots
        answers: list[bytes] = []
        held = count = 0
        while slots and (answer := slots[0].answer) is not None:
            size = slots.popleft().held
            held += size
            count += 1
            if size < SLICED_BYTES:
                answers.append(answer)
                continue
            if answers:
                self._write_answers(sink, answers)
                answers = []
            if not self._write_large(sink, answer):
                break
        self._account.written(held, count)
        if answers:
            self._write_answers(sink, answers)
        return True

    def finish(self) -> None:
        """Write the end of the answer."""
        sink = self._sink
        assert sink is not None
        if self.form == ARRAY:
            sink.write(b"\n]\n" if self._has_begun else b"[]\n")

    def close(self) -> None:
        """Finish the response."""
        assert self._sink is not None
        self._sink.finish()

    def _write_answers(self, sink: BodySink, answers: list[bytes]) -> None:
        if self.form == ARRAY:
            start = b",\n" if self._has_begun else b"[\n"
            sink.write(start + b",\n".join(answers))
        else:
            answers.append(b"")
            sink.write(b"\n".join(answers))
        self._has_begun = True

    def _write_large(self, sink: BodySink, answer: bytes) -> bool:
        pieces = self._pieces
        if self.form == ARRAY:
            pieces.append(memoryview(b",\n" if self._has_begun else b"[\n"))
        pieces.append(memoryview(answer))
        if self.form != ARRAY:
            pieces.append(memoryview(b"\n"))
        self._has_begun = True
        return self._write_pieces(sink)

    def _write_pieces(self, sink: BodySink) -> bool:
        """Write the rest of large answers while the client reads; return whether all of it was written."""
        pieces = self._pieces
        while pieces and not self.is_paused:
            piece = pieces.popleft()
            if len(piece) > SLICED_BYTES:
                pieces.appendleft(piece[SLICED_BYTES:])
                piece = piece[:SLICED_BYTES]
            sink.write(bytes(piece))
        return not pieces
