"""The supervisor's side of one worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import InvalidLogLevelError, Logger, LogLevel
from twisted.python.failure import Failure

from gateway.metricvalues import MetricValues
from gateway.workers.messages import ChannelError, Message, MessageReader, encode
from gateway.workers.process import CHANNEL_IN, CHANNEL_OUT, COUNTS, FIRST_SOCKET
from reactor import children
from reactor.kinds import IReactor

__all__ = ["START_SECONDS", "Child", "WorkerFailed"]

START_SECONDS = 60.0
"""Timeout in seconds for a worker to become ready; after it the worker is killed."""

_LONGEST_LINE = 2000


class WorkerFailed(Exception):
    """A worker ended before it was ready; the text says why.

    :ivar by_itself: whether it ended by its own decision; else it was killed.
    """

    def __init__(self, reason: str, *, by_itself: bool) -> None:
        super().__init__(reason)
        self.by_itself = by_itself


class Child(ProcessProtocol):
    """A worker's process, and the supervisor's end of the channel to it.

    :param number: the worker's number in the log, 1 to N. Its replacement has the same number.
    :param gather: called with this object and a number when the worker asks for the totals of all workers;
        send them with :meth:`send_total`.

    :ivar ready: fires when it accepts connections; fails with :class:`WorkerFailed`.
    :ivar closed: fires when it no longer accepts connections, for any reason.
    :ivar ended: fires when the process has ended, with a text that says how.
    :ivar metrics: the metrics that it sent last.
    """

    log = Logger()

    def __init__(self, number: int, reactor: IReactor, gather: Callable[[Child, int], None]) -> None:
        self.number = number
        self.started_at = reactor.seconds()
        self.ready: Deferred[None] = Deferred()
        self.closed: Deferred[None] = Deferred()
        self.ended: Deferred[str] = Deferred()
        self.is_ready = False
        self.metrics = MetricValues()
        self._reactor = reactor
        self._gather = gather
        self._reader = MessageReader()
        self._asking: list[Deferred[None]] = []
        self._reason = ""
        self._rest = {1: b"", 2: b""}
        self._late: Any = None

    def spawn(
        self, counts: int, sockets: Sequence[int], copies: Sequence[int] = (), **settings: object
    ) -> None:
        """Start the process.

        :param counts: descriptor of the memory of :class:`ConnectionCounts`.
        :param sockets: descriptors of the listening sockets, which it inherits.
        :param copies: descriptors of the copies of files, likewise.
        :param settings: members of the message ``serve``.
        :raises OSError: the process cannot be started.
        """
        descriptors: dict[int, Any] = {1: "r", 2: "r", CHANNEL_IN: "w", CHANNEL_OUT: "r", COUNTS: counts}
        inherited = range(FIRST_SOCKET, FIRST_SOCKET + len(sockets))
        descriptors.update(zip(inherited, sockets, strict=True))
        copied = range(inherited.stop, inherited.stop + len(copies))
        descriptors.update(zip(copied, copies, strict=True))
        command = children.command(
            "gateway.workers.process", type(self._reactor).__module__, f"worker-{self.number}"
        )
        self._late = self._reactor.callLater(START_SECONDS, self._too_late)
        try:
            with open(os.devnull, "rb") as nothing:
                descriptors[0] = nothing.fileno()
                self._reactor.spawnProcess(
                    self, command[0], command, env=children.environment(), childFDs=descriptors
                )
        except BaseException:
            self._late.cancel()
            raise
        self.send("serve", counts=COUNTS, sockets=list(inherited), copies=list(copied), **settings)

    @property
    def pid(self) -> int | None:
        """The process's id; ``None`` if it has ended."""
        return getattr(self.transport, "pid", None)

    def send(self, kind: str, **members: object) -> None:
        """Send a message; dropped if the process is gone."""
        transport: Any = self.transport
        if transport is not None and CHANNEL_IN in transport.pipes:
            transport.writeToChild(CHANNEL_IN, encode(kind, **members))

    def send_total(self, number: int, total: MetricValues) -> None:
        """Answer a worker that asked for the totals."""
        self.send("total", id=number, metrics=total.to_json())

    def ask_metrics(self) -> Deferred[None]:
        """Ask the worker for its metrics; fires when :attr:`metrics` is up to date, or the process is
        gone."""
        if not self.is_ready:
            return succeed(None)  # the worker has counted nothing yet
        asked: Deferred[None] = Deferred()
        self._asking.append(asked)
        if len(self._asking) == 1:  # else an answer to an earlier question is still expected
            self.send("ask")
        return asked

    def kill(self) -> None:
        """End the process at once."""
        if self.transport is not None:
            try:
                self.transport.signalProcess("KILL")
            except ProcessExitedAlready:
                pass  # the expected end

    def _too_late(self) -> None:
        self._reason = f"it was not ready in {START_SECONDS:g} seconds"
        self.kill()

    # ---- ProcessProtocol -------------------------------------------------------------------------

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Take messages and printed text."""
        if childFD != CHANNEL_OUT:
            self._printed(childFD, data)
            return
        try:
            for message in self._reader.receive(data):
                self._received(message)
        except (ChannelError, KeyError, TypeError, ValueError) as error:
            self._reason = f"it sent something other than a worker's messages: {error}"
            self.kill()

    def processEnded(self, reason: Failure) -> None:
        """Fire everything that waits for the process."""
        if self._late.active():
            self._late.cancel()
        how: Any = reason.value
        signal = getattr(how, "signal", None)
        status = getattr(how, "exitCode", 0)
        text = f"killed by signal {signal}" if signal is not None else f"exit status {status}"
        if self._reason:
            text = f"{self._reason} ({text})"
        self.transport = None
        if not self.is_ready:
            self.ready.errback(WorkerFailed(text, by_itself=signal is None))
        self.is_ready = False
        self._fire_asking()
        if not self.closed.called:
            self.closed.callback(None)
        self.ended.callback(text)

    # ---- its messages ----------------------------------------------------------------------------

    def _received(self, message: Message) -> None:
        kind = message["type"]
        if kind == "metrics":
            self.metrics = MetricValues.from_json(message["metrics"])
            if message.get("asked"):
                self._fire_asking()
        elif kind == "log":
            self._log(message)
        elif kind == "gather":
            self._gather(self, int(message["id"]))
        elif kind == "ready":
            self._late.cancel()
            self.is_ready = True
            self.ready.callback(None)
        elif kind == "failed":
            self._reason = str(message["reason"])
        elif kind == "closed":
            if not self.closed.called:
                self.closed.callback(None)
        else:
            raise ChannelError(f"an unknown message: {kind[:100]!r}")

    def _fire_asking(self) -> None:
        asking, self._asking = self._asking, []
        for asked in asking:
            asked.callback(None)

    def _log(self, message: Message) -> None:
        try:
            level = LogLevel.levelWithName(message["level"])
        except InvalidLogLevelError:
            level = LogLevel.info
        more: dict[str, Any] = {}
        if message.get("is_alone") is True:
            more.update(is_alone=True, line=str(message["text"]))
        elif isinstance(message.get("parts"), dict):
            more["parts"] = {"message": "", **message["parts"]}
        Logger(namespace=str(message["namespace"])).emit(
            level, "worker {worker}: {text}", worker=self.number, text=message["text"], **more
        )

    def _printed(self, childFD: int, data: bytes) -> None:
        """Log unexpected output, such as a crash of the interpreter."""
        *lines, rest = (self._rest[childFD] + data).split(b"\n")
        self._rest[childFD] = rest[-_LONGEST_LINE:]
        for line in lines:
            text = line[:_LONGEST_LINE].decode("utf-8", "replace")
            self.log.warn("worker {worker} printed: {text}", worker=self.number, text=text)
