"""The state of one key-value connection, and the encoding of its answers."""

from __future__ import annotations

import json
from enum import Enum, auto
from functools import lru_cache
from struct import Struct
from typing import Any
from uuid import uuid4

from twisted.logger import Logger

from couchbase.protocol.constants import (
    SUCCESS_STATUSES,
    Datatype,
    Feature,
    FrameInfo,
    Magic,
    Opcode,
    ServerOpcode,
    Status,
)
from couchbase.protocol.frames import Frame, encode_frame_infos, encode_request, encode_response
from couchbase.protocol.sasl import ScramServer
from couchnode.access.rights import EVERYTHING, IMPERSONATE
from couchnode.data.bucket import NodeBucket
from couchnode.data.item import StatusError
from couchnode.kv import snappy
from couchnode.kv.privileges import NEEDS, Limits, lacks, limits_of
from couchnode.ports import NodeView
from reactor.sparselog import SparseLog

_TOKEN = Struct(">QQ")
_REVISION = Struct(">qq")
_log = Logger()


# Without XERROR a client knows only the statuses of memcached and of early servers.
_BEFORE_XERROR = {
    Status.LOCKED: Status.KEY_EEXISTS,
    Status.NOT_LOCKED: Status.ETMPFAIL,
    Status.CAS_VALUE_INVALID: Status.KEY_EEXISTS,
    Status.RATE_LIMITED_MAX_CONNECTIONS: Status.E2BIG,
    Status.SYNC_WRITE_IN_PROGRESS: Status.ETMPFAIL,
    Status.SYNC_WRITE_RE_COMMIT_IN_PROGRESS: Status.ETMPFAIL,
    Status.UNKNOWN_COLLECTION: Status.EINVAL,
    Status.UNKNOWN_SCOPE: Status.EINVAL,
}
_LOCK_COMMANDS = frozenset(
    {
        Opcode.GET_LOCKED,
        Opcode.UNLOCK,
        Opcode.DELETE,
        Opcode.DELETEQ,
        *(opcode for opcode in Opcode if opcode.name.startswith("SUBDOC_")),
    }
)
_DISCONNECT_BEFORE_XERROR = frozenset(
    {
        Status.NO_BUCKET,
        Status.AUTH_STALE,
        Status.EACCESS,
        Status.DURABILITY_INVALID_LEVEL,
        Status.DURABILITY_IMPOSSIBLE,
        Status.SYNC_WRITE_AMBIGUOUS,
    }
)


TAKES_LEVEL = frozenset(
    map(int, (*(Opcode.SET, Opcode.ADD, Opcode.REPLACE, Opcode.DELETE), Opcode.SUBDOC_MULTI_MUTATION))
)
"""Synchronous writes of the fast path."""
KEEP_EXPIRY = encode_frame_infos([(FrameInfo.PRESERVE_TTL, b"")])
"""The framing extras of a store that keeps the document's expiry."""

MAX_FRAMINGS = 512
"""Most framing extras that one connection remembers: those of the users for whom it acts."""

_EXTERNAL = "^"  # begins the name of a user of another domain
KEEPS_EXPIRY = frozenset(map(int, (Opcode.SET, Opcode.REPLACE, Opcode.SUBDOC_MULTI_MUTATION)))


def quick_opcodes(limits: Limits | None, *, xattrs: bool) -> frozenset[int]:
    """Return the commands that :mod:`couchnode.kv.fastpath` may answer without checking privileges: those
    that the user may send for every collection of the bucket.

    :param xattrs: whether the connection may read attributes, as the lookup of an expiry does.
    """
    return _quick_of(EVERYTHING if limits is None else limits.bucket.mask, xattrs)


# Asked at every HELLO.
@lru_cache(maxsize=64)
def _quick_of(mask: int, xattrs: bool) -> frozenset[int]:
    return frozenset(
        int(opcode)
        for opcode in _QUICK
        if (xattrs or opcode != Opcode.SUBDOC_MULTI_LOOKUP)
        and any(mask & wanted == wanted for wanted in NEEDS[opcode].one_of)
    )


_QUICK = (
    *(Opcode.GET, Opcode.SUBDOC_MULTI_LOOKUP, Opcode.OBSERVE, Opcode.OBSERVE_SEQNO),
    *(Opcode.SET, Opcode.ADD, Opcode.REPLACE, Opcode.SUBDOC_MULTI_MUTATION, Opcode.DELETE),
    *(Opcode.TOUCH, Opcode.GAT, Opcode.GET_LOCKED, Opcode.UNLOCK),
    *(Opcode.INCREMENT, Opcode.DECREMENT, Opcode.APPEND, Opcode.PREPEND),
)


class Standing(Enum):
    """The state of a connection's authentication."""

    ANONYMOUS = auto()
    """No credentials yet: only requests that need none are allowed."""
    PROVING = auto()
    """Credentials are being checked, or were wrong: nothing is allowed."""
    KNOWN = auto()
    """The credentials were right."""
    CERTIFIED = auto()
    """The certificate of the TLS connection identifies the user, who cannot change."""


class Session:
    """One connection's state: features, user, bucket.

    :param log: log for lines caused by clients; all connections of a node share one.

    ``user`` is ``None`` until authenticated. ``closing`` is set when the connection must end
    after the answers so far. ``limits`` has the user's rights in the bucket in use, ``None`` if all;
    ``quick`` and ``framings`` list what the fast path accepts: opcodes, and (by framing extras) opcodes with
    whether they keep the expiry, and whether a majority must have the change.
    """

    limits: Limits | None
    quick: frozenset[int]
    framings: dict[bytes, tuple[frozenset[int], bool, bool]]

    def __init__(self, node: NodeView, peer: str = "", log: SparseLog | None = None) -> None:
        self.node = node
        self.peer = peer
        self.log = log if log is not None else SparseLog(_log, node.cluster.clock.seconds)
        self.agent = ""
        self.user: str | None = None
        self.scram: ScramServer | None = None
        self.closing = False
        self.known_config: tuple[str | None, tuple[int, int]] | None = None
        self._bucket: NodeBucket | None = None
        self._open_bucket: NodeBucket | None = None
        self._standing = Standing.ANONYMOUS
        self.set_features(frozenset())

    def set_features(self, features: frozenset[int]) -> None:
        """Enable these features, and disable all others."""
        self.features = features
        self.tokens = Feature.MUTATION_SEQNO in features
        self.traces = Feature.TRACING in features
        self.collections = Feature.COLLECTIONS in features
        compressed = not features.isdisjoint(snappy.FEATURES)
        self.accepted_datatypes = int(Datatype.JSON | Datatype.SNAPPY if compressed else Datatype.JSON)
        if self.xattrs:
            self.accepted_datatypes |= int(Datatype.XATTR)
        self.datatype_mask = int(Datatype.JSON) if Feature.JSON in features else 0
        self.rights_changed()

    @property
    def xerror(self) -> bool:
        """Whether the client understands all statuses, and reads contexts of errors."""
        return Feature.XERROR in self.features

    @property
    def xattrs(self) -> bool:
        """Whether attributes can be used, virtual ones included."""
        return Feature.XATTR in self.features

    # ---- who and where ---------------------------------------------------------------------------

    @property
    def bucket(self) -> NodeBucket | None:
        """The bucket in use; for an unauthenticated connection, the bucket without a password."""
        if self.user is not None:
            return self._bucket
        # A bucket that an earlier user selected is unavailable until a user authenticates.
        name = self.node.cluster.unauthenticated_bucket if self._standing is Standing.ANONYMOUS else None
        if name is None:
            return None
        if self._open_bucket is None:
            self._open_bucket = self.node.buckets.get(name)
            self.rights_changed()
        return self._open_bucket

    @property
    def is_orphaned(self) -> bool:
        """Whether the bucket in use was deleted, or deleted and created again."""
        used = self._bucket if self.user is not None else self._open_bucket
        return used is not None and self.node.buckets.get(used.name) is not used

    @property
    def is_admitted(self) -> bool:
        """Whether more than the handshake is allowed."""
        return self.user is not None or self.bucket is not None

    def may_use(self, name: str) -> bool:
        """Return whether this connection may use that bucket."""
        if self.user is None:
            return self._standing is Standing.ANONYMOUS and name == self.node.cluster.unauthenticated_bucket
        return bool(self.node.cluster.rights(self.user).on_bucket(name))

    def select(self, bucket: NodeBucket | None) -> None:
        """Use that bucket from now on."""
        self._bucket = bucket
        self.rights_changed()

    def rights_changed(self) -> None:
        """Recompute the user's limits, after a change of the current bucket or of the rights."""
        cluster, used = self.node.cluster, self._bucket
        if self.user is not None:
            name = None if used is None else used.name
        else:
            name = cluster.unauthenticated_bucket
        self.limits = limits_of(cluster.rights(self.user), name)
        self.quick = quick_opcodes(self.limits, xattrs=self.xattrs)
        self.framings = {KEEP_EXPIRY: (self.quick & KEEPS_EXPIRY, True, False)}

    def limits_for(self, user: str, opcode: int) -> Limits | None:
        """Return the limits, in the bucket in use, of another user for whom this connection acts.

        :param opcode: the request's opcode.
        :raises StatusError: EACCESS if this connection may not act for others, or there is no such user;
            NOT_SUPPORTED for users of another domain.
        """
        if self.limits is not None and not self.limits.general & IMPERSONATE:
            raise lacks(IMPERSONATE, opcode)
        if user.startswith(_EXTERNAL):
            raise StatusError(Status.NOT_SUPPORTED, "users of another domain are not known here")
        if user not in self.node.cluster.users:
            raise StatusError(Status.EACCESS, f'User "{user}" is not a Couchbase user')
        used = self.bucket
        return limits_of(self.node.cluster.rights(user), None if used is None else used.name)

    def remember(self, framing: bytes, limits: Limits | None, *, keeps_expiry: bool, durable: bool) -> None:
        """Let :mod:`couchnode.kv.fastpath` handle requests with these framing extras, which act for a user
        with those limits.

        :param durable: whether they ask for a majority of the copies.
        """
        if len(self.framings) >= MAX_FRAMINGS:
            self.rights_changed()
        quick = quick_opcodes(limits, xattrs=self.xattrs)
        if durable:
            quick &= TAKES_LEVEL
        self.framings[framing] = (quick & KEEPS_EXPIRY if keeps_expiry else quick, keeps_expiry, durable)

    def begin_authentication(self) -> None:
        """Begin a login: nothing is allowed until the credentials are confirmed."""
        self.user = None
        self._standing = Standing.PROVING
        self.rights_changed()

    @property
    def is_certified(self) -> bool:
        """Whether a TLS certificate identifies the user, who then cannot change."""
        return self._standing is Standing.CERTIFIED

    def authenticated(self, user: str, standing: Standing = Standing.KNOWN) -> None:
        """Complete a login. A bucket with the user's own name is selected, as on servers before 5.0;
        otherwise the current bucket stays selected only if the user may use it."""
        self.user = user
        self._standing = standing
        own = self.node.buckets.get(user)
        if own is not None and self.may_use(user):
            self._bucket = own
        elif self._bucket is not None and not self.may_use(self._bucket.name):
            self._bucket = None
        self.rights_changed()

    def config(self) -> tuple[str | None, tuple[int, int]]:
        """Return the bucket name (``None`` without a bucket) and the revision of this connection's
        configuration."""
        bucket = self.bucket
        name = bucket.name if bucket is not None else None
        return name, self.node.cluster.config_revision(name)

    def config_push(self) -> bytes:
        """Encode the push of a configuration; empty if the client did not ask for pushes, or has this one."""
        brief = Feature.CLUSTERMAP_CHANGE_NOTIFICATION_BRIEF in self.features
        if not self.is_admitted or not (brief or Feature.CLUSTERMAP_CHANGE_NOTIFICATION in self.features):
            return b""
        name, revision = known = self.config()
        if self.known_config == known:
            return b""
        config = b""
        if not brief:
            self.known_config = known
            config = self.node.cluster.config_bytes(name, self.node)
        return encode_request(
            ServerOpcode.CLUSTERMAP_CHANGE,
            magic=Magic.SERVER_REQUEST,
            extras=_REVISION.pack(*revision),
            key=(name or "").encode(),
            value=config,
            datatype=self.datatype_mask if config else 0,
        )

    # ---- answers ---------------------------------------------------------------------------------

    def success(
        self,
        frame: Frame,
        *,
        extras: bytes = b"",
        key: bytes = b"",
        value: bytes = b"",
        cas: int = 0,
        datatype: int = 0,
        status: int = 0,
    ) -> bytes:
        """Encode an answer whose status counts as success; datatype bits not negotiated are masked."""
        return encode_response(
            frame.opcode,
            status,
            key=key,
            extras=extras,
            value=value,
            opaque=frame.opaque,
            cas=cas,
            datatype=datatype & self.datatype_mask,
        )

    def mutation(self, frame: Frame, uuid: int, seqno: int, cas: int, value: bytes = b"") -> bytes:
        """Encode the answer to a mutation, with its token if tokens were negotiated."""
        extras = self.token(uuid, seqno)
        return encode_response(frame.opcode, 0, extras=extras, value=value, opaque=frame.opaque, cas=cas)

    def token(self, uuid: int, seqno: int) -> bytes:
        """Encode a mutation token; empty if tokens were not negotiated."""
        return _TOKEN.pack(uuid, seqno) if self.tokens else b""

    def refusal(self, frame: Frame, status: int, context: str = "", manifest: str | None = None) -> bytes:
        """Encode an error answer, with a status that this client understands.

        May set :attr:`closing`: some statuses have no older equivalent, and the connection ends.
        """
        if not self.xerror:
            if status in _DISCONNECT_BEFORE_XERROR:
                self.closing = True
                return b""
            if status == Status.LOCKED and frame.opcode in _LOCK_COMMANDS:
                status = Status.ETMPFAIL
            elif status not in (Status.UNKNOWN_COLLECTION, Status.UNKNOWN_SCOPE) or not self.collections:
                status = _BEFORE_XERROR.get(Status(status), status)
        value, datatype = b"", 0
        if context and status not in SUCCESS_STATUSES:
            reference = str(uuid4())
            self.log.debug(
                "{peer}: opcode {opcode:#x} refused with {status:#x}: {context} ({reference})",
                peer=self.peer,
                opcode=frame.opcode,
                status=int(status),
                context=context,
                reference=reference,
            )
            value, datatype = error_payload(context, reference, manifest), self.datatype_mask & Datatype.JSON
        return encode_response(frame.opcode, status, opaque=frame.opaque, value=value, datatype=datatype)

    def not_my_vbucket(self, frame: Frame) -> bytes:
        """Encode NOT_MY_VBUCKET with the bucket's configuration, unless the client has it."""
        known = self.config()
        value = b""
        if Feature.DEDUPE_NOT_MY_VBUCKET_CLUSTERMAP not in self.features or self.known_config != known:
            value = self.node.cluster.config_bytes(known[0], self.node)
            self.known_config = known
        return encode_response(
            frame.opcode,
            Status.NOT_MY_VBUCKET,
            opaque=frame.opaque,
            value=value,
            datatype=self.datatype_mask & Datatype.JSON if value else 0,
        )


def error_payload(context: str, reference: str, manifest: str | None = None) -> bytes:
    """Return the JSON body of a refusal; ``manifest`` is a collections manifest uid in hex."""
    payload: dict[str, Any] = {} if manifest is None else {"manifest_uid": manifest}
    payload["error"] = {"context": context, "ref": reference}
    return to_json(payload)


def to_json(value: Any) -> bytes:
    """Encode compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()
