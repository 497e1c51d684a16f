"""A network for the blocking client in which time passes only while the client waits.

Nodes are those of :mod:`tests.protocol.memory_driver`. The test decides what they send, when, and in which
pieces, and the outcomes of the client's sends.
"""

import heapq

from couchbase.blocking.cluster import Cluster
from couchbase.blocking.node import NodeConnection
from couchbase.protocol.connstr import Seed
from couchbase.protocol.constants import Opcode
from couchbase.protocol.frames import FrameReader, encode_response

IN, OUT, ERR, HUP = 1, 4, 8, 16
OPCODES = frozenset(
    {Opcode.HELLO, Opcode.GET_CLUSTER_CONFIG, Opcode.GET_ERROR_MAP, Opcode.SELECT_BUCKET}
    | {Opcode.GET_COLLECTION_ID, Opcode.SASL_LIST_MECHS, Opcode.SASL_AUTH}
)
"""The client's own requests, which are answered at once."""


class Network:
    """The clock, the nodes and their connections, and what is on its way.

    :param answer: called with a node and the frame of an operation; returns pairs of a delay in seconds and
        what arrives then: bytes, or an exception of recv (an ``EOFError`` is the end of the connection).
    :param sends: the outcomes of the client's sends, one after the other: ``None`` (all is taken), an
        exception, or a number of bytes that are taken and the seconds until the socket is writable again.
    """

    def __init__(self, nodes, answer, sends=()):
        self.now = 0.0
        self.nodes = {node.port: node for node in nodes}
        self.answer = answer
        self.sends = list(sends)
        self.frames = []
        """What the nodes have received."""
        self.is_secured = False
        """Whether the connections are those of TLS."""
        self.waits = 0
        """How often the client has waited."""
        self._sockets = {}
        self._masks = {}
        self._coming = []
        # No numbers of this process.
        self._count = 1_000_000

    def connect(self, port):
        """Return a new connection to a node."""
        self._count += 1
        sock = self._sockets[self._count] = Socket(self, self._count, self.nodes[port])
        return sock

    def send(self, delay, sock, what):
        """Let something arrive later."""
        self._count += 1
        heapq.heappush(self._coming, (self.now + delay, self._count, sock, what))

    # ---- the interface of epoll ------------------------------------------------------------------

    def register(self, number, mask):
        """Watch a socket."""
        assert number not in self._masks
        self._masks[number] = mask

    def modify(self, number, mask):
        """Watch it for other events."""
        assert number in self._masks
        self._masks[number] = mask

    def unregister(self, number):
        """Stop watching it."""
        del self._masks[number]

    def close(self):
        """Stop watching all."""
        self._masks.clear()

    def poll(self, seconds):
        """Wait until a socket is ready, or for so many seconds."""
        assert seconds >= 0, "this would be forever"
        self.waits += 1
        until = self.now + seconds
        while True:
            while self._coming and self._coming[0][0] <= self.now:
                _, _, sock, what = heapq.heappop(self._coming)
                sock.arrived.append(what)
            ready = [
                # Other sockets are readable: the client has them to end a wait.
                (number, self._sockets[number].events(mask) if number in self._sockets else IN)
                for number, mask in self._masks.items()
            ]
            ready = [(number, events) for number, events in ready if events]
            if ready or self.now >= until:
                return ready
            times = [sock.writable_at for sock in self._sockets.values() if sock.writable_at > self.now]
            times += [self._coming[0][0]] if self._coming else []
            self.now = min(until, *times) if times else until


class Socket:
    """The client's end of a connection."""

    def __init__(self, network, number, node):
        self.arrived = []
        self.is_closed = False
        self.writable_at = 0.0
        self._decrypted = []
        self._network, self._number, self._node = network, number, node
        self._reader = FrameReader()

    def events(self, mask):
        """Return the events that are there, and watched."""
        failed = any(type(what) is ConnectionResetError for what in self.arrived)
        writable = mask & OUT if self._network.now >= self.writable_at else 0
        return writable | (mask & IN if self.arrived else 0) | (ERR | HUP if failed else 0)

    def fileno(self):
        """Return its number."""
        return -1 if self.is_closed else self._number

    def close(self):
        """End the connection."""
        self.is_closed = True

    def send(self, data):
        """Take bytes, all of them unless the test wants something else."""
        outcome = self._network.sends.pop(0) if self._network.sends else None
        if isinstance(outcome, BaseException):
            raise outcome
        if self._network.now < self.writable_at:
            raise BlockingIOError
        if outcome is not None:
            size, seconds = outcome
            self.writable_at = self._network.now + seconds
            data = data[:size]
        taken = bytes(data)
        for frame in self._reader.feed(taken):
            self._network.frames.append((self._node.port, frame if frame.opcode != Opcode.HELLO else "HELLO"))
            if frame.opcode == Opcode.GET_COLLECTION_ID:
                self.arrived.append(
                    encode_response(frame.opcode, opaque=frame.opaque, extras=bytes(7) + b"\1\0\0\0\x20")
                )
            elif frame.opcode in OPCODES:
                self.arrived.append(self._node.answer(frame))
            else:
                for delay, what in self._network.answer(self._node, frame):
                    self._network.send(delay, self, what)
        return len(taken)

    def pending(self):
        """Return the number of bytes of TLS that were decrypted already."""
        return sum(map(len, self._decrypted))

    def recv(self, size):
        """Return what has arrived; of TLS one record, after decrypting those behind it."""
        if not self._network.is_secured:
            return self._receive(size)
        while self.arrived and isinstance(self.arrived[0], bytes):
            self._decrypted.append(self.arrived.pop(0))
        if not self._decrypted:
            return self._receive(size)
        first, self._decrypted[0] = self._decrypted[0][:size], self._decrypted[0][size:]
        if not self._decrypted[0]:
            del self._decrypted[0]
        return first

    def _receive(self, size):
        data = b""
        while self.arrived and len(data) < size:
            what = self.arrived[0]
            if isinstance(what, EOFError):
                # It stays the end.
                return data
            if isinstance(what, BaseException):
                if data:
                    return data
                self.arrived[:1] = [] if isinstance(what, BlockingIOError) else [EOFError()]
                raise what
            room = size - len(data)
            data, rest = data + what[:room], what[room:]
            self.arrived[:1] = [rest] if rest else []
        if not data:
            raise BlockingIOError
        return data


class _Node(NodeConnection):
    """A node that is reached at once."""

    def _resolve(self):
        self._sock = self._owner.network.connect(self.port)
        self._greet()


class InMemory:
    """What puts a class of clusters on such a network; it has no map yet."""

    node_type = _Node

    def __init__(self, network):
        first, *_ = network.nodes.values()
        super().__init__((Seed(first.host, first.port, None),), bucket="b", credentials=None)
        self.network = network
        self.seconds = lambda: network.now
        self.selector.close()
        self.selector._poller, self.selector.poll = network, network.poll


class MemoryCluster(InMemory, Cluster):
    """A blocking client's cluster on such a network, with its map."""

    def __init__(self, network, is_secured=False):
        super().__init__(network)
        self.bootstrap()
        if is_secured:
            network.is_secured, self.tls_context = True, object()
