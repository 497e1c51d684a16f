"""Nodes that answer as Couchbase Server of some version does, in threads; they keep documents.

Each grants in HELLO what that version grants, and closes the connection at a frame that it did not grant, as
real ones do. What should never have been sent is in ``violations``. What a version grants and answers was
read in the sources of kv_engine: branches 5.0.0, alice (6.0), 6.6.5, 7.0.0, 7.6.2 and 8.0.1.
"""

import itertools
import json
import time
from base64 import b64decode
from struct import Struct

from couchbase.protocol.constants import Feature, Magic, ObserveState, Opcode, Status
from couchbase.protocol.frames import decode_frame_infos
from couchbase.protocol.subdocument import REPLICA_READ
from tests.couchbase.scripted import ScriptedNode

_U32 = Struct(">I")
_U16 = Struct(">H")
_META = Struct(">IIIQ")
_STORE = Struct(">II")
_COUNTER = Struct(">QQI")
_SPEC = Struct(">BBH")
_CHANGE = Struct(">BBHI")
_ENTRY = Struct(">HI")
_XATTR_FLAG = 0x04
_PRESERVE, _DURABILITY = 5, 1

_5_0 = frozenset(
    {
        Feature.TCP_NODELAY,
        Feature.MUTATION_SEQNO,
        Feature.XATTR,
        Feature.XERROR,
        Feature.SELECT_BUCKET,
        Feature.SNAPPY,
        Feature.JSON,
    }
)
_6_0 = _5_0 | {
    Feature.DUPLEX,
    Feature.CLUSTERMAP_CHANGE_NOTIFICATION,
    Feature.UNORDERED_EXECUTION,
    Feature.TRACING,
}
_6_6 = _6_0 | {
    Feature.ALT_REQUEST,
    Feature.SYNC_REPLICATION,
    0x13,  # OpenTracing: until 7.2, and granted although it has no effect
    Feature.VATTR,
    Feature.SUBDOC_CREATE_AS_DELETED,
}
_7_0 = _6_6 | {
    Feature.COLLECTIONS,
    Feature.PRESERVE_TTL,
    Feature.SUBDOC_DOCUMENT_MACRO,
    Feature.SUBDOC_REPLACE_BODY_WITH_XATTR,
}
_7_6 = _7_0 | {
    Feature.SNAPPY_EVERYWHERE,  # the same number
    0x1A,  # ReportUnitUsage
    0x1B,  # NonBlockingThrottlingMode
    Feature.SUBDOC_REPLICA_READ,
    Feature.GET_CLUSTER_CONFIG_WITH_KNOWN_VERSION,
    Feature.DEDUPE_NOT_MY_VBUCKET_CLUSTERMAP,
    Feature.CLUSTERMAP_CHANGE_NOTIFICATION_BRIEF,
    0x20,  # SubdocAllowsAccessOnMultipleXattrKeys
    0x21,  # SubdocBinaryXattr
}
_8_0 = _7_6 | {
    0x22,  # RangeScanIncludeXattr
    0x23,  # SubdocAllowReplicaReadOnDeletedDocs
    0x24,  # GetRandomKeyIncludeXattr
}
FEATURES = {"5.0": _5_0, "6.0": _6_0, "6.6": _6_6, "7.0": _7_0, "7.6": _7_6, "8.0": _8_0}
"""Version -> what it grants if asked."""
BOTH = ("exptime", "flags")
VATTRS = {"5.0": ("exptime",)}
"""Version -> those of ``exptime`` and ``flags`` that it knows below ``$document``; others know both."""
KNOWS_NOT_LOCKED = frozenset({"7.6", "8.0"})
"""Versions that have a status for an unlock of a document that is not locked; others answer "temporary
failure"."""
MOCK = frozenset({Feature.TCP_NODELAY, Feature.MUTATION_SEQNO, Feature.XATTR, Feature.XERROR,
                  Feature.SELECT_BUCKET, Feature.JSON})  # fmt: skip
"""Features of CouchbaseMock; it knows no virtual attributes."""


def _lookups(value):
    """Return opcode, flags and path of each operation of a lookup."""
    found, at = [], 0
    while at < len(value):
        opcode, flags, size = _SPEC.unpack_from(value, at)
        at += _SPEC.size + size
        found.append((opcode, flags, value[at - size : at].decode()))
    return found


def reads_replica(frame):
    """Return whether a request is for a replica."""
    return frame.opcode == Opcode.GET_REPLICA or _looks_up_replica(frame)


def _looks_up_replica(frame):
    return frame.opcode == Opcode.SUBDOC_MULTI_LOOKUP and frame.extras == bytes([REPLICA_READ])


class Document:
    """The document of a key."""

    def __init__(self, value, flags, expiry, cas):
        self.value, self.flags, self.expiry, self.cas = value, flags, expiry, cas
        self.locked = 0


class VersionedNode(ScriptedNode):
    """A node of one vbucket that keeps documents in memory.

    :param features: what it grants.
    :param vattrs: names of the virtual attributes that it knows below ``$document``.
    """

    not_locked = Status.ETMPFAIL
    """The answer to an unlock of a document that is not locked."""

    def __init__(self, features, vattrs=BOTH):
        self.offers = features
        self.vattrs = vattrs
        self.documents = {}
        self.violations = []
        self.before_store = None
        """Called with the key before a document is stored: to come in between."""
        self.before_lookup = None
        """The same before an attribute is read."""
        self._granted = {}
        self._cas = itertools.count(1001)
        super().__init__()

    def expire_at(self, key):
        """Return a document's expiry, 0 for none."""
        return self.documents[key].expiry

    def put(self, key, value, expiry=0, flags=0x02000000):
        """Store a document behind everybody's back."""
        self.documents[key] = Document(value, flags, expiry, next(self._cas))

    def _handle(self, peer, frame):
        if frame.opcode == Opcode.HELLO:
            asked = [int.from_bytes(frame.value[at : at + 2], "big") for at in range(0, len(frame.value), 2)]
            granted = self._granted[peer] = {code for code in asked if code in self.offers}
            peer.answer(frame, value=b"".join(code.to_bytes(2, "big") for code in asked if code in granted))
            return
        granted = self._granted.get(peer, frozenset())
        wrong = self._wrong(frame, granted)
        if wrong:
            self.violations.append(wrong)
            peer.cut()
            return
        if Feature.COLLECTIONS in granted and frame.key and frame.opcode in self._OF_KEYS:
            frame = frame._replace(key=frame.key[1:])
        super()._handle(peer, frame)

    @staticmethod
    def _wrong(frame, granted):
        if frame.magic == Magic.ALT_REQUEST and Feature.ALT_REQUEST not in granted:
            return "a flexible frame"
        infos = dict(decode_frame_infos(frame.framing))
        if _DURABILITY in infos and Feature.SYNC_REPLICATION not in granted:
            return "a durability frame"
        if _PRESERVE in infos and Feature.PRESERVE_TTL not in granted:
            return "a preserve-TTL frame"
        reads_paths = frame.opcode == Opcode.SUBDOC_MULTI_LOOKUP and Feature.XATTR not in granted
        if reads_paths and any(flags & _XATTR_FLAG for _, flags, _ in _lookups(frame.value)):
            return "a lookup of attributes"
        if _looks_up_replica(frame) and Feature.SUBDOC_REPLICA_READ not in granted:
            return "a lookup from a replica"
        if frame.datatype and Feature.JSON not in granted:
            return "a datatype"
        is_prefixed = frame.key[:1] == b"\0"
        is_about_key = frame.key and frame.opcode in VersionedNode._OF_KEYS
        if is_about_key and is_prefixed != (Feature.COLLECTIONS in granted):
            return "a key without the default collection's id, or with it"
        return None

    # ---- operations ------------------------------------------------------------------------------

    def script(self, peer, frame):
        """Carry an operation out."""
        handler = self._HANDLERS.get(frame.opcode)
        if handler is None:
            peer.answer(frame, Status.UNKNOWN_COMMAND)
            return
        result = handler(self, frame)
        if isinstance(result, int):
            peer.answer(frame, result)
        else:
            peer.answer(frame, **result)

    def _find(self, frame):
        document = self.documents.get(frame.key)
        if document is not None and document.expiry and document.expiry <= time.time():
            del self.documents[frame.key]
            return None
        return document

    def _get(self, frame):
        document = self._find(frame)
        if document is None:
            return Status.KEY_ENOENT
        if frame.opcode == Opcode.GAT:
            self._expire(frame, document)
        elif frame.opcode == Opcode.GET_LOCKED:
            if document.locked:
                return Status.LOCKED
            document.locked = document.cas = next(self._cas)
        return {"extras": _U32.pack(document.flags), "value": document.value, "cas": document.cas}

    def _touch(self, frame):
        document = self._find(frame)
        if document is None:
            return Status.KEY_ENOENT
        self._expire(frame, document)
        return {"cas": document.cas}

    def _expire(self, frame, document):
        document.expiry = self._absolute(_U32.unpack(frame.extras)[0])
        document.cas = next(self._cas)

    @staticmethod
    def _absolute(expiry):
        return expiry + int(time.time()) if 0 < expiry <= 30 * 24 * 3600 else expiry

    def _unlock(self, frame):
        document = self._find(frame)
        if document is None:
            return Status.KEY_ENOENT
        if not document.locked or frame.cas != document.locked:
            return self.not_locked if not document.locked else Status.LOCKED
        document.locked = 0
        return {"cas": document.cas}

    def _lookup(self, frame):
        if self.before_lookup is not None:
            self.before_lookup(frame.key)
        document = self._find(frame)
        if document is None:
            return Status.KEY_ENOENT
        body, statuses = b"", []
        for opcode, flags, path in _lookups(frame.value):
            name = path.rpartition(".")[2]
            if opcode == Opcode.GET:
                status, text = 0, document.value
            elif not flags & _XATTR_FLAG:
                found = json.loads(document.value)
                status = 0 if path in found else Status.SUBDOC_PATH_ENOENT
                text = json.dumps(found[path]).encode() if opcode == Opcode.SUBDOC_GET and not status else b""
            elif name not in self.vattrs:
                unknown = not self.vattrs or Feature.VATTR in self.offers
                status = Status.SUBDOC_XATTR_UNKNOWN_VATTR if unknown else Status.SUBDOC_PATH_ENOENT
                text = b""
            else:
                value = {"exptime": document.expiry, "flags": document.flags}[name]
                status, text = 0, str(value).encode()
            statuses.append(status)
            body += _ENTRY.pack(status, len(text)) + text
        status = Status.SUBDOC_MULTI_PATH_FAILURE if any(statuses) else 0
        cas = 2**64 - 1 if document.locked else document.cas
        return {"status": status, "value": body, "cas": cas}

    def _mutate(self, frame):
        """Set members of an object; nothing else."""
        document = self._find(frame)
        if document is None:
            return Status.KEY_ENOENT
        refused = self._refused(frame, document)
        if refused:
            return refused
        changed, at = json.loads(document.value), 0
        while at < len(frame.value):
            _, _, path, size = _CHANGE.unpack_from(frame.value, at)
            at += _CHANGE.size
            name, value = frame.value[at : at + path], frame.value[at + path : at + path + size]
            changed[name.decode()] = json.loads(value)
            at += path + size
        document.value, document.cas = json.dumps(changed).encode(), next(self._cas)
        if _PRESERVE not in dict(decode_frame_infos(frame.framing)):
            document.expiry = self._absolute(_U32.unpack_from(frame.extras)[0]) if frame.extras else 0
        return {"cas": document.cas}

    def _store(self, frame):
        if self.before_store is not None:
            self.before_store(frame.key)
        document = self._find(frame)
        flags, expiry = _STORE.unpack(frame.extras)
        if document is not None and frame.opcode == Opcode.ADD:
            return Status.KEY_EEXISTS
        if document is None and (frame.opcode == Opcode.REPLACE or frame.cas):
            return Status.KEY_ENOENT
        refused = document is not None and self._refused(frame, document)
        if refused:
            return refused
        expiry = self._absolute(expiry)
        if document is not None and _PRESERVE in dict(decode_frame_infos(frame.framing)):
            expiry = document.expiry
        self.documents[frame.key] = document = Document(frame.value, flags, expiry, next(self._cas))
        return {"cas": document.cas}

    @staticmethod
    def _refused(frame, document):
        if document.locked and frame.cas != document.locked:
            return Status.LOCKED
        return Status.KEY_EEXISTS if frame.cas and frame.cas != document.cas else 0

    def _concat(self, frame):
        document = self._find(frame)
        if document is None:
            return Status.NOT_STORED
        refused = self._refused(frame, document)
        if refused:
            return refused
        at_end = frame.opcode == Opcode.APPEND
        document.value = document.value + frame.value if at_end else frame.value + document.value
        document.cas = next(self._cas)
        return {"cas": document.cas}

    def _delete(self, frame):
        document = self._find(frame)
        if document is None:
            return Status.KEY_ENOENT
        refused = self._refused(frame, document)
        if refused:
            return refused
        del self.documents[frame.key]
        return {"cas": next(self._cas)}

    def _count(self, frame):
        delta, initial, expiry = _COUNTER.unpack(frame.extras)
        document = self._find(frame)
        if document is None:
            if expiry == 0xFFFFFFFF:
                return Status.KEY_ENOENT
            number = initial
            document = self.documents[frame.key] = Document(b"", 0, self._absolute(expiry), 0)
        elif not document.value.isdigit():
            return Status.DELTA_BADVAL
        else:
            number = int(document.value)
            number = number + delta if frame.opcode == Opcode.INCREMENT else max(0, number - delta)
        document.value, document.cas = str(number).encode(), next(self._cas)
        return {"value": number.to_bytes(8, "big"), "cas": document.cas}

    def _observe(self, frame):
        body, at = b"", 0
        while at < len(frame.value):
            size = int.from_bytes(frame.value[at + 2 : at + 4], "big")
            key = frame.value[at + 4 : at + 4 + size]
            # The id of the default collection, where collections are used.
            document = self.documents.get(key.removeprefix(b"\0"))
            state = ObserveState.NOT_FOUND if document is None else ObserveState.PERSISTED
            body += frame.value[at : at + 4 + size] + bytes([state])
            body += (0 if document is None else document.cas).to_bytes(8, "big")
            at += 4 + size
        return {"value": body}

    def _scan(self, frame):
        """Open a range scan: its id is its beginning."""
        if Feature.SUBDOC_REPLICA_READ not in self.offers:
            return Status.UNKNOWN_COMMAND
        bounds = json.loads(frame.value)["range"]
        start = b64decode(bounds.get("start") or bounds["excl_start"])
        return {"value": start[:16].ljust(16, b"\0")}

    def _page(self, frame):
        """Return all keys from the beginning on: more than a real server would, which a client bears."""
        start = frame.extras[:16].rstrip(b"\0")
        keys = sorted(key for key in self.documents if key >= start)
        entries = b"".join(bytes([len(key)]) + key for key in keys)
        return {"status": Status.RANGE_SCAN_COMPLETE, "extras": bytes(4), "value": entries}

    def _list(self, frame):
        """Return some keys from that of the request on, in their form on this connection."""
        if self.offers is MOCK:
            return Status.UNKNOWN_COMMAND
        (count,) = _U32.unpack(frame.extras)
        keys = sorted(key for key in self.documents if key >= frame.key)[:count]
        lead = b"\0" if Feature.COLLECTIONS in self.offers else b""
        return {"value": b"".join(_U16.pack(len(lead + key)) + lead + key for key in keys)}

    def _meta(self, frame):
        document = self._find(frame)
        if document is None:
            return Status.KEY_ENOENT
        return {"extras": _META.pack(0, document.flags, document.expiry, 1), "cas": document.cas}

    _HANDLERS = {
        Opcode.GET_KEYS: _list,
        Opcode.GET_META: _meta,
        Opcode.RANGE_SCAN_CREATE: _scan,
        Opcode.RANGE_SCAN_CONTINUE: _page,
        Opcode.GET: _get,
        Opcode.GAT: _get,
        Opcode.GET_LOCKED: _get,
        Opcode.UNLOCK: _unlock,
        Opcode.TOUCH: _touch,
        Opcode.SUBDOC_MULTI_LOOKUP: _lookup,
        Opcode.SUBDOC_MULTI_MUTATION: _mutate,
        Opcode.SET: _store,
        Opcode.ADD: _store,
        Opcode.REPLACE: _store,
        Opcode.APPEND: _concat,
        Opcode.PREPEND: _concat,
        Opcode.DELETE: _delete,
        Opcode.INCREMENT: _count,
        Opcode.DECREMENT: _count,
        Opcode.OBSERVE: _observe,
    }
    _OF_KEYS = frozenset({*_HANDLERS, Opcode.GET_REPLICA})
