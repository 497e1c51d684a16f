"""Writes the documents of a bucket, read from a gateway's listings, to a file of lines."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

import treq
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol as Receiver
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from gateway.loader.client import ATTEMPTS, LOST, TRANSIENT_HTTP, lost, pause_seconds, refusal
from gateway.loader.errors import LoadError
from gateway.loader.exportlines import is_of_transaction, line_of, place_members
from gateway.loader.output import Output
from gateway.loader.progress import Note

__all__ = ["Exporter", "Place"]

NOTE_EVERY_BYTES = 2**24
NOTE_EVERY_SECONDS = 2.0

Place = tuple[str, str]
"""Names of a scope, and of a collection in it."""


class Gateway(Protocol):
    """The methods of a gateway's client that an export needs."""

    async def listing(self, place: Place, query: str) -> Any:
        """Begin to read a listing."""


_DONE = Failure(ConnectionDone())


class _Broken(Exception):
    """The answer ended early; the listing can continue from the last cursor."""


class State(NamedTuple):
    """How far an export has come.

    :ivar finished: collections that were written completely.
    :ivar cursor: position in the next collection; ``None`` for its beginning.
    :ivar designs: whether the design documents were written.
    """

    finished: tuple[Place, ...] = ()
    cursor: str | None = None
    designs: bool = False
    documents: int = 0
    skipped: int = 0
    size_bytes: int = 0

    def as_note(self) -> dict[str, Any]:
        """Return the state as values for JSON."""
        return self._asdict()

    @classmethod
    def of_note(cls, noted: dict[str, Any]) -> State:
        """Return the state in a note.

        :raises LoadError: the note is malformed.
        """
        try:
            state = cls(**noted)
            return state._replace(finished=tuple((str(scope), str(name)) for scope, name in state.finished))
        except (TypeError, ValueError):
            raise LoadError("the progress file is from another version; --restart ignores it") from None


class Exporter:
    """Writes collections, one after the other.

    Only whole parts of a listing, each of which ends with a cursor, are written; progress is recorded after
    the write. So a resumed export neither misses nor repeats a document.

    :param output: the output file.
    :param on_part: called after each part.
    """

    # Many parameters: everything that the exporter works with.
    def __init__(
        self,
        gateway: Gateway,
        output: Output,
        note: Note,
        clock: IReactorTime,
        *,
        state: State | None = None,
        on_part: Callable[[], None] = lambda: None,
        attempts: int = ATTEMPTS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.state = state or State()
        self._gateway = gateway
        self._output = output
        self._note = note
        self._clock = clock
        self._on_part = on_part
        self._attempts = attempts
        self._jitter = jitter
        self._progressed = False
        self._noted_bytes = self.state.size_bytes
        self._noted_at = clock.seconds()

    def write_designs(self, designs: Sequence[tuple[str, bytes]]) -> None:
        """Write design documents, unless they were written before.

        :param designs: name and text of each design document.
        """
        if self.state.designs:
            return
        lines = [
            b'{"id":%b,"doc":%b}\n' % (json.dumps(f"_design/{name}").encode(), text) for name, text in designs
        ]
        self._output.write(b"".join(lines))
        self.state = self.state._replace(designs=True)
        self.save()

    async def write(self, place: Place) -> None:
        """Write the documents of a collection, or the rest of them.

        :raises LoadError: the export cannot continue; its progress is recorded.
        """
        if place in self.state.finished:
            return
        attempt = 0
        try:
            while True:
                self._progressed = False
                trouble = await self._try(place)
                if place in self.state.finished:
                    return
                attempt = 1 if self._progressed else attempt + 1
                if attempt >= self._attempts:
                    raise LoadError(f"{trouble}; gave up after {attempt} attempts")
                self.save()
                await deferLater(self._clock, pause_seconds(attempt, self._jitter))
        finally:
            self.save()

    def save(self) -> None:
        """Record the progress."""
        self.state = self.state._replace(size_bytes=self._output.mark())
        self._note.write(self.state.as_note())
        self._noted_bytes, self._noted_at = self._output.written, self._clock.seconds()

    async def _try(self, place: Place) -> str:
        """Write the rows of a listing; returns a description of the failure, if that may be temporary."""
        query = {"include_docs": "true", "include_xattrs": "true", "verbatim": "true", "cursors": "true"}
        if self.state.cursor is not None:
            query["cursor"] = self.state.cursor
        try:
            response = await self._gateway.listing(place, urlencode(query))
            if response.code != 200:
                words = refusal(response.code, await treq.content(response))
                if response.code not in TRANSIENT_HTTP:
                    raise LoadError(words)
                return words
            reader = _Reader(self, place)
            response.deliverBody(reader)
            await reader.ended
        except LOST as error:
            return lost(error)
        except _Broken as error:
            return str(error)
        return "the gateway's answer ended early"

    def take(self, place: Place, lines: list[bytes], skipped: int, cursor: str | None) -> None:
        """Write one part of a collection's listing.

        :param skipped: number of rows that were left out.
        :param cursor: the position after the part; ``None`` at the end.
        """
        if lines:
            self._output.write(b"\n".join(lines) + b"\n")
        done = self.state
        self.state = done._replace(
            finished=(*done.finished, place) if cursor is None else done.finished,
            cursor=cursor,
            documents=done.documents + len(lines),
            skipped=done.skipped + skipped,
        )
        self._progressed = True
        if (
            self._output.written - self._noted_bytes >= NOTE_EVERY_BYTES
            or self._clock.seconds() - self._noted_at >= NOTE_EVERY_SECONDS
        ):
            self.save()
        self._on_part()


class _Reader(Receiver):
    """Reads the rows of one listing."""

    def __init__(self, exporter: Exporter, place: Place) -> None:
        self.ended: Deferred[None] = Deferred(self._cancel)
        self._exporter = exporter
        self._place = place
        self._members = place_members(*place)
        self._tail: list[bytes] = []
        self._lines: list[bytes] = []
        self._skipped = 0

    def dataReceived(self, data: bytes) -> None:
        """Take a part of the answer."""
        if b"\n" not in data:
            self._tail.append(data)
            return
        rows = b"".join((*self._tail, data)).split(b"\n")
        self._tail = [rows.pop()]
        try:
            self._take(rows)
        except Exception:  # noqa: BLE001  # whatever it is, the one who waits for the end gets it
            self._end(Failure())

    def _take(self, rows: list[bytes]) -> None:
        add, members = self._lines.append, self._members
        for row in rows:
            line = line_of(row, members)
            if line is None:
                self._take_other(row)
                add = self._lines.append
            elif is_of_transaction(row):
                self._skipped += 1
            else:
                add(line)

    def _take_other(self, row: bytes) -> None:
        """Take a row that is not a document: a cursor, or a failure."""
        try:
            (name, content), *more = json.loads(row).items()
            if name == "cursor" and not more and isinstance(content, str | None):
                lines, self._lines = self._lines, []
                skipped, self._skipped = self._skipped, 0
                self._exporter.take(self._place, lines, skipped, content)
                return
            if name == "error":
                words = f"the listing failed: {content['code']}: {content['reason']}"
                raise LoadError(words) if content.get("retry") == "never" else _Broken(words)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise LoadError(f"not a row of a gateway's listing: {row[:200]!r}")

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """Note the end of the answer."""
        self._end(None if reason.check(ResponseDone) else reason)

    def _end(self, failure: Failure | None) -> None:
        ended = self.ended
        if not ended.called:
            ended.callback(None) if failure is None else ended.errback(failure)
            if failure is not None:
                self._abort()

    def _cancel(self, _: Deferred[None]) -> None:
        self._abort()

    def _abort(self) -> None:
        # The body's transport closes the connection by this method.
        transport: Any = self.transport
        if transport is not None:
            transport.stopProducing()
