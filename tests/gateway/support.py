"""A gateway in memory: the real site and handlers on string transports, and a scripted connection
where a test wants the cluster to say something in particular.
"""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from couchbase.exceptions import KEY_EEXISTS, KEY_ENOENT, CouchbaseError, error_of
from couchbase.protocol.constants import Status
from couchbase.protocol.keyspace import Keyspace
from couchbase.protocol.refused import PATH_STATUSES, REFUSALS, STATUSES, Kind, Refused
from couchbase.result import ExpiryResult, MutationToken
from gateway.app import Gateway
from gateway.cluster.bulk import Lane
from gateway.cluster.credentials import Authorizer, Passthrough, ServiceAccount
from gateway.cluster.pool import ConnectionPool
from gateway.http.application import Guard
from gateway.http.factory import ChannelFactory
from gateway.limits import Limits
from txcouchbase.direct import PreparedStore
from txcouchbase.limited import TimeBudget

SECRET = b"s" * 32
NOW = 1_700_000_000.0


def error(rc: int, **attributes: object) -> CouchbaseError:
    """Return the exception that the driver raises for a result code."""
    return error_of(rc, **attributes)  # type: ignore[arg-type]


class Answer(ExpiryResult):
    """A result as the driver returns it."""

    def __init__(
        self,
        value: Any = None,
        cas: int = 0x1234,
        flags: int = 0x02000000,
        expiry: int = 0,
        token: MutationToken | None = None,
    ) -> None:
        super().__init__(0, cas, value, flags)
        self._expiry = expiry
        if token is not None:
            self._token = token.vbucket, struct.pack(">QQ", token.uuid, token.seqno)


class ScriptedConnection:
    """Answers each operation as scripted, and records it.

    ``answers`` maps a method's name to a result, an exception, or a callable that takes the
    call's arguments and returns a Deferred.
    """

    configured_replica_count = 1
    timeout = 2.5

    def __init__(self, answers: dict[str, Any], clock: Any = None) -> None:
        self.answers = answers
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.budgets: list[TimeBudget] = []
        self.timeouts: list[float] = []
        """The timeout of each single operation that had its own."""
        self.places: list[tuple[str, str]] = []
        """Scope and collection of each time that it was to be used for one."""
        self.headers: list[dict[str, str]] = []
        """The headers of each time that a resource wanted more of them."""
        self.closed = False
        self.reactor = clock or Clock()
        self.operations = ScriptedOperations(self)
        self.timed_operations = ScriptedTimes(self)
        self.bulk: Lane | None = Lane(self._for_large, clock or Clock(), 2.5)

    def _for_large(self) -> ScriptedConnection:
        """Return the connection for large operations: its calls are recorded here, too."""
        other = ScriptedConnection(self.answers)
        other.calls, other.places, other.bulk = self.calls, self.places, None
        return other

    def connect(self) -> Deferred[Any]:
        return self._answer("connect", (), {})

    def limited(self, budget: TimeBudget) -> ScriptedConnection:
        """Return itself, and keep the budget that would limit its operations."""
        self.budgets.append(budget)
        return self

    def with_headers(self, headers: dict[str, str]) -> ScriptedConnection:
        """Return itself, and keep the headers that its requests over HTTP would have."""
        self.headers.append(headers)
        return self

    def within(self, scope: str, collection: str) -> ScriptedConnection:
        """Return itself, and keep the names."""
        self.places.append((scope, collection))
        return self

    def keyspace(self, scope: str, collection: str) -> Keyspace:
        """Return a collection."""
        return Keyspace(scope, collection)

    def _close(self) -> None:
        self.closed = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self._answer(name, args, kwargs)

    def _answer(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Deferred[Any]:
        self.calls.append((name, args, kwargs))
        answer = self.answers.get(name)
        if callable(answer):
            return answer(*args, **kwargs)  # type: ignore[no-any-return]
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)


class ScriptedOperations:
    """A connection's ``operations``: they pass their answers to a receiver."""

    def __init__(self, connection: ScriptedConnection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: ScriptedCall(name, self._connection._answer(name, args, kwargs))

    def store(self, prepared: PreparedStore, key: bytes, value: bytes, cas: int = 0) -> ScriptedCall:
        """Call the method whose arguments were prepared."""
        # An add has no CAS.
        options = {**prepared.options, "cas": cas} if cas or prepared.method != "add" else prepared.options
        store: ScriptedCall = getattr(self, prepared.method)(key, value, **options)
        return store


class ScriptedTimes:
    """A connection's ``timed_operations``: the usual ones, and the timeouts are recorded."""

    def __init__(self, connection: ScriptedConnection) -> None:
        self._connection = connection

    def __getitem__(self, seconds: float) -> ScriptedOperations:
        self._connection.timeouts.append(seconds)
        return self._connection.operations


class ScriptedCall:
    """A running operation.

    :param answer: fires or fails with the receiver's result.
    """

    quiet = False

    def __init__(self, operation: str, answer: Deferred[Any]) -> None:
        self._answer = answer
        self._quiet_for = KEY_EEXISTS if operation == "add" else KEY_ENOENT
        self._abandoned = False

    @property
    def receiver(self) -> Any:
        return None

    @receiver.setter
    def receiver(self, receiver: Any) -> None:
        self._answer.addErrback(self._hushed)
        self._answer.addBoth(self._end)
        self._answer.addCallbacks(
            lambda result: None if self._abandoned else receiver.succeeded(result),
            lambda failure: None if self._abandoned else receiver.failed(failure.value),
        )

    def _hushed(self, failure: Failure) -> Any:
        """Return the result that an operation whose refusals are results has in place of an exception."""
        error = failure.value
        if self.quiet != REFUSALS or not isinstance(error, CouchbaseError):
            return failure
        status = error.status
        if status is None and error.rc == self._quiet_for:
            status = Status.KEY_EEXISTS if error.rc == KEY_EEXISTS else Status.KEY_ENOENT
        if status not in (STATUSES if error.path_index is None else PATH_STATUSES):
            return failure
        return Refused(Kind(error.rc, status, error.path_index), error.path)

    def _end(self, outcome: Any) -> Any:
        if self.ended is not None:
            self.ended(self)
        return outcome

    ended: Any = None

    @property
    def done(self) -> bool:
        return self._answer.called

    def abandon(self) -> None:
        self._abandoned = True
        self._answer.cancel()

    def give_up(self, gone: Any) -> None:
        self.abandon()
        gone()


class Transport(StringTransport):
    """A transport that notifies its protocol when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False
        self.protocol: Any = None
        self.closes_at_once = True
        """Otherwise it still delivers what arrives, as TLS does until the other side has closed."""

    def loseConnection(self) -> None:
        super().loseConnection()
        if self.closes_at_once:
            self._closed()

    def abortConnection(self) -> None:
        self.aborted = True
        self._closed()

    def _closed(self) -> None:
        self.connected = False
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(ConnectionDone()))

    def unregisterProducer(self) -> None:
        self.producer = None


class HalfClosing(Transport):
    """A transport with two halves, as that of TCP: after ``loseWriteConnection`` it still delivers."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True
        self.protocol.writeConnectionLost()

    def end(self) -> None:
        """The client closes its half."""
        if self.protocol is not None:
            self.protocol.readConnectionLost()


class Reply:
    """One parsed answer."""

    def __init__(self, status: int, headers: dict[str, list[str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        values = self.headers.get(name.lower())
        return values[0] if values else None


def read_reply(data: bytes, method: str = "GET") -> tuple[Reply, bytes]:
    """Parse one answer; returns it and what follows it."""
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    status = int(lines[0].split(b" ")[1])
    headers: dict[str, list[str]] = {}
    for line in lines[1:]:
        name, _, value = line.partition(b": ")
        headers.setdefault(name.decode().lower(), []).append(value.decode("latin-1"))
    if method == "HEAD" or status in (204, 304):
        return Reply(status, headers, b""), rest
    if "content-length" in headers:
        length = int(headers["content-length"][0])
        return Reply(status, headers, rest[:length]), rest[length:]
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            return Reply(status, headers, body), rest[2:]
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]


class Site:
    """A gateway without sockets.

    :param answers: what the scripted connection says; see :class:`ScriptedConnection`.
    """

    def __init__(
        self,
        answers: dict[str, Any] | None = None,
        *,
        authorizer: Authorizer | None = None,
        limits: Limits | None = None,
        plugins: Any = (),
        ready: str | None = None,
        quoted_etags: bool = False,
        guard: Guard | None = None,
    ) -> None:
        self.answers = answers if answers is not None else {}
        self.connections: list[ScriptedConnection] = []
        self.clock = Clock()
        self.clock.advance(1000)
        self.pool = ConnectionPool(self._connect, self.clock)
        self.gateway = Gateway(
            authorizer or ServiceAccount("service", "secret", SECRET),
            self.pool,
            self.clock,
            now=lambda: NOW,
            limits=limits or Limits(),
            is_ready=lambda: succeed(ready),
            plugins=plugins,
            quoted_etags=quoted_etags,
            guard=guard,
        )
        self.factory = ChannelFactory(self.gateway, self.clock)
        self.factory.startFactory()

    def _connect(self, bucket: str | None, user: str, password: str) -> ScriptedConnection:
        connection = ScriptedConnection(self.answers, self.clock)
        connection.opened_with = (bucket, user, password)
        self.connections.append(connection)
        return connection

    @property
    def calls(self) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        """Operations asked of the cluster."""
        return [call for one in self.connections for call in one.calls if call[0] != "connect"]

    def client(self, transport: Transport | None = None) -> Transport:
        """Return a new connection of a client."""
        transport = transport or Transport()
        channel = self.factory.buildProtocol(None)
        assert channel is not None
        transport.protocol = channel
        channel.makeConnection(transport)
        return transport

    def send(self, transport: Transport, data: bytes) -> None:
        """Deliver bytes to the gateway, and let it finish its turn."""
        if transport.protocol is not None:
            transport.protocol.dataReceived(data)
        self.clock.pump([0] * 4)

    def request(
        self,
        method: str,
        path: str | bytes,
        body: bytes = b"",
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
    ) -> Reply:
        """Send a request on a new connection, and return the answer."""
        transport = self.client()
        self.send(transport, raw_request(method, path, body, headers))
        return read_reply(transport.value(), method)[0]


def in_every_split(data: bytes) -> Iterator[list[bytes]]:
    """Yield ``data`` whole, byte by byte, and cut once at every position."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for cut in range(1, len(data)):
        yield [data[:cut], data[cut:]]


def raw_request(
    method: str,
    path: str | bytes,
    body: bytes = b"",
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
) -> bytes:
    """Return a request as it goes over the wire."""
    target = path.encode() if isinstance(path, str) else path
    pairs = list(headers.items()) if isinstance(headers, dict) else list(headers or [])
    if body:
        pairs.append(("Content-Length", str(len(body))))
    lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in pairs)
    return method.encode() + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n" + body


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of HTTP Basic."""
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def passthrough() -> Passthrough:
    """Return the authorizer of ``--auth passthrough``."""
    return Passthrough(SECRET)
