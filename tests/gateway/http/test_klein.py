"""The same app through Klein's own resource in a site of twisted.web, and through the channel."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from klein import Klein
from klein.resource import KleinResource
from twisted.internet import task
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site as TwistedSite
from twisted.web.static import File
from twisted.web.template import Element, TagLoader, renderer, tags
from werkzeug.exceptions import Forbidden, NotFound

from gateway.clients.origins import Doors
from gateway.dialect.errors import bad_request
from gateway.http import Application, ChannelFactory, Request, Response, endpoint, json_response, mount
from tests import tries
from tests.gateway.support import Answer, Reply, Site, Transport, error, raw_request, read_reply

# The channel's or twisted.web's, whatever the app; and the framing of a body.
OWN_HEADERS = frozenset(
    {"server", "date", "x-request-id", "connection", "content-length", "transfer-encoding"}
)

# The text of twisted.web for a form that it cannot read.
BARE_400 = b"HTTP/1.1 400 Bad Request\r\n\r\n"


class Page(Element):
    """Something to be rendered."""

    loader = TagLoader(tags.p(render="text"))

    @renderer
    def text(self, request: Any, tag: Any) -> Any:
        return tag(request.path.decode("latin-1"))


class Leaf(Resource):
    """A resource of twisted.web."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return b"leaf " + b"/".join(request.postpath)


class Upper:
    """Collects a streamed body, and answers with it in upper case."""

    def __init__(self) -> None:
        self.answer: Deferred[Response] = Deferred()
        self._parts: list[bytes] = []

    def body_received(self, data: bytes) -> None:
        self._parts.append(data)

    def body_finished(self) -> None:
        self.answer.callback(Response(200, [], b"".join(self._parts).upper()))

    def body_lost(self) -> None:
        """Do nothing: there is no one to answer."""


class Produced:
    """A body in three parts."""

    def start(self, sink: Any) -> None:
        for part in (b"one", b"two", b"three"):
            sink.write(part)
        sink.finish()

    def pause(self) -> None:
        """Too late."""

    def resume(self) -> None:
        """Nothing is left."""

    def cancel(self) -> None:
        """Do nothing: nothing is running."""


class Mounted:
    """Handlers of the gateway's kind."""

    def told(self, request: Request, name: str) -> Response:
        parameters = {name: value.decode() for name, value in sorted(request.parameters.items())}
        body = b"" if request.stream is not None else request.body()
        return json_response([name, request.method, parameters, request.query_string.decode(), body.hex()])

    @endpoint("segment", "GET", "/m/<a>")
    def segment(self, request: Request) -> Response:
        return self.told(request, "segment")

    @endpoint("put_segment", "PUT", "/m/<other>")
    def put_segment(self, request: Request) -> Deferred[Response]:
        return succeed(self.told(request, "put_segment"))

    @endpoint("literal", "GET", "/m/literal")
    def literal(self, request: Request) -> Response:
        return self.told(request, "literal")

    @endpoint("deep", "POST", "/m/<a>/x/<b>", "/n/<a>/<b>")
    def deep(self, request: Request) -> Response:
        return self.told(request, "deep")

    @endpoint("literal_deep", "POST", "/m/literal/y/<b>")
    def literal_deep(self, request: Request) -> Response:
        return self.told(request, "literal_deep")

    @endpoint("converted", "GET", "/c/<int:number>")
    def converted(self, request: Request) -> Response:
        return self.told(request, "converted")

    @endpoint("streamed", "POST", "/streamed", streamed=True)
    def streamed(self, request: Request) -> Deferred[Response]:
        if request.stream is None:
            return succeed(Response(200, [], b""))
        upper = Upper()
        request.stream.deliver_to(upper)
        return upper.answer

    @endpoint("produced", "GET", "/produced")
    def produced(self, request: Request) -> Response:
        return Response(200, [(b"Content-Type", b"text/plain")], Produced())

    @endpoint("refused", "GET", "/refused")
    def refused(self, request: Request) -> Response:
        raise bad_request("no")

    @endpoint("nothing", "DELETE", "/nothing")
    def nothing(self, request: Request) -> Response:
        return Response(204, [(b"X-One", b"1"), (b"X-One", b"2")])


def make_app(clock: Clock, files: str) -> Klein:
    """Return an app with handlers of every kind that Klein knows."""
    app = Klein()

    @app.route("/")
    def root(request: Any) -> str:
        return "root \u2713"

    @app.route("/a/<name>", methods=["GET", "POST"])
    def plain(request: Any, name: str) -> str:
        return repr((name, request.method, request.uri, request.path, request.prepath, request.postpath))

    @app.route("/int/<int:number>/<string(length=2):text>")
    def numbers(request: Any, number: int, text: str) -> str:
        return f"{number + 1} {text}"

    @app.route("/path/<path:rest>/end")
    def path(request: Any, rest: str) -> str:
        return rest

    @app.route("/slash/")
    def slash(request: Any) -> bytes:
        return b"slash"

    @app.route("/branch/", branch=True)
    def branch(request: Any) -> Any:
        return Leaf()

    @app.route("/files/", branch=True)
    def static(request: Any) -> Any:
        return File(files)

    with app.subroute("/sub") as below:

        @below.route("/x")
        def sub(request: Any) -> bytes:
            return b"sub " + request.path

    @app.route("/later/<name>")
    def later(request: Any, name: str) -> Deferred[str]:
        answer: Deferred[str] = Deferred()
        clock.callLater(1, answer.callback, name)
        return answer

    @app.route("/coroutine")
    async def coroutine(request: Any) -> str:
        await succeed(None)
        return "coroutine"

    @app.route("/element")
    def element(request: Any) -> Any:
        return Page()

    @app.route("/written")
    def written(request: Any) -> Any:
        request.setHeader(b"Content-Type", b"text/plain")
        request.write(b"one ")
        clock.callLater(1, request.write, b"two")
        rest: Deferred[bytes] = Deferred()
        clock.callLater(2, rest.callback, b" three")
        return rest

    @app.route("/echo", methods=["GET", "POST", "PUT"])
    def echo(request: Any) -> str:
        request.setHeader(b"X-Echo", request.getHeader(b"x-echo") or b"none")
        request.addCookie(b"c", request.getCookie(b"c") or b"none")
        request.setLastModified(1000)
        return repr(
            (
                sorted(request.args.items()),
                request.content.read(),
                request.requestHeaders.getRawHeaders("x-many"),
            )
        )

    @app.route("/redirect")
    def redirect(request: Any) -> bytes:
        request.redirect(b"/a/x")
        return b"there"

    @app.route("/status/<int:status>")
    def status(request: Any, status: int) -> bytes:
        request.setResponseCode(status)
        return b"" if status in (204, 304) else b"status"

    @app.route("/raise/<what>")
    def fail(request: Any, what: str) -> bytes:
        raise {"key": KeyError, "forbidden": Forbidden, "missing": NotFound}.get(what, ZeroDivisionError)

    @app.handle_errors(KeyError)
    def explain(request: Any, failure: Any) -> bytes:
        request.setResponseCode(418)
        return b"explained"

    return app


def answers(reply: Reply) -> tuple[int, bytes, dict[str, list[str]]]:
    """Return what must be the same in two answers."""
    headers = {name: sorted(values) for name, values in reply.headers.items() if name not in OWN_HEADERS}
    body = reply.body
    if headers.get("content-type") == ["application/json"] and body:
        value = json.loads(body)
        if isinstance(value, dict):
            value.pop("requestId", None)
        body = json.dumps(value).encode()
    return reply.status, body, headers


def through(factory: Any, clock: Clock, data: bytes, method: str) -> Reply:
    """Send a request on a new connection; returns the answer, which must be all that arrives."""
    transport = Transport()
    protocol = factory.buildProtocol(None)
    protocol.callLater = clock.callLater
    transport.protocol = protocol
    protocol.makeConnection(transport)
    protocol.dataReceived(data)
    clock.pump([1] * 4 + [0] * 8)
    if transport.value() == BARE_400:
        return Reply(400, {}, b"")
    reply, rest = read_reply(transport.value(), method)
    if rest:
        raise AssertionError(f"behind the answer there is {rest!r}")
    transport.loseConnection()
    return reply


def is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def twisted_site(app: Klein, clock: Clock) -> TwistedSite:
    site = TwistedSite(KleinResource(app), reactor=clock)
    site.displayTracebacks = False
    site.startFactory()
    return site


segments = st.one_of(
    st.sampled_from(
        [
            "a",
            "int",
            "path",
            "slash",
            "branch",
            "files",
            "sub",
            "x",
            "end",
            "later",
            "coroutine",
            "element",
            "written",
            "echo",
            "redirect",
            "status",
            "raise",
            "key",
            "forbidden",
            "missing",
            "other",
            "m",
            "n",
            "c",
            "literal",
            "y",
            "streamed",
            "produced",
            "refused",
            "nothing",
            "5",
            "007",
            "ab",
            "one.txt",
            "204",
            "304",
            "404",
            "500",
            "%41",
            "%2F",
            "%25",
            "..",
            ".",
            "%C3%A9",
            "%zz",
            "a;b",
            "@",
            "+",
            "~",
        ]
    ),
    st.just(""),
    st.binary(max_size=3).map(quote_from_bytes),
)
BEFORE_A_SEGMENT = [
    "/a/", "/int/5/", "/int/", "/path/", "/branch/", "/files/", "/sub/", "/later/", "/status/",
    "/raise/", "/m/", "/m/literal/", "/m/literal/x/", "/m/b/x/", "/m/literal/y/", "/n/b/", "/c/"
]  # fmt: skip
WHOLE = [
    "/", "/echo", "/written", "/element", "/redirect", "/coroutine", "/slash/", "/slash", "/branch",
    "/streamed", "/produced", "/refused", "/nothing", "//", "/sub/x", "/files/one.txt"
]  # fmt: skip
paths = st.one_of(
    st.lists(segments, max_size=5).map(lambda parts: "/" + "/".join(parts)),
    st.builds(lambda head, tail: head + tail, st.sampled_from(BEFORE_A_SEGMENT), segments),
    st.sampled_from(WHOLE),
)
queries = st.lists(
    st.tuples(st.sampled_from("abx"), st.binary(max_size=4).map(quote_from_bytes)), max_size=3
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))
MULTIPART = b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nv\r\n--b--\r\n'
bodies = st.sampled_from(
    [
        (b"", {}),
        (b"a=1&b=%41&a=2", {"Content-Type": "application/x-www-form-urlencoded"}),
        (b"a=1", {"Content-Type": "APPLICATION/x-www-form-urlencoded; charset=utf-8"}),
        (MULTIPART, {"Content-Type": "multipart/form-data; boundary=b"}),
        (b'{"a": 1}', {"Content-Type": "application/json"}),
        (b"\x00\xff", {}),
    ]
)
headers = st.lists(
    st.sampled_from(
        [
            ("X-Echo", "yes"),
            ("X-Many", "1"),
            ("X-Many", "2"),
            ("Cookie", "c=d"),
            ("Accept", "*/*"),
            ("Range", "bytes=1-2"),
            ("If-Modified-Since", "Thu, 01 Jan 1970 00:16:40 GMT"),
        ]
    ),
    max_size=4,
)
methods = st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])


class AnyAppTests(SynchronousTestCase):
    """An app that does not depend on the gateway."""

    def setUp(self) -> None:
        self.clock = Clock()
        # twisted.web asks producers of static files for more in turns of the reactor.
        turns = task.Cooperator(scheduler=lambda call: self.clock.callLater(0, call))
        self.patch(task, "_theCooperator", turns)
        files = FilePath(self.mktemp())
        files.makedirs()
        files.child("one.txt").setContent(b"0123456789" * 1000)
        app = make_app(self.clock, files.path)
        self.application = Application(app, self.clock)
        mount(app, Mounted(), self.application.run_under_klein)
        self.application.routes_are_complete()
        self.channels = ChannelFactory(self.application, self.clock)
        self.twisted = twisted_site(app, self.clock)

    def differs(self, path: bytes) -> bool:
        """Return whether a path is one of those that mean something else to the dispatcher, on purpose.

        In a segment of its routes an escaped slash is part of the value, where Klein decodes first and cuts
        then; broken escapes and bytes that are not UTF-8 are explained, where Klein lets them pass or refuses
        in plain text.
        """
        if self.application.dispatcher.find(path) is None:
            return False
        decoded = unquote_to_bytes(path)
        return bool(re.search(rb"%2f|%(?![0-9a-f]{2})", path, re.IGNORECASE)) or not is_utf8(decoded)

    def check(self, method: str, target: str, body: bytes, given_headers: list[tuple[str, str]]) -> None:
        data = raw_request(method, target, body, given_headers)
        ours = through(self.channels, self.clock, data, method)
        theirs = through(self.twisted, self.clock, data, method)
        self.flushLoggedErrors()
        if ours.status == 500:
            # twisted.web reports it in HTML, without details if tracebacks are off; here the report is JSON.
            self.assertEqual(theirs.status, 500)
            return
        if theirs.status == 400 and not theirs.headers:
            self.assertEqual(ours.status, 400)
            return
        self.assertEqual(answers(ours), answers(theirs))
        self.assertEqual(self.application.under_way, 0)
        self.assertEqual(self.application.budget.used, 0)

    def test_any_request(self) -> None:
        """Status, body and headers are the same."""

        @settings(max_examples=tries(600), deadline=None, report_multiple_bugs=False)
        @given(methods, paths, queries, bodies, headers)
        @example("GET", "/a/%41%2Fb", "", (b"", {}), [])
        @example("GET", "/a/%ff", "", (b"", {}), [])
        @example("GET", "/m/literal/x/b", "", (b"", {}), [])
        @example("POST", "/m/literal/x/b", "", (b"", {}), [])
        @example("PUT", "/m/literal", "", (b"x", {}), [])
        @example("PUT", "/m/b", "", (b"x", {}), [])
        @example("GET", "/m/b", "", (b"", {}), [])
        @example("POST", "/echo", "a=9", (b"a=1", {"Content-Type": "application/x-www-form-urlencoded"}), [])
        @example("POST", "/echo", "", (b"x", {"Content-Type": "multipart/form-data"}), [])
        @example("HEAD", "/files/one.txt", "", (b"", {}), [])
        @example("GET", "/files/one.txt", "", (b"", {}), [("Range", "bytes=1-2")])
        def run(method, path, query, body, more):  # type: ignore[no-untyped-def]
            content, content_headers = body
            assume(not self.differs(path.encode()))
            target = f"{path}?{query}" if query else path
            self.check(method, target, content, [*content_headers.items(), *more])

        run()


# Requests for which the gateway's own app differs on purpose:
# - OPTIONS, which the dispatcher answers for every resource, and Klein does not know;
# - paths without a route and methods without a handler, which Klein explains in HTML and the gateway in JSON;
# - a slash in a key (%2F), which Klein takes for the end of the segment;
# - invalid escapes, and bytes that are not UTF-8, which Klein passes on unchanged, or refuses in plain text.
gateway_segments = st.sampled_from(["k", "a.b", "a%20b", "%41", "a%25", "caf%C3%A9", "a:b", "a+b", "k" * 251])
gateway_paths = st.one_of(
    st.builds(
        lambda bucket, key: f"/v1/buckets/{bucket}/documents/{key}", gateway_segments, gateway_segments
    ),
    st.builds(
        lambda scope, key: f"/v1/buckets/b/scopes/{scope}/collections/_default/documents/{key}",
        st.sampled_from(["_default", "other"]),
        gateway_segments,
    ),
    st.builds(
        lambda key, what: f"/v1/buckets/b/documents/{key}/{what}",
        gateway_segments,
        st.sampled_from(["append", "prepend", "increment", "lock", "unlock", "touch", "nothing"]),
    ),
    st.sampled_from(["/health", "/v1/buckets/b", "/v1/buckets", "/v1/buckets/b/batch", "/no", "/"]),
)
gateway_headers = st.lists(
    st.sampled_from(
        [
            ("If-Match", "*"),
            ("If-Match", '"0000000000001234"'),
            ("If-Match", "1234, 5678"),
            ("If-None-Match", "00001234"),
            ("If-None-Match", "*"),
            ("X-CB-TTL", "5"),
            ("Expires", "no date"),
            ("Accept-Encoding", "gzip"),
            ("X-CB-Flags", "1"),
            ("X-CB-DurabilityLevel", "none"),
        ]
    ),
    max_size=2,
)


class GatewayTests(SynchronousTestCase):
    """The gateway's own app."""

    def setUp(self) -> None:
        self.answers: dict[str, Any] = {}
        self.site = Site(self.answers)
        self.twisted = twisted_site(self.site.gateway.app, self.site.clock)

    def ask(self, factory: Any, data: bytes, method: str) -> tuple[Reply, list[Any]]:
        for connection in self.site.connections:
            connection.calls.clear()
        reply = through(factory, self.site.clock, data, method)
        return reply, [call[:2] for call in self.site.calls]

    def test_protections(self) -> None:
        """In a site of twisted.web foreign pages and headers that are not honoured are refused as well."""
        self.site = Site({"get_with_expiry": Answer(b"1")}, guard=Doors(is_open=True))
        self.twisted = twisted_site(self.site.gateway.app, self.site.clock)
        document = "/v1/buckets/b/documents/k"
        for method, path, headers, code in (
            ("GET", document, {"Host": "evil.example"}, "ForbiddenHost"),
            ("GET", document, {"Origin": "http://evil.example"}, "ForbiddenOrigin"),
            ("PUT", document, {"Origin": "http://evil.example"}, "ForbiddenOrigin"),
            ("GET", document, {"Expires": "1s"}, "InvalidArgument"),
            ("POST", document + "/lock", {"If-Match": "12"}, "InvalidArgument"),
        ):
            for factory in (self.site.factory, self.twisted):
                data = raw_request(method, path, b"", headers)
                if "Host" in headers:
                    data = re.sub(rb"(?im)^host: (?!evil).*\r\n", b"", data)
                reply, calls = self.ask(factory, data, method)
                self.assertEqual(reply.json()["code"], code)
                self.assertEqual(calls, [])
        reply, _ = self.ask(self.twisted, raw_request("GET", document, b"", {}), "GET")
        self.assertEqual((reply.status, reply.body), (200, b"1"))

    def test_any_request(self) -> None:
        """Answers are the same, and so is what the cluster is asked."""

        @settings(max_examples=tries(300), deadline=None, report_multiple_bugs=False)
        @given(
            st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
            gateway_paths,
            st.sampled_from(["", "?expiry=1", "?project=a", "?x=y"]),
            st.sampled_from([b"", b'{"a": 1}', b"\xff", b'{"delta": 1}']),
            gateway_headers,
            st.sampled_from([Answer(b'{"a": 1}'), error(0x0D), error(0x0C), error(0x0B)]),
        )
        def run(method, path, query, body, more, answer):  # type: ignore[no-untyped-def]
            reads = ("get_with_expiry", "get")
            for name in (*reads, "set", "add", "replace", "delete", "append", "prepend", "touch"):
                self.answers[name] = answer
            data = raw_request(method, path + query, body, more)
            ours, our_calls = self.ask(self.site.factory, data, method)
            theirs, their_calls = self.ask(self.twisted, data, method)
            self.flushLoggedErrors()
            self.assertEqual((ours.status, our_calls), (theirs.status, their_calls))
            if theirs.header("Content-Type") != "text/html; charset=utf-8":
                self.assertEqual(answers(ours), answers(theirs))

        run()
