"""A fourth driver: no sockets, no reactor, and a clock that is moved by hand; and scripted nodes.

It shows what a driver has to bring to :mod:`couchbase.protocol.dispatch`, and lets tests choose when which
bytes arrive."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from couchbase import exceptions
from couchbase.protocol.call import Call, Step
from couchbase.protocol.clustermap import NodeAddress
from couchbase.protocol.connstr import Seed
from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.conversation import Conversation, Phase, Resume
from couchbase.protocol.dispatch import Dispatcher
from couchbase.protocol.failures import client_error, refusal
from couchbase.protocol.frames import Frame, FrameReader, encode_request, encode_response
from couchbase.protocol.plans import Compute, Pause

VBUCKETS = 16
SECONDS = 2.5


class MemoryPeer:
    """The driver's end of the connection to a node: a peer, and the line of its conversation."""

    def __init__(self, host: str, port: int, cluster: MemoryCluster) -> None:
        self.host, self.port = host, port
        self.name = f"{host}:{port}"
        self.last_error: BaseException | None = None
        self.waiting: list[Call] = []
        self.talk: Conversation | None = None
        self.sent: list[bytes] = []
        """Bytes that the node has not received yet."""
        self._cluster = cluster

    @property
    def conversation(self) -> Conversation | None:
        return None if self.talk is None or self.talk.phase is Phase.GREETING else self.talk

    @property
    def open_conversation(self) -> Conversation | None:
        return self.talk if self.talk is not None and self.talk.phase is Phase.OPEN else None

    def send(self, call: Call, vbucket: int) -> None:
        if self.open_conversation is not None:
            self.open_conversation.put(call, vbucket)
        else:
            call.vbucket = vbucket
            self.waiting.append(call)
            self.connect()

    def take_waiting(self) -> list[Call]:
        waiting, self.waiting = self.waiting, []
        return [call for call in waiting if not call.done]

    def connect(self) -> None:
        """Begin a conversation, unless there is one."""
        if self.talk is None:
            talk = self.talk = Conversation(self.name, self.host, self, self._cluster)
            talk.greet(
                self._cluster.handshake(self.host, "nonce"), self._perform, partial(self._greeted, talk)
            )

    def _perform(self, step: Compute | Pause, resume: Resume) -> None:
        if isinstance(step, Compute):
            resume(step.function(*step.arguments))
        else:
            self._cluster.call_later(step.seconds, partial(resume, None))

    def _greeted(self, talk: Conversation, error: BaseException | None) -> None:
        if talk is self.talk and error is None:
            config = talk.session.config
            if config is not None:
                self._cluster.adopt_from(talk, config)
            self._cluster.reroute()
            for call in self.take_waiting():
                talk.put(call, call.vbucket)
        elif talk is self.talk and error is not None:
            self.lose(error)

    def schedule(self) -> None:
        """Do nothing: :meth:`MemoryCluster.flush` handles all peers."""

    def flush(self) -> None:
        if self.talk is not None:
            self.sent += self.talk.out
            self.talk.out.clear()

    def leave(self) -> None:
        self._cluster.reroute()

    def receive(self, data: bytes) -> None:
        """Take bytes of the node; the connection ends if the conversation says so."""
        talk = self.talk
        if talk is not None:
            talk.receive(data)
            if talk is self.talk and (talk.phase is Phase.LEAVING or talk.fault is not None):
                self.lose(talk.fault or OSError("it left"))

    def lose(self, error: BaseException) -> None:
        """The connection is gone; what waits makes a new one."""
        talk, self.talk = self.talk, None
        self.last_error = error
        self.sent.clear()
        self._cluster.reroute()
        if talk is not None:
            talk.lose(error, str(error))
        if isinstance(error, exceptions.AuthError):
            for call in self.take_waiting():
                call.fail(refusal(call, error))
        if self.waiting:
            self.connect()


class MemoryCluster(Dispatcher):
    """The driver: peers, and time."""

    def __init__(self, nodes: list[MemoryNode]) -> None:
        super().__init__(
            [Seed(nodes[0].host, nodes[0].port, None)],
            bucket="b", credentials=None, tls=False, allow_plain=False, network="auto", agent="memory",
        )  # fmt: skip
        self.now = 0.0
        self.seconds = lambda: self.now
        self.seconds = lambda: self.now
        self.nodes = {(node.host, node.port): node for node in nodes}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        first = MemoryPeer(nodes[0].host, nodes[0].port, self)
        self.peers[first.host, first.port] = first
        first.connect()

    def peer_for(self, address: NodeAddress, port: int) -> MemoryPeer:
        return MemoryPeer(address.host, port, self)

    def retire(self, peer: MemoryPeer) -> list[Call]:
        waiting = peer.take_waiting()
        peer.lose(OSError("not in the map any more"))
        return waiting

    def unrouted(self, call: Call) -> None:
        call.fail(client_error(call, exceptions.CLIENT_ETMPFAIL, self.why_not()))

    def why_not(self) -> str:
        return "there is no map"

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self.now + seconds, len(self._timers), function))

    def submit_later(self, call: Call, seconds: float) -> None:
        self.call_later(seconds, lambda: None if call.done else self.submit(call))

    def give(self, calls: Sequence[Call]) -> None:
        """Begin operations."""
        self.send_all(calls, self.now + SECONDS)
        self.flush()

    def flush(self) -> None:
        for peer in self.peers.values():
            peer.flush()

    def advance(self, seconds: float) -> None:
        """Let time pass: due actions run, and late operations fail."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            self.now, _, function = heapq.heappop(self._timers)
            function()
        self.now = until
        for peer in self.peers.values():
            for call in [*peer.waiting, *(peer.talk.pending.values() if peer.talk else ())]:
                if not call.done and call.deadline <= self.now:
                    self.time_out(call)
        self.flush()

    def deliver(self) -> None:
        """Carry bytes to the nodes and back, all of them, until nothing moves any more."""
        moved = True
        while moved:
            moved = False
            self.flush()
            for address, peer in list(self.peers.items()):
                node = self.nodes[address]
                data = node.exchange(peer)
                if data:
                    moved = True
                    peer.receive(data)


class MemoryNode:
    """The other end: keeps documents, and answers requests as its ``script`` says."""

    def __init__(self, port: int) -> None:
        self.host, self.port = "127.0.0.1", port
        self.cluster = [self]
        self.rev = 1
        self.rows: list[list[int]] = [[0]] * VBUCKETS
        self.documents: dict[bytes, bytes] = {}
        self.executed: list[Frame] = []
        """The operations that were executed, in order."""
        self.features = (
            *(Feature.XERROR, Feature.SELECT_BUCKET, Feature.XATTR, Feature.ALT_REQUEST, Feature.DUPLEX),
            *(Feature.SYNC_REPLICATION, Feature.PRESERVE_TTL, Feature.CLUSTERMAP_CHANGE_NOTIFICATION),
        )
        self.script: Callable[[Frame], bytes | None] = lambda frame: None
        """Returns an answer in place of the usual one, ``None`` for that, or ``b""`` for silence."""
        self._reader = FrameReader()
        self._talk: Conversation | None = None

    def exchange(self, peer: MemoryPeer) -> bytes:
        """Return the answers to what a peer sent, oldest request first."""
        return b"".join(self.answers(peer))

    def answers(self, peer: MemoryPeer) -> list[bytes]:
        """The same, one by one."""
        if peer.talk is not self._talk:
            # A new connection.
            self._talk, self._reader = peer.talk, FrameReader()
        data = b"".join(peer.sent)
        peer.sent.clear()
        return [self.answer(frame) for frame in self._reader.feed(data)]

    def answer(self, frame: Frame) -> bytes:
        """Return the answer to one request, which may be carried out by it."""
        scripted = self.script(frame)
        if scripted is not None:
            return scripted
        parts: dict[str, Any] = {"opaque": frame.opaque, "cas": 1}
        if frame.opcode == Opcode.HELLO:
            parts["value"] = b"".join(int(code).to_bytes(2, "big") for code in self.features)
        elif frame.opcode == Opcode.GET_CLUSTER_CONFIG:
            parts["value"] = self.config()
        elif frame.opcode in (Opcode.GET, Opcode.SET):
            self.executed.append(frame)
            if frame.opcode == Opcode.SET:
                self.documents[frame.key] = frame.value
            elif frame.key in self.documents:
                parts |= {"extras": bytes(4), "value": self.documents[frame.key]}
            else:
                parts["status"] = Status.KEY_ENOENT
        return encode_response(frame.opcode, **parts)

    def config(self) -> bytes:
        """Return the cluster map."""
        nodes = [{"hostname": node.host, "services": {"kv": node.port}} for node in self.cluster]
        servers = [f"{node.host}:{node.port}" for node in self.cluster]
        server_map = {"numReplicas": 0, "serverList": servers, "vBucketMap": self.rows}
        config = {"rev": self.rev, "name": "b", "nodesExt": nodes, "vBucketServerMap": server_map}
        return json.dumps(config).encode()

    def push(self) -> bytes:
        """Return the cluster map as the server sends it unasked."""
        return encode_request(0x01, value=self.config(), magic=0x82, key=b"b")


def cluster_of(count: int) -> tuple[MemoryCluster, list[MemoryNode]]:
    """Return a connected driver, and the nodes of its cluster, each with a part of the vbuckets."""
    nodes = [MemoryNode(11210 + 2 * index) for index in range(count)]
    for node in nodes:
        node.cluster = nodes
        node.rows = [[vbucket % count] for vbucket in range(VBUCKETS)]
    cluster = MemoryCluster(nodes)
    cluster.deliver()
    for peer in list(cluster.peers.values()):
        peer.connect()
    cluster.deliver()
    return cluster, nodes


def step(operation: Any, key: bytes, value: bytes = b"") -> Step:
    """Return an operation on a document."""
    call = Step(operation, key, key)
    call.value = value
    if operation.opcode == Opcode.SET:
        call.extras = bytes(8)
    return call
