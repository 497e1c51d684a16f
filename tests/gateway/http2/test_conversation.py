"""Requests and answers over HTTP/2: what handlers see, and what clients get."""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes

from gateway.clients.origins import Doors
from gateway.http.refusal import PROBLEMS
from tests.gateway.http2.app import MemoryTestCase
from tests.gateway.http2.peer import Client, frame

LONG = b"x" * 300

# What is wrong: pseudo-header fields to replace, then headers.
MALFORMED: list[tuple[str, dict[str, Any], list[tuple[bytes, bytes]]]] = [
    (":method", {"method": None}, []),
    (":scheme", {"scheme": None}, []),
    (":scheme", {"scheme": b"ftp"}, []),
    (":path", {"path": None}, []),
    (":path", {"path": b""}, []),
    (":path", {"path": b"echo"}, []),
    (":path", {"path": b"*"}, []),
    (":path", {"path": b"http://localhost/echo"}, []),
    (":path", {"path": b"/a b"}, []),
    (":path", {"path": b"/\xc3\xa9"}, []),
    (":path", {"path": b"/a\nb"}, []),
    (":method", {"method": b"GE T"}, []),
    (":method", {"method": b""}, []),
    (":authority", {"authority": None}, []),
    (":authority", {}, [(b"host", b"other")]),
    ("Host", {"authority": None}, [(b"host", b"a"), (b"host", b"a")]),
    ("Host", {"authority": b"user@localhost"}, []),
    ("Host", {"authority": b"a b"}, []),
    (":status", {"status": b"200"}, []),
    (":protocol", {"protocol": b"websocket"}, []),
    (":path", {}, [(b"x", b"y"), (b":path", b"/echo")]),
    ("upper", {}, [(b"X-Upper", b"y")]),
    ("name", {}, [(b"", b"y")]),
    ("name", {}, [(b"a b", b"y")]),
    ("name", {}, [(b"a\xe9", b"y")]),
    ("value", {}, [(b"a", b"b\r\nc: d")]),
    ("value", {}, [(b"a", b"b\x00")]),
    ("value", {}, [(b"a", b" b")]),
    ("value", {}, [(b"a", b"b\t")]),
    ("connection", {}, [(b"connection", b"close")]),
    ("keep-alive", {}, [(b"keep-alive", b"1")]),
    ("proxy-connection", {}, [(b"proxy-connection", b"close")]),
    ("transfer-encoding", {}, [(b"transfer-encoding", b"chunked")]),
    ("upgrade", {}, [(b"upgrade", b"h2c")]),
    ("te", {}, [(b"te", b"gzip")]),
    ("Content-Length", {}, [(b"content-length", b"abc")]),
    ("Content-Length", {}, [(b"content-length", b"+1")]),
    ("Content-Length", {}, [(b"content-length", b"1"), (b"content-length", b"1")]),
    ("Content-Length", {}, [(b"content-length", b"1")]),
]


class RequestTests(MemoryTestCase):
    """Heads and bodies."""

    def test_what_handlers_see(self) -> None:
        """Method, path, query, headers and body arrive as over HTTP/1.1: ``:authority`` as Host, parts of a
        cookie as one, repeated headers in order."""
        answer = self.wire.ask(
            "PUT",
            "/echo?a=1&b",
            b"body",
            [
                (b"cookie", b"a=1"),
                (b"x-two", b"1"),
                (b"cookie", b"b=2"),
                (b"x-two", b"2"),
                (b"te", b"trailers"),
            ],
            authority=b"example.org:80",
        )
        self.assertEqual(answer.status, 200)
        seen = answer.json()
        self.assertEqual((seen["method"], seen["path"], seen["query"]), ("PUT", "/echo", "a=1&b"))
        self.assertEqual(seen["body"], "body")
        self.assertEqual(seen["headers"]["host"], ["example.org:80"])
        self.assertEqual(seen["headers"]["cookie"], ["a=1; b=2"])
        self.assertEqual(seen["headers"]["x-two"], ["1", "2"])

    def test_host(self) -> None:
        """Host serves if there is no ``:authority``, and may repeat it."""
        for pseudo in ({"authority": None}, {"authority": b"h"}):
            answer = self.wire.ask("GET", "/echo", b"", [(b"host", b"h")], **pseudo)
            self.assertEqual(answer.json()["headers"]["host"], ["h"])

    def test_malformed(self) -> None:
        """Each malformed head is answered with 400, which names the fault, and its stream is reset; other
        requests of the connection are served, before and after."""
        waits = self.client.request("GET", "/wait")
        self.wire.pump()
        for word, pseudo, headers in MALFORMED:
            with self.subTest(word=word, pseudo=pseudo, headers=headers):
                answer = self.wire.ask("GET", "/echo", b"", headers, **pseudo)
                self.assertEqual(answer.status, 400)
                self.assertEqual(answer.json()["code"], "InvalidArgument")
                self.assertIn(word.lower(), answer.json()["message"].lower())
                self.assertTrue(answer.is_complete)
                self.assertEqual(self.wire.ask("GET", "/echo").status, 200)
        self.assertEqual({path for path, status, _ in self.served.ended if status == 400}, {"", "/echo"})
        resets = [event for event in self.wire.frames if event[0] == 3]
        self.assertEqual({code for _, _, code in resets}, {ErrorCodes.PROTOCOL_ERROR})
        self.assertEqual(len(resets), len(MALFORMED))
        self.handlers.waiting[0].callback(self.handlers.told_nothing())
        self.wire.pump()
        self.assertEqual(self.client.streams[waits].status, 200)
        self.assertIsNone(self.client.ended)

    def test_connect(self) -> None:
        """CONNECT, with or without a path, is refused."""
        for pseudo in ({"path": None, "scheme": None}, {}, {"protocol": b"websocket"}):
            answer = self.wire.ask("CONNECT", "/echo", **pseudo)
            self.assertEqual(answer.status, 400)
        self.assertIn("CONNECT", self.wire.ask("CONNECT", "/echo").json()["message"])

    def test_wrong_lengths(self) -> None:
        """A body that is shorter or longer than announced is refused with 400, and its stream reset, also
        when its handler waits for it; one of the announced size is served, in any pieces."""
        for body, status in ((b"12345", 200), (b"1234", 400), (b"123456", 400)):
            for pieces in ([body], [body[:2], body[2:]], [body, b""], [body[:1], b"", body[1:]]):
                number = self.client.begin("PUT", "/echo", [(b"content-length", b"5")])
                for piece in pieces[:-1]:
                    self.client.data(number, piece)
                    self.wire.pump()
                if not self.client.streams[number].is_over:
                    self.client.data(number, pieces[-1], ends=True)
                    self.wire.pump()
                answer = self.client.streams[number]
                self.assertEqual(answer.status, status, (body, pieces))
                if status == 400:
                    self.assertIn("Content-Length announces 5", answer.json()["message"])
        self.assertEqual(len(self.handlers.seen), 4)

    def test_lost_streams(self) -> None:
        """A streamed body that is shorter than announced is lost to its reader, and refused."""
        number = self.client.begin("POST", "/take", [(b"content-length", b"5")])
        self.wire.pump()
        self.client.data(number, b"123", ends=True)
        self.wire.pump()
        self.assertEqual(self.handlers.takers[0].told, ["lost"])
        self.assertEqual(self.client.streams[number].status, 400)

    def test_expect(self) -> None:
        """A client that waits for 100 gets it when the body is wanted, and the error when it is not."""
        head = [(b"content-length", b"4"), (b"expect", b"100-continue")]
        number = self.client.begin("PUT", "/echo", head)
        self.wire.pump()
        self.assertEqual(self.client.streams[number].informed, [100])
        self.client.data(number, b"body", ends=True)
        self.wire.pump()
        self.assertEqual(self.client.streams[number].json()["body"], "body")
        number = self.client.begin("PUT", "/nothing", head)
        self.wire.pump()
        self.assertEqual(
            (self.client.streams[number].informed, self.client.streams[number].status), ([], 404)
        )

    def test_trailers(self) -> None:
        """Headers behind a body are dropped; malformed ones are refused."""
        for name, status in ((b"x-sum", 200), (b"X-Sum", 400), (b":path", 400)):
            number = self.client.begin("PUT", "/echo")
            self.client.data(number, b"body")
            self.client.h2.send_headers(number, [(name, b"/")], end_stream=True)
            self.client.flush()
            self.wire.pump()
            self.assertEqual(self.client.streams[number].status, status, name)
        self.assertEqual([seen["body"] for seen in self.handlers.seen], ["body"])

    def test_faults_behind_the_answer(self) -> None:
        """A fault in a request that is answered already ends its stream only, without a second answer."""
        number = self.client.begin("PUT", "/nothing")
        self.wire.pump()
        self.assertEqual(self.client.streams[number].status, 404)
        self.client.h2.send_headers(number, [(b"X-Sum", b"1")], end_stream=True)
        self.client.flush()
        self.wire.pump()
        self.assertIn((3, number, ErrorCodes.PROTOCOL_ERROR), self.wire.frames)
        self.assertEqual(self.served.ended, [("/nothing", 404, "")])
        self.assertEqual(self.wire.ask("GET", "/echo").status, 200)

    def test_limits(self) -> None:
        """A head beyond ``--max-headers``, or with more than 500 headers, is 431, a body beyond
        ``--max-body`` is 413; the connection goes on."""
        answer = self.wire.ask("GET", "/echo", b"", [(b"x%d" % n, LONG) for n in range(80)])
        self.assertEqual((answer.status, answer.json()["code"]), (431, "HeadersTooLarge"))
        answer = self.wire.ask("GET", "/echo", b"", [(b"x", b"")] * 505)
        self.assertEqual((answer.status, answer.json()["code"]), (431, "HeadersTooLarge"))
        number = self.client.begin("PUT", "/echo", [(b"content-length", b"30000000")])
        self.wire.pump()
        self.assertEqual(self.client.streams[number].status, 413)
        self.assertEqual(self.wire.ask("GET", "/echo").status, 200)

    def test_memory(self) -> None:
        """Bodies take their memory from the budget of all clients, and give it back."""
        self.served.application.budget.limit = 100
        self.served.application.budget._for_large = 100
        numbers = [self.client.begin("PUT", "/echo", [(b"content-length", b"60")]) for _ in range(2)]
        self.wire.pump()
        self.assertEqual(self.client.streams[numbers[1]].status, PROBLEMS["Overloaded"].status)
        self.client.data(numbers[0], b"x" * 60, ends=True)
        self.wire.pump()
        self.assertEqual(self.client.streams[numbers[0]].status, 200)
        self.assertEqual(self.served.application.budget.used, 0)

    def test_no_memory(self) -> None:
        """Without memory to read, requests whose bodies take memory are refused. If there are none, the
        connection is not cut, but ended: answers written before still arrive."""
        number = self.client.begin("PUT", "/echo", [(b"content-length", b"60")])
        self.client.data(number, b"x" * 30)
        self.wire.pump()
        self.assertTrue(self.wire.connection.out_of_memory())
        self.wire.pump()
        self.assertEqual(self.client.streams[number].status, 503)
        self.assertEqual(self.wire.ask("GET", "/echo").status, 200)
        for _ in range(2):
            self.assertTrue(self.wire.connection.out_of_memory())
        self.assertFalse(self.wire.server.aborted)
        self.wire.pump()
        self.assertEqual(self.client.ended.error_code, ErrorCodes.INTERNAL_ERROR)


class AnswerTests(MemoryTestCase):
    """What clients get."""

    def test_kinds(self) -> None:
        """Answers without a body, answers to HEAD, and failures have the headers of HTTP/1.1, in lower case
        and without those of connections."""
        answer = self.wire.ask("GET", "/size/5")
        self.assertEqual(
            (answer.status, answer.body, answer.header(b"content-length")), (200, b"xxxxx", b"5")
        )
        self.assertEqual(answer.header(b"server"), b"couchgateway")
        self.assertTrue(answer.header(b"date"))
        answer = self.wire.ask("HEAD", "/size/5")
        self.assertEqual((answer.status, answer.body, answer.header(b"content-length")), (200, b"", b"5"))
        answer = self.wire.ask("DELETE", "/echo")
        self.assertEqual((answer.status, answer.header(b"x-one")), (204, b"1"))
        self.assertIsNone(answer.header(b"content-length"))
        answer = self.wire.ask("GET", "/nothing")
        self.assertEqual(answer.json()["code"], "RouteNotFound")
        answer = self.wire.ask("BREW", "/echo")
        self.assertEqual(answer.status, 405)
        answer = self.wire.ask("GET", "/echo", b"", [(b"x-request-id", b"mine")])
        self.assertEqual(answer.header(b"x-request-id"), b"mine")
        self.assertTrue(all(stream.is_complete for stream in self.client.streams.values()))

    def test_bugs(self) -> None:
        """A handler's exception is a 500; a header with a line end ends the stream, not the connection."""
        self.assertEqual(self.wire.ask("GET", "/broken").status, 500)
        self.assertEqual(self.wire.ask("GET", "/forged").error, ErrorCodes.INTERNAL_ERROR)
        self.assertEqual(len(self.flushLoggedErrors()), 2)
        self.assertEqual(self.wire.ask("GET", "/echo").status, 200)

    def test_klein(self) -> None:
        """Klein's own handlers are served, too, and their failures explained."""
        answer = self.wire.ask("GET", "/plain/7")
        self.assertEqual((answer.status, answer.body, answer.header(b"x-plain")), (200, b"number 14", b"yes"))
        self.assertIsNone(answer.header(b"transfer-encoding"))
        answer = self.wire.ask("GET", "/plain/0")
        self.assertEqual(answer.json()["code"], "Internal")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_produced(self) -> None:
        """A produced body is sent as it comes; one that cannot be completed ends with a reset."""
        number = self.client.request("GET", "/produce")
        self.wire.pump()
        (produced,) = self.handlers.produced
        produced.write(b"one")
        self.wire.pump()
        self.assertEqual(self.client.streams[number].body, b"one")
        produced.sink.finish()  # type: ignore[union-attr]
        self.wire.pump()
        self.assertTrue(self.client.streams[number].is_complete)
        number = self.client.request("GET", "/produce")
        self.wire.pump()
        self.handlers.produced[1].write(b"one")
        self.handlers.produced[1].sink.abort()  # type: ignore[union-attr]
        self.wire.pump()
        answer = self.client.streams[number]
        self.assertEqual((answer.body, answer.error), (b"one", ErrorCodes.INTERNAL_ERROR))
        self.assertEqual(self.served.ended, [("/produce", 200, ""), ("/produce", 200, "gateway")])

    def test_guard(self) -> None:
        """Foreign hosts and origins are refused as over HTTP/1.1, and named ones may read the answer."""
        self.serve(Doors(is_open=True, origins=["https://app.example"]))
        self.assertEqual(self.wire.ask("GET", "/echo", authority=b"evil.example").status, 403)
        headers = [(b"origin", b"https://evil.example")]
        self.assertEqual(self.wire.ask("GET", "/echo", b"", headers).status, 403)
        headers = [(b"origin", b"https://app.example")]
        for path, status in (("/echo", 200), ("/nothing", 404)):
            answer = self.wire.ask("GET", path, b"", headers)
            self.assertEqual(answer.status, status)
            self.assertEqual(answer.header(b"access-control-allow-origin"), b"https://app.example")
        answer = self.wire.ask("GET", "/echo", b"", [*headers, (b"X", b"y")])
        self.assertEqual((answer.status, answer.header(b"access-control-allow-origin")), (400, headers[0][1]))

    def test_cancelled(self) -> None:
        """A reset cancels its request, which is counted as cut by the client, and no other."""
        one, two = self.client.request("GET", "/wait"), self.client.request("GET", "/wait")
        self.wire.pump()
        self.client.h2.reset_stream(one, ErrorCodes.CANCEL)
        self.client.flush()
        self.wire.pump()
        self.assertEqual(self.handlers.cancelled, 1)
        self.assertEqual(self.served.ended, [("/wait", 499, "client")])
        self.handlers.waiting[1].callback(self.handlers.told_nothing())
        self.wire.pump()
        self.assertEqual(self.client.streams[two].status, 200)
        self.assertEqual(self.served.application.under_way, 0)

    def test_lost(self) -> None:
        """When the connection is lost, all of its requests are cancelled."""
        for path in ("/wait", "/wait", "/produce"):
            self.client.request("GET", path)
        self.wire.pump()
        self.wire.server._closed()
        self.assertEqual(self.handlers.cancelled, 2)
        self.assertEqual(self.handlers.produced[0].told[-1], "cancel")
        self.assertEqual(sorted(self.served.ended)[:1], [("/produce", 499, "client")])
        self.assertEqual(len(self.served.ended), 3)
        self.assertFalse(self.served.factory.channels)

    def test_nothing_is_pushed(self) -> None:
        """Push is never used, whatever the client allows, and priorities change nothing."""
        self.wire = self.connect(Client({2: 1}))
        self.client = self.wire.client
        self.client.send(frame(2, 1, bytes(4) + b"\xff"))
        self.assertEqual(self.wire.ask("GET", "/echo").status, 200)
        self.assertFalse([kind for kind, _, _ in self.wire.frames if kind == 5])


class CacheTests(MemoryTestCase):
    """Heads that clients repeat are read once."""

    def test_what_is_remembered(self) -> None:
        """Equal headers are remembered whatever the path, but neither secrets nor those that differ from
        request to request."""
        known = self.served.factory.http2.heads._known  # type: ignore[union-attr, attr-defined]
        for path in ("/echo", "/size/1", "/echo?a"):
            self.wire.ask("GET", path, b"", [(b"accept", b"*/*")])
        self.assertEqual(len(known), 1)
        for name in (b"authorization", b"cookie", b"traceparent", b"x-request-id"):
            self.assertEqual(self.wire.ask("GET", "/echo", b"", [(name, b"x")]).status, 200)
        self.assertEqual(len(known), 1)
