"""The names of scopes and collections, in paths and in the members of a batch's lines."""

from __future__ import annotations

import re
from collections.abc import Mapping

from couchbase.protocol.constants import MAX_COLLECTION_NAME
from couchbase.protocol.keyspace import DEFAULT_NAME
from gateway.http.known import Known
from gateway.http.refusal import Refusal

__all__ = ["DEFAULT_PLACE", "Place", "collection_names", "place_of"]

Place = tuple[str, str]
"""Names of a scope, and of a collection in it."""

DEFAULT_PLACE: Place = (DEFAULT_NAME, DEFAULT_NAME)

_NAME = re.compile(f"[A-Za-z0-9_%-]{{1,{MAX_COLLECTION_NAME}}}")

# Names in paths that are known to be well-formed.
_known: Known[tuple[bytes, bytes], Place] = Known(1024)


def place_of(scope: str, collection: str) -> Place:
    """Return the names of a scope and a collection: for the default collection :data:`DEFAULT_PLACE` itself.

    :raises Refusal: 404 ScopeNotFound or CollectionNotFound if no scope, or collection, can have such a name.
    """
    if not _NAME.fullmatch(scope):
        raise Refusal("ScopeNotFound", "No scope has such a name.")
    if not _NAME.fullmatch(collection):
        raise Refusal("CollectionNotFound", "No collection has such a name.")
    place = scope, collection
    return DEFAULT_PLACE if place == DEFAULT_PLACE else place


def collection_names(parameters: Mapping[str, bytes]) -> Place:
    """Return the names of scope and collection in a path.

    :raises Refusal: 404, as of :func:`place_of`.
    """
    written = parameters["scope"], parameters["collection"]
    known = _known.get(written)
    if known is None:
        # Invalid UTF-8 is an invalid name.
        scope, collection = (name.decode("utf-8", "replace") for name in written)
        known = _known.learn(written, place_of(scope, collection))
    return known
