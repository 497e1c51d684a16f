"""Who is asking over HTTP, and what for: Basic authentication and the three rights there are."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any

from twisted.web.server import Request

from couchnode.cluster import Cluster
from couchnode.config import encode

REALM = b'Basic realm="Couchbase Server Admin / REST"'


class Refusal(Exception):
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
    def of_json(cls, status: int, document: Any) -> Refusal:
        """Make a refusal with a JSON body."""
        return cls(status, encode(document), b"application/json")


def not_found() -> Refusal:
    """Return the answer for paths and buckets that do not exist."""
    return Refusal(404, b"Requested resource not found.")


class Access:
    """Decides for one cluster; every method raises :class:`Refusal` for those it does not let in."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def caller(self, request: Request) -> str | None:
        """Return the user whose credentials came with the request, ``None`` if none came.

        Wrong credentials are refused with 401, even for what needs none.
        """
        header = request.requestHeaders.getRawHeaders(b"authorization")
        if header is None:
            return None
        scheme, _, encoded = header[0].partition(b" ")
        if scheme.lower() != b"basic" or len(header) != 1:
            raise _unauthorized()
        try:
            user, colon, password = b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
        except (binascii.Error, ValueError):
            raise _unauthorized() from None
        if not colon or not await self._cluster.users.verify(user, password):
            raise _unauthorized()
        return user

    async def administrator(self, request: Request) -> None:
        """Let administrators in."""
        user = await self.caller(request)
        if user is None:
            raise _unauthorized()
        if not self._cluster.users.is_admin(user):
            raise _forbidden("cluster.admin!write")

    async def member(self, request: Request) -> str | None:
        """Let in anybody with credentials, and those without if a bucket is open to them; return the user."""
        user = await self.caller(request)
        if user is None and self._cluster.unauthenticated_bucket is None:
            raise _unauthorized()
        return user

    async def bucket(self, request: Request, name: str) -> None:
        """Let in who may use the bucket ``name``, and only then say whether it exists (404)."""
        user = await self.caller(request)
        if not self._cluster.may_use(user, name):
            raise _unauthorized() if user is None else _forbidden(f"cluster.bucket[{name}].settings!read")
        if name not in self._cluster.buckets:
            raise not_found()
        wanted = request.args.get(b"bucket_uuid", [None])[0]
        if wanted is not None and wanted != self._cluster.buckets[name].uuid.encode():
            # The client means a bucket that was deleted, and made again since.
            raise Refusal(404, b"Bucket uuid does not match the requested.")


def _unauthorized() -> Refusal:
    return Refusal(401, headers=((b"www-authenticate", REALM),))


def _forbidden(permission: str) -> Refusal:
    return Refusal.of_json(
        403,
        {"message": "Forbidden. User needs one of the following permissions", "permissions": [permission]},
    )
