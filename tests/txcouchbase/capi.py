"""A node whose view engine is a script, and answers to play."""

from __future__ import annotations

import json
from collections import deque

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from couchbase.asynchronous.view import AsyncViewBase
from tests.txcouchbase.test_faults import Node
from txcouchbase.connection import Connection

OPEN = b'{"total_rows":9,"rows":[\r\n'
CLOSE = b"\r\n]\r\n}\r\n"


def turns(count=3):
    """Return a Deferred that fires some turns of the reactor later."""
    return task.deferLater(reactor, 0, lambda: turns(count - 1) if count else None)


def head(status=200, length=None, headers=()):
    """Return the head of an answer, chunked unless its length is given."""
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/json", *headers]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data):
    """Return a chunk; empty, it is the last."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def whole(value, status=200, headers=()):
    """Return a whole answer: JSON of a value, or bytes as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return head(status, len(body), headers) + body


def rows_text(count, first=0, width=0):
    """Return rows as the view engine prints them, and their values."""
    rows = [{"id": f"d{n}", "key": n, "value": "x" * width} for n in range(first, first + count)]
    return ",\r\n".join(json.dumps(row, separators=(",", ":")) for row in rows).encode(), rows


class Conversation(Protocol):
    """One connection to a scripted view engine."""

    def connectionMade(self):
        self.buffer = b""
        self.lost = False
        self.factory.connections.append(self)
        self.factory.accepted += 1

    def connectionLost(self, reason):
        self.lost = True
        self.factory.connections.remove(self)
        waiting, self.factory.lost = self.factory.lost, []
        for deferred in waiting:
            deferred.callback(None)

    def dataReceived(self, data):
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            top, _, rest = self.buffer.partition(b"\r\n\r\n")
            request, *lines = top.decode().split("\r\n")
            pairs = (line.split(": ", 1) for line in lines)
            headers = {name.lower(): value for name, value in pairs}
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            method, path, _ = request.split(" ")
            self.factory.requests.append((method, path, headers, rest[:length]))
            self.factory.script(self, method, path)


class Capi(Factory):
    """A scripted view engine: ``script(conversation, method, path)`` writes the answer."""

    protocol = Conversation

    def __init__(self):
        self.connections = []
        self.requests = []
        self.answers = deque()
        self.accepted = 0
        self.lost = []

    def script(self, conversation, method, path):
        """Play the next of :attr:`answers`; ``None`` closes the connection."""
        answer = self.answers.popleft()
        if answer is None:
            conversation.transport.loseConnection()
        elif isinstance(answer, list):
            for piece in answer:
                if piece is None:
                    conversation.transport.loseConnection()
                else:
                    conversation.transport.write(piece)
        else:
            conversation.transport.write(answer)

    def connection_lost(self):
        """Return a Deferred for the end of the next connection that ends."""
        deferred = Deferred()
        self.lost.append(deferred)
        return deferred

    @inlineCallbacks
    def listen(self, context=None):
        """Listen on a free port."""
        if context is None:
            endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        else:
            endpoint = SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1")
        self.listening = yield endpoint.listen(self)
        self.port = self.listening.getHost().port

    @inlineCallbacks
    def stop(self):
        """Close everything."""
        yield self.listening.stopListening()
        for connection in list(self.connections):
            connection.transport.abortConnection()
        while self.connections:
            yield task.deferLater(reactor, 0)


class ViewNode(Node):
    """A scripted key-value node that says where views are."""

    def __init__(self, *capis):
        super().__init__()
        self.capis = capis

    def config(self):
        """Return a map whose first node serves the bucket, and every one views."""
        config = json.loads(super().config())
        service = "capiSSL" if self.tls else "capi"
        nodes = config["nodesExt"]
        nodes += [{"hostname": "127.0.0.1", "services": {}} for _ in self.capis[len(nodes) :]]
        for node, capi in zip(nodes, self.capis, strict=False):
            node["services"][service] = node["services"]["mgmt"] = capi.port
        return json.dumps(config).encode()


class Recorder(AsyncViewBase):
    """A view that records its calls, in order."""

    pause_after = None
    answer = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = []
        self.rows = []
        self.ended = Deferred()
        self.got_rows = Deferred()

    def on_rows(self, rowiter):
        rows = list(rowiter)
        self.rows += rows
        self.calls.append(len(rows))
        if self.pause_after is not None and len(self.rows) >= self.pause_after:
            self.pause()
        if not self.got_rows.called:
            self.got_rows.callback(None)
        return self.answer() if self.answer is not None else None

    def on_error(self, ex):
        self.calls.append(ex)
        self.ended.callback(ex)

    def on_done(self):
        self.calls.append("done")
        self.ended.callback(None)


class LinesRecorder(Recorder):
    """The same, with rows as text."""

    row_form = "lines"


class BlocksRecorder(Recorder):
    """The same, with rows as text, many at once."""

    row_form = "blocks"


class CapiTestCase(TestCase):
    """Two scripted view engines of one cluster, and a connection."""

    engines = 1

    @inlineCallbacks
    def setUp(self):
        self.capis = [Capi() for _ in range(self.engines)]
        self.capi = self.capis[0]
        for capi in self.capis:
            yield capi.listen()
            self.addCleanup(capi.stop)
        self.node = ViewNode(*self.capis)
        yield self.node.listen()
        self.addCleanup(self.node.stop)
        self.connection = self.open()

    def open(self, cls=Connection, **options):
        """Return a connection, closed at the end."""
        keywords = {"bucket": "b", "username": "ada", "password": None, **options}
        connection = cls(connection_string=f"couchbase://127.0.0.1:{self.node.port}", **keywords)
        self.addCleanup(self.close, connection)
        return connection

    @inlineCallbacks
    def close(self, connection):
        """Close a connection and the HTTP connections that it keeps."""
        connection._close()
        # A query that ended in this very turn gives its HTTP connection back after this.
        yield task.deferLater(reactor, 0)
        yield connection._http.close()
