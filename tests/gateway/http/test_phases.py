"""The phases of connections, bodies and answers: nothing changes but as the tables say."""

from __future__ import annotations

import re
from enum import IntEnum
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gateway.http import Application, ChannelFactory, Request, Response, endpoint, json_response, mount
from gateway.http import body as body_module
from gateway.http.body import IncomingBody
from gateway.http.channel import HTTPChannel
from gateway.http.exchange import Exchange
from gateway.http.phases import AFTER, AnswerPhase, BodyFlow, BodyPhase, ConnectionPhase, InputPhase
from gateway.limits import Limits
from tests import tries
from tests.gateway.support import HalfClosing, raw_request
from tests.tooling.sources import ROOT


class Held:
    """Stands for an attribute that has a phase, and writes down each change that its table lacks.

    :param first: the phase that objects begin with.
    """

    def __init__(
        self, name: str, first: IntEnum, wrong: list[str], seen: set[tuple[IntEnum, IntEnum]]
    ) -> None:
        self._name = name
        self._first = first
        self._wrong = wrong
        self._seen = seen

    def __get__(self, owner: Any, kind: type) -> Any:
        return owner.__dict__.get(self._name, self._first) if owner is not None else self._first

    def __set__(self, owner: Any, phase: IntEnum) -> None:
        before = owner.__dict__.get(self._name, self._first)
        if phase is not before:
            self._seen.add((before, phase))
            if phase not in AFTER[type(before)][before]:
                self._wrong.append(f"{type(owner).__name__}.{self._name}: {before!r} -> {phase!r}")
        owner.__dict__[self._name] = phase


WHERE = (
    (HTTPChannel, "phase", ConnectionPhase.HEAD),
    (HTTPChannel, "input", InputPhase.READING),
    (IncomingBody, "phase", IncomingBody.phase),
    (IncomingBody, "flow", IncomingBody.flow),
    (Exchange, "phase", AnswerPhase.OPEN),
)


class Reader:
    """Takes a streamed body, and pauses it now and then."""

    def __init__(self, stream: Any, random: Random) -> None:
        self._stream = stream
        self._random = random

    def body_received(self, data: bytes) -> None:
        if self._random.random() < 0.3:
            self._stream.pause()
        elif self._random.random() < 0.5:
            self._stream.resume()

    def body_finished(self) -> None:
        """Nothing waits for it."""

    def body_lost(self) -> None:
        """Nothing waits for it."""


class Produced:
    """A body of a few parts, made or given up when the test says so."""

    def __init__(self, later: list[Any], random: Random) -> None:
        self._later = later
        self._random = random
        self._parts = 3
        self._sink: Any = None

    def start(self, sink: Any) -> None:
        self._sink = sink
        self._later.append(self._make)

    def _make(self) -> None:
        sink = self._sink
        if sink is None:
            return
        self._parts -= 1
        if self._random.random() < 0.2:
            sink.abort()
        elif self._parts:
            sink.write(b"part")
            self._later.append(self._make)
        else:
            sink.finish()

    def pause(self) -> None:
        """It writes when the test says so."""

    def resume(self) -> None:
        """It writes when the test says so."""

    def cancel(self) -> None:
        self._sink = None


class Handlers:
    """Handlers of every kind, which answer when the test says so."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.later: list[Any] = []

    def when_told(self, make: Any) -> Deferred[Any]:
        """Return a Deferred of what ``make()`` returns, or raises."""
        answer: Deferred[Any] = Deferred()

        def fire() -> None:
            if not answer.called:
                Deferred.callback(answer, None)

        self.later.append(fire)
        return answer.addCallback(lambda _: make())

    @endpoint("now", "GET", "/now")
    def now(self, request: Request) -> Response:
        return Response(200, [], b"now")

    @endpoint("later", "GET", "/later")
    def get_later(self, request: Request) -> Deferred[Response]:
        return self.when_told(lambda: Response(200, [], b"later"))

    @endpoint("produced", "GET", "/produced")
    def produced(self, request: Request) -> Response:
        return Response(200, [], Produced(self.later, self.random))

    @endpoint("put", "PUT", "/put")
    def put(self, request: Request) -> Deferred[Response]:
        size = len(request.body())
        return self.when_told(lambda: json_response(size))

    @endpoint("streamed", "PUT", "/streamed", streamed=True)
    def streamed(self, request: Request) -> Deferred[Response]:
        if request.stream is not None and self.random.random() < 0.8:
            stream: Any = request.stream
            stream.deliver_to(Reader(stream, self.random))
            self.later.append(stream.resume)
        return self.when_told(lambda: Response(200, [], Produced(self.later, self.random)))


class Early(Handlers):
    """Handlers that look at the caller before they ask for the body."""

    checks_first = True

    @endpoint("early", "PUT", "/early")
    def early(self, request: Request) -> Deferred[Response]:
        return self.when_told(lambda: json_response(len(request.body())))

    @endpoint("early_now", "PUT", "/early/now")
    def early_now(self, request: Request) -> Response:
        return json_response(len(request.body()))

    @endpoint("early_stream", "PUT", "/early/streamed", streamed=True)
    def early_stream(self, request: Request) -> Deferred[Response]:
        def begin() -> Response:
            if request.stream is not None and self.random.random() < 0.8:
                request.stream.deliver_to(Reader(request.stream, self.random))
            return Response(200, [], Produced(self.later, self.random))

        return self.when_told(begin)


PATHS = [
    *(("GET", path) for path in ("/now", "/later", "/produced", "/klein/1", "/klein/fails", "/nowhere")),
    *(("PUT", path) for path in ("/put", "/streamed", "/early", "/early/now", "/early/streamed", "/klein/2")),
]


class Site:
    """A site with all of that."""

    def __init__(self, random: Random, limits: Limits) -> None:
        self.clock = Clock()
        self.random = random
        app = Klein()
        self.application = Application(app, self.clock, limits=limits)
        self.handlers = Early(random)
        mount(app, self.handlers, self.application.run_under_klein)

        @app.route("/klein/<string:how>", methods=["GET", "PUT"])
        def klein(request: Any, how: str) -> Any:
            def make() -> bytes:
                if how == "fails":
                    raise ValueError("that is meant")
                return b"klein"

            return self.handlers.when_told(make)

        self.application.routes_are_complete()
        self.factory = ChannelFactory(self.application, self.clock)
        self.factory.startFactory()

    def client(self) -> HalfClosing:
        """Return a new client."""
        transport = HalfClosing()
        transport.closes_at_once = self.random.random() < 0.5
        channel: Any = self.factory.buildProtocol(None)
        transport.protocol = channel
        channel.makeConnection(transport)
        return transport


def wire(random: Random) -> bytes:
    """Return the bytes of a request, now and then of a broken one."""
    if random.random() < 0.05:
        return random.choice([b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 3000])
    method, path = random.choice(PATHS)
    headers = {}
    if random.random() < 0.2:
        headers["Connection"] = "close"
    if method == "GET":
        return raw_request(method, path, headers=headers)
    body = b"x" * random.choice([1, 5, 30, 400, 1200])
    if random.random() < 0.3:
        headers["Expect"] = "100-continue"
    if random.random() < 0.5:
        return raw_request(method, path, body, headers)
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:3], body[3:]) if part)
    end = b"0\r\n\r\n" if random.random() < 0.9 else b"broken\r\n"
    return raw_request(method, path, headers={"Transfer-Encoding": "chunked", **headers}) + coded + end


class PhaseTests(SynchronousTestCase):
    """Conversations in any order."""

    def setUp(self) -> None:
        self.wrong: list[str] = []
        self.seen: set[tuple[IntEnum, IntEnum]] = set()
        for owner, name, first in WHERE:
            held = Held(name, first, self.wrong, self.seen)
            if hasattr(owner, name):
                self.patch(owner, name, held)
            else:
                setattr(owner, name, held)
                self.addCleanup(delattr, owner, name)
        # Bodies from this size on are joined in a separate turn.
        self.patch(body_module, "SLICED_BYTES", 300)

    def step(self, site: Site, client: HalfClosing, data: bytearray) -> None:
        """Let something happen: a piece arrives, a handler is done, time passes, the client leaves ..."""
        random, protocol = site.random, client.protocol
        what = random.random()
        if what < 0.45 and data and data != b"ended" and protocol is not None:
            size = random.choice([1, 20, 200, 2000])
            piece = bytes(data[:size])
            del data[:size]
            protocol.dataReceived(piece)
        elif what < 0.75 and site.handlers.later:
            site.handlers.later.pop(random.randrange(len(site.handlers.later)))()
        elif what < 0.8:
            site.clock.advance(0)
        elif what < 0.84:
            site.clock.pump([1] * random.choice([1, 4, 40]))
        elif what < 0.93 and protocol is not None:
            protocol.pauseProducing() if random.random() < 0.5 else protocol.resumeProducing()
        elif what < 0.94 and protocol is not None and data != b"ended":
            # Once, and nothing comes after it.
            data[:] = b"ended"
            client.end()
        elif what < 0.945 and protocol is not None:
            client.protocol = None
            protocol.connectionLost(Failure(ConnectionLost()))
        elif what < 0.95:
            site.factory.leave()
        elif what < 0.96 and protocol is not None:
            protocol.out_of_memory()

    @settings(
        max_examples=tries(300),
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.differing_executors],
    )
    @given(st.integers(0, 2**32))
    def test_any_order(self, seed: int) -> None:
        """For all actions of clients, handlers and time, each phase is followed by one that its table
        allows; and when all clients have disconnected nothing is held and nothing is pending."""
        random = Random(seed)
        limits = Limits(max_body=1000, max_headers=2000, max_buffered=random.choice([1500, 10**6]))
        site = Site(random, limits)
        clients = [(site.client(), bytearray()) for _ in range(3)]
        for _, data in clients:
            for _ in range(random.randint(1, 6)):
                data += wire(random)
        for _ in range(80):
            self.step(site, *random.choice(clients))
        for client, _ in clients:
            protocol, client.protocol = client.protocol, None
            if protocol is not None:
                protocol.connectionLost(Failure(ConnectionLost()))
        while site.handlers.later:
            site.handlers.later.pop(0)()
        site.clock.pump([0] * 10)
        self.assertEqual(self.wrong, [])
        self.assertEqual((site.application.under_way, site.application.budget.used), (0, 0))
        self.flushLoggedErrors(ValueError)

    def test_no_memory_while_a_body_is_held(self) -> None:
        """A handler that runs before the body is read goes on; the connection is cut."""
        site = Site(Random(0), Limits())
        client = site.client()
        client.protocol.dataReceived(raw_request("PUT", "/early", b"12345")[:-5])
        self.assertFalse(client.protocol.out_of_memory())
        self.assertEqual(client.value(), b"")

    def test_tables(self) -> None:
        """Each table knows all phases of its kind, and each phase but the first is reached from another."""
        for kind in (ConnectionPhase, InputPhase, BodyFlow, BodyPhase, AnswerPhase):
            table = AFTER[kind]
            self.assertEqual(set(table), set(kind))
            reached = set().union(*table.values())
            self.assertEqual(
                set(kind) - reached - {ConnectionPhase.HEAD, IncomingBody.phase}, {kind(0)} - reached
            )

    def test_page(self) -> None:
        """The picture of a connection's phases in docs/architecture.md is the table."""
        page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
        drawn = re.findall(r"^ +([A-Z]+) --> ([A-Z]+)$", page, re.MULTILINE)
        table = AFTER[ConnectionPhase]
        self.assertEqual(sorted(drawn), sorted((a.name, b.name) for a in table for b in table[a]))
