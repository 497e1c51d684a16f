"""Commands that return the scopes and collections of a bucket, and their ids."""

from __future__ import annotations

from struct import Struct

from couchbase.protocol.constants import Datatype, Opcode, Status
from couchnode.data.item import StatusError
from couchnode.data.manifest import (
    DEFAULT_NAME,
    MAX_NAME_CHARACTERS,
    Collection,
    NoSuchCollection,
    NoSuchScope,
    Scope,
)
from couchnode.kv.commands.request import Answer, CommandRequest
from couchnode.kv.commands.table import Presence, command
from couchnode.kv.commands.table import Scope as Reach
from couchnode.kv.session import to_json

_ID_EXTRAS = Struct(">QI")
_MAX_PATH_BYTES = 2 * MAX_NAME_CHARACTERS + 1


@command(Opcode.GET_MANIFEST, scope=Reach.BUCKET, zero_vbucket=True)
def get_manifest(request: CommandRequest) -> Answer:
    """MCBP: collections get manifest: what the user may know of."""
    document, limits = request.bucket.collections.manifest.kv_document(), request.limits
    if limits is not None:
        document["scopes"] = [
            {
                **scope,
                "collections": [
                    one for one in scope["collections"] if limits.shows(scope["name"], one["name"])
                ],
            }
            for scope in document["scopes"]
            if limits.shows_scope(scope["name"])
        ]
    return request.session.success(request.frame, value=to_json(document), datatype=Datatype.JSON)


@command(Opcode.GET_COLLECTION_ID, scope=Reach.BUCKET, key=Presence.OPTIONAL, value=Presence.OPTIONAL,
         zero_vbucket=True)  # fmt: skip
def get_collection_id(request: CommandRequest) -> Answer:
    """MCBP: collections get id. An empty part of the path means ``_default``."""
    parts = _path(request).split(".")
    if len(parts) != 2:
        raise StatusError(Status.EINVAL, "the path is scope.collection, with exactly one dot")
    scope, name = (part or DEFAULT_NAME for part in parts)
    try:
        _require_scope(request, scope)
        found = request.bucket.collections.manifest.collection(scope, name)
        if request.limits is not None and not request.limits.shows(scope, name):
            raise NoSuchCollection(scope, name)
    except NoSuchScope as fault:
        raise StatusError(Status.UNKNOWN_SCOPE, str(fault)) from fault
    except NoSuchCollection as fault:
        raise StatusError(Status.UNKNOWN_COLLECTION, str(fault)) from fault
    return _answer(request, found)


@command(Opcode.GET_SCOPE_ID, scope=Reach.BUCKET, key=Presence.OPTIONAL, value=Presence.OPTIONAL,
         zero_vbucket=True)  # fmt: skip
def get_scope_id(request: CommandRequest) -> Answer:
    """MCBP: collections get scope id. A collection after a dot is ignored."""
    name = _path(request).partition(".")[0] or DEFAULT_NAME
    try:
        _require_scope(request, name)
        found = request.bucket.collections.manifest.scope(name)
    except NoSuchScope as fault:
        raise StatusError(Status.UNKNOWN_SCOPE, str(fault)) from fault
    return _answer(request, found)


def _require_scope(request: CommandRequest, name: str) -> None:
    if request.limits is not None and not request.limits.shows_scope(name):
        raise NoSuchScope(name)


def _path(request: CommandRequest) -> str:
    key, value = request.frame.key, request.frame.value
    if bool(key) == bool(value):
        raise StatusError(Status.EINVAL, "the path is given as the key or as the value, and only once")
    path = key or value
    if len(path) > _MAX_PATH_BYTES:
        # Not repeated in a message: it may have 20 MiB.
        raise StatusError(Status.EINVAL, f"the path has {len(path)} bytes, not at most {_MAX_PATH_BYTES}")
    return path.decode("utf-8", "replace")


def _answer(request: CommandRequest, found: Scope | Collection) -> bytes:
    uid = request.bucket.collections.manifest.uid
    return request.session.success(request.frame, extras=_ID_EXTRAS.pack(uid, found.id))
