"""The cluster for a Twisted client: bootstrap, the map, routing, retries, timeouts."""

from __future__ import annotations

import random as random_module
import ssl
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from twisted.internet import defer, threads
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.web.client import ResponseFailed

from couchbase import exceptions
from couchbase.blocking.resolver import Srv
from couchbase.exceptions import AuthError, BucketNotFoundError, CouchbaseError
from couchbase.protocol.call import Call
from couchbase.protocol.clustermap import ClusterMap, NodeAddress, map_of_seed
from couchbase.protocol.connstr import Seed
from couchbase.protocol.dispatch import Dispatcher
from couchbase.protocol.failures import client_error, refusal, seed_error
from couchbase.protocol.handshake import Credentials, no_map
from reactor.clock import cancel_timer
from reactor.kinds import IReactor
from reactor.shutdown import has_ended, watch_end
from txcouchbase.causes import Cause, cause_text, connect_error, network_error
from txcouchbase.configstream import ConfigStream, ForbiddenError
from txcouchbase.link import Backlog, Link
from txcouchbase.node import NodeProtocol
from txcouchbase.planrunner import PlanRunner
from txcouchbase.quiet import connect_quietly, node_endpoint
from txcouchbase.tls import TlsPolicy
from txcouchbase.turn import Turn

_log = Logger()

BOOTSTRAP_TIMEOUT_SECONDS = 5.0
HOST_TIMEOUT_SECONDS = 2.0
POLL_SECONDS = 2.5
"""Seconds between two requests for the map if the server does not push it."""
SWEEP_SECONDS = 0.05
"""Seconds between two checks of timeouts, so an operation may end this much after its timeout."""


class ClusterClient(Dispatcher):
    """Connections to the nodes of one cluster, for one bucket or (``bucket`` None) for none.

    :param allow_plain: whether SASL PLAIN may send the password over a network without TLS.
    :param tls_policy: sets up TLS, for the key-value protocol and HTTP.
    :param random: numbers in [0, 1) for jitter.
    """

    # Many parameters: the settings of a connection string; keywords.
    def __init__(
        self,
        reactor: IReactor,
        seeds: Sequence[Seed],
        *,
        bucket: str | None,
        credentials: Credentials | None,
        tls: bool = False,
        tls_policy: TlsPolicy,
        allow_plain: bool = False,
        network: str = "auto",
        agent: str = "txcouchbase",
        random: Callable[[], float] = random_module.random,
    ) -> None:
        super().__init__(
            seeds,
            bucket=bucket,
            credentials=credentials,
            tls=tls,
            allow_plain=allow_plain,
            network=network,
            agent=agent,
        )
        watch_end(reactor)
        self.reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        self.tls_policy = tls_policy
        self.connected = False
        self.bootstrap_timeout = BOOTSTRAP_TIMEOUT_SECONDS
        self.host_timeout = HOST_TIMEOUT_SECONDS
        self.shuffle = False
        self.from_cache = False
        self.errors: deque[tuple[int, str]] = deque(maxlen=1000)
        """Errors outside of operations, as ``(rc, text)``."""
        self.srv: Srv | None = None
        """Looks up the seeds by DNS, if the connection string may name a cluster."""
        self._random = random
        self._queue = Backlog()
        # The reasons why seeds sent no map in the last attempt.
        self._causes: list[Cause] = []
        # The reason why there will be no map; later operations fail with it, too.
        self._failure: BaseException | None = None
        self._repeats: dict[Any, Call] = {}
        self._sweep: Any = None
        self.owner: Callable[[], Any] = lambda: None
        """A weak reference to the owner, which is kept alive while operations are running."""
        self._kept: Any = None
        self._poll: Any = None
        self._attempt: Deferred[Any] | None = None
        self._stream: ConfigStream | None = None
        self.turn = Turn(reactor, self, self.watch_time)

    @property
    def causes(self) -> list[Cause]:
        """The reasons why addresses of the cluster cannot be used, one for each; empty if all can be used.

        Before there is a map these are the seeds that were tried (one may appear twice: its key-value port
        and its cluster manager's), afterwards the nodes of the map without a connection.
        """
        if self.map is None:
            return list(self._causes)
        return [
            Cause(
                link.address.host,
                link.port,
                "not connected yet" if link.last_error is None else cause_text(link.last_error),
            )
            for link in self.peers.values()
            if link.protocol is None
        ]

    @property
    def problem(self) -> str | None:
        """The reason why documents cannot be served, with each host, port and cause; ``None`` if they can.

        A single node that cannot be reached is a problem, too: its part of the documents is missing.
        """
        if self.closed:
            return "the connection is closed"
        causes = self.causes
        if causes:
            return "; ".join(dict.fromkeys(map(str, causes)))
        return "not connected yet" if self.map is None else None

    # ---- connecting ------------------------------------------------------------------------------

    @inlineCallbacks
    def bootstrap(self) -> Generator[Any, Any, None]:
        """Get a cluster map from the first seed that provides one, and connect to its nodes.

        :raises CouchbaseError: the error of the last seed; raised at once for refused credentials or a
            missing bucket. Operations that were started before fail with it.
        """
        deadline = self.seconds() + self.bootstrap_timeout
        if self.srv is not None and hasattr(self.reactor, "getThreadPool"):
            # In a thread, and for a second at most.
            pool = self.reactor.getThreadPool()
            self._attempt = threads.deferToThreadPool(self.reactor, pool, self.srv.seeds)
            # If the connection is closed in the meantime, the loop below notices.
            with suppress(defer.CancelledError):
                self.seeds = (yield self._attempt) or self.seeds
        error: BaseException = network_error("no host to connect to")
        seeds = list(self.seeds)
        if self.shuffle:
            random_module.shuffle(seeds)
        causes: list[Cause] = []
        for seed in seeds:
            failures: list[CouchbaseError] = []
            for attempt, port in (
                (self._bootstrap_kv, seed.kv_port),
                (self._bootstrap_http, seed.management_port),
            ):
                if port is None:
                    continue
                if (left := deadline - self.seconds()) <= 0 or self.closed:
                    break
                try:
                    self._attempt = self._without_password(attempt, seed)
                    self._attempt.addTimeout(min(left, self.host_timeout), self.reactor)
                    done = yield self._attempt
                except Exception as failure:
                    if has_ended(self.reactor):
                        yield Deferred()  # The reactor has ended: there is nothing to report to.
                    error = connect_error(failure, seed.host, port)
                    self._causes = causes = [*causes, Cause(seed.host, port, cause_text(failure))]
                    self.errors.append((getattr(error, "rc", 0), str(getattr(error, "message", error))))
                    if isinstance(error, (AuthError, BucketNotFoundError)):
                        self._refuse(error)
                        raise error from failure
                    failures.append(error)
                    error = seed_error(failures)
                else:
                    if done:
                        return
        self._refuse(error)
        raise error

    @inlineCallbacks
    def _without_password(
        self, attempt: Callable[[Seed], Deferred[Any]], seed: Seed
    ) -> Generator[Any, Any, Any]:
        """Try a seed; without credentials, also as the user of a bucket without a password."""
        try:
            return (yield attempt(seed))
        except AuthError as refused:
            known = self.credentials is not None or self.tls_policy.has_certificate
            if known or self.bucket is None:
                raise
            self.credentials = Credentials(self.bucket, "")
            try:
                return (yield attempt(seed))
            except AuthError:
                self.credentials = None
                raise refused from None

    def _refuse(self, error: BaseException) -> None:
        if self.map is None:
            self._failure = error
        for call in self._queue.take():
            call.fail(refusal(call, error))

    @inlineCallbacks
    def _bootstrap_kv(self, seed: Seed) -> Generator[Any, Any, bool]:
        assert seed.kv_port is not None
        protocol: NodeProtocol = yield self.connect_node(seed.host, seed.kv_port)
        config = protocol.conversation.session.config
        if config is None and self.bucket is not None:
            protocol.transport.loseConnection()  # type: ignore[union-attr]
            raise no_map(f"{seed.host}:{seed.kv_port}", seed.management_port)
        if config is None:
            cluster = map_of_seed(seed, self.tls)
        else:
            cluster = self.parse_map(config, seed.host, seed.host)
        self.connected = True
        address = (seed.host, seed.kv_port)
        link = self.peer_for(NodeAddress(*address), seed.kv_port)
        link.adopt(protocol)
        self.peers[address] = link
        self.adopt(cluster)
        self._start_polling(protocol)
        return True

    def peer_for(self, address: NodeAddress, port: int) -> Link:
        """Return the link to a node that is new in the map."""
        return Link(address, port, self.reactor, self.connect_node, self._changed, self._random)

    def retire(self, peer: Link) -> list[Call]:
        """Drop the connection to a node that left the map; returns the operations that waited."""
        return peer.close()

    @inlineCallbacks
    def _bootstrap_http(self, seed: Seed) -> Generator[Any, Any, bool]:
        assert seed.management_port is not None
        stream = ConfigStream(
            self, seed.host, seed.management_port, lambda text, host: self._streamed(text, host, seed)
        )
        try:
            yield stream.start()
        except ForbiddenError:
            # The user is valid, but may not list the nodes.
            self.adopt(map_of_seed(seed, self.tls))
        except ResponseFailed as failure:
            # The peer is connected but does not speak HTTP, or not of this kind.
            if any(reason.check(ssl.SSLError, defer.CancelledError) for reason in failure.reasons):
                raise
            wanted = "with TLS (18091)" if self.tls else "without TLS (8091)"
            raise network_error(
                f"{cause_text(failure)}; expected the port of a cluster manager, {wanted}", failure
            ) from failure
        else:
            if self._stream is not None:
                self._stream.stop()
            self._stream = stream
        self.connected = True
        return True

    def _streamed(self, text: bytes, host: str, seed: Seed) -> None:
        cluster = self.parse_map(text, host, host)
        if self.bucket is None and not any(node.management_port(self.tls) for node in cluster.nodes):
            # CouchbaseMock lists none.
            cluster = map_of_seed(seed, self.tls)
        self.adopt(cluster)

    @inlineCallbacks
    def connect_node(self, host: str, port: int) -> Generator[Any, Any, NodeProtocol]:
        """Connect to a node and shake hands; fires with the protocol, ready for operations."""
        protocol = NodeProtocol(self.reactor, host, port, self, self._set_writable, self.turn)
        endpoint: Any = node_endpoint(self.reactor, host.encode("idna") if host.isascii() else host, port)
        if self.tls:
            endpoint = self.tls_policy.wrap(endpoint, host, port, self.reactor)
        yield connect_quietly(endpoint, protocol)
        try:
            yield protocol.greet(self.handshake(host, uuid4().hex))
        except BaseException:
            protocol.transport.abortConnection()  # type: ignore[union-attr]
            raise
        return protocol

    # ---- the map ---------------------------------------------------------------------------------

    def adopt(self, cluster: ClusterMap) -> bool:
        """Use a map if it is newer than the one in use; waiting operations are routed by it at once."""
        if not super().adopt(cluster):
            return False
        for link in self.peers.values():
            link.start()
        for call in self._queue.take():
            # Checks that need a map are made now, before anything is sent.
            before = getattr(call.following, "before", None)
            if before is None or before(call):
                self.submit(call)
        return True

    def reroute(self) -> None:
        """Decide again which conversation gets which operation."""
        super().reroute()
        if self.route:
            self.turn.open()

    def _changed(self, link: Link) -> None:
        self.reroute()
        if link.protocol is None and not self.closed:
            self.refresh()
            if link.failures >= 3 and not any(other.protocol for other in self.peers.values()):
                self._rebootstrap()

    def _rebootstrap(self) -> None:
        """Ask the seeds again: no node can be reached, so the cluster may have moved."""
        if self._attempt is None or self._attempt.called:
            self.bootstrap().addErrback(
                lambda failure: _log.info("no seed answers: {error}", error=failure.value)
            )

    def _set_writable(self, protocol: NodeProtocol, writable: bool) -> None:
        for link in self.peers.values():
            if link.protocol is protocol:
                link.set_writable(writable)

    def map_refused(self, error: CouchbaseError) -> None:
        """Log why a node's map cannot be used."""
        _log.warn("{error}", error=error)

    def _start_polling(self, protocol: NodeProtocol) -> None:
        if not protocol.conversation.pushes_maps:
            self._poll = self.reactor.callLater(POLL_SECONDS, self._poll_now)

    def _poll_now(self) -> None:
        self._poll = self.reactor.callLater(POLL_SECONDS, self._poll_now)
        self.refresh()

    # ---- operations ------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Send an operation to the node that owns its key, now or as soon as possible."""
        self.watch_time()
        super().submit(call)

    def unrouted(self, call: Call) -> None:
        """Queue an operation until there is a map; refuse it if there will be none."""
        if self.closed:
            call.fail(client_error(call, exceptions.CLIENT_ETMPFAIL, "the connection is closed"))
        elif self.bucket is None:
            call.fail(client_error(call, exceptions.EBADHANDLE, "this connection has no bucket"))
        elif self._failure is not None:
            call.fail(refusal(call, self._failure))
        else:
            self._queue.add(call, "the connection is not up yet")

    def why_not(self) -> str:
        """Return the reason why there is no map."""
        return "the connection is closed" if self.closed else "the connection is not up yet"

    def submit_later(self, call: Call, seconds: float) -> None:
        """Submit an operation after a pause, unless it has ended by then."""
        timer: Any = self.reactor.callLater(seconds, lambda: self._repeat(timer))
        self._repeats[timer] = call

    def _repeat(self, timer: IDelayedCall) -> None:
        call = self._repeats.pop(timer)
        if not call.done:
            self.submit(call)

    # ---- time ------------------------------------------------------------------------------------

    def watch_time(self) -> None:
        """Check timeouts, and keep the owner alive, as long as anything waits."""
        if self._sweep is None and not self.closed:
            self._kept = self.owner()
            self._sweep = self.reactor.callLater(SWEEP_SECONDS, self._sweep_now)

    def _sweep_now(self) -> None:
        now = self.seconds()
        for call in self._queue.expired(now):
            self.time_out(call)
        busy = bool(len(self._queue))
        for link in list(self.peers.values()):
            for call in link.backlog.expired(now):
                self.time_out(call)
            busy = busy or bool(len(link.backlog))
            pending = link.conversation.pending if link.conversation is not None else None
            if pending:
                for call in [call for call in pending.values() if call.deadline <= now]:
                    self.time_out(call)
                busy = busy or bool(pending)
        for timer, call in list(self._repeats.items()):
            if call.done or call.deadline <= now:
                timer.cancel()
                del self._repeats[timer]
                self.time_out(call)
        for calls in list(self._parked.values()):
            for call in [call for call in calls if call.deadline <= now]:
                self.time_out(call)
        waiting = list(self.collections.waiting())
        for call in [call for call in waiting if call.deadline <= now]:
            self.time_out(call)
        busy = busy or bool(self._parked or waiting or self.turn.queued)
        if not busy:
            self._kept = None
        self._sweep = self.reactor.callLater(SWEEP_SECONDS, self._sweep_now) if busy else None

    # ---- plans -----------------------------------------------------------------------------------

    def run(self, plan: Generator[Any, Any, Any]) -> Deferred[Any]:
        """Drive a plan that asks nodes of the cluster; fires with the plan's result."""
        return PlanRunner(self.reactor, lambda: self.servers, self.host_timeout).run(plan)

    # ---- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection; running and waiting operations fail."""
        if self.closed:
            return
        self.closed = True
        self.route = []
        for timer in (*self._repeats, self._sweep, self._poll):
            cancel_timer(timer)
        self._sweep = self._poll = self._kept = None
        if self._attempt is not None:
            self._attempt.cancel()
        if self._stream is not None:
            self._stream.stop()
        waiting = [*self._queue.take(), *self._repeats.values(), *self.turn.close()]
        self._repeats.clear()
        for link in self.peers.values():
            waiting += link.close()
        for calls in self._parked.values():
            waiting += calls
        waiting += self.collections.waiting()
        self.start_afresh()
        for call in waiting:
            call.fail(client_error(call, exceptions.CLIENT_ETMPFAIL, "the connection was closed"))
