"""Requests over HTTP to the nodes of a cluster: its manager, and its view engine."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, inlineCallbacks, succeed
from twisted.internet.error import ConnectError, DNSLookupError, TCPTimedOutError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.headers import Headers as CaselessHeaders
from couchbase.headers import canonical_name
from couchbase.protocol.clustermap import ClusterMap
from txcouchbase.causes import cause_text, network_error
from txcouchbase.tls import WebEndpoints

_Client: Any
try:
    from txcouchbase.webclient import WebClient as _Client
except ImportError:  # httptools has no wheels for PyPy
    from txcouchbase.agentclient import AgentClient as _Client

MANAGEMENT = "management"
VIEWS = "views"
_TITLES = {MANAGEMENT: "a cluster manager", VIEWS: "the view engine"}
CONNECT_TIMEOUT_SECONDS = 5.0
_IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE")  # RFC 9110 9.2.2
# Causes of a request that did not reach a node.
_NOT_SENT = (ConnectError, DNSLookupError, ValueError)
MAX_ANSWER_BYTES = 64 * 2**20
"""Longest answer in bytes that is collected as a whole, unlike rows of views."""


class HttpHeaders(CaselessHeaders):
    """Headers of an answer; lookup ignores case."""

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> HttpHeaders:
        """Return the headers of an answer; of several with one name, the first counts."""
        found: dict[str, str] = {}
        for name, value in headers:
            found.setdefault(
                canonical_name(name.decode("ascii", "replace")), value.strip().decode("utf-8", "replace")
            )
        return cls(found)


class _Collector(Protocol):
    """Collects a whole body, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._pieces: list[bytes] = []
        self._limit = self._left = limit
        self.done: Deferred[bytes] = Deferred(self._cancelled)

    def _cancelled(self, _: object) -> None:
        abort(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            self._pieces.append(data)
        elif not self.done.called:
            text = f"an answer over HTTP is longer than {self._limit} bytes"
            self.done.errback(Failure(network_error(text)))
            abort(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)


def abort(transport: object) -> None:
    """Close the connection of a response's body at once, even if reading is paused.

    :param transport: of the protocol that the body is delivered to.
    """
    # The proxy of Twisted's client offers only loseConnection, which under TLS waits for the peer's closing
    # message; with reading paused that never arrives.
    target = getattr(transport, "_producer", transport)
    end = getattr(target, "abortConnection", None) or getattr(transport, "loseConnection", None)
    if end is not None:
        end()


def collect(response: Any, limit: int = MAX_ANSWER_BYTES) -> Deferred[bytes]:
    """Return a Deferred of a response's body. Cancelling it closes the connection.

    :raises CouchbaseError: NetworkError, it is longer than ``limit``.
    """
    collector = _Collector(limit)
    response.deliverBody(collector)
    return collector.done


class _Known:
    """Base URLs by service, in the map that was used last."""

    def __init__(self) -> None:
        self.map: ClusterMap | None = None
        self.found: dict[str, list[str]] = {}


class HttpService:
    """HTTP for one cluster client: addresses, credentials, TLS, and persistent connections.

    It does not refer to the connection object that it works for.

    :param client: the :class:`txcouchbase.cluster.ClusterClient`.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.running: set[Any] = set()
        """Open streams; each has a ``closed()`` to call when everything is closed."""
        self._web: Any = None
        # These two are shared by the copies that with_headers() makes.
        self._known = _Known()
        self._turns = count(random.randrange(1 << 16))
        self._headers: Mapping[str, str] = {}

    def with_headers(self, headers: Mapping[str, str]) -> HttpService:
        """Return another object for the same service and its connections, whose requests have these headers
        in addition.

        Those of a single request take precedence. Close the original only.
        """
        self._connections()
        # As copy() does, which takes longer than the rest of a small query's way through here.
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._headers = {**self._headers, **headers}
        return other

    def close(self) -> Deferred[Any]:
        """End running requests and close idle connections; fires when they are closed."""
        for stream in list(self.running):
            stream.closed()
        return succeed(None) if self._web is None else self._web.close()

    def addresses(self, service: str) -> list[str]:
        """Return the base URL of a service on each node that runs it, starting with another one each time.

        :param service: :data:`MANAGEMENT`, :data:`VIEWS`, or one of
            :data:`couchbase.protocol.clustermap.SERVICES`.
        :raises CouchbaseError: no node runs it (rc 0x13), or there is no map yet.
        """
        current = self.client.current_map()
        known = self._known
        if known.map is not current:
            known.map, known.found = current, {}
        found = known.found.get(service)
        if found is None:
            found = known.found[service] = self._addresses(service, current)
        if service == VIEWS:
            first = next(self._turns) % len(found)
            return found[first:] + found[:first]
        return found.copy()

    def _addresses(self, service: str, current: ClusterMap) -> list[str]:
        client = self.client
        scheme = "https" if client.tls else "http"
        found = []
        for node in current.nodes:
            if service == MANAGEMENT:
                port = node.management_port(client.tls)
            elif service == VIEWS:
                port = node.views_port(client.tls)
            else:
                port = node.service_port(service, client.tls)
            if port is not None:
                host = f"[{node.host}]" if ":" in node.host else node.host
                found.append(f"{scheme}://{host}:{port}")
        if not found:
            what = _TITLES.get(service, f"the service {service!r}")
            secure = " over TLS" if client.tls else ""
            hint = (
                "; on couchnode, install it with: pip install 'couchgateway[views]'"
                if service == VIEWS
                else ""
            )
            raise error_of(exceptions.NOT_SUPPORTED, f"no node of the cluster offers {what}{secure}{hint}")
        return found

    def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        repeats: bool,
    ) -> Deferred[Any]:
        """Send one request with the credentials; fires with its answer when the head has arrived.

        See :meth:`txcouchbase.webclient.WebClient.request`.

        :param repeats: whether it may be sent again if it is not answered.
        """
        sent = {"Accept": "application/json", "User-Agent": self.client.agent, **self._headers}
        if headers:
            sent.update(headers)
        credentials = self.client.credentials
        if credentials is not None:
            pair = b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()
            sent["Authorization"] = f"Basic {pair}"
        asked: Deferred[Any] = self._connections().request(method, url, sent, body, repeats)
        return asked

    def _connections(self) -> Any:
        web = self._web
        if web is None:
            client = self.client
            endpoints = WebEndpoints(client.reactor, client.tls_policy, CONNECT_TIMEOUT_SECONDS)
            web = self._web = _Client(client.reactor, endpoints)
        return web

    @inlineCallbacks
    def whole(
        self,
        service: str,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 75.0,
    ) -> Generator[Any, Any, tuple[int, HttpHeaders, bytes]]:
        """Ask one node, and the next if that fails; fires with (status, headers, body).

        A POST is sent to the next node only if there was no connection to the one before: that may have
        executed it.

        :param timeout: seconds for all of it; the remaining nodes share the remaining time.
        :raises CouchbaseError: of the last node: TimeoutError or NetworkError.
        """
        last: BaseException | None = None
        addresses = self.addresses(service)
        deadline = self.client.seconds() + timeout
        for number, base in enumerate(addresses):
            share = (deadline - self.client.seconds()) / (len(addresses) - number)
            try:
                answer: tuple[int, HttpHeaders, bytes] = yield self.ask(
                    base, method, path, body=body, headers=headers, timeout=max(share, 0.0)
                )
            except CouchbaseError as error:
                if method not in _IDEMPOTENT and not isinstance(error.inner_cause, _NOT_SENT):
                    raise
                last = error
            else:
                return answer
        assert last is not None
        raise last

    @inlineCallbacks
    def ask(
        self,
        base: str,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 75.0,
    ) -> Generator[Any, Any, tuple[int, HttpHeaders, bytes]]:
        """Ask one node (by its base URL); fires with (status, headers, body).

        :raises CouchbaseError: TimeoutError or NetworkError.
        """
        expired = given_up = False

        def watched(waiting: Deferred[Any]) -> Deferred[Any]:
            """Note whether the caller cancels: Twisted may report that as an unknown host."""

            def cancel(_: object) -> None:
                nonlocal given_up
                given_up = True
                waiting.cancel()

            watching: Deferred[Any] = Deferred(cancel)
            waiting.addCallbacks(watching.callback, watching.errback)
            return watching

        try:
            asked = watched(self.request(method, base + path, body, headers, repeats=method in _IDEMPOTENT))
        except ValueError as error:
            raise http_error(base, error) from error

        def expire() -> None:
            nonlocal expired
            expired = True
            asked.cancel()

        timer = self.client.reactor.callLater(timeout, expire)
        try:
            response = yield asked
            asked = watched(collect(response))
            content = yield asked
        except Exception as error:
            if expired:
                text = f"no answer from {base} in {round(timeout, 3):g} s"
                raise error_of(exceptions.ETIMEDOUT, text, inner_cause=error) from error
            if given_up or any(isinstance(cause, CancelledError) for cause in _causes(error)):
                # The caller cancelled: Twisted reports it as a failed connection, but no other node should be
                # tried.
                raise CancelledError from error
            raise http_error(base, error) from error
        finally:
            if timer.active():
                timer.cancel()
        return response.code, HttpHeaders.of(response.headers), content


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    for reason in getattr(error, "reasons", ()):
        if isinstance(reason, Failure) and reason.value is not None:
            yield from _causes(reason.value)


def http_error(base: str, error: BaseException) -> CouchbaseError:
    """Return the SDK's error for a failed request to a node."""
    if isinstance(error, CouchbaseError):
        return error
    causes = list(_causes(error))
    code = exceptions.NETWORK_ERROR
    if any(isinstance(cause, (TimeoutError, TCPTimedOutError)) for cause in causes):
        code = exceptions.ETIMEDOUT
    elif any(isinstance(cause, DNSLookupError) for cause in causes):
        code = exceptions.UNKNOWN_HOST
    return error_of(code, f"no answer from {base}: {cause_text(causes[-1])}", inner_cause=error)
