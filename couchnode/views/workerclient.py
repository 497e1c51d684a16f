"""The node's side of the view worker: the process, started when it is first needed, and connections to it."""

from __future__ import annotations

import marshal
import os
import shutil
import struct
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ProcessDone
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

_LENGTH = struct.Struct("!I")

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Longest frame that is believed; a batch of the largest documents fits."""

STARTING_SECONDS = 30.0
STOPPING_SECONDS = 3.0


class WorkerError(Exception):
    """The view worker could not be reached, ended in the middle, or refused; the text says which."""


class WorkerConnection(Protocol):
    """One activity at the worker: questions with answers in order, and at the end perhaps a stream of bytes.

    :ivar pending: questions without an answer yet.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiting: deque[Deferred[Any]] = deque()
        self._on_data: Callable[[bytes | None], None] | None = None
        self._lost = False
        self._paused = False
        self._delivering = False

    @property
    def pending(self) -> int:
        """Number of questions that have no answer yet."""
        return len(self._waiting)

    def ask(self, request: tuple[str, Any]) -> Deferred[Any]:
        """Send a control frame; fires with the answer's second part if its first is ``ok``.

        Fails with :class:`WorkerError` if the answer is an error, or none comes any more.
        """
        answer: Deferred[Any] = self.ask_anything(request)

        def checked(reply: tuple[str, Any]) -> Any:
            if reply[0] != "ok":
                raise WorkerError(str(reply[1]))
            return reply[1]

        return answer.addCallback(checked)

    def ask_anything(self, request: tuple[str, Any]) -> Deferred[Any]:
        """Send a control frame; fires with the whole answer, whatever it is."""
        answer: Deferred[Any] = Deferred()
        if self._lost:
            answer.errback(WorkerError("the connection to the view worker is gone"))
            return answer
        body = marshal.dumps(request)
        assert self.transport is not None
        self.transport.write(_LENGTH.pack(len(body)) + body)
        self._waiting.append(answer)
        return answer

    def receive(self, on_data: Callable[[bytes | None], None]) -> None:
        """Hand data frames to ``on_data`` from now: ``b""`` is the good end, ``None`` a cut."""
        self._on_data = on_data
        self._deliver()
        if self._lost:
            on_data(None)

    def pause(self) -> None:
        """Read no more for now; the worker then waits."""
        self._paused = True
        if not self._lost:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if not self._lost:
            self.transport.resumeProducing()  # type: ignore[union-attr]
            self._deliver()

    def close(self) -> None:
        """End the activity, whatever state it is in."""
        self._on_data = None
        if not self._lost:
            self.transport.abortConnection()  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Take frames."""
        self._buffer += data
        self._deliver()

    def connectionLost(self, reason: Failure = Failure(ProcessDone(0))) -> None:  # noqa: B008
        """Fail whoever waits."""
        self._lost = True
        while self._waiting:
            self._waiting.popleft().errback(WorkerError("the view worker ended in the middle of its work"))
        if self._on_data is not None:
            on_data, self._on_data = self._on_data, None
            on_data(None)

    def _deliver(self) -> None:
        if self._delivering:
            return  # a receiver that resumes from within: the loop below goes on by itself
        self._delivering = True
        buffer = self._buffer
        at = 0
        try:
            while len(buffer) - at >= 4 and not self._paused:
                if not self._waiting and self._on_data is None:
                    break
                (length,) = _LENGTH.unpack_from(buffer, at)
                if length > MAX_FRAME_BYTES:
                    self.close()
                    return
                if len(buffer) - at - 4 < length:
                    break
                body = bytes(buffer[at + 4 : at + 4 + length])
                at += 4 + length
                if self._waiting:
                    self._waiting.popleft().callback(marshal.loads(body))
                elif self._on_data is not None:
                    on_data = self._on_data
                    if not body:
                        self._on_data = None
                    on_data(body)
        finally:
            self._delivering = False
            del buffer[:at]


class _Process(ProcessProtocol):
    def __init__(self, ended: Callable[[], None], log: Logger) -> None:
        self.ready: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._ended = ended
        self._log = log
        self._out = b""
        self._errors = b""

    def outReceived(self, data: bytes) -> None:
        self._out += data
        if b"\n" in self._out and not self.ready.called:
            self.ready.callback(None)

    def errReceived(self, data: bytes) -> None:
        *lines, rest = (self._errors + data).split(b"\n")
        self._errors = rest[-10_000:]
        for line in lines:
            self._log.warn("view worker: {line}", line=line.decode("utf-8", "replace"))

    def processEnded(self, reason: Failure) -> None:
        self._ended()
        if not self.ready.called:
            self.ready.errback(WorkerError(f"the view worker did not start: {reason.value}"))
        self.gone.callback(None)


class Worker:
    """The worker process of one cluster. It is started by the first :meth:`connect`, and again if it ended.

    :param limits: extra arguments for the process, ``name=value`` of its limits.
    """

    def __init__(self, limits: tuple[str, ...] = ()) -> None:
        self._limits = limits
        self._log = Logger()
        self._folder: Path | None = None
        self._process: _Process | None = None
        self._starts = 0
        self._connections: set[WorkerConnection] = set()

    @property
    def pid(self) -> int | None:
        """Process id of the worker, ``None`` while there is none."""
        transport: Any = self._process.transport if self._process is not None else None
        return None if transport is None else transport.pid

    async def connect(self) -> WorkerConnection:
        """Return a connection for one activity; close it when done.

        :raises WorkerError: the process does not start, or does not answer.
        """
        from twisted.internet import reactor

        path = await self._running()
        endpoint = UNIXClientEndpoint(reactor, str(path), timeout=int(STARTING_SECONDS))
        try:
            return await endpoint.connect(Factory.forProtocol(WorkerConnection))
        except ConnectError as fault:
            raise WorkerError(f"the view worker cannot be reached: {fault}") from fault

    async def stop(self) -> None:
        """End the process; fires when it is gone and its files are."""
        from twisted.internet import reactor

        process, self._process = self._process, None
        if process is not None and not process.gone.called:
            transport: Any = process.transport
            transport.closeStdin()
            kill = reactor.callLater(STOPPING_SECONDS, _kill, transport)
            await _also(process.gone)
            if kill.active():
                kill.cancel()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _running(self) -> Path:
        if self._folder is None:
            # Unix sockets have short names, and this one is nobody else's business.
            self._folder = Path(tempfile.mkdtemp(prefix="couchnode-"))
        if self._process is None:
            self._start(self._folder)
        process = self._process
        assert process is not None
        await _also(process.ready)
        return self._folder / f"{self._starts}"

    def _start(self, folder: Path) -> None:
        from twisted.internet import reactor

        self._starts += 1

        def ended() -> None:
            if self._process is process:
                self._process = None

        process = self._process = _Process(ended, self._log)
        path = os.pathsep.join(part for part in sys.path if part)
        reactor.spawnProcess(
            process,
            sys.executable,
            [sys.executable, "-m", "couchnode.views.worker", str(folder / f"{self._starts}"), *self._limits],
            env={**os.environ, "PYTHONPATH": path},
        )

        def late() -> None:
            if not process.ready.called:
                self._log.error("the view worker did not get ready in {seconds} s", seconds=STARTING_SECONDS)
                _kill(process.transport)

        timer = reactor.callLater(STARTING_SECONDS, late)

        def settled(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        process.ready.addBoth(settled)


def _kill(transport: Any) -> None:
    try:
        transport.signalProcess("KILL")
    except Exception:  # noqa: BLE001  # it has ended meanwhile
        pass


def _also(shared: Deferred[None]) -> Deferred[None]:
    """Return a Deferred that fires like ``shared``, which others wait for too."""
    if shared.called and not isinstance(shared.result, Failure):
        return succeed(None)
    mine: Deferred[None] = Deferred()

    def fired(result: Any) -> Any:
        if isinstance(result, Failure):
            mine.errback(Failure(result.value))
            return None
        mine.callback(None)
        return result

    shared.addBoth(fired)
    return mine
