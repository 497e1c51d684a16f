"""Cached heads are equal to what llhttp returns for them, and no other bytes are taken from the cache."""

from __future__ import annotations

from httptools import HttpParserError, HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.clients.origins import Doors
from gateway.http import heads
from gateway.http.heads import REQUEST, REQUEST_LINE, HeadReader, Malformed
from tests import SHARED, tries
from tests.gateway.support import Answer, Site, basic, raw_request, read_reply

DOCUMENT = "/v1/buckets/b/documents/k"
BEHIND = b"Host: h\r\n\r\n"


def llhttp_takes(head: bytes) -> bool:
    """Return whether llhttp, freshly made, finds a whole request."""
    ended: list[bool] = []

    class Callbacks:
        def on_message_complete(self) -> None:
            ended.append(True)

    try:
        HttpRequestParser(Callbacks()).feed_data(head)
    except HttpParserError:
        return False
    return bool(ended)


class RequestLineTests(SynchronousTestCase):
    """The expression for lines of the usual form."""

    @given(
        st.sampled_from([b"GET", b"PUT", b"HEAD", b"OPTIONS"]),
        st.binary(max_size=12),
        st.sampled_from(
            [b" HTTP/1.1\r\n", b" HTTP/1.1\n", b" HTTP/1.10\r\n", b"  HTTP/1.1\r\n", b" HTTP/1.1 \r\n"]
        ),
    )
    def test_matches_only_what_llhttp_takes(self, method: bytes, target: bytes, end: bytes) -> None:
        """So a known head may follow it without llhttp being asked."""
        line = method + b" /" + target + end
        match = REQUEST_LINE.match(line + BEHIND)
        if match is not None:
            self.assertTrue(llhttp_takes(line + BEHIND), line)
            self.assertEqual(match[0], line)

    def test_every_byte_of_a_target(self) -> None:
        """All that llhttp takes in a path or a query matches, so that the quick way is the usual one."""
        for byte in range(256):
            for target in (b"/a%cb", b"/a?%cb"):
                line = b"GET " + target.replace(b"%c", bytes([byte])) + b" HTTP/1.1\r\n"
                takes = llhttp_takes(line + BEHIND) and byte != 0x20
                self.assertEqual(REQUEST_LINE.match(line) is not None, takes, line)


class KnownHeadTests(SynchronousTestCase):
    """The cache of heads."""

    def setUp(self) -> None:
        self.site = Site({"get_with_expiry": Answer(b"{}"), "set": Answer()})
        self.known = self.site.factory.heads.known

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> int:
        client = self.site.client()
        self.site.send(client, raw_request(method, path, body, headers))
        return read_reply(client.value(), method)[0].status

    def test_once(self) -> None:
        """The same headers are remembered once, and mean the same behind any usual line."""
        for method, path in (("GET", DOCUMENT), ("GET", "/health"), ("HEAD", DOCUMENT), ("GET", "/no?a=b")):
            self.ask(method, path)
        self.assertEqual(len(self.known), 1)
        self.assertEqual(self.ask("GET", DOCUMENT), 200)

    def test_bodies(self) -> None:
        """A known head announces the same body again."""
        for text in (b"abc", b"def"):
            self.assertEqual(self.ask("PUT", DOCUMENT, text), 200)
        self.assertEqual([call[1][1] for call in self.site.calls], [b"abc", b"def"])
        self.assertEqual(len(self.known), 1)

    def test_close(self) -> None:
        """A known head that closes the connection does so each time."""
        for _ in range(2):
            client = self.site.client()
            self.site.send(client, raw_request("GET", DOCUMENT, headers={"Connection": "close"}))
            self.assertFalse(client.connected)

    def test_secrets_are_forgotten(self) -> None:
        """A password is gone with its request."""
        for headers in (basic("u", "p"), {"cookie": "a"}, {"Proxy-Authorization": "b"}):
            self.ask("GET", DOCUMENT, **headers)
        self.assertEqual(self.known, {})

    def test_once_only(self) -> None:
        """Heads that differ from request to request do not displace others."""
        self.ask("GET", DOCUMENT)
        for number in range(3):
            self.ask("GET", DOCUMENT, traceparent=f"00-{number + 1:032x}-{1:016x}-01")
            self.ask("GET", DOCUMENT, **{"X-Request-Id": str(number)})
        self.assertEqual(len(self.known), 1)

    def test_bounded(self) -> None:
        """Neither many different headers nor long ones fill the memory."""
        for number in range(heads._KNOWN * 2 + 5):
            self.ask("GET", "/health", **{"X-Number": str(number)})
            self.assertLessEqual(len(self.known), heads._KNOWN)
        self.known.clear()
        self.ask("GET", "/health", **{"X-Long": "x" * heads._LONGEST_KNOWN})
        self.assertEqual(self.known, {})

    def test_refused_ones(self) -> None:
        """An invalid head remains invalid, however often it comes; also one without a host."""
        for data in (b"GET / HTTP/1.1\r\nA b: c\r\n\r\n", b"GET / HTTP/1.1\r\nX: y\r\n\r\n"):
            for _ in range(2):
                client = self.site.client()
                self.site.send(client, data)
                self.assertEqual(read_reply(client.value())[0].status, 400)
        self.assertEqual(self.known, {})

    @given(
        st.lists(st.tuples(st.sampled_from(["A", "a", "B"]), st.sampled_from(["1", "2", "1 "])), max_size=4)
    )
    def test_as_read(self, headers: list[tuple[str, str]]) -> None:
        """A cached head is what a new reader reads."""
        head = raw_request("GET", "/", headers=headers)
        reader = HeadReader()
        _, _, behind = head.partition(b"\r\n")
        reader.new(head, behind)
        self.assertEqual(reader.known[behind].headers, HeadReader().read(head).headers)


SECRETS = ["Authorization", "authorization", "AUTHORIZATION", "Cookie", "X-API-Key", "x-api-key", "X-Api-Key"]
VARYING = [
    *SECRETS,
    "Proxy-Authorization",
    "traceparent",
    "X-Request-ID",
    "If-None-Match",
    "if-match",
    "Forwarded",
]
VALUES = [
    "Basic abc",
    "s3cret",
    "*",
    '"s3cret", W/"1"',
    "s3cret ",
    " s3cret",
    "",
    "a\ts3cret",
    "s3\xe9cret",
    "x:y",
]


Field = tuple[str, str, str, str]
"""Name, colon, value and line end."""

FIELDS = st.tuples(
    st.sampled_from([*VARYING, "A", "Accept"]),
    st.sampled_from([": ", ": ", ": ", ":", ":  ", ":\t"]),
    st.sampled_from(VALUES),
    st.sampled_from(["\r\n", "\r\n", "\r\n", "\r\n continued\r\n"]),
)


@st.composite
def similar_heads(draw: st.DrawFn) -> list[tuple[str, list[Field]]]:
    """Return hosts and fields of heads, most of which differ in one field, or in the host, from the first."""
    first = draw(st.lists(FIELDS, max_size=4))
    found = [("h", first)]
    for _ in range(draw(st.integers(1, 5))):
        fields = first.copy()
        at = draw(st.integers(0, len(fields)))
        fields[at : at + draw(st.integers(0, 1))] = [draw(FIELDS)]
        found.append((draw(st.sampled_from(["h", "h", "i"])), fields))
    return found


class VaryingHeadTests(SynchronousTestCase):
    """Heads whose secrets, and values that differ each time, are cut out of what is cached."""

    def setUp(self) -> None:
        self.reader = HeadReader()

    def held(self) -> str:
        """Return all that the reader holds."""
        templates = self.reader._templates
        return repr(
            [(key, head.headers) for held in (self.reader.known, templates) for key, head in held.items()]
        )

    def new(self, head: bytes) -> dict[bytes, object]:
        """Return the headers that the reader finds, in the way of a channel."""
        request = REQUEST.match(head)
        assert request is not None
        behind = request[4]
        known = self.reader.known.get(behind)
        return self.reader.new(head, behind)[1] if known is None else known.headers

    @settings(max_examples=tries(400), suppress_health_check=SHARED, deadline=None)
    @given(similar_heads())
    def test_as_read(self, heads_: list[tuple[str, list[Field]]]) -> None:
        """Whatever the reader has seen before, a head is what a new reader finds, or refused as there; and
        no secret is kept, nor what was refused."""
        self.reader = HeadReader()
        for host, fields in heads_:
            lines = "".join("".join(field) for field in fields)
            head = f"GET /a HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode("latin-1")
            for _ in range(2):
                try:
                    expected = HeadReader().read(head).headers
                except Malformed:
                    self.assertRaises(Malformed, self.new, head)
                else:
                    self.assertEqual(self.new(head), expected)
        names = {field[0].lower() for _, fields in heads_ for field in fields}
        if names.isdisjoint({"a", "accept", "if-match", "if-none-match"}):
            self.assertNotIn("cret", self.held())

    def test_first_header(self) -> None:
        """The first header may be the secret."""
        for value in (b"a", b"b"):
            head = b"GET / HTTP/1.1\r\nAuthorization: " + value + b"\r\nHost: h\r\n\r\n"
            self.assertEqual(self.new(head), {b"authorization": value, b"host": b"h"})
        self.assertEqual(len(self.reader._templates), 1)

    def test_names_do_not_change_places(self) -> None:
        """The name is a part of what is compared, and so is its place."""
        for name in ("Cookie", "X-API-Key", "traceparent"):
            head = raw_request("GET", "/", headers={name: "v"})
            self.assertEqual(self.new(head)[name.lower().encode()], b"v")
        both = raw_request("GET", "/", headers={"Cookie": "c", "X-API-Key": "k"})
        turned = raw_request("GET", "/", headers={"X-API-Key": "k2", "Cookie": "c2"})
        for _ in range(2):
            self.assertEqual(self.new(both)[b"cookie"], b"c")
            self.assertEqual(self.new(turned)[b"cookie"], b"c2")
        self.assertEqual(len(self.reader._templates), 5)

    def test_two_values(self) -> None:
        """Both are cut out, and everything around them is compared."""
        usual = b"GET / HTTP/1.1\r\nHost: h\r\nCookie: %b\r\nX: y\r\nX-API-Key: %b\r\nZ: z\r\n\r\n"
        for cookie, key in ((b"c1", b"k1"), (b"c2", b"k2")):
            head = usual % (cookie, key)
            self.assertEqual(self.new(head), HeadReader().read(head).headers)
        self.assertEqual(len(self.reader._templates), 1)
        for secret in ("c1", "c2", "k1", "k2"):
            self.assertNotIn(secret, self.held())
        self.check_neighbours(usual % (b"c3", b"k3"), (b"Host: h", b"X: y", b"Z: z"))

    def check_neighbours(self, head: bytes, lines: tuple[bytes, ...]) -> None:
        """Check heads that differ from a known one in one line."""
        for line in lines:
            for other in (line[:-1] + b"o", line + b"o", line + b"\r\nO: o"):
                self.new(head)
                changed = head.replace(line, other)
                self.assertEqual(self.new(changed), HeadReader().read(changed).headers)

    def test_after_the_latest(self) -> None:
        """A head that begins and ends as the latest one did is not mistaken for one of its kind."""
        usual = b"GET /a HTTP/1.1\r\nHost: h\r\nAuthorization: %b\r\nX: y\r\n\r\n"
        values = [
            b"a",
            b"bb",
            b"*",
            b"",
            b"a\r\nCookie: b",
            b" a",
            b"a ",
            b"a\r\n b",
            b"a\tb",
            b"a\r\nX: y",
            b"\xe9",
        ]
        for value in [*values, *reversed(values)]:
            for ready in (b"a", b"b"):
                self.assertEqual(self.new(usual % ready)[b"authorization"], ready)
            try:
                expected = HeadReader().read(usual % value).headers
            except Malformed:
                self.assertRaises(Malformed, self.new, usual % value)
            else:
                self.assertEqual(self.new(usual % value), expected, value)
        self.new(usual % b"a")
        self.check_neighbours(usual % b"b", (b"Host: h", b"X: y"))
        overlapping = b"GET /a HTTP/1.1\r\nHost: h\r\nAuthorization: \r\n\r\n"
        self.new(usual.replace(b"X: y\r\n", b"") % b"a")
        self.assertEqual(self.new(overlapping), {b"host": b"h", b"authorization": b""})

    def test_long_secrets(self) -> None:
        """A token may be longer than what is cached of a head, since it is not."""
        for number in range(3):
            token = f"Bearer {number}" + "x" * heads._LONGEST_KNOWN
            found = self.new(raw_request("GET", "/", headers={"Authorization": token}))
            self.assertEqual(found[b"authorization"], token.encode())
        self.assertEqual(len(self.reader._templates), 1)

    def test_bounded(self) -> None:
        """Neither thousands of callers nor thousands of different heads of one fill the memory."""
        for number in range(3000):
            self.new(raw_request("GET", "/", headers=basic(f"user{number}", "p")))
        self.assertEqual((len(self.reader.known), len(self.reader._templates)), (0, 1))
        for number in range(heads._KNOWN + 10):
            self.new(raw_request("GET", "/", headers={**basic("u", "p"), "X-Number": str(number)}))
        self.assertLessEqual(len(self.reader._templates), heads._KNOWN)
        self.assertEqual(self.reader.known, {})
        self.new(raw_request("GET", "/", headers={**basic("u", "p"), "X-Long": "x" * heads._LONGEST_KNOWN}))
        self.assertNotIn("xxx", self.held())

    def test_visits(self) -> None:
        """What a page may do is decided once for a head, without the secrets in it."""
        reader = self.reader = HeadReader(Doors(is_open=False, origins=["https://a.example"]))
        for name in ("ann", "bob"):
            head = raw_request("GET", "/", headers={"Origin": "https://a.example", **basic(name, "p")})
            line = REQUEST_LINE.match(head)
            assert line is not None
            visit = reader.new(head, head[line.end() :])[0].visit
            self.assertEqual(visit._headers[b"authorization"], b"")
        self.assertEqual(len(reader._templates), 1)
