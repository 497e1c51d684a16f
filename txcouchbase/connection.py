"""Connections for Twisted programs: with Deferreds, or with AsyncResults and callbacks."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Generator, Sequence
from functools import wraps
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, maybeDeferred, succeed
from twisted.python.failure import Failure

from couchbase import exceptions as rc
from couchbase.arguments import (
    check_bucket_user,
    check_credentials,
    check_flags,
    check_hosts,
    check_keywords,
    check_lockmode,
    check_texts,
)
from couchbase.asynchronous.connection import Async
from couchbase.blocking.resolving import srv_of
from couchbase.commands import Commands, no_such_replica
from couchbase.exceptions import ArgumentError, CouchbaseError, NotSupportedError, error_of
from couchbase.items import ItemCollection, ItemTarget, fill
from couchbase.protocol import durability, operations
from couchbase.protocol.connstr import Address, parse_connection_string, seeds_from_hosts
from couchbase.protocol.handshake import Credentials
from couchbase.protocol.stats import Statistics
from couchbase.result import AsyncResult, MultiResult, ValueResult
from couchbase.tlsfiles import OPTIONS as FILE_OPTIONS
from couchbase.tlsfiles import tls_files
from couchbase.transcoder import check_format
from couchbase.user_constants import LOCKMODE_NONE
from txcouchbase.calls import AsyncCall, Call, DeferredCall, Group, GroupCall, call_errback, member_of
from txcouchbase.cluster import ClusterClient
from txcouchbase.designs import DesignMethods
from txcouchbase.direct import Direct
from txcouchbase.enduring import Endurance
from txcouchbase.events import ConnectionEventQueue, ConnectionEvents, TxEventQueue
from txcouchbase.http import MANAGEMENT, HttpService
from txcouchbase.node import network_error
from txcouchbase.tls import client_certificate, trust_root
from txcouchbase.turn import MAX_GIVEN
from txcouchbase.views import BatchedView, ViewMethods

__all__ = ["BatchedView", "Connection", "ConnectionEventQueue", "TxAsyncConnection", "TxEventQueue"]

_new_result: Any = AsyncResult.__new__
_OPTIONS = FILE_OPTIONS | {"network", "nameserver"}


def _operation_names() -> tuple[str, ...]:
    single = (
        *("set", "get", "add", "append", "prepend", "replace", "delete", "incr", "decr", "touch", "lock"),
        *("unlock", "arithmetic", "endure", "observe", "rget"),
    )
    return (*single, *(f"{name}_multi" for name in single), "stats")


class TxAsyncConnection(ViewMethods, DesignMethods, Async):  # type: ignore[misc]
    """A connection whose operations return AsyncResults.

    Operations raise ClientTemporaryFailError until it is up: wait for :meth:`connect`. Never blocks.

    :param bucket: name of the bucket; ``None`` for a session of the cluster as a whole, which has
        no document operations.
    :param host: host name, or list of host names and ``(host, port)`` pairs.
    :param port: port of the cluster manager, for hosts without one of their own.
    :param connection_string: ``couchbase://host1,host2`` instead of ``host`` and ``port``
        (``couchbases://`` for TLS). Options: ``network``, ``nameserver``, and the files of
        :func:`couchbase.tlsfiles.tls_files`.
    :param username: the bucket's name by default, and nothing else with ``host`` and a bucket.
    :param password: ``None`` or empty: no authentication, or where the bucket's own user needs one that of a
        bucket without a password.
    :param timeout: seconds that an operation may take.
    :param quiet: see :attr:`quiet`.
    :param default_format: see :attr:`default_format`.
    :param transcoder: object or class; see :attr:`transcoder`.
    :param certpath: PEM file of the certificates to trust for TLS; the platform's by default.
    :param client_cert: PEM file of the client's certificate, which takes the place of a password over TLS
        (HTTP, too); what follows it in the file is its chain.
    :param client_key: PEM file of its private key; by default it is in the same file.
    :param allow_plain: let SASL PLAIN send the password over a network without TLS.
    :param reactor: the global reactor by default.
    :param lockmode: accepted, as is ``unlock_gil``; there is no lock.
    :param config_cache: accepted, as is its older name ``conncache``, and without effect: the map is always
        asked for, since a program that runs a reactor connects once and stays.
    :raises ArgumentError: a wrong or unknown argument.
    :raises InvalidError: a malformed host or connection string.
    :raises CouchbaseError: (rc 0x26) with ``host``, another user than the bucket's.
    """

    _request_type: type[Any] = AsyncCall
    _member_type: type[Any] = GroupCall
    _cluster: Any
    _waits = False
    """Whether operations may be given before the connection is up."""
    _conncb: Callable[[BaseException | None], Any] | None = None
    """Called once, with None or the exception, when connecting ended."""

    def __init__(
        self,
        *,
        bucket: str | None = None,
        host: Any = "localhost",
        port: int = 8091,
        connection_string: str | None = None,
        username: str | None = None,
        password: str | None = None,
        timeout: float | None = 2.5,
        quiet: bool = False,
        default_format: Any = None,
        transcoder: Any = None,
        certpath: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        allow_plain: bool = False,
        reactor: Any = None,
        lockmode: int = LOCKMODE_NONE,
        unlock_gil: Any = False,
        experimental_gevent_support: Any = False,
        config_cache: str | None = None,
        conncache: str | None = None,
        _no_connect_exceptions: Any = False,
        _cntl: dict[int, Any] | None = None,
        **unknown: Any,
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
        foreign = sorted(set(address.options) - _OPTIONS)
        if foreign:
            raise ArgumentError.pyexc(
                f"unknown connection string options {foreign}; known: {sorted(_OPTIONS)}"
            )
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
        self._lock, self._unlock_gil = None, False
        self._cluster = self._client = ClusterClient(
            reactor,
            address.seeds,
            bucket=self._bucket,
            credentials=credentials,
            tls=address.tls,
            trust_root=trust_root(files.trust) if files.trust else None,
            client_certificate=client_certificate(files),
            allow_plain=allow_plain,
            network=address.options.get("network", "auto"),
        )
        self._client.srv = srv_of(address)
        self._client.owner = weakref.ref(self)
        self._turn = self._client.turn
        self.timeout = 2.5 if timeout is None else timeout
        self._up = self._waits
        # Read by every operation, so not left to the class.
        self._dur_persist_to = self._dur_replicate_to = 0
        self._http = HttpService(self._client)
        self._events = ConnectionEvents(reactor)
        weakref.finalize(self, self._events.destroyed, self._client, self._http).atexit = False
        for op, value in (_cntl or {}).items():
            self._cntl(op, value)
        self._client.bootstrap().addBoth(_bootstrapped, weakref.ref(self), self._events.connect)

    # --- settings and state ----------------------------------------------------------------

    @property
    def timeout(self) -> float:
        """Seconds that an operation may take, its repetitions included."""
        return self._timeout

    @timeout.setter
    def timeout(self, value: Any) -> None:
        Async.timeout.fset(self, value)  # type: ignore[attr-defined]
        self._turn.set_timeout(self._timeout)

    @property
    def server_nodes(self) -> list[str]:
        """``host:port`` of every node's cluster manager."""
        cluster = self._client.map
        nodes = cluster.nodes if cluster else ()
        return [f"{node.host}:{node.management_port(self._client.tls) or 8091}" for node in nodes]

    def _close(self) -> None:
        """Close every connection; operations under way fail. A second call does nothing."""
        self._client.close()
        self._http.close()

    def __del__(self) -> None:
        """Do nothing: the finalizer closes, from the reactor's thread."""

    def _extend_items(self, method: Callable[..., Any], items: Any, kwargs: Any, before: bool) -> Any:
        raise NotSupportedError.pyexc("use append_multi or prepend_multi: items are extended by Connection")

    def _iterate_view(self, view: Any) -> Any:
        raise NotImplementedError("rows come by callbacks: use queryEx or queryAll")

    # --- events ----------------------------------------------------------------------------

    def connect(self) -> Deferred[None]:
        """Return a Deferred that fires with None once connected, or with why that failed."""
        deferred: Deferred[None] = Deferred()
        self.registerDeferred("connect", deferred)
        return deferred

    def registerDeferred(self, event: str, d: Deferred[Any]) -> None:
        """Fire ``d`` when an event happens.

        A Deferred that comes after the event fires, or fails, in the next turn.

        :param event: ``'connect'``: the connection is up, or could not be made; the Deferred fails with
            ObjectDestroyedError if this object is destroyed before. ``'_dtor'``: it was destroyed, and
            its sockets are closed.
        :raises ValueError: another name.
        """
        self._events.queue(event).schedule(d)

    def defer(self, async_result: AsyncResult) -> Deferred[Any]:
        """Return a Deferred for an AsyncResult."""
        deferred: Deferred[Any] = Deferred()
        async_result.set_callbacks(deferred.callback, lambda _, kind, error, trace: deferred.errback(error))
        return deferred

    def direct(self, *, together: int = MAX_GIVEN) -> Direct:
        """Return the operations on single documents without Deferreds and AsyncResults.

        For programs to which each microsecond counts; see :class:`txcouchbase.direct.Direct`. Beyond SDK 1.2.

        :param together: operations of one turn that leave together at the most. A program that does much
            between them gains from a small number: nodes begin to answer while it still makes requests. One
            that does little pays a system call for each lot.
        """
        return Direct(self, self._turn, together)

    # --- how operations are carried out ----------------------------------------------------

    def _send(self, call: Call, wanted: tuple[int, int] | None = None) -> None:
        # What was given before goes first.
        self._turn.drain(later=True)
        call.deadline = self._client.seconds() + self._timeout + self._turn.more_for(len(call.value))
        if wanted is not None:
            timeout = self._dur_timeout / 1_000_000 if self._dur_timeout else self._durability_timeout
            endurance = Endurance(
                self._client, wanted, timeout, self._durability_interval, self._dur_testhook
            )
            call.following = endurance
            if self._client.map is not None and not self._client.closed and not endurance.before(call):
                return
        if call.replica == -1:
            self._any_replica(call)
        else:
            self._client.submit(call)

    def _by_context(self, request: Any) -> tuple[int, int] | None:
        """Return what a durability context requires of an operation that requires nothing itself."""
        if request.operation not in durability.ENDURED:
            return None
        return self._dur_persist_to, self._dur_replicate_to

    def _submit(self, request: Any, durability: tuple[int, int] | None = None) -> Any:
        turn = self._turn
        given = turn.given
        if not given and not self._up:
            raise _not_up()
        # AsyncResult.__init__, by hand.
        answer = request.async_result = _new_result(AsyncResult)
        answer.all_ok = answer._remaining = 1
        if durability is not None or self._dur_persist_to or self._dur_replicate_to:
            self._send(request, durability or self._by_context(request))
        else:
            if not given or len(given) >= MAX_GIVEN:
                turn.wake()
            given.append(request)
        return answer

    def _submit_level(self, request: Any) -> Any:
        if self._dur_persist_to or self._dur_replicate_to:
            return self._submit(request)
        return self._submit_to_replica(request)

    def _submit_to_replica(self, request: Any) -> Any:
        """Send an operation by itself, not with those of the turn."""
        if not self._up:
            raise _not_up()
        answer = request.async_result = AsyncResult()
        answer._remaining = 1
        self._send(request)
        return answer

    def _new_group(self, count: int) -> tuple[Any, Group]:
        """Return what a multi operation gives its caller, and the group that will end it."""
        answer = AsyncResult()
        answer._remaining = count

        def finish(results: MultiResult, error: BaseException | None) -> None:
            if error is not None:
                call_errback(answer, error)
            else:
                answer.callback(answer)

        return answer, Group(answer, count, finish)

    def _submit_multi(self, requests: Sequence[Any], durability: tuple[int, int] | None = None) -> Any:
        if durability is None and (self._dur_persist_to or self._dur_replicate_to):
            durability = self._by_context(requests[0])
        if not self._up:
            raise _not_up()
        answer, group = self._new_group(len(requests))
        if type(requests[0]) is not GroupCall:
            requests = [member_of(request) for request in requests]
        calls: Sequence[GroupCall] = requests
        for call in calls:
            call.group = group
        group.calls = calls
        if durability is None and requests[0].replica is None:
            self._turn.give_all(calls)
        else:
            for call in calls:
                self._send(call, durability)
        return answer

    @inlineCallbacks
    def _any_replica(self, call: Call) -> Generator[Any, Any, None]:
        """Read from one replica after the other until one has the document."""
        try:
            yield self._ready()
            replicas = self._client.current_map().usable_replicas
            error: BaseException = no_such_replica(call)
            for index in range(replicas):
                attempt = DeferredCall(call.operation, call.key, call.key_bytes)
                attempt.decode_value = call.decode_value
                attempt.replica = index
                attempt.deadline = call.deadline
                answer: Deferred[Any] = Deferred(attempt.cancelled)
                attempt.deferred = answer
                self._client.submit(attempt)
                try:
                    result = yield answer
                except CouchbaseError as missed:
                    error = missed
                else:
                    call.succeed(result)
                    return
            if call.quiet and getattr(error, "rc", None) == rc.KEY_ENOENT:
                call.succeed(operations.failed_result(call, rc.KEY_ENOENT))
            else:
                call.fail(error)
        except CouchbaseError as refused:
            call.fail(refused)

    def _told(self, error: BaseException | None) -> None:
        """Connecting ended."""
        if error is None:
            self._up = True
        if self._conncb is not None:
            self._conncb(error)

    def _ready(self) -> Deferred[None]:
        return succeed(None) if self._client.map is not None else self.connect()

    def _finish_with(
        self, work: Callable[[], Deferred[dict[Any, Any]]], keys: Sequence[Any], single: bool, what: Any
    ) -> Any:
        """Answer an operation that many nodes take part in.

        :param work: gives a Deferred of key -> result or exception.
        """
        if not self._up:
            raise _not_up()
        answer, group = self._new_group(len(keys))
        if single:
            answer, call = self._new_call(what, keys[0])

        def done(outcome: dict[Any, Any]) -> None:
            for key in keys:
                value = outcome[key]
                if single:
                    call.fail(value) if isinstance(value, BaseException) else call.succeed(value)
                elif isinstance(value, CouchbaseError):
                    group.add(key, value.result, value)
                else:
                    group.add(key, value, None)

        def failed(failure: Failure) -> None:
            member = Call(what, None, b"")
            for key in keys:
                member.key = key
                reason: Any = failure.value
                code = getattr(reason, "rc", rc.ERROR)
                if single:
                    call.fail(reason)
                else:
                    group.add(key, operations.failed_result(member, code), reason)

        maybeDeferred(self._after_ready, work).addCallbacks(done, failed)
        return answer

    @inlineCallbacks
    def _after_ready(self, work: Callable[[], Deferred[Any]]) -> Generator[Any, Any, Any]:
        yield self._ready()
        return (yield work())

    def _new_call(self, operation: Any, key: Any) -> tuple[Any, Call]:
        call = AsyncCall(operation, key, b"")
        answer = call.async_result = AsyncResult()
        answer._remaining = 1
        return answer, call

    def _submit_observe(self, keys: Sequence[tuple[Any, bytes]], master_only: bool, single: bool) -> Any:
        client = self._client

        @inlineCallbacks
        def work() -> Generator[Any, Any, dict[Any, Any]]:
            plan = durability.observe_plan(client.current_map, [encoded for _, encoded in keys], master_only)
            seen = yield client.run(plan)
            outcome: dict[Any, Any] = {}
            for key, encoded in keys:
                copies = seen[encoded]
                result = ValueResult(0, 0, copies.seen)
                result._key = key
                outcome[key] = result
                if copies.missing or not copies.seen:
                    request = Call(operations.OBSERVE, key, encoded)
                    outcome[key] = durability.observe_error(request, copies, rc.NETWORK_ERROR)
            return outcome

        return self._finish_with(work, [key for key, _ in keys], single, operations.OBSERVE)

    def _submit_endure(
        self,
        keys: Sequence[tuple[Any, bytes, int]],
        persist_to: int,
        replicate_to: int,
        timeout: float,
        interval: float,
        check_removed: bool,
        single: bool,
    ) -> Any:
        client = self._client
        items = [key.item if type(key) is ItemTarget else None for key, _, _ in keys]
        names = [key if item is None else key.key for (key, _, _), item in zip(keys, items, strict=True)]

        @inlineCallbacks
        def work() -> Generator[Any, Any, dict[Any, Any]]:
            requirement = durability.check_requirement(client.current_map(), persist_to, replicate_to)
            plan = durability.endure_plan(
                client.current_map,
                client.seconds,
                {encoded: cas for _, encoded, cas in keys},
                requirement,
                timeout=timeout,
                interval=interval,
                check_removed=check_removed,
            )
            codes = yield client.run(plan)
            outcome: dict[Any, Any] = {}
            for (_, encoded, _), key, item in zip(keys, names, items, strict=True):
                code = codes[encoded]
                result = operations.failed_result(Call(operations.ENDURE, key, encoded), code)
                if item is not None:
                    fill(item, result)
                    result = item
                outcome[key] = result
                if code:
                    outcome[key] = durability.endure_error(key, code, requirement, "endure", result)
            return outcome

        return self._finish_with(work, names, single, operations.ENDURE)

    def _submit_stats(self, groups: Sequence[str]) -> Any:
        if not self._up:
            raise _not_up()
        answer, call = self._new_call(operations.STATS, None)
        self._ready().addCallback(lambda _: self._first_attempts()).addCallbacks(
            lambda _: self._ask_stats(groups, answer, call), lambda failure: call.fail(failure.value)
        )
        return answer

    def _first_attempts(self) -> Deferred[Any]:
        """Wait for the nodes to which nobody has tried to connect before."""
        links = self._client.peers.values()
        waited = [link.up() for link in links if link.conversation is None and not link.failures]
        return gatherResults(waited).addTimeout(
            self._timeout, self._client.reactor, onTimeoutCancel=lambda *_: None
        )

    def _ask_stats(self, groups: Sequence[str], answer: Any, call: Call) -> None:
        collected = MultiResult()
        timer: Any = None

        def finish() -> None:
            if timer is not None:
                timer.cancel()
            if isinstance(answer, AsyncResult):
                answer.update(collected)
                answer._remaining = 0
                answer.callback(answer)
            else:
                call.succeed(collected)

        round_ = Statistics(collected, groups, finish)
        talks = [link.conversation for link in self._client.peers.values() if link.conversation is not None]
        questions = [(talk, question) for talk in talks for question in round_.questions(talk.name)]
        if not talks:
            self._client.reactor.callLater(0, call.fail, network_error("no node is connected"))
            return
        asked = [(talk, talk.ask(*question)) for talk, question in questions]

        def expire() -> None:
            for talk, number in asked:
                talk.forget(number)
            call.fail(operations.client_error(call, rc.ETIMEDOUT, "not every node answered in time"))

        if round_.open:
            timer = self._client.reactor.callLater(self._timeout, expire)

    # --- the cluster manager ---------------------------------------------------------------

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


class Connection(TxAsyncConnection):
    """A connection whose operations return Deferreds.

    A Deferred fires with the Result (MultiResult of a multi operation), or fails with what SDK 1.2's
    blocking call would raise. Cancelling it gives the operation up: its answer is ignored, but a
    mutation already sent may still be carried out.
    """

    _request_type: type[Any] = DeferredCall
    _waits = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not self.connected:
            # In the way only until then.
            self.__class__ = _connecting(type(self))

    def _told(self, error: BaseException | None) -> None:
        super()._told(error)
        if error is None:
            self.__class__ = getattr(type(self), "_when_connected", type(self))

    def _submit(self, request: Any, durability: tuple[int, int] | None = None) -> Any:
        answer: Deferred[Any] = Deferred(request.cancelled)
        request.deferred = answer
        if durability is not None or self._dur_persist_to or self._dur_replicate_to:
            self._send(request, durability or self._by_context(request))
        else:
            turn = self._turn
            given = turn.given
            if not given or len(given) >= MAX_GIVEN:
                turn.wake()
            given.append(request)
        return answer

    def _submit_to_replica(self, request: Any) -> Any:
        answer: Deferred[Any] = Deferred(request.cancelled)
        request.deferred = answer
        self._send(request)
        return answer

    def start(self, call: Call) -> None:
        """Carry out an operation that the caller made, and that does without a Deferred.

        For programs that give a great many: they derive from :class:`txcouchbase.calls.Call` what an
        operation means to them. The connection ends it by calling its ``succeed`` with a result or its
        ``fail`` with an exception, perhaps before this returns; its ``abandon`` gives it up.

        :param call: a request as :mod:`couchbase.protocol.operations` describes it, with its key checked and
            its value encoded. It is not one that reads from replicas. A synchronous write keeps its place
            among the operations on its key, as that of a method does.
        """
        framing = call.framing
        if framing and framing != operations.PRESERVE_EXPIRY_FRAMING:
            self._send(call)
            return
        turn = self._turn
        given = turn.given
        if not given or len(given) >= MAX_GIVEN:
            turn.wake()
        given.append(call)

    def _new_group(self, count: int) -> tuple[Any, Group]:
        def finish(results: MultiResult, error: BaseException | None) -> None:
            if not answer.called:
                answer.callback(results) if error is None else answer.errback(error)

        group = Group(MultiResult(), count, finish)
        answer: Deferred[Any] = Deferred(group.abandon)
        return answer, group

    def _extend_items(self, method: Callable[..., Any], items: Any, kwargs: Any, before: bool) -> Any:
        if not isinstance(items, ItemCollection):
            raise ArgumentError.pyexc("expected a collection of items with the option fragment", obj=items)

        def extend(results: Any) -> Any:
            # Of a failure, too: some items may have been extended.
            found = getattr(results.value, "all_results", {}) if isinstance(results, Failure) else results
            self._extend_values(found, items, before)
            return results

        return method(items, **kwargs).addBoth(extend)

    def _new_call(self, operation: Any, key: Any) -> tuple[Any, Call]:
        call = DeferredCall(operation, key, b"")
        answer: Deferred[Any] = Deferred(call.cancelled)
        call.deferred = answer
        return answer, call


def _bootstrapped(result: Any, connection: Any, event: ConnectionEventQueue) -> None:
    error = result.value if isinstance(result, Failure) else None
    known = connection()
    if known is not None:
        known._told(error)
        # Those who wait may let the object go.
        del known
        event(error)


_connecting_classes: dict[type, type] = {}


def _connecting(cls: type[Connection]) -> type[Connection]:
    """Return the class of a connection that is not up: what is wrong with arguments fails the Deferred."""
    made = _connecting_classes.get(cls)
    if made is None:
        members: dict[str, Any] = {name: _early(getattr(cls, name)) for name in _EARLY}
        members |= {"_when_connected": cls, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
        made = _connecting_classes[cls] = type(cls.__name__, (cls,), members)
    return made


def _early(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.connected:
            return method(self, *args, **kwargs)
        try:
            return method(self, *args, **kwargs)
        except CouchbaseError:
            failed: Deferred[Any] = Deferred()
            failed.errback(Failure())
            return failed

    return call


def _not_up() -> CouchbaseError:
    return error_of(rc.CLIENT_ETMPFAIL, "the connection is not up yet")


for _name in _operation_names():
    if _name.endswith("_multi"):
        setattr(TxAsyncConnection, f"{_name[:-6]}Multi", getattr(Commands, _name))

_EARLY = tuple(name for name in dir(Connection) if name in _operation_names() or name.endswith("Multi"))
