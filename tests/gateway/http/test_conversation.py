"""Complete exchanges with a small app: what its handlers see and what clients get, for any chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes

from hypothesis import given, settings
from hypothesis import strategies as st
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.http import Application, ChannelFactory, Request, Response, endpoint, json_response, mount
from gateway.http.refusal import no_route
from gateway.limits import Limits
from tests import SHARED, tries
from tests.gateway.support import Reply, Transport, read_reply

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Another module runs these tests over TLS, too.
ALSO_OVER_TLS: Any = {"deadline": None, "suppress_health_check": SHARED}
STATUSES = (b"100", b"200", b"400", b"404", b"405", b"408", b"413", b"431")


class Collector:
    """Takes a streamed body."""

    def __init__(self, done: Deferred[bytes]) -> None:
        self._done = done
        self._parts: list[bytes] = []

    def body_received(self, data: bytes) -> None:
        self._parts.append(data)

    def body_finished(self) -> None:
        self._done.callback(b"".join(self._parts))

    def body_lost(self) -> None:
        """The test ends the connection."""


class Produced:
    """A body of several parts, made when the test says so."""

    def __init__(self, data: bytes, later: list[Any]) -> None:
        self._data = data
        self._later = later
        self.sink: Any = None

    def start(self, sink: Any) -> None:
        self.sink = sink
        self._later.append(self.make)

    def make(self) -> None:
        for start in range(0, len(self._data), 7):
            self.sink.write(self._data[start : start + 7])
        self.sink.finish()

    def pause(self) -> None:
        """The transport of this test never says so."""

    def resume(self) -> None:
        """Likewise."""

    def cancel(self) -> None:
        """Do nothing: nothing is running."""


class Echo:
    """Handlers that record their requests, and answer at once or on command."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.later: list[Any] = []
        self.most_at_once = 0

    def told(self, request: Request, body: bytes) -> Response:
        told = {
            "method": request.method,
            "query": request.query_string.decode("latin-1"),
            "key": request.parameters["key"].hex(),
            "headers": [value.decode("latin-1") for value in request.header_values(b"X-Repeated")],
            "body": body.hex(),
        }
        self.seen.append(told)
        return json_response(told)

    def when_told(self, make: Any) -> Deferred[Response]:
        answer: Deferred[Response] = Deferred()
        self.later.append(lambda: answer.callback(make()))
        self.most_at_once = max(self.most_at_once, len(self.later))
        return answer

    @endpoint("get", "GET", "/now/<key>")
    def get(self, request: Request) -> Response:
        return self.told(request, request.body())

    @endpoint("put", "PUT", "/now/<key>")
    def put(self, request: Request) -> Response:
        return self.told(request, request.body())

    @endpoint("get_later", "GET", "/later/<key>")
    def get_later(self, request: Request) -> Deferred[Response]:
        return self.when_told(lambda: self.told(request, request.body()))

    @endpoint("put_later", "PUT", "/later/<key>")
    def put_later(self, request: Request) -> Deferred[Response]:
        return self.when_told(lambda: self.told(request, request.body()))

    @endpoint("put_streamed", "PUT", "/streamed/<key>", streamed=True)
    def put_streamed(self, request: Request) -> Deferred[Response]:
        done: Deferred[bytes] = Deferred()
        if request.stream is None:
            # It has no body.
            done.callback(b"")
        else:
            request.stream.deliver_to(Collector(done))
        return done.addCallback(lambda body: self.told(request, body))  # type: ignore[return-value]

    @endpoint("get_produced", "GET", "/produced/<key>")
    def get_produced(self, request: Request) -> Response:
        answer = self.told(request, request.body())
        assert isinstance(answer.body, bytes)
        answer.body = Produced(answer.body, self.later)
        return answer


class Asked(NamedTuple):
    """A request, and its expected result."""

    method: str
    kind: str
    key: bytes
    query: bytes
    repeated: list[bytes]
    body: bytes | None
    wire: bytes

    @property
    def status(self) -> int:
        takes = {"now": "GET HEAD PUT", "later": "GET HEAD PUT", "streamed": "PUT", "produced": "GET HEAD"}
        return 200 if self.method in takes[self.kind].split() else 405

    def told(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "query": self.query.decode(),
            "key": self.key.hex(),
            "headers": [value.decode("latin-1") for value in self.repeated],
            "body": (self.body or b"").hex(),
        }


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    """A well-formed request."""
    kind = draw(st.sampled_from(["now", "later", "streamed", "produced"]))
    method = draw(
        st.sampled_from(["GET", "HEAD", "PUT", "PUT", "POST", "BREW", "M-SEARCH", "propfind", "CONNECT"])
    )
    key = draw(st.text(min_size=1, max_size=5)).encode()
    query = draw(st.from_regex(rb"[a-z0-9=&%/?:+.]{0,8}", fullmatch=True))
    values = draw(st.lists(st.from_regex(rb"[!-~\x80-\xff]([ \t!-~]*[!-~])?", fullmatch=True), max_size=3))
    body = draw(
        st.one_of(st.none(), st.binary(max_size=60), st.just(b"0\r\n\r\nGET /now/x HTTP/1.1\r\n\r\n"))
    )
    if kind == "streamed" and method == "PUT" and not body:
        body = b"x"
    lines = [b"%b: h" % draw(st.sampled_from([b"Host", b"host", b"HOST"]))]
    for value in values:
        name = draw(st.sampled_from([b"X-Repeated", b"x-repeated", b"X-REPEATED"]))
        blank, behind = draw(st.sampled_from([(b" ", b""), (b"", b" \t"), (b"\t ", b" ")]))
        lines.insert(draw(st.integers(0, len(lines))), name + b":" + blank + value + behind)
    # Their order is that of the lines.
    repeated = [line.partition(b":")[2].strip(b" \t") for line in lines if line.lower().startswith(b"x-rep")]
    coded = b""
    if body is not None and draw(st.booleans()):
        lines.append(b"Content-Length: %d" % len(body))
        coded = body
    elif body is not None:
        lines.append(b"Transfer-Encoding: chunked")
        coded = draw(chunked(body))
    if body and draw(st.booleans()):
        lines.append(b"Expect: 100-continue")
    target = b"/%b/%b" % (kind.encode(), quote_from_bytes(key, safe="").encode())
    if query or draw(st.booleans()):
        target += b"?" + query
    if draw(st.integers(0, 5)) == 0:
        target = b"http://host" + target
    head = b"\r\n".join([b"%b %b HTTP/1.1" % (method.encode(), target), *lines, b"", b""])
    return Asked(method, kind, key, query, repeated, body, head + coded)


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """A body in chunks of any size, with extensions and trailers."""
    coded = []
    while body:
        size = draw(st.integers(1, len(body)))
        extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b;c"']))
        coded.append(b"%x%b\r\n%b\r\n" % (size, extension, body[:size]))
        body = body[size:]
    trailers = draw(st.sampled_from([b"", b"X-Repeated: no\r\n", b"Authorization: no\r\nX: y\r\n"]))
    return b"".join(coded) + b"0\r\n" + trailers + b"\r\n"


def cut(random: Random, data: bytes) -> Iterator[bytes]:
    """Yield ``data`` in pieces: all of a few bytes, or of any size."""
    most = random.choice([1, 5, 50, len(data)])
    while data:
        size = random.randint(1, max(1, min(most, len(data))))
        yield data[:size]
        data = data[size:]


class Conversation:
    """One client of an echo app."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.clock = Clock()
        app = Klein()
        self.application = Application(app, self.clock, limits=limits)
        self.application.missing_route = no_route
        self.echo = Echo()
        mount(app, self.echo, self.application.run_under_klein)
        self.application.routes_are_complete()
        self.factory = ChannelFactory(self.application, self.clock)
        self.factory.startFactory()

    def client(self) -> Transport:
        transport = Transport()
        channel = self.factory.buildProtocol(None)
        assert channel is not None
        transport.protocol = channel
        channel.makeConnection(transport)
        return transport


class ConversationTests(SynchronousTestCase):
    """Requests and answers in order."""

    @settings(max_examples=tries(200), report_multiple_bugs=False, **ALSO_OVER_TLS)
    @given(
        st.integers(0, 2**32), st.lists(st.lists(requests(), min_size=1, max_size=5), min_size=1, max_size=3)
    )
    def test_any_conversation(self, seed: int, conversations: list[list[Asked]]) -> None:
        """Several clients send requests in pieces; handlers answer in whatever order. Each client gets each
        answer, in order and complete, and handlers saw what was sent."""
        random = Random(seed)
        conversation = Conversation()
        echo = conversation.echo
        clients = [conversation.client() for _ in conversations]
        pieces = [list(cut(random, b"".join(one.wire for one in asked))) for asked in conversations]
        while any(pieces) or echo.later:
            choices = [index for index, waiting in enumerate(pieces) if waiting]
            index = random.choice([*choices, *(-1 - n for n in range(len(echo.later)))])
            if index < 0:
                echo.later.pop(index)()
            elif clients[index].protocol is None:
                pieces[index] = []
            else:
                clients[index].protocol.dataReceived(pieces[index].pop(0))
        self.assertLessEqual(echo.most_at_once, len(clients), "one request at a time on each connection")
        for client, asked in zip(clients, conversations, strict=True):
            self.check(client, asked)
        self.assertEqual((conversation.application.under_way, conversation.application.budget.used), (0, 0))
        for client in clients:
            self.assertEqual(
                client.protocol is None or client.protocol._unread, client.protocol is None or b""
            )

    def check(self, client: Transport, asked: list[Asked]) -> None:
        rest = client.value()
        for one in asked:
            if rest.startswith(CONTINUE):
                self.assertIn(b"Expect", one.wire)
                rest = rest[len(CONTINUE) :]
            reply, rest = read_reply(rest, one.method)
            self.assertEqual(reply.status, one.status, one)
            if one.method == "HEAD":
                self.assertEqual(reply.body, b"")
            elif reply.status == 200:
                self.assertEqual(reply.json(), one.told())
            else:
                self.assertEqual(reply.json()["requestId"], reply.header("X-Request-Id"))
            if reply.header("Connection") == "close":
                # A refused body whose end is not in sight; bytes after it are not served.
                self.assertNotEqual(reply.status, 200)
                break
        self.assertEqual(rest, b"")

    @settings(max_examples=tries(200), **ALSO_OVER_TLS)
    @given(st.integers(0, 2**32), st.lists(requests(), min_size=1, max_size=3))
    def test_close(self, seed: int, asked: list[Asked]) -> None:
        """After the answer to a request that says close, nothing is served any more."""
        random = Random(seed)
        conversation = Conversation()
        client = conversation.client()
        client.closes_at_once = random.random() < 0.5
        last = b"GET /now/last HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n"
        for piece in cut(random, last + b"".join(one.wire for one in asked)):
            if client.protocol is not None:
                client.protocol.dataReceived(piece)
        reply, rest = read_reply(client.value())
        self.assertEqual((reply.status, reply.header("Connection"), rest), (200, "close", b""))
        self.assertEqual(len(conversation.echo.seen), 1)
        self.assertTrue(client.disconnecting)

    @settings(max_examples=tries(200), **ALSO_OVER_TLS)
    @given(st.integers(0, 2**32), st.lists(requests(), min_size=1, max_size=4))
    def test_hang_up(self, seed: int, asked: list[Asked]) -> None:
        """A client may disconnect at any moment: running requests are cancelled, and nothing is kept."""
        random = Random(seed)
        conversation = Conversation()
        client = conversation.client()
        sent = list(cut(random, b"".join(one.wire for one in asked)))
        for piece in sent[: random.randint(0, len(sent))]:
            client.protocol.dataReceived(piece)
            if client.protocol is None:
                break
        if client.protocol is not None:
            client.loseConnection()
        application = conversation.application
        self.assertEqual((application.under_way, application.budget.used), (0, 0))
        self.assertEqual(conversation.factory.channels, set())
        size = len(client.value())
        for answer in conversation.echo.later:
            answer()
        self.assertEqual(len(client.value()), size)


class KleinTests(SynchronousTestCase):
    """Routes that only Klein finds, where the application explains what is missing."""

    def test_large_bodies(self) -> None:
        """A body over the limit is 413 where Klein has a route, and 404 where it has none."""
        conversation = Conversation(Limits(max_body=10))
        conversation.application.app.route("/klein/<int:number>", methods=["PUT"])(lambda _, number: b"taken")
        conversation.application.routes_are_complete()
        for path, size, status in (
            ("/klein/1", 10, 200),
            ("/klein/1", 11, 413),
            ("/klein/x", 11, 404),
            ("/nowhere", 11, 404),
        ):
            client = conversation.client()
            client.protocol.dataReceived(b"PUT %b HTTP/1.1\r\nHost: h\r\n" % path.encode())
            client.protocol.dataReceived(b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
            self.assertEqual(read_reply(client.value())[0].status, status, (path, size))


class ArbitraryTests(SynchronousTestCase):
    """Arbitrary bytes, which need not be HTTP."""

    fragments = st.one_of(
        st.binary(max_size=30),
        requests().map(lambda asked: asked.wire),
        st.sampled_from(
            [
                b"GET /now/k HTTP/1.1\r\n",
                b"PUT /now/k HTTP/1.1\r\nHost: h\r\n",
                b"PUT /streamed/k HTTP/1.1\r\nHost: h\r\n",
                b"Host: h\r\n",
                b"Content-Length: 5\r\n",
                b"Content-Length: 99999\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Connection: upgrade\r\nUpgrade: x\r\n",
                b"Expect: 100-continue\r\n",
                b"\r\n",
                b"\r\n\r\n",
                b"5\r\nabcde\r\n",
                b"0\r\n\r\n",
                b"fffffffffffffff\r\n",
                b"x" * 5000,
                b"X: y\r\n" * 100,
            ]
        ),
    )

    @settings(max_examples=tries(500), report_multiple_bugs=False, **ALSO_OVER_TLS)
    @given(st.integers(0, 2**32), st.lists(fragments, max_size=12))
    def test_arbitrary_bytes(self, seed: int, fragments: list[bytes]) -> None:
        """No exception gets out, little is held, and it ends in answers or silence, never in half a one."""
        random = Random(seed)
        conversation = Conversation(Limits(max_headers=4096, max_body=5000))
        client = conversation.client()
        for piece in cut(random, b"".join(fragments)):
            channel = client.protocol
            if channel is None:
                break
            channel.dataReceived(piece)
            self.assertLessEqual(len(channel._head), 4096)
            # Bytes that arrive during a request are kept; here that is everything that was sent.
            self.assertLessEqual(len(channel._unread), 2**16 + len(piece))
            self.assertLessEqual(conversation.application.budget.used, 2 * 99999)
        conversation.clock.pump([1] * 200)
        while conversation.echo.later:
            conversation.echo.later.pop()()
        if client.protocol is not None:
            client.loseConnection()
        self.assertEqual(conversation.factory.channels, set())
        self.assertEqual((conversation.application.under_way, conversation.application.budget.used), (0, 0))
        self.assertEqual(list(self.broken(client.value())), [])

    def broken(self, sent: bytes) -> Iterator[bytes]:
        """Yield bytes that do not begin an answer of the app. Answers to HEAD are unknown here, so only
        lines are checked.
        """
        for line in sent.split(b"\r\n"):
            if line.startswith(b"HTTP/1.1 ") and line[9:12] not in STATUSES:
                yield line


class HeldTests(SynchronousTestCase):
    """What is held of a client that sends too early."""

    @settings(max_examples=tries(100), deadline=None)
    @given(st.integers(1, 3), st.binary(min_size=1, max_size=20))
    def test_what_is_held_is_bounded(self, lines: int, data: bytes) -> None:
        """A client that sends more during its request has to wait."""
        conversation = Conversation()
        client = conversation.client()
        client.protocol.dataReceived(b"GET /later/k HTTP/1.1\r\nHost: h\r\n\r\n")
        for _ in range(2**16 // len(data * lines) + 2):
            if client.producerState == "paused":
                break
            client.protocol.dataReceived(data * lines)
        self.assertEqual(client.producerState, "paused")
        self.assertLessEqual(len(client.protocol._unread), 2**16 + len(data * lines))


def replies(data: bytes) -> Iterator[Reply]:
    """Yield the answers in what a client got."""
    while data:
        reply, data = read_reply(data)
        yield reply


class LaterTests(SynchronousTestCase):
    """The order of answers does not depend on how they are made."""

    def test_fast_behind_slow(self) -> None:
        """An answer that is ready waits for the one before it, which is not."""
        conversation = Conversation()
        client = conversation.client()
        client.protocol.dataReceived(
            b"GET /later/a HTTP/1.1\r\nHost: h\r\n\r\n"
            b"GET /now/b HTTP/1.1\r\nHost: h\r\n\r\n"
            b"GET /produced/c HTTP/1.1\r\nHost: h\r\n\r\n"
            b"GET /now/d HTTP/1.1\r\nHost: h\r\n\r\n"
        )
        self.assertEqual(client.value(), b"")
        conversation.echo.later.pop()()
        self.assertEqual([bytes.fromhex(seen["key"]) for seen in conversation.echo.seen], [b"a", b"b", b"c"])
        conversation.echo.later.pop()()
        keys = [bytes.fromhex(json.loads(reply.body)["key"]) for reply in replies(client.value())]
        self.assertEqual(keys, [b"a", b"b", b"c", b"d"])
