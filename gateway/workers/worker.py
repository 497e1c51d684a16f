"""A worker: executes its supervisor's messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks, maybeDeferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import LogEvent, Logger, LogLevel, eventAsText
from twisted.python.failure import Failure

from gateway.access.files import Copies
from gateway.dialect.errors import Refusal
from gateway.interfaces import ISharedMetrics
from gateway.jsonlog import parts_of
from gateway.listeners import CannotStartError
from gateway.metricvalues import MetricValues
from gateway.processes import add_process
from gateway.server import GatewayServer, forget_what_stays, plugins_for
from gateway.workers.acceptor import Inherited
from gateway.workers.balance import Balancer, ConnectionCounts
from gateway.workers.handover import read_settings
from gateway.workers.messages import ChannelError, MessageReader, encode
from reactor.kinds import IReactor

__all__ = ["Worker"]

_REPORT_SECONDS = 1.0

_GATHER_SECONDS = 3.0

_LONGEST_LINE = 64 * 1024


class Worker(Protocol):
    """The worker's end of the channel, and its gateway.

    It stops when the channel closes, because then the supervisor is gone.

    :param quit: called once; ends the process. It must call :meth:`stop`, and wait for it.
    """

    log = Logger()

    def __init__(self, reactor: IReactor, quit: Callable[[], None]) -> None:
        self._reactor = reactor
        self._quit = quit
        self._quitting = False
        self._reader = MessageReader()
        self._server: GatewayServer | None = None
        self._sharing: list[Any] = []
        self._reports = LoopingCall(self._report)
        self._reports.clock = reactor
        self._reported: dict[str, Any] | None = None
        self._gathering: dict[int, Deferred[MetricValues]] = {}
        self._asked = 0
        self._is_congested = False
        self._left_out = 0
        self._logs_json = False
        self._stopped: Deferred[None] | None = None
        self.failed = False
        """Whether the worker could not serve."""
        self.gone: Deferred[None] = Deferred()
        """Fires when the channel is closed."""

    # ---- the channel -----------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Ask to be notified when the channel is full."""
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]

    def pauseProducing(self) -> None:
        """Drop log lines: the supervisor reads too slowly."""
        self._is_congested = True

    def resumeProducing(self) -> None:
        """Send log lines again: the supervisor has caught up."""
        self._is_congested = False
        if self._left_out:
            count, self._left_out = self._left_out, 0
            self.log.warn("{count} log lines were left out", count=count)

    def stopProducing(self) -> None:
        """Do nothing: the channel is gone, which :meth:`connectionLost` handles."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop: the supervisor is gone, or the stop is complete."""
        gathering, self._gathering = self._gathering, {}
        for waiting in gathering.values():
            waiting.errback(_no_sums())
        self.gone.callback(None)
        self.quit()

    def dataReceived(self, data: bytes) -> None:
        """Execute the supervisor's messages."""
        try:
            for message in self._reader.receive(data):
                getattr(self, f"_on_{message['type']}")(message)
        except (ChannelError, AttributeError, KeyError, TypeError, ValueError):
            self.log.failure("the supervisor violated the protocol")
            self.quit()

    def tell(self, kind: str, **members: object) -> None:
        """Send a message."""
        if not self.gone.called:
            self.transport.write(encode(kind, **members))  # type: ignore[union-attr]

    def observe(self, event: LogEvent) -> None:
        """Send a log event to the supervisor."""
        if self._is_congested:
            self._left_out += 1
            return
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        level = event.get("log_level", LogLevel.info).name
        namespace = str(event.get("log_namespace", "gateway.workers"))
        more: dict[str, Any] = {}
        if event.get("is_alone"):
            more["is_alone"] = True
        elif self._logs_json:
            more["parts"] = parts_of(event)
        self.tell("log", level=level, namespace=namespace, text=text[:_LONGEST_LINE], **more)

    # ---- the supervisor's messages ---------------------------------------------------------------

    def _on_serve(self, told: dict[str, Any]) -> None:
        try:
            copies = Copies()
            for descriptor in told.get("copies", ()):
                copies.add(Copies.of(descriptor))
            settings = read_settings(told["settings"])
            self._logs_json = settings.log_format == "json"
            plugins = plugins_for(settings)
            counts = ConnectionCounts(told["counts"], told["slots"])
            balancer = Balancer(counts, told["slot"], self._connections, self._reactor.seconds)
            inherited = Inherited(self._reactor, told["sockets"], balancer)
            server = self._server = GatewayServer(settings, plugins, self._reactor, inherited, copies)
            inherited.refusals = server.refusals
            self._sharing = [plugin for plugin in plugins if ISharedMetrics.providedBy(plugin)]
            for plugin in self._sharing:
                plugin.gather = self._gather
            if told["cluster"] is not None:
                server.use_cluster(told["cluster"])
            server.startService()
            server.privilegedStartService()
        except Exception as error:  # noqa: BLE001  # reported to the supervisor, whatever it is
            self.failed = True
            if not isinstance(error, CannotStartError):
                # Else the text says all, and the supervisor logs it.
                self.log.failure("the worker cannot serve")
            self.tell("failed", reason=str(error))
            self.quit()
            return
        self._reports.start(_REPORT_SECONDS)
        forget_what_stays()
        self.tell("ready")

    def _on_cluster(self, told: dict[str, Any]) -> None:
        if self._server is not None:
            self._server.use_cluster(told["cluster"])

    def _on_hindrance(self, told: dict[str, Any]) -> None:
        if self._server is not None:
            reason = told["reason"]
            self._server.hindrance = lambda: reason

    def _on_ask(self, told: dict[str, Any]) -> None:
        metrics = self._metrics()
        # Only at this point, because counting descriptors takes a while if there are many.
        add_process(metrics)
        self.tell("metrics", asked=True, metrics=metrics.to_json())

    def _on_total(self, told: dict[str, Any]) -> None:
        waiting = self._gathering.pop(told["id"], None)
        if waiting is not None:
            waiting.callback(MetricValues.from_json(told["metrics"]))

    def _on_drain(self, told: dict[str, Any]) -> None:
        if self._server is not None:
            self._drain(self._server).addErrback(self._broken)

    def _on_leave(self, told: dict[str, Any]) -> None:
        if self._server is not None:
            self._server.leave()

    def _on_stop(self, told: dict[str, Any]) -> None:
        self.quit()

    def _connections(self) -> int:
        return self._server.gateway.count_clients() if self._server is not None else 0

    # ---- metrics ---------------------------------------------------------------------------------

    def _metrics(self) -> MetricValues:
        metrics = MetricValues()
        for plugin in self._sharing:
            metrics.add(plugin.metrics())
        return metrics

    def _report(self) -> None:
        """Send the metrics periodically, so that little is lost if this process is killed."""
        metrics = self._metrics().to_json()
        if metrics != self._reported and not self._is_congested:
            self._reported = metrics
            self.tell("metrics", metrics=metrics)

    def _gather(self) -> Deferred[MetricValues]:
        """Return the totals over all workers, for the plugin that shows them."""
        if self.gone.called:
            return fail(_no_sums())
        self._asked += 1
        number = self._asked
        waiting: Deferred[MetricValues] = Deferred(lambda _: self._forget(number))
        self._gathering[number] = waiting
        self.tell("gather", id=number)
        return waiting.addTimeout(_GATHER_SECONDS, self._reactor, lambda *_: Failure(_no_sums()))

    def _forget(self, number: int) -> None:
        self._gathering.pop(number, None)

    # ---- the end ---------------------------------------------------------------------------------

    def grace_seconds(self) -> float:
        """Return the number of seconds for which requests may continue after the stop."""
        return self._server.gateway.limits.grace_seconds if self._server is not None else 0.0

    @inlineCallbacks
    def _drain(self, server: GatewayServer) -> Any:
        """Leave clients to other workers, and stop when all connections are closed."""
        yield server.stop_listening()
        # Logged first: the supervisor takes the message as the end of the replacement.
        self.log.info("replaced, with {count} connections left", count=self._connections())
        self.tell("closed")
        seconds = server.gateway.limits.drain_seconds
        timer = self._reactor.callLater(seconds, self.quit)
        drained = server.factory.drain()
        yield drained
        if timer.active():
            timer.cancel()
        self.quit()

    def quit(self) -> None:
        """End the process gracefully."""
        if not self._quitting:
            self._quitting = True
            self._quit()

    def stop(self) -> Deferred[None]:
        """Stop serving; fires when everything is done and reported."""
        self._quitting = True
        if self._stopped is None:
            self._stopped = Deferred()
            self._stop().addErrback(self._broken).chainDeferred(self._stopped)
        return self._stopped

    @inlineCallbacks
    def _stop(self) -> Any:
        server = self._server
        if server is not None:
            yield server.stop_listening(for_good=True)
            self.tell("closed")
            yield maybeDeferred(server.stopService)
        if self._reports.running:
            self._reports.stop()
        if not self.gone.called:
            self.tell("metrics", metrics=self._metrics().to_json())
            self.transport.unregisterProducer()  # type: ignore[union-attr]
            self.transport.loseConnection()  # type: ignore[union-attr]
            yield self.gone

    def _broken(self, failure: Failure) -> None:
        self.log.failure("the worker could not stop properly", failure)
        self.quit()


def _no_sums() -> Refusal:
    return Refusal("UnderlyingServiceUnavailable", "The metrics of the other workers are not available.")
