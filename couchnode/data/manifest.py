"""The scopes and collections of a bucket: one immutable value, and the changes that make the next one.

The module is part of the data package, because both packages use it: the cluster stores and changes the
manifest, and a bucket's data on each node resolves names and ids with it.

Error texts are the server's (management-rest reference, section 7.2), because clients recognise them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from couchbase.protocol.leb128 import encode_leb128

DEFAULT_NAME = "_default"
"""The name of the default scope, and of the default collection in it, which every new bucket has."""

DEFAULT_ID = 0
FIRST_ID = 8
"""The first id of a scope or a collection that is created; 1 to 7 are reserved."""

MAX_NAME_CHARACTERS = 251
MAX_SCOPES = 1200
"""Most scopes of all buckets together."""

MAX_COLLECTIONS = 1200
"""Most collections of all buckets together."""

MAX_TTL_SECONDS = 2**31 - 1
NEVER_EXPIRES = -1
"""``max_ttl`` of a collection whose documents keep their own expiry and ignore the bucket's limit."""

_CHARACTERS = re.compile(r"[A-Za-z0-9_%-]*\Z")
_BAD_STARTS = ("_", "%")


class ManifestError(ValueError):
    """A change of scopes or collections is refused.

    :ivar errors: field of the request (``_``: none in particular) -> what is wrong, in the form of the REST
        interface's answer.
    """

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(errors.values()))
        self.errors = dict(errors)


class NoSuchScope(ManifestError):
    """There is no scope of that name."""

    def __init__(self, scope: str) -> None:
        super().__init__({"_": f'Scope with name "{scope}" is not found'})


class NoSuchCollection(ManifestError):
    """There is no collection of that name in that scope."""

    def __init__(self, scope: str, collection: str) -> None:
        super().__init__({"_": f'Collection with name "{collection}" in scope "{scope}" is not found'})


class Collection(NamedTuple):
    """One collection.

    :ivar id: unique among all collections that the bucket has ever had.
    :ivar max_ttl: longest lifetime of a document in seconds; 0: the bucket's limit; or
        :data:`NEVER_EXPIRES`.
    :ivar history: whether older versions of documents should be kept. Stored and returned; has no effect.
    """

    id: int
    name: str
    scope_id: int
    scope: str
    max_ttl: int = 0
    history: bool = False

    @property
    def prefix(self) -> bytes:
        """The prefix of its documents' held keys (:mod:`couchnode.data.keys`)."""
        return encode_leb128(self.id)


class Scope(NamedTuple):
    """One scope, with its collections by name, the oldest first."""

    id: int
    name: str
    collections: Mapping[str, Collection]


class WantedCollection(NamedTuple):
    """A collection requested for a new manifest.

    :ivar max_ttl: as :attr:`Collection.max_ttl`; ``None``: unchanged, or 0 for a new collection.
    :ivar history: as :attr:`Collection.history`; ``None``: unchanged, or off for a new collection.
    """

    name: str
    max_ttl: int | None = None
    history: bool | None = None


_FIRST_SCOPES = {
    DEFAULT_NAME: Scope(
        DEFAULT_ID,
        DEFAULT_NAME,
        {DEFAULT_NAME: Collection(DEFAULT_ID, DEFAULT_NAME, DEFAULT_ID, DEFAULT_NAME)},
    )
}


class Manifest:
    """The scopes and collections of one bucket, at one moment.

    :param uid: number of changes so far; each changed manifest has a greater one.
    :param next_ids: the ids of the next scope and the next collection. Ids are never used again: the
        documents of a dropped collection may still be on disk.
    :param scopes: by name, the oldest first.
    """

    def __init__(
        self,
        uid: int = 0,
        next_ids: tuple[int, int] = (FIRST_ID, FIRST_ID),
        scopes: Mapping[str, Scope] | None = None,
    ) -> None:
        self.uid = uid
        self.next_ids = next_ids
        self.scopes: Mapping[str, Scope] = _FIRST_SCOPES if scopes is None else scopes

    @cached_property
    def by_id(self) -> dict[int, Collection]:
        """Every collection, by its id."""
        return {one.id: one for scope in self.scopes.values() for one in scope.collections.values()}

    def scope(self, name: str) -> Scope:
        """Return the scope of that name.

        :raises NoSuchScope: there is none.
        """
        try:
            return self.scopes[name]
        except KeyError:
            raise NoSuchScope(name) from None

    def collection(self, scope: str, name: str) -> Collection:
        """Return the collection of that name in that scope.

        :raises NoSuchScope, NoSuchCollection: there is none.
        """
        try:
            return self.scope(scope).collections[name]
        except KeyError:
            raise NoSuchCollection(scope, name) from None

    def gone(self, newer: Manifest) -> list[tuple[str, str | None]]:
        """Return what a newer manifest lacks: (scope, ``None``) for a dropped scope, (scope, collection) for
        a collection dropped from a remaining scope."""
        scopes = {scope.id for scope in newer.scopes.values()}
        return [(scope.name, None) for scope in self.scopes.values() if scope.id not in scopes] + [
            (one.scope, one.name)
            for one in self.by_id.values()
            if one.id not in newer.by_id and one.scope_id in scopes
        ]

    # ---- changes ---------------------------------------------------------------------------------
    # Each returns the next manifest, or this one if nothing changes.

    def with_scope(self, name: str) -> Manifest:
        """Create a scope.

        :raises ManifestError: the name is invalid, or taken.
        """
        check_name(name)
        if name in self.scopes:
            raise ManifestError({"_": f'Scope with name "{name}" already exists'})
        scope_id, collection_id = self.next_ids
        scopes = {**self.scopes, name: Scope(scope_id, name, {})}
        return Manifest(self.uid + 1, (scope_id + 1, collection_id), scopes)

    def without_scope(self, name: str) -> Manifest:
        """Drop a scope with its collections.

        :raises NoSuchScope: there is none of that name.
        :raises ManifestError: it is the default scope.
        """
        if name == DEFAULT_NAME:
            raise ManifestError({"_": "Deleting _default scope is not allowed"})
        self.scope(name)
        left = {other: scope for other, scope in self.scopes.items() if other != name}
        return Manifest(self.uid + 1, self.next_ids, left)

    def with_collection(self, scope: str, name: str, max_ttl: int = 0, *, history: bool = False) -> Manifest:
        """Create a collection.

        :raises NoSuchScope: there is no such scope.
        :raises ManifestError: the name or ``max_ttl`` is invalid, or the name is taken.
        """
        check_name(name)
        check_max_ttl(max_ttl)
        parent = self.scope(scope)
        if name in parent.collections:
            raise ManifestError({"_": f'Collection with name "{name}" in scope "{scope}" already exists'})
        scope_id, collection_id = self.next_ids
        made = Collection(collection_id, name, parent.id, scope, max_ttl, history)
        changed = parent._replace(collections={**parent.collections, name: made})
        next_ids = scope_id, collection_id + 1
        return Manifest(self.uid + 1, next_ids, {**self.scopes, scope: changed})

    def with_settings(
        self, scope: str, name: str, max_ttl: int | None = None, history: bool | None = None
    ) -> Manifest:
        """Change the settings of a collection; existing documents keep their expiry.

        :param max_ttl, history: ``None`` to leave them as they are.

        :raises NoSuchScope, NoSuchCollection: there is no such collection.
        :raises ManifestError: ``max_ttl`` is invalid.
        """
        current = self.collection(scope, name)
        wanted = current._replace(
            max_ttl=current.max_ttl if max_ttl is None else max_ttl,
            history=current.history if history is None else history,
        )
        check_max_ttl(wanted.max_ttl)
        if wanted == current:
            return self
        parent = self.scopes[scope]
        return self._with_collections(parent, {**parent.collections, name: wanted})

    def without_collection(self, scope: str, name: str) -> Manifest:
        """Drop a collection. The default collection can be dropped too, and never created again.

        :raises NoSuchScope, NoSuchCollection: there is no such collection.
        """
        self.collection(scope, name)
        parent = self.scopes[scope]
        left = {other: one for other, one in parent.collections.items() if other != name}
        return self._with_collections(parent, left)

    def replaced(self, wanted: Mapping[str, Iterable[WantedCollection]]) -> Manifest:
        """Replace all scopes and collections by these; existing ones keep their ids.

        :param wanted: by the name of the scope.
        :raises ManifestError: a name or ``max_ttl`` is invalid, a name occurs twice, the default scope is
            missing, or the default collection is requested after it was dropped.
        """
        if DEFAULT_NAME not in wanted:
            raise ManifestError({"_": "Deleting _default scope is not allowed"})
        changed = self
        for name, collections in wanted.items():
            if name not in changed.scopes:
                changed = changed.with_scope(name)
            changed = changed._with_all(name, list(collections))
        kept = {name: scope for name, scope in changed.scopes.items() if name in wanted}
        if changed is self and len(kept) == len(self.scopes):
            return self
        return Manifest(self.uid + 1, changed.next_ids, kept)

    def _with_all(self, scope: str, wanted: list[WantedCollection]) -> Manifest:
        changed, names = self, {one.name for one in wanted}
        if len(names) < len(wanted):
            raise ManifestError({"scopes": "Contains duplicate name"})
        for name in self.scopes[scope].collections:
            if name not in names:
                changed = changed.without_collection(scope, name)
        for name, max_ttl, history in wanted:
            if name in changed.scopes[scope].collections:
                changed = changed.with_settings(scope, name, max_ttl, history)
            elif (scope, name) == (DEFAULT_NAME, DEFAULT_NAME):
                text = f'Cannot create {name} collection in scope "{scope}". '
                raise ManifestError({"_": f"{text}Creation of {name} collection is not allowed."})
            else:
                changed = changed.with_collection(scope, name, max_ttl or 0, history=bool(history))
        return changed

    def _with_collections(self, scope: Scope, collections: Mapping[str, Collection]) -> Manifest:
        changed = scope._replace(collections=collections)
        return Manifest(self.uid + 1, self.next_ids, {**self.scopes, scope.name: changed})

    # ---- as documents ----------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Return what :func:`restored_manifest` takes."""
        scopes = [
            {
                "id": scope.id,
                "name": scope.name,
                "collections": [
                    {"id": one.id, "name": one.name, "maxTTL": one.max_ttl, "history": one.history}
                    for one in scope.collections.values()
                ],
            }
            for scope in self.scopes.values()
        ]
        return {"uid": self.uid, "nextIds": self.next_ids, "scopes": scopes}

    def document(self) -> dict[str, Any]:
        """Return the manifest in the form of the REST interface: the newest first, uids in hex."""
        return self._as_document(lambda one: {"maxTTL": one.max_ttl, "history": one.history})

    def kv_document(self) -> dict[str, Any]:
        """Return the manifest in the form of the key-value port: ``maxTTL`` is absent if the bucket's limit
        applies, and 0 if documents never have to expire."""
        return self._as_document(lambda one: {"maxTTL": max(one.max_ttl, 0)} if one.max_ttl else {})

    def _as_document(self, settings: Any) -> dict[str, Any]:
        scopes = [
            {
                "name": scope.name,
                "uid": f"{scope.id:x}",
                "collections": [
                    {"name": one.name, "uid": f"{one.id:x}", **settings(one)}
                    for one in reversed(list(scope.collections.values()))
                ],
            }
            for scope in reversed(list(self.scopes.values()))
        ]
        return {"uid": f"{self.uid:x}", "scopes": scopes}


def restored_manifest(data: dict[str, Any]) -> Manifest:
    """Return the manifest that :meth:`Manifest.dump` described.

    :raises KeyError, TypeError, ValueError, AttributeError: the data has another shape.
    """
    scopes = {}
    for scope in data["scopes"]:
        collections = {
            str(one["name"]): Collection(
                int(one["id"]),
                str(one["name"]),
                int(scope["id"]),
                str(scope["name"]),
                int(one["maxTTL"]),
                bool(one.get("history", False)),
            )
            for one in scope["collections"]
        }
        scopes[str(scope["name"])] = Scope(int(scope["id"]), str(scope["name"]), collections)
    scope_id, collection_id = data["nextIds"]
    return Manifest(int(data["uid"]), (int(scope_id), int(collection_id)), scopes)


def name_fault(name: str) -> str | None:
    """Return what is wrong with the name of a new scope or collection."""
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        return f"Length ({len(name)}) must be in the range from 1 to {MAX_NAME_CHARACTERS} (inclusive)"
    if name.startswith(_BAD_STARTS):
        return "First character must not be _ or %"
    if not _CHARACTERS.match(name):
        return "Can only contain characters A-Z, a-z, 0-9 and the following symbols _ - %"
    return None


def check_name(name: str) -> None:
    """Check the name of a new scope or collection.

    :raises ManifestError: the name is invalid.
    """
    fault = name_fault(name)
    if fault is not None:
        raise ManifestError({"name": fault})


def check_max_ttl(max_ttl: int) -> None:
    """Check the ``max_ttl`` of a collection.

    :raises ManifestError: the value is out of range.
    """
    if not NEVER_EXPIRES <= max_ttl <= MAX_TTL_SECONDS:
        text = f"The value must be in range from {NEVER_EXPIRES} to {MAX_TTL_SECONDS}"
        raise ManifestError({"maxTTL": text})


def check_total(manifests: Iterable[Manifest]) -> None:
    """Check that a cluster may hold all of these.

    :raises ManifestError: there are too many scopes or collections.
    """
    scopes = [scope for manifest in manifests for scope in manifest.scopes.values()]
    check_numbers(len(scopes), sum(len(scope.collections) for scope in scopes))


def check_numbers(scopes: int, collections: int) -> None:
    """Check the numbers of scopes and collections.

    :raises ManifestError: there are too many.
    """
    if scopes > MAX_SCOPES:
        raise ManifestError({"_": "Maximum number of scopes has been reached"})
    if collections > MAX_COLLECTIONS:
        raise ManifestError({"_": "Maximum number of collections has been reached"})
