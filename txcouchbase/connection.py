"""Connections for Twisted programs, with Deferreds or with AsyncResults and callbacks."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, cast

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from couchbase.arguments import (
    check_bucket_user,
    check_credentials,
    check_flags,
    check_hosts,
    check_keywords,
    check_lockmode,
    check_options,
    check_texts,
)
from couchbase.asynchronous.connection import Async
from couchbase.blocking.resolver import srv_of
from couchbase.exceptions import ArgumentError
from couchbase.protocol import operations
from couchbase.protocol.connstr import Address, parse_connection_string, seeds_from_hosts
from couchbase.protocol.handshake import Credentials
from couchbase.protocol.pathresults import SubdocResult
from couchbase.result import (
    AsyncResult,
    ExpiryResult,
    HttpResult,
    MultiResult,
    OperationResult,
    ValueResult,
)
from couchbase.signatures import Format, Host
from couchbase.tlsfiles import tls_files
from couchbase.transcoder import AnyTranscoder, check_format
from couchbase.user_constants import LOCKMODE_NONE
from reactor.kinds import IReactor
from txcouchbase.calls import AsyncCall, Call, DeferredCall, GroupCall
from txcouchbase.camelcase import CamelCase
from txcouchbase.cluster import ClusterClient
from txcouchbase.collection import DeferredCollection, TxCollection
from txcouchbase.designs import DesignMethods
from txcouchbase.direct import Direct
from txcouchbase.driver import AsyncDriver, DeferredDriver
from txcouchbase.early import connecting
from txcouchbase.events import ConnectionEventQueue, ConnectionEvents, TxEventQueue
from txcouchbase.http import MANAGEMENT, HttpService
from txcouchbase.signatures import (
    ExpiryT,
    OperationsT,
    OperationT,
    StatsT,
    SubdocsT,
    SubdocT,
    ValuesT,
    ValueT,
)
from txcouchbase.tls import TlsPolicy
from txcouchbase.turn import MAX_QUEUED
from txcouchbase.views import BatchedView, ViewMethods

if TYPE_CHECKING:
    from typing_extensions import Never

__all__ = ["BatchedView", "Connection", "ConnectionEventQueue", "TxAsyncConnection", "TxEventQueue"]

_new_result: Any = AsyncResult.__new__


class TxAsyncConnection(
    ViewMethods,
    DesignMethods,
    CamelCase[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
    Async[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, Deferred[HttpResult], SubdocT, SubdocsT],
    Generic[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
):
    """A connection whose operations return AsyncResults.

    Operations raise ClientTemporaryFailError until the connection is up: wait for :meth:`connect`. Nothing
    blocks.

    :param bucket: name of the bucket; ``None`` for a session of the cluster as a whole, which has
        no document operations.
    :param host: host name, or list of host names and ``(host, port)`` pairs.
    :param port: port of the cluster manager, for hosts without a port.
    :param connection_string: ``couchbase://host1,host2`` instead of ``host`` and ``port``
        (``couchbases://`` for TLS). Options: ``network``, ``nameserver``, and the files of
        :func:`couchbase.tlsfiles.tls_files`.
    :param username: the bucket's name by default; with ``host`` and a bucket it must be that name.
    :param password: ``None`` or empty: no authentication, or an empty password if the bucket's own user must
        log in.
    :param timeout: timeout of an operation in seconds.
    :param quiet: see :attr:`quiet`.
    :param default_format: see :attr:`default_format`.
    :param transcoder: object or class; see :attr:`transcoder`.
    :param certpath: PEM file of the certificates to trust for TLS; the platform's by default.
    :param client_cert: PEM file of the client's certificate, followed by its chain; it replaces a password
        over TLS (for HTTP, too).
    :param client_key: PEM file of its private key; by default it is in the same file.
    :param allow_plain: whether SASL PLAIN may send the password over a network without TLS.
    :param reactor: the global reactor by default.
    :param lockmode: accepted, as is ``unlock_gil``; there is no lock.
    :param config_cache: accepted, like its older name ``conncache``, but without effect: the map is always
        requested, since a program that runs a reactor connects once and stays connected.
    :raises ArgumentError: an invalid or unknown argument.
    :raises InvalidError: a malformed host or connection string.
    :raises CouchbaseError: (rc 0x26) with ``host``, a user other than the bucket's.
    """

    _request_type: type[Any] = AsyncCall
    _member_type: type[Any] = GroupCall
    _driver_type: type[AsyncDriver] = AsyncDriver
    _collection_type: type[Any] = TxCollection
    _agent = "txcouchbase"
    """The client's name, which is sent to the cluster with the version."""
    _driver: AsyncDriver
    _conncb: Callable[[BaseException | None], Any] | None = None
    """Called once, with None or the exception, when connecting ended."""

    # Many parameters: as of the blocking connection, and the reactor.
    def __init__(
        self,
        *,
        bucket: str | None = None,
        host: Host = "localhost",
        port: int = 8091,
        connection_string: str | None = None,
        username: str | None = None,
        password: str | None = None,
        timeout: float | None = 2.5,
        quiet: bool = False,
        default_format: Format | None = None,
        transcoder: AnyTranscoder | type[AnyTranscoder] | None = None,
        certpath: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        allow_plain: bool = False,
        reactor: object = None,
        lockmode: int = LOCKMODE_NONE,
        unlock_gil: bool = False,
        experimental_gevent_support: bool = False,
        config_cache: str | None = None,
        conncache: str | None = None,
        _no_connect_exceptions: bool = False,
        _cntl: dict[int, Any] | None = None,
        **unknown: Never,
    ) -> None:
        check_keywords(unknown)
        check_texts(
            username=username, password=password, certpath=certpath, connection_string=connection_string
        )
        check_texts(client_cert=client_cert, client_key=client_key)
        check_credentials(username, password)
        check_texts(config_cache=config_cache, conncache=conncache)
        if conncache is not None:
            warnings.warn("conncache is now named config_cache", DeprecationWarning, stacklevel=2)
        check_flags(quiet=quiet, unlock_gil=unlock_gil)
        check_lockmode(lockmode)
        if bucket is not None and (not isinstance(bucket, str) or not bucket):
            raise ArgumentError.pyexc("bucket must be a str that is not empty, or None", obj=bucket)
        if connection_string is None:
            address = Address(seeds_from_hosts(check_hosts(host), port))
        else:
            address = parse_connection_string(connection_string)
        check_options(address.options)
        self._bucket = bucket or address.bucket
        if connection_string is None and self._bucket:
            check_bucket_user(username, self._bucket)
        credentials = None
        if password:
            user = username or self._bucket
            if not user:
                raise ArgumentError.pyexc("a password needs a username")
            credentials = Credentials(user, password)
        if reactor is None:
            from twisted.internet import reactor
        self.quiet = quiet
        if default_format is not None:
            self.default_format = check_format(default_format, "default_format")
        self.transcoder = transcoder() if isinstance(transcoder, type) else transcoder
        files = tls_files(
            address, certpath=certpath, client_cert=client_cert, client_key=client_key, password=password
        )
        self._lockmode, self._unlock_gil = LOCKMODE_NONE, False
        self._cluster = self._client = ClusterClient(
            cast(IReactor, reactor),
            address.seeds,
            bucket=self._bucket,
            credentials=credentials,
            tls=address.tls,
            tls_policy=TlsPolicy(files),
            allow_plain=allow_plain,
            network=address.options.get("network", "auto"),
            agent=self._agent,
        )
        self._client.srv = srv_of(address)
        self._client.owner = weakref.ref(self)
        self._turn = self._client.turn
        self._events = ConnectionEvents(cast(IReactor, reactor))
        self._driver = self._driver_type(self._client, self._events)
        self.timeout = 2.5 if timeout is None else timeout
        self._http = HttpService(self._client)
        weakref.finalize(self, self._events.destroyed, self._client, self._http).atexit = False
        for op, value in (_cntl or {}).items():
            self._cntl(op, value)
        self._begin()

    def _begin(self) -> None:
        """Start to connect."""
        self._client.bootstrap().addBoth(_bootstrapped, weakref.ref(self), self._events.connect)

    # ---- settings and state ----------------------------------------------------------------------

    def _close(self) -> None:
        """Close every connection; running operations fail. A second call does nothing."""
        self._client.close()
        self._http.close()

    # ---- events ----------------------------------------------------------------------------------

    def connect(self) -> Deferred[None]:
        """Return a Deferred that fires with None once connected, or fails with the reason."""
        deferred: Deferred[None] = Deferred()
        self.registerDeferred("connect", deferred)
        return deferred

    def registerDeferred(self, event: str, d: Deferred[Any]) -> None:
        """Fire ``d`` when an event happens.

        A Deferred registered after the event fires, or fails, in the next turn.

        :param event: ``'connect'``: the connection is up, or could not be made; the Deferred fails with
            ObjectDestroyedError if this object is destroyed first. ``'_dtor'``: it was destroyed, and its
            sockets are closed.
        :raises ValueError: unknown event.
        """
        self._events.queue(event).schedule(d)

    def defer(self, async_result: AsyncResult) -> Deferred[Any]:
        """Return a Deferred for an AsyncResult."""
        deferred: Deferred[Any] = Deferred()
        async_result.set_callbacks(deferred.callback, lambda _, kind, error, trace: deferred.errback(error))
        return deferred

    def direct(self, *, together: int = MAX_QUEUED) -> Direct:
        """Return the operations on single documents without Deferreds and AsyncResults.

        For programs that need the highest throughput; see :class:`txcouchbase.direct.Direct`. An addition to
        SDK 1.2.

        :param together: largest number of operations of one turn that are sent together. A program that
            computes much between operations gains from a small number: nodes begin to answer while it still
            makes requests. Others pay one system call per batch.
        """
        return Direct(self, self._driver.direct(together))

    def collection(
        self, name: str, scope: str | None = None
    ) -> TxCollection[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT]:
        """Return a view of a collection; see :meth:`couchbase.connection.Connection.collection`."""
        view: TxCollection[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT] = (
            self._view_of(name, scope)
        )
        return view

    def _connect_ended(self, error: BaseException | None) -> None:
        """Handle the end of connecting."""
        if error is None:
            self._driver.is_up = True
        if self._conncb is not None:
            self._conncb(error)

    def _ready(self) -> Deferred[None]:
        return self._driver.ready()

    # ---- the cluster manager ---------------------------------------------------------------------

    @inlineCallbacks
    def management_request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Generator[Any, Any, tuple[int, dict[str, str], bytes]]:
        """Ask a node's cluster manager, with the connection's credentials.

        :param method: ``"GET"``, ``"POST"`` ...
        :param path: absolute path with its query, already encoded.
        :returns: Deferred of (status, headers by lower-case name, body).
        :raises CouchbaseError: NetworkError, no node could be asked.
        """
        yield self._ready()
        status, answered, content = yield self._http.whole(
            MANAGEMENT, method, path, body=body, headers=headers
        )
        return status, {name.lower(): value for name, value in answered.items()}, content


class Connection(
    TxAsyncConnection[
        Deferred[ValueResult],
        Deferred[ExpiryResult],
        Deferred[OperationResult],
        Deferred[MultiResult[ValueResult]],
        Deferred[MultiResult[OperationResult]],
        Deferred[MultiResult[dict[str, Any]]],
        Deferred[SubdocResult],
        Deferred[MultiResult[SubdocResult]],
    ]
):
    """A connection whose operations return Deferreds.

    A Deferred fires with the Result (MultiResult of a multi operation), or fails with the exception that SDK
    1.2's blocking call would raise. Cancelling it cancels the operation: its answer is ignored, but a
    mutation that was already sent may still be executed.
    """

    _request_type: type[Any] = DeferredCall
    _driver_type = DeferredDriver
    _collection_type: type[Any] = DeferredCollection

    def _begin(self) -> None:
        super()._begin()
        if not self.connected:
            # The method is needed only until then.
            self.__class__ = connecting(type(self))

    def _connect_ended(self, error: BaseException | None) -> None:
        super()._connect_ended(error)
        if error is None:
            self.__class__ = getattr(type(self), "_when_connected", type(self))

    def start(self, call: Call, seconds: float | None = None) -> None:
        """Execute an operation that the caller created, without a Deferred.

        For programs with very many operations: they derive their own class from
        :class:`txcouchbase.calls.Call`. The connection ends a call by its ``succeed`` with a result or its
        ``fail`` with an exception, possibly before this method returns; its ``abandon`` cancels it.

        :param call: a request as in :mod:`couchbase.protocol.request`, with its key checked and its value
            encoded; not a read from replicas. A synchronous write keeps its place among the operations on its
            key, like one by a method.
        :param seconds: its timeout; ``None`` for the connection's.
        """
        framing, turn = call.framing, self._turn
        queued = turn.queued
        if not queued or len(queued) >= MAX_QUEUED:
            turn.wake()
        if seconds is not None:
            turn.limits[call] = seconds
        queued.append(call)
        if framing and framing != operations.PRESERVE_EXPIRY_FRAMING:
            turn.has_levels = True


def _bootstrapped(
    result: object, connection: Callable[[], TxAsyncConnection | None], event: ConnectionEventQueue
) -> None:
    error = result.value if isinstance(result, Failure) else None
    known = connection()
    if known is not None:
        known._connect_ended(error)
        # Waiters may drop the object.
        del known
        event(error)
