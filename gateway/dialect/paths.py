"""The paths of resources, as in the Data API."""

from __future__ import annotations

import re

from gateway.http.refusal import FixedRefusal, Refusal, no_route

__all__ = ["BUCKET", "COLLECTION", "DOCUMENT", "DOCUMENTS", "SCOPES", "missing_route"]

_VERSIONS = ("/v1", "/v1.alpha")

BUCKET = tuple(f"{version}/buckets/<bucket>" for version in _VERSIONS)
SCOPES = tuple(f"{bucket}/scopes" for bucket in BUCKET)
COLLECTION = tuple(f"{scopes}/<scope>/collections/<collection>" for scopes in SCOPES)
DOCUMENTS = tuple(
    f"{version}/buckets/<bucket>{collection}/documents"
    for version in _VERSIONS
    for collection in ("", "/scopes/<scope>/collections/<collection>")
)
DOCUMENT = tuple(f"{documents}/<key>" for documents in DOCUMENTS)


_OF_VIEWS = re.compile(rb"/scopes/[^/]+/collections/[^/]+/(designs|views)(/|\Z)")


_NO_KEY = FixedRefusal("RouteNotFound", "The document's key is empty; keys have 1 to 250 bytes.", resource="")
_NO_VIEWS = FixedRefusal(
    "RouteNotFound",
    "Views index the default collection only: their paths name no scope and no collection.",
    resource="",
)
_NO_ROUTE = FixedRefusal.of(no_route(b""))


def missing_route(path: bytes) -> Refusal:
    """Return the 404 answer for a path without a route: a :class:`gateway.http.refusal.FixedRefusal`."""
    if path.endswith(b"/documents/") or b"/documents//" in path:
        return _NO_KEY
    if b"/scopes/" in path and _OF_VIEWS.search(path):
        return _NO_VIEWS
    return _NO_ROUTE
