"""Commands that write documents with their version from another cluster."""

from __future__ import annotations

import json
from struct import Struct
from typing import Any

from couchbase.protocol.constants import Datatype, Opcode, Status
from couchbase.protocol.scanpages import split_attributes
from couchnode.data.attributes import MAX_SYSTEM_BYTES, canonical, is_virtual, key_of, section_bytes
from couchnode.data.item import StatusError
from couchnode.data.withmeta import Content, Version, write
from couchnode.kv.commands.request import Answer, CommandRequest
from couchnode.kv.commands.table import STORE_DATATYPES, CasRule, Handler, Presence, Scope, command

_META = Struct(">IIQQ")
_OPTIONS = Struct(">I")
_LENGTH = Struct(">H")
_LENGTHS = frozenset(
    _META.size + options + length for options in (0, _OPTIONS.size) for length in (0, _LENGTH.size)
)
_SKIP_RESOLUTION, _FORCE, _REGENERATE_CAS, _EXPIRATION = 0x01, 0x02, 0x04, 0x10
_XATTR = int(Datatype.XATTR)
_NO_CAS = (0, 2**64 - 1)
_INVALID_SECTION = "The provided xattr segment is not valid"


def _handler(*, deleted: bool = False, must_be_new: bool = False) -> Handler:
    def handler(request: CommandRequest) -> Answer:
        frame, session, vbucket = request.frame, request.session, request.vbucket
        flags, expiry, revid, cas = _META.unpack_from(frame.extras)
        options, extra_bytes = _read_rest(frame.extras[_META.size :])
        if options & _REGENERATE_CAS and not options & _SKIP_RESOLUTION:
            raise StatusError(Status.EINVAL, "REGENERATE_CAS needs SKIP_CONFLICT_RESOLUTION")
        if cas in _NO_CAS and not options & _REGENERATE_CAS:
            raise StatusError(Status.EINVAL, "the version has no CAS")
        if extra_bytes > len(frame.value):
            raise StatusError(Status.EINVAL, "the extended metadata is longer than the value")
        item = write(
            vbucket,
            request.key,
            _content(frame.value[: len(frame.value) - extra_bytes], frame.datatype, deleted),
            Version(revid, cas, expiry, flags),
            cas=frame.cas,
            must_be_new=must_be_new,
            resolves=not options & _SKIP_RESOLUTION,
            makes_cas=bool(options & _REGENERATE_CAS),
        )
        request.bucket.stores += not deleted
        return session.mutation(frame, vbucket.uuid, item.seqno, item.cas, b"")

    name = "delete" if deleted else "add" if must_be_new else "set"
    handler.__doc__ = f"MCBP: {name} with meta."
    return handler


def _read_rest(extras: bytes) -> tuple[int, int]:
    """Return the options, and the length of the extended metadata, which is not looked at."""
    options = extra_bytes = 0
    if len(extras) >= _OPTIONS.size:
        (options,) = _OPTIONS.unpack_from(extras)
    if len(extras) % _OPTIONS.size:
        (extra_bytes,) = _LENGTH.unpack_from(extras, len(extras) - _LENGTH.size)
    if options & ~(_SKIP_RESOLUTION | _FORCE | _REGENERATE_CAS | _EXPIRATION):
        raise StatusError(Status.EINVAL, f"unknown options 0x{options:x}")
    return options, extra_bytes


def _content(value: bytes, datatype: int, deleted: bool) -> Content:
    xattrs = b""
    if datatype & _XATTR:
        xattrs, value = _attributes(value)
    elif deleted and value:
        raise StatusError(Status.EINVAL, "a deletion has no value, only attributes")
    return Content(b"" if deleted else value, xattrs, deleted)


def _attributes(value: bytes) -> tuple[bytes, bytes]:
    """Return attributes in the form in which documents have them, and the body."""
    try:
        text, body = split_attributes(value)
        pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
        names = [name.encode() for name, _ in pairs]
        valid = all(key_of(name) == name and not is_virtual(name) for name in names)
        xattrs = canonical(text) if valid and len(set(names)) == len(names) else None
    except (ValueError, RecursionError):
        xattrs = None
    if xattrs is None or section_bytes(xattrs)[1] > MAX_SYSTEM_BYTES:
        raise StatusError(Status.EINVAL, _INVALID_SECTION)
    return xattrs, body


for _opcode, _twin, _made in (
    (Opcode.SET_WITH_META, Opcode.SETQ_WITH_META, _handler()),
    (Opcode.ADD_WITH_META, Opcode.ADDQ_WITH_META, _handler(must_be_new=True)),
    (Opcode.DEL_WITH_META, Opcode.DELQ_WITH_META, _handler(deleted=True)),
):
    command(
        _opcode, scope=Scope.ACTIVE, extras=_LENGTHS, key=Presence.REQUIRED, value=Presence.OPTIONAL,
        cas=CasRule.ANY, datatypes=STORE_DATATYPES | _XATTR, quiet_twin=_twin,
    )(_made)  # fmt: skip
