"""Administration of a cluster, shared by all drivers: each call is a plan of requests to the cluster manager.

A plan is a generator: it yields a :class:`Question`, is sent the :class:`Answer`, and returns the call's
result. A driver's class executes plans: :class:`couchbase.admin.Admin` blocks,
:class:`gcouchbase.admin.Admin` lets other greenlets run, :class:`txcouchbase.admin.Admin` returns Deferreds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import Any, Callable, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from couchbase import exceptions, manifest
from couchbase.arguments import check_credentials
from couchbase.blocking.http import decode_body
from couchbase.exceptions import ArgumentError, BucketNotFoundError, error_of
from couchbase.manifest import FORM, ManagerRequest, Manifest
from couchbase.protocol.connstr import seeds_from_hosts
from couchbase.protocol.handshake import Credentials
from couchbase.result import HttpResult
from couchbase.user_constants import FMT_BYTES, FMT_JSON, FMT_UTF8
from couchbase.users import ResultT, UserCommands

__all__ = ["METHMAP", "AdminCommands", "Answer", "Question"]

METHMAP = {"GET": 1, "POST": 2, "PUT": 3, "DELETE": 4}
"""HTTP methods, with their numbers in SDK 1.2."""

BUCKETS = "/pools/default/buckets"

ManifestT = TypeVar("ManifestT")


class Question(NamedTuple):
    """A request to the cluster manager."""

    method: str
    path: str
    """Path and query, percent-encoded."""
    body: bytes | None
    headers: dict[str, str]


class Answer(NamedTuple):
    """The cluster manager's answer."""

    status: int
    body: bytes


Plan = Generator[Question, Answer, Any]


class AdminCommands(UserCommands[ResultT], Generic[ResultT, ManifestT]):
    """The calls of an administrator's session.

    :param username: the administrator's name.
    :param password: the administrator's password.
    :param host: name of any node.
    :param port: port of its cluster manager.
    """

    def __init__(self, username: str, password: str, host: str = "localhost", port: int = 8091) -> None:
        for name, text in (("username", username), ("password", password)):
            if not isinstance(text, str):
                raise ArgumentError.pyexc(f"{name} must be a str, not {type(text).__name__}")
        check_credentials(username, password)
        if not isinstance(host, str):
            raise ArgumentError.pyexc("host must be a str", obj=host)
        seed = seeds_from_hosts(host, port)[0]
        self._host, self._port = seed.host, port
        self._credentials = Credentials(username, password)
        self._timeout = 75.0

    @abstractmethod
    def _perform(self, plan: Plan) -> Any:
        """Execute a plan; returns its result in the driver's form."""

    @abstractmethod
    def _seconds(self) -> float:
        """Return the time of a monotonic clock, in seconds."""

    @property
    def timeout(self) -> float:
        """Timeout of a request, in seconds."""
        return self._timeout

    @timeout.setter
    def timeout(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"timeout must be a number of seconds, not {type(value).__name__}")
        if not value > 0:
            raise ValueError(f"timeout must be above 0, not {value!r}")
        self._timeout = float(value)

    @property
    def server_nodes(self) -> list[str]:
        """``host:port`` of the cluster manager in use."""
        return [f"{self._host}:{self._port}"]

    def http_request(
        self,
        path: str,
        method: str = "GET",
        content: str | bytes | None = None,
        content_type: str = "application/json",
        response_format: int = FMT_JSON,
    ) -> ResultT:
        """Send a request to the cluster manager.

        :param path: path and query, percent-encoded.
        :param method: GET, PUT, POST or DELETE.
        :param content: body, ``str`` or ``bytes``.
        :param content_type: media type of the body.
        :param response_format: ``FMT_JSON`` (text, if the answer is not JSON), ``FMT_UTF8`` or ``FMT_BYTES``.
        :raises HTTPError: a status outside 200..299; ``objextra`` is the HttpResult.
        :raises ArgumentError: an invalid argument.
        """
        return self._perform(request_plan(path, method, content, content_type, response_format))

    # ---- buckets ---------------------------------------------------------------------------------

    def bucket_list(self) -> ResultT:
        """Return the buckets of the cluster: ``value`` is a list with the manager's description of each.

        Not in SDK 1.2, like the next two.
        """
        return self.http_request(BUCKETS)

    def bucket_create(
        self,
        name: str,
        bucket_type: str = "couchbase",
        bucket_password: str = "",
        replicas: int = 0,
        ram_quota: int = 100,
        flush_enabled: bool = False,
    ) -> ResultT:
        """Create a bucket.

        :param bucket_type: ``couchbase``, ``ephemeral`` or ``memcached``.
        :param bucket_password: for servers whose buckets have passwords.
        :param replicas: number of replicas.
        :param ram_quota: memory quota in megabytes on each node.
        :param flush_enabled: whether one request may remove all documents.
        :raises HTTPError: the manager refuses; ``objextra.value`` says why.
        """
        fields = {
            "name": name,
            "bucketType": bucket_type,
            "ramQuotaMB": ram_quota,
            "replicaNumber": replicas,
            "flushEnabled": int(flush_enabled),
        }
        return self._perform(_bucket_create(fields, bucket_password))

    def bucket_delete(self, name: str) -> ResultT:
        """Delete a bucket with its documents.

        :raises HTTPError: there is no such bucket, or the manager refuses.
        """
        return self._perform(_bucket_delete(name))

    # ---- scopes and collections ------------------------------------------------------------------

    def scopes(self, bucket: str) -> ManifestT:
        """Return the scopes and collections of a bucket.

        Not in SDK 1.2, like the next five.

        :raises BucketNotFoundError: there is no such bucket.
        :raises NotSupportedError: the server is older than Couchbase Server 7.0.
        :raises HTTPError: the manager refuses.
        """
        return self._perform(scopes_plan(bucket))

    def scope_create(self, bucket: str, name: str) -> ResultT:
        """Create a scope, and return when all nodes have it.

        :param name: 1 to 251 characters out of A-Z, a-z, 0-9, ``_``, ``-`` and ``%``; the first one is not
            ``_`` or ``%``.
        :returns: ``value`` is a dict with the ``uid`` of the new manifest, in hexadecimal.
        :raises ScopeExistsError: the bucket has it already.
        :raises BucketNotFoundError: there is no such bucket.
        :raises HTTPError: the manager refuses; ``objextra.value`` says why.
        :raises TimeoutError: the change was made, but not every node had it within :attr:`timeout`.
        """
        return self._change(manifest.create_scope, bucket, name)

    def scope_drop(self, bucket: str, name: str) -> ResultT:
        """Drop a scope with its collections and their documents; otherwise like :meth:`scope_create`.

        :raises ScopeNotFoundError: the bucket has no such scope.
        """
        return self._change(manifest.drop_scope, bucket, name)

    def collection_create(
        self, bucket: str, name: str, scope: str | None = None, max_ttl: int | None = None
    ) -> ResultT:
        """Create a collection, and return when all nodes have it; otherwise like :meth:`scope_create`.

        :param scope: name of its scope, ``None`` for the default scope.
        :param max_ttl: longest time to live of its documents in seconds, which also applies to documents
            stored without one: 0 for the bucket's own limit, -1 for none (servers from 7.6 on), else up to
            2147483647. The server's default is 0.
        :raises CollectionExistsError: the scope has it already.
        :raises ScopeNotFoundError: the bucket has no such scope.
        """
        return self._change(manifest.create_collection, bucket, name, scope, max_ttl)

    def collection_update(self, bucket: str, name: str, scope: str | None = None, *, max_ttl: int) -> ResultT:
        """Change a collection (servers from 7.6 on); arguments as for :meth:`collection_create`.

        :raises CollectionNotFoundError: the scope has no such collection.
        :raises ScopeNotFoundError: the bucket has no such scope.
        """
        return self._change(manifest.update_collection, bucket, name, scope, max_ttl)

    def collection_drop(self, bucket: str, name: str, scope: str | None = None) -> ResultT:
        """Drop a collection with its documents; otherwise like :meth:`scope_create`.

        :raises CollectionNotFoundError: the scope has no such collection.
        :raises ScopeNotFoundError: the bucket has no such scope.
        """
        return self._change(manifest.drop_collection, bucket, name, scope)

    def _change(self, describe: Callable[..., ManagerRequest], bucket: str, *arguments: Any) -> ResultT:
        """Change the manifest of a bucket.

        :param describe: makes the request from bucket and arguments.
        """
        return self._perform(self._changed(describe, bucket, *arguments))

    def _changed(self, describe: Callable[..., ManagerRequest], bucket: str, *arguments: Any) -> Plan:
        deadline = self._seconds() + self._timeout
        request = describe(bucket, *arguments)
        return (yield from change_plan(bucket, request, lambda: deadline - self._seconds()))

    def _check(self) -> Plan:
        """Plan that checks whether the credentials are valid.

        :raises AuthError: the credentials are not valid.
        """
        # The bucket's configuration shows that; the plain form, not the endless stream.
        for path in (f"{BUCKETS}/default", BUCKETS):
            answer = yield Question("GET", path, None, {})
            if answer.status == 401:
                user = self._credentials.user
                raise error_of(exceptions.AUTH_ERROR, f"the cluster refused user {user!r}")
            if answer.status < 300:
                break


def request_plan(
    path: str,
    method: str = "GET",
    content: str | bytes | None = None,
    content_type: str = "application/json",
    response_format: int = FMT_JSON,
) -> Plan:
    """Plan of :meth:`AdminCommands.http_request`."""
    if not isinstance(path, str):
        raise ArgumentError.pyexc("path must be a str", obj=path)
    if method not in METHMAP:
        raise ArgumentError.pyexc(f"method must be one of {', '.join(METHMAP)}", obj=method)
    if content is not None and not isinstance(content, (str, bytes)):
        raise ArgumentError.pyexc("content must be str or bytes", obj=content)
    if response_format not in (FMT_JSON, FMT_UTF8, FMT_BYTES):
        raise ArgumentError.pyexc(
            "response_format must be FMT_JSON, FMT_UTF8 or FMT_BYTES", obj=response_format
        )
    headers = {} if content is None else {"Content-Type": content_type}
    body = content.encode() if isinstance(content, str) else content
    answer = yield Question(method, path if path.startswith("/") else "/" + path, body, headers)
    result = HttpResult(0, answer.status, decode_body(answer.body, response_format), path)
    result._maybe_raise()
    return result


def _bucket_create(fields: dict[str, Any], bucket_password: str) -> Plan:
    _check_name(fields["name"])
    if bucket_password:
        fields.update({"authType": "sasl", "saslPassword": bucket_password})
    try:
        return (yield from request_plan(BUCKETS, "POST", urlencode(fields), FORM))
    except exceptions.HTTPError as refused:
        # Servers before 5.0 require the field. Later ones do not have it, and may refuse it.
        answer = refused.objextra
        if bucket_password or answer.http_status != 400 or "authType" not in str(answer.value):
            raise
    fields["authType"] = "sasl"
    return (yield from request_plan(BUCKETS, "POST", urlencode(fields), FORM))


def _bucket_delete(name: str) -> Plan:
    _check_name(name)
    return (yield from request_plan(f"{BUCKETS}/{quote(name, safe='')}", "DELETE"))


def scopes_plan(bucket: str) -> Generator[Question, Answer, Manifest]:
    """Plan of :meth:`AdminCommands.scopes`."""
    answer = yield from _manage(bucket, ManagerRequest("GET", manifest.scopes_path(bucket)))
    return manifest.parse_manifest(answer.value)


def change_plan(bucket: str, request: ManagerRequest, left: Callable[[], float]) -> Plan:
    """Plan that changes the manifest, and waits until all nodes have it.

    :param left: returns the number of seconds that are left.
    """
    result = yield from _manage(bucket, request)
    result._value = decode_body(result.value, FMT_JSON)
    uid = manifest.uid_of(result.value)
    if uid is not None:
        waited = yield _question(manifest.ensure_manifest(bucket, uid, left()))
        if waited.status == 504:
            raise error_of(exceptions.ETIMEDOUT, "the change was made, but not every node has it yet")
    return result


def _manage(bucket: str, request: ManagerRequest) -> Plan:
    """Plan of a request about scopes and collections; the value of its result is the answer's body."""
    answer = yield _question(request)
    result = HttpResult(0, answer.status, answer.body, request.path)
    if not 200 <= answer.status <= 299:
        result._value = decode_body(answer.body, FMT_JSON)
        error = manifest.refusal(result, bucket)
        if isinstance(error, BucketNotFoundError):
            there = yield _question(ManagerRequest("GET", manifest.bucket_path(bucket)))
            error = manifest.not_supported(bucket) if there.status == 200 else error
        raise error
    return result


def _question(request: ManagerRequest) -> Question:
    if request.form is None:
        return Question(request.method, request.path, None, {})
    return Question(request.method, request.path, request.form.encode(), {"Content-Type": FORM})


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise ArgumentError.pyexc("a bucket's name must be a str that is not empty", obj=name)
