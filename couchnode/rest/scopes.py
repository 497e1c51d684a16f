"""The scopes and collections of buckets over HTTP."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.server import Request

from couchnode.access.permissions import ALL
from couchnode.cluster.strictjson import read_json
from couchnode.data.keys import document_key
from couchnode.data.manifest import (
    MAX_TTL_SECONDS,
    NEVER_EXPIRES,
    Manifest,
    ManifestError,
    NoSuchCollection,
    NoSuchScope,
    WantedCollection,
    check_numbers,
    name_fault,
)
from couchnode.data.randomitem import random_item
from couchnode.rest.access import HTTPError
from couchnode.rest.answers import json_answer, plain_answer, read_form
from couchnode.rest.membership import POOL, Membership

SCOPES = f"{POOL}/buckets/<bucket>/scopes"
COLLECTIONS = f"{SCOPES}/<scope>/collections"

MAX_WAIT_MS = 300_000
DEFAULT_WAIT_MS = 30_000

_NO_HISTORY = "Not allowed on this type of bucket"
_UID = re.compile(r"[0-9A-Fa-f]{1,16}\Z")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}\Z")


class Scopes(Membership):
    """The resources of one node about scopes and collections."""

    app = Membership.app

    @app.route(SCOPES, methods=["GET"])
    async def manifest(self, request: Request, bucket: str) -> bytes:
        """Give the scopes and collections of a bucket that the caller may see."""
        shows = await self._access.collections(request, bucket)
        document = self._cluster.bucket(bucket).manifest.document()
        for scope in document["scopes"]:
            name = scope["name"]
            scope["collections"] = [one for one in scope["collections"] if shows(name, one["name"])]
        document["scopes"] = [
            one for one in document["scopes"] if one["collections"] or shows(one["name"], ALL)
        ]
        return json_answer(request, document)

    @app.route(SCOPES, methods=["POST"])
    async def create_scope(self, request: Request, bucket: str) -> bytes:
        """Create a scope."""
        await self._access.bucket(request, bucket, "collections!write")
        form = read_form(request)
        errors = _unsupported(form, "name")
        name = _read_name(form, errors)
        _raise(errors)
        return await self._change(request, bucket, lambda current: current.with_scope(name))

    @app.route(SCOPES, methods=["PUT"])
    async def replace_scopes(self, request: Request, bucket: str) -> bytes:
        """Replace all scopes and collections with those of a JSON document."""
        await self._access.bucket(request, bucket, "collections!write")
        assert request.content is not None
        wanted = read_manifest(request.content.read(), with_history=self._keeps_history(bucket))
        known = (request.args or {}).get(b"validOnUid", [b""])[0].decode("utf-8")

        def change(current: Manifest) -> Manifest:
            if known and _uid(known, "Invalid validOnUid") != current.uid:
                raise ManifestError({"_": "validOnUid doesn't match the current manifest Uid"})
            return current.replaced(wanted)

        return await self._change(request, bucket, change)

    @app.route(f"{SCOPES}/<scope>", methods=["DELETE"])
    async def drop_scope(self, request: Request, bucket: str, scope: str) -> bytes:
        """Drop a scope with its collections."""
        await self._access.collection(request, bucket, scope, what="collections!write")
        return await self._change(request, bucket, lambda current: current.without_scope(scope))

    @app.route(COLLECTIONS, methods=["POST"])
    async def create_collection(self, request: Request, bucket: str, scope: str) -> bytes:
        """Create a collection."""
        await self._access.collection(request, bucket, scope, what="collections!write")
        form = read_form(request)
        errors = _unsupported(form, "name", "maxTTL", "history")
        name = _read_name(form, errors)
        max_ttl = _read_max_ttl(form, errors) or 0
        history = self._read_history(bucket, form, errors)
        if history is None:
            history = self._keeps_history(bucket) and self._cluster.bucket(bucket).definition.history_default
        _raise(errors)

        def change(current: Manifest) -> Manifest:
            return current.with_collection(scope, name, max_ttl, history=history)

        return await self._change(request, bucket, change)

    @app.route(f"{COLLECTIONS}/<collection>", methods=["PATCH"])
    async def change_collection(self, request: Request, bucket: str, scope: str, collection: str) -> bytes:
        """Change the settings of a collection."""
        await self._access.collection(request, bucket, scope, what="collections!write")
        form = read_form(request)
        errors = _unsupported(form, "maxTTL", "history")
        max_ttl = _read_max_ttl(form, errors)
        history = self._read_history(bucket, form, errors)
        _raise(errors)
        return await self._change(
            request, bucket, lambda current: current.with_settings(scope, collection, max_ttl, history)
        )

    @app.route(f"{COLLECTIONS}/<collection>", methods=["DELETE"])
    async def drop_collection(self, request: Request, bucket: str, scope: str, collection: str) -> bytes:
        """Drop a collection with its documents."""
        await self._access.collection(request, bucket, scope, what="collections!write")
        return await self._change(
            request, bucket, lambda current: current.without_collection(scope, collection)
        )

    @app.route(f"{COLLECTIONS}/<collection>/localRandomKey", methods=["GET"])
    async def random_key_of_collection(
        self, request: Request, bucket: str, scope: str, collection: str
    ) -> bytes:
        """Give the key of some document of a collection on this node."""
        await self._access.collection(request, bucket, scope, collection, what="data.docs!read")
        found = self._cluster.bucket(bucket).manifest.collection(scope, collection)
        item = random_item(self._node.buckets[bucket], found.prefix)
        if item is None:
            raise HTTPError.of_json(404, {"ok": False, "error": "fallback_to_all_docs"})
        return json_answer(request, {"ok": True, "key": document_key(item.key).decode("utf-8", "replace")})

    @app.route(f"{SCOPES}/@ensureManifest", methods=["POST"])
    @app.route(f"{SCOPES}/@ensureManifest/<uid>", methods=["POST"])
    async def ensure_manifest(self, request: Request, bucket: str, uid: str | None = None) -> bytes:
        """Answer when every node has at least that manifest; without a number, the newest one."""
        await self._access.bucket(request, bucket, "collections!read")
        form = read_form(request)
        errors = _unsupported(form, "timeout", "nodes")
        milliseconds = _read_integer(form, "timeout", (0, MAX_WAIT_MS), errors)
        names = [name for name in form.get("nodes", "").split(",") if name]
        # A node that listens on all interfaces may be named by any host.
        addresses = [node.address for node in self._cluster.nodes]
        ports = {str(port) for one in addresses for port in (one.rest_port, one.rest_tls_port)}
        strangers = [name for name in names if name.rpartition(":")[2] not in ports]
        if strangers:
            errors["nodes"] = f"not in this cluster: {', '.join(strangers)}"
        _raise(errors)
        if uid is None:
            uid = f"{self._cluster.bucket(bucket).manifest.uid:x}"
        if not _UID.match(uid):
            raise HTTPError(400, b"Invalid UID")
        seconds = (DEFAULT_WAIT_MS if milliseconds is None else milliseconds) / 1000
        await self._manifest_at(bucket, int(uid, 16), seconds)
        return plain_answer(request, b"")

    @app.handle_errors(ManifestError)
    def bad_manifest(self, request: IRequest, failure: Failure) -> bytes:
        """Answer why a change of scopes or collections is refused."""
        fault = failure.value
        assert isinstance(fault, ManifestError)
        status = 404 if isinstance(fault, (NoSuchScope, NoSuchCollection)) else 400
        return json_answer(request, {"errors": fault.errors}, status)

    # ---- inside ----------------------------------------------------------------------------------

    def _keeps_history(self, bucket: str) -> bool:
        """Return whether a bucket can be set to keep history; only those of magma can."""
        return self._cluster.bucket(bucket).definition.storage_backend == "magma"

    def _read_history(self, bucket: str, form: dict[str, str], errors: dict[str, str]) -> bool | None:
        text = form.get("history")
        if text not in (None, "true", "false"):
            errors["history"] = "The value must be one of the following: [true,false]"
        elif text == "true" and not self._keeps_history(bucket):
            errors["history"] = _NO_HISTORY
        return None if text is None else text == "true"

    async def _change(self, request: Request, bucket: str, change: Any) -> bytes:
        manifest = await self._cluster.change_manifest(bucket, change)
        return json_answer(request, {"uid": f"{manifest.uid:x}"})

    def _manifest_at(self, bucket: str, uid: int, seconds: float) -> Deferred[None]:
        """Fire when the manifest of a bucket has at least that uid; all nodes get it at the same time."""
        cluster = self._cluster
        reached: Deferred[None] = Deferred(lambda _: stop())

        def look(changed: str) -> None:
            if changed != bucket:
                return
            if bucket not in cluster.buckets:
                stop()
                reached.errback(HTTPError(404, b"bucket no longer exists"))
            elif cluster.buckets[bucket].manifest.uid >= uid:
                stop()
                reached.callback(None)

        def give_up() -> None:
            stop()
            reached.errback(HTTPError(504, b"timeout"))

        def stop() -> None:
            if timer.active():
                timer.cancel()
            cluster.on_config_change.remove(look)

        timer: IDelayedCall = cluster.clock.callLater(seconds, give_up)
        cluster.on_config_change.append(look)
        look(bucket)
        return reached


def read_manifest(text: bytes, *, with_history: bool = False) -> dict[str, list[WantedCollection]]:
    """Read the body that replaces all scopes and collections.

    :param with_history: whether collections may keep history.
    :raises ManifestError: the body has another form; the text names the place.
    """
    try:
        document = read_json(text)
    except ValueError as fault:
        raise ManifestError({"_": f"the body must be JSON: {fault}"}) from None
    scopes = document.get("scopes") if isinstance(document, dict) else None
    if not isinstance(scopes, list):
        raise ManifestError({"scopes": "The value must be a list of scopes"})
    wanted: dict[str, list[WantedCollection]] = {}
    count = 0
    for scope in scopes:
        name, members = _members(scope, "scopes", ("name", "collections"))
        collections = members.get("collections", [])
        if not isinstance(collections, list):
            raise ManifestError({"scopes": f"the collections of {name} must be a list"})
        if name in wanted:
            raise ManifestError({"scopes": "Contains duplicate name"})
        count += len(collections)
        # Each change copies its scope, so too many of them are refused before the first is made.
        check_numbers(len(scopes), count)
        wanted[name] = [_wanted_collection(one, with_history) for one in collections]
    return wanted


def _wanted_collection(document: Any, with_history: bool) -> WantedCollection:
    name, members = _members(document, "collections", ("name", "maxTTL", "history"))
    max_ttl = members.get("maxTTL")
    if max_ttl is not None and (isinstance(max_ttl, bool) or not isinstance(max_ttl, int)):
        raise ManifestError({"maxTTL": "The value must be an integer"})
    history = members.get("history")
    if history is not None and not isinstance(history, bool):
        raise ManifestError({"history": "The value must be one of the following: [true,false]"})
    if history and not with_history:
        raise ManifestError({"history": _NO_HISTORY})
    return WantedCollection(name, max_ttl, history)


def _members(document: Any, what: str, known: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Return the name and the members of one scope or collection of a document; ``uid`` is ignored, since
    clients may send back what they have read."""
    if not isinstance(document, dict) or not isinstance(document.get("name"), str):
        raise ManifestError({what: "each must be an object with a name"})
    strange = [name for name in document if name not in (*known, "uid")]
    if strange:
        raise ManifestError({strange[0]: "Unsupported key"})
    return document["name"], document


def _uid(text: str, fault: str) -> int:
    if not _UID.match(text):
        raise ManifestError({"_": fault})
    return int(text, 16)


def _unsupported(form: dict[str, str], *known: str) -> dict[str, str]:
    return {name: "Unsupported key" for name in form if name not in known}


def _read_name(form: dict[str, str], errors: dict[str, str]) -> str:
    name = form.get("name")
    fault = "The value must be supplied" if name is None else name_fault(name)
    if fault is not None:
        errors["name"] = fault
    return name or ""


def _read_max_ttl(form: dict[str, str], errors: dict[str, str]) -> int | None:
    return _read_integer(form, "maxTTL", (NEVER_EXPIRES, MAX_TTL_SECONDS), errors)


def _read_integer(
    form: dict[str, str], name: str, limits: tuple[int, int], errors: dict[str, str]
) -> int | None:
    text = form.get(name)
    if text is None:
        return None
    if not _INTEGER.match(text):
        errors[name] = "The value must be an integer"
        return None
    if not limits[0] <= int(text) <= limits[1]:
        errors[name] = "The value must be in range from {} to {}".format(*limits)
    return int(text)


def _raise(errors: dict[str, str]) -> None:
    if errors:
        raise ManifestError(errors)
