"""The cluster for a blocking client: loop, bootstrap, map, routing, retries, timeouts."""

from __future__ import annotations

import os
import random
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Callable

from couchbase import exceptions
from couchbase.blocking import http
from couchbase.blocking.calls import BlockingCall, WaitGroup
from couchbase.blocking.faults import connection_error
from couchbase.blocking.loop import Loop
from couchbase.blocking.node import NodeConnection
from couchbase.blocking.resolver import Srv
from couchbase.exceptions import AuthError, BucketNotFoundError, CouchbaseError, error_of
from couchbase.protocol.clustermap import ClusterMap, NodeAddress, parse_cluster_map
from couchbase.protocol.connstr import Seed
from couchbase.protocol.dispatch import Dispatcher
from couchbase.protocol.failures import client_error, seed_error
from couchbase.protocol.handshake import Credentials, no_map
from couchbase.protocol.hashing import vbucket_of
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE

if TYPE_CHECKING:
    import ssl

POLL_SECONDS = 2.5
"""Seconds between two requests for the map if the server does not push it."""
IDLE_SECONDS = 0.1
"""Number of seconds without a call after which sockets are checked before the next call is sent."""
EARLY_CALLS = 256
"""Number of operations that are prepared before they are sent together."""
SILENT_SECONDS = 2.0
"""A connection is reopened if operations time out and nothing arrives for this number of seconds."""
REBOOTSTRAP_SECONDS = 0.5
"""Minimum number of seconds between two requests to the seeds."""

# The group of an operation outside of the loop, whose answer a signal handler may receive with its own.
_NO_GROUP = WaitGroup(0)

_LIVE: weakref.WeakSet[Cluster] = weakref.WeakSet()


class Cluster(Dispatcher, Loop):
    """Connections to the nodes of one cluster, for one bucket. Not thread-safe by itself.

    :param tls_context: an ``ssl.SSLContext``, ``None`` for plain connections.
    :param allow_plain: whether SASL PLAIN may send the password over a network without TLS.
    :param received: called with ``(configuration, host)`` for each map that came over the network.
    """

    node_type: type[NodeConnection] = NodeConnection
    # A blocking caller waits for everything that it submitted, so its own memory is the limit.
    most_pending = sys.maxsize

    # Many parameters: the settings of a connection string; keywords.
    def __init__(
        self,
        seeds: Sequence[Seed],
        *,
        bucket: str,
        credentials: Credentials | None,
        tls_context: ssl.SSLContext | None = None,
        allow_plain: bool = False,
        network: str = "auto",
        agent: str = "couchbase-blocking",
        received: Callable[[bytes, str], None] | None = None,
    ) -> None:
        super().__init__(
            seeds,
            bucket=bucket,
            credentials=credentials,
            tls=tls_context is not None,
            allow_plain=allow_plain,
            network=network,
            agent=agent,
        )
        self.tls_context = tls_context
        self.srv: Srv | None = None
        """Looks up the seeds by DNS, if the connection string may name a cluster."""
        self.connected = False
        self.bootstrap_timeout = 5.0
        self.host_timeout = 2.0
        self.shuffle = False
        self.from_cache = False
        self.errors: deque[tuple[int, str]] = deque(maxlen=1000)
        """Errors outside of operations, as ``(rc, text)``."""
        self._received = received
        self.after_fork: Callable[[], Callable[[], None] | None] | None = None
        """A weak reference to the function to call in a child of this process."""
        # Nodes that are no longer in the map, but still owe answers.
        self._retired: list[NodeConnection] = []
        self._lost_all = False
        self._bootstrapped_at = 0.0
        self._asked_at = 0.0
        self._turned_at = 0.0
        _LIVE.add(self)

    # ---- the loop --------------------------------------------------------------------------------

    def run(self, calls: Sequence[BlockingCall], deadline: float) -> None:
        """Execute operations and return when all are over; their outcomes are in the calls."""
        group, began = WaitGroup(len(calls)), self.seconds()
        try:
            self.catch_up()
            for start in range(0, len(calls), EARLY_CALLS):
                self.start_all(calls[start : start + EARLY_CALLS], group, deadline)
                # Nodes can start to work while the rest is prepared.
                self.flush()
            self._finish(calls, group, began, deadline)
        except BaseException:
            # The interruption may have happened anywhere, so no connection's state is reliable.
            self._abandon(calls)
            raise
        self._turned_at = self.seconds()

    def _finish(self, calls: Sequence[BlockingCall], group: WaitGroup, began: float, deadline: float) -> None:
        """Turn until all are over."""
        while group.remaining:
            self.turn(deadline)
            if self._lost_all and group.remaining:
                self._rebootstrap(deadline)
            if group.remaining and self.seconds() >= deadline:
                self.time_out_all(calls)
                self._drop_silent(began)

    def run_one(self, call: BlockingCall, now: float, deadline: float) -> None:
        """Execute one operation.

        The operation of a program that waits for each answer mostly needs one send, one wait and one recv.
        They are made here directly if nothing else is going on. If anything but its success follows, the loop
        continues as if it had sent the operation.

        :param now: the current time.
        """
        route, timers = self.route, self._timers
        until = timers[0][0] if timers and timers[0][0] < deadline else deadline
        prefix: bytes | None = None
        busy = now - self._turned_at > IDLE_SECONDS or self.dirty or self._parked or call.replica is not None
        if route and now < until and not busy:
            vbucket = vbucket_of(call.key_bytes, len(route))
            talk: Any = route[vbucket]
            if talk is not None and talk.line.readable is not None:
                keyspace, prefix = call.keyspace, talk.prefix
                if keyspace is not DEFAULT_KEYSPACE:
                    prefix = (prefix and keyspace.prefix) or None
        if prefix is None:
            self.run((call,), deadline)
            return
        call.group = _NO_GROUP
        try:
            rest = talk.line.exchange(call, call.enter(talk, prefix, vbucket) + call.value, until - now)
            if rest is not None:
                self._rounds += 1
                call.deadline = deadline
                call.group = group = WaitGroup(0 if call.done else 1)
                talk.line.asked_at = now
                rest()
                self._finish((call,), group, now, deadline)
        except BaseException:
            self._abandon((call,))
            raise
        self._turned_at = self.seconds()

    def catch_up(self) -> None:
        """Process the events since the last call: lost connections, new maps."""
        now = self.seconds()
        if now - self._turned_at > IDLE_SECONDS and not self.closed:
            self.turn(now)
            self._turned_at = now
            self._retired = [node for node in self._retired if not node.close_if_spent()]
            if self._asked_at and now - self._asked_at > POLL_SECONDS:
                self.refresh()

    def _abandon(self, calls: Iterable[BlockingCall]) -> None:
        for call in calls:
            call.leave()
            call.done = True
        self.start_afresh()
        self._timers.clear()
        for node in (*self.peers.values(), *self._retired):
            node.waiting.clear()
            if not node.idle:
                node.lose(OSError("a call was interrupted"))

    def start_all(self, calls: Sequence[BlockingCall], group: WaitGroup, deadline: float) -> None:
        """Submit operations, to wait for all of them together.

        Either all have a ``replica``, or none has one.
        """
        for call in calls:
            call.group = group
        if not self.route or self.closed or (calls and calls[0].replica is not None):
            for call in calls:
                call.deadline = deadline
                self.submit(call)
            return
        for conversation in self.send_all(calls, deadline):
            conversation.line.schedule()

    def time_out_all(self, calls: Iterable[BlockingCall]) -> None:
        """Fail the operations whose timeout has passed."""
        # In reverse order: a call that waits behind another one must not be sent now.
        for call in [call for call in calls if not call.done][::-1]:
            self.time_out(call)
        for node in self.peers.values():
            node.waiting[:] = [call for call in node.waiting if not call.done]

    def _drop_silent(self, began: float) -> None:
        """Close connections on which nothing arrived while calls waited: the peer may be gone."""
        now = self.seconds()
        for node in self.peers.values():
            if node.is_ready and node.asked_at >= began and now - max(began, node.heard_at) >= SILENT_SECONDS:
                node.lose(OSError(f"{node.name} is silent"))

    # ---- bootstrap -------------------------------------------------------------------------------

    def bootstrap(self, deadline: float | None = None) -> None:
        """Get a cluster map from the first seed that provides one.

        :raises CouchbaseError: the error of the last seed; raised at once for refused credentials or a
            missing bucket.
        """
        last = self.seconds() + self.bootstrap_timeout
        if self.srv is not None:
            self.seeds = self.srv.seeds() or self.seeds
        deadline, seeds = last if deadline is None else min(deadline, last), list(self.seeds)
        if self.shuffle:
            random.shuffle(seeds)
        error: CouchbaseError = connection_error("any host", OSError("no time left"))
        for seed in seeds:
            failures: list[CouchbaseError] = []
            for attempt in (self._bootstrap_kv, self._bootstrap_http):
                limit = min(deadline, self.seconds() + self.host_timeout)
                if limit <= self.seconds():
                    break
                try:
                    if attempt(seed, limit):
                        return
                except CouchbaseError as failure:
                    if isinstance(failure, (AuthError, BucketNotFoundError)):
                        self.note(failure)
                        raise
                    failures.append(failure)
            error = seed_error(failures) if failures else error
            self.note(error)
        raise error

    def note(self, error: CouchbaseError) -> None:
        """Record an error that does not belong to an operation."""
        self.errors.append((error.rc, str(error.message or error)))

    def _bootstrap_kv(self, seed: Seed, limit: float) -> bool:
        if seed.kv_port is None:
            return False
        node = self.node_type(seed.host, seed.kv_port, self)
        try:
            node.start()
            while not node.is_ready:
                if node.idle:
                    assert node.last_error is not None
                    raise connection_error(node.name, node.last_error)
                if self.seconds() >= limit:
                    raise error_of(exceptions.ETIMEDOUT, f"{node.name} does not answer in time")
                self.turn(limit)
            assert node.conversation is not None
            config = node.conversation.session.config
            if config is None:
                raise no_map(node.name, seed.management_port)
            cluster = self.parse_map(config, seed.host)
        except BaseException:
            node.close()
            raise
        self._start_with(cluster, node)
        self.map_came(config, seed.host)
        return True

    def _bootstrap_http(self, seed: Seed, limit: float) -> bool:
        if seed.management_port is None:
            return False
        target = self.target(seed.host, seed.management_port)
        config = http.fetch_config(target, self.bucket or "", limit - self.seconds())
        self._start_with(self.parse_map(config, seed.host))
        self.map_came(config, seed.host)
        return True

    def start_with_config(self, config: bytes, host: str) -> None:
        """Use a cached map, without asking the network.

        :raises CouchbaseError: ProtocolError, the cached text is not a usable map of this bucket.
        """
        cluster = parse_cluster_map(config, host, self._network, host)
        if cluster.name != self.bucket or not cluster.rows:
            raise error_of(exceptions.PROTOCOL_ERROR, f"not a map of bucket {self.bucket!r}")
        self.from_cache = True
        self._start_with(cluster)

    def _start_with(self, cluster: ClusterMap, node: NodeConnection | None = None) -> None:
        # A seed's map replaces any earlier one: the cluster may have been recreated.
        self.map = None
        self.connected = True
        if node is not None:
            old = self.peers.get((node.host, node.port))
            self.peers[node.host, node.port] = node
            if old is not None:
                for call in old.retire():
                    node.send(call, call.vbucket)
                old.close()
        self.adopt(cluster)

    def _rebootstrap(self, deadline: float) -> None:
        """Ask the seeds again: no node can be reached, so the cluster may have moved."""
        now = self.seconds()
        self._lost_all = False
        if self.closed or now - self._bootstrapped_at < REBOOTSTRAP_SECONDS:
            return
        self._bootstrapped_at = now
        try:
            self.bootstrap(deadline)
            self.from_cache = False
        except CouchbaseError:
            pass  # The error is in self.errors; the operations end by their own timeouts.

    # ---- the map ---------------------------------------------------------------------------------

    def peer_for(self, address: NodeAddress, port: int) -> NodeConnection:
        """Return a node for a new entry of the map; it connects when there is something to send."""
        return self.node_type(address.host, port, self)

    def retire(self, peer: NodeConnection) -> list[Any]:
        """Retire a node; outstanding answers may still come. Returns the operations that waited."""
        waiting = peer.retire()
        if not peer.idle:
            self._retired.append(peer)
        return waiting

    def adopt(self, cluster: ClusterMap) -> bool:
        """Use a map if it is a bucket's map, and newer than the one in use."""
        return bool(cluster.rows) and super().adopt(cluster)

    def map_refused(self, error: CouchbaseError) -> None:
        """Record why a node's map cannot be used."""
        self.note(error)

    def map_came(self, config: bytes, host: str) -> None:
        """Keep a map that arrived over the network."""
        self.from_cache = False
        if self._received is not None:
            self._received(config, host)

    def map_asked(self, given: bool) -> None:
        """Ask again later; ask the seeds' cluster managers if nodes give no map over this protocol."""
        if self._asked_at:
            self._asked_at = self.seconds()
        if not given:
            self._lost_all = True

    def node_ready(self, node: NodeConnection) -> None:
        """Handle a ready node: ask it for maps later, if it does not push them."""
        talk = node.conversation
        if talk is None:
            return
        if not talk.pushes_maps and not self._asked_at:
            self._asked_at = self.seconds()
        if talk.session.config is not None and self.map is not None:
            self.adopt_from(talk, talk.session.config)

    def node_lost(self, node: NodeConnection) -> None:
        """Handle a lost or failed connection."""
        self.dirty[:] = [other for other in self.dirty if other is not node]
        if self.closed or self.peers.get((node.host, node.port)) is not node:
            return
        self.refresh()
        if (node.failures >= 2 or self.from_cache) and not any(one.is_ready for one in self.peers.values()):
            self._lost_all = True

    def why_not(self) -> str:
        """Return the reason why there is no map."""
        return "the connection is closed" if self.closed else "the connection was never made"

    # ---- operations ------------------------------------------------------------------------------

    def unrouted(self, call: Any) -> None:
        """Refuse an operation: there is no map."""
        call.fail(client_error(call, exceptions.CLIENT_ETMPFAIL, self.why_not()))

    def submit_later(self, call: Any, seconds: float) -> None:
        """Submit an operation after a pause, unless it has ended by then."""
        self.call_at(self.seconds() + seconds, lambda: None if call.done else self.submit(call))

    def target(self, host: str, port: int) -> http.Target:
        """Return the target of a request over HTTP."""
        return http.Target(host, port, self.credentials, self.tls_context)

    def data_nodes(self) -> list[NodeConnection]:
        """Return the nodes that serve the bucket."""
        return [node for node in self.servers if node is not None]

    # ---- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection."""
        if self.closed:
            return
        self.closed = True
        for node in (*self.peers.values(), *self._retired):
            node.close()
        self._timers.clear()
        self.selector.close()

    def start_anew(self) -> None:
        """In a forked child, leave the connections to the parent process.

        The child opens its own connections when it needs them.
        """
        if self.closed:
            return
        self.renew_selector()
        self.start_afresh()
        cluster, self.map = self.map, None
        nodes, self.peers = self.peers, {}
        for node in (*nodes.values(), *self._retired):
            node.forget_socket()
        self._retired = []
        if self.after_fork is not None:
            renew = self.after_fork()
            if renew is not None:
                renew()
        if cluster is not None:
            self.adopt(cluster)


def _after_fork() -> None:
    for cluster in list(_LIVE):
        cluster.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
