"""Sources of the keys that sign tokens: a file, or a URL from which they are fetched periodically."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol as ConnectionProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, PotentialDataLoss, ResponseDone
from twisted.web.http_headers import Headers

from gateway.access.jwks import LARGEST_SET, KeySet, WrongKeySet, parse_key_set
from gateway.access.watched import WatchedFile

__all__ = ["FileKeys", "FetchedKeys", "KeySource", "fetch_with"]

REFRESH_SECONDS = 300.0
"""Seconds between two fetches."""
RETRY_SECONDS = 10.0
"""Seconds from a failed fetch to the next, and at least from any fetch to one caused by an unknown key."""
STALE_SECONDS = 86400.0
"""How long keys stay valid while no fetch succeeds, in seconds."""
FETCH_SECONDS = 5.0
"""Timeout of a fetch, in seconds."""

Fetch = Callable[[], "Deferred[bytes]"]
"""Fires with the text of a key set."""


class KeySource(Protocol):
    """Provides the current keys."""

    on_change: Callable[[], object]
    """Called when keys are added or withdrawn."""

    def current(self) -> KeySet | None:
        """Return the keys; ``None`` if none were fetched yet, or the last ones are too old."""

    def newer(self) -> Deferred[None] | None:
        """Fetch the keys again, because a token names an unknown key.

        :returns: a Deferred that fires when the fetch is over, whatever its outcome; cancelling it is safe.
            ``None`` if the last fetch was a short time ago, or there is nothing to fetch.
        """

    def start(self) -> None:
        """Begin to keep the keys current."""

    def stop(self) -> None:
        """Stop keeping the keys current."""


class FileKeys:
    """Keys of a file; a :class:`~gateway.access.watched.Watcher` watches it for changes."""

    def __init__(self, file: WatchedFile[KeySet]) -> None:
        self._file = file

    @property
    def on_change(self) -> Callable[[], object]:
        """See :class:`KeySource`."""
        return self._file.on_change

    @on_change.setter
    def on_change(self, called: Callable[[], object]) -> None:
        self._file.on_change = called

    def current(self) -> KeySet | None:
        """Return the keys of the file."""
        return self._file.value

    def newer(self) -> Deferred[None] | None:
        """Do nothing: there is nothing to wait for."""
        return None

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class FetchedKeys:
    """Keys that are fetched from a URL.

    Fetched at the start, then every five minutes, ten seconds after a failure, and when a token names an
    unknown key, but then at most every ten seconds: tokens with invented key ids must not make the gateway
    flood the issuer with requests.

    :param fetch: fetches the text of the set; cancelled after five seconds.
    :param name: name of the source, for the log.
    """

    log = Logger()

    def __init__(self, fetch: Fetch, clock: IReactorTime, name: str) -> None:
        self._fetch = fetch
        self._clock = clock
        self._name = name
        self._keys: KeySet | None = None
        self._text = b""
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._running: Deferred[Any] | None = None
        self._waiters: list[Deferred[None]] = []
        self._next: IDelayedCall | None = None
        self._is_stopped = True
        self.on_change: Callable[[], object] = int

    def current(self) -> KeySet | None:
        """Return the keys that were fetched last; ``None`` if they are more than a day old."""
        if self._clock.seconds() - self._fetched_at >= STALE_SECONDS:
            return None
        return self._keys

    def newer(self) -> Deferred[None] | None:
        """Fetch the keys again, or wait for the fetch that is under way."""
        if self._is_stopped:
            return None
        if self._running is None:
            if self._clock.seconds() - self._tried_at < RETRY_SECONDS:
                return None
            self._begin()
            if self._running is None:
                # The fetch is over already.
                return None
        waiter: Deferred[None] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        return waiter

    def start(self) -> None:
        """Fetch for the first time."""
        self._is_stopped = False
        self._begin()

    def stop(self) -> None:
        """Stop fetching."""
        self._is_stopped = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._running is not None:
            self._running.cancel()

    def _again(self) -> None:
        self._next = None
        self._begin()

    def _begin(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._tried_at = self._clock.seconds()
        running = self._running = maybeDeferred(self._fetch)
        running.addTimeout(FETCH_SECONDS, self._clock)
        running.addCallback(self._received)
        running.addErrback(self._failed)

    def _received(self, text: bytes) -> None:
        # Identical text needs no parsing, and no cached token has to be checked again.
        if text != self._text or self._keys is None:
            keys = parse_key_set(text, secrets=False)
            self._keys, self._text = keys, text
            self.log.info("{count} keys for tokens from {name}", count=len(keys), name=self._name)
            self.on_change()
        self._fetched_at = self._clock.seconds()
        self._end(REFRESH_SECONDS)

    def _failed(self, failure: Failure) -> None:
        if not self._is_stopped:
            error = failure.value
            known = isinstance(error, WrongKeySet) or not str(error)
            self.log.error(
                "no keys for tokens from {name}: {error}",
                name=self._name,
                error=error if known and str(error) else f"{type(error).__name__}: {error}",
            )
        if self._keys is not None and self.current() is None:
            # Tokens that they have verified must not be accepted any longer, either.
            self._keys, self._text = None, b""
            self.on_change()
        self._end(RETRY_SECONDS)

    def _end(self, pause: float) -> None:
        self._running = None
        if not self._is_stopped:
            self._next = self._clock.callLater(pause, self._again)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)


class FetchFailed(Exception):
    """A fetch failed; the text says why."""


def fetch_with(agent: Agent, url: str) -> Fetch:
    """Return a function that fetches the text at a URL.

    It follows no redirects: only the issuer's configuration may say where the keys are.

    :param agent: an agent whose policy checks certificates.
    """

    def fetch() -> Deferred[bytes]:
        headers = Headers({b"Accept": [b"application/jwk-set+json, application/json"]})
        asked: Deferred[Any] = agent.request(b"GET", url.encode("ascii"), headers)
        return asked.addCallback(_read)

    return fetch


def _read(response: Any) -> Deferred[bytes]:
    body = _Body()
    done: Deferred[bytes] = Deferred(lambda _: body.abort())
    body.done = done
    response.deliverBody(body)
    if response.code != 200:
        # Nothing waits for the end of this body.
        done.addErrback(lambda _: None)
        body.abort()
        raise FetchFailed(f"the answer has status {response.code}; expected 200, without a redirect")
    return done


class _Body(ConnectionProtocol):
    """Collects a body, up to the largest size of a set."""

    done: Deferred[bytes]

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        """Take a part of the body."""
        self._size += len(data)
        self._parts.append(data)
        if self._size > LARGEST_SET:
            self.fail(FetchFailed(f"the answer has more than {LARGEST_SET} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note that the body is complete, or was cut off."""
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._parts))
        else:
            self.fail(FetchFailed(f"the answer was cut off: {reason.value}"))

    def abort(self) -> None:
        """Drop the connection."""
        self._parts.clear()
        if self.transport is not None:
            self.transport.loseConnection()

    def fail(self, error: Exception) -> None:
        """Drop the connection, and fail."""
        if not self.done.called:
            self.done.errback(error)
        self.abort()
