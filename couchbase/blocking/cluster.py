"""The cluster as a blocking client sees it: loop, bootstrap, map, routing, repetition, time limits."""

from __future__ import annotations

import os
import random
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from typing import Any, Callable
from uuid import uuid4

from couchbase import exceptions as rc
from couchbase.blocking import http
from couchbase.blocking.calls import Batch, Call
from couchbase.blocking.loop import Loop
from couchbase.blocking.node import Node, connection_error
from couchbase.blocking.resolving import Srv
from couchbase.exceptions import AuthError, BucketNotFoundError, CouchbaseError, error_of
from couchbase.parking import Parking
from couchbase.protocol.clustermap import ClusterMap, parse_cluster_map
from couchbase.protocol.connstr import Seed
from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.frames import Frame
from couchbase.protocol.handshake import Credentials, handshake, no_map
from couchbase.protocol.hashing import vbucket_of
from couchbase.protocol.offers import is_durable
from couchbase.protocol.operations import client_error, error_for

POLL_SECONDS = 2.5
"""How often the map is asked for where the server does not push it."""
IDLE_SECONDS = 0.1
"""After this long without a call, sockets are looked at before the next one is sent."""
EARLY_CALLS = 256
"""Operations that are prepared before they are sent together."""
SILENT_SECONDS = 2.0
"""A connection on which operations time out and nothing comes for this long is made anew."""
REBOOTSTRAP_SECONDS = 0.5
"""The seeds are asked again at most this often."""

_LOOPBACK = ("localhost", "127.", "::1")
_LIVE: weakref.WeakSet[Cluster] = weakref.WeakSet()


class Cluster(Parking, Loop):
    """Connections to the nodes of one cluster, for one bucket. Not safe for threads by itself.

    :param tls_context: an ``ssl.SSLContext``, ``None`` for plain connections.
    :param allow_plain: let PLAIN send the password over a network without TLS.
    :param received: called with ``(configuration, host)`` for each map that came over the network.
    """

    node_type: type[Node] = Node

    def __init__(
        self,
        seeds: Sequence[Seed],
        *,
        bucket: str,
        credentials: Credentials | None,
        tls_context: Any = None,
        allow_plain: bool = False,
        network: str = "auto",
        agent: str = "couchbase-blocking",
        received: Callable[[bytes, str], None] | None = None,
    ) -> None:
        super().__init__()
        self.seeds = tuple(seeds)
        self.bucket = bucket
        self.credentials = credentials
        self.tls_context = tls_context
        self.srv: Srv | None = None
        """Looks up the seeds by DNS, if the connection string may name a cluster."""
        self.map: ClusterMap | None = None
        self.connected = False
        self.closed = False
        self.bootstrap_timeout = 5.0
        self.host_timeout = 2.0
        self.shuffle = False
        self.from_cache = False
        self.nodes: dict[tuple[str, int], Node] = {}
        self.errors: deque[tuple[int, str]] = deque(maxlen=1000)
        """What went wrong outside of operations, as ``(rc, text)``."""
        self._allow_plain = allow_plain
        self._network = network
        self._agent = agent
        self._received = received
        self.after_fork: Callable[[], Callable[[], None] | None] | None = None
        """A weak reference to what is called in a child of this process."""
        # Nodes that left the map and still owe answers.
        self._retired: list[Node] = []
        self._route: list[Callable[[Call, int], None]] = []
        self._lost_all = False
        self._bootstrapped_at = 0.0
        self._asked_at = 0.0
        self._asking = False
        self._turned_at = 0.0
        _LIVE.add(self)

    # --- the loop --------------------------------------------------------------------------

    def run(self, calls: Sequence[Call], deadline: float) -> None:
        """Carry out operations and return when each is over; their outcomes are in the calls."""
        batch = Batch(len(calls))
        began = self.seconds()
        try:
            self.catch_up()
            for start in range(0, len(calls), EARLY_CALLS):
                self._submit_all(calls[start : start + EARLY_CALLS], batch)
                # Nodes can begin while the rest is prepared.
                self._flush()
            while batch.remaining:
                self.turn(deadline)
                if self._lost_all and batch.remaining:
                    self._rebootstrap(deadline)
                if batch.remaining and self.seconds() >= deadline:
                    self.time_out(calls)
                    self._drop_silent(began)
        except BaseException:
            # Interrupted anywhere: no connection is in a state that can be relied on.
            self._abandon(calls)
            raise
        self._turned_at = self.seconds()

    def run_one(self, call: Call, deadline: float) -> None:
        """Carry out one operation."""
        self.run((call,), deadline)

    def catch_up(self) -> None:
        """See what arrived since the last call: lost connections, new maps."""
        now = self.seconds()
        if now - self._turned_at > IDLE_SECONDS and not self.closed:
            self.turn(now)
            self._turned_at = now
            if self._retired:
                self._retired = [node for node in self._retired if not node.close_if_spent()]
            if self._asked_at and now - self._asked_at > POLL_SECONDS:
                self._refresh()

    def _abandon(self, calls: Iterable[Call]) -> None:
        for call in calls:
            call.leave()
            call.done = True
        self._parked.clear()
        self._timers.clear()
        self._asking = False
        for node in (*self.nodes.values(), *self._retired):
            node.waiting.clear()
            if not node.idle:
                node.lose(OSError("a call was interrupted"))

    def time_out(self, calls: Iterable[Call]) -> None:
        """Fail the operations whose time is up."""
        # The last ones first: what waits behind another call must not be sent now.
        for call in [call for call in calls if not call.done][::-1]:
            sent = call.pending is not None
            call.leave()
            if call.attempts and call.last_status and call.last_status != Status.NOT_MY_VBUCKET:
                call.fail(error_for(call, call.last_status))
                continue
            node = self._node_of(call)
            where = f" ({node.name}: {node.last_error})" if node is not None and node.last_error else ""
            call.fail(client_error(call, rc.ETIMEDOUT, f"no answer in time{where}", ambiguous=sent))
        for node in self.nodes.values():
            node.waiting[:] = [entry for entry in node.waiting if not entry[0].done]

    def _drop_silent(self, began: float) -> None:
        """Close connections on which nothing came while somebody waited: their other end may be gone."""
        now = self.seconds()
        for node in self.nodes.values():
            if node.ready and node.asked_at >= began and now - max(began, node.heard_at) >= SILENT_SECONDS:
                node.lose(OSError(f"{node.name} is silent"))

    def _node_of(self, call: Call) -> Node | None:
        if self.map is None or not self.map.rows:
            return None
        server = self.map.active(self.map.vbucket(call.key_bytes))
        return self._servers[server] if server >= 0 else None

    # --- bootstrap -------------------------------------------------------------------------

    def bootstrap(self, deadline: float | None = None) -> None:
        """Get a cluster map from the first seed that gives one.

        :raises CouchbaseError: of the last seed tried; at once for refused credentials or a bucket that is
            not there.
        """
        last = self.seconds() + self.bootstrap_timeout
        if self.srv is not None:
            self.seeds = self.srv.seeds() or self.seeds
        deadline = last if deadline is None else min(deadline, last)
        seeds = list(self.seeds)
        if self.shuffle:
            random.shuffle(seeds)
        error: CouchbaseError = connection_error("any host", OSError("no time left"))
        for seed in seeds:
            for attempt in (self._bootstrap_kv, self._bootstrap_http):
                limit = min(deadline, self.seconds() + self.host_timeout)
                if limit <= self.seconds():
                    break
                try:
                    if attempt(seed, limit):
                        return
                except CouchbaseError as failure:
                    error = failure
                    if isinstance(failure, (AuthError, BucketNotFoundError)):
                        self.note(failure)
                        raise
            self.note(error)
        raise error

    def note(self, error: CouchbaseError) -> None:
        """Remember an error that belongs to no operation."""
        self.errors.append((error.rc, str(error.message or error)))

    def _bootstrap_kv(self, seed: Seed, limit: float) -> bool:
        if seed.kv_port is None:
            return False
        node = self.node_type(seed.host, seed.kv_port, self)
        try:
            node.start()
            while not node.ready:
                if node.idle:
                    assert node.last_error is not None
                    raise connection_error(node.name, node.last_error)
                if self.seconds() >= limit:
                    raise error_of(rc.ETIMEDOUT, f"{node.name} does not answer in time")
                self.turn(limit)
            config = node.session.config
            if config is None:
                raise no_map(node.name, seed.management_port)
            cluster = self._parse(config, seed.host)
        except BaseException:
            node.close()
            raise
        self._start_with(cluster, node)
        self._tell(config, seed.host)
        return True

    def _bootstrap_http(self, seed: Seed, limit: float) -> bool:
        if seed.management_port is None:
            return False
        target = self.target(seed.host, seed.management_port)
        config = http.fetch_config(target, self.bucket, limit - self.seconds())
        self._start_with(self._parse(config, seed.host))
        self._tell(config, seed.host)
        return True

    def start_with_config(self, config: bytes, host: str) -> None:
        """Use a map that was kept, without asking the network.

        :raises CouchbaseError: ProtocolError, it is not a usable map of this bucket.
        """
        cluster = parse_cluster_map(config, host, self._network, host)
        if cluster.name != self.bucket or not cluster.rows:
            raise error_of(rc.PROTOCOL_ERROR, f"not a map of bucket {self.bucket!r}")
        self.from_cache = True
        self._start_with(cluster)

    def _start_with(self, cluster: ClusterMap, node: Node | None = None) -> None:
        # What a seed says holds, whatever was known before: the cluster may have been made anew.
        self.map = None
        self.connected = True
        if node is not None:
            old = self.nodes.get((node.host, node.port))
            self.nodes[node.host, node.port] = node
            if old is not None:
                for call in old.retire():
                    node.send(call, call.vbucket)
                old.close()
        self.adopt(cluster)

    def _rebootstrap(self, deadline: float) -> None:
        """Every node is out of reach: the cluster may have moved, so ask the seeds again."""
        now = self.seconds()
        self._lost_all = False
        if self.closed or now - self._bootstrapped_at < REBOOTSTRAP_SECONDS:
            return
        self._bootstrapped_at = now
        try:
            self.bootstrap(deadline)
            self.from_cache = False
        except CouchbaseError:
            pass  # It is in self.errors; the operations end by their own limits.

    def handshake(self, host: str) -> Generator[Any, Any, Any]:
        """Return the plan of a handshake with a node."""
        tls = self.tls_context is not None
        return handshake(
            agent=self._agent,
            credentials=self.credentials,
            bucket=self.bucket,
            nonce=uuid4().hex,
            plain_allowed=tls or self._allow_plain or host.startswith(_LOOPBACK),
            prefer_plain=tls,
        )

    # --- the map ---------------------------------------------------------------------------

    def _parse(self, config: bytes, host: str) -> ClusterMap:
        return parse_cluster_map(config, host, self._network, self.seeds[0].host if self.seeds else host)

    def _tell(self, config: bytes, host: str) -> None:
        self.from_cache = False
        if self._received is not None:
            self._received(config, host)

    def adopt(self, cluster: ClusterMap) -> bool:
        """Use a map if it is newer than the one in use; operations that wait go by it at once."""
        if self.closed or not cluster.supersedes(self.map) or not cluster.rows:
            return False
        self.map = cluster
        old, self.nodes = self.nodes, {}
        self._servers = []
        tls = self.tls_context is not None
        for address in cluster.nodes[: cluster.data_nodes]:
            port = address.kv_port(tls)
            if port is None:
                self._servers.append(None)
                continue
            node = old.pop((address.host, port), None) or self.node_type(address.host, port, self)
            self.nodes[address.host, port] = node
            self._servers.append(node)
        senders = [node.send if node is not None else self._no_active for node in self._servers]
        self._route = [senders[row[0]] if row[0] >= 0 else self._no_active for row in cluster.rows]
        waiting: list[Call] = []
        for node in old.values():
            waiting += node.retire()
            if not node.idle:
                self._retired.append(node)
        for node in self.nodes.values():
            # What waited for a node may belong to another now.
            waiting += [call for call, _ in node.waiting if not call.done]
            node.waiting.clear()
        for call in waiting:
            self.submit(call)
        return True

    def adopt_from(self, node: Node, config: bytes) -> None:
        """Use the map that a node sent, if it can be used and is newer."""
        try:
            cluster = self._parse(config, node.host)
        except CouchbaseError as error:
            self.note(error)
            return
        if self.adopt(cluster):
            self._tell(config, node.host)

    def node_ready(self, node: Node) -> None:
        """A node can be talked to: ask it for maps later, if it will not send them."""
        session = node.session
        if Feature.CLUSTERMAP_CHANGE_NOTIFICATION not in session.features and not self._asked_at:
            self._asked_at = self.seconds()
        if session.config is not None and self.map is not None:
            self.adopt_from(node, session.config)

    def node_lost(self, node: Node) -> None:
        """A connection was lost, or could not be made."""
        self.dirty[:] = [other for other in self.dirty if other is not node]
        if self.closed or self.nodes.get((node.host, node.port)) is not node:
            return
        self._refresh()
        if (node.failures >= 2 or self.from_cache) and not any(one.ready for one in self.nodes.values()):
            self._lost_all = True

    def _refresh(self) -> None:
        """Ask some node that can answer for its map."""
        if self._asking:
            return
        for node in self.nodes.values():
            if node.ready:
                self._asking = True
                node.ask(Opcode.GET_CLUSTER_CONFIG, partial(self._refreshed, node), {})
                return

    def _refreshed(self, node: Node, frame: Frame | None) -> bool:
        self._asking = False
        if self._asked_at:
            self._asked_at = self.seconds()
        if frame is None:
            return False
        if frame.specific == Status.SUCCESS and frame.value:
            self.adopt_from(node, frame.value)
        else:
            # No map to be had over this protocol: the seeds' cluster managers have it.
            self._lost_all = True
        return False

    def current_map(self) -> ClusterMap:
        """Return the map in use.

        :raises CouchbaseError: ClientTemporaryFailError, there is none.
        """
        if self.map is None or self.closed:
            raise error_of(rc.CLIENT_ETMPFAIL, self._why_not())
        return self.map

    def _why_not(self) -> str:
        return "the connection is closed" if self.closed else "the connection was never made"

    # --- operations ------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Send an operation to the node that owns its key, now or when that is possible."""
        key = call.key_bytes
        if not self._route or self.closed:
            call.fail(client_error(call, rc.CLIENT_ETMPFAIL, self._why_not()))
        elif call.replica is not None:
            self._submit_to_replica(call)
        elif self._parked and key in self._parked and call.ended is None:
            self._parked[key].append(call)
        else:
            if call.framing and call.ended is None and is_durable(call.framing):
                # Until it is decided, readers see the former version, and other writes fail.
                self._hold(call)
            route = self._route
            vbucket = vbucket_of(key, len(route))
            route[vbucket](call, vbucket)

    def _submit_all(self, calls: Sequence[Call], batch: Batch) -> None:
        if len(calls) == 1 or self._parked or not self._route or self.closed:
            for call in calls:
                call.batch = batch
                self.submit(call)
            return
        # submit(), by hand: this is where multi operations spend their time.
        parked = self._parked
        for call in calls:
            call.batch = batch
            if call.framing or parked:
                self.submit(call)
                continue
            route = self._route
            vbucket = vbucket_of(call.key_bytes, len(route))
            if call.replica is None:
                route[vbucket](call, vbucket)
            else:
                self._submit_to_replica(call)

    def _submit_to_replica(self, call: Call) -> None:
        cluster = self.map
        assert cluster is not None and call.replica is not None
        vbucket = cluster.vbucket(call.key_bytes)
        server = cluster.replica(vbucket, call.replica)
        node = self._servers[server] if server >= 0 else None
        if node is None:
            message = f"the bucket has no replica {call.replica} of this key"
            call.fail(client_error(call, rc.NO_MATCHING_SERVER, message))
        else:
            node.send(call, vbucket)

    def _no_active(self, call: Call, vbucket: int) -> None:
        # A vbucket without an active node: a failover may bring one within the operation's time.
        call.vbucket = vbucket
        self._refresh()
        self._park(call)

    def _submit_later(self, call: Call, seconds: float) -> None:
        self.call_at(self.seconds() + seconds, lambda: None if call.done else self.submit(call))

    def _step_of(self, call: Call, request: Any) -> Call:
        step = Call(request.operation, request.key, request.key_bytes)
        step.extras, step.value, step.framing = request.extras, request.value, request.framing
        step.cas = request.cas
        step.batch = Batch(1)
        return step

    def target(self, host: str, port: int) -> http.Target:
        """Return where to send a request over HTTP."""
        return http.Target(host, port, self.credentials, self.tls_context)

    def data_nodes(self) -> list[Node]:
        """Return the nodes that serve the bucket."""
        return [node for node in self._servers if node is not None]

    # --- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection."""
        if self.closed:
            return
        self.closed = True
        for node in (*self.nodes.values(), *self._retired):
            node.close()
        self._timers.clear()
        self.selector.close()

    def start_anew(self) -> None:
        """In a child of the process that made the connections: leave those to the parent.

        The child makes connections of its own when it needs them.
        """
        if self.closed:
            return
        self.renew_selector()
        self._parked.clear()
        self._asking = False
        cluster, self.map = self.map, None
        nodes, self.nodes = self.nodes, {}
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
