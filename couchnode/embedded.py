"""A whole cluster as one Twisted service, which tests and the gateway run in their own process."""

from __future__ import annotations

import ipaddress
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from couchnode.cluster.cluster import Cluster
from couchnode.cluster.config import AdvertisedAddress, advertised_host, bracketed
from couchnode.cluster.definition import MEBIBYTE, BucketDefinition
from couchnode.cluster.designs import DesignDocument
from couchnode.cluster.metadata import DataDirectory
from couchnode.cluster.users import UserStore
from couchnode.kv.server import KeyValueFactory
from couchnode.rest.api import RestApi
from couchnode.rest.edge import RestSite
from couchnode.sample import load_sample
from couchnode.tls import NodeTls
from couchnode.views.service import Views, obstacle
from reactor.ports import PortGuard, logged_in
from reactor.tls.factory import ServerSide, TlsFactory

DEFAULT_QUOTA_BYTES = 256 * MEBIBYTE
"""Default memory for the documents of one bucket on one node, in bytes."""

Steps = Generator[Deferred[Any], Any, None]


# Twisted's default of 50 is too small for a burst of clients; the kernel has its own limit.
BACKLOG = 1024

_NOT_STARTED = object()
_STARTING = object()


class StartError(Exception):
    """The node cannot start; the text says why and what to do about it."""


class _Listener(NamedTuple):
    """The open ports of one node."""

    kv: KeyValueFactory
    api: RestApi
    site: RestSite
    ports: list[IListeningPort]


class EmbeddedNode(Service):
    """One or more nodes, their buckets and their users, on ports of this process.

    Missing users and buckets are created; existing data is kept. An existing bucket keeps its settings, but
    gets a password if one is given.

    :param data_dir: folder of all data; ``None`` to keep nothing after :meth:`stop`.
    :param nodes: number of nodes; ``None`` for as many as the directory was created with, one if it is new.
    :param replicas: replicas of newly created buckets.
    :param users: administrators, (name, password). If any are given, they are the only ones.
    :param buckets: (name, password). A password replaces the bucket's previous one: clients log in with the
        bucket's name and the password. ``None`` or ``""``: the bucket keeps its password, or has none; see
        ``open_buckets`` for the use of buckets without a password.
    :param rest_port, kv_port, views_port: 0 for any free ones; else node i listens on port + i. Views are at
        ``rest_port`` too, and nowhere else if ``views_port`` is ``None``.
    :param host: IP address to listen on.
    :param clock: for timers and the time; the reactor if ``None``.
    :param quota_bytes: memory for the documents of each new bucket, on each node.
    :param sample: file of JSON lines, or files, whose documents and design documents are added to the first
        bucket (see :mod:`couchnode.sample`).
    :param open_buckets: let clients without credentials use buckets that have no password: ``default`` as
        they are, others with the bucket's name and an empty password. A node without an administrator is
        always open in this way, and listens on loopback only; a node with an administrator requires a
        password unless this is true, and only administrators can use its buckets without one.
    :param tls: serve both protocols with TLS as well, on further ports.
    :param view_limits: limits of map and reduce functions, for :mod:`couchnode.views.worker`.
    :param option_prefix: how options for ports begin on the command line, for messages.
    """

    # Many parameters: the options of a node; keywords.
    def __init__(
        self,
        data_dir: str | Path | None,
        nodes: int | None = None,
        replicas: int = 0,
        users: Sequence[tuple[str, str]] = (),
        buckets: Sequence[tuple[str, str | None]] = (("default", None),),
        rest_port: int = 0,
        kv_port: int = 0,
        views_port: int | None = None,
        host: str = "127.0.0.1",
        clock: IReactorTime | None = None,
        quota_bytes: int = DEFAULT_QUOTA_BYTES,
        sample: str | Path | Sequence[str | Path] | None = None,
        view_limits: Sequence[str] = (),
        open_buckets: bool = False,
        tls: NodeTls | None = None,
        option_prefix: str = "--",
    ) -> None:
        self._data_dir = data_dir
        self._nodes = nodes
        self._replicas = replicas
        self._users = list(users)
        self._buckets = list(buckets)
        self._first_ports = rest_port, kv_port
        self._views_port = views_port
        self._host = "127.0.0.1" if host == "localhost" else host
        self._clock = clock
        self._quota_bytes = quota_bytes
        self._samples = [sample] if isinstance(sample, (str, Path)) else list(sample or ())
        self._view_limits = tuple(view_limits)
        self._open_buckets = open_buckets
        self._tls = tls
        self._option_prefix = option_prefix
        self._directory: DataDirectory | None = None
        self._cluster: Cluster | None = None
        self._views: Views | None = None
        self._listeners: list[_Listener] = []
        self._outcome: Any = _NOT_STARTED
        self._waiters: list[Deferred[Any]] = []
        self._log = Logger()
        self.closed_cleanly = True
        """Whether the last stop has written every change to disk; if not, the log has named the buckets."""

    # ---- what is where ---------------------------------------------------------------------------

    @property
    def cluster(self) -> Cluster:
        """The cluster.

        :raises RuntimeError: it was not started.
        """
        if self._cluster is None:
            raise RuntimeError("the node is not started")
        return self._cluster

    @property
    def kv_ports(self) -> list[int]:
        """Key-value port of each node."""
        return [node.address.kv_port for node in self.cluster.nodes]

    @property
    def rest_urls(self) -> list[str]:
        """Base URL of each node's REST interface, without a slash at the end."""
        return [f"http://{self._client_host}:{node.address.rest_port}" for node in self.cluster.nodes]

    @property
    def connection_string(self) -> str:
        """Connection string for clients on this machine: ``couchbase://127.0.0.1:PORT[,...]``."""
        return "couchbase://" + ",".join(f"{self._client_host}:{port}" for port in self.kv_ports)

    @property
    def tls_connection_string(self) -> str:
        """Connection string with TLS: ``couchbases://127.0.0.1:PORT[,...]``.

        :raises RuntimeError: the node has no certificate.
        """
        ports = [node.address.kv_tls_port for node in self.cluster.nodes]
        if None in ports:
            raise RuntimeError("the node has no TLS")
        return "couchbases://" + ",".join(f"{self._client_host}:{port}" for port in ports)

    @property
    def persistence_problem(self) -> str | None:
        """The reason why changes cannot be written to disk now, with bucket and file; ``None`` if they can.

        It reflects the last write, which is retried every second: if the disk has filled up since, this shows
        at the next change. Unwritten changes stay in memory, and are written once there is room.
        """
        if self._cluster is None:
            return None
        for node in self._cluster.nodes:
            for name, part in node.buckets.items():
                if part.flusher.write_error is not None:
                    return f"bucket {name} cannot be written to disk: {part.flusher.write_error}"
        return None

    @property
    def _client_host(self) -> str:
        address = ipaddress.ip_address(self._host)
        if address.is_unspecified:
            return "[::1]" if address.version == 6 else "127.0.0.1"
        return bracketed(self._host)

    @property
    def _is_loopback(self) -> bool:
        return ipaddress.ip_address(self._host).is_loopback

    @property
    def _reactor(self) -> Any:
        # Not at the top: importing the reactor there would choose one before twistd's --reactor can.
        from twisted.internet import reactor

        return reactor

    # ---- life ------------------------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """Listen, open the buckets and load the sample.

        :returns: fires when every bucket accepts commands. Fails with
            :class:`~couchnode.cluster.metadata.DataDirectoryError`, :class:`StartError`, a
            :class:`~couchnode.data.storage.StoreError`, :class:`~couchnode.sample.SampleError`, or the error
                of an invalid user or bucket; everything is closed again then.
        """
        if not self.running:
            super().startService()
        if self._outcome is _NOT_STARTED:
            self._outcome = _STARTING
            self._start().addBoth(self._started)
        waiter: Deferred[None] = Deferred()
        if self._outcome is _STARTING:
            self._waiters.append(waiter)
        else:
            waiter.callback(self._outcome)  # a Failure makes it fail
        return waiter

    def startService(self) -> None:
        """Start; call :meth:`start` as well to get the outcome."""
        self.start().addErrback(lambda failure: self._log.error("{error}", error=failure.value))

    def stopService(self) -> Deferred[None]:
        """See :meth:`stop`."""
        return self.stop()

    @inlineCallbacks
    def stop(self) -> Steps:
        """Stop accepting commands, write everything to disk, release ports and directory; fires when done."""
        if self.running:
            super().stopService()
        if self._outcome is _NOT_STARTED:
            return
        if self._outcome is _STARTING:
            yield self.start().addErrback(lambda _: None)
        self._outcome = _NOT_STARTED
        yield self._close()

    def _started(self, outcome: Failure | None) -> None:
        self._outcome = outcome
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(outcome)

    @inlineCallbacks
    def _start(self) -> Steps:
        try:
            yield self._open()
        except BaseException:
            yield self._close()
            raise

    @inlineCallbacks
    def _open(self) -> Steps:
        reactor = self._reactor
        clock: Any = self._clock if self._clock is not None else reactor
        self._exhausted = logged_in(self._log, reactor)
        data = None
        if self._data_dir is not None:
            self._directory = yield deferToThread(DataDirectory, self._data_dir)
            data = yield deferToThread(self._directory.load)
        count = self._nodes if self._nodes is not None else int(data["nodes"]) if data is not None else 1
        users = UserStore(open_buckets=self._open_buckets)
        cluster = Cluster(count, clock=clock, directory=self._directory, users=users)
        if data is not None:
            cluster.restore(data)
        yield self._make_users(cluster)
        yield self._set_passwords(cluster)
        self._check_host(cluster)
        why = obstacle()
        if why is None:
            self._views = Views(cluster, self._directory, self._view_limits)
        else:
            self._log.warn("views are not available: {why}", why=why)
        for index in range(count):
            self._listen(reactor, cluster, index)
        self._cluster = cluster
        yield cluster.start()
        yield self._make_buckets(cluster)
        if self._views is not None:
            self._views.start()
        if cluster.users.are_open:
            self._log.warn(
                "the node is open: every process on {where} can use its buckets that have no password",
                where="this machine" if self._is_loopback else "every machine that reaches it",
            )
        for sample in self._samples:
            yield load_sample(cluster, self._buckets[0][0], Path(sample), self._put_design)

    def _put_design(self, bucket: str, name: str, text: bytes) -> Deferred[DesignDocument]:
        if self._views is None:
            assert self._cluster is not None
            return self._cluster.put_design(bucket, name, text)
        return Deferred.fromCoroutine(self._views.put_design(bucket, name, text))

    @inlineCallbacks
    def _close(self) -> Steps:
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            for port in listener.ports:
                yield maybeDeferred(port.stopListening)
        for listener in listeners:
            listener.api.close()
            yield listener.site.close()
            listener.kv.close()
            while listener.kv.connections:
                yield deferLater(self._reactor, 0.01)
        if self._views is not None:
            views, self._views = self._views, None
            yield Deferred.fromCoroutine(views.stop())
        if self._cluster is not None:
            self.closed_cleanly = yield self._cluster.stop()
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    @inlineCallbacks
    def _make_users(self, cluster: Cluster) -> Steps:
        if not self._users:
            return
        wanted = dict(self._users)
        store = cluster.users
        for name in [name for name in store if store.is_administrator(name) and name not in wanted]:
            store.remove(name)
            self._log.warn("{user} is no longer an administrator: the options name another one", user=name)
        for name, password in wanted.items():
            if name in store and not store.is_administrator(name):
                raise StartError(f"{name!r} cannot be an administrator: that name belongs to another user")
            # The same password keeps its keys, so clients' caches of the keys stay valid.
            # An unknown name may pass with an empty password, which an administrator may not have.
            if name not in store or not (yield store.verify(name, password)):
                yield store.add(name, password, admin=True)

    @inlineCallbacks
    def _set_passwords(self, cluster: Cluster) -> Steps:
        """Set the passwords of buckets from an earlier run, before clients can connect with the old ones."""
        for name, password in self._buckets:
            bucket = cluster.buckets.get(name)
            if bucket is None:
                continue
            if password and not (yield cluster.users.verify(name, password)):
                yield cluster.set_bucket_password(name, password, save=False)
            elif not password and not bucket.is_open:
                self._log.warn("bucket {bucket} keeps its password: the options name none", bucket=name)

    def _check_host(self, cluster: Cluster) -> None:
        if cluster.users.are_open and not self._open_buckets and not self._is_loopback:
            raise StartError(
                f"--host {self._host}: a node without an administrator is open to everyone, "
                "so it listens only on loopback: give it an administrator, or 127.0.0.1"
            )

    @inlineCallbacks
    def _make_buckets(self, cluster: Cluster) -> Steps:
        for name, password in self._buckets:
            if name not in cluster.buckets:
                definition = BucketDefinition(
                    name, quota_bytes=self._quota_bytes, replica_number=self._replicas, flush_enabled=True
                )
                yield cluster.create_bucket(definition, password or "")

    def _listen(self, reactor: Any, cluster: Cluster, index: int) -> None:
        """Open the ports of one node, and give the node its address."""
        node = cluster.nodes[index]
        api = RestApi(cluster, node, self._views)
        listener = _Listener(KeyValueFactory(node, tls=self._tls), api, api.site(self._tls), [])
        self._listeners.append(listener)
        rest_port, kv_port = [port + index if port else 0 for port in self._first_ports]
        rest = self._open_port(reactor, listener, rest_port, listener.site, "rest-port")
        kv = self._open_port(reactor, listener, kv_port, listener.kv, "kv-port")
        views = rest if self._views is not None else None
        if self._views_port is not None and self._views is not None:
            number = self._views_port + index if self._views_port else 0
            views = self._open_port(reactor, listener, number, listener.site, "views-port")
        address = AdvertisedAddress(advertised_host(self._host), kv, rest, views)
        if self._tls is not None:
            rest_port, kv_port = [port + index if port else 0 for port in self._tls.first_ports]
            side = ServerSide(self._tls.context)
            site, served = [TlsFactory(side, one, reactor) for one in (listener.site, listener.kv)]
            address = address._replace(
                rest_tls_port=self._open_port(reactor, listener, rest_port, site, "tls-rest-port"),
                kv_tls_port=self._open_port(reactor, listener, kv_port, served, "tls-kv-port"),
            )
        node.address = address

    def _open_port(self, reactor: Any, listener: _Listener, number: int, factory: Any, option: str) -> int:
        try:
            port = reactor.listenTCP(number, factory, BACKLOG, self._host)
        except CannotListenError as fault:
            reason = getattr(fault.socketError, "strerror", None) or fault.socketError
            raise StartError(
                f"{self._option_prefix}{option}: cannot listen on {bracketed(self._host)}:{number}: "
                f"{reason}; name another port, or 0 for any free one"
            ) from fault
        PortGuard(reactor, self._exhausted).attach(port)
        listener.ports.append(port)
        return int(port.getHost().port)
