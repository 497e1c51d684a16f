"""Access over HTTP: Basic authentication, the three rights, and the gate in front of every resource of a
node."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from twisted.web.resource import IResource
from twisted.web.server import Request
from zope.interface import implementer

from couchnode.access.permissions import ALL, ANY, Permission, below
from couchnode.cluster.cluster import Cluster
from couchnode.cluster.config import encode
from couchnode.rest.edge import LimitedRequest
from couchnode.tls import NodeTls

_SLASHES = re.compile(rb"//+")

_FOR_ALL = frozenset({b"/whoami", b"/pools/default/certificate"})
"""The path that describes the caller; callers without credentials get an answer too."""

IMPERSONATE = "cluster.admin.security.admin!impersonate"

REALM = b'Basic realm="Couchbase Server Admin / REST"'


class HTTPError(Exception):
    """A request that gets an error: status, body and the headers that belong to it."""

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: bytes = b"text/plain",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers

    @classmethod
    def of_json(cls, status: int, document: Any) -> HTTPError:
        """Make a refusal with a JSON body."""
        return cls(status, encode(document), b"application/json")

    def send(self, request: Request) -> bytes:
        """Set status and headers of a response, and return its body."""
        request.setResponseCode(self.status)
        request.setHeader(b"content-type", self.content_type)
        request.setHeader(b"content-length", b"%d" % len(self.body))
        for name, value in self.headers:
            request.setHeader(name, value)
        return self.body


def not_found() -> HTTPError:
    """Return the answer for paths and buckets that do not exist."""
    return HTTPError(404, b"Requested resource not found.")


class Leaf:
    """The part of ``IResource`` that is the same for every resource without children: all but ``render``."""

    isLeaf = True
    server = None

    def getChildWithDefault(self, name: bytes, request: Request) -> IResource:
        """Never called: this resource is a leaf.

        :raises RuntimeError: always.
        """
        raise RuntimeError("a leaf has no children")

    def putChild(self, path: bytes, child: IResource) -> None:
        """Never called: this resource is a leaf.

        :raises RuntimeError: always.
        """
        raise RuntimeError("a leaf has no children")


@implementer(IResource)
class Gate(Leaf):
    """The gate before all resources of one node.

    In a closed cluster a request without credentials gets 401 here, for every path but two, whether it
    exists or not; so no resource can forget the check. A path that is not UTF-8 gets 400. Empty segments of
    a path are ignored (``//pools/default/`` is ``/pools/default``), as on Couchbase Server.

    A client with a certificate acts as the user that ``tls`` finds in it, whatever its headers say; if that
    user does not exist, the client gets 401.

    :param inner: serves all other requests; a leaf, which checks the caller's rights (:class:`Access`).
    """

    def __init__(self, cluster: Cluster, inner: IResource, tls: NodeTls | None = None) -> None:
        self._cluster = cluster
        self._tls = tls
        self._inner = inner

    def render(self, request: Request) -> Any:
        """Answer a request."""
        request.path = _SLASHES.sub(b"/", request.path).rstrip(b"/") or b"/"
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal.send(request)
        # The router reads these decoded segments.
        request.postpath = [segment for segment in request.postpath or () if segment] or [b""]
        return self._inner.render(request)

    def _refusal(self, request: Request) -> HTTPError | None:
        user = None
        if self._tls is not None and isinstance(request, LimitedRequest):
            user = request.certificate_user = self._tls.user_of(request.channel.transport)
        if user is not None and user not in self._cluster.users:
            return unauthorized()
        has_credentials = user is not None or request.requestHeaders.hasHeader(b"authorization")
        if not self._cluster.users.are_open and not has_credentials and request.path not in _FOR_ALL:
            return unauthorized()
        try:
            b"/".join(request.postpath or ()).decode("utf-8")
        except UnicodeDecodeError:
            return HTTPError.of_json(400, {"errors": {"_": "the path must be UTF-8, percent-encoded"}})
        return None


class Access:
    """Checks access to one cluster; every method raises :class:`HTTPError` for callers without it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def caller(self, request: Request) -> str | None:
        """Return the user whose credentials came with the request, ``None`` without credentials.

        For a stranger (:meth:`UserStore.is_stranger`) this is ``None``, too. Wrong credentials are refused
        with 401, even for resources that need none. If a caller with the right to impersonate names another
        user, that user is returned.
        """
        user = await self._authenticated(request)
        named = request.getHeader(b"cb-on-behalf-of")
        return user if named is None or user is None else self._other(user, named)

    def _other(self, user: str, named: bytes) -> str:
        """Return the user for whom a service makes the request, as ``base64(user:domain)`` says."""
        if not self._cluster.users.rights(user).allow(IMPERSONATE):
            raise forbidden(IMPERSONATE)
        try:
            other, _, domain = b64decode(named.strip(), validate=True).decode("utf-8").rpartition(":")
        except (binascii.Error, ValueError):
            raise unauthorized() from None
        wanted = "admin" if self._cluster.users.is_administrator(other) else "local"
        if other not in self._cluster.users or domain != wanted:
            raise unauthorized()
        return other

    async def _authenticated(self, request: Request) -> str | None:
        user = getattr(request, "certificate_user", None)
        if user is not None:
            return str(user)
        header = request.requestHeaders.getRawHeaders(b"authorization")
        if header is None:
            return None
        scheme, _, encoded = header[0].partition(b" ")
        if scheme.lower() != b"basic" or len(header) != 1:
            raise unauthorized()
        try:
            user, colon, password = b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
        except (binascii.Error, ValueError):
            raise unauthorized() from None
        if not colon or not await self._cluster.users.verify(user, password):
            raise unauthorized()
        return None if self._cluster.users.is_stranger(user) else user

    async def permit(self, request: Request, permission: str) -> str | None:
        """Admit callers with a permission; return the user.

        A caller without credentials, or without a single role, gets 401, as on Couchbase Server.
        """
        user = await self.caller(request)
        self._require(user, permission, permission)
        return user

    async def member(self, request: Request, permission: str = "cluster.pools!read") -> str | None:
        """Admit any user who may use some data, and callers without credentials where the cluster is open;
        return the user."""
        return await self.permit(request, permission)

    async def bucket(self, request: Request, name: str, what: str = "settings!read") -> str | None:
        """Admit callers with a permission on the bucket ``name``, and only then reveal whether it exists
        (404); return the user.

        A cluster that hides nothing (:attr:`UserStore.hide_nothing`) reveals it to anyone.

        :param what: the permission below the bucket.
        """
        dot = "" if what.startswith("!") else "."
        return await self._bucket(request, name, below(what, name), f"cluster.bucket[{name}]{dot}{what}")

    async def collection(
        self, request: Request, name: str, scope: str, collection: str = ALL, *, what: str
    ) -> str | None:
        """Admit callers with a permission on a collection, or on all of a scope, as :meth:`bucket` does."""
        permission = below(what, name, scope, collection)
        text = f"cluster.collection[{name}:{scope}:{collection}].{what}"
        return await self._bucket(request, name, permission, text)

    async def collections(self, request: Request, name: str) -> Callable[[str, str], bool]:
        """Admit callers who may see some collection of a bucket, as :meth:`bucket` does.

        :returns: whether the caller may see a collection, given by its scope and name; ``*`` for all of a
            scope.
        """
        what = "collections!read"
        text = f"cluster.collection[{name}:{ANY}:{ANY}].{what}"
        user = await self._bucket(request, name, below(what, name, ANY, ANY), text)
        rights = self._cluster.rights(user)
        return lambda scope, collection: rights.allow(below(what, name, scope, collection))

    async def _bucket(self, request: Request, name: str, permission: Permission, text: str) -> str | None:
        user = await self.caller(request)
        if name not in self._cluster.buckets and self._cluster.users.hide_nothing:
            raise not_found()
        self._require(user, permission, text)
        if name not in self._cluster.buckets:
            raise not_found()
        wanted = request.args.get(b"bucket_uuid", [None])[0]
        if wanted is not None and wanted != self._cluster.buckets[name].uuid.encode():
            # The client refers to an earlier bucket of this name, which was deleted.
            raise HTTPError(404, b"Bucket uuid does not match the requested.")
        return user

    def may(self, user: str | None, bucket: str, what: str = "settings!read") -> bool:
        """Return whether a user has a permission on a bucket."""
        return self._cluster.rights(user).allow(below(what, bucket))

    def _require(self, user: str | None, permission: Permission | str, text: str) -> None:
        rights = self._cluster.rights(user)
        if not rights.allow(permission):
            raise unauthorized() if user is None or not rights.roles else forbidden(text)


def unauthorized() -> HTTPError:
    """Return the answer to missing or wrong credentials."""
    return HTTPError(401, headers=((b"www-authenticate", REALM),))


def forbidden(permission: str) -> HTTPError:
    """Return the answer to a user who lacks a permission."""
    return HTTPError.of_json(
        403, {"message": "Forbidden. User needs the following permissions", "permissions": [permission]}
    )
