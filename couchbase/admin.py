"""Administration of a cluster: requests to its manager, its buckets, scopes and users."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any
from urllib.parse import quote, urlencode

from couchbase import exceptions, manifest
from couchbase.arguments import check_credentials
from couchbase.blocking import http
from couchbase.commands import Commands
from couchbase.driver import Driver
from couchbase.exceptions import ArgumentError, BucketNotFoundError, CouchbaseError, HTTPError, error_of
from couchbase.protocol import operations
from couchbase.protocol.connstr import seeds_from_hosts
from couchbase.protocol.failures import client_error
from couchbase.protocol.handshake import Credentials
from couchbase.protocol.request import Operation, Request
from couchbase.result import HttpResult
from couchbase.user_constants import FMT_BYTES, FMT_JSON, FMT_UTF8
from couchbase.users import UserCommands

METHMAP = {"GET": 1, "POST": 2, "PUT": 3, "DELETE": 4}
"""Methods of requests, with the numbers that they had in SDK 1.2."""

_BUCKETS = "/pools/default/buckets"


class Admin(Commands, UserCommands):
    """A session with a cluster's manager, as its administrator.

    Blocks. There is no bucket: key-value methods raise ClientTemporaryFailError.

    :param username: the administrator's name.
    :param password: the administrator's password.
    :param host: name of any node.
    :param port: port of its cluster manager.
    :param ignored: other keywords have no meaning.
    :raises AuthError: wrong credentials.
    :raises CouchbaseNetworkError: no connection.
    """

    def __init__(
        self, username: str, password: str, host: str = "localhost", port: int = 8091, **ignored: object
    ) -> None:
        for name, text in (("username", username), ("password", password)):
            if not isinstance(text, str):
                raise ArgumentError.pyexc(f"{name} must be a str, not {type(text).__name__}")
        check_credentials(username, password)
        if not isinstance(host, str):
            raise ArgumentError.pyexc("host must be a str", obj=host)
        seed = seeds_from_hosts(host, port)[0]
        self._host, self._port = seed.host, port
        self._credentials = Credentials(username, password)
        self._driver = _NoBucket()
        self._timeout = 75.0
        # Reading the configuration shows whether the credentials are valid: in its plain form, not as the
        # endless stream.
        for path in (f"{_BUCKETS}/default", _BUCKETS):
            status = self._request_http("GET", path, None, {}).status
            if status == 401:
                raise error_of(exceptions.AUTH_ERROR, f"the cluster refused user {username!r}")
            if status < 300:
                break

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
    ) -> HttpResult:
        """Send a request to the cluster manager.

        :param path: with its query, encoded.
        :param method: GET, PUT, POST or DELETE.
        :param content: body, ``str`` or ``bytes``.
        :param content_type: media type of the body.
        :param response_format: ``FMT_JSON`` (text, if the answer is not JSON), ``FMT_UTF8`` or ``FMT_BYTES``.
        :raises HTTPError: a status outside 200..299; ``objextra`` is the HttpResult.
        :raises ArgumentError: a wrong argument.
        """
        if not isinstance(path, str):
            raise ArgumentError.pyexc("path must be a str", obj=path)
        if method not in METHMAP:
            raise ArgumentError.pyexc(f"method must be one of {', '.join(METHMAP)}", obj=method)
        if content is not None and not isinstance(content, (str, bytes)):
            raise ArgumentError.pyexc("content must be str or bytes", obj=content)
        if response_format not in (FMT_JSON, FMT_UTF8, FMT_BYTES):
            raise ArgumentError.pyexc(
                "response_format is FMT_JSON, FMT_UTF8 or FMT_BYTES", obj=response_format
            )
        headers = {} if content is None else {"Content-Type": content_type}
        body = content.encode() if isinstance(content, str) else content
        answer = self._request_http(method, path, body, headers)
        result = HttpResult(0, answer.status, http.decode_body(answer.body, response_format), path)
        result._maybe_raise()
        return result

    def _request_http(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
        path = path if path.startswith("/") else "/" + path
        target = http.Target(self._host, self._port, self._credentials)
        return http.request(target, method, path, body=body, headers=headers, timeout=self._timeout)

    # ---- buckets ---------------------------------------------------------------------------------

    def bucket_list(self) -> HttpResult:
        """Return the buckets of the cluster: ``value`` is a list with the manager's description of each.

        Not in SDK 1.2, like the next two.
        """
        return self.http_request(_BUCKETS)

    def bucket_create(
        self,
        name: str,
        bucket_type: str = "couchbase",
        bucket_password: str = "",
        replicas: int = 0,
        ram_quota: int = 100,
        flush_enabled: bool = False,
    ) -> HttpResult:
        """Create a bucket.

        :param bucket_type: ``couchbase``, ``ephemeral`` or ``memcached``.
        :param bucket_password: for servers whose buckets have passwords.
        :param replicas: how many copies besides the active one.
        :param ram_quota: megabytes on each node.
        :param flush_enabled: whether one request may remove all documents.
        :raises HTTPError: the manager refuses; ``objextra.value`` says why.
        """
        _check_name(name)
        fields: dict[str, Any] = {
            "name": name,
            "bucketType": bucket_type,
            "ramQuotaMB": ram_quota,
            "replicaNumber": replicas,
            "flushEnabled": int(flush_enabled),
        }
        if bucket_password:
            fields.update({"authType": "sasl", "saslPassword": bucket_password})
        try:
            return self.http_request(_BUCKETS, "POST", urlencode(fields), content_type=manifest.FORM)
        except HTTPError as refused:
            # Servers before 5.0 want the field. Later ones do not have it, and may refuse it.
            answer = refused.objextra
            if bucket_password or answer.http_status != 400 or "authType" not in str(answer.value):
                raise
        fields["authType"] = "sasl"
        return self.http_request(_BUCKETS, "POST", urlencode(fields), content_type=manifest.FORM)

    def bucket_delete(self, name: str) -> HttpResult:
        """Delete a bucket with its documents.

        :raises HTTPError: there is none, or the manager refuses.
        """
        _check_name(name)
        return self.http_request(f"{_BUCKETS}/{quote(name, safe='')}", "DELETE")

    # ---- scopes and collections ------------------------------------------------------------------

    def scopes(self, bucket: str) -> manifest.Manifest:
        """Return the scopes and collections of a bucket.

        Not in SDK 1.2, like the next five.

        :raises BucketNotFoundError: there is no such bucket.
        :raises NotSupportedError: the server is older than Couchbase Server 7.0.
        :raises HTTPError: the manager refuses.
        """
        answer = self._manage(bucket, manifest.ManagerRequest("GET", manifest.scopes_path(bucket)))
        return manifest.parse_manifest(answer.value)

    def scope_create(self, bucket: str, name: str) -> HttpResult:
        """Create a scope, and return when all nodes know it.

        :param name: 1 to 251 characters out of A-Z, a-z, 0-9, ``_``, ``-`` and ``%``; the first one is not
            ``_`` or ``%``.
        :returns: ``value`` is a dict with the ``uid`` of the new manifest, in hexadecimal.
        :raises ScopeExistsError: the bucket has it already.
        :raises BucketNotFoundError: there is no such bucket.
        :raises HTTPError: the manager refuses; ``objextra.value`` says why.
        :raises TimeoutError: it was done, but not every node knew it within :attr:`timeout`.
        """
        return self._change(bucket, manifest.create_scope(bucket, name))

    def scope_drop(self, bucket: str, name: str) -> HttpResult:
        """Drop a scope with its collections and their documents; as :meth:`scope_create`.

        :raises ScopeNotFoundError: the bucket has no such scope.
        """
        return self._change(bucket, manifest.drop_scope(bucket, name))

    def collection_create(
        self, bucket: str, name: str, scope: str | None = None, max_ttl: int | None = None
    ) -> HttpResult:
        """Create a collection, and return when all nodes know it; as :meth:`scope_create`.

        :param scope: name of its scope, ``None`` for the default scope.
        :param max_ttl: longest time to live of its documents in seconds, which those stored without one get:
            0 for the bucket's own limit, -1 for none (servers from 7.6 on), else up to 2147483647. By
            default the server decides: 0.
        :raises CollectionExistsError: the scope has it already.
        :raises ScopeNotFoundError: the bucket has no such scope.
        """
        return self._change(bucket, manifest.create_collection(bucket, name, scope, max_ttl))

    def collection_update(
        self, bucket: str, name: str, scope: str | None = None, *, max_ttl: int
    ) -> HttpResult:
        """Change a collection (servers from 7.6 on); arguments as for :meth:`collection_create`.

        :raises CollectionNotFoundError: the scope has no such collection.
        :raises ScopeNotFoundError: the bucket has no such scope.
        """
        return self._change(bucket, manifest.update_collection(bucket, name, scope, max_ttl))

    def collection_drop(self, bucket: str, name: str, scope: str | None = None) -> HttpResult:
        """Drop a collection with its documents; as :meth:`scope_create`.

        :raises CollectionNotFoundError: the scope has no such collection.
        :raises ScopeNotFoundError: the bucket has no such scope.
        """
        return self._change(bucket, manifest.drop_collection(bucket, name, scope))

    def _change(self, bucket: str, request: manifest.ManagerRequest) -> HttpResult:
        """Change the manifest, and wait until all nodes have it."""
        began = monotonic()
        answer = self._manage(bucket, request)
        answer._value = http.decode_body(answer.value, FMT_JSON)
        uid = manifest.uid_of(answer.value)
        if uid is not None:
            left = self._timeout - (monotonic() - began)
            waited = self._ask(manifest.ensure_manifest(bucket, uid, left))
            if waited.status == 504:
                raise error_of(exceptions.ETIMEDOUT, "it was done, but not every node knows it yet")
        return answer

    def _manage(self, bucket: str, request: manifest.ManagerRequest) -> HttpResult:
        """Send a request; its value is the body of the answer."""
        answer = self._ask(request)
        result = HttpResult(0, answer.status, answer.body, request.path)
        if not 200 <= answer.status <= 299:
            result._value = http.decode_body(answer.body, FMT_JSON)
            error = manifest.refusal(result, bucket)
            if isinstance(error, BucketNotFoundError):
                there = self._ask(manifest.ManagerRequest("GET", manifest.bucket_path(bucket)))
                error = manifest.not_supported(bucket) if there.status == 200 else error
            raise error
        return result

    def _ask(self, request: manifest.ManagerRequest) -> Any:
        headers = {} if request.form is None else {"Content-Type": manifest.FORM}
        body = None if request.form is None else request.form.encode()
        return self._request_http(request.method, request.path, body, headers)

    def __repr__(self) -> str:
        return f"<couchbase.admin.{type(self).__name__} nodes={self.server_nodes} at 0x{id(self):x}>"


class _NoBucket(Driver[Request]):
    """Refuses whatever needs a bucket."""

    def _no_bucket(self, operation: Operation, key: object) -> CouchbaseError:
        request = Request(operation, key, b"")
        return client_error(request, exceptions.CLIENT_ETMPFAIL, "an administrator's session has no bucket")

    def submit(self, request: Request, durability: tuple[int, int] | None = None) -> Any:
        raise self._no_bucket(request.operation, request.key)

    def submit_to_replica(self, request: Request) -> Any:
        raise self._no_bucket(request.operation, request.key)

    def submit_multi(self, requests: Sequence[Any], durability: tuple[int, int] | None = None) -> Any:
        raise self._no_bucket(requests[0].operation, requests[0].key)

    def submit_observe(self, documents: Sequence[Request], master_only: bool, single: bool) -> Any:
        raise self._no_bucket(operations.OBSERVE, documents[0].key)

    def submit_endure(self, documents: Sequence[Request], *options: object) -> Any:
        raise self._no_bucket(operations.ENDURE, documents[0].key)

    def submit_stats(self, groups: Sequence[str]) -> Any:
        raise self._no_bucket(operations.STATS, None)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise ArgumentError.pyexc("a bucket's name is a str that is not empty", obj=name)
