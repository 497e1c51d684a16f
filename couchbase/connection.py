"""The blocking connection of SDK 1.2."""

from __future__ import annotations

import socket
import ssl
import threading
import warnings
import weakref
from functools import partial
from typing import Any

from couchbase.arguments import (
    check_bucket_user,
    check_credentials,
    check_flags,
    check_hosts,
    check_keywords,
    check_lockmode,
    check_texts,
)
from couchbase.blocking import configcache
from couchbase.blocking.cluster import Cluster
from couchbase.blocking.designing import Designing
from couchbase.blocking.resolving import srv_of
from couchbase.controls import UNSET, control
from couchbase.exceptions import *  # noqa: F403 - SDK 1.2 has these names here, too
from couchbase.exceptions import ArgumentError, CouchbaseError
from couchbase.pipeline import DurabilityContext, Pipeline
from couchbase.protocol.connstr import Address, parse_connection_string, seeds_from_hosts
from couchbase.protocol.durability import check_count
from couchbase.protocol.handshake import credentials_for
from couchbase.result import *  # noqa: F403
from couchbase.timings import Timings
from couchbase.tlsfiles import OPTIONS as FILE_OPTIONS
from couchbase.tlsfiles import mismatch, read_certificates, read_key, tls_files
from couchbase.transcoder import check_format
from couchbase.user_constants import *  # noqa: F403
from couchbase.user_constants import LOCKMODE_NONE, LOCKMODE_WAIT
from couchbase.views.iterator import View

__all__ = ["Connection", "DurabilityContext", "Pipeline", "View"]

_OPTIONS = FILE_OPTIONS | {"network", "nameserver"}


class Connection(Designing):
    """A connection to a bucket whose operations wait for their answers.

    The constructor connects, and blocks until it has a cluster map. Threads may share one connection, which
    serves one at a time; see ``lockmode``. After a fork the child makes connections of its own.

    :param bucket: name of the bucket.
    :param host: host name, or list of host names and ``(host, port)`` pairs, tried in order until one gives
        the cluster map.
    :param port: port of the cluster manager, for hosts without one of their own.
    :param username: the bucket's name by default, and nothing else with ``host``.
    :param password: ``None`` or empty: no authentication.
    :param quiet: see :attr:`quiet`.
    :param timeout: see :attr:`timeout`; ``None`` for 2.5 seconds.
    :param transcoder: object, or class that is called without arguments; see :attr:`transcoder`.
    :param default_format: see :attr:`default_format`.
    :param lockmode: what happens when two threads use the connection at once: ``LOCKMODE_WAIT`` (the
        default) lets the second wait, ``LOCKMODE_EXC`` raises ObjectThreadError in it, ``LOCKMODE_NONE``
        checks nothing.
    :param unlock_gil: accepted; false forces ``LOCKMODE_NONE``.
    :param config_cache: path of a file that keeps the cluster map; used instead of the network if it holds a
        map, and written after a map came from the network.
    :param conncache: the older name of ``config_cache``.
    :param connection_string: ``couchbase://host1,host2`` instead of ``host`` and ``port`` (``couchbases://``
        for TLS), for any user name. Options: ``network``, ``nameserver``, and
        the files of :func:`couchbase.tlsfiles.tls_files`. Beyond SDK 1.2.
    :param certpath: PEM file of the certificates to trust for TLS; the platform's by default.
    :param client_cert: PEM file of the client's certificate, which takes the place of a password over TLS
        (HTTP, too); what follows it in the file is its chain.
    :param client_key: PEM file of its private key; by default it is in the same file.
    :param allow_plain: let SASL PLAIN send the password over a network without TLS.
    :raises ArgumentError: a wrong or unknown argument.
    :raises InvalidError: a malformed host or connection string.
    :raises CouchbaseNetworkError: no host gives a cluster map: NetworkError, UnknownHostError, TimeoutError.
    :raises AuthError: wrong credentials.
    :raises BucketNotFoundError: no such bucket.
    """

    _cluster_type: type[Cluster] = Cluster
    _sockets: Any = socket

    def __init__(
        self,
        *,
        bucket: str | None = None,
        host: Any = "localhost",
        port: int = 8091,
        username: str | None = None,
        password: str | None = None,
        quiet: Any = False,
        timeout: float | None = 2.5,
        transcoder: Any = None,
        default_format: Any = None,
        lockmode: int = LOCKMODE_WAIT,
        unlock_gil: Any = True,
        config_cache: str | None = None,
        conncache: str | None = None,
        connection_string: str | None = None,
        certpath: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        allow_plain: bool = False,
        experimental_gevent_support: Any = False,
        _no_connect_exceptions: Any = False,
        _cntl: dict[int, Any] | None = None,
        **unknown: Any,
    ) -> None:
        if hasattr(self, "_cluster"):
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
        if set(address.options) - _OPTIONS:
            raise ArgumentError.pyexc(
                f"options of a connection string are {sorted(_OPTIONS)}", obj=address.options
            )
        self._bucket = bucket or address.bucket or ""
        if not self._bucket:
            raise ArgumentError.pyexc("a bucket name is needed")
        if connection_string is None:
            check_bucket_user(username, self._bucket)
        self.quiet = quiet
        if default_format is not None:
            self.default_format = check_format(default_format, "default_format")
        self.transcoder = transcoder() if isinstance(transcoder, type) else transcoder
        self.timeout = 2.5 if timeout is None else timeout
        self._unlock_gil = bool(unlock_gil)
        self._lockmode = lockmode if unlock_gil else LOCKMODE_NONE
        self._lock = threading.Lock() if self._lockmode != LOCKMODE_NONE else None
        if conncache is not None:
            warnings.warn("conncache is now named config_cache", DeprecationWarning, stacklevel=2)
        self._cache = config_cache or conncache
        files = tls_files(
            address, certpath=certpath, client_cert=client_cert, client_key=client_key, password=password
        )
        context = self._tls_context(files.trust) if address.tls else None
        if files.certificate is not None and files.key is not None:
            _load_client_certificate(context, files.certificate, files.key)
        self._cluster = self._cluster_type(
            address.seeds,
            bucket=self._bucket,
            credentials=None if files.certificate else credentials_for(self._bucket, username, password),
            tls_context=context,
            allow_plain=allow_plain,
            network=address.options.get("network", "auto"),
            received=partial(configcache.save, self._cache) if self._cache else None,
        )
        self._cluster.srv = srv_of(address, self._sockets)
        self._cluster.after_fork = weakref.WeakMethod(self._renew_lock)
        for op, value in (_cntl or {}).items():
            self._cntl(op, value)
        try:
            self._bootstrap()
        except CouchbaseError:
            if not _no_connect_exceptions:
                self._cluster.close()
                raise

    def _bootstrap(self) -> None:
        kept = configcache.load(self._cache) if self._cache else None
        if kept is not None:
            try:
                self._cluster.start_with_config(*kept)
                return
            except CouchbaseError:
                pass  # Replaced by the map from the network.
        self._cluster.bootstrap()

    _new_context: Any = staticmethod(ssl.create_default_context)

    def _tls_context(self, certpath: str | None) -> Any:
        if certpath is None:
            return self._new_context()
        text = b"\n".join(read_certificates(certpath, "certpath")).decode("ascii", "replace")
        try:
            return self._new_context(cadata=text)
        except (OSError, ValueError) as error:
            raise ArgumentError.pyexc(
                f"certpath {certpath!r} is not a PEM certificate: {error}", inner=error
            ) from error

    def __del__(self) -> None:
        cluster = getattr(self, "_cluster", None)
        if cluster is not None:
            try:
                cluster.close()
            except (AttributeError, TypeError):
                pass  # At the end of the interpreter, whose parts are gone already.

    # --- settings and state ----------------------------------------------------------------

    @property
    def timeout(self) -> float:
        """Seconds that an operation may take, its repetitions included."""
        return self._timeout

    @timeout.setter
    def timeout(self, value: Any) -> None:
        self._timeout = _seconds("timeout", value)

    @property
    def views_timeout(self) -> float:
        """Seconds that a request to a view may take."""
        return self._views_timeout

    @views_timeout.setter
    def views_timeout(self, value: Any) -> None:
        self._views_timeout = _seconds("views_timeout", value)

    @property
    def lockmode(self) -> int:
        """What happens when two threads use the connection at once."""
        return self._lockmode

    @property
    def unlock_gil(self) -> bool:
        """Whether other threads may run while an operation waits; they do in any case."""
        return self._unlock_gil

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self._bucket

    @property
    def connected(self) -> bool:
        """Whether the cluster map is there; stays true after :meth:`_close`."""
        return self._cluster.connected

    @property
    def closed(self) -> bool:
        """Whether :meth:`_close` was called."""
        return self._cluster.closed

    @property
    def server_nodes(self) -> list[str]:
        """``host:port`` of every node's cluster manager."""
        cluster = self._cluster.map
        tls = self._cluster.tls_context is not None
        nodes = cluster.nodes if cluster else ()
        return [f"{node.host}:{node.management_port(tls) or 8091}" for node in nodes]

    @property
    def configured_replica_count(self) -> int:
        """How many replicas the bucket is configured to have."""
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
        self._cluster.close()

    @staticmethod
    def lcb_version() -> tuple[str, int]:
        """Return the version of libcouchbase whose features are here, as text and number."""
        return "2.4.7", 0x020407

    def _vbmap(self, key: Any) -> tuple[int, int]:
        """Return ``(vbucket, index of its active node)`` of a key; -1 for no node."""
        cluster = self._cluster.current_map()
        vbucket = cluster.vbucket(self._encode_key(key))
        return vbucket, cluster.active(vbucket)

    def _cntl(self, op: int, value: Any = UNSET, value_type: str | None = None) -> Any:
        """Read or change a setting by its libcouchbase number.

        :param op: 0x00 operation timeout, 0x01 view timeout, 0x0d durability timeout, 0x0e durability
            interval, 0x0f HTTP timeout, 0x12 bootstrap timeout, 0x1b bootstrap timeout per host (all in
            microseconds), 0x14 shuffle hosts, 0x15 whether the map came from the cache, 0x17 HTTP redirects,
            0x1f library revision, 0x30 bucket name.
        :param value: what to set; read without one.
        :param value_type: ``"int"``, ``"string"``, ``"timeout"`` (float seconds) ...
        :returns: the value; True after setting with a value_type.
        :raises ArgumentError: a wrong type, or a setting that needs a value_type.
        :raises NotSupportedError: an unknown setting, or one that cannot be set.
        """
        return control(self, op, value, value_type)

    def _start_timings(self) -> None:
        """Count how long operations take, from zero."""
        self._timings = Timings()

    def _get_timings(self) -> list[dict[str, Any]]:
        """Return the counts: dicts of ``min``, ``max`` (ms) and ``count``."""
        return self._timings.histogram() if self._timings is not None else []

    def _stop_timings(self) -> None:
        """Count no more."""
        self._timings = None

    def __repr__(self) -> str:
        return (
            f"<couchbase.connection.{type(self).__name__} bucket={self._bucket}, "
            f"nodes={self.server_nodes} at 0x{id(self):x}>"
        )

    # --- contexts --------------------------------------------------------------------------

    def pipeline(self) -> Pipeline:
        """Return a context manager inside of which operations are collected, and sent together."""
        return Pipeline(self)

    def durability(
        self, persist_to: int = -1, replicate_to: int = -1, timeout: float = 0.0
    ) -> DurabilityContext:
        """Return a context manager inside of which mutations wait for copies without saying so.

        :param persist_to: nodes that must have it on disk; negative: all.
        :param replicate_to: replicas that must have it in memory; negative: all.
        :param timeout: seconds to wait for them, 0 for 5.
        """
        check_count("persist_to", persist_to)
        check_count("replicate_to", replicate_to)
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
            raise ArgumentError.pyexc("timeout must be a number of seconds from 0", obj=timeout)
        return DurabilityContext(self, persist_to, replicate_to, timeout)

    # --- as a mapping ----------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        return self.get(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: Any) -> None:
        self.delete(key)


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not value > 0:
        raise ValueError(f"{name} must be above 0, not {value!r}")
    return float(value)


def _load_client_certificate(context: Any, certificate: str, key: str) -> None:
    read_certificates(certificate, "client_cert")
    read_key(key, "client_key")
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise mismatch(certificate, key, error) from error
