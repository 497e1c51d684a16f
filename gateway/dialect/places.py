"""The names of scopes and collections, in paths and in the members of a batch's lines."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from couchbase.protocol.constants import MAX_COLLECTION_NAME
from couchbase.protocol.keyspace import DEFAULT_NAME
from gateway.http.known import Known
from gateway.http.refusal import Refusal

__all__ = ["DEFAULT_PLACE", "NOT_USED", "Place", "collection_names", "place_of"]

Place = tuple[str, str]
"""Names of a scope, and of a collection in it."""

DEFAULT_PLACE: Place = (DEFAULT_NAME, DEFAULT_NAME)

_NAME = re.compile(f"[A-Za-z0-9_%-]{{1,{MAX_COLLECTION_NAME}}}")

NOT_USED = f"no-collection-has-such-a-name-{secrets.token_hex(8)}"
"""A name that no collection has; errors may show it. Nobody can guess it to create such a collection."""

# A cache of well-formed names in paths.
_known: Known[tuple[bytes, bytes], Place] = Known(1024)


def place_of(scope: str, collection: str) -> Place:
    """Return the names of a scope and a collection: for the default collection :data:`DEFAULT_PLACE` itself.

    A collection name that is not valid is replaced by a name that no collection has, since only the cluster
    knows whether the scope is missing, too.

    :raises Refusal: 404 ScopeNotFound if the scope's name is not valid; CollectionNotFound if the
        collection's name is not valid, in the default scope, which every bucket has.
    """
    if not _NAME.fullmatch(scope):
        raise Refusal("ScopeNotFound", "No scope has such a name.")
    if not _NAME.fullmatch(collection):
        if scope == DEFAULT_NAME:
            raise Refusal("CollectionNotFound", "No collection has such a name.")
        collection = NOT_USED
    place = scope, collection
    return DEFAULT_PLACE if place == DEFAULT_PLACE else place


def collection_names(parameters: Mapping[str, bytes]) -> Place:
    """Return the names of scope and collection in a path.

    :raises Refusal: 404, like :func:`place_of`.
    """
    written = parameters["scope"], parameters["collection"]
    known = _known.get(written)
    if known is None:
        # Invalid UTF-8 is an invalid name.
        scope, collection = (name.decode("utf-8", "replace") for name in written)
        known = place_of(scope, collection)
        if len(written[1]) <= MAX_COLLECTION_NAME:
            # A longer collection name is NOT_USED; the scope's name is not longer than a name can be.
            _known.learn(written, known)
    return known
