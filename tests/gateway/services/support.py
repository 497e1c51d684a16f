"""Services of a cluster, played by tests: HTTP servers over real sockets that do what a script says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from couchnode.cluster import config
from tests.gateway.test_behaviour import GatewayTestCase

Script = Callable[["Asked"], None]

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Asked:
    """A request as it arrived, and the connection that it came by.

    :ivar body: what has arrived of it, without the coding.
    """

    def __init__(self, connection: Connection, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        method, target, _ = first.split(b" ")
        self.connection = connection
        self.method = method.decode()
        self.target = target.decode()
        self.lines = [line.decode("latin-1") for line in lines]
        self.body = bytearray()
        self.is_whole = False
        self.raw = head

    def header(self, name: str) -> str | None:
        """Return the value of a header, ``None`` without it; fails if it is given twice."""
        found = [
            line.partition(":")[2].strip()
            for line in self.lines
            if line.lower().startswith(name.lower() + ":")
        ]
        assert len(found) < 2, found
        return found[0] if found else None

    # ---- what scripts do -------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.connection.transport.write(data)  # type: ignore[union-attr]

    def chunk(self, data: bytes) -> None:
        """Send a chunk."""
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def answer(self, body: bytes | Any = b"", status: int = 200, **headers: str) -> None:
        """Send a whole answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"Content_Type": "application/json", "Content_Length": str(len(content)), **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
        self.write(f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + content)

    def cut(self) -> None:
        """Drop the connection."""
        self.connection.transport.abortConnection()  # type: ignore[union-attr]

    def end(self) -> None:
        """Close the connection, after what was sent."""
        self.connection.transport.loseConnection()  # type: ignore[union-attr]


class Connection(Protocol):
    """A connection of a service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._data = b""
        self._asked: Asked | None = None
        self._left: int | None = 0
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.service.connections.append(self)
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.service.connections.remove(self)
        self.lost.callback(None)
        self.service.changed()

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        while self._step():
            pass
        self.service.changed()

    def _step(self) -> bool:
        asked = self._asked
        if asked is None:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return False
            self._data = rest
            asked = self._asked = Asked(self, head)
            self.service.asked.append(asked)
            length = asked.header("Content-Length")
            chunked = asked.header("Transfer-Encoding") == "chunked"
            assert not (chunked and length), "both lengths"
            self._left = None if chunked else int(length or 0)
            if self.service.on_head is not None:
                self.service.on_head(asked)
        if self._left is None:
            size, end, rest = self._data.partition(b"\r\n")
            if not end or len(rest) < int(size, 16) + 2:
                return False
            count = int(size, 16)
            asked.body += rest[:count]
            self._data = rest[count + 2 :]
            if count:
                return True
        else:
            part, self._data = self._data[: self._left], self._data[self._left :]
            asked.body += part
            self._left -= len(part)
            if self._left:
                return False
        asked.is_whole = True
        self._asked = None
        if self.service.script is not None:
            self.service.script(asked)
        return bool(self._data)


class Service(Factory):
    """A service that listens.

    :ivar script: called with each whole request; ``None``: nothing is answered.
    :ivar on_head: called with each request when its head is there.
    """

    protocol = Connection
    noisy = False

    def __init__(self, script: Script | None = None) -> None:
        self.script = script
        self.on_head: Script | None = None
        self.asked: list[Asked] = []
        self.connections: list[Connection] = []
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self.port = reactor.listenTCP(0, self, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.number: int = self.port.getHost().port

    def buildProtocol(self, addr: Any) -> Connection:
        return Connection(self)

    def changed(self) -> None:
        """Look whether what tests wait for is true now."""
        for pair in list(self._waiting):
            if pair[0]():
                self._waiting.remove(pair)
                reactor.callLater(0, pair[1].callback, None)  # type: ignore[attr-defined]

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Return a Deferred that fires when something about the service has become true."""
        done: Deferred[None] = Deferred()
        self._waiting.append((condition, done))
        self.changed()
        return done

    @inlineCallbacks
    def close(self) -> Any:
        """Listen no more, and drop all connections."""
        yield self.port.stopListening()
        lost = [connection.lost for connection in self.connections]
        for connection in list(self.connections):
            connection.transport.abortConnection()  # type: ignore[union-attr]
        yield from lost


class ServicesTestCase(GatewayTestCase):
    """A gateway with an embedded node, whose map lists services that the test plays.

    ``listed`` has the names of the services in the map; each is played by a :class:`Service`, or several.
    """

    listed: dict[str, int] = {"n1ql": 1}
    """Name in the map -> number of nodes that run it."""
    proxied: list[str] = ["query"]

    @inlineCallbacks
    def setUp(self) -> Any:
        self.services = {name: [Service() for _ in range(count)] for name, count in self.listed.items()}
        made = config._cluster_part

        def with_services(nodes: Any, this_node: int) -> Any:
            part = made(nodes, this_node)
            entries = part["nodesExt"]
            for name, services in self.services.items():
                for number, service in enumerate(services):
                    # Nodes that run this service alone come behind the others.
                    while len(entries) <= number:
                        entries.append({"services": {}, "hostname": "127.0.0.1"})
                    entries[number]["services"][name] = service.number
            return part

        self.patch(config, "_cluster_part", with_services)
        self.options = {**self.options, "proxy-service": self.proxied}
        yield super().setUp()

    @inlineCallbacks
    def tearDown(self) -> Any:
        yield super().tearDown()
        for services in self.services.values():
            for service in services:
                yield service.close()

    @property
    def query(self) -> Service:
        """The (first) node of the query service."""
        return self.services["n1ql"][0]
