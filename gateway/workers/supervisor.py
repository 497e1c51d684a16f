"""The process that binds the sockets, runs the embedded node, and supervises the workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from twisted.application.service import Service
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from gateway.cluster.readiness import Readiness, Watch, reach
from gateway.listeners import CannotStartError, give_up, listen_on
from gateway.metricvalues import MetricValues
from gateway.processes import add_process
from gateway.server import ClusterLog, log_no_start, log_ready, url_of
from gateway.settings import Settings
from gateway.shutdowndelay import ShutdownDelay
from gateway.workers.balance import ConnectionCounts
from gateway.workers.child import Child
from gateway.workers.fleet import MAX_DRAINING, Fleet
from gateway.workers.handover import settings_for_worker
from gateway.workers.lastvalid import LastValid
from gateway.workers.sockets import Binder
from reactor.hangup import HangUp
from reactor.kinds import IReactor
from reactor.standardoutput import LogsItself

__all__ = ["Supervisor"]

_REACTOR = cast(IReactor, global_reactor)

_LOOK_SECONDS = 1.0
"""Seconds between two checks of whether the embedded node can write to disk."""


class _Node(Protocol):
    def start(self) -> Deferred[str]:
        """Start the node; fires with the connection string."""

    def hindrance(self) -> str | None:
        """The reason why documents cannot be stored; ``None`` if they can."""

    def stop(self) -> Deferred[Any]:
        """Stop the node, and flush its data."""


class Supervisor(LogsItself, Service):
    """A gateway in several processes.

    :param settings: checked settings, with ``workers``.
    :param node: the embedded node, if there is one.
    :param on_failure: called when the service cannot start.
    :param hangup: watched for SIGHUP, which replaces the workers.
    :param delay: the wait before the stop; ``None`` for one that no signal ends.
    :param reread: current settings -> settings for new workers; raises UsageError if they are invalid.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        node: _Node | None,
        reactor: IReactor = _REACTOR,
        on_failure: Callable[[], None] | None = None,
        hangup: HangUp | None = None,
        delay: ShutdownDelay | None = None,
        reread: Callable[[Settings], Settings] | None = None,
    ) -> None:
        self.setName("couchgateway")
        self._settings = settings
        self._node = node
        self._reactor = reactor
        self._on_failure = on_failure
        self._hangup = hangup
        self._delay = delay or ShutdownDelay(reactor, settings.shutdown_delay)
        self._reread = reread or (lambda running: running)
        self._cluster = settings.cluster
        self._binder = Binder(reactor)
        self._counts: ConnectionCounts | None = None
        self._last_valid = LastValid(reactor)
        self.fleet = Fleet(reactor, settings.workers or 1, self._spawn, settings, self._give_up)
        self._is_rolling = False
        self._roll_is_wanted = False
        self._readiness: Readiness | None = None
        self._watch: Watch | None = None
        self._node_watch = LoopingCall(self._look_at_node)
        self._node_watch.clock = reactor
        self._told_reason: str | None = None
        self._has_failed = False
        self.urls: list[str] = []
        """The addresses that the gateway listens on, once it listens."""
        self.started: Deferred[None] = Deferred()
        """Fires when all workers serve documents; fails if the embedded node or the workers cannot start."""
        self.started.addErrback(lambda failure: None)

    # ---- life ------------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        """Bind all sockets.

        :raises CannotStartError: a socket cannot be bound; the error is logged if twistd starts the service.
        """
        super().privilegedStartService()
        try:
            self._bind()
        except CannotStartError as error:
            if self._on_failure is None:
                raise
            give_up(self.log, error)

    def _bind(self) -> None:
        for description in self._settings.listen:
            bound = listen_on(self._binder, description, ServerFactory())
            if not hasattr(bound, "result"):
                raise CannotStartError(
                    f"--listen: {description}: workers need an endpoint that opens its socket at once"
                )
            bound.addCallback(self._bound, description)

    def _bound(self, port: IListeningPort, description: str) -> None:
        self.urls.append(url_of(port.getHost(), description))

    def startService(self) -> None:
        """Start the workers, and the embedded node if there is one."""
        super().startService()
        if self._hangup is not None:
            self._hangup.start(self.reload)
        # Twistd starts services before it runs the reactor, which must run to notice that processes end.
        self._reactor.callWhenRunning(self._start)

    def _start(self) -> None:
        if not self.running:
            return
        # Draining workers accept no connections, but keep their slots until they end.
        try:
            self._counts = ConnectionCounts.make((MAX_DRAINING + 1) * len(self.fleet) + 1)
        except OSError as error:
            self._give_up(f"the memory that workers share: {error.strerror}")
            return
        self._last_valid.keep(self._settings)
        self.fleet.start()
        if self._node is None:
            self._has_cluster(None)
        else:
            starting: Deferred[Any] = maybeDeferred(self._node.start)
            starting.addCallbacks(self._has_cluster, self._node_failed)

    def _has_cluster(self, connection_string: str | None) -> None:
        if connection_string is not None:
            self._cluster = connection_string
            for worker in self.fleet:
                worker.send("cluster", cluster=connection_string)
        self.fleet.started.addCallback(self._is_up)

    def _is_up(self, _: object) -> None:
        if self.started.called:
            return
        self.started.callback(None)
        if self._node is not None:
            self._node_watch.start(_LOOK_SECONDS)
            log_ready(self.log, self._settings, self.urls)
        else:
            # The fleet has the most recent settings.
            readiness = self._readiness = Readiness(
                self._reactor, lambda: reach(self.fleet.settings, self._reactor)
            )
            changed = ClusterLog(self.log, self._settings, self.urls)
            self._watch = Watch(self._reactor, readiness, changed)
            self._watch.start()
        self._roll()

    def _look_at_node(self) -> None:
        """Notify the workers when the node can no longer write to disk, and when it can again."""
        assert self._node is not None
        reason = self._node.hindrance()
        # Sent repeatedly while the problem lasts: some workers may be new.
        if reason is not None or self._told_reason is not None:
            for worker in self.fleet:
                worker.send("hindrance", reason=reason)
        self._told_reason = reason

    def _node_failed(self, failure: Failure) -> None:
        log_no_start(self.log, failure)
        self._fail(failure)

    def _give_up(self, reason: str) -> None:
        self.log.critical("couchgateway cannot start: {reason}", reason=reason)
        self._fail(Failure(RuntimeError(reason)))

    def _fail(self, failure: Failure) -> None:
        if not self.started.called:
            self._has_failed = True
            self.started.errback(failure)
            if self._on_failure is not None and self.running:
                self._on_failure()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Take no new requests, let running ones finish, then flush the embedded node."""
        super().stopService()
        if self._delay.seconds and self.started.called and not self._has_failed:
            self.fleet.leave()
            yield self._delay.wait()
        if self._node_watch.running:
            self._node_watch.stop()
        if self._watch is not None and self._readiness is not None:
            self._watch.stop()
            self._readiness.close()
        yield self._binder.close()
        closed, ended = self.fleet.stop(self.fleet.settings.limits.grace_seconds)
        yield closed
        yield ended
        self._last_valid.close()
        if self._counts is not None:
            self._counts.close()
        if self._node is not None:
            yield self._node.stop()
        if self._hangup is not None:
            self._hangup.stop()

    # ---- workers ---------------------------------------------------------------------------------

    def _spawn(self, number: int, settings: Settings) -> Child:
        counts = self._counts
        assert counts is not None
        slot = counts.take()
        child = Child(number, self._reactor, self._gather)
        try:
            child.spawn(
                counts.descriptor,
                self._binder.descriptors,
                self._last_valid.descriptors,
                slot=slot,
                slots=counts.slots,
                settings=settings_for_worker(settings),
                cluster=self._cluster if self._node is not None else settings.cluster,
            )
        except OSError:
            counts.give_back(slot)
            raise
        child.ended.addCallback(_give_back, counts, slot)
        return child

    def _gather(self, child: Child, number: int) -> None:
        self.fleet.totals.gather().addCallback(self._send_total, child, number)

    def _send_total(self, total: MetricValues, child: Child, number: int) -> None:
        total.gauges["workers",] = [self.fleet.serving]
        # Totals of these metrics would hide that a single process has reached a limit.
        total.gauges.pop(("process",), None)
        add_process(total, "supervisor")
        for name, metrics in self.fleet.named_metrics():
            numbers = metrics.gauges.get(("process",))
            if numbers is not None:
                total.gauges["process", name] = numbers
        total.counters["worker_restarts",] = [self.fleet.restarts]
        child.send_total(number, total)

    # ---- SIGHUP ----------------------------------------------------------------------------------

    def reload(self) -> None:
        """Replace all workers by new ones with the current settings.

        Any number of calls during a replacement lead to one more replacement afterwards.
        """
        if not self.running:
            return
        self._roll_is_wanted = True
        if self.fleet.must_wait:
            self.log.info("SIGHUP: the workers are replaced afterwards; {why}", why=self.fleet.waiting_for())
        elif self._is_rolling or not self.started.called:
            self.log.info("SIGHUP: the workers are replaced as soon as all previous ones are ready")
        else:
            self._roll()

    def _roll(self) -> None:
        if self._roll_is_wanted:
            self._is_rolling = True
            self._roll_while_wanted().addErrback(self._roll_failed)

    @inlineCallbacks
    def _roll_while_wanted(self) -> Any:
        try:
            while self._roll_is_wanted and self.running:
                self._roll_is_wanted = False
                yield self._roll_once()
        finally:
            self._is_rolling = False

    @inlineCallbacks
    def _roll_once(self) -> Any:
        try:
            settings = self._reread(self.fleet.settings)
        except UsageError as error:
            self.log.error("SIGHUP: the workers keep their settings: {error}", error=error)
            return
        self.log.info("SIGHUP: replacing the workers")
        self._last_valid.keep(settings)
        are_replaced = yield self.fleet.roll(settings)
        if are_replaced:
            self.log.info("all workers are replaced")
        self._last_valid.keep_only(self.fleet.settings)

    def _roll_failed(self, failure: Failure) -> None:
        self.log.failure("replacing the workers", failure)


def _give_back(how: str, counts: ConnectionCounts, slot: int) -> str:
    counts.give_back(slot)
    return how
