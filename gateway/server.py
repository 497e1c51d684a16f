"""A gateway on its endpoints: the common part of a single process and of each worker."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterable
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from twisted.application.service import Service
from twisted.internet import reactor as global_reactor
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.tcp import Port as TCPPort
from twisted.logger import Logger
from twisted.plugin import getPlugins
from twisted.python.failure import Failure

import gateway.plugins
from couchbase.exceptions import AuthError, BucketNotFoundError
from gateway.access.files import Copies
from gateway.app import Gateway
from gateway.callers import Access
from gateway.clients.accesslog import AccessLog
from gateway.clients.cors import CorsRules
from gateway.clients.origins import Doors
from gateway.clients.proxies import TrustedProxies
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import BY_CERTIFICATE, ServiceAccount
from gateway.cluster.pool import ConnectionPool, NoAccessError
from gateway.cluster.readiness import Readiness, reach
from gateway.descriptors import RefusedConnections, room_for_clients
from gateway.dialect.errors import Refusal, describe
from gateway.endpoints import listen_address
from gateway.http.application import EndHook
from gateway.http.factory import ChannelFactory
from gateway.http2.server import HTTP2
from gateway.interfaces import IGatewayPlugin
from gateway.listeners import BACKLOG, CannotStartError, SharedPort, ignore_new, listen_on
from gateway.logs import GatheredLines, LogFile
from gateway.services.kinds import Policy
from gateway.settings import Settings
from reactor.descriptors import descriptor_limit
from reactor.gate import Gate
from reactor.kinds import IReactor
from reactor.ports import PortGuard

if TYPE_CHECKING:
    from gateway.tracing.export import Export

_REACTOR = cast(IReactor, global_reactor)

__all__ = [
    "ClusterLog",
    "GatewayServer",
    "forget_what_stays",
    "log_no_start",
    "log_ready",
    "plugins_for",
    "url_of",
]

_PROBE_KEY = b"couchgateway:ready"


def forget_what_stays() -> None:
    """Freeze the objects that live as long as the process: collections then scan only what requests allocate.

    Modules and similar objects are some hundred thousand such objects; a full collection that scans them
    delays all requests by tens of milliseconds. PyPy cannot freeze them, and collects in small steps.
    """
    gc.collect()
    if hasattr(gc, "freeze"):
        gc.freeze()


def plugins_for(settings: Settings) -> list[IGatewayPlugin]:
    """Return the installed plugins, without those left out by ``--without``."""
    found = getPlugins(IGatewayPlugin, gateway.plugins)
    return [plugin for plugin in found if plugin.name not in settings.without_plugin]


def _doors(settings: Settings) -> Doors:
    rules = CorsRules(
        methods=settings.cors_method,
        headers=settings.cors_header,
        exposed=settings.cors_expose,
        max_age=settings.cors_max_age,
        credentials=not settings.cors_without_credentials,
    )
    return Doors(
        is_open=settings.auth == "none",
        hosts=settings.allow_host,
        origins=settings.cors_origin,
        rules=rules,
    )


def url_of(address: Any, description: str) -> str:
    """Return the URL at which clients reach an endpoint.

    :param address: Twisted address of the listening socket.
    """
    if isinstance(address, UNIXAddress):
        return "unix:" + os.fsdecode(address.name or b"")
    scheme = "https" if listen_address(description).kind in ("ssl", "tls") else "http"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{scheme}://{host}:{address.port}"


def log_ready(log: Logger, settings: Settings, urls: list[str]) -> None:
    """Log that documents are served and where; on a terminal, also a command to try first."""
    for url in urls:
        log.info("couchgateway listens on {url}", url=url)
    served = settings.cluster
    if served is None:
        served = "data in " + (settings.data or "memory")
    log.info("Ready: {urls} ({served})", urls=" ".join(urls), served=served)
    first = next((url for url in urls if url.startswith("http")), None)
    if first is not None and sys.stdout is not None and sys.stdout.isatty():
        log.info(
            "try: curl{who} -X PUT -d '\"world\"' -H 'Content-Type: application/json' "
            "{url}/v1/buckets/{bucket}/documents/hello",
            who="" if settings.auth == "none" else " -u USER",
            url=first,
            bucket=settings.bucket,
        )


def log_no_start(log: Logger, failure: Failure) -> None:
    """Log why the embedded node cannot start; with a traceback only for unexpected errors."""
    if failure.check(CannotStartError):
        log.critical("couchgateway cannot start: {error}", error=failure.value)
    else:
        log.failure("couchgateway cannot start: the embedded node", failure)


class ClusterLog:
    """Logs one line when the cluster becomes usable, and one when it stops being usable; see
    :class:`gateway.cluster.readiness.Watch`."""

    def __init__(self, log: Logger, settings: Settings, urls: list[str]) -> None:
        self._log = log
        self._settings = settings
        self._urls = urls
        self._was_ready = False

    def __call__(self, reason: str | None) -> None:
        if reason is not None:
            self._log.warn("the cluster cannot be used: {reason}", reason=reason)
            return
        self._log.info("couchgateway serves {cluster}", cluster=self._settings.cluster)
        if not self._was_ready:
            self._was_ready = True
            log_ready(self._log, self._settings, self._urls)


class GatewayServer(Service):
    """A gateway on its endpoints; it serves a cluster as soon as it is given one.

    :param settings: checked settings; without a cluster among them, documents are refused until
        :meth:`use_cluster`. They must have a user and a password if ``auth`` is ``none``.
    :param plugins: attached in this order.
    :param listen_with: the reactor that endpoints listen with; ``reactor`` if ``None``.
    :param copies: see :class:`gateway.callers.Access`.
    """

    def __init__(
        self,
        settings: Settings,
        plugins: Iterable[IGatewayPlugin] = (),
        reactor: IReactor = _REACTOR,
        listen_with: object = None,
        copies: Copies | None = None,
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._listen_with = listen_with if listen_with is not None else reactor
        self._cluster = settings.cluster
        self._ports: list[IListeningPort] = []
        self._stopping = False
        self._access_lines: GatheredLines | None = None
        self._export: Export | None = None
        if settings.tracing:
            plugins = [*plugins, self._tracing(settings)]
        secret = token_bytes(32)
        self._account = None
        if settings.user is not None and settings.password is not None:
            self._account = ServiceAccount(settings.user, settings.password, secret)
        elif settings.cluster_cert is not None:
            self._account = ServiceAccount(BY_CERTIFICATE, "", secret)
        self.pool = ConnectionPool(
            self._connection,
            reactor,
            max_connections=settings.limits.max_connections,
            verify_seconds=settings.verify_seconds,
            is_hidden=self._is_hidden,
        )
        self.access = Access(
            settings,
            self._account,
            secret=secret,
            reactor=reactor,
            now=time.time,
            confirm=lambda caller: maybeDeferred(self.pool.connection, None, caller),
            copies=copies,
        )
        self.gateway = Gateway(
            self.access.authorizer,
            self.pool,
            reactor,
            now=time.time,
            limits=settings.limits,
            is_ready=self._is_ready,
            plugins=[*([] if self.access.limits is None else [self.access.limits]), *plugins],
            end_hooks=self._end_hooks(settings),
            quoted_etags=settings.quoted_etags,
            services=Policy.of(settings.proxy_service, settings.proxy_admin, settings.query),
            services_timeout=settings.services_timeout,
            guard=_doors(settings),
        )
        self.readiness = Readiness(reactor, self._probe)
        self.hindrance: Callable[[], str | None] | None = None
        """Returns the reason why documents cannot be served, if a probe cannot detect it; ``None`` if they
        can."""
        http2 = None if settings.no_http2 else HTTP2
        self.factory = ChannelFactory(self.gateway, reactor, Gate(reactor), http2)
        self.factory.max_clients = room_for_clients(settings, descriptor_limit())
        self.refusals = RefusedConnections(reactor)
        self.factory.on_refused = self._refused
        self.gateway.count_refused = self.refusals.counts.copy

    def _end_hooks(self, settings: Settings) -> list[EndHook]:
        if not settings.access_log:
            return []
        form = settings.access_log_format
        write = None
        if settings.access_log_file is not None:
            file = LogFile(settings.access_log_file)
            self._access_lines = GatheredLines(file, self._reactor)
            write = self._access_lines.write_line
        is_alone = form == "json" or (form == "combined" and settings.log_format == "text")
        trusted = TrustedProxies(settings.trusted_proxies)
        return [AccessLog(trusted, write, form, is_alone=is_alone).on_end]

    def _tracing(self, settings: Settings) -> IGatewayPlugin:
        # Only the extra otel installs the library that these need.
        from gateway.tracing.export import Export
        from gateway.tracing.spans import Tracing

        self._export = Export(self._reactor, os.environ)
        tracing: Any = Tracing(self._export.tracer, TrustedProxies(settings.trusted_proxies))
        return tracing

    # ---- life ------------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        """Listen; see :func:`gateway.listeners.listen_on` for what it raises."""
        super().privilegedStartService()
        for description in self._settings.listen:
            listening = listen_on(self._listen_with, description, self.factory, self._settings.client_ca)
            listening.addCallback(self._listens, description)

    def _listens(self, port: IListeningPort, description: str) -> None:
        self._ports.append(port)
        PortGuard(self._reactor, self.refusals.exhausted).attach(port)

    def _refused(self, clients: int) -> None:
        self.refusals.too_many(clients, self._settings.limits.max_clients)

    def startService(self) -> None:
        """Start the maintenance of connections to the cluster."""
        super().startService()
        self.pool.start()
        self.access.start()
        if self._export is not None:
            self._export.start()

    def use_cluster(self, connection_string: str, hindrance: Callable[[], str | None] | None = None) -> None:
        """Serve this cluster from now on.

        :param hindrance: see :attr:`hindrance`.
        """
        self._cluster = connection_string
        self.hindrance = hindrance

    def leave(self) -> None:
        """Announce the stop to load balancers, through ``/ready`` and by closing connections, but continue to
        serve."""
        self._stopping = True
        self.factory.leave()

    @inlineCallbacks
    def stop_listening(self, *, for_good: bool = False) -> Any:
        """Accept no new connections; fires when all listening sockets are closed.

        :param for_good: whether the service ends, so that no other worker takes connections in the backlog.
        """
        self._stopping = self._stopping or for_good
        ports, self._ports = self._ports, []
        for port in ports:
            if isinstance(port, TCPPort):
                ignore_new(port)
            self._take_waiting(port)
            # Twisted closes a port only in the next turn, and more connections may arrive until then.
            self._reactor.callLater(0, self._take_waiting, port)
            yield maybeDeferred(port.stopListening)

    def _take_waiting(self, port: IListeningPort) -> None:
        """Accept the connections in the backlog: closing the socket would reset them."""
        if isinstance(port, SharedPort):
            if self._stopping:
                port.take_waiting()
        elif isinstance(port, TCPPort):
            for _ in range(BACKLOG):
                before = len(self.factory.channels)
                port.doRead()
                if len(self.factory.channels) == before:
                    break

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop listening, and let running requests finish."""
        self._stopping = True
        super().stopService()
        yield self.stop_listening()
        yield self.factory.stop()
        self.readiness.close()
        self.access.stop()
        self.pool.close()
        if self._export is not None:
            yield self._export.stop()
        if self._access_lines is not None:
            self._access_lines.close()
            self._access_lines = None
        self.gateway.upstream.close()

    # ---- for the gateway -------------------------------------------------------------------------

    def _connection(self, bucket: str | None, user: str, password: str) -> GatewayConnection:
        if self._cluster is None:
            raise Refusal("UnderlyingServiceUnavailable", "The embedded node is starting.")
        settings = self._settings
        identity: dict[str, str | None] = {"username": user, "password": password}
        if user == BY_CERTIFICATE:
            identity = {"client_cert": settings.cluster_cert, "client_key": settings.cluster_key}
        connection = GatewayConnection(
            bucket=bucket,
            connection_string=self._cluster,
            certpath=settings.cluster_ca,
            timeout=settings.timeout,
            reactor=self._reactor,
            **identity,
        )
        connection.views_timeout = self._settings.views_timeout
        connection.design_timeout = self._settings.timeout
        return connection

    @inlineCallbacks
    def _is_hidden(self, bucket: str, user: str, password: str) -> Any:
        """Ask the cluster's management service whether the caller may know that a bucket exists (else 403,
        not 404)."""
        session = self._connection(None, user, password)
        try:
            yield session.connect()
            path = f"/pools/default/buckets/{quote(bucket, safe='')}"
            status, _, _ = yield session.management_request("GET", path)
        finally:
            session._close()
        return status in (401, 403)

    def _is_ready(self) -> Deferred[str | None]:
        # The factory's state would not do: while it drains, other workers still serve, and so does it.
        if self._stopping:
            return succeed("the gateway is stopping")
        if self._cluster is None:
            return succeed("the embedded node is starting")
        if self.hindrance is not None:
            reason = self.hindrance()
            if reason is not None:
                return succeed(reason)
        return self.readiness.check()

    def _probe(self) -> Deferred[str | None]:
        assert self._cluster is not None
        if self._account is None:
            # Without a service account, only callers can log in to the cluster.
            return reach(self._settings, self._reactor)
        opened: Deferred[Any] = maybeDeferred(
            self.pool.connection, self._settings.bucket, self._account.credentials
        )
        opened.addCallback(lambda connection: connection.get(_PROBE_KEY, quiet=True))
        return opened.addCallbacks(lambda _: None, self._reason)

    def _reason(self, failure: Failure) -> str:
        assert failure.value is not None
        bucket, user = self._settings.bucket, self._settings.user
        if self._settings.cluster_cert is not None:
            if failure.check(BucketNotFoundError, NoAccessError):
                return (
                    f"there is no bucket {bucket!r} (--bucket), or the user of --cluster-cert may not use it"
                )
            if failure.check(AuthError):
                return "the cluster refused the certificate of --cluster-cert"
        if failure.check(BucketNotFoundError, NoAccessError):
            return f"there is no bucket {bucket!r} (--bucket), or {user!r} (--user) may not use it"
        if failure.check(AuthError):
            return f"the cluster refused the user {user!r} (--user) or the password"
        return describe(failure.value, "open").message
