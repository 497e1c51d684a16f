"""Time limits of single requests."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchbase.exceptions import BucketNotFoundError
from gateway.app import Gateway
from gateway.cluster.collections import MOST_TIMEOUTS
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import ServiceAccount
from gateway.cluster.pool import ConnectionPool
from gateway.cluster.timelimits import TimedConnection, TimeLimits, parse_seconds
from gateway.dialect.errors import Refusal
from gateway.http.factory import ChannelFactory
from gateway.limits import Limits
from tests.gateway.support import SECRET, Answer, Site, Transport, raw_request, read_reply
from tests.txcouchbase.memory import MemoryTestCase

PATH = "/v1/buckets/b/documents/key-17"


class FormTests(SynchronousTestCase):
    """The forms of a timeout."""

    def test_forms(self) -> None:
        """Durations in Go's notation and seconds, within bounds; anything else is refused by name."""
        for text, seconds in (("500ms", 0.5), ("1m30s", 90.0), ("2", 2.0), ("0.25", 0.25), ("300s", 300.0)):
            self.assertEqual(parse_seconds(text, "timeout"), seconds)
        for text in ("", "0", "0s", "-1s", "301s", "5m1s", "1us", "soon", "1e3", "nan", "9" * 70, "1 s"):
            refused = self.assertRaises(Refusal, parse_seconds, text, "timeout")
            self.assertIn("timeout:", refused.message)
            self.assertIn("300s", refused.message)

    def test_level(self) -> None:
        """A durability level gets at most what its frame holds."""
        headers = {"X-CB-DurabilityLevel": "Majority", "X-CB-DurabilityTimeout": "66s"}
        site = Site({"set": Answer()})
        reply = site.request("PUT", PATH, b"1", headers=headers)
        self.assertEqual((reply.status, reply.json()["code"]), (400, "InvalidArgument"))
        self.assertEqual(site.calls, [])

    def test_invalid_before_the_connection(self) -> None:
        """An invalid limit is refused before a connection is opened, whose failure nobody would take."""
        for name in ("X-CB-Timeout", "X-CB-DurabilityTimeout"):
            site = Site({"connect": BucketNotFoundError.pyexc("no bucket 'b'")})
            for _ in range(2):
                reply = site.request("PUT", PATH, b"1", headers={name: "soon"})
                self.assertEqual((reply.status, reply.json()["code"]), (400, "InvalidArgument"))
                self.assertIn(f"{name}: 'soon' is not a time limit", reply.json()["message"])
            self.assertEqual(site.connections, [])
            self.assertEqual(site.request("PUT", PATH, b"1", headers={name: "5s"}).status, 404)

    def test_copies_of_a_counter(self) -> None:
        """A counter's copies are waited for as long as the request says."""
        headers = {"X-CB-PersistTo": "1", "X-CB-DurabilityTimeout": "7s"}
        waits = []

        def count(*_: Any, **options: Any) -> Any:
            (budget,) = site.connections[-1].budgets
            waits.append((options["persist_to"], budget.copies_seconds(5.0), budget.seconds(2.5)))
            return succeed(Answer(5))

        site = Site({"incr": count})
        self.assertEqual(site.request("POST", PATH + "/increment", headers=headers).status, 200)
        self.assertEqual(waits, [(1, 7.0, 2.5)])

    def test_budget(self) -> None:
        """The timeout of each operation, at the beginning and after 4 seconds."""
        clock = Clock()
        for timeout, durability, *expected in (
            (10.0, None, (10.0, 9000, 10.0, 10.0), (6.0, 5400, 6.0, 6.0)),
            (None, 9.0, (2.5, 9000, 10.0, 9.0), (2.5, 9000, 10.0, 9.0)),
            (10.0, 4.5, (10.0, 4500, 5.0, 4.5), (6.0, 4500, 5.0, 4.5)),
            (5.0, 9.0, (5.0, 4500, 5.0, 5.0), (1.0, 900, 1.0, 1.0)),
        ):
            timed = TimedConnection(None, TimeLimits(timeout, durability), clock)
            for granted in expected:
                self.assertEqual(
                    (
                        timed.seconds(2.5),
                        timed.level_ms(2250),
                        timed.write_seconds(2.5),
                        timed.copies_seconds(5.0),
                    ),
                    granted,
                )
                clock.advance(4)


class DriverTests(MemoryTestCase):
    """With the real driver, and a node that does not answer."""

    def open(self) -> list[Transport]:
        connection = self.connect(GatewayConnection)
        self.limits = connection
        pool = ConnectionPool(lambda *_: connection, self.clock)
        gateway = Gateway(
            ServiceAccount("service", "secret", SECRET),
            pool,
            self.clock,
            now=self.clock.seconds,
            limits=Limits(),
            is_ready=lambda: None,  # type: ignore[arg-type, return-value]
        )
        factory = ChannelFactory(gateway, self.clock)
        clients = []
        for _ in range(2):
            transport = Transport()
            transport.protocol = factory.buildProtocol(None)
            transport.protocol.makeConnection(transport)
            clients.append(transport)
        return clients

    def pass_time(self, seconds: float) -> None:
        """Let time pass in steps that timers notice."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)

    def test_each_request_has_its_own(self) -> None:
        """A timeout ends only its own request; the connection keeps its timeout."""
        for method, headers in (("GET", {}), ("PUT", {}), ("PUT", {"X-CB-DurabilityLevel": "Majority"})):
            limited, usual = self.open()
            before = self.limits.timeout
            body = b"1" if method == "PUT" else b""
            more = {**headers, "X-CB-Timeout": "500ms"}
            limited.protocol.dataReceived(raw_request(method, PATH, body, more))
            usual.protocol.dataReceived(raw_request(method, PATH + "x", body, {}))
            self.pass_time(0.4)
            self.assertEqual((limited.value(), usual.value()), (b"", b""))
            self.pass_time(0.3)
            code = read_reply(limited.value(), method)[0].json()["code"]
            self.assertEqual(code, "DurabilityAmbiguous" if headers else "DeadlineExceeded")
            self.assertEqual(usual.value(), b"")
            self.assertEqual(self.limits.timeout, before)
            self.pass_time(before)
            self.assertEqual(read_reply(usual.value(), method)[0].json()["code"], "DeadlineExceeded")

    def test_longer_than_others(self) -> None:
        """A limit above the timeout of all others is waited for."""
        limited, _ = self.open()
        limited.protocol.dataReceived(raw_request("GET", PATH, b"", {"X-CB-Timeout": "10s"}))
        self.pass_time(9)
        self.assertEqual(limited.value(), b"")
        self.pass_time(1.2)
        self.assertEqual(read_reply(limited.value(), "GET")[0].status, 504)

    def test_any_number_of_limits(self) -> None:
        """However many different limits clients set, only so many are remembered; each is kept to."""
        client, _ = self.open()
        for number in range(MOST_TIMEOUTS * 3):
            client.clear()
            limit = {"X-CB-Timeout": f"{100 + number}ms"}
            client.protocol.dataReceived(raw_request("GET", PATH, b"", limit))
            self.carry_out()
            self.assertEqual(read_reply(client.value(), "GET")[0].status, 200)
        self.assertLessEqual(len(self.limits.timed_operations), MOST_TIMEOUTS)
        client.clear()
        client.protocol.dataReceived(raw_request("GET", PATH, b"", {"X-CB-Timeout": "150ms"}))
        self.pass_time(0.3)
        self.assertEqual(read_reply(client.value(), "GET")[0].status, 504)

    def test_collections(self) -> None:
        """A limit holds in a collection, too, and there for the question for its id."""
        path = "/v1/buckets/b/scopes/s/collections/c/documents/k"
        for answered in (False, True):
            client, usual = self.open()
            if answered:
                usual.protocol.dataReceived(raw_request("GET", path))
                for _ in range(3):
                    self.carry_out()
                usual.clear()
            client.protocol.dataReceived(raw_request("GET", path, b"", {"X-CB-Timeout": "300ms"}))
            usual.protocol.dataReceived(raw_request("GET", path))
            self.pass_time(0.2)
            self.assertEqual((client.value(), usual.value()), (b"", b""))
            self.pass_time(0.3)
            self.assertEqual(read_reply(client.value(), "GET")[0].status, 504)
            self.assertEqual(usual.value(), b"")

    def test_wait_for_the_connection(self) -> None:
        """The time that a request waits for its connection counts."""
        client, _ = self.open()
        opened: Deferred[GatewayConnection] = Deferred()
        self.patch(ConnectionPool, "connection", lambda *_: opened)
        client.protocol.dataReceived(raw_request("GET", PATH, b"", {"X-CB-Timeout": "1s"}))
        self.pass_time(0.8)
        opened.callback(self.limits)
        self.pass_time(0.15)
        self.assertEqual(client.value(), b"")
        self.pass_time(0.25)
        self.assertEqual(read_reply(client.value(), "GET")[0].status, 504)

    def test_given_twice(self) -> None:
        """A limit that is given twice is refused, also when the same values were taken once."""
        client, _ = self.open()
        for pairs, status in (
            ([("X-CB-Timeout", "1s")], 200),
            ([("X-CB-Timeout", "1s"), ("X-CB-Timeout", "1s")], 400),
            ([("X-CB-Timeout", "1s"), ("X-CB-DurabilityTimeout", "1s")], 400),
        ):
            client.clear()
            client.protocol.dataReceived(raw_request("GET", PATH, b"", pairs))
            self.carry_out()
            self.assertEqual(read_reply(client.value(), "GET")[0].status, status, pairs)
