"""Operations without Deferreds, at the lowest possible cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol, cast

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from couchbase.arguments import check_cas
from couchbase.codec import SHORT_KEY, Codec
from couchbase.commands import Commands
from couchbase.driver import Driver
from couchbase.exceptions import NotSupportedError, ValueFormatError
from couchbase.protocol.operations import EXPIRY_LOOKUP_VALUE, GET_WITH_EXPIRY, mutation_framing
from couchbase.protocol.request import Request
from couchbase.signatures import Key
from couchbase.transcoder import RawTranscoder
from txcouchbase.calls import Call
from txcouchbase.cluster import ClusterClient
from txcouchbase.endurance import Waiting
from txcouchbase.turn import Turn

__all__ = ["Direct", "DirectCall", "DirectDriver", "PreparedStore", "Receiver", "refuse_more"]

_log = Logger()


class Receiver(Protocol):
    """Where the outcome of an operation is reported, by one of the two methods, once, after the call that
    started it has returned.

    What they raise is logged.
    """

    def succeeded(self, result: Any) -> None:
        """Take the result that a Deferred would fire with."""

    def failed(self, error: BaseException) -> None:
        """Take the exception that a Deferred would fail with; its ``all_results`` is not set."""


class DirectCall(Call):
    """A running operation; set :attr:`receiver` before control returns to the reactor.

    :meth:`txcouchbase.calls.Call.abandon` cancels it: its receiver is not called any more. A mutation that
    was already sent may still be executed. ``abandon`` can be called at any time, repeatedly.
    """

    __slots__ = ("receiver",)

    receiver: Receiver

    def succeed(self, result: object) -> None:
        """Pass the result to the receiver."""
        if self.done:
            return
        self.done = True
        if self.ended is not None:
            self.ended(self)
        try:
            self.receiver.succeeded(result)
        except Exception:  # noqa: BLE001  # a program's receiver must not end the connection
            _log.failure("a receiver failed, or there was none")

    def fail(self, error: BaseException) -> None:
        """Pass the error to the receiver."""
        if hasattr(self, "receiver"):
            self._fail(error)
        else:
            # Called inside the call that started it (a full queue, a closed connection).
            from twisted.internet import reactor

            cast(IReactorTime, reactor).callLater(0, self._fail, error)

    def _fail(self, error: BaseException) -> None:
        if self.done:
            return
        self._end()
        try:
            self.receiver.failed(error)
        except Exception:  # noqa: BLE001  # as above
            _log.failure("a receiver failed, or there was none")


class Direct(
    Commands[DirectCall, DirectCall, DirectCall, NoReturn, NoReturn, NoReturn, DirectCall, NoReturn]
):
    """A connection's operations on single documents, which report their outcome to a receiver.

    Made by :meth:`txcouchbase.connection.Connection.direct`. Methods, arguments, results and exceptions are
    the connection's, but what a method returns is a :class:`DirectCall`::

        direct = connection.direct()
        call = direct.get(key)
        call.receiver = self  # has succeeded(result) and failed(error)

    Wrong arguments raise exceptions. Operations started before the connection is up wait for it. The settings
    (``quiet``, ``transcoder`` ...) are this object's own, copied from the connection when it was created;
    only the timeout is always the connection's. Multi operations, replicas and mutations that wait for copies
    (``persist_to``, ``replicate_to``, a durability context) are for the connection alone: NotSupportedError.
    """

    _request_type: type[Any] = DirectCall
    _driver: DirectDriver

    def __init__(self, connection: Codec, driver: DirectDriver) -> None:
        self._driver = driver
        # Keep a reference: a connection closes when it is collected.
        self._connection = connection
        self.quiet = connection.quiet
        self.default_format = connection.default_format
        self.transcoder = connection.transcoder
        self.data_passthrough = connection.data_passthrough
        # Every store reads it, so it is an attribute of the instance, not of the class.
        self._keyspace = self._keyspace

    def get_with_expiry(self, key: Key, quiet: bool | None = None, no_format: bool = False) -> DirectCall:
        """Read a document together with its expiry; see
        :meth:`txcouchbase.connection.Connection.get_with_expiry`."""
        is_usual = self._key_type is bytes and quiet is None and not no_format
        if is_usual and type(key) is bytes and 0 < len(key) <= SHORT_KEY:
            # The request that the method would make.
            request = DirectCall(GET_WITH_EXPIRY, key, key, self._quiet, self._decoder, self._keyspace)
            request.value = EXPIRY_LOOKUP_VALUE
            return self._driver.submit(request)
        return super().get_with_expiry(key, quiet, no_format)

    def store(self, prepared: PreparedStore, key: Key, value: bytes, cas: int = 0) -> DirectCall:
        """Store bytes unchanged, whatever the transcoder does with values, with arguments that were prepared.

        :param cas: change only this version; 0 for any. An ``add`` has none.
        :raises ArgumentError: the key or the CAS is not valid.
        :raises ValueFormatError: the value is not ``bytes``.
        """
        if type(key) is bytes and self._key_type is bytes and 0 < len(key) <= SHORT_KEY:
            # The request that the other branch would make.
            request = DirectCall(prepared.operation, key, key)
            request.keyspace = self._keyspace
        else:
            request = self._request(prepared.operation, key)
        if type(value) is not bytes:
            raise ValueFormatError.pyexc(f"the value must be bytes, not {type(value).__name__}", obj=value)
        request.value = value
        request.extras = prepared.extras
        if cas:
            # The shift is 0 for 1 to 2**64-1 only.
            request.cas = check_cas(cas) if cas.__class__ is not int or cas >> 64 else cas
        if prepared.level:
            driver = self._driver
            request.framing = mutation_framing(prepared.level, driver.level_ms, prepared.keeps_expiry)
            return driver.submit_level(request)
        request.framing = prepared.framing
        return self._driver.submit(request)

    def within(self, seconds: float) -> Direct:
        """Return the same operations with another timeout, which starts with each operation.

        This object does not change; the returned one has its current settings.

        :param seconds: the timeout.
        """
        other: Direct = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._driver = self._driver.within(seconds)
        return other


class DirectDriver(Driver[DirectCall]):
    """Operations that report their outcome to a receiver."""

    # Driver.__init__() is not called: it makes settings, and these operations have the connection's.
    def __init__(
        self,
        turn: Turn,
        together: int,
        cluster: ClusterClient,
        wait: Callable[[Call, Waiting], None],
    ) -> None:
        self._turn = turn
        self._together = together
        self._cluster = cluster
        self._wait = wait

    @property
    def timeout(self) -> float:
        """Timeout of an operation, in seconds: the connection's."""
        return self._turn.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._turn.set_timeout(seconds)

    def submit(self, request: DirectCall, durability: tuple[int, int] | None = None) -> DirectCall:
        """Execute one request."""
        if durability is not None:
            refuse_more()
        turn = self._turn
        queued = turn.queued
        if not queued:
            turn.wake()
        elif len(queued) >= self._together:
            turn.drain()
            turn.wake()
        queued.append(request)
        return request

    def submit_level(self, request: DirectCall) -> DirectCall:
        """Execute a synchronous write."""
        self.submit(request)
        # Afterwards, as operations before it may have been sent.
        self._turn.has_levels = True
        return request

    def within(self, seconds: float) -> DirectDriver:
        """Return a driver of operations whose timeout differs from the connection's."""
        return _TimedDriver(self, seconds)

    def submit_to_replica(self, request: DirectCall) -> NoReturn:
        """Refuse."""
        refuse_more()

    def submit_multi(self, requests: Sequence[Any], durability: tuple[int, int] | None = None) -> NoReturn:
        """Refuse."""
        refuse_more()

    def submit_observe(self, documents: Sequence[Request], master_only: bool, single: bool) -> NoReturn:
        """Refuse."""
        refuse_more()

    def submit_endure(
        self,
        documents: Sequence[Request],
        persist_to: int,
        replicate_to: int,
        timeout: float,
        interval: float,
        check_removed: bool,
        single: bool,
    ) -> DirectCall:
        """Wait until enough nodes hold a document."""
        if not single:
            refuse_more()
        call: Any = documents[0]
        wanted = persist_to, replicate_to
        waiting = Waiting(self._cluster, documents, wanted, timeout, interval, check_removed)
        waiting.begin(call, self._wait)
        return call

    def submit_stats(self, groups: Sequence[str]) -> NoReturn:
        """Refuse."""
        refuse_more()


class _TimedDriver(DirectDriver):
    """Operations that have a timeout of their own."""

    def __init__(self, usual: DirectDriver, seconds: float) -> None:
        super().__init__(usual._turn, usual._together, usual._cluster, usual._wait)
        self._seconds = seconds

    @property
    def timeout(self) -> float:
        """Timeout of an operation, in seconds."""
        return self._seconds

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        raise AttributeError("these operations have the timeout that they were given")

    def submit(self, request: DirectCall, durability: tuple[int, int] | None = None) -> DirectCall:
        """Execute one request."""
        # As in the base class, without a call of it.
        if durability is not None:
            refuse_more()
        turn = self._turn
        queued = turn.queued
        if not queued:
            turn.wake()
        elif len(queued) >= self._together:
            turn.drain()
            turn.wake()
        # Not before: it is for the operations that are sent next.
        turn.limits[request] = self._seconds
        queued.append(request)
        return request


class PreparedStore:
    """The arguments of a store other than key, value and CAS: checked and encoded once for many documents.

    See :meth:`Direct.store`.

    :param method: ``set``, ``add``, ``replace``, ``append`` or ``prepend``.
    :param options: the method's keyword arguments, without a CAS; ``format`` is the 32 bits of flags.
    :raises ArgumentError: the expiry is not valid.
    :raises NotSupportedError: the store waits for copies.
    :raises ValueFormatError: the flags are not valid.
    """

    __slots__ = ("extras", "framing", "keeps_expiry", "level", "method", "operation", "options")

    def __init__(self, method: str, **options: Any) -> None:
        self.method = method
        self.options = options
        # The method itself makes the request.
        request: DirectCall = getattr(Direct(_raw, _Unsent()), method)(b"-", b"", **options)
        self.operation = request.operation
        self.extras = request.extras
        self.framing = request.framing
        self.level: int = options.get("durability_level", 0)
        # Framing extras with a level contain its timeout, which is the connection's.
        self.keeps_expiry: bool = options.get("preserve_expiry", False)


class _Unsent(DirectDriver):
    """Returns requests instead of sending them."""

    level_ms = 0

    def __init__(self) -> None:
        """It has no turn."""

    def submit(self, request: DirectCall, durability: tuple[int, int] | None = None) -> DirectCall:
        """Return the request."""
        if durability is not None:
            refuse_more()
        return request

    def submit_level(self, request: DirectCall) -> DirectCall:
        """Return the request."""
        return request


_raw = Codec()
_raw.transcoder = RawTranscoder()


def refuse_more() -> NoReturn:
    """Refuse an operation that is more than one on one document."""
    raise NotSupportedError.pyexc(
        "use the connection itself: this operation is more than one on one document"
    )
