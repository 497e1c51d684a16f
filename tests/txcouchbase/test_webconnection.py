"""Connections of HTTP/1.1 to nodes, over transports in memory."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import HTTP11ClientProtocol, Request
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from txcouchbase.http import HttpHeaders
from txcouchbase.webconnection import MAX_OVERHEAD_BYTES, WebConnection

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
TEN = OK + b"Content-Length: 10\r\n\r\n0123456789"


class Body(Protocol):
    """Keeps a body and its end."""

    def __init__(self):
        self.pieces = []
        self.end = None

    def dataReceived(self, data):
        self.pieces.append(data)

    def connectionLost(self, reason=None):
        self.end = reason.value


class Asked:
    """A request that takes the body of its answer."""

    data = REQUEST

    def __init__(self, body=None, is_head=False):
        self.is_head = is_head
        self.body = Body() if body is None else body
        self.answer = self.failure = None

    def answered(self, answer):
        self.answer = answer
        if self.body:
            answer.deliverBody(self.body)

    def failed(self, failure):
        self.failure = failure.value


class Kept(list):
    """Where connections go."""

    def __init__(self):
        super().__init__()
        self.gone = []

    keep = list.append

    def lost(self, connection):
        self.gone.append(connection)


class ConnectionTestCase(SynchronousTestCase):
    """One connection, with one request."""

    def setUp(self):
        self.kept = Kept()
        self.transport = StringTransport()
        self.connection = WebConnection("http://n:1", self.kept)
        self.connection.makeConnection(self.transport)
        self.asked = Asked()

    def sent(self, asked=None):
        """Send a request."""
        self.asked = asked or self.asked
        self.connection.send(self.asked)
        return self.asked

    def receive(self, *pieces):
        """Let pieces of the answer arrive."""
        for piece in pieces:
            self.connection.dataReceived(piece)

    def lose(self, error=None):
        """Close the connection from outside."""
        self.connection.connectionLost(Failure(error or ConnectionDone()))

    def state(self):
        """Return whether the connection was kept, closed after its buffer, and closed at once."""
        return bool(self.kept), self.transport.disconnecting, self.transport.disconnected


class AnswerTests(ConnectionTestCase):
    """What an answer is, and where it goes."""

    def test_whole(self):
        """Status, headers and body; then the connection takes the next request."""
        asked = self.sent()
        self.assertEqual(self.transport.value(), REQUEST)
        fields = b"x-a:  b \r\nX-A: c\r\nConnection: keep-alive\r\nContent-Length: 3\r\n"
        self.receive(OK + fields + b"\r\nab", b"c")
        self.assertEqual((asked.answer.code, asked.body.pieces), (200, [b"ab", b"c"]))
        self.assertIsInstance(asked.body.end, ResponseDone)
        self.assertEqual(HttpHeaders.of(asked.answer.headers), {"X-A": "b"})
        self.assertEqual((self.kept, self.state()), ([self.connection], (True, False, False)))
        again = self.sent(Asked())
        self.receive(TEN)
        self.assertEqual(again.body.pieces, [b"0123456789"])

    def test_kept_before_the_end(self):
        """The connection is free when the protocol of the body gets its end."""

        class Next(Body):
            def connectionLost(_, reason=None):
                self.sent(Asked())

        self.sent(Asked(Next()))
        self.receive(TEN)
        self.receive(TEN)
        self.assertEqual(self.asked.body.pieces, [b"0123456789"])

    def test_pieces(self):
        """Each chunk is passed on by itself."""
        asked = self.sent()
        self.receive(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\nT: x\r\n\r\n")
        self.assertEqual(asked.body.pieces, [b"a", b"bc"])
        self.assertEqual(list(asked.answer.headers), [])
        self.assertTrue(self.kept)

    def test_many_pieces(self):
        """Many small chunks that arrive together are passed on together."""
        asked = self.sent()
        start = OK + b"Transfer-Encoding: chunked\r\n\r\n"
        self.receive(start + b"1\r\na\r\n" * 9, b"1\r\nb\r\n" * 8 + b"0\r\n\r\n")
        self.assertEqual(asked.body.pieces, [b"a" * 9, *[b"b"] * 8])
        self.assertTrue(self.kept)

    def test_interim(self):
        """Interim answers are skipped, with their headers."""
        asked = self.sent()
        self.receive(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n", TEN)
        self.assertEqual((asked.answer.code, list(asked.answer.headers)), (200, []))
        self.assertTrue(self.kept)

    def test_closed_after_the_answer(self):
        """The connection is closed if the node will, sent more than the answer, or nobody keeps it."""
        for answer in (
            OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            TEN + b"x",
            TEN + b"HTTP/1.1 404 No\r\nX: y\r\nContent-Length: 1\r\n\r\nz",
            TEN[:-10].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"0123456789x",
        ):
            self.setUp()
            asked = self.sent()
            self.receive(answer)
            self.assertIsInstance(asked.body.end, ResponseDone, answer)
            self.assertEqual(self.state(), (False, True, False), answer)
            self.assertIn((asked.answer.code, asked.body.pieces), [(200, []), (200, [b"0123456789"])])
        self.setUp()
        self.connection = WebConnection("http://n:1", None)
        self.connection.makeConnection(self.transport)
        self.sent()
        self.receive(TEN)
        self.assertEqual(self.state(), (False, True, False))

    def test_until_the_end(self):
        """Without a length, the end of the connection ends the body."""
        asked = self.sent()
        self.receive(OK + b"\r\nabc", b"def")
        self.assertIsNone(asked.body.end)
        self.lose()
        self.assertEqual(b"".join(asked.body.pieces), b"abcdef")
        self.assertIsInstance(asked.body.end, PotentialDataLoss)
        self.assertEqual(self.kept.gone, [self.connection])

    def test_until_the_end_but_cut(self):
        """A reset, or TLS without its end, does not end a body of unknown length, but cuts it off."""
        asked = self.sent()
        self.receive(OK + b"\r\nabc")
        self.lose(ConnectionLost())
        self.assertEqual(asked.body.pieces, [b"abc"])
        self.assertIsInstance(asked.body.end, ResponseFailed)

    def test_head(self):
        """The answer to HEAD has no body, whatever it announces; then the connection is closed."""
        for fields, shown in (
            (b"Content-Length: 5\r\n", {"Content-Length": "5"}),
            (b"Transfer-Encoding: chunked\r\n", {}),
            (b"Content-Length: 0\r\n", {"Content-Length": "0"}),
            (b"", {}),
        ):
            for behind in (b"", b"abcde", TEN):
                self.setUp()
                asked = self.sent(Asked(is_head=True))
                self.receive(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + fields + b"\r\n" + behind)
                self.assertEqual(HttpHeaders.of(asked.answer.headers), shown)
                self.assertEqual((asked.answer.code, asked.body.pieces), (200, []))
                self.assertIsInstance(asked.body.end, ResponseDone)
                self.assertEqual(self.state(), (False, True, False))

    def test_unknown_status(self):
        """Only a status from 100 to 199 is that of an interim answer."""
        for status in (0, 99, 200, 999):
            self.setUp()
            asked = self.sent()
            self.receive(b"HTTP/1.1 %03d X\r\nA: b\r\nContent-Length: 2\r\n\r\nok" % status)
            self.assertEqual((asked.answer.code, asked.body.pieces), (status, [b"ok"]))
            self.assertEqual(HttpHeaders.of(asked.answer.headers), {"A": "b"})
            self.assertTrue(self.kept)

    def test_cut(self):
        """A body that is cut off fails; the reason is that of the connection."""
        for head in (b"Content-Length: 5\r\n\r\nab", b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"):
            self.setUp()
            asked = self.sent()
            self.receive(OK + head)
            self.lose(ConnectionLost())
            self.assertIsInstance(asked.body.end, ResponseFailed)
            self.assertIsInstance(asked.body.end.reasons[-1].value, ConnectionLost)

    def test_no_answer(self):
        """A request that was never answered fails differently from one whose answer was cut off."""
        asked = self.sent()
        self.lose()
        self.assertIsInstance(asked.failure, ResponseNeverReceived)
        self.setUp()
        asked = self.sent()
        self.receive(b"HTTP/1.1 2")
        self.lose()
        self.assertIsInstance(asked.failure, ResponseFailed)

    def test_garbage(self):
        """What is not HTTP closes the connection at once, with the body before it delivered."""
        for answer, pieces, text in (
            (b"\x16\x03\x01 garbage", None, "not valid HTTP"),
            (OK + b"Content-Length: x\r\n\r\n", None, "Content-Length"),
            (b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", None, "status 101"),
            (b"HTTP/1.1 101 S\r\n\r\nx", None, "status 101"),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\nnonsense", [b"ab"], "chunk size"),
        ):
            self.setUp()
            asked = self.sent()
            self.receive(answer)
            self.assertTrue(self.transport.disconnected, answer)
            failed = asked.failure if pieces is None else asked.body.end
            self.assertIsInstance(failed, ResponseFailed)
            self.assertIn(text, str(failed.reasons[-1].value))
            self.assertEqual(asked.body.pieces, pieces or [])

    def test_endless(self):
        """Heads, interim answers and trailers have a limit; bodies do not, however they are cut."""
        line = b"X: " + b"y" * 1021 + b"\r\n"
        interim = b"HTTP/1.1 100 C\r\n" + line * 4 + b"\r\n"
        start = OK + b"Transfer-Encoding: chunked\r\n\r\n"
        for first, again in ((OK, line), (OK, b"X" * 1024), (b"", interim), (start + b"0\r\n", line)):
            self.setUp()
            asked = self.sent()
            self.receive(first)
            received = len(first)
            while not self.transport.disconnected:
                self.assertLessEqual(received, MAX_OVERHEAD_BYTES)
                self.receive(again)
                received += len(again)
            self.assertGreater(received, MAX_OVERHEAD_BYTES)
            failed = asked.failure or asked.body.end
            self.assertIn("too long", str(failed.reasons[-1].value))
        self.setUp()
        self.sent()
        self.receive(start)
        for _ in range(MAX_OVERHEAD_BYTES // 7 + 1):
            self.receive(b"001;a=b\r\n", b"x\r\n")
        self.assertFalse(self.transport.disconnected)

    def test_unasked(self):
        """Bytes that belong to no request close the connection."""
        self.receive(TEN)
        self.assertTrue(self.transport.disconnected)
        self.lose()
        self.assertEqual(self.kept.gone, [self.connection])

    def test_cancelled(self):
        """Cancelling closes the connection at once, and is the reason."""
        asked = self.sent()
        self.connection.cancel(Failure(CancelledError()))
        self.assertTrue(self.transport.disconnected)
        self.assertIsInstance(asked.failure, ResponseNeverReceived)
        self.assertIsInstance(asked.failure.reasons[0].value, CancelledError)
        self.receive(TEN)
        self.lose()
        self.assertIsNone(asked.answer)


class ReadingTests(ConnectionTestCase):
    """Reading goes at the pace of the body's protocol."""

    def test_late(self):
        """Reading stops until there is a protocol for the body, which gets it from its beginning."""
        asked = self.sent(Asked(body=()))
        self.receive(TEN[:-8])
        self.assertEqual(self.transport.producerState, "paused")
        self.receive(TEN[-8:-4])
        body = Body()
        asked.answer.deliverBody(body)
        self.assertEqual((body.pieces, self.transport.producerState), ([b"01", b"2345"], "producing"))
        self.receive(TEN[-4:])
        self.assertIsInstance(body.end, ResponseDone)
        self.assertRaises(RuntimeError, asked.answer.deliverBody, body)

    def test_late_and_whole(self):
        """An answer that has ended is delivered, too, and the connection is free before."""
        asked = self.sent(Asked(body=()))
        self.receive(TEN)
        self.assertEqual((self.state()[0], self.transport.producerState), (True, "producing"))
        body = Body()
        asked.answer.deliverBody(body)
        self.assertEqual(body.pieces, [b"0123456789"])
        self.assertIsInstance(body.end, ResponseDone)

    def test_late_and_slow(self):
        """A late protocol may stop reading at once."""
        asked = self.sent(Asked(body=()))
        self.receive(TEN[:-4])
        body = Body()
        body.dataReceived = lambda data: body.transport.pauseProducing()
        asked.answer.deliverBody(body)
        self.assertEqual(self.transport.producerState, "paused")

    def test_pause(self):
        """The transport of the body pauses the connection, until the answer is over."""
        asked = self.sent()
        self.receive(TEN[:-4])
        asked.body.transport.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        asked.body.transport.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")
        asked.body.transport.pauseProducing()
        self.receive(TEN[-4:])
        self.assertEqual(self.transport.producerState, "producing")
        asked.body.transport.pauseProducing()
        asked.body.transport.loseConnection()
        self.assertEqual((self.transport.producerState, self.state()), ("producing", (True, False, False)))

    def test_aborted(self):
        """A connection that the protocol of the body closes is not kept, even after a whole answer."""
        for answer in (TEN[:-4], TEN):

            class Once(Body):
                def dataReceived(self, data):
                    super().dataReceived(data)
                    self.transport.abortConnection()

            self.setUp()
            self.sent(Asked(Once()))
            self.receive(answer)
            self.assertTrue(self.transport.disconnected)
            self.assertEqual(self.kept, [])

    def test_aborted_in_the_middle(self):
        """A transport that closes within the call ends the body then, and delivers no more."""

        class Once(Body):
            def dataReceived(self, data):
                super().dataReceived(data)
                self.transport.abortConnection()

        body = Once()
        self.transport.abortConnection = self.lose
        self.sent(Asked(body))
        self.receive(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
        self.assertEqual((body.pieces, self.kept), ([b"a"], []))
        self.assertIsInstance(body.end, ResponseFailed)


def _chunked(pieces, extension, trailer):
    chunks = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece]
    return b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"


@st.composite
def _answers(draw):
    """An answer's bytes: with a length, in chunks, or to the end of the connection; perhaps cut."""
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n"]))
    status = draw(st.sampled_from([b"200 OK", b"201 ", b"204 No", b"304 Same", b"404 Not", b"500 Oh no"]))
    fields = draw(st.sampled_from([b"", b"a-b: c\r\n", b"E:\r\nF: g h \r\nf: i\r\n"]))
    fields += draw(st.sampled_from([b"", b"", b"Connection: close\r\n"]))
    pieces = draw(st.lists(st.binary(max_size=9), max_size=4))
    whole = b"".join(pieces)
    kind = draw(st.sampled_from(["length", "chunks", "end"]))
    if status[:3] in (b"204", b"304"):
        body = b""
    elif kind == "length":
        fields += b"content-length: %d\r\n" % len(whole)
        body = whole
    elif kind == "chunks":
        fields += b"Transfer-Encoding: chunked\r\n"
        extension = draw(st.sampled_from([b"", b";a=b"]))
        body = _chunked(pieces, extension, draw(st.sampled_from([b"", b"T: u\r\n"])))
    else:
        body = whole
    answer = interim + b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n" + body
    end = draw(st.one_of(st.just(len(answer)), st.integers(0, len(answer))))
    cuts = sorted(draw(st.sets(st.integers(0, len(answer)), max_size=8)) | {0, end})
    cuts = [cut for cut in cuts if cut <= end]
    return [answer[a:b] for a, b in pairwise(cuts)]


def _outcome(connection, transport, asked, kept, pieces):
    for piece in pieces:
        connection.dataReceived(piece)
        if transport.disconnecting or transport.disconnected:
            break
    was_kept = bool(kept)
    connection.connectionLost(Failure(ConnectionDone()))
    if asked.answer is None:
        return type(asked.failure)
    body = asked.body
    headers = asked.answer.headers
    if isinstance(headers, Headers):
        headers = [(name, value) for name, values in headers.getAllRawHeaders() for value in values[:1]]
    return asked.answer.code, HttpHeaders.of(headers), b"".join(body.pieces), type(body.end), was_kept


class SameTests(SynchronousTestCase):
    """The outcome is that of Twisted's client."""

    @given(_answers())
    def test_outcome(self, pieces):
        """For every answer, however it is cut, and wherever it is cut off."""
        kept = Kept()
        asked, transport = Asked(), StringTransport()
        connection = WebConnection("http://n:1", kept)
        connection.makeConnection(transport)
        connection.send(asked)
        ours = _outcome(connection, transport, asked, kept, pieces)

        kept = []
        asked, transport = Asked(), StringTransport()
        connection = HTTP11ClientProtocol(kept.append)
        connection.makeConnection(transport)
        request = Request._construct(b"GET", b"/", Headers({b"host": [b"h"]}), None, persistent=True)
        connection.request(request).addCallbacks(asked.answered, asked.failed)
        self.assertEqual(ours, _outcome(connection, transport, asked, kept, pieces))
