"""Scopes and collections of a bucket: list, create, change, drop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from couchbase.exceptions import CollectionExistsError, ScopeExistsError
from couchbase.manifest import MAX_TTL_SECONDS, CollectionSpec, Manifest, ScopeSpec
from gateway.dialect.bodies import json_object
from gateway.dialect.errors import Refusal, bad_request
from gateway.dialect.numbers import checked_number
from gateway.dialect.paths import COLLECTION, SCOPES
from gateway.dialect.places import NOT_USED, Place, collection_names
from gateway.http.request import Request
from gateway.http.response import Response, json_response
from gateway.http.routing import endpoint
from gateway.openapi.description import JSON, Answer, Body, Example, Given, described
from gateway.openapi.members import body_of
from gateway.openapi.paths import NEW_PLACE
from gateway.openapi.schemas import listed, named, text, thing, whole
from gateway.resources.base import ServiceResource, bucket_name, caller_of
from txcouchbase.scopes import ScopeManager

__all__ = ["Scopes"]

_SCOPE = tuple(f"{scopes}/<scope>" for scopes in SCOPES)
_COLLECTION_BODY = frozenset({"maxTTL"})


_OF_COLLECTION = named(
    "Collection", thing({"name": text(), "uid": text("Hexadecimal."), "maxTTL": whole(-1)}, "name uid maxTTL")
)
_COLLECTIONS = {"collections": listed(_OF_COLLECTION)}
_OF_SCOPE = named(
    "Scope", thing({"name": text(), "uid": text("Hexadecimal."), **_COLLECTIONS}, "name uid collections")
)
_DONE = {200: Answer("It was dropped on all nodes.")}
_DRINKS = Given("PUT", "/v1/buckets/default/scopes/drinks")
_BEERS = Given("PUT", "/v1/buckets/default/scopes/drinks/collections/beers")
_PLACE = {"scope": "drinks", "collection": "beers"}


class _Wanted(NamedTuple):
    """The scope and collection of a request."""

    place: Place
    max_ttl: int | None = None


class Scopes(ServiceResource):
    """The scopes of a bucket, and the collections in them.

    A change is answered when all nodes of the cluster have it.
    """

    @endpoint("list_scopes", "GET", on=SCOPES, operation="scope_list")
    @described(
        "Collections",
        {
            200: Answer(
                "All of them.",
                {JSON: thing({"uid": text("Hexadecimal."), "scopes": listed(_OF_SCOPE)}, "uid scopes")},
            )
        },
        examples=(Example("A bucket's"),),
    )
    def list_scopes(self, request: Request) -> Any:
        """Return all scopes and collections of the bucket."""
        request.query()
        return self.connected(request, self._list, _show_all)

    @endpoint("get_scope", "GET", on=_SCOPE, operation="scope_list")
    @described(
        "Collections", {200: Answer("The scope.", {JSON: _OF_SCOPE})}, examples=(Example("The default one"),)
    )
    def get_scope(self, request: Request) -> Any:
        """Return a scope with its collections."""
        request.query()
        return self.connected(request, self._list, partial(_show_scope, _names(request)))

    @endpoint("put_scope", "PUT", on=_SCOPE, operation="scope_create")
    @described(
        "Collections",
        {200: Answer("The scope, which all nodes have.", {JSON: _OF_SCOPE})},
        path=NEW_PLACE[:1],
        body=Body({JSON: thing({})}, required=False),
        examples=(Example("A new one", path=_PLACE),),
    )
    def put_scope(self, request: Request) -> Any:
        """Create a scope; if it exists, nothing changes."""
        request.query()
        if request.body().strip() not in (b"", b"{}"):
            raise bad_request("the body: creating a scope takes none, or {}")
        return self.connected(request, self._put_scope, _Wanted(_names(request)))

    @endpoint("delete_scope", "DELETE", on=_SCOPE, operation="scope_drop")
    @described(
        "Collections",
        _DONE,
        path=NEW_PLACE[:1],
        examples=(Example("A scope", path=_PLACE, given=(_DRINKS,)),),
    )
    def delete_scope(self, request: Request) -> Any:
        """Drop a scope with its collections and their documents."""
        request.query()
        return self.connected(request, self._delete_scope, _Wanted(_names(request)))

    @endpoint("list_collections", "GET", "/collections", on=_SCOPE, operation="scope_list")
    @described(
        "Collections",
        {200: Answer("All of them.", {JSON: thing(_COLLECTIONS, "collections")})},
        examples=(Example("Collections of the default scope"),),
    )
    def list_collections(self, request: Request) -> Any:
        """Return the collections of a scope."""
        request.query()
        return self.connected(request, self._list, partial(_show_collections, _names(request)))

    @endpoint("get_collection", "GET", on=COLLECTION, operation="scope_list")
    @described(
        "Collections",
        {200: Answer("The collection.", {JSON: _OF_COLLECTION})},
        examples=(Example("The default one"),),
    )
    def get_collection(self, request: Request) -> Any:
        """Return a collection."""
        request.query()
        return self.connected(request, self._list, partial(_show_collection, _names(request)))

    @endpoint("put_collection", "PUT", on=COLLECTION, operation="collection_create")
    @described(
        "Collections",
        {200: Answer("The collection, which all nodes have.", {JSON: _OF_COLLECTION})},
        path=NEW_PLACE[1:],
        body=Body({JSON: body_of("CollectionBody", _COLLECTION_BODY)}, required=False),
        examples=(Example("A new one", body={"maxTTL": 3600}, path=_PLACE, given=(_DRINKS,)),),
    )
    def put_collection(self, request: Request) -> Any:
        """Create a collection; if it exists, change its ``maxTTL`` if the body has one."""
        request.query()
        members = json_object(request, _COLLECTION_BODY, required=False)
        max_ttl = members.get("maxTTL")
        if max_ttl is not None:
            max_ttl = checked_number(max_ttl, "maxTTL", -1, MAX_TTL_SECONDS)
        return self.connected(request, self._put_collection, _Wanted(_names(request), max_ttl))

    @endpoint("delete_collection", "DELETE", on=COLLECTION, operation="collection_drop")
    @described(
        "Collections", _DONE, examples=(Example("A collection", path=_PLACE, given=(_DRINKS, _BEERS)),)
    )
    def delete_collection(self, request: Request) -> Any:
        """Drop a collection with its documents."""
        request.query()
        return self.connected(request, self._delete_collection, _Wanted(_names(request)))

    # ---- acting ----------------------------------------------------------------------------------

    def _list(
        self, connection: Any, request: Request, show: Callable[[Manifest], dict[str, Any]]
    ) -> Deferred[Response]:
        asked: Deferred[Any] = ScopeManager(connection).scopes()
        return asked.addCallback(lambda found: json_response(show(_visible(found, request))))

    def _put_scope(self, connection: Any, request: Request, wanted: _Wanted) -> Deferred[Response]:
        manager = ScopeManager(connection)
        scope, _ = wanted.place

        def there(failure: Any) -> None:
            failure.trap(ScopeExistsError)

        made: Deferred[Any] = manager.scope_create(scope)
        made.addErrback(there)
        return made.addCallback(lambda _: self._list(connection, request, partial(_show_scope, wanted.place)))

    def _delete_scope(self, connection: Any, request: Request, wanted: _Wanted) -> Deferred[Response]:
        dropped: Deferred[Any] = ScopeManager(connection).scope_drop(wanted.place[0])
        return dropped.addCallback(_done)

    def _put_collection(self, connection: Any, request: Request, wanted: _Wanted) -> Deferred[Response]:
        manager = ScopeManager(connection)
        scope, name = wanted.place
        if name is NOT_USED:
            # The name is invalid: this call fails, and reports whether the scope is missing, too.
            return self._delete_collection(connection, request, wanted)

        def there(failure: Any) -> Any:
            failure.trap(CollectionExistsError)
            if wanted.max_ttl is not None:
                return manager.collection_update(name, scope, max_ttl=wanted.max_ttl)
            return None

        made: Deferred[Any] = manager.collection_create(name, scope, wanted.max_ttl)
        made.addErrback(there)
        return made.addCallback(
            lambda _: self._list(connection, request, partial(_show_collection, wanted.place))
        )

    def _delete_collection(self, connection: Any, request: Request, wanted: _Wanted) -> Deferred[Response]:
        scope, name = wanted.place
        dropped: Deferred[Any] = ScopeManager(connection).collection_drop(name, scope)
        return dropped.addCallback(_done)


def _names(request: Request) -> Place:
    return collection_names({"collection": b"_default", **request.parameters})


def _done(_: object) -> Response:
    return Response(200)


# ---- showing -------------------------------------------------------------------------------------


def _visible(found: Manifest, request: Request) -> Manifest:
    """Return a manifest without the scopes and collections that the caller may not know of."""
    caller = caller_of(request)
    bucket = bucket_name(request)
    if caller.shows(bucket, "*", "*"):
        return found
    scopes = [
        scope._replace(
            collections=tuple(one for one in scope.collections if caller.shows(bucket, scope.name, one.name))
        )
        for scope in found.scopes
        if caller.shows(bucket, scope.name)
    ]
    return found._replace(scopes=tuple(scopes))


def _show_all(found: Manifest) -> dict[str, Any]:
    return {"uid": f"{found.uid:x}", "scopes": [_scope(scope) for scope in _sorted(found.scopes)]}


def _show_scope(place: Place, found: Manifest) -> dict[str, Any]:
    return _scope(_find_scope(place, found))


def _show_collections(place: Place, found: Manifest) -> dict[str, Any]:
    return {"collections": _scope(_find_scope(place, found))["collections"]}


def _show_collection(place: Place, found: Manifest) -> dict[str, Any]:
    scope = _find_scope(place, found)
    collection = next((one for one in scope.collections if one.name == place[1]), None)
    if collection is None:
        raise Refusal("CollectionNotFound")
    return _collection(collection)


def _find_scope(place: Place, found: Manifest) -> ScopeSpec:
    scope = found.scope(place[0])
    if scope is None:
        raise Refusal("ScopeNotFound")
    return scope


def _scope(scope: ScopeSpec) -> dict[str, Any]:
    collections = [_collection(collection) for collection in _sorted(scope.collections)]
    return {"name": scope.name, "uid": f"{scope.uid:x}", "collections": collections}


def _collection(collection: CollectionSpec) -> dict[str, Any]:
    return {"name": collection.name, "uid": f"{collection.uid:x}", "maxTTL": collection.max_ttl}


def _sorted(named: Any) -> list[Any]:
    return sorted(named, key=lambda one: str(one.name))
