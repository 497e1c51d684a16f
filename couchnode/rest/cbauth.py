"""Authentication for services beside the node, such as Couchbase's Data API gateway (management-rest
reference, section 10): they ask the node about their users' credentials, and learn when the answers are
outdated.

A service opens a connection with an HTTP request whose method is RPCCONNECT, and keeps it open. From then on
the node sends JSON-RPC requests, one per line, and the service answers each of them with one line.
"""

from __future__ import annotations

import json
import re
import secrets
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any, cast
from urllib.parse import unquote

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from couchnode.access.permissions import PermissionSyntaxError
from couchnode.cluster.cluster import Cluster
from couchnode.cluster.members import Node
from couchnode.cluster.reports import node_uuid
from couchnode.rest.access import Access, HTTPError, Leaf, unauthorized
from couchnode.rest.answers import json_answer, plain_answer
from couchnode.rest.membership import Membership
from reactor.clock import cancel_timer

METHOD = b"RPCCONNECT"

INTERNAL = "cluster.admin.internal!all"
"""The permission of services: full administrators have it."""

ANSWER_SECONDS = 60.0
"""How long a service may take to answer a request of the node."""

MAX_LINE_BYTES = 64 * 2**10
"""Longest answer of a service."""

MAX_HEARTBEAT_SECONDS = 3600

_PATH = re.compile(rb"/auth/([^/]+)/([^/]+)\Z")
_GREETING = b"HTTP/1.1 200 OK\r\nServer: Couchbase Server\r\nContent-Length: 0\r\n\r\n"


@implementer(IResource)
class Services(Leaf):
    """The connections of services to one node, by the names that they give themselves.

    :param inner: serves all requests with other methods.
    """

    def __init__(self, cluster: Cluster, node: Node, inner: IResource) -> None:
        self._cluster = cluster
        self._inner = inner
        self._access = Access(cluster)
        self._node_uuid = node_uuid(cluster.uuid, node.index)
        self._open: dict[str, ServiceConnection] = {}
        # Version numbers restart with the process, so they are mixed with a value that does not.
        self._run = secrets.token_bytes(16)
        self._log = Logger(namespace=__name__)

    def render(self, request: Request) -> Any:
        """Answer a request."""
        if request.method != METHOD:
            return self._inner.render(request)
        Deferred.fromCoroutine(self._connect(request)).addErrback(self._failed, request)
        return NOT_DONE_YET

    def close(self) -> None:
        """Close all connections, and stop listening for changes."""
        for connection in list(self._open.values()):
            connection.close()

    async def _connect(self, request: Request) -> None:
        await self._access.permit(request, INTERNAL)
        match = _PATH.match(request.path)
        if match is None:
            raise HTTPError(404, b"Object Not Found")
        if match[1] != b"v1":
            raise HTTPError(400, b"Version is not supported")
        heartbeat = _read_heartbeat(request)
        label = unquote(match[2].decode("ascii", "replace"))
        older = self._open.pop(label, None)
        if older is not None:
            older.close()
        channel: Any = request.channel
        if channel is None or request._disconnected:
            return
        connection = ServiceConnection(self._cluster, self._parameters, heartbeat)
        connection.on_end = lambda: self._forget(label, connection)
        self._open[label] = connection
        transport = channel.transport
        # The connection's wrapper gets another protocol in place of the one for HTTP.
        channel.setTimeout(None)
        transport.unregisterProducer()
        transport.wrappedProtocol = connection
        transport.write(_GREETING)
        connection.makeConnection(transport)
        transport.resumeProducing()

    def _forget(self, label: str, connection: ServiceConnection) -> None:
        if self._open.get(label) is connection:
            del self._open[label]

    def _failed(self, failure: Failure, request: Request) -> None:
        if request._disconnected or request.finished:
            return
        fault = failure.value
        if not isinstance(fault, HTTPError):
            self._log.failure("{path} failed", failure, path=request.path)
            fault = HTTPError.of_json(500, ["Unexpected server error, request logged."])
        request.write(fault.send(request))
        request.finish()

    def _parameters(self) -> dict[str, str]:
        buckets = sorted((name, bucket.uuid) for name, bucket in self._cluster.buckets.items())
        version = self._version("users", self._cluster.users.version)
        return {
            "authCheckEndpoint": "/_cbauth",
            "authVersion": version,
            "permissionCheckEndpoint": "/_cbauth/checkPermission",
            "permissionsVersion": self._version("permissions", [version, buckets]),
            "clientCertAuthVersion": self._version("certificates", 0),
            "extractUserFromCertEndpoint": "/_cbauth/extractUserFromCert",
            "clientCertAuthState": "disable",
            "nodeUUID": self._node_uuid,
            "clusterUUID": self._cluster.uuid,
        }

    def _version(self, kind: str, of: object) -> str:
        text = json.dumps([kind, of]).encode()
        return b64encode(sha256(self._run + text).digest()).decode("ascii")


class CredentialChecks(Membership):
    """The resources of one node that answer services' questions about users."""

    app = Membership.app

    @app.route("/_cbauth", methods=["POST"])
    async def authenticate(self, request: Request) -> bytes:
        """Give the user whose credentials the request has; a service forwards those of its own caller."""
        user = await self._access.caller(request)
        if user is None:
            raise unauthorized()
        if request.args.get(b"uuid", [self._cluster.uuid.encode()])[0] != self._cluster.uuid.encode():
            raise HTTPError(404, b"Cluster uuid does not match the requested.")
        return json_answer(request, self._identity(user))

    @app.route("/_cbauth/checkPermission", methods=["GET"])
    async def check_permission(self, request: Request) -> bytes:
        """Answer 200 if a user has a permission, 401 if not."""
        await self._access.permit(request, INTERNAL)
        text = request.args.get(b"permission", [b""])[0].decode("utf-8", "replace")
        try:
            allowed = self._cluster.users.rights(self._named(request)).allow(text)
        except PermissionSyntaxError:
            raise HTTPError.of_json(400, f"Malformed permissions: [{text[:200]}].") from None
        return plain_answer(request, b"", status=200 if allowed else 401)

    @app.route("/_cbauth/getUserUuid", methods=["GET"])
    async def user_uuid(self, request: Request) -> bytes:
        """Give the uuid of a user."""
        await self._access.permit(request, INTERNAL)
        return json_answer(request, self._identity(self._named(request)))

    @app.route("/_cbauth/getUserBuckets", methods=["GET"])
    async def user_buckets(self, request: Request) -> bytes:
        """List the buckets on which a user has any privilege."""
        await self._access.permit(request, INTERNAL)
        user = self._named(request)
        names = [name for name in sorted(self._cluster.buckets) if self._cluster.users.may_use(user, name)]
        return json_answer(request, names)

    def _named(self, request: Request) -> str:
        """Return the user that the query names.

        :raises HTTPError: 404: there is none.
        """
        name, domain = (
            request.args.get(field, [b""])[0].decode("utf-8", "replace") for field in (b"user", b"domain")
        )
        if name not in self._cluster.users or domain != self._domain(name):
            raise HTTPError.of_json(404, "Unknown user.")
        return name

    def _domain(self, user: str) -> str:
        return "admin" if self._cluster.users.is_administrator(user) else "local"

    def _identity(self, user: str) -> dict[str, str]:
        record = self._cluster.users.get(user)
        uuid = "" if record is None else record.account.uuid
        return {"user": user, "domain": self._domain(user), "uuid": uuid}


class ServiceConnection(Protocol):
    """The connection of one service.

    :param parameters: returns the versions that the service must know now.
    :param heartbeat: seconds between heartbeats; 0 for none.
    :ivar on_end: called when the connection is gone.
    """

    on_end: Callable[[], None]

    def __init__(self, cluster: Cluster, parameters: Callable[[], dict[str, str]], heartbeat: int) -> None:
        self._cluster = cluster
        self._parameters = parameters
        self._heartbeat = heartbeat
        self._sent: dict[str, str] | None = None
        self._next_id = 0
        self._buffer = b""
        self._waiting: dict[int, IDelayedCall] = {}
        self._beat: IDelayedCall | None = None
        self._change: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Twisted: report versions, and begin the heartbeats."""
        self._cluster.users.on_change.append(self._changed)
        self._cluster.on_config_change.append(self._bucket_changed)
        self._update()
        if self._heartbeat:
            self._beat = self._cluster.clock.callLater(self._heartbeat, self._send_heartbeat)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the service is gone."""
        self._cluster.users.on_change.remove(self._changed)
        self._cluster.on_config_change.remove(self._bucket_changed)
        for timer in (self._beat, self._change, *self._waiting.values()):
            cancel_timer(timer)
        self._waiting.clear()
        self.on_end()

    def dataReceived(self, data: bytes) -> None:
        """Twisted: part of an answer."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > MAX_LINE_BYTES:
            self.close()
            return
        for line in lines:
            if line.strip() and not self._take(line):
                self.close()
                return

    def close(self) -> None:
        """End the connection."""
        cast(Any, self.transport).abortConnection()

    def _take(self, line: bytes) -> bool:
        """Take an answer; return whether it is valid and reports success."""
        try:
            answer = json.loads(line)
            timer = self._waiting.pop(answer["id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        cancel_timer(timer)
        return not answer.get("error") and answer.get("result") in (None, True)

    def _changed(self) -> None:
        """Notify the service in the next reactor turn, once for all changes of this turn."""
        if self._change is None:
            self._change = self._cluster.clock.callLater(0, self._update)

    def _bucket_changed(self, bucket: str) -> None:
        self._changed()

    def _update(self) -> None:
        self._change = None
        parameters = self._parameters()
        if parameters != self._sent:
            self._sent = parameters
            self._call("AuthCacheSvc.UpdateDBExt", parameters)

    def _send_heartbeat(self) -> None:
        self._beat = self._cluster.clock.callLater(self._heartbeat, self._send_heartbeat)
        self._call("AuthCacheSvc.Heartbeat", {})

    def _call(self, method: str, parameters: dict[str, str]) -> None:
        number = self._next_id
        self._next_id += 1
        self._waiting[number] = self._cluster.clock.callLater(ANSWER_SECONDS, self.close)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": [parameters]}
        cast(Any, self.transport).write(json.dumps(request, separators=(",", ":")).encode() + b"\n")


def _read_heartbeat(request: Request) -> int:
    """Return the seconds of ``?heartbeat=``, 0 without it.

    :raises HTTPError: 400 for another value, or another parameter.
    """
    errors = {
        name.decode("utf-8", "replace"): "Unsupported key" for name in request.args if name != b"heartbeat"
    }
    text = request.args.get(b"heartbeat", [b"0"])[0]
    seconds = int(text) if text.isdigit() and len(text) < 10 else -1
    if b"heartbeat" in request.args and not 1 <= seconds <= MAX_HEARTBEAT_SECONDS:
        errors["heartbeat"] = f"The value must be in range from 1 to {MAX_HEARTBEAT_SECONDS} (inclusive)"
    if errors:
        raise HTTPError.of_json(400, {"errors": errors})
    return seconds
