"""The service tree that ``twistd couchgateway`` runs.

The only module of the gateway that knows the embedded node.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from secrets import token_bytes, token_urlsafe
from typing import Any

from twisted.application.service import Service
from twisted.internet import reactor as global_reactor
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.plugin import getPlugins
from twisted.python.failure import Failure

import gateway.plugins
from couchnode.embedded import EmbeddedNode
from couchnode.service import end_process
from gateway.app import Gateway
from gateway.credentials import Authorizer, Passthrough, ServiceAccount
from gateway.errors import Refusal, describe
from gateway.http.factory import ChannelFactory
from gateway.http.polling import Gate
from gateway.interfaces import IGatewayPlugin
from gateway.options import Options, Settings, user_data_folder
from gateway.pool import ConnectionPool
from gateway.transcoder import PassThrough
from txcouchbase.connection import Connection

__all__ = ["GatewayService", "Options", "makeService"]

DEFAULT_ADMINISTRATOR = "Administrator"

_PROBE_KEY = b"couchgateway:ready"


def makeService(options: Options) -> GatewayService:
    """Return the service for a parsed command line."""
    settings = options.settings
    assert settings is not None
    found = getPlugins(IGatewayPlugin, gateway.plugins)
    plugins = [plugin for plugin in found if plugin.name not in settings.without_plugin]
    return GatewayService(settings, plugins, on_failure=end_process)


class GatewayService(Service):
    """A gateway, with its embedded node if it has one.

    :param settings: checked settings.
    :param plugins: attached in this order.
    :param on_failure: called when the embedded node does not start.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        plugins: Iterable[IGatewayPlugin] = (),
        reactor: Any = global_reactor,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self.setName("couchgateway")
        self._settings = settings
        self._reactor = reactor
        self._on_failure = on_failure
        self._node: EmbeddedNode | None = None
        self._cluster = settings.cluster
        self._ports: list[IListeningPort] = []
        self.urls: list[str] = []
        """Where it listens, once it does."""
        secret = token_bytes(32)
        user, password = settings.user, settings.password
        if settings.cluster is None and user is None:
            # Nobody can know this password: the gateway itself is the only user.
            user, password = DEFAULT_ADMINISTRATOR, token_urlsafe(24)
        self._account = None
        if user is not None and password is not None:
            self._account = ServiceAccount(user, password, secret)
            self._user, self._password = user, password
        authorizer: Authorizer = Passthrough(secret)
        if settings.auth == "none":
            assert self._account is not None
            authorizer = self._account
        self.pool = ConnectionPool(
            self._connection,
            reactor,
            max_connections=settings.limits.max_connections,
            verify_seconds=settings.verify_seconds,
        )
        self.gateway = Gateway(
            authorizer,
            self.pool,
            reactor,
            now=time.time,
            limits=settings.limits,
            is_ready=self._is_ready,
            plugins=plugins,
            access_log=settings.access_log,
        )
        self.factory = ChannelFactory(self.gateway, reactor, Gate(reactor))
        self.started: Deferred[None] = Deferred()
        """Fires when documents can be served; fails if the embedded node does not start."""
        self.started.addErrback(lambda failure: None)

    # -- life

    def privilegedStartService(self) -> None:
        """Listen; raises what hinders it (a port in use, say), so that twistd ends."""
        super().privilegedStartService()
        for description in self._settings.listen:
            listening = serverFromString(self._reactor, description).listen(self.factory)
            listening.addCallback(self._listens, description)
            result = getattr(listening, "result", None)
            if isinstance(result, Failure):
                listening.addErrback(lambda _: None)
                raise RuntimeError(f"--listen: {description}: {result.getErrorMessage()}")

    def _listens(self, port: IListeningPort, description: str) -> None:
        self._ports.append(port)
        address: Any = port.getHost()
        if isinstance(address, UNIXAddress):
            url = "unix:" + os.fsdecode(address.name or b"")
        else:
            scheme = "https" if description.startswith("ssl") else "http"
            host = f"[{address.host}]" if ":" in address.host else address.host
            url = f"{scheme}://{host}:{address.port}"
        self.urls.append(url)
        self.log.info("couchgateway listens on {url}", url=url)

    def startService(self) -> None:
        """Start the embedded node, if there is one."""
        super().startService()
        self.pool.start()
        if self._cluster is not None:
            self.log.info("couchgateway serves {cluster}", cluster=self._cluster)
            self._announce(None)
            return
        starting: Deferred[Any] = maybeDeferred(self._start_node)
        starting.addCallbacks(self._announce, self._node_failed)

    @inlineCallbacks
    def _start_node(self) -> Any:
        node = self._make_node()
        yield node.start()
        self._node_started(node)

    def _make_node(self) -> EmbeddedNode:
        settings = self._settings
        default = user_data_folder()
        if settings.data == str(default):
            # A new account may lack the folder above; of a place that was named, a missing parent is
            # more likely a slip, which the node refuses.
            default.parent.mkdir(parents=True, exist_ok=True)
        return EmbeddedNode(
            settings.data,
            nodes=settings.nodes,
            replicas=settings.replicas,
            users=[(self._user, self._password)],
            buckets=[(settings.bucket, None)],
            rest_port=settings.node_rest_port,
            kv_port=settings.node_kv_port,
            sample=settings.sample,
        )

    def _node_started(self, node: EmbeddedNode) -> None:
        self._node = node
        self._cluster = node.connection_string
        self.log.info(
            "embedded node: {cluster}, REST {urls}, data in {data}",
            cluster=self._cluster,
            urls=" ".join(node.rest_urls),
            data=self._settings.data or "memory",
        )

    def _node_failed(self, failure: Failure) -> None:
        self.log.failure("the embedded node does not start", failure)
        self.started.errback(failure)
        if self._on_failure is not None:
            self._on_failure()

    def _announce(self, _: object) -> None:
        self.started.callback(None)
        url = next((url for url in self.urls if url.startswith("http")), None)
        if url is not None and sys.stdout is not None and sys.stdout.isatty():
            who = "" if self._settings.auth == "none" else " -u USER"
            self.log.info(
                "try: curl{who} -X PUT -d '\"world\"' -H 'Content-Type: application/json' "
                "{url}/v1/buckets/{bucket}/documents/hello",
                who=who,
                url=url,
                bucket=self._settings.bucket,
            )

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop listening, let the requests under way finish, then flush the embedded node."""
        super().stopService()
        ports, self._ports = self._ports, []
        for port in ports:
            yield maybeDeferred(port.stopListening)
        yield self.factory.stop()
        self.pool.close()
        node, self._node = self._node, None
        if node is not None:
            yield node.stop()

    # -- what the gateway asks for

    def _connection(self, bucket: str | None, user: str, password: str) -> Connection:
        if self._cluster is None:
            raise Refusal("UnderlyingServiceUnavailable", "The embedded node is starting.")
        connection = Connection(
            bucket=bucket,
            connection_string=self._cluster,
            username=user,
            password=password,
            timeout=self._settings.timeout,
            transcoder=PassThrough(),
            reactor=self._reactor,
        )
        # The transcoder would hand values through as well; this way it is not even asked.
        connection.data_passthrough = True
        connection.views_timeout = self._settings.views_timeout
        return connection

    def _is_ready(self) -> Deferred[str | None]:
        if self.factory.stopping:
            return succeed("the gateway is stopping")
        if self._cluster is None:
            return succeed("the embedded node is starting")
        if self._account is None:
            # Without a service account only callers can reach the cluster.
            return succeed(None)
        opened: Deferred[Any] = maybeDeferred(
            self.pool.connection, self._settings.bucket, self._account.credentials
        )
        opened.addCallback(lambda connection: connection.get(_PROBE_KEY, quiet=True))
        return opened.addCallbacks(lambda _: None, _reason)


def _reason(failure: Failure) -> str:
    assert failure.value is not None
    return describe(failure.value, "open").message
