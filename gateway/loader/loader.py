"""Sends documents to a gateway, a few batches at a time."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from gateway.loader.client import (
    ATTEMPTS,
    LOST,
    TRANSIENT_HTTP,
    Gateway,
    code_and_message,
    lost,
    pause_seconds,
    refusal,
)
from gateway.loader.errors import LineError, LoadError
from gateway.loader.lines import DESIGN_PREFIX, Line, LineReader
from gateway.loader.progress import Progress

__all__ = ["Answer", "Loader", "read_answers"]

DOCUMENTS_PER_BATCH = 1000
BATCH_BYTES = 2**20
BATCHES_UNDER_WAY = 2
SAVE_EVERY_BATCHES = 20


class Answer(NamedTuple):
    """The gateway's answer to one line of a batch."""

    stored: bool
    code: str
    message: str
    transient: bool
    """Whether the same operation may succeed a moment later."""


_STORED = Answer(True, "", "", False)


class _Batch:
    """Lines to send in one request: either different documents, or one design document."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.documents: set[tuple[str, str]] = set()
        self.operations = 0
        self.size_bytes = 0
        self.last_line = 0
        self.done = False
        self._waiting: list[Deferred[None]] = []

    def take(self, line: Line) -> bool:
        """Add a line; returns whether there was room for it."""
        _, key, operation, place, count = line
        document, size = (place, key), len(operation)
        if self.lines and (
            count == 0
            or self.operations >= DOCUMENTS_PER_BATCH
            or self.size_bytes + size >= BATCH_BYTES
            or document in self.documents
            or self.lines[0].operation_count == 0
        ):
            return False
        self.lines.append(line)
        self.operations += count
        self.documents.add(document)
        self.size_bytes += size + 1
        return True

    async def wait(self) -> None:
        if not self.done:
            self._waiting.append(Deferred())
            await self._waiting[-1]

    def finish(self) -> None:
        self.done = True
        self.lines, self.documents = [], set()
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)


class Loader:
    """Sends every line of a source, and reports the outcome.

    :param lines: (number, content) pairs, as from :meth:`Source.lines`.
    :param reader: parses the lines.
    :param gateway: sends batches and design documents.
    :param on_failure: called with (line number, key or ``""``, code, message) for each line not stored.
    :param on_batch: called after each batch.
    """

    # Many parameters: the options of the loader.
    def __init__(
        self,
        lines: Iterator[tuple[int, bytes]],
        reader: LineReader,
        gateway: Gateway,
        progress: Progress,
        on_failure: Callable[[int, str, str, str], None],
        clock: IReactorTime,
        *,
        on_batch: Callable[[], None] = lambda: None,
        attempts: int = ATTEMPTS,
        under_way: int = BATCHES_UNDER_WAY,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.stored = 0
        self.failed = 0
        self.skipped = 0
        self.expired = 0
        self.lines_done = 0
        self._lines = lines
        self._reader = reader
        self._gateway = gateway
        self._progress = progress
        self._on_failure = on_failure
        self._on_batch = on_batch
        self._clock = clock
        self._attempts = attempts
        self._under_way = under_way
        self._jitter = jitter
        self._order: deque[_Batch] = deque()
        self._next_line: Line | None = None
        self._last_read = 0
        self._finished_batches = 0
        self._stopped = False

    async def run(self) -> None:
        """Send everything; afterwards ``stored``, ``failed``, ``expired`` and ``skipped`` count lines.

        Skipped lines were done before.

        :raises LoadError: the load cannot continue; its progress is recorded.
        """
        self.lines_done = self._progress.load()
        workers = [ensureDeferred(self._work()) for _ in range(self._under_way)]
        try:
            await _all(workers)
        except LoadError:
            self.save()
            raise
        self._progress.forget()

    def save(self) -> None:
        """Save the progress."""
        self._progress.save(self.lines_done)

    async def _work(self) -> None:
        while not self._stopped:
            try:
                batch = self._take()
                if batch is None:
                    return
                await self._wait_for_earlier(batch)
                await self._send(batch)
            except BaseException:
                self._stopped = True
                raise
            batch.finish()
            while self._order and self._order[0].done:
                self.lines_done = self._order.popleft().last_line
            self._finished_batches += 1
            if self._finished_batches % SAVE_EVERY_BATCHES == 0:
                self.save()
            self._on_batch()

    async def _wait_for_earlier(self, batch: _Batch) -> None:
        earlier = [one for one in self._order if one is not batch and not one.done]
        # While one batch is stuck, the others must not run too far ahead: progress is a prefix of the file.
        too_far = len(self._order) > 16 * self._under_way
        for one in earlier:
            if too_far or not one.documents.isdisjoint(batch.documents):
                await one.wait()

    def _take(self) -> _Batch | None:
        """Return the next batch, registered in file order; ``None`` at the end of the file."""
        batch = _Batch()
        while (line := self._next_line or self._read()) is not None:
            if not batch.take(line):
                self._next_line = line
                batch.last_line = line.number - 1
                break
            self._next_line = None
        else:
            batch.last_line = self._last_read
        if not batch.lines:
            self.lines_done = max(self.lines_done, 0 if self._order else self._last_read)
            return None
        self._order.append(batch)
        return batch

    def _read(self) -> Line | None:
        for number, data in self._lines:
            self._last_read = number
            if number <= self.lines_done:
                self.skipped += 1
                continue
            try:
                line = self._reader.read(number, data)
            except LineError as error:
                self._fail(number, "", "InvalidLine", str(error))
                continue
            if line is not None:
                return line
            self.expired += 1
        return None

    def _fail(self, number: int, key: str, code: str, message: str) -> None:
        self.failed += 1
        self._on_failure(number, key, code, message)

    async def _send(self, batch: _Batch) -> None:
        """Send one batch repeatedly until each line is stored or definitely refused."""
        remaining = batch.lines
        latest: dict[int, Answer] = {}
        trouble = ""
        for attempt in range(self._attempts):
            if attempt:
                await deferLater(self._clock, pause_seconds(attempt, self._jitter))
            try:
                status, body = await self._post(remaining)
            except LOST as error:
                trouble = lost(error)
                continue
            if status in TRANSIENT_HTTP:
                trouble = refusal(status, body)
                continue
            if remaining[0].operation_count:
                if status != 200:
                    raise LoadError(refusal(status, body))
                answers = answers_by_line(remaining, read_answers(body))
            elif status == 401:
                raise LoadError(refusal(status, body))
            else:
                answers = [design_answer(status, body)]
            trouble = "" if len(answers) >= len(remaining) else "the gateway answered only in part"
            unsettled = remaining[len(answers) :]
            for line, answer in zip(remaining, answers, strict=False):
                if answer.stored:
                    self.stored += 1
                elif answer.transient:
                    latest[line.number] = answer
                    unsettled.append(line)
                else:
                    self._fail(line.number, line.key, answer.code, answer.message)
            remaining = unsettled
            if not remaining:
                return
        if trouble:
            raise LoadError(f"{trouble}; gave up after {self._attempts} attempts")
        for line in remaining:
            self._fail(line.number, line.key, latest[line.number].code, latest[line.number].message)

    def _post(self, lines: list[Line]) -> Awaitable[tuple[int, bytes]]:
        if lines[0].operation_count:
            return self._gateway.post_batch(b"\n".join([line.operation for line in lines]) + b"\n")
        return self._gateway.put_design(lines[0].key.removeprefix(DESIGN_PREFIX), lines[0].operation)


async def _all(workers: list[Deferred[None]]) -> None:
    """Wait for every worker; then raise the error of the first one that failed."""
    failures: list[Any] = []
    for worker in workers:
        worker.addErrback(failures.append)
    await gatherResults(workers)
    if failures:
        failures[0].raiseException()


def read_answers(body: bytes) -> list[Answer]:
    """Return the answers of one batch, in the order of its lines.

    :raises LoadError: the text is not a gateway's answer.
    """
    count = body.count(b"\n")
    # In a string, a backslash would be in front of the quotation mark.
    if body.count(b',"status":200,') == count and body.endswith(b"\n"):
        return [_STORED] * count
    answers = []
    for text in body.splitlines():
        try:
            decoded = json.loads(text)
            if decoded["status"] < 300:
                answers.append(_STORED)
                continue
            error = decoded["error"]
            transient = error.get("retry") != "never"
            answers.append(Answer(False, str(error["code"]), str(error["message"]), transient))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise LoadError(f"not the answer of a gateway's batch: {text[:200]!r}") from None
    return answers


def answers_by_line(lines: list[Line], answers: list[Answer]) -> list[Answer]:
    """Return one answer for each answered line; of a line's answers, the first failure counts."""
    if len(lines) == len(answers) and all(line.operation_count == 1 for line in lines):
        return answers
    found, at = [], 0
    for line in lines:
        own = answers[at : at + line.operation_count]
        at += line.operation_count
        if len(own) < line.operation_count:
            break
        found.append(next((answer for answer in own if not answer.stored), own[0]))
    return found


def design_answer(status: int, body: bytes) -> Answer:
    """Return the result in the answer to a request for a design document."""
    if status < 300:
        return Answer(True, "", "", False)
    code, message = code_and_message(body) or (f"HTTP {status}", body[:200].decode("utf-8", "replace"))
    return Answer(False, code, message, False)
