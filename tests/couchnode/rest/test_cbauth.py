"""Services beside the node: their connection, what it reports, and what they ask about users."""

from __future__ import annotations

import json
from base64 import b64encode
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from couchnode.rest.cbauth import ANSWER_SECONDS, MAX_LINE_BYTES, ServiceConnection
from tests.couchnode.rest.test_api import ADMIN, Answer, Exchange, Steps, head
from tests.couchnode.rest.test_users import GROUPS, JANE, PASSWORD, USERS, UserCase

HEAD_END = b"\r\n\r\n"


class Line(Exchange):
    """The connection of a service: waits for lines of the node."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: tuple[int, Deferred[None]] | None = None

    def dataReceived(self, data: bytes) -> None:
        """Collect, and note when there are enough lines."""
        super().dataReceived(data)
        if self.wanted is not None and len(self.lines()) >= self.wanted[0]:
            _, waiting = self.wanted
            self.wanted = None
            waiting.callback(None)

    def lines(self) -> list[dict[str, Any]]:
        """Return what the node has sent after its greeting."""
        _, _, rest = self.data.partition(HEAD_END)
        return [json.loads(line) for line in rest.split(b"\n")[:-1]]

    def until(self, count: int) -> Deferred[None]:
        """Fire when there are as many lines."""
        waiting: Deferred[None] = Deferred()
        if len(self.lines()) >= count:
            waiting.callback(None)
        else:
            self.wanted = count, waiting
        return waiting


class ServiceCase(UserCase):
    """A node with services."""

    @inlineCallbacks
    def service(self, name: str = "stg-1", query: str = "", node: int = 0) -> Steps:
        """Connect as a service, and wait for the first line."""
        port = self.cluster.nodes[node].address.rest_port
        line = yield self.dial(Line(), port)
        line.transport.write(head("RPCCONNECT", f"/auth/v1/{name}{query}", ADMIN).replace(
            b"Connection: close\r\n", b""))  # fmt: skip
        yield line.until(1)
        return line

    @inlineCallbacks
    def dial(self, protocol: Exchange, port: int) -> Steps:
        """Connect a protocol."""
        yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), protocol)
        self.exchanges.append(protocol)
        return protocol

    def answer(self, line: Line, number: int, **parts: Any) -> None:
        """Answer a request of the node."""
        answer = {"id": number, "result": True, "error": None, **parts}
        line.transport.write(json.dumps(answer).encode() + b"\n")


class ConnectionTests(ServiceCase):
    """RPCCONNECT."""

    @inlineCallbacks
    def test_first_line(self) -> Steps:
        """The node takes the connection over, and begins with all that a service has to know."""
        line = yield self.service()
        self.assertTrue(line.data.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertIn(b"Content-Length: 0\r\n", line.data)
        (request,) = line.lines()
        (parameters,) = request["params"]
        self.assertEqual((request["jsonrpc"], request["id"]), ("2.0", 0))
        self.assertEqual(request["method"], "AuthCacheSvc.UpdateDBExt")
        self.assertEqual(parameters["clusterUUID"], self.cluster.uuid)
        nodes = (yield self.ask("/pools/default")).json["nodes"]
        self.assertEqual(parameters["nodeUUID"], nodes[0]["nodeUUID"])
        self.assertEqual(parameters["authCheckEndpoint"], "/_cbauth")
        self.assertEqual(parameters["clientCertAuthState"], "disable")
        for version in ("authVersion", "permissionsVersion", "clientCertAuthVersion"):
            self.assertTrue(parameters[version], version)

    @inlineCallbacks
    def test_changes_are_reported(self) -> Steps:
        """Every change of a user, a password, a role or a group gives another version, a change of buckets
        another one of permissions; the service's answers keep the connection open."""
        line = yield self.service()
        versions = [line.lines()[0]["params"][0]["authVersion"]]
        changes = [
            ("PUT", f"{USERS}/jane", {"password": PASSWORD}),
            ("PUT", f"{USERS}/jane", {"roles": "ro_admin"}),
            ("PATCH", f"{USERS}/jane", {"password": "n3w-secret"}),
            ("PUT", f"{GROUPS}/devs", {"roles": "ro_admin"}),
            ("DELETE", f"{USERS}/jane", {}),
        ]
        for count, (method, path, form) in enumerate(changes, 2):
            self.answer(line, count - 2)
            self.assertEqual((yield self.ask(path, method, form=form)).status, 200)
            yield line.until(count)
            versions.append(line.lines()[-1]["params"][0]["authVersion"])
        self.assertEqual(len(set(versions)), len(changes) + 1)
        before = line.lines()[-1]["params"][0]["permissionsVersion"]
        seen = len(line.lines())
        form = {"name": "made", "ramQuotaMB": "100", "replicaNumber": "0"}
        yield self.ask("/pools/default/buckets", "POST", form=form)
        yield line.until(seen + 1)
        self.assertNotEqual(line.lines()[-1]["params"][0]["permissionsVersion"], before)
        self.assertEqual([one["id"] for one in line.lines()], list(range(len(line.lines()))))
        self.assertFalse(line.lost)

    @inlineCallbacks
    def test_one_connection_a_name(self) -> Steps:
        """A second connection of the same name ends the first; another name does not."""
        first = yield self.service("stg-1")
        other = yield self.service("stg-2")
        yield self.service("stg-1")
        yield first.closed
        self.assertFalse(other.lost)

    @inlineCallbacks
    def test_bad_answers_end_it(self) -> Steps:
        """An answer that is an error, to an unknown request, or no JSON ends the connection."""
        for number, text in enumerate(
            [
                b'{"id":0,"result":null,"error":"rpc: can\'t find service"}\n',
                b'{"id":7,"result":true,"error":null}\n',
                b'{"id":0,"result":false,"error":null}\n',
                b"nonsense\n",
                b"[]\n",
                b'{"id":[]}\n',
                b"x" * (MAX_LINE_BYTES + 1),
            ]
        ):
            line = yield self.service(f"s{number}")
            line.transport.write(text)
            yield line.closed

    @inlineCallbacks
    def test_refusals(self) -> Steps:
        """Who is no administrator, another version, another path, and parameters that are wrong."""
        yield self.make("jane", "cluster_admin")
        for path, auth, status in [
            ("/auth/v1/x", None, 401),
            ("/auth/v1/x", ("Administrator", "wrong"), 401),
            ("/auth/v1/x", JANE, 403),
            ("/auth/v2/x", ADMIN, 400),
            ("/auth/v1", ADMIN, 404),
            ("/x", ADMIN, 404),
            ("/auth/v1/x?heartbeat=0", ADMIN, 400),
            ("/auth/v1/x?heartbeat=x", ADMIN, 400),
            ("/auth/v1/x?beat=5", ADMIN, 400),
        ]:
            answer = yield self.ask(path, "RPCCONNECT", auth)
            self.assertEqual(answer.status, status, (path, auth))
        self.assertEqual((yield self.ask("/auth/v2/x", "RPCCONNECT")).body, b"Version is not supported")

    @inlineCallbacks
    def test_a_stop_ends_them(self) -> Steps:
        """A node that stops closes the connections of services."""
        line = yield self.service()
        yield self.node.stop()
        yield line.closed
        self.assertEqual(self.cluster.users.on_change, [])


class TimeTests(SynchronousTestCase):
    """Heartbeats and limits of time, on a clock of the test."""

    def connection(self, heartbeat: int) -> tuple[ServiceConnection, Any, Clock, list[str]]:
        """Return a connection in memory, with its transport, its clock and the versions to report."""
        clock, versions = Clock(), ["1"]

        stub: Any = SimpleNamespace(users=SimpleNamespace(on_change=[]), on_config_change=[], clock=clock)
        connection = ServiceConnection(stub, lambda: {"authVersion": versions[-1]}, heartbeat)
        connection.on_end = lambda: versions.append("ended")
        transport = StringTransportWithDisconnection()
        transport.protocol = connection
        transport.abortConnection = transport.loseConnection
        connection.makeConnection(transport)
        return connection, transport, clock, versions

    def test_heartbeats(self) -> None:
        """One comes every so many seconds, if they were asked for."""
        for heartbeat, expected in [(5, 4), (0, 0)]:
            connection, transport, clock, _ = self.connection(heartbeat)
            for _ in range(20):
                clock.advance(1)
            self.assertEqual(transport.value().count(b"AuthCacheSvc.Heartbeat"), expected)
            connection.connectionLost()
            self.assertEqual(clock.getDelayedCalls(), [])

    def test_a_silent_service(self) -> None:
        """A request without an answer for a minute ends the connection; one that was answered does not."""
        connection, _, clock, versions = self.connection(0)
        connection.dataReceived(b'{"id":0,"result":true,')
        connection.dataReceived(b'"error":null}\n')
        clock.advance(ANSWER_SECONDS + 1)
        self.assertEqual(versions, ["1"])
        connection, _, clock, versions = self.connection(0)
        clock.advance(ANSWER_SECONDS - 1)
        self.assertEqual(versions, ["1"])
        clock.advance(1)
        self.assertEqual(versions, ["1", "ended"])

    def test_changes_of_one_moment(self) -> None:
        """Several changes at once are reported once, and none that leaves everything as it was."""
        connection, transport, clock, versions = self.connection(0)
        versions += ["2", "3"]
        connection._changed()
        connection._changed()
        clock.advance(0)
        self.assertEqual(transport.value().count(b"UpdateDBExt"), 2)
        self.assertIn(b'"authVersion":"3"', transport.value())
        connection._changed()
        clock.advance(0)
        self.assertEqual(transport.value().count(b"UpdateDBExt"), 2)
        connection.connectionLost()
        self.assertEqual(versions[-1], "ended")


class CheckTests(ServiceCase):
    """Questions about users."""

    @inlineCallbacks
    def test_credentials(self) -> Steps:
        """The right credentials of a user give name, domain and uuid; wrong ones, and none, 401."""
        yield self.make("jane", "data_reader[default]")
        yield self.make("nobody")
        uuid = (yield self.ask(f"{USERS}/jane")).json["uuid"]
        path = f"/_cbauth?uuid={self.cluster.uuid}"
        answer = yield self.ask(path, "POST", JANE)
        self.assertEqual(
            (answer.status, answer.json), (200, {"user": "jane", "domain": "local", "uuid": uuid})
        )
        answer = yield self.ask("/_cbauth", "POST", ADMIN)
        self.assertEqual((answer.json["user"], answer.json["domain"]), (ADMIN[0], "admin"))
        self.assertEqual((yield self.ask(path, "POST", ("nobody", PASSWORD))).status, 200)
        for auth in (None, ("jane", "wrong"), ("ghost", "x"), ("jane", "")):
            self.assertEqual((yield self.ask(path, "POST", auth)).status, 401, auth)
        yield self.ask(f"{USERS}/jane", "PATCH", form={"password": "n3w-secret"})
        self.assertEqual((yield self.ask(path, "POST", JANE)).status, 401, "an old password")
        yield self.ask(f"{USERS}/jane", "PATCH", form={"locked": "true"})
        self.assertEqual((yield self.ask(path, "POST", ("jane", "n3w-secret"))).status, 401, "locked")
        self.assertEqual((yield self.ask("/_cbauth?uuid=other", "POST", ADMIN)).status, 404)

    @inlineCallbacks
    def test_permissions(self) -> Steps:
        """A permission of a user is 200, one that the user lacks 401."""
        yield self.make("jane", "data_reader[default]")
        path = "/_cbauth/checkPermission?user=jane&domain=local&audit=false&permission="
        for permission, status in [
            ("cluster.bucket[default].data.docs!read", 200),
            ("cluster.bucket[default].data.docs!upsert", 401),
            ("nonsense", 400),
        ]:
            self.assertEqual((yield self.ask(path + permission)).status, status, permission)
        self.assertEqual((yield self.ask(path.replace("jane", "x") + "cluster.pools!read")).status, 404)
        answer = yield self.ask("/_cbauth/getUserUuid?user=jane&domain=local")
        self.assertEqual(answer.json["user"], "jane")
        answer = yield self.ask("/_cbauth/getUserBuckets?user=jane&domain=local")
        self.assertEqual(answer.json, ["default"])
        for path in ("checkPermission?permission=cluster.pools!read", "getUserUuid", "getUserBuckets"):
            self.assertEqual((yield self.ask(f"/_cbauth/{path}", auth=JANE)).status, 403, path)

    @inlineCallbacks
    def test_on_behalf_of(self) -> Steps:
        """An administrator's request for another user has that user's rights; other callers may not."""
        yield self.make("jane", "data_reader[default]")

        def named(user: str) -> str:
            return "cb-on-behalf-of: " + b64encode(user.encode()).decode()

        for user, path, status in [
            ("jane:local", "/pools/default/b/default", 200),
            ("jane:local", "/pools/default/b/private", 403),
            ("jane:local", "/nodeStatuses", 403),
            ("Administrator:admin", "/nodeStatuses", 200),
            ("jane:external", "/pools/default/b/default", 401),
            ("ghost:local", "/pools/default/b/default", 401),
            ("jane", "/pools/default/b/default", 401),
        ]:
            answer = yield self.ask(path, headers=named(user))
            self.assertEqual(answer.status, status, (user, path))
        answer = yield self.ask("/whoami", headers=named("jane:local"))
        self.assertEqual(answer.json["id"], "jane")
        answer = yield self.ask("/whoami", auth=JANE, headers=named("Administrator:admin"))
        self.assertEqual(answer.status, 403)
        self.assertEqual(answer.json["permissions"], ["cluster.admin.security.admin!impersonate"])
        answer = yield self.ask("/whoami", headers="cb-on-behalf-of: ???")
        self.assertEqual(answer.status, 401)
        self.assertIsInstance(answer, Answer)
