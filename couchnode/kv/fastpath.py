"""Fast path for the usual reads and writes of documents, without frames and the command table.

A few commands make up nearly all traffic: GET, the lookup with which clients read a document and its expiry,
those of paths, SET, ADD, REPLACE, mutations of paths, the other changes of one document
(:mod:`couchnode.kv.quickedits`), and observation. They are answered here, straight from the bytes received,
and so are a missing document and a refusal without an explanation. Any other request (rarely used parts,
other refusals) is left unchanged to :func:`couchnode.kv.commands.dispatch`, which decides from scratch, so
the rules stay in one place.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from couchbase.protocol.constants import (
    HEADER_BYTES,
    Datatype,
    Magic,
    Opcode,
    Status,
)
from couchbase.protocol.frames import HEADER
from couchbase.protocol.operations import EXPIRY_LOOKUP_VALUE
from couchnode.data.bucket import NodeBucket
from couchnode.data.item import StatusError
from couchnode.data.keys import DEFAULT_PREFIX, MAX_NAMED_KEY_BYTES
from couchnode.data.manifest import DEFAULT_ID
from couchnode.data.storemode import StoreMode
from couchnode.kv.commands.table import STORE_DATATYPES
from couchnode.kv.quickedits import CAS_ONLY, EDITS, FETCHING, OBSERVES, STORING, observation
from couchnode.kv.quickpaths import (
    MOST_LOOKUP_BYTES,
    PATH_FAILED,
    changed,
    looked_up,
    lookups_of,
    mutation_options,
)
from couchnode.kv.session import Session
from couchnode.kv.snappy import inflate

_GET, _SET, _ADD, _REPLACE = int(Opcode.GET), int(Opcode.SET), int(Opcode.ADD), int(Opcode.REPLACE)
_LOOKUP, _MUTATION = int(Opcode.SUBDOC_MULTI_LOOKUP), int(Opcode.SUBDOC_MULTI_MUTATION)
_DELETE = int(Opcode.DELETE)
_MUST_EXIST = int(StoreMode.REPLACE)
_NO_OPTIONS = 0, False
_READS = frozenset({_GET, _LOOKUP}) | OBSERVES
_MODES = {_SET: int(StoreMode.SET), _ADD: int(StoreMode.ADD), _REPLACE: int(StoreMode.REPLACE)}
_REQUEST, _ALT_REQUEST, _RESPONSE = int(Magic.REQUEST), int(Magic.ALT_REQUEST), int(Magic.RESPONSE)
_LOOKUP_BYTES = len(EXPIRY_LOOKUP_VALUE)
_STORE_EXTRAS = Struct(">II")
_FOUND = Struct(">BBHBBHIIQI")
_WITH_TOKEN = Struct(">BBHBBHIIQQQ")
_ENTRY, _STATUS, _LENGTH = Struct(">HI"), Struct(">H"), Struct(">I")
# With a prefix of one byte; keys in the default collection may be longer, but usually are not.
_USUAL_KEY_BYTES = 1 + MAX_NAMED_KEY_BYTES
_FLAGS_BYTES, _TOKEN_BYTES, _STORE_EXTRAS_BYTES = 4, 16, 8
_JSON, _MISSING = int(Datatype.JSON), int(Status.KEY_ENOENT)
# Refusals for which the operations of a mutation do not matter.
_BEFORE_PATHS = frozenset({Status.KEY_EEXISTS, Status.LOCKED, Status.SYNC_WRITE_IN_PROGRESS})


def quick_answers(
    session: Session, bucket: NodeBucket, data: bytes, at: int, out: list[bytes], limit: int
) -> tuple[int, int]:
    """Answer consecutive requests of the usual form in ``data``, from ``at`` on.

    :param bucket: the session's bucket, which must be ready.
    :param out: gets the answers, in pieces.
    :param limit: stop once the answers have this many bytes, with those of documents that were searched or
        copied: the caller can then look at the time.
    :returns: the position of the first request that is not answered here, complete or not; and how much of
        ``limit`` is used up.
    """
    # One function and many local names, because a call for each request would cost as much as most
    # requests do.
    vbuckets, collections = bucket.vbuckets, session.collections
    quick, known = bucket.collections.quick, bucket.collections.known_prefix
    if not collections and DEFAULT_ID not in quick:
        return at, 0
    mask, tokens = session.datatype_mask, session.tokens
    # What the connection's user may do everywhere in the bucket; and, by framing extras, for other users.
    allowed, framings, reads = session.quick, session.framings, _READS
    if bucket.min_level:
        # A minimum durability level makes every write synchronous.
        allowed, framings = allowed & reads, {}
    unpack, pack, put = HEADER.unpack_from, HEADER.pack, out.append
    count, size, held, gets, stores = len(vbuckets), len(data), 0, 0, 0
    last = size - HEADER_BYTES
    # The value of a mutation's answer: numbers of counters in the document.
    tail, tail_bytes = b"", 0
    while at <= last and held < limit:
        magic, opcode, key_bytes, extras_bytes, datatype, vbid, body, opaque, cas = unpack(data, at)
        body_at = at + HEADER_BYTES
        end = body_at + body
        if end > size or vbid >= count:
            break
        vbucket = vbuckets[vbid]
        if (vbucket is None or vbucket.state != "active") and opcode not in OBSERVES:
            break
        if magic == _REQUEST:
            if opcode not in allowed:
                break
            keep_expiry = False
        elif magic == _ALT_REQUEST:
            framed = key_bytes >> 8
            framing = framings.get(data[body_at : body_at + framed])
            if framing is None or opcode not in framing[0]:
                break
            keep_expiry = framing[1]
            if framing[2] and (bucket.replica_count or vbid in bucket.replicator.streams):
                # A majority is more than this copy.
                break
            key_bytes &= 0xFF
            body_at += framed
        else:
            break
        if opcode in reads:
            if extras_bytes or datatype or cas:
                break
            key_end = body_at + key_bytes
            if opcode == _GET:
                if key_end != end:
                    break
            elif opcode != _LOOKUP:
                seen = None
                if not key_bytes:
                    seen = observation(bucket, opcode, vbucket, data[body_at:end], prefixed=collections)
                if seen is None:
                    break
                put(pack(_RESPONSE, opcode, 0, 0, 0, 0, len(seen), opaque, 0))
                put(seen)
                held += HEADER_BYTES + len(seen)
                at = end
                continue
            elif key_end + _LOOKUP_BYTES == end and data.startswith(EXPIRY_LOOKUP_VALUE, key_end):
                operations = None
            else:
                operations = lookups_of(data[key_end:end]) if end - key_end <= MOST_LOOKUP_BYTES else None
                if operations is None:
                    break
            if not collections:
                # The byte before the key is the last one of the CAS, and 0: with it, the key is the held key.
                body_at -= 1
                if data[body_at]:
                    break  # the last one of framing extras
            elif not key_bytes or (data[body_at] not in quick and not known(data[body_at:key_end])):
                break
            item = vbucket.items.get(data[body_at:key_end])
            if item is None or (item.expiry and vbucket.get(item.key) is None):
                key = data[body_at:key_end]
                if not 1 < len(key) <= _USUAL_KEY_BYTES or key[0] not in quick:
                    break
                gets += 1
                bucket.misses += 1
                put(pack(_RESPONSE, opcode, 0, 0, 0, _MISSING, 0, opaque, 0))
                held += HEADER_BYTES
                at = end
                continue
            gets += 1
            value = item.value
            cas = vbucket.visible_cas(item) if item.lock_until else item.cas
            if opcode == _GET:
                # A property, which is a call, is only used while the datatype is unknown.
                kind = item.known_datatype if mask else 0
                if kind < 0:
                    if item.is_unchecked:
                        gets -= 1
                        break
                    kind = item.datatype
                body = _FLAGS_BYTES + len(value)
                put(_FOUND.pack(_RESPONSE, _GET, 0, _FLAGS_BYTES, kind, 0, body, opaque, cas, item.flags))
            elif operations is not None:
                answer = looked_up(item, operations)
                if answer is None:
                    gets -= 1
                    break
                status, value = answer
                held += len(item.value) * len(operations)
                body = len(value)
                put(pack(_RESPONSE, _LOOKUP, 0, 0, 0, status, body, opaque, cas))
            else:
                attributes = _attributes(item.flags, item.expiry)
                body = len(attributes) + 4 + len(value)
                put(pack(_RESPONSE, _LOOKUP, 0, 0, 0, 0, body, opaque, cas))
                put(attributes)
                put(_LENGTH.pack(len(value)))
            put(value)
            held += HEADER_BYTES + body
        else:
            key_at = body_at + extras_bytes
            value_at = key_at + key_bytes
            if value_at > end:
                break
            key = data[key_at:value_at]
            if not collections:
                key = DEFAULT_PREFIX + key
            elif not key or (key[0] not in quick and not 0 < known(key) < len(key)):
                break
            if not 1 < len(key) <= _USUAL_KEY_BYTES:
                break
            try:
                if opcode <= _REPLACE:
                    if extras_bytes != _STORE_EXTRAS_BYTES:
                        break
                    if opcode == _ADD and cas:
                        break
                    flags, expiry = _STORE_EXTRAS.unpack_from(data, body_at)
                    mode, value = _MODES[opcode], data[value_at:end]
                    if datatype > _JSON:
                        # A connection with attributes may send them, but not in these commands.
                        if datatype & ~(session.accepted_datatypes & STORE_DATATYPES):
                            break
                        value = inflate(value)
                    item = vbucket.store(mode, key, value, flags, expiry, cas, preserve_expiry=keep_expiry)
                    stores += 1
                elif opcode == _MUTATION:
                    options = mutation_options(data[body_at:key_at]) if extras_bytes else _NO_OPTIONS
                    if options is None or datatype:
                        break
                    expiry, creates = options
                    old = vbucket.items.get(key)
                    outcome = changed(old, data, value_at, end, creates)
                    if old is None or outcome is None:
                        break
                    value, tail = outcome
                    if value is None:
                        # Whether the document is still there, and CAS and lock fit, is found out first.
                        if cas or old.lock_until or old.expiry or vbucket.pending:
                            break
                        put(pack(_RESPONSE, opcode, 0, 0, 0, PATH_FAILED, len(tail), opaque, 0))
                        put(tail)
                        held += HEADER_BYTES + len(tail) + len(old.value)
                        at = end
                        continue
                    item = vbucket.store(
                        _MUST_EXIST, key, value, old.flags, expiry, cas, preserve_expiry=keep_expiry
                    )
                    stores += 1
                    tail_bytes = len(tail)
                    held += len(value)
                elif opcode == _DELETE:
                    if extras_bytes or datatype or value_at != end:
                        break
                    item = vbucket.delete(key, cas)
                else:
                    if datatype:
                        break
                    edited = EDITS[opcode](vbucket, key, data[body_at:key_at], data[value_at:end], cas)
                    if edited is None:
                        break
                    item, tail = edited
                    tail_bytes = len(tail)
                    if opcode in STORING:
                        stores += 1
                        held += len(item.value)
                    elif opcode in FETCHING:
                        gets += 1
                        value = item.value
                        kind = item.datatype if mask else 0
                        body = _FLAGS_BYTES + len(value)
                        put(_FOUND.pack(
                            _RESPONSE, opcode, 0, _FLAGS_BYTES, kind, 0, body, opaque, item.cas, item.flags
                        ))  # fmt: skip
                        put(value)
                        held += HEADER_BYTES + body
                        at = end
                        continue
                    elif opcode in CAS_ONLY:
                        cas = item.cas if CAS_ONLY[opcode] else 0
                        put(pack(_RESPONSE, opcode, 0, 0, 0, 0, 0, opaque, cas))
                        held += HEADER_BYTES
                        at = end
                        continue
            except StatusError as refusal:
                # Nothing was changed, and the general path will refuse it in the same way.
                if refusal.context or not session.xerror:
                    break
                if opcode == _MUTATION and refusal.status not in _BEFORE_PATHS:
                    break
                put(pack(_RESPONSE, opcode, 0, 0, 0, refusal.status, 0, opaque, 0))
                held += HEADER_BYTES
                at = end
                continue
            cas = item.cas
            if tokens:
                # Not vbucket.uuid, a property: a call of Python code would cost a 50th of a store.
                uuid, seqno, more = vbucket.failover_log[0][0], item.seqno, _TOKEN_BYTES
                body = more + tail_bytes
                put(_WITH_TOKEN.pack(_RESPONSE, opcode, 0, more, 0, 0, body, opaque, cas, uuid, seqno))
                held += HEADER_BYTES + body
            else:
                put(pack(_RESPONSE, opcode, 0, 0, 0, 0, tail_bytes, opaque, cas))
                held += HEADER_BYTES + tail_bytes
            if tail_bytes:
                put(tail)
                tail_bytes = 0
        at = end
    bucket.gets += gets
    bucket.stores += stores
    return at, held


@lru_cache(maxsize=1024)
def _attributes(flags: int, expiry: int) -> bytes:
    """Return the part of a lookup's answer before the length of the document."""
    entries = [_ENTRY.pack(0, len(text)) + text for text in (b"%d" % flags, b"%d" % expiry)]
    return b"".join(entries) + _STATUS.pack(0)
