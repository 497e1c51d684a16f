"""Names of clusters: SRV records from a scripted name server, in every face."""

import socket
import threading
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import inlineCallbacks
from twisted.trial import unittest

from couchbase.blocking.resolver import Srv, srv_of
from couchbase.connection import Connection
from couchbase.protocol.connstr import parse_connection_string
from couchbase.protocol.srv import (
    Answer,
    DnsError,
    Record,
    decode_answer,
    encode_query,
    in_order,
    nameservers,
)
from gcouchbase import GConnection
from tests.couchbase.scripted import ScriptedNode
from tests.gcouchbase.support import InGreenlets
from txcouchbase.connection import Connection as TxConnection

NAME = "_couchbase._tcp.cluster.test"


def answer(query, records, ttl=300, flags=0x8180):
    """Return the answer to a query, with names that point to the question."""
    number, question = query[:2], query[12:]
    body = b""
    for priority, weight, port, target in records:
        name = b"".join(bytes([len(label)]) + label.encode() for label in target.split(".")) + b"\0"
        fixed = b"".join(n.to_bytes(2, "big") for n in (priority, weight, port))
        body += b"\xc0\x0c\0\x21\0\x01" + ttl.to_bytes(4, "big")
        body += (len(fixed) + len(name)).to_bytes(2, "big") + fixed + name
    counts = b"\0\x01" + len(records).to_bytes(2, "big") + bytes(4)
    return number + flags.to_bytes(2, "big") + counts + question + body


class NameServer:
    """Answers by UDP and TCP on one port."""

    def __init__(self, records, truncates=False, missing=False, ttl=300):
        self.asked = []
        self._records, self._truncates, self._missing, self._ttl = records, truncates, missing, ttl
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._by_udp, self._by_tcp)]
        for thread in self._threads:
            thread.start()

    def _by_udp(self):
        while True:
            query, sender = self._udp.recvfrom(4096)
            if not query:
                return
            self.asked.append("udp")
            if self._missing:
                reply = answer(query, [], flags=0x8183)
            elif self._truncates:
                reply = answer(query, [], flags=0x8380)
            else:
                # One with another number comes first, and is not taken.
                self._udp.sendto(bytes([query[0] ^ 1]) + answer(query, [(0, 0, 1, "bad.test")])[1:], sender)
                reply = answer(query, self._records, self._ttl)
            self._udp.sendto(reply, sender)

    def _by_tcp(self):
        while True:
            try:
                sock, _ = self._tcp.accept()
            except OSError:
                return
            with sock:
                query = sock.recv(4096)[2:]
                self.asked.append("tcp")
                reply = answer(query, self._records, self._ttl)
                sock.sendall(len(reply).to_bytes(2, "big") + reply)

    def stop(self):
        """Close both."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", ("127.0.0.1", self.port))
        self._tcp.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._udp.close()
        self._tcp.close()


def setting(test, **options):
    """Start a node, and a name server that knows it; return both and the cluster's connection string."""
    node = ScriptedNode()
    test.addCleanup(node.stop)
    names = NameServer([(0, 0, node.port, "127.0.0.1")], **options)
    test.addCleanup(names.stop)
    return node, names, f"couchbase://cluster.test?nameserver=127.0.0.1:{names.port}"


class FaceMixin:
    """A face whose operations block."""

    face = Connection

    def test_by_name(self):
        """The name of a cluster leads to its nodes, by UDP or where the answer is too long by TCP."""
        for truncates, ways in ((False, ["udp"]), (True, ["udp", "tcp"])):
            node, names, string = setting(self, truncates=truncates)
            cb = self.face(bucket="b", connection_string=string, username="u", password="p")
            self.addCleanup(cb._close)
            self.assertTrue(cb.set("k", 1).success)
            self.assertEqual((len(node.seen), names.asked), (1, ways))


class BlockingSrvTests(FaceMixin, TestCase):
    """The blocking client."""


class GreenletSrvTests(InGreenlets, FaceMixin, TestCase):
    """The gevent client."""

    face = GConnection


class TwistedSrvTests(unittest.TestCase):
    """The Twisted client."""

    @inlineCallbacks
    def test_by_name(self):
        """The name of a cluster leads to its nodes."""
        node, names, string = setting(self)
        cb = TxConnection(bucket="b", connection_string=string, username="u", password="p")
        self.addCleanup(cb._close)
        yield cb.connect()
        result = yield cb.set("k", 1)
        self.assertTrue(result.success)
        self.assertEqual((len(node.seen), names.asked), (1, ["udp"]))


class LookupTests(TestCase):
    """When names are looked up, and for how long answers hold."""

    def test_which_strings(self):
        """One name without a port is looked up; addresses, ports, several names and HTTP are not."""
        for string, name in (
            ("couchbase://db.test", "_couchbase._tcp.db.test"),
            ("couchbases://db.test/b", "_couchbases._tcp.db.test"),
            ("couchbase://db.test:11210", None),
            ("couchbase://a.test,b.test", None),
            ("couchbase://10.1.2.3", None),
            ("couchbase://[::1]", None),
            ("couchbase://localhost", None),
            ("http://db.test", None),
        ):
            found = srv_of(parse_connection_string(string))
            self.assertEqual(found and found.name, name, string)

    def test_time_to_live(self):
        """An answer is used for its TTL and no longer; an empty one is not cached."""
        for ttl, count in ((300, 1), (0, 2)):
            _, names, _ = setting(self, ttl=ttl)
            srv = Srv(NAME, False, [("127.0.0.1", names.port)])
            self.assertEqual(srv.seeds()[0].host, "127.0.0.1")
            srv.seeds()
            self.assertEqual(len(names.asked), count)
        _, names, _ = setting(self, missing=True)
        self.assertIsNone(Srv(NAME, False, [("127.0.0.1", names.port)]).seeds())

    def test_order(self):
        """Lower priorities come first; among equal ones the weight decides."""
        one, two, three = Record(1, 0, 1, "a"), Record(0, 1, 1, "b"), Record(0, 9, 1, "c")
        self.assertEqual(in_order([one, two, three], lambda: 0.5), [three, two, one])
        self.assertEqual(in_order([one, two, three], lambda: 0.0), [two, three, one])

    def test_resolv_conf(self):
        """Name servers are those of the platform, the first three."""
        text = "# x\nsearch a\nnameserver 10.0.0.1\n" + "nameserver 10.0.0.2\n" * 5
        self.assertEqual(len(nameservers(text)), 3)
        self.assertEqual(nameservers(text)[0], ("10.0.0.1", 53))

    def test_pointers_end(self):
        """A name that points to itself is malformed."""
        query = encode_query(7, NAME)
        looped = answer(query, [(0, 0, 1, "a")])[: len(query)] + b"\xc0" + bytes([len(query)]) + bytes(10)
        self.assertRaises(DnsError, decode_answer, 7, NAME, looped)

    @given(st.binary(max_size=200), st.booleans())
    def test_any_bytes(self, data, behind_a_header):
        """Any bytes are an answer, an answer to another question, or malformed."""
        query = encode_query(7, NAME)
        if behind_a_header:
            data = answer(query, [(0, 0, 1, "a")])[: len(query)] + data
        try:
            found = decode_answer(7, NAME, data)
        except DnsError:
            return
        self.assertTrue(found is None or isinstance(found, Answer))
