"""The blocking connection of SDK 1.2."""

from __future__ import annotations

import warnings
import weakref
from typing import TYPE_CHECKING, Any, Generic

from couchbase.arguments import (
    check_bucket_user,
    check_credentials,
    check_flags,
    check_hosts,
    check_keywords,
    check_lockmode,
    check_options,
    check_seconds,
    check_texts,
)
from couchbase.blocking.calls import BlockingCall
from couchbase.blocking.driver import BlockingDriver
from couchbase.collection import Collection
from couchbase.controls import UNSET, control
from couchbase.designs import DesignCommands
from couchbase.documents import DocumentMethods
from couchbase.exceptions import *  # noqa: F403  # SDK 1.2 has these names here, too
from couchbase.exceptions import ArgumentError, CouchbaseError
from couchbase.pipeline import DurabilityContext, Pipeline
from couchbase.protocol.connstr import Address, parse_connection_string, seeds_from_hosts
from couchbase.protocol.durability import check_count
from couchbase.protocol.handshake import credentials_for
from couchbase.result import *  # noqa: F403  # SDK 1.2 has these names here, too
from couchbase.signatures import (
    DesignT,
    ExpiryT,
    Format,
    Host,
    Key,
    OperationsT,
    OperationT,
    StatsT,
    SubdocsT,
    SubdocT,
    ValuesT,
    ValueT,
)
from couchbase.timings import Timings
from couchbase.tlsfiles import tls_files
from couchbase.transcoder import AnyTranscoder, check_format
from couchbase.user_constants import *  # noqa: F403  # SDK 1.2 has these names here, too
from couchbase.user_constants import LOCKMODE_NONE, LOCKMODE_WAIT
from couchbase.views.commands import ViewCommands
from couchbase.views.iterator import View

if TYPE_CHECKING:
    from typing_extensions import Never

__all__ = ["Connection", "DurabilityContext", "Pipeline", "View"]


def _of_driver(name: str) -> Any:
    """Return a property that reads and sets an attribute of the driver."""

    def read(connection: Connection) -> Any:
        return getattr(connection._driver, name)

    def write(connection: Connection, value: object) -> None:
        setattr(connection._driver, name, value)

    return property(read, write, doc=f"``{name}`` of the driver.")


class Connection(
    ViewCommands,
    DesignCommands[DesignT],
    DocumentMethods[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
    Generic[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, DesignT, SubdocT, SubdocsT],
):
    """A connection to a bucket whose operations wait for their answers.

    The constructor connects, and blocks until it has a cluster map. Threads may share one connection, which
    serves one at a time; see ``lockmode``. After a fork, the child opens its own connections.

    :param bucket: name of the bucket.
    :param host: host name, or list of host names and ``(host, port)`` pairs, tried in order until one gives
        the cluster map.
    :param port: port of the cluster manager, for hosts without a port.
    :param username: the bucket's name by default; with ``host`` it must be that name.
    :param password: ``None`` or empty: no authentication.
    :param quiet: see :attr:`quiet`.
    :param timeout: see :attr:`timeout`; ``None`` for 2.5 seconds.
    :param transcoder: an object, or a class that is called without arguments; see :attr:`transcoder`.
    :param default_format: see :attr:`default_format`.
    :param lockmode: what happens when two threads use the connection at once: ``LOCKMODE_WAIT`` (the
        default) lets the second wait, ``LOCKMODE_EXC`` raises ObjectThreadError in it, ``LOCKMODE_NONE``
        checks nothing.
    :param unlock_gil: accepted; false forces ``LOCKMODE_NONE``.
    :param config_cache: path of a file that caches the cluster map; used instead of the network if it holds a
        map, and written when a map comes from the network.
    :param conncache: the older name of ``config_cache``.
    :param connection_string: ``couchbase://host1,host2`` instead of ``host`` and ``port`` (``couchbases://``
        for TLS), for any user name. Options: ``network``, ``nameserver``, and
        the files of :func:`couchbase.tlsfiles.tls_files`. Beyond SDK 1.2.
    :param certpath: PEM file of the certificates to trust for TLS; by default the platform's.
    :param client_cert: PEM file of the client's certificate, followed by its chain; it replaces a password
        over TLS (for HTTP, too).
    :param client_key: PEM file of its private key; by default it is in the same file.
    :param allow_plain: whether SASL PLAIN may send the password over a network without TLS.
    :raises ArgumentError: an invalid or unknown argument.
    :raises InvalidError: a malformed host or connection string.
    :raises CouchbaseNetworkError: no host provides a cluster map: NetworkError, UnknownHostError,
        TimeoutError.
    :raises AuthError: wrong credentials.
    :raises BucketNotFoundError: no such bucket.
    """

    _driver_type: type[Any] = BlockingDriver
    _cluster: Any
    """The driver's cluster, which knows the map and whether it is connected or closed."""
    _collection_type: type[Any] = Collection
    _request_type: type[Any] = BlockingCall
    _member_type: type[Any] = BlockingCall

    # Settings that :meth:`_cntl`, durability contexts and programs of SDK 1.2 change.
    _durability_timeout = _of_driver("durability_timeout")
    _durability_interval = _of_driver("durability_interval")
    _http_timeout = _of_driver("http_timeout")
    _http_redirects = _of_driver("http_redirects")
    _skip_configuration_errors = _of_driver("skip_configuration_errors")
    _dur_persist_to = _of_driver("dur_persist_to")
    _dur_replicate_to = _of_driver("dur_replicate_to")
    _dur_timeout = _of_driver("dur_timeout")
    _dur_testhook = _of_driver("dur_testhook")

    _privflags = 0
    """Option bits of the original; they have no effect here (see :mod:`couchbase._libcouchbase`)."""

    # Many parameters: SDK 1.2's arguments, and those of TLS and name servers; keywords.
    def __init__(
        self,
        *,
        bucket: str | None = None,
        host: Host = "localhost",
        port: int = 8091,
        username: str | None = None,
        password: str | None = None,
        quiet: bool = False,
        timeout: float | None = 2.5,
        transcoder: AnyTranscoder | type[AnyTranscoder] | None = None,
        default_format: Format | None = None,
        lockmode: int = LOCKMODE_WAIT,
        unlock_gil: bool = True,
        config_cache: str | None = None,
        conncache: str | None = None,
        connection_string: str | None = None,
        certpath: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        allow_plain: bool = False,
        experimental_gevent_support: bool = False,
        _no_connect_exceptions: bool = False,
        _cntl: dict[int, Any] | None = None,
        **unknown: Never,
    ) -> None:
        if hasattr(self, "_driver"):
            raise RuntimeError("__init__ was called already")
        check_keywords(unknown)
        check_texts(
            bucket=bucket,
            username=username,
            password=password,
            config_cache=config_cache,
            conncache=conncache,
            connection_string=connection_string,
            certpath=certpath,
            client_cert=client_cert,
            client_key=client_key,
        )
        check_credentials(username, password)
        check_flags(quiet=quiet, unlock_gil=unlock_gil)
        check_lockmode(lockmode)
        if connection_string is None:
            address = Address(seeds_from_hosts(check_hosts(host), port))
        else:
            address = parse_connection_string(connection_string)
        check_options(address.options)
        self._bucket = bucket or address.bucket or ""
        if not self._bucket:
            raise ArgumentError.pyexc("expected a bucket name")
        if connection_string is None:
            check_bucket_user(username, self._bucket)
        self.quiet = quiet
        if default_format is not None:
            self.default_format = check_format(default_format, "default_format")
        self.transcoder = transcoder() if isinstance(transcoder, type) else transcoder
        seconds = check_seconds("timeout", 2.5 if timeout is None else timeout)
        self._unlock_gil = bool(unlock_gil)
        self._lockmode = lockmode if unlock_gil else LOCKMODE_NONE
        if conncache is not None:
            warnings.warn("conncache is now named config_cache", DeprecationWarning, stacklevel=2)
        files = tls_files(
            address, certpath=certpath, client_cert=client_cert, client_key=client_key, password=password
        )
        driver = self._driver = self._driver_type(
            address,
            bucket=self._bucket,
            credentials=None if files.certificate else credentials_for(self._bucket, username, password),
            files=files,
            allow_plain=allow_plain,
            cache=config_cache or conncache,
            lockmode=self._lockmode,
        )
        self._cluster = driver.cluster
        driver.lock.owner = weakref.ref(self)
        driver.timeout = seconds
        for op, value in (_cntl or {}).items():
            self._cntl(op, value)
        try:
            driver.bootstrap()
        except CouchbaseError:
            if not _no_connect_exceptions:
                driver.close()
                raise

    # ---- settings and state ----------------------------------------------------------------------

    @property
    def timeout(self) -> float:
        """Timeout of an operation in seconds, retries included."""
        seconds: float = self._driver.timeout
        return seconds

    @timeout.setter
    def timeout(self, value: float) -> None:
        self._driver.timeout = check_seconds("timeout", value)

    @property
    def views_timeout(self) -> float:
        """Timeout of a request to a view, in seconds."""
        seconds: float = self._driver.views_timeout
        return seconds

    @views_timeout.setter
    def views_timeout(self, value: float) -> None:
        self._driver.views_timeout = check_seconds("views_timeout", value)

    @property
    def lockmode(self) -> int:
        """What happens when two threads use the connection at once."""
        return self._lockmode

    @property
    def unlock_gil(self) -> bool:
        """Whether other threads may run while an operation waits; this SDK always allows it."""
        return self._unlock_gil

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self._bucket

    @property
    def connected(self) -> bool:
        """Whether there is a cluster map; stays true after :meth:`_close`."""
        connected: bool = self._cluster.connected
        return connected

    @property
    def closed(self) -> bool:
        """Whether :meth:`_close` was called."""
        closed: bool = self._cluster.closed
        return closed

    @property
    def server_nodes(self) -> list[str]:
        """``host:port`` of every node's cluster manager."""
        cluster = self._cluster.map
        tls = self._cluster.tls
        nodes = cluster.nodes if cluster else ()
        return [f"{node.host}:{node.management_port(tls) or 8091}" for node in nodes]

    @property
    def configured_replica_count(self) -> int:
        """Number of replicas that the bucket is configured to have."""
        cluster = self._cluster.map
        return cluster.replicas if cluster else 0

    def errors(self, clear_existing: bool = True) -> tuple[tuple[int, str], ...]:
        """Return the errors that belong to no operation, as ``(rc, text)``: the last 1000 of them.

        :param clear_existing: forget them.
        """
        found = tuple(self._cluster.errors)
        if clear_existing:
            self._cluster.errors.clear()
        return found

    def _close(self) -> None:
        """Close every connection; later operations raise ClientTemporaryFailError."""
        self._driver.close()

    @staticmethod
    def lcb_version() -> tuple[str, int]:
        """Return the version of libcouchbase with the same features, as text and number."""
        return "2.4.7", 0x020407

    def _vbmap(self, key: Key) -> tuple[int, int]:
        """Return ``(vbucket, index of its active node)`` of a key; -1 for no node."""
        cluster = self._cluster.current_map()
        vbucket = cluster.vbucket(self._encode_key(key))
        return vbucket, cluster.active(vbucket)

    def _cntl(self, op: int, value: object = UNSET, value_type: str | None = None) -> Any:
        """Read or change a setting by its libcouchbase number.

        :param op: 0x00 operation timeout, 0x01 view timeout, 0x0d durability timeout, 0x0e durability
            interval, 0x0f HTTP timeout, 0x12 bootstrap timeout, 0x1b bootstrap timeout per host (all in
            microseconds), 0x14 shuffle hosts, 0x15 whether the map came from the cache, 0x17 HTTP redirects,
            0x1f library revision, 0x30 bucket name.
        :param value: the value to set; if it is missing, the setting is read.
        :param value_type: ``"int"``, ``"string"``, ``"timeout"`` (float seconds) ...
        :returns: the value; True after setting with a value_type.
        :raises ArgumentError: the value has a wrong type, or the setting needs a value_type.
        :raises NotSupportedError: an unknown setting, or one that cannot be set.
        """
        return control(self, op, value, value_type)

    def _start_timings(self) -> None:
        """Begin to record how long operations take, from zero."""
        self._driver.timings = Timings()

    def _get_timings(self) -> list[dict[str, Any]]:
        """Return the recorded timings: dicts of ``min``, ``max`` (ms) and ``count``."""
        timings = self._driver.timings
        return timings.histogram() if timings is not None else []

    def _stop_timings(self) -> None:
        """Stop recording."""
        self._driver.timings = None

    def __repr__(self) -> str:
        return (
            f"<couchbase.connection.{type(self).__name__} bucket={self._bucket}, "
            f"nodes={self.server_nodes} at 0x{id(self):x}>"
        )

    # ---- contexts --------------------------------------------------------------------------------

    def _pipeline_begin(self) -> None:
        self._driver.begin_pipeline()

    def _pipeline_end(self) -> list[Any]:
        results: list[Any] = self._driver.end_pipeline()
        return results

    def _thr_lockop(self, op: int) -> None:
        """Take (0) or release (1) the connection's lock, for tests of programs that use threads.

        :raises ObjectThreadError: there is no lock: ``LOCKMODE_NONE``.
        """
        self._driver.lock_by_hand(op)

    def pipeline(self) -> Pipeline:
        """Return a context manager that collects operations, and sends them together."""
        return Pipeline(self)

    def durability(
        self, persist_to: int = -1, replicate_to: int = -1, timeout: float = 0.0
    ) -> DurabilityContext:
        """Return a context manager that sets the durability of mutations without options of their own.

        :param persist_to: nodes that must have it on disk; negative: all.
        :param replicate_to: replicas that must have it in memory; negative: all.
        :param timeout: seconds to wait for the copies; 0 for the default of 5.
        """
        check_count("persist_to", persist_to)
        check_count("replicate_to", replicate_to)
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
            raise ArgumentError.pyexc("timeout must be a number of seconds, 0 or more", obj=timeout)
        return DurabilityContext(self, persist_to, replicate_to, timeout)

    # ---- collections -----------------------------------------------------------------------------

    def collection(
        self, name: str, scope: str | None = None
    ) -> Collection[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT]:
        """Return a view of a collection: the key-value methods, on its documents. Beyond SDK 1.2.

        Nothing is sent: the first operation finds out whether the collection exists.

        :param name: name of the collection.
        :param scope: name of its scope, ``None`` for the default scope.
        :raises ArgumentError: a name that is not valid for a collection or scope.
        """
        view: Collection[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT] = (
            self._view_of(name, scope)
        )
        return view

    def _view_of(self, name: str, scope: str | None) -> Any:
        view = self._collection_type(self, name, scope)
        if self._followers is None:
            self._followers = weakref.WeakValueDictionary()
        self._followers[id(view)] = view
        return view
