"""The access log: its fields, the trusted sources of the client's address, and that no line can be forged."""

from __future__ import annotations

import json
import re
import shlex
import socket
import struct
from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as installed
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from gateway.app import Gateway
from gateway.clients import accesslog
from gateway.clients.accesslog import AccessLog, escaped, without_secrets
from gateway.clients.address import client_address, split_elements
from gateway.clients.proxies import TrustedProxies
from gateway.cluster.credentials import Authorizer, ServiceAccount
from gateway.cluster.pool import ConnectionPool
from gateway.endpoints import is_local
from gateway.http.factory import ChannelFactory
from gateway.http.request import Request
from gateway.limits import Limits
from reactor.gate import Gate
from tests.gateway.support import (
    SECRET,
    Answer,
    ScriptedConnection,
    basic,
    error,
    passthrough,
    raw_request,
)

reactor: Any = installed

DOCUMENT = "/v1/buckets/b/documents/k"
NOW = 1_700_000_000.75
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACED = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


def make_factory(
    clock: Any,
    lines: list[str],
    trusted: tuple[str, ...] = (),
    authorizer: Authorizer | None = None,
    answers: dict[str, Any] | None = None,
    gate: Gate | None = None,
    form: str = "extended",
) -> ChannelFactory:
    """Return a gateway's factory that writes its access log into a list."""
    connection = ScriptedConnection({"get_with_expiry": Answer(b"{}"), **(answers or {})})
    gateway = Gateway(
        authorizer or ServiceAccount("service", "secret", SECRET),
        ConnectionPool(lambda *_: connection, clock),  # type: ignore[arg-type,return-value]
        clock,
        now=lambda: 0.0,
        limits=Limits(),
        is_ready=lambda: None,  # type: ignore[arg-type,return-value]
        end_hooks=[AccessLog(TrustedProxies(trusted), lines.append, form, now=lambda: NOW).on_end],
    )
    return ChannelFactory(gateway, clock, gate)


class _AnySize:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and other > 0

    __hash__ = None  # type: ignore[assignment]


ANY_SIZE = _AnySize()


def leave_line(clock: Clock, factory: ChannelFactory, data: bytes) -> None:
    """Send a request from a known address."""
    channel = factory.buildProtocol(None)
    assert channel is not None
    channel.makeConnection(StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.7", 4711)))
    channel.dataReceived(data)
    clock.pump([0] * 4)


def line_of(form: str, path: bytes, agent: bytes) -> str:
    """Return the line of a request with these bytes in it."""
    lines: list[str] = []
    request = Request("GET", path, agent, {b"user-agent": agent, b"referer": [path, agent]})
    request.given_id = b"id"
    AccessLog(TrustedProxies(), lines.append, form, now=lambda: NOW).on_end(request, 200, 0.1)
    (line,) = lines
    return line


class LineTests(SynchronousTestCase):
    """One line a request."""

    def setUp(self) -> None:
        self.lines: list[str] = []
        self.clock = Clock()

    def send(self, data: bytes, **options: Any) -> list[str]:
        """Return the fields of the line that a request leaves."""
        self.lines.clear()
        leave_line(self.clock, make_factory(self.clock, self.lines, **options), data)
        self.assertEqual(len(self.lines), 1)
        return shlex.split(self.lines[0])

    def test_fields(self) -> None:
        """They are those of the combined format, then sizes, time, id, route, trace."""
        headers = {"User-Agent": "curl/8", "Referer": "http://h/", "X-Request-Id": "id-1", **TRACED}
        self.send(raw_request("GET", DOCUMENT + "?project=a", headers=headers))
        self.assertEqual(
            self.lines,
            [
                '192.0.2.7 - - "GET /v1/buckets/b/documents/k?project=a HTTP/1.1" 200 4 '
                f'"http://h/" "curl/8" 0 0.0000 id-1 get_document - {TRACE}'
            ],
        )

    def test_trace(self) -> None:
        """Without a valid context every request has a trace of its own."""
        for headers in ({}, {"traceparent": "00-" + TRACE}):
            traces = {
                self.send(raw_request("GET", DOCUMENT, headers=headers), form=form)[-1]
                for form in ("extended", "extended")
            }
            self.assertEqual(len(traces), 2)
            for trace in traces:
                self.assertRegex(trace, r"\A[0-9a-f]{32}\Z")
                self.assertNotEqual(trace, TRACE)

    def test_user(self) -> None:
        """A caller whom the cluster has let in is named; one whom it refused is not; no password ever."""
        who = basic("jane doe", "pass")
        for answers, user in ({}, "jane\\x20doe"), ({"connect": error(2)}, "-"):
            fields = self.send(
                raw_request("GET", DOCUMENT, headers=who), authorizer=passthrough(), answers=answers
            )
            self.assertIn(f' - {user} "GET', self.lines[0])
            self.assertNotIn("pass", self.lines[0])
            self.assertEqual(fields[4], "200" if user != "-" else "403")
        self.send(raw_request("GET", DOCUMENT), authorizer=passthrough())
        self.assertIn(' - - "GET', self.lines[0])
        self.send(raw_request("GET", DOCUMENT, headers=basic("-", "pass")), authorizer=passthrough())
        self.assertIn(' - \\x2d "GET', self.lines[0])

    def test_hostile_values(self) -> None:
        """Quotes, blanks, control bytes and all that is no ASCII cannot end a field or the line."""
        agent = b'x" 200 0 "-" \t\xff\\'
        self.send(b"GET /%22%0a\"' HTTP/1.1\r\nHost: h\r\nUser-Agent: " + agent + b"\r\n\r\n")
        (line,) = self.lines
        self.assertNotRegex(line, r"[^ -~]")
        self.assertIn('"x\\x22 200 0 \\x22-\\x22 \\x09\\xff\\x5c"', line)
        self.assertEqual(line.count('"'), 6)

    def test_repeated_headers(self) -> None:
        """All values of a header that is given more than once, every time, and nothing else of a request
        before."""
        given = b"Referer: http://a/?token=1\r\nReferer: http://b/\r\nUser-Agent: x\r\nUser-Agent: y\r\n"
        for form in accesslog.FORMS:
            lines: list[str] = []
            factory = make_factory(self.clock, lines, form=form)
            for headers in (given, b"", given, b"Referer: \r\nUser-Agent: \r\n"):
                leave_line(self.clock, factory, b"GET / HTTP/1.1\r\nHost: h\r\n" + headers + b"\r\n")
            for repeated, other in (lines[:2], lines[2:]):
                self.assertIn("http://a/?token=-", repeated)
                self.assertIn("x, y", repeated)
                self.assertNotIn("x, y", other)

    def test_no_request_at_all(self) -> None:
        """Input that cannot be parsed also leaves a line."""
        self.send(b"\x16\x03\x01 nonsense\r\n\r\n")
        self.assertIn('"? - HTTP', self.lines[0])
        self.assertIn('" 400 ', self.lines[0])

    def test_long_values(self) -> None:
        """A client cannot make a line as long as its headers may be."""
        self.send(raw_request("GET", "/" + "a" * 8000, headers={"User-Agent": "b" * 6000}))
        self.assertLess(len(self.lines[0]), 5000)
        self.assertIn("aaa... HTTP", self.lines[0])

    @given(st.binary(max_size=60))
    def test_escaped(self, value: bytes) -> None:
        """Any text is printable, stays within its field, and differs from every other value."""
        quoted, bare = escaped(value, 100), escaped(value, 100, quoted=False)
        self.assertRegex(quoted, r"\A[ !#-~]*\Z")
        self.assertRegex(bare, r"\A[!#-~]*\Z")
        for shown in (quoted, bare):
            back = re.sub(rb"\\x(..)", lambda found: bytes.fromhex(found[1].decode()), shown.encode())
            self.assertEqual(back, value)


class SecretTests(SynchronousTestCase):
    """Secrets in a query, which callers send by mistake: the gateway takes them from headers only."""

    SECRET = "eyJhbGciOi.s3cret"

    def test_every_form(self) -> None:
        """None is in a line, neither as the target's nor as the referer's."""
        for form in accesslog.FORMS:
            lines: list[str] = []
            page = f"https://a.example/?x=1&token={self.SECRET}"
            query = f"project=a&access_token={self.SECRET}&b"
            headers = {"Referer": page, "User-Agent": "curl/8"}
            for _ in range(2):
                leave_line(
                    Clock(),
                    make_factory(Clock(), lines, form=form),
                    raw_request("GET", f"{DOCUMENT}?{query}", headers=headers),
                )
            for line in lines:
                self.assertNotIn("s3cret", line)
                self.assertIn("?project=a&access_token=-&b", line)
                self.assertIn("https://a.example/?x=1&token=-", line)

    def test_same_value_elsewhere(self) -> None:
        """Nor is one in a line if another header had the same value before."""
        page = f"https://a.example/?token={self.SECRET}"
        for form in accesslog.FORMS:
            lines: list[str] = []
            clock = Clock()
            factory = make_factory(clock, lines, form=form)
            for name in ("User-Agent", "Referer"):
                leave_line(clock, factory, raw_request("GET", DOCUMENT, headers={name: page}))
            self.assertEqual([self.SECRET in line for line in lines], [True, False], form)
            self.assertIn("https://a.example/?token=-", lines[1])

    def test_names(self) -> None:
        """However the name is written; other parameters stay as they are, secrets that are empty too."""
        for query, expected in (
            (b"access_token=a", b"access_token=-"),
            (b"ACCESS_TOKEN=a&b=c", b"ACCESS_TOKEN=-&b=c"),
            (b"access%5Ftoken=a", b"access%5Ftoken=-"),
            (b"%61ccess_token=a=b==", b"%61ccess_token=-"),
            (b"+access_token+=a", b"+access_token+=-"),
            (b"b;api_key=a;c", b"b;api_key=-;c"),
            (b"password=a&password=b", b"password=-&password=-"),
            (b"access_token", b"access_token"),
            (b"access_token=", b"access_token="),
            (b"key=%22token%22&startkey=1", b"key=%22token%22&startkey=1"),
            (b"my_access_token=a", b"my_access_token=a"),
            (b"=a&&;", b"=a&&;"),
        ):
            self.assertEqual(without_secrets(query), expected, query)

    @given(st.binary(max_size=60), st.sampled_from([b"access_token", b"Access%5fToken", b"api_key"]))
    def test_any_query(self, rest: bytes, name: bytes) -> None:
        """Whatever stands around it, a secret does not show, and the rest does."""
        shown = without_secrets(b"%b&%b=s3cret&%b" % (rest, name, rest))
        self.assertNotIn(b"s3cret", shown)
        self.assertEqual(without_secrets(shown), shown)


class CombinedTests(SynchronousTestCase):
    """The form of Apache and nginx."""

    # Apache's "%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-agent}i\"".
    PATTERN = re.compile(
        r"(\S+) (\S+) (\S+) \[(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-]\d{4})\] "
        r'"([^"]*)" (\d{3}) (\d+|-) "([^"]*)" "([^"]*)"'
    )

    def fields(self, data: bytes, **options: Any) -> tuple[str, ...]:
        """Return the fields of the line that a request leaves."""
        lines: list[str] = []
        clock = Clock()
        leave_line(clock, make_factory(clock, lines, form="combined", **options), data)
        (line,) = lines
        found = self.PATTERN.fullmatch(line)
        assert found is not None, line
        return found.groups()

    def test_fields(self) -> None:
        """They are Apache's, with the time in the machine's zone."""
        self.patch(accesslog.time, "localtime", accesslog.time.gmtime)
        headers = {"User-Agent": "curl/8", "Referer": "http://h/", **basic("jane", "pass")}
        fields = self.fields(raw_request("GET", DOCUMENT, headers=headers), authorizer=passthrough())
        self.assertEqual(fields[:3], ("192.0.2.7", "-", "jane"))
        self.assertEqual(fields[3:9], ("14", "Nov", "2023", "22", "13", "20"))
        self.assertEqual(fields[10:], (f"GET {DOCUMENT} HTTP/1.1", "200", "2", "http://h/", "curl/8"))

    def test_no_body(self) -> None:
        """No bytes are a dash, as in Apache's %b."""
        self.assertEqual(self.fields(raw_request("HEAD", DOCUMENT))[11:13], ("200", "-"))

    @given(st.binary(max_size=40), st.binary(max_size=40))
    def test_any_bytes(self, path: bytes, agent: bytes) -> None:
        """Nothing that a client sends can add a field or a line."""
        found = self.PATTERN.fullmatch(line_of("combined", path, agent))
        assert found is not None


class JsonTests(SynchronousTestCase):
    """The structured form."""

    def read(self, data: bytes, **options: Any) -> dict[str, Any]:
        """Return the object that a request leaves."""
        lines: list[str] = []
        clock = Clock()
        leave_line(clock, make_factory(clock, lines, form="json", **options), data)
        (line,) = lines
        self.assertRegex(line, r"\A[ -~]*\Z")
        return json.loads(line)  # type: ignore[no-any-return]

    def test_fields(self) -> None:
        """Everything that is known, with what is missing as null."""
        headers = {"User-Agent": "curl/8", "X-Request-Id": "id-1", **TRACED, **basic("jane", "pass")}
        self.assertEqual(
            self.read(
                raw_request("PUT", DOCUMENT + "?x", b"{}", headers=headers),
                authorizer=passthrough(),
            ),
            {
                "time": "2023-11-14T22:13:20.750Z",
                "level": "info",
                "namespace": "access",
                "client": "192.0.2.7",
                "user": None,
                "method": "PUT",
                "target": DOCUMENT + "?x",
                "version": "1.1",
                "status": 400,
                "received_bytes": 2,
                "sent_bytes": ANY_SIZE,
                "seconds": 0.0,
                "referer": None,
                "user_agent": "curl/8",
                "request_id": "id-1",
                "trace_id": TRACE,
                "route": "put_document",
                "error": "InvalidArgument",
                "cut": None,
            },
        )

    def test_user(self) -> None:
        """A caller is named once the cluster has admitted him."""
        for answers, user, error_code in (
            ({}, "J\xe4ne", None),
            ({"connect": error(2)}, None, "InvalidAuth"),
        ):
            entry = self.read(
                raw_request("GET", DOCUMENT, headers=basic("J\xe4ne", "pass")),
                authorizer=passthrough(),
                answers=answers,
            )
            self.assertEqual((entry["user"], entry["error"]), (user, error_code))
            self.assertNotIn("pass", json.dumps(entry))

    def test_no_request_at_all(self) -> None:
        """Input that cannot be parsed also leaves an object."""
        entry = self.read(b"\x16\x03\x01 nonsense\r\n\r\n")
        self.assertEqual((entry["method"], entry["target"], entry["route"]), ("?", "", None))
        self.assertEqual((entry["status"], entry["cut"]), (400, None))

    def test_long_values(self) -> None:
        """They are cut."""
        entry = self.read(raw_request("GET", "/" + "a" * 8000, headers={"User-Agent": "b" * 6000}))
        self.assertEqual((len(entry["target"]), len(entry["user_agent"])), (4099, 515))

    @given(st.binary(max_size=40), st.binary(max_size=40))
    def test_any_bytes(self, path: bytes, agent: bytes) -> None:
        """Whatever a client sends, it is one line with one object of the same members."""
        line = line_of("json", path, agent)
        self.assertRegex(line, r"\A[ -~]*\Z")
        self.assertEqual(len(json.loads(line)), 19)


class ClientAddressTests(SynchronousTestCase):
    """Trusted sources of the client's address."""

    def client(self, peer: Any, trusted: tuple[str, ...], *headers: tuple[str, Any]) -> str:
        request: Any = Request("GET", b"/", b"", {name.lower().encode(): value for name, value in headers})
        if not isinstance(peer, (IPv4Address, IPv6Address, UNIXAddress)):
            peer = IPv4Address("TCP", peer, 1)
        request.transport = StringTransport(peerAddress=peer)
        return client_address(request, TrustedProxies(trusted))

    def test_nobody_is_trusted(self) -> None:
        """Then headers mean nothing, also on loopback."""
        for header in (("X-Forwarded-For", b"1.2.3.4"), ("Forwarded", b"for=1.2.3.4")):
            self.assertEqual(self.client("127.0.0.1", (), header), "127.0.0.1")
            self.assertEqual(self.client("127.0.0.1", ("10.0.0.0/8",), header), "127.0.0.1")

    def test_chains(self) -> None:
        """From the end of the chain, up to the first untrusted address."""
        trusted = ("10.0.0.0/8", "2001:db8::/32")
        for value, client in (
            (b"1.2.3.4", "1.2.3.4"),
            (b"6.6.6.6, 1.2.3.4", "1.2.3.4"),
            (b"6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
            (b"10.0.0.3,10.0.0.2", "10.0.0.3"),
            (b"1.2.3.4:5678", "1.2.3.4"),
            (b"[2001:DB9::1]:80", "2001:db9::1"),
            (b"2001:db9::1", "2001:db9::1"),
            (b"::ffff:1.2.3.4", "1.2.3.4"),
            (b"unknown", "10.0.0.1"),
            (b"1.2.3.4, unknown", "10.0.0.1"),
            (b"1.2.3.4, unknown, 10.0.0.2", "10.0.0.2"),
            (b"", "10.0.0.1"),
            (b'"\x1b[2J', "10.0.0.1"),
            ([b"6.6.6.6", b"1.2.3.4"], "1.2.3.4"),
            ([b"6.6.6.6", b"1.2.3.4, 10.0.0.2"], "1.2.3.4"),
        ):
            self.assertEqual(self.client("10.0.0.1", trusted, ("X-Forwarded-For", value)), client, value)

    def test_forwarded(self) -> None:
        """The header of RFC 7239, with its quotes, ports, parameters and secret names."""
        for value, client in (
            (b"for=1.2.3.4", "1.2.3.4"),
            (b"proto=https;For=1.2.3.4;by=9.9.9.9", "1.2.3.4"),
            (b'for="1.2.3.4:99"', "1.2.3.4"),
            (b'for="[2001:db9::1]:80"', "2001:db9::1"),
            (b'for=6.6.6.6, for=1.2.3.4;host="a,for=5.5.5.5"', "1.2.3.4"),
            (b"for=1.2.3.4, by=10.0.0.1", "10.0.0.1"),
            (b"for=_hidden", "10.0.0.1"),
            (b'for="6.6.6.6, for=1.2.3.4', "1.2.3.4"),
            (b'for=""', "10.0.0.1"),
            (b"for=", "10.0.0.1"),
            (b'for=1.2.3.4, for=""', "10.0.0.1"),
            (b'for="";for=1.2.3.4', "10.0.0.1"),
            (b'for="[fe80::1%25eth0]:80"', "fe80::1"),
        ):
            self.assertEqual(self.client("10.0.0.1", ("10.0.0.1",), ("Forwarded", value)), client, value)

    @given(
        st.lists(
            st.lists(
                st.sampled_from(
                    [
                        "for=",
                        "for=",
                        '"',
                        '""',
                        ";",
                        ",",
                        " ",
                        "1.2.3.4",
                        "[::1]",
                        "10.0.0.1",
                        "%a",
                        ":80",
                        "\\",
                    ]
                ),
                max_size=12,
            ).map("".join),
            min_size=2,
            max_size=2,
        )
    )
    def test_any_values(self, values: list[str]) -> None:
        """Whatever the headers say, the client has an address without zone and port."""
        headers = [
            (name, value.encode())
            for name, value in zip(("Forwarded", "X-Forwarded-For"), values, strict=True)
        ]
        for sent in (headers, headers[:1], headers[1:]):
            found = self.client("10.0.0.1", ("10.0.0.0/8", "::1"), *sent)
            self.assertNotIn("%", str(ip_address(found)))

    @given(st.text('a=;", ', max_size=60))
    def test_elements(self, value: str) -> None:
        """Commas outside quotes separate elements, and nothing gets lost."""
        elements = split_elements(value)
        closed = '"' * (value.count('"') % 2) + value
        self.assertEqual(",".join(elements), closed)
        quoted, commas = False, 0
        for letter in reversed(value):
            quoted ^= letter == '"'
            commas += letter == "," and not quoted
        self.assertEqual(len(elements), commas + 1)

    def test_strangers_are_not_read(self) -> None:
        """An untrusted header is not read at all, however long it is."""
        request: Any = Request("GET", b"/", b"", {b"forwarded": b'",' * 8000})
        request.transport = StringTransport(peerAddress=IPv4Address("TCP", "9.9.9.9", 1))
        request.header_values = None
        self.assertEqual(client_address(request, TrustedProxies(("10.0.0.1",))), "9.9.9.9")

    def test_both(self) -> None:
        """Headers that contradict each other are not believed: one of them is the client's own."""
        for other, client in ((b"for=1.2.3.4", "1.2.3.4"), (b"for=6.6.6.6", "10.0.0.1")):
            headers = (("X-Forwarded-For", b"1.2.3.4"), ("Forwarded", other))
            self.assertEqual(self.client("10.0.0.1", ("10.0.0.1",), *headers), client)

    def test_kinds_of_peers(self) -> None:
        """Unix sockets are shown as a word; IPv4 in IPv6 is IPv4; a scope is not part of an address."""
        header = ("X-Forwarded-For", b"1.2.3.4")
        self.assertEqual(self.client(UNIXAddress(None), (), header), "unix")
        self.assertEqual(self.client(UNIXAddress(None), ("127.0.0.1",), header), "unix")
        self.assertEqual(self.client(UNIXAddress(None), ("unix",), header), "1.2.3.4")
        mapped = IPv6Address("TCP", "::ffff:10.0.0.1", 1)
        self.assertEqual(self.client(mapped, (), header), "10.0.0.1")
        self.assertEqual(self.client(mapped, ("10.0.0.1",), header), "1.2.3.4")
        self.assertEqual(
            self.client(IPv6Address("TCP", "fe80::1%eth0", 1), ("fe80::/10",), header), "1.2.3.4"
        )


class ProxyProtocolTests(TestCase):
    """The PROXY protocol, over sockets, on an endpoint that speaks it and on one that does not."""

    timeout = 120

    V1 = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 80\r\n"
    V2 = (
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
        + socket.inet_aton("203.0.113.9")
        + socket.inet_aton("192.0.2.1")
        + struct.pack(">HH", 4711, 80)
    )

    @inlineCallbacks
    def line(self, prefix: str, header: bytes, *trusted: str) -> Any:
        """Return the line and the answer of a request behind a header."""
        lines: list[str] = []
        factory = make_factory(reactor, lines, trusted, gate=Gate(reactor))
        endpoint = serverFromString(reactor, prefix + "tcp:0:interface=127.0.0.1")
        port = yield endpoint.listen(factory)
        try:
            with socket.create_connection(("127.0.0.1", port.getHost().port)) as client:
                client.sendall(header + b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                client.setblocking(False)
                answer = b""
                while True:
                    try:
                        part = client.recv(65536)
                    except BlockingIOError:
                        yield deferLater(reactor, 0.01)
                        continue
                    except ConnectionResetError:
                        break
                    if not part:
                        break
                    answer += part
            while factory.channels:
                yield deferLater(reactor, 0.01)
        finally:
            yield port.stopListening()
            yield factory.stop()
        return lines, answer

    @inlineCallbacks
    def test_believed(self) -> Any:
        """The header is trusted from proxies on this machine if none are configured, else from the
        configured ones."""
        for header in (self.V1, self.V2):
            for trusted, client in (
                ((), "203.0.113.9"),
                (("127.0.0.1",), "203.0.113.9"),
                (("10.0.0.1",), "127.0.0.1"),
            ):
                lines, answer = yield self.line("haproxy:", header, *trusted)
                self.assertEqual([line.split()[0] for line in lines], [client], (header, trusted))
                self.assertIn(b"HTTP/1.1 200 ", answer)

    @inlineCallbacks
    def test_demanded(self) -> Any:
        """Such an endpoint serves no client without the header."""
        lines, answer = yield self.line("haproxy:", b"")
        self.assertEqual((lines, answer), ([], b""))

    @inlineCallbacks
    def test_refused_elsewhere(self) -> Any:
        """Another endpoint takes it for a request that is none."""
        for header in (self.V1, self.V2):
            lines, answer = yield self.line("", header, "127.0.0.1")
            self.assertIn(b" 400 ", answer.partition(b"\r\n")[0])
            self.assertEqual(lines[0].split()[0], "127.0.0.1")

    def test_loopback(self) -> None:
        """It is the endpoint inside that says who can reach it."""
        for endpoint, local in (
            ("haproxy:tcp:8080:interface=127.0.0.1", True),
            ("haproxy:tcp6:8080:interface=\\:\\:1", True),
            ("haproxy:unix:/run/x.sock", True),
            ("haproxy:tcp:8080", False),
            ("haproxy:tcp:8080:interface=0.0.0.0", False),
            ("haproxy", False),
        ):
            self.assertEqual(is_local(endpoint), local, endpoint)
