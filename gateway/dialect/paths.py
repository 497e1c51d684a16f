"""Where resources lie: the paths of the Data API."""

from __future__ import annotations

from gateway.http.refusal import Refusal, no_route

__all__ = ["BUCKET", "DOCUMENT", "DOCUMENTS", "missing_route"]

_VERSIONS = ("/v1", "/v1.alpha")

BUCKET = tuple(f"{version}/buckets/<bucket>" for version in _VERSIONS)
DOCUMENTS = tuple(
    f"{version}/buckets/<bucket>{collection}/documents"
    for version in _VERSIONS
    for collection in ("", "/scopes/<scope>/collections/<collection>")
)
DOCUMENT = tuple(f"{documents}/<key>" for documents in DOCUMENTS)


def missing_route(path: bytes) -> Refusal:
    """Return the 404 for a path that no route has."""
    if path.endswith(b"/documents/") or b"/documents//" in path:
        return Refusal("RouteNotFound", "The document's key is empty; keys have 1 to 250 bytes.", resource="")
    return no_route(path)
