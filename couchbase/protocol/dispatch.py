"""Routes operations by the cluster map to the conversation with a node, in order for each key.

A driver's cluster derives from :class:`Dispatcher` and adds what the core lacks: sockets (its *peers*, one
for each node) and time. The methods that it has to provide are in the first section of the class."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.call import Call
from couchbase.protocol.clustermap import ClusterMap, NodeAddress, parse_cluster_map
from couchbase.protocol.collections import Collections
from couchbase.protocol.connstr import Seed
from couchbase.protocol.constants import Magic, Opcode, Status
from couchbase.protocol.conversation import LARGE_BYTES, Conversation
from couchbase.protocol.failures import client_error, error_for, timeout_error
from couchbase.protocol.frames import HEADER, Frame
from couchbase.protocol.handshake import FEATURES, Credentials, handshake, hello
from couchbase.protocol.hashing import vbucket_of, vbuckets_of
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace
from couchbase.protocol.offers import is_durable
from couchbase.protocol.order import Order
from couchbase.protocol.peer import takes_all
from couchbase.protocol.version import VERSION

MAX_PENDING = 65_536
"""Largest number of operations that may wait for answers in one conversation."""

_LOOPBACK = ("localhost", "127.", "::1")
_REQUEST = int(Magic.REQUEST)
_ALT_REQUEST = int(Magic.ALT_REQUEST)
_pack = HEADER.pack
_NOBODY: Any = object()
_KEYSPACE_OF = attrgetter("keyspace")
_NUMBER_OF = attrgetter("keyspace.number")
# Values of which a request is certainly not a large one.
_SMALL_BYTES = LARGE_BYTES // 2


class Dispatcher(Order):
    """A driver's cluster without its sockets and its clock.

    :param seeds: nodes to ask for the first map.
    :param bucket: ``None`` for a session of the cluster as a whole.
    :param tls: whether connections are secured.
    :param allow_plain: whether SASL PLAIN may send the password over a network without TLS.
    :param network: which addresses of the nodes to use: ``"auto"``, ``"default"``, ``"external"`` ...
    :param agent: the program's name, sent to servers with the version.
    """

    most_pending = MAX_PENDING
    """Largest number of operations that may wait for answers in one conversation; later ones are refused."""
    least_rate = float("inf")
    """Lowest assumed transfer rate of a large value, in bytes a second: its operation's timeout is extended
    accordingly, so that only a dead peer, not a slow network, ends it."""

    def __init__(
        self,
        seeds: Sequence[Seed],
        *,
        bucket: str | None,
        credentials: Credentials | None,
        tls: bool,
        allow_plain: bool,
        network: str,
        agent: str,
    ) -> None:
        super().__init__()
        self.seeds = tuple(seeds)
        self.bucket = bucket
        self.credentials = credentials
        self.tls = tls
        self.map: ClusterMap | None = None
        self.closed = False
        self.peers = {}
        self.servers: list[Any] = []
        """The nodes by their index in the map; ``None`` for a node without a key-value port."""
        self.route: list[Conversation | None] = []
        """Vbucket -> the conversation that accepts all operations on it, if there is one."""
        self._owners: list[Any] = []
        self._allow_plain, self._network = allow_plain, network
        self.agent = f"{agent}/{VERSION}"
        self._asking = False
        self.collections = Collections(self)

    # ---- what a driver provides ------------------------------------------------------------------

    def peer_for(self, address: NodeAddress, port: int) -> Any:
        """Return a :class:`couchbase.protocol.peer.Peer` for a node that is new in the map.

        Nothing is sent yet.
        """
        raise NotImplementedError

    def retire(self, peer: Any) -> list[Call]:
        """Retire a node that is no longer in the map; returns the operations that waited for it."""
        raise NotImplementedError

    def unrouted(self, call: Call) -> None:
        """Take an operation that is submitted before there is a map, or after the cluster was closed."""
        raise NotImplementedError

    def why_not(self) -> str:
        """Return the reason why there is no map: closed, or not connected yet."""
        raise NotImplementedError

    def map_refused(self, error: CouchbaseError) -> None:
        """Called with an unusable map from a node."""

    def map_came(self, config: bytes, host: str) -> None:
        """Called after a new map came into use."""

    def map_asked(self, given: bool) -> None:
        """Called with the answer to the request for the map.

        :param given: whether the node sent a map; if not, ask the seeds' cluster managers.
        """

    # ---- the map ---------------------------------------------------------------------------------

    def handshake(self, host: str, nonce: str) -> Generator[Any, Any, Any]:
        """Return the plan of a handshake with a node.

        :param nonce: a random text that was never used before.
        """
        return handshake(
            agent=self.agent,
            credentials=self.credentials,
            bucket=self.bucket,
            nonce=nonce,
            plain_allowed=self.tls or self._allow_plain or host.startswith(_LOOPBACK),
            prefer_plain=self.tls,
        )

    def hello(self, *more: int) -> tuple[int, dict[str, Any]]:
        """Return the request that gives a connection its usual features, and additional ones until the next
        HELLO."""
        return hello(self.agent, (*FEATURES, *more))

    def parse_map(self, config: bytes, host: str, asked: str | None = None) -> ClusterMap:
        """Read a cluster map.

        :param host: the node that sent the map, in which its own name may be missing.
        :param asked: the seed through which the cluster was found; by default the first.
        :raises CouchbaseError: ProtocolError, or NotSupportedError for a bucket without vbuckets.
        """
        if asked is None:
            asked = self.seeds[0].host if self.seeds else host
        return parse_cluster_map(config, host, self._network, asked)

    def current_map(self) -> ClusterMap:
        """Return the map in use.

        :raises CouchbaseError: ClientTemporaryFailError, there is none.
        """
        if self.map is None or self.closed:
            raise error_of(exceptions.CLIENT_ETMPFAIL, self.why_not())
        return self.map

    def adopt(self, cluster: ClusterMap) -> bool:
        """Use a map if it is newer than the one in use; waiting operations are routed by it at once."""
        if self.closed or not cluster.supersedes(self.map):
            return False
        self.map = cluster
        self.collections.of_bucket(cluster.uuid)
        if not cluster.data_nodes:
            # A session with the whole cluster: the seed's connection is the only one.
            return True
        old, self.peers = self.peers, {}
        self.servers = []
        for address in cluster.nodes[: cluster.data_nodes]:
            port = address.kv_port(self.tls)
            if port is None:
                self.servers.append(None)
                continue
            peer = old.pop((address.host, port), None) or self.peer_for(address, port)
            self.peers[address.host, port] = peer
            self.servers.append(peer)
        self.reroute()
        waiting: list[Call] = []
        for peer in old.values():
            waiting += self.retire(peer)
        for peer in self.peers.values():
            # Operations that waited for a node may belong to another node now.
            waiting += peer.take_waiting()
        for call in waiting:
            self.submit(call)
        return True

    def opened(self, conversation: Conversation) -> None:
        """Take note of a new conversation: its bucket may be a new one with the same name."""
        config, uuid = conversation.session.config, None
        if config is not None:
            try:
                uuid = self.parse_map(config, conversation.host).uuid
            except CouchbaseError:
                pass  # Callers that use the map report the error.
        self.collections.of_bucket(uuid)

    def adopt_from(self, conversation: Conversation, config: bytes) -> None:
        """Use the map that a node sent, if it can be used and is newer than the one in use."""
        try:
            cluster = self.parse_map(config, conversation.host)
        except CouchbaseError as error:
            self.map_refused(error)
            return
        if self.adopt(cluster):
            self.map_came(config, conversation.host)

    def reroute(self) -> None:
        """Rebuild the routing after a change of the map or of a connection."""
        cluster = self.map
        if cluster is None or not cluster.rows or self.closed:
            return
        servers = self.servers
        self._owners = [servers[row[0]] if row[0] >= 0 else None for row in cluster.rows]
        conversations = [takes_all(peer) for peer in servers]
        self.route = [conversations[row[0]] if row[0] >= 0 else None for row in cluster.rows]

    def refresh(self) -> None:
        """Ask any connected node for its map, unless such a request is already in flight."""
        if self._asking:
            return
        for peer in self.peers.values():
            conversation = peer.conversation
            if conversation is not None:
                self._asking = True
                conversation.ask(Opcode.GET_CLUSTER_CONFIG, partial(self._refreshed, conversation), {})
                return

    def _refreshed(self, conversation: Conversation, frame: Frame | None) -> bool:
        self._asking = False
        if frame is not None:
            given = frame.specific == Status.SUCCESS and bool(frame.value)
            self.map_asked(given)
            if given:
                self.adopt_from(conversation, frame.value)
        return False

    def start_afresh(self) -> None:
        """Forget the order of operations on each key, the ids of collections, and the pending request for a
        map. Used by a driver that has abandoned its operations, or left them to another process.
        """
        self._parked.clear()
        self.collections.start_afresh()
        self._asking = False

    # ---- operations ------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Send an operation to the node that owns its key, now or as soon as possible."""
        if not self._owners or self.closed:
            self.unrouted(call)
        elif call.replica is not None:
            self._submit_to_replica(call)
        elif self._parked and call.ended is None and call.identity in self._parked:
            self._parked[call.identity].append(call)
        else:
            # Without an id nothing is sent: the operation is submitted again when the id is known.
            if call.framing and call.ended is None and is_durable(call.framing) and call.keyspace.prefix:
                if self._waits_for(call):
                    return
            else:
                self._rounds += 1
            vbucket = vbucket_of(call.key_bytes, len(self._owners))
            peer = self._owners[vbucket]
            if peer is None:
                # A vbucket without an active node: a failover may assign one within the operation's timeout.
                call.vbucket = vbucket
                self.refresh()
                self.submit_again(call)
            else:
                peer.send(call, vbucket)

    def send_all(
        self, calls: Sequence[Call], deadline: float, keyspace: Keyspace | None = None, holds: int = -1
    ) -> list[Conversation]:
        """Submit many operations; returns the conversations that had nothing to send before.

        This is the fast path of nearly every operation of every driver: one loop does for many operations
        what :meth:`submit` and :meth:`Conversation.put` do for one, without function calls for each.

        :param deadline: deadline of all operations; large values get more time.
        :param keyspace: the collection of all of them; ``None`` to read it from each.
        :param holds: how often keys had been held when the operations were put in order, if they were.
        """
        if keyspace is None:
            if self._parked and self.route:
                return self.send_in_order(calls, deadline)
            self._rounds += 1
            if self.collections.is_used:
                return self._send_sorted(calls, deadline)
            keyspace = DEFAULT_KEYSPACE
        touched: list[Conversation] = []
        route, count = self.route, len(self.route)
        if not count:
            for call in calls:
                if not call.done:
                    call.deadline = deadline
                    self._send_specially(call)
            return touched
        parked, least_rate = self._parked, self.least_rate
        # All of them together fit into the table of a conversation with fewer operations than this.
        most = self.most_pending - len(calls)
        is_named, lead = keyspace is not DEFAULT_KEYSPACE, keyspace.prefix
        # Attributes of the previous operation's conversation, which usually takes this one, too.
        conversation: Any = _NOBODY
        pending: Any = None
        out: Any = None
        opaque = 0
        pairs: Iterator[tuple[Call, int]] = zip(calls, vbuckets_of(calls, count))
        for call, vbucket in pairs:
            if call.done:
                continue
            call.deadline = deadline
            owner = route[vbucket]
            if owner is not conversation:
                if conversation is not _NOBODY:
                    conversation.opaque = opaque
                conversation = owner
                unready = is_named and (not lead or owner is None or not owner.prefix)
                if owner is None or unready or len(owner.pending) > most or (parked and self._holds != holds):
                    # The next operation has to look up its conversation again.
                    conversation = _NOBODY
                    self._send_specially(call)
                    self._rounds += 1
                    # The callbacks may have changed the map, or the id of the collection.
                    route, lead = self.route, keyspace.prefix
                    if len(route) != count:
                        return touched + self.send_all([call for call, _ in pairs], deadline, keyspace, holds)
                    continue
                if not is_named:
                    lead = owner.prefix
                pending, opaque, out = owner.pending, owner.opaque, owner.out
                if not out:
                    touched.append(owner)
            opaque = (opaque + 1) & 0xFFFFFFFF
            call.opaque = opaque
            call.pending = pending
            call.vbucket = vbucket
            pending[opaque] = call
            key = lead + call.key_bytes
            size = len(key)
            extras, value, framing = call.extras, call.value, call.framing
            # One instruction instead of a call for each part, which would cost more than building the parts.
            if framing:
                before, more = len(framing), len(extras)
                body = before + more + size + len(value)
                if body >= LARGE_BYTES:
                    call.deadline = deadline + body / least_rate
                    owner.has_large = True
                size |= before << 8
                out += (
                    _pack(
                        _ALT_REQUEST, call.operation.opcode, size, more, 0, vbucket, body, opaque, call.cas
                    ),
                    framing + extras + key,
                    value,
                )
            elif extras or value:
                more = len(extras)
                body = size + more + len(value)
                if body >= LARGE_BYTES:
                    call.deadline = deadline + body / least_rate
                    owner.has_large = True
                out += (
                    _pack(_REQUEST, call.operation.opcode, size, more, 0, vbucket, body, opaque, call.cas),
                    extras + key,
                    value,
                )
            else:
                out += (
                    _pack(_REQUEST, call.operation.opcode, size, 0, 0, vbucket, size, opaque, call.cas),
                    key,
                )
        if conversation is not _NOBODY:
            conversation.opaque = opaque
        return touched

    def send_one(self, call: Call, deadline: float) -> Sequence[Conversation]:
        """Do what :meth:`send_all` does for one operation, in fewer steps: programs wait for each answer."""
        route, value = self.route, call.value
        if route and not self._parked and not call.done and (not value or len(value) < _SMALL_BYTES):
            vbucket = vbucket_of(call.key_bytes, len(route))
            owner = route[vbucket]
            if owner is not None and len(owner.pending) < self.most_pending:
                # The default collection's prefix is the owner's, if that has one.
                prefix = owner.prefix and call.keyspace.prefix
                if prefix or call.keyspace is DEFAULT_KEYSPACE:
                    self._rounds += 1
                    call.deadline = deadline
                    out = owner.out
                    touched = () if out else (owner,)
                    out.append(call.enter(owner, prefix, vbucket))
                    if value:
                        out.append(value)
                    return touched
        return self.send_all((call,), deadline)

    def send_in_order(self, calls: Sequence[Call], deadline: float) -> list[Conversation]:
        """Do what :meth:`send_all` does if keys are held, or synchronous writes are among the operations."""
        calls = self.in_order(calls, deadline)
        if self.collections.is_used:
            return self._send_sorted(calls, deadline, self._holds)
        return self.send_all(calls, deadline, DEFAULT_KEYSPACE, self._holds)

    def _send_sorted(self, calls: Sequence[Call], deadline: float, holds: int = -1) -> list[Conversation]:
        """Submit many operations, those of one collection after the other."""
        touched: list[Conversation] = []
        for keyspace, group in groupby(sorted(calls, key=_NUMBER_OF), _KEYSPACE_OF):
            touched += self.send_all(list(group), deadline, keyspace, holds)
        return touched

    def _send_specially(self, call: Call) -> None:
        """Submit one of many operations: one that the fast path cannot send."""
        call.deadline += self.more_for(len(call.value))
        self.submit(call)

    def _submit_to_replica(self, call: Call) -> None:
        cluster = self.map
        assert cluster is not None and call.replica is not None
        vbucket = cluster.vbucket(call.key_bytes)
        wanted = max(call.replica, 0)
        server = cluster.replica(vbucket, wanted)
        peer = self.servers[server] if server >= 0 else None
        if peer is None:
            message = f"the bucket has no replica {wanted} of this key"
            call.fail(client_error(call, exceptions.NO_MATCHING_SERVER, message))
        else:
            peer.send(call, vbucket)

    def time_out(self, call: Call) -> None:
        """Fail an operation whose deadline has passed."""
        was_sent = call.pending is not None
        call.leave()
        if call.attempts and call.last_status and call.last_status != Status.NOT_MY_VBUCKET:
            call.fail(error_for(call, call.last_status))
            return
        peer = self._owners[vbucket_of(call.key_bytes, len(self._owners))] if self._owners else None
        why = f"{peer.name}: {peer.last_error}" if peer is not None and peer.last_error else None
        call.fail(timeout_error(call, why, was_sent))
