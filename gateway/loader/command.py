"""``couchgateway-load``: send the documents of a JSON-lines file to a bucket, through a gateway.

Lines are sent in small batches (``POST /v1/buckets/{bucket}/batch``), a few at a time, so memory use does not
depend on the file's length. A document's text is sent exactly as it is in the file. Batches that share a key
never overtake each other: the last line with a key wins, as if sent one by one. Progress is noted beside the
file, so that an interrupted load resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import treq
from tqdm import tqdm
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.client import HTTPConnectionPool, ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers

from gateway.loader.arguments import parse_arguments, password_of, place_of
from gateway.loader.file import Line, LineError, LoadError, Progress, Source, read_line
from reactor.kinds import IReactor

__all__ = ["Answer", "Loader", "main", "read_answers"]

DOCUMENTS_PER_BATCH = 250
BATCH_BYTES = 2**20
BATCHES_UNDER_WAY = 2
ATTEMPTS = 8
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
REQUEST_SECONDS = 120.0
SAVE_EVERY_BATCHES = 20
NDJSON = Headers({"Content-Type": ["application/x-ndjson"], "Accept": ["application/x-ndjson"]})
TRANSIENT_HTTP = frozenset({408, 429, 502, 503, 504})
LOST = (ConnectError, ConnectionDone, ConnectionLost, ResponseFailed, ResponseNeverReceived, TimeoutError)

EXIT_SOME_FAILED = 1
EXIT_STOPPED = 2
EXIT_INTERRUPTED = 130

Post = Callable[[bytes], Awaitable["tuple[int, bytes]"]]
"""Send one batch; fires with the HTTP status and the whole answer."""


class Answer(NamedTuple):
    """The gateway's answer to one line of a batch."""

    stored: bool
    code: str
    message: str
    transient: bool
    """Whether the same operation may succeed a moment later."""


class _Batch:
    """Lines to send in one request; no document twice."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.documents: set[tuple[str, str]] = set()
        self.size_bytes = 0
        self.last_line = 0
        self.done = False
        self._waiting: list[Deferred[None]] = []

    def add(self, line: Line) -> None:
        self.lines.append(line)
        self.documents.add(line.document)
        self.size_bytes += len(line.operation) + 1

    def has_room_for(self, line: Line) -> bool:
        return (
            len(self.lines) < DOCUMENTS_PER_BATCH
            and self.size_bytes + len(line.operation) < BATCH_BYTES
            and line.document not in self.documents
        )

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

    :param lines: (number, content) as of :meth:`Source.lines`.
    :param post: sends a batch.
    :param on_failure: called with (line number, key or ``""``, code, message) for each line not stored.
    :param on_batch: called after each batch.
    """

    # Many parameters: the options of the loader.
    def __init__(
        self,
        lines: Iterator[tuple[int, bytes]],
        post: Post,
        progress: Progress,
        on_failure: Callable[[int, str, str, str], None],
        clock: IReactorTime,
        *,
        on_batch: Callable[[], None] = lambda: None,
        key_field: str = "id",
        value_field: str = "doc",
        attempts: int = ATTEMPTS,
        under_way: int = BATCHES_UNDER_WAY,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.stored = 0
        self.failed = 0
        self.skipped = 0
        self.lines_done = 0
        self._lines = lines
        self._post = post
        self._progress = progress
        self._on_failure = on_failure
        self._on_batch = on_batch
        self._clock = clock
        self._fields = (key_field, value_field)
        self._attempts = attempts
        self._under_way = under_way
        self._jitter = jitter
        self._order: deque[_Batch] = deque()
        self._next_line: Line | None = None
        self._last_read = 0
        self._finished_batches = 0
        self._stopped = False

    async def run(self) -> None:
        """Send everything; afterwards ``stored``, ``failed`` and ``skipped`` count lines.

        :raises LoadError: the load cannot continue; the progress is noted.
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
        # While one batch is stuck, the others may only run ahead so far: progress is a prefix of the file.
        too_far = len(self._order) > 16 * self._under_way
        for one in earlier:
            if too_far or not one.documents.isdisjoint(batch.documents):
                await one.wait()

    def _take(self) -> _Batch | None:
        """Return the next batch, registered in order; ``None`` at the end of the file."""
        batch = _Batch()
        while (line := self._next_line or self._read()) is not None:
            if batch.lines and not batch.has_room_for(line):
                self._next_line = line
                batch.last_line = line.number - 1
                break
            self._next_line = None
            batch.add(line)
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
                return read_line(number, data, *self._fields)
            except LineError as error:
                self._fail(number, "", "InvalidLine", str(error))
        return None

    def _fail(self, number: int, key: str, code: str, message: str) -> None:
        self.failed += 1
        self._on_failure(number, key, code, message)

    async def _send(self, batch: _Batch) -> None:
        """Send one batch until each line is stored or finally refused."""
        remaining = batch.lines
        latest: dict[int, Answer] = {}
        trouble = ""
        for attempt in range(self._attempts):
            if attempt:
                await deferLater(self._clock, self._pause_seconds(attempt))
            try:
                status, body = await self._post(b"\n".join(line.operation for line in remaining) + b"\n")
            except LOST as error:
                trouble = _lost(error)
                continue
            if status in TRANSIENT_HTTP:
                trouble = _refusal(status, body)
                continue
            if status != 200:
                raise LoadError(_refusal(status, body))
            answers = read_answers(body)
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

    def _pause_seconds(self, attempt: int) -> float:
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        return pause * (0.5 + 0.5 * self._jitter())


async def _all(workers: list[Deferred[None]]) -> None:
    """Wait for every worker; then raise the error of the first that failed."""
    failures: list[Any] = []
    for worker in workers:
        worker.addErrback(failures.append)
    await gatherResults(workers)
    if failures:
        failures[0].raiseException()


def read_answers(body: bytes) -> list[Answer]:
    """Return the answers of one batch, in the order of its lines.

    :raises LoadError: they are not a gateway's answers.
    """
    answers = []
    for text in body.splitlines():
        try:
            decoded = json.loads(text)
            if decoded["status"] < 300:
                answers.append(Answer(True, "", "", False))
                continue
            error = decoded["error"]
            transient = error.get("retry") != "never"
            answers.append(Answer(False, str(error["code"]), str(error["message"]), transient))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise LoadError(f"not the answer of a gateway's batch: {text[:200]!r}") from None
    return answers


def _refusal(status: int, body: bytes) -> str:
    try:
        decoded = json.loads(body)
        return f"the gateway answered {status} {decoded['code']}: {decoded['message']}"
    except (ValueError, KeyError, TypeError):
        return f"the gateway answered {status}: {body[:200].decode('utf-8', 'replace')}"


def _lost(error: BaseException) -> str:
    reasons = getattr(error, "reasons", None)  # ResponseFailed and similar errors wrap the cause
    return f"the gateway cannot be reached: {reasons[0].value if reasons else error}"


def _poster(options: argparse.Namespace, reactor: Any) -> Post:
    """Return a function that sends batches to the gateway over a few persistent connections."""
    path = f"/v1/buckets/{quote(options.bucket, safe='')}"
    if place_of(options):
        path += f"/scopes/{quote(options.scope, safe='')}/collections/{quote(options.collection, safe='')}"
    url = f"{options.url.rstrip('/')}{path}/batch"
    auth = (options.user, password_of(options.password_file)) if options.user is not None else None
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = BATCHES_UNDER_WAY

    async def post(body: bytes) -> tuple[int, bytes]:
        response = await treq.post(
            url,
            data=body,
            headers=NDJSON,
            auth=auth,
            pool=pool,
            timeout=REQUEST_SECONDS,
            reactor=reactor,
        )
        return response.code, await treq.content(response)

    return post


async def _load(options: argparse.Namespace, reactor: IReactor) -> int:
    source = Source(options.file)
    identity = {"bytes": source.size_bytes, "bucket": options.bucket, "url": options.url, **place_of(options)}
    note = options.resume or options.file.with_name(options.file.name + ".progress")
    progress = Progress(note, identity)
    if options.restart:
        progress.forget()
    # disable=None: the bar is for terminals only.
    bar = tqdm(total=source.size_bytes, unit="B", unit_scale=True, disable=None, file=sys.stderr)

    def report(number: int, key: str, code: str, message: str) -> None:
        name = f"{key}: " if key else ""
        tqdm.write(f"{options.file}:{number}: {name}{code}: {message}", file=sys.stderr)

    def advance() -> None:
        bar.set_postfix_str(f"{loader.stored} stored, {loader.failed} failed", refresh=False)
        bar.update(source.position_bytes() - bar.n)

    loader = Loader(
        source.lines(),
        _poster(options, reactor),
        progress,
        report,
        reactor,
        on_batch=advance,
        key_field=options.key_field,
        value_field=options.value_field,
    )
    interruption = reactor.addSystemEventTrigger("before", "shutdown", loader.save)
    started = reactor.seconds()
    try:
        await loader.run()
    finally:
        # The run has ended by now: the note was written or removed.
        reactor.removeSystemEventTrigger(interruption)
        bar.close()
        source.close()
    seconds = max(reactor.seconds() - started, 1e-6)
    before = f", {loader.skipped} done before" if loader.skipped else ""
    print(
        f"{loader.stored} stored, {loader.failed} failed{before}"
        f" ({seconds:.2f} s, {loader.stored / seconds:.0f} documents a second)"
    )
    return EXIT_SOME_FAILED if loader.failed else 0


def main(argv: list[str] | None = None) -> None:
    """Run the command and exit with its status.

    :param argv: the arguments; ``None`` takes those of the process.
    """
    options = parse_arguments(argv)
    from twisted.internet import reactor as installed

    reactor: Any = installed
    outcome = EXIT_INTERRUPTED

    async def run() -> None:
        nonlocal outcome
        try:
            outcome = await _load(options, reactor)
        except LoadError as error:
            print(f"couchgateway-load: {error}", file=sys.stderr)
            outcome = EXIT_STOPPED
        finally:
            if reactor.running:
                reactor.stop()

    reactor.callWhenRunning(lambda: ensureDeferred(run()))
    reactor.run()
    if outcome == EXIT_INTERRUPTED:
        print("couchgateway-load: interrupted; the same command resumes", file=sys.stderr)
    sys.exit(outcome)
