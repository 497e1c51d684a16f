"""The service tree that ``twistd couchgateway`` runs.

This is the only module of the gateway that uses the embedded node.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from secrets import token_urlsafe
from typing import Any, cast

from twisted.application.service import IService
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from couchnode.embedded import EmbeddedNode
from couchnode.service import EXPECTED_ERRORS, end_process, end_with_failure
from gateway.cluster.readiness import Watch
from gateway.commandline import Options
from gateway.descriptors import shortage
from gateway.interfaces import IGatewayPlugin
from gateway.listeners import CannotStartError, give_up
from gateway.server import (
    ClusterLog,
    GatewayServer,
    forget_what_stays,
    log_no_start,
    log_ready,
    plugins_for,
    url_of,
)
from gateway.settings import Settings, user_data_folder
from gateway.shutdowndelay import ShutdownDelay
from gateway.workers.handover import read_settings, settings_for_worker
from gateway.workers.reload import reread
from gateway.workers.supervisor import Supervisor
from reactor.clock import use_monotonic_clock
from reactor.descriptors import raise_limit
from reactor.hangup import HangUp
from reactor.kinds import IReactor
from reactor.shutdown import stop_once
from reactor.standardoutput import LogsItself

_REACTOR = cast(IReactor, global_reactor)

__all__ = ["GatewayService", "Options", "makeService"]

DEFAULT_ADMINISTRATOR = "Administrator"


def makeService(options: Options) -> IService:
    """Return the service for a parsed command line."""
    settings = options.settings
    assert settings is not None
    reactor = _REACTOR
    use_monotonic_clock(reactor)
    stop_once(reactor)
    limit = raise_limit()
    if options.log_file is not None:
        options.log_file.reopen_on_signal(reactor)
    hangup = HangUp(reactor)
    delay = ShutdownDelay(reactor, settings.shutdown_delay, watch_signals=True)
    if settings.workers is None:
        service = GatewayService(
            settings,
            plugins_for(settings),
            on_failure=end_process,
            hangup=hangup,
            delay=delay,
            on_loss=end_with_failure,
        )
        service.log_observer = options.log_observer
        service.started.addCallback(lambda _: forget_what_stays())
        _warn_of_shortage(settings, limit)
        return service
    share = read_settings(settings_for_worker(settings))
    _warn_of_shortage(share, limit, settings.workers)
    settings = with_account(settings)
    supervisor = Supervisor(
        settings,
        Embedded(settings, end_with_failure) if settings.cluster is None else None,
        on_failure=end_process,
        hangup=hangup,
        delay=delay,
        reread=lambda running: reread(options.given(), os.environ, running),
    )
    supervisor.log_observer = options.log_observer
    return supervisor


def _warn_of_shortage(settings: Settings, limit: int | None, processes: int = 1) -> None:
    text = shortage(settings, limit, processes)
    if text is not None:
        GatewayService.log.warn("{text}", text=text)


def with_account(settings: Settings) -> Settings:
    """Return settings with an administrator and a bucket password for the embedded node, if one will be
    started.

    The generated passwords never leave the process: unless a password is given, no other program on this
    machine can use the node.
    """
    if settings.cluster is not None:
        return settings
    if settings.bucket_password is None:
        settings = replace(settings, bucket_password=token_urlsafe(24))
    if settings.user is None:
        settings = replace(settings, user=DEFAULT_ADMINISTRATOR, password=token_urlsafe(24))
    return settings


def make_node(settings: Settings) -> EmbeddedNode:
    """Return the embedded node, not started; see :func:`with_account`."""
    assert settings.user is not None and settings.password is not None
    default = user_data_folder()
    if default is not None and settings.data == str(default):
        # A new account may lack the parent folder of the default path, so it is created; a missing parent of
        # a given path is probably a typing error, which the node refuses.
        default.parent.mkdir(parents=True, exist_ok=True)
    return EmbeddedNode(
        settings.data,
        nodes=settings.nodes,
        replicas=settings.replicas,
        users=[(settings.user, settings.password)],
        buckets=[(settings.bucket, settings.bucket_password)],
        rest_port=settings.node_rest_port,
        kv_port=settings.node_kv_port,
        sample=settings.sample,
        option_prefix="--node-",
    )


class Embedded:
    """The embedded node of a gateway, created when the gateway starts.

    :param on_loss: called at the stop if changes could not be written to disk.
    """

    log = Logger()

    def __init__(self, settings: Settings, on_loss: Callable[[], None] | None = None) -> None:
        self._settings = settings
        self._on_loss = on_loss
        self.node: EmbeddedNode | None = None
        """The node, from the start to the stop."""

    @inlineCallbacks
    def start(self) -> Any:
        """Start the node; fires with the connection string, or fails with the reason."""
        try:
            node = self.node = make_node(self._settings)
            yield node.start()
        except (*EXPECTED_ERRORS, OSError) as error:
            raise CannotStartError(f"the embedded node: {error}") from error
        self.log.info(
            "embedded node: {cluster}, REST {urls}, data in {data}",
            cluster=node.connection_string,
            urls=" ".join(node.rest_urls),
            data=self._settings.data or "memory",
        )
        return node.connection_string

    def hindrance(self) -> str | None:
        """The reason why documents cannot be stored; ``None`` if they can."""
        return None if self.node is None else self.node.persistence_problem

    @inlineCallbacks
    def stop(self) -> Any:
        """Stop the node; fires when its data is flushed."""
        node, self.node = self.node, None
        if node is not None:
            yield node.stop()
            if not node.closed_cleanly and self._on_loss is not None:
                self._on_loss()


class GatewayService(LogsItself, GatewayServer):
    """A gateway in this process, with its embedded node if it has one.

    :param settings: checked settings.
    :param plugins: attached in this order.
    :param on_failure: called if the embedded node cannot start.
    :param hangup: watched for SIGHUP while the service runs.
    :param delay: the wait before the stop; ``None`` for one that no signal ends.
    :param on_loss: called at the stop if changes of the embedded node could not be written to disk.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        plugins: Iterable[IGatewayPlugin] = (),
        reactor: IReactor = _REACTOR,
        on_failure: Callable[[], None] | None = None,
        hangup: HangUp | None = None,
        delay: ShutdownDelay | None = None,
        on_loss: Callable[[], None] | None = None,
    ) -> None:
        settings = with_account(settings)
        super().__init__(settings, plugins, reactor)
        self.setName("couchgateway")
        self._on_failure = on_failure
        self._hangup = hangup
        self._delay = delay or ShutdownDelay(reactor, settings.shutdown_delay)
        self._embedded = Embedded(settings, on_loss) if settings.cluster is None else None
        self._watch: Watch | None = None
        self._has_failed = False
        self.urls: list[str] = []
        """The addresses that the gateway listens on, once it listens."""
        self.started: Deferred[None] = Deferred()
        """Fires when documents can be served; fails if the embedded node cannot start."""
        self.started.addErrback(lambda failure: None)

    def _listens(self, port: IListeningPort, description: str) -> None:
        super()._listens(port, description)
        self.urls.append(url_of(port.getHost(), description))

    def privilegedStartService(self) -> None:
        """Listen.

        :raises CannotStartError: it cannot listen; the error is logged if twistd starts the service.
        """
        try:
            super().privilegedStartService()
        except CannotStartError as error:
            if self._on_failure is None:
                raise
            give_up(self.log, error)

    def startService(self) -> None:
        """Start the embedded node, if there is one."""
        super().startService()
        if self._hangup is not None:
            self._hangup.start(self._reload)
        if self._embedded is None:
            self.started.callback(None)
            changed = ClusterLog(self.log, self._settings, self.urls)
            self._watch = Watch(self._reactor, self.readiness, changed)
            self._watch.start()
            return
        starting: Deferred[Any] = maybeDeferred(self._embedded.start)
        starting.addCallbacks(self._has_cluster, self._node_failed)

    def _has_cluster(self, connection_string: str) -> None:
        assert self._embedded is not None
        self.use_cluster(connection_string, self._embedded.hindrance)
        self.started.callback(None)
        log_ready(self.log, self._settings, self.urls)

    def _node_failed(self, failure: Failure) -> None:
        log_no_start(self.log, failure)
        self._has_failed = True
        self.started.errback(failure)
        if self._on_failure is not None and self.running:
            self._on_failure()

    def _reload(self) -> None:
        self.log.warn(
            "SIGHUP: settings take effect only at start; a gateway with --workers would apply new ones"
        )

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop listening, let running requests finish, then flush the embedded node."""
        if self._delay.seconds and not self._has_failed:
            self.leave()
            yield self._delay.wait()
        if self._watch is not None:
            self._watch.stop()
        yield super().stopService()
        if self._embedded is not None:
            yield self._embedded.stop()
        if self._hangup is not None:
            self._hangup.stop()
