"""The node's side of the view worker: the process, started on first use, and connections to it."""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ProcessDone
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from reactor import children
from reactor.deferreds import own
from reactor.framing import FrameBuffer, FramingError, frame_of, value_in

STARTING_SECONDS = 30.0
STOPPING_SECONDS = 3.0

MAX_UPDATES = 8
"""Most updates at a time; there are fewer processors and sandboxes, so more would only use memory."""

_IDLE_CONNECTIONS = 8
"""Most connections that are kept for the next query: each is a thread of the worker."""

_LOGGED_LINES = 100
_LOGGED_SECONDS = 10.0


class WorkerError(Exception):
    """The view worker could not be reached, ended during a request, or refused it; the text says which."""


class WorkerGone(WorkerError):
    """The view worker ended, or cannot be reached; the next activity starts it again."""


class WorkerConnection(Protocol):
    """One activity at the worker: requests with answers in order, and possibly a final stream of bytes.

    :param keeper: keeps the connection between two queries.
    :ivar ended: fires when the activity is over.
    :ivar paused_since: when its stream was last paused (:func:`time.monotonic`), ``None`` while it flows.
    """

    def __init__(self, keeper: WorkerClient | None = None) -> None:
        self.ended: Deferred[None] = Deferred()
        self._keeper = keeper
        self.paused_since: float | None = None
        self._arrived = FrameBuffer()
        self._waiting: deque[Deferred[Any]] = deque()
        self._on_data: Callable[[bytes | None], None] | None = None
        self._lost = False
        self._paused = False
        self._delivering = False

    def ask(self, request: tuple[str, Any]) -> Deferred[Any]:
        """Send a control frame; fires with the answer's second part if its first is ``ok``.

        Fails with :class:`WorkerError` if the answer is an error, or none can come.
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
            answer.errback(WorkerGone("the connection to the view worker is gone"))
            return answer
        assert self.transport is not None
        self.transport.write(frame_of(request))
        self._waiting.append(answer)
        return answer

    def receive(self, on_data: Callable[[bytes | None], None]) -> None:
        """Pass data frames to ``on_data`` from now on: ``b""`` is a complete end, ``None`` a cut."""
        self._on_data = on_data
        self._deliver()
        if self._lost:
            self._tell_cut()

    def pause(self) -> None:
        """Stop reading for now; the worker then waits."""
        self._paused = True
        self.paused_since = monotonic()
        if not self._lost:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def resume(self) -> None:
        """Continue to read."""
        self._paused = False
        self.paused_since = None
        if not self._lost:
            self.transport.resumeProducing()  # type: ignore[union-attr]
            self._deliver()

    def cut(self) -> None:
        """End the activity as if the worker had, which notifies the receiver."""
        self._tell_cut()
        self.close()

    def finish(self) -> None:
        """End a query whose answer has arrived to its end; another may use the connection."""
        if self._lost or self._paused or self._waiting or len(self._arrived) or self._keeper is None:
            self.close()
            return
        ended, self.ended = self.ended, Deferred()
        self._keeper.keep(self)
        ended.callback(None)

    def close(self) -> None:
        """End the activity, in any state."""
        self._on_data = None
        if not self._lost:
            self.transport.abortConnection()  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Take frames."""
        self._arrived.feed(data)
        self._deliver()

    def connectionLost(self, reason: Failure = Failure(ProcessDone(0))) -> None:  # noqa: B008  # as in Twisted
        """Fail all waiting requests."""
        self._lost = True
        while self._waiting:
            self._waiting.popleft().errback(WorkerGone("the view worker ended in the middle of its work"))
        self._tell_cut()
        if self._keeper is not None:
            self._keeper.lost(self)
        self.ended.callback(None)

    def _tell_cut(self) -> None:
        if self._on_data is not None:
            on_data, self._on_data = self._on_data, None
            on_data(None)

    def _deliver(self) -> None:
        if self._delivering:
            return  # a receiver that resumes from inside: the loop below continues anyway
        self._delivering = True
        try:
            while not self._paused and (self._waiting or self._on_data is not None):
                body = self._arrived.take()
                if body is None:
                    break
                if self._waiting:
                    answer = value_in(body)
                    self._waiting.popleft().callback(answer)
                elif self._on_data is not None:
                    on_data = self._on_data
                    if not body:
                        self._on_data = None
                    on_data(body)
        except FramingError:
            self.cut()
        finally:
            self._delivering = False


class _Process(ProcessProtocol):
    def __init__(self, ended: Callable[[], None], log: Logger) -> None:
        self.ready: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._ended = ended
        self._log = log
        self._out = b""
        self._errors = b""
        self._logged_since = 0.0
        self._logged = 0

    def outReceived(self, data: bytes) -> None:
        self._out += data
        if b"\n" in self._out and not self.ready.called:
            self.ready.callback(None)

    def errReceived(self, data: bytes) -> None:
        *lines, rest = (self._errors + data).split(b"\n")
        self._errors = rest[-10_000:]
        for line in lines:
            self._note(line)

    def _note(self, line: bytes) -> None:
        """Log a line, unless there were many recently: a map function can cause one per document."""
        now = monotonic()
        if now - self._logged_since >= _LOGGED_SECONDS:
            if self._logged > _LOGGED_LINES:
                self._log.warn("view worker: {count} lines are left out", count=self._logged - _LOGGED_LINES)
            self._logged_since, self._logged = now, 0
        self._logged += 1
        if self._logged <= _LOGGED_LINES:
            self._log.warn("view worker: {line}", line=line[:2000].decode("utf-8", "replace"))

    def processExited(self, reason: Failure) -> None:
        # The end of its output may come later: sandboxes that are still ending share the pipe.
        self._ended()

    def processEnded(self, reason: Failure) -> None:
        if not self.ready.called:
            self.ready.errback(WorkerGone(f"the view worker did not start: {reason.value}"))
            self.ready.addErrback(lambda _: None)  # all waiting requests have failed
        self.gone.callback(None)


class WorkerClient:
    """The worker process of one cluster. The first :meth:`connect` starts it, and later ones restart it if it
    has ended.

    :param limits: extra arguments for the process, ``name=value`` of its limits.
    :ivar updates: held by each update.
    :ivar lives: number of processes that have ended.
    """

    def __init__(self, limits: tuple[str, ...] = ()) -> None:
        self._limits = limits
        self._log = Logger()
        self._folder: Path | None = None
        self._process: _Process | None = None
        self._starts = 0
        self._stopped = False
        self._idle: list[WorkerConnection] = []
        self.lives = 0
        self.updates = DeferredSemaphore(MAX_UPDATES)

    @property
    def pid(self) -> int | None:
        """Process id of the worker, ``None`` while there is none."""
        transport: Any = self._process.transport if self._process is not None else None
        return None if transport is None else transport.pid

    async def connect(self) -> WorkerConnection:
        """Return a connection for one activity; close it when done.

        :raises WorkerGone: the process cannot start, or does not answer.
        """
        from twisted.internet import reactor

        path = await self._running()
        endpoint = UNIXClientEndpoint(reactor, str(path), timeout=int(STARTING_SECONDS))
        factory = Factory.forProtocol(lambda: WorkerConnection(self))
        # Otherwise each query would log two lines.
        factory.noisy = False
        try:
            return await endpoint.connect(factory)
        except (ConnectError, OSError) as fault:
            raise WorkerGone(f"the view worker cannot be reached: {fault}") from fault

    async def query_connection(self) -> WorkerConnection:
        """Return a connection for one query, perhaps one that served another; close or finish it when done.

        :raises WorkerGone: as :meth:`connect`.
        """
        return self._idle.pop() if self._idle else await self.connect()

    def keep(self, connection: WorkerConnection) -> None:
        """Keep a connection for the next query."""
        if self._stopped or len(self._idle) >= _IDLE_CONNECTIONS:
            connection.close()
        else:
            self._idle.append(connection)

    def lost(self, connection: WorkerConnection) -> None:
        """Forget a connection that is gone."""
        if connection in self._idle:
            self._idle.remove(connection)

    async def stop(self) -> None:
        """End the process; fires when it and its files are gone. It is not started again."""
        from twisted.internet import reactor

        self._stopped = True
        self._close_idle()
        process, self._process = self._process, None
        if process is not None and not process.gone.called:
            transport: Any = process.transport
            transport.closeStdin()
            kill = reactor.callLater(STOPPING_SECONDS, _kill, transport)
            await own(process.gone)
            if kill.active():
                kill.cancel()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _running(self) -> Path:
        if self._stopped:
            raise WorkerGone("the node is stopping")
        if self._folder is None:
            # Paths of Unix sockets must be short, and this one must be private.
            self._folder = Path(tempfile.mkdtemp(prefix="couchnode-"))
        if self._process is None:
            self._start(self._folder)
        process = self._process
        if process is None:
            raise WorkerGone("the view worker ended as soon as it was started")
        await own(process.ready)
        return self._folder / f"{self._starts}"

    def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _start(self, folder: Path) -> None:
        from twisted.internet import reactor

        self._starts += 1

        def ended() -> None:
            self.lives += 1
            self._close_idle()
            if self._process is process:
                self._process = None

        process = self._process = _Process(ended, self._log)
        command = children.command("couchnode.views.worker", str(folder / f"{self._starts}"), *self._limits)
        try:
            reactor.spawnProcess(process, command[0], command, env=children.environment())
        except OSError as fault:
            self._process = None
            raise WorkerGone(f"the view worker cannot be started: {fault.strerror}") from fault

        def late() -> None:
            if not process.ready.called:
                self._log.error(
                    "the view worker was not ready in {seconds:g} s; it is killed", seconds=STARTING_SECONDS
                )
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
