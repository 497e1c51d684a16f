"""Cached heads are equal to what llhttp returns for them, and no other bytes are taken from the cache."""

from __future__ import annotations

from httptools import HttpParserError, HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.http import heads
from gateway.http.heads import REQUEST_LINE, HeadReader
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
        behind = head.partition(b"\r\n")[2]
        reader.remember(behind, reader.read(head))
        self.assertEqual(reader.known[behind].headers, HeadReader().read(head).headers)
