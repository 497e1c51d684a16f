"""Invalid and ambiguous requests: each is refused, and bytes after it are not served.

Every case of the tables is sent whole, byte by byte, and cut at every position, with a second request behind
it, which a proxy in front might take for its body or trailer. See RFC 9112 for the rules, section 11.2 there
for why they matter.
"""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.heads import REQUEST_LINE, HeadReader, Malformed
from tests import tries
from tests.gateway.support import Answer, Reply, Site, in_every_split, read_reply

PATH = b"/v1/buckets/b/documents/k"
SMUGGLED = b"GET /v1/buckets/b/documents/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
NO_BODY = b"0\r\n\r\n"
ONE_BYTE = b"1\r\na\r\n0\r\n\r\n"


def put(*lines: bytes, body: bytes = b"", method: bytes = b"PUT", version: bytes = b"HTTP/1.1") -> bytes:
    """Return a request for a document; ``body`` as it goes over the wire."""
    return b"\r\n".join([b"%b %b %b" % (method, PATH, version), b"Host: h", *lines, b"", body])


def line(request_line: bytes, *lines: bytes) -> bytes:
    """Return a request with that first line."""
    return b"\r\n".join([request_line, b"Host: h", *lines, b"", b""])


def length(value: bytes) -> bytes:
    """Return a request whose Content-Length is ``value``, with a body of one byte."""
    return put(b"Content-Length:" + value, body=b"a")


def coding(value: bytes, *lines: bytes) -> bytes:
    """Return a request whose Transfer-Encoding is ``value``, with an empty chunked body."""
    return put(b"Transfer-Encoding:" + value, *lines, body=NO_BODY)


def chunks(body: bytes) -> bytes:
    """Return a chunked request with that body."""
    return put(CHUNKED, body=body)


LENGTHS = {
    "two that differ": put(b"Content-Length: 1", b"Content-Length: 2", body=b"ab"),
    "two that do not": put(b"Content-Length: 1", b"Content-Length: 1", body=b"a"),
    "none, then one": put(b"Content-Length: 0", b"Content-Length: %d" % len(SMUGGLED)),
    "a list": length(b" 1, 1"),
    "negative": length(b" -1"),
    "with a sign": length(b" +1"),
    "hexadecimal": length(b" 0x1"),
    "a fraction": length(b" 1.0"),
    "an exponent": length(b" 1e0"),
    "with an underscore": length(b" 1_0"),
    "with a blank inside": length(b" 1 1"),
    "with a vertical tab": length(b" \x0b1"),
    "with a zero byte": length(b" 1\x00"),
    "digits of another script": length(" \u0661".encode()),
    "empty": length(b""),
    "blank": length(b"  "),
    "beyond 64 bits": length(b" 18446744073709551617"),
    "no number": length(b" x"),
    "folded": put(b"Content-Length:", b" 1", body=b"a"),
}

CODINGS = {
    "length, then chunked": put(b"Content-Length: 5", CHUNKED, body=NO_BODY),
    "chunked, then length": put(CHUNKED, b"Content-Length: 5", body=NO_BODY),
    "length zero, then chunked": put(b"Content-Length: 0", CHUNKED, body=NO_BODY),
    "identity with length": put(b"Transfer-Encoding: identity", b"Content-Length: 1", body=b"a"),
    "gzip": coding(b" gzip"),
    "identity": coding(b" identity"),
    "a word that ends so": coding(b" xchunked"),
    "a word that begins so": coding(b" chunkedx"),
    "with gzip before": coding(b" gzip, chunked"),
    "with gzip behind": coding(b" chunked, gzip"),
    "twice in a list": coding(b" chunked, chunked"),
    "twice": coding(b" chunked", CHUNKED),
    "identity behind": coding(b" chunked", b"Transfer-Encoding: identity"),
    "identity before": coding(b" identity", CHUNKED),
    "a comma before": coding(b" ,chunked"),
    "a comma behind": coding(b" chunked,"),
    "quoted": coding(b' "chunked"'),
    "with a parameter": coding(b" chunked;a=b"),
    "empty": coding(b""),
    "with a vertical tab": coding(b" \x0bchunked"),
    "with a form feed": coding(b" chunked\x0c"),
    "with a zero byte": coding(b" chunked\x00"),
    "folded": put(b"Transfer-Encoding:", b" chunked", body=NO_BODY),
    "in the line before": put(b"X: y", b"\tTransfer-Encoding: chunked", body=NO_BODY),
    "behind a bare CR": put(b"X: y\rTransfer-Encoding: chunked", body=NO_BODY),
    "behind a bare LF": put(b"X: y\nTransfer-Encoding: chunked", body=NO_BODY),
    "blank before the colon": put(b"Transfer-Encoding : chunked", body=NO_BODY),
    "blank before the name": put(b" Transfer-Encoding: chunked", body=NO_BODY),
    "in HTTP/1.0": put(CHUNKED, body=NO_BODY, version=b"HTTP/1.0"),
    "gzip in HTTP/1.0": put(b"Transfer-Encoding: gzip", version=b"HTTP/1.0"),
    "in HTTP/1.0 with length": put(CHUNKED, b"Content-Length: 5", body=NO_BODY, version=b"HTTP/1.0"),
}

HEADERS = {
    "folded": line(b"GET /health HTTP/1.1", b"X: a", b" b"),
    "folded at once": b"GET /health HTTP/1.1\r\n Host: h\r\n\r\n",
    "LF only": line(b"GET /health HTTP/1.1", b"X: y").replace(b"\r\n", b"\n"),
    "LF behind the first line": b"GET /health HTTP/1.1\nHost: h\r\n\r\n",
    "LF behind a header": b"GET /health HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
    "LF at the end": b"GET /health HTTP/1.1\r\nHost: h\r\n\n",
    "LF before the end": b"GET /health HTTP/1.1\r\nHost: h\n\r\n",
    "CR behind the first line": b"GET /health HTTP/1.1\rHost: h\r\n\r\n",
    "CR in a value": line(b"GET /health HTTP/1.1", b"X: a\rb"),
    "CR at the end": b"GET /health HTTP/1.1\r\nHost: h\r\r\n\r\n",
    "zero byte in a name": line(b"GET /health HTTP/1.1", b"X\x00: a"),
    "zero byte in a value": line(b"GET /health HTTP/1.1", b"X: a\x00b"),
    "control byte in a value": line(b"GET /health HTTP/1.1", b"X: a\x01b"),
    "DEL in a value": line(b"GET /health HTTP/1.1", b"X: a\x7fb"),
    "blank in a name": line(b"GET /health HTTP/1.1", b"X Y: a"),
    "blank before the colon": line(b"GET /health HTTP/1.1", b"X : a"),
    "tab before the colon": line(b"GET /health HTTP/1.1", b"X\t: a"),
    "other letters in a name": line(b"GET /health HTTP/1.1", b"X\xe9: a"),
    "no name": line(b"GET /health HTTP/1.1", b": a"),
    "no colon": line(b"GET /health HTTP/1.1", b"abc"),
    "no host": b"GET /health HTTP/1.1\r\nX: y\r\n\r\n",
    "no host for a whole URL": b"GET http://h/health HTTP/1.1\r\nX: y\r\n\r\n",
    "no header at all": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": line(b"GET /health HTTP/1.1", b"Host: h"),
    "two hosts that differ": line(b"GET /health HTTP/1.1", b"HOST: i"),
    "bad host of a whole URL": b"GET http://h/health HTTP/1.1\r\nHost: a b\r\n\r\n",
}

BAD_HOSTS = [
    *(b"a b", b"a/b", b"a@b", b"a?b", b"a#b", b"a\\b", b'a"b', b"<a>", b"a^b", b"{a}", b"a|b", b"a`b"),
    *(
        b"[::1",
        b"::1",
        b"::1]",
        b"[::1]x",
        b"[::g]",
        b"[127.0.0.1]",
        b"[]",
        b"a[::1]",
        b"[[::1]]",
        b"[::1%25lo]",
    ),
    *(b"a:99999", b"a:65536", b"a:b", b"a:-1", b"a:80:80", b"a:8 0", b":80", b":", b"a:+80", b"a: 80"),
    *(b"%", b"%zz", b"a%2", "\u00e9".encode(), b"a\x7f", b"http://a", b"user:pw@a", b"a, b"),
    b"a:" + b"9" * 5000,
]
GOOD_HOSTS = [
    *(b"", b"h", b"example.org", b"example.org.", b"h:8080", b"h:", b"h:0", b"h:65535", b"h:0080"),
    *(
        b"127.0.0.1:80",
        b"[::1]",
        b"[::1]:8080",
        b"[2001:DB8::1.2.3.4]",
        b"[v1.fe80::a]",
        b"a_b",
        b"a%20b",
        b"a,b",
    ),
]

REQUEST_LINES = {
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/0.9 said": line(b"GET /health HTTP/0.9"),
    "HTTP/2.0": line(b"GET /health HTTP/2.0"),
    "HTTP/11.1": line(b"GET /health HTTP/11.1"),
    "HTTP/1": line(b"GET /health HTTP/1"),
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "protocol in lower case": line(b"GET /health http/1.1"),
    "another protocol": line(b"GET /health RTSP/1.0"),
    "no target": line(b"GET HTTP/1.1"),
    "two targets": line(b"GET /health /x HTTP/1.1"),
    "blank behind the version": line(b"GET /health HTTP/1.1 "),
    "two blanks before the version": line(b"GET /health  HTTP/1.1"),
    "tabs for blanks": line(b"GET\t/health\tHTTP/1.1"),
    "no token for a method": line(b"G(T /health HTTP/1.1"),
    "zero byte in the target": line(b"GET /hea\x00lth HTTP/1.1"),
    "control byte in the target": line(b"GET /hea\x01lth HTTP/1.1"),
    "tab in the target": line(b"GET /hea\tlth HTTP/1.1"),
    "other letters in the target": line(b"GET /hea\xe9lth HTTP/1.1"),
    "UTF-8 in the target": line("GET /v1/buckets/b/documents/\u00e9 HTTP/1.1".encode()),
    "two blanks before the target": line(b"GET  /health HTTP/1.1"),
    "a blank in the target": line(b"GET /v1/buckets/b/documents/a b HTTP/1.1"),
    "URL of another scheme": line(b"GET ftp://h/health HTTP/1.1"),
    "URL with a user": line(b"GET http://user@h/health HTTP/1.1"),
    "URL with a password": line(b"GET http://user:pw@h/health HTTP/1.1"),
    "URL without a host": line(b"GET http:///health HTTP/1.1"),
    "URL with a port only": line(b"GET http://:80/health HTTP/1.1"),
    "URL with a bad port": line(b"GET http://h:99999/health HTTP/1.1"),
    "URL with a bad host": line(b"GET http://[::1/health HTTP/1.1"),
    "target of OPTIONS only": line(b"GET * HTTP/1.1"),
    "relative target": line(b"GET health HTTP/1.1"),
    "CONNECT": line(b"CONNECT h:443 HTTP/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(100, 200)),
    "LF before": b"\n" + line(b"GET /health HTTP/1.1"),
    "CR before": b"\r" + line(b"GET /health HTTP/1.1"),
    "blank before": b" " + line(b"GET /health HTTP/1.1"),
    "empty line and blank before": b"\r\n " + line(b"GET /health HTTP/1.1"),
    "prose": b"nonsense\r\n\r\n",
}

CHUNKS = {
    "0x": chunks(b"0x1\r\na\r\n0\r\n\r\n"),
    "a sign": chunks(b"+1\r\na\r\n0\r\n\r\n"),
    "negative": chunks(b"-1\r\na\r\n0\r\n\r\n"),
    "a blank before": chunks(b" 1\r\na\r\n0\r\n\r\n"),
    "a blank behind": chunks(b"1 \r\na\r\n0\r\n\r\n"),
    "a tab behind": chunks(b"1\t\r\na\r\n0\r\n\r\n"),
    "beyond 64 bits": chunks(b"10000000000000001\r\na\r\n0\r\n\r\n"),
    "no size": chunks(b"\r\na\r\n0\r\n\r\n"),
    "no number": chunks(b"zz\r\na\r\n0\r\n\r\n"),
    "no line end behind the data": chunks(b"1\r\na0\r\n\r\n"),
    "more data than said": chunks(b"1\r\nab\r\n0\r\n\r\n"),
    "LF only": chunks(b"1\na\n0\n\n"),
    "LF behind the size": chunks(b"1\na\r\n0\r\n\r\n"),
    "LF behind the data": chunks(b"1\r\na\n0\r\n\r\n"),
    "LF behind the last": chunks(b"1\r\na\r\n0\n\r\n"),
    "LF at the end": chunks(b"1\r\na\r\n0\r\n\n"),
    "CR behind the size": chunks(b"1\ra\r\n0\r\n\r\n"),
    "LF in an extension": chunks(b"1;a\nb\r\na\r\n0\r\n\r\n"),
    "CR in an extension": chunks(b"1;a\rb\r\na\r\n0\r\n\r\n"),
    "zero byte in an extension": chunks(b"1;a\0b\r\na\r\n0\r\n\r\n"),
    "line end in a quoted extension": chunks(b'1;a="b\r\n"\r\na\r\n0\r\n\r\n'),
    "trailer folded": chunks(b"1\r\na\r\n0\r\nX: x\r\n y\r\n\r\n"),
    "trailer without a colon": chunks(b"1\r\na\r\n0\r\nX y\r\n\r\n"),
    "trailer with LF": chunks(b"1\r\na\r\n0\r\nX: y\n\r\n\r\n"),
    "length in a trailer": chunks(b"1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n"),
    "coding in a trailer": chunks(b"1\r\na\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
}

TOO_LARGE = {
    "request line": line(b"GET /" + b"a" * 20000 + b" HTTP/1.1"),
    "header": line(b"GET /health HTTP/1.1", b"X: " + b"a" * 20000),
    "headers together": line(b"GET /health HTTP/1.1", *[b"X: " + b"a" * 1000] * 20),
    "number of headers": line(b"GET /health HTTP/1.1", *[b"X: y"] * 600),
    "without an end": b"GET /health HTTP/1.1\r\nX: " + b"a" * 20000,
    "extension of a chunk": chunks(b"1;" + b"a" * 20000 + b"\r\na\r\n0\r\n\r\n"),
    "size of a chunk": chunks(b"0" * 20000 + b"1\r\na\r\n0\r\n\r\n"),
    "trailer": chunks(b"1\r\na\r\n0\r\nX: " + b"a" * 20000 + b"\r\n\r\n"),
    "trailers together": chunks(b"1\r\na\r\n0\r\n" + b"X: y\r\n" * 5000 + b"\r\n"),
}

# Unusual but harmless: one request with this body, and another one after it.
SERVED = {
    "length with zeros": (length(b" 01"), b"a"),
    "length with blanks around": (length(b"\t 1 \t"), b"a"),
    "coding in capitals": (put(b"TRANSFER-ENCODING: CHUNKED", body=ONE_BYTE), b"a"),
    "coding behind blanks": (put(b"Transfer-Encoding:  \tchunked", body=ONE_BYTE), b"a"),
    "chunk size with zeros": (chunks(b"0001\r\na\r\n000\r\n\r\n"), b"a"),
    "chunk size in capitals": (chunks(b"A\r\n0123456789\r\n0\r\n\r\n"), b"0123456789"),
    "extensions": (chunks(b'1;a=b;c="d"\r\na\r\n0;e\r\n\r\n'), b"a"),
    "trailers": (chunks(b"1\r\na\r\n0\r\nX: y\r\nX: z\r\n\r\n"), b"a"),
    "credentials in a trailer": (chunks(b"1\r\na\r\n0\r\nAuthorization: Basic eDp5\r\n\r\n"), b"a"),
    "condition in a trailer": (chunks(b'1\r\na\r\n0\r\nIf-Match: "1"\r\n\r\n'), b"a"),
    "hosts in trailers": (chunks(b"1\r\na\r\n0\r\nHost: x\r\nHost: y\r\n\r\n"), b"a"),
    "close in a trailer": (chunks(b"1\r\na\r\n0\r\nConnection: close\r\n\r\n"), b"a"),
    "upgrade in a trailer": (
        chunks(b"1\r\na\r\n0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
        b"a",
    ),
    "a body that looks like an end": (chunks(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"), NO_BODY),
    "a body that is a request": (put(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED), SMUGGLED),
    "upgrade with a length": (
        put(b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 3", body=b"abc"),
        b"abc",
    ),
    "upgrade with chunks": (
        put(b"Upgrade: h2c", b"Connection: x, upgrade", CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n"),
        b"abc",
    ),
    "an empty host": (put(b"Content-Length: 1", body=b"a").replace(b"Host: h", b"Host:"), b"a"),
    "another name for a coding": (put(b"Transfer_Encoding: chunked", b"Content-Length: 1", body=b"a"), b"a"),
    "empty lines before": (b"\r\n\r\n" + put(b"Content-Length: 1", body=b"a"), b"a"),
    "whole URL": (put(b"Content-Length: 1", body=b"a").replace(b"/v1", b"http://other/v1", 1), b"a"),
}

# Refused, but well-formed: the connection can be used again.
REFUSED = {
    "method in lower case": (line(b"get /health HTTP/1.1"), 405),
    "unknown method": (line(b"BREW /health HTTP/1.1"), 405),
    "method that tunnels": (line(b"CONNECT /health HTTP/1.1"), 405),
    "method that upgrades": (line(b"BREW /health HTTP/1.1", b"Connection: upgrade", b"Upgrade: x"), 405),
}


def replies(data: bytes) -> Iterator[Reply]:
    """Yield the answers in what a client got."""
    while data:
        reply, data = read_reply(data)
        yield reply


class MalformedTests(SynchronousTestCase):
    """Tables of requests."""

    def setUp(self) -> None:
        self.site = Site({"set": Answer(), "get_with_expiry": Answer(b"{}")})

    def send(self, parts: list[bytes], *, closes_at_once: bool = True) -> tuple[list[Reply], bool]:
        """Send bytes on a new connection; returns the answers, and whether it is still open."""
        for connection in self.site.connections:
            connection.calls.clear()
        client = self.site.client()
        client.closes_at_once = closes_at_once
        for part in parts:
            self.site.send(client, part)
        is_open = client.connected and not client.disconnecting
        self.assertFalse(client.aborted)
        answers = list(replies(client.value()))
        client.loseConnection()
        return answers, is_open

    def check_refused(self, parts: list[bytes], status: int, code: str, label: object) -> None:
        for closes_at_once in (True, False):
            answers, is_open = self.send(parts, closes_at_once=closes_at_once)
            self.assertEqual([answer.status for answer in answers], [status], label)
            told = answers[0].json()
            self.assertEqual(told["code"], code, label)
            self.assertEqual(told["requestId"], answers[0].header("X-Request-Id"), label)
            self.assertEqual(answers[0].header("Connection"), "close", label)
            self.assertFalse(is_open, label)
            self.assertEqual(self.site.calls, [], label)

    def check_table(self, table: dict[str, bytes]) -> None:
        for name, data in table.items():
            for parts in in_every_split(data + SMUGGLED):
                self.check_refused(parts, 400, "InvalidArgument", (name, parts))
        self.assertEqual(self.site.gateway.under_way, 0)
        self.assertEqual(self.site.gateway.budget.used, 0)

    def test_lengths(self) -> None:
        """A Content-Length is one number in digits."""
        self.check_table(LENGTHS)

    def test_codings(self) -> None:
        """A Transfer-Encoding is "chunked", once, in HTTP/1.1, and without a Content-Length."""
        self.check_table(CODINGS)

    def test_headers(self) -> None:
        """A header is a name, a colon and a value on one line that ends with CRLF."""
        self.check_table(HEADERS)

    def test_request_lines(self) -> None:
        """A request begins with method, target and version, and is for this server."""
        self.check_table(REQUEST_LINES)

    def test_chunks(self) -> None:
        """A chunk is its size, its data, and line ends where they belong; trailers are headers."""
        self.check_table(CHUNKS)

    def test_too_large(self) -> None:
        """Request line and headers, and what a chunked body has beside the body, are limited; in pieces of
        any size."""
        for name, data in TOO_LARGE.items():
            for size in (len(data + SMUGGLED), 16384, 1000, 7):
                parts = [data[start : start + size] for start in range(0, len(data), size)]
                parts[-1] += SMUGGLED
                self.check_refused(parts, 431, "HeadersTooLarge", (name, size))

    def test_served(self) -> None:
        """A request that is only unusual is served with its body, and so is the request after it."""
        for name, (data, body) in SERVED.items():
            for parts in in_every_split(data + SMUGGLED):
                answers, is_open = self.send(parts)
                self.assertEqual([answer.status for answer in answers], [200, 200], (name, parts))
                self.assertTrue(is_open, (name, parts))
                (_, stored, given), (_, read, _) = self.site.calls
                self.assertEqual((stored, read), ((b"k", body), (b"smuggled",)), (name, parts))
                self.assertEqual(given["cas"], 0, name)

    def test_hosts(self) -> None:
        """``Host`` is a host as RFC 3986 has it, with or without a port that exists; also where headers were
        seen before, and with credentials, which no reader remembers."""
        for extra in ((), (b"Authorization: Basic eDp5",)):
            for host in BAD_HOSTS:
                data = b"\r\n".join([b"GET /health HTTP/1.1", b"Host: " + host, *extra, b"", b""])
                for _ in range(2):
                    self.check_refused([data + SMUGGLED], 400, "InvalidArgument", host)
            for host in GOOD_HOSTS:
                data = b"\r\n".join([b"GET /health HTTP/1.1", b"Host: " + host, *extra, b"", b""])
                for _ in range(2):
                    answers, is_open = self.send([data])
                    self.assertEqual(([one.status for one in answers], is_open), ([200], True), host)

    def test_what_is_wrong_is_said(self) -> None:
        """The message names what was wrong, and what is expected."""
        for data, expected in (
            (line("GET /\u00e9 HTTP/1.1".encode()), "percent-encoded"),
            (line(b"GET /a\x01 HTTP/1.1"), "percent-encoded"),
            (line(b"GET /a b HTTP/1.1"), "'%20'"),
            (line(b"GET /a HTTP/2.0"), "HTTP/2.0 is not supported; expected HTTP/1.1"),
            (REQUEST_LINES["preface of HTTP/2"], "HTTP/2.0 is not supported; expected HTTP/1.1"),
            (line(b"GET ftp://h/ HTTP/1.1"), "expected http or https"),
            (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "Host 'a b' is not a host"),
            (b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", "beyond 65535"),
        ):
            answers, _ = self.send([data])
            self.assertIn(expected, answers[0].json()["message"], data)

    def test_later_minor_versions(self) -> None:
        """A later minor version of HTTP/1 is served as HTTP/1.1, with keep-alive and chunked bodies."""
        for version in (b"HTTP/1.2", b"HTTP/1.9"):
            data = put(CHUNKED, body=ONE_BYTE, version=version)
            for parts in in_every_split(data + SMUGGLED):
                answers, is_open = self.send(parts)
                self.assertEqual([one.status for one in answers], [200, 200], (version, parts))
                self.assertTrue(is_open)
            without = b"GET /health " + version + b"\r\n\r\n"
            self.check_refused([without], 400, "InvalidArgument", version)

    def test_refused_as_any_other(self) -> None:
        """A well-formed request that no resource takes does not end its connection."""
        for name, (data, status) in REFUSED.items():
            for parts in in_every_split(data + SMUGGLED):
                answers, is_open = self.send(parts)
                self.assertEqual([answer.status for answer in answers], [status, 200], (name, parts))
                self.assertTrue(is_open, (name, parts))

    def test_absolute_form(self) -> None:
        """The path of an absolute URL begins after its authority, not in its query."""
        for target, is_health in (
            (b"http://h/health", True),
            (b"http://h/health?", True),
            (b"http://h", False),
            (b"http://h?x=/health", False),
            (b"http://h?/health", False),
            (b"HTTPS://h:443/health", True),
            (b"http://[::1]:80/health", True),
        ):
            answers, _ = self.send([line(b"GET " + target + b" HTTP/1.1")])
            self.assertEqual([b'"status":"ok"' in answer.body for answer in answers], [is_health], target)


class ReaderTests(SynchronousTestCase):
    """One reader serves the heads of all connections."""

    @settings(max_examples=tries(300), deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from([*LENGTHS.values(), *CODINGS.values(), *HEADERS.values()]),
                st.sampled_from([data for data, _ in SERVED.values()]),
            ),
            max_size=6,
        )
    )
    def test_no_head_spoils_the_next(self, heads: list[bytes]) -> None:
        """Whatever it was given before, the next head is read as by a new reader."""
        reader = HeadReader()
        for data in heads:
            head = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            try:
                reader.read(head)
            except Malformed:
                pass
            read = reader.read(b"GET / HTTP/1.1\r\nHost: h\r\nX: y\r\nX: z\r\n\r\n")
            self.assertEqual(read.headers, {b"host": b"h", b"x": [b"y", b"z"]})
            self.assertFalse(read.has_body)

    @settings(max_examples=tries(300), deadline=None)
    @given(st.from_regex(REQUEST_LINE, fullmatch=True))
    def test_usual_lines(self, first: bytes) -> None:
        """llhttp takes every line of the usual form: else one would be refused before headers that are new,
        and served before headers that are known."""
        reader = HeadReader()
        for headers in (b"Host: h\r\n\r\n", b"Host: h\r\nContent-Length: 1\r\n\r\n"):
            reader.read(first + headers)
