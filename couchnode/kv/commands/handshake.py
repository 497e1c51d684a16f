"""Commands of the handshake: features, credentials, bucket, configuration."""

from __future__ import annotations

import secrets
from functools import lru_cache
from struct import Struct

from twisted.internet.defer import Deferred, maybeDeferred

from couchbase.protocol.constants import Datatype, Feature, Opcode, Status
from couchbase.protocol.sasl import MECHANISMS, SaslFailure, SaslMalformed, ScramServer, parse_plain
from couchnode.data.item import StatusError
from couchnode.kv import snappy
from couchnode.kv.commands.request import Answer, CommandRequest
from couchnode.kv.commands.table import CasRule, Presence, Scope, command
from couchnode.kv.errormap import ERROR_MAP_VERSION, error_map
from couchnode.kv.session import to_json

_U16 = Struct(">H")
_VERSION = Struct(">qq")
_MAX_AGENT_CHARACTERS = 256
_MAX_KNOWN_BYTES = 128
_MAX_FEATURES = 2**16
_PLAIN = "PLAIN"
_NO_BUCKET = b"@no bucket@"

FEATURES = frozenset(
    {
        Feature.TCP_NODELAY,
        Feature.MUTATION_SEQNO,
        Feature.XATTR,
        Feature.XERROR,
        Feature.SELECT_BUCKET,
        Feature.JSON,
        Feature.DUPLEX,
        Feature.CLUSTERMAP_CHANGE_NOTIFICATION,
        Feature.ALT_REQUEST,
        Feature.SYNC_REPLICATION,
        Feature.COLLECTIONS,
        Feature.PRESERVE_TTL,
        Feature.VATTR,
        Feature.SUBDOC_CREATE_AS_DELETED,
        Feature.SUBDOC_DOCUMENT_MACRO,
        Feature.SUBDOC_REPLACE_BODY_WITH_XATTR,
        Feature.SUBDOC_MULTIPLE_XATTR_KEYS,
        Feature.SUBDOC_BINARY_XATTR,
        Feature.SUBDOC_REPLICA_READ,
        Feature.GET_CLUSTER_CONFIG_WITH_KNOWN_VERSION,
        Feature.DEDUPE_NOT_MY_VBUCKET_CLUSTERMAP,
        Feature.CLUSTERMAP_CHANGE_NOTIFICATION_BRIEF,
        Feature.RANGE_SCAN_INCLUDE_XATTR,
        Feature.TRACING,
        *snappy.FEATURES,
        *({Feature.GET_RANDOM_KEY_INCLUDE_XATTR} if snappy.FEATURES else ()),
    }
)
"""Features that this node supports. Not among them: answers out of order."""

_NEEDS = {
    Feature.CLUSTERMAP_CHANGE_NOTIFICATION: (Feature.DUPLEX,),
    Feature.CLUSTERMAP_CHANGE_NOTIFICATION_BRIEF: (Feature.DUPLEX,),
    Feature.VATTR: (Feature.XATTR,),
    Feature.SUBDOC_DOCUMENT_MACRO: (Feature.XATTR,),
    Feature.RANGE_SCAN_INCLUDE_XATTR: (Feature.XATTR,),
    Feature.GET_RANDOM_KEY_INCLUDE_XATTR: (Feature.XATTR, Feature.JSON, Feature.SNAPPY_EVERYWHERE),
}
"""Feature -> the features that a client must request with it."""


@command(Opcode.HELLO, scope=Scope.HANDSHAKE, key=Presence.OPTIONAL, value=Presence.OPTIONAL)
def hello(request: CommandRequest) -> Answer:
    """MCBP: hello. Every call replaces all features."""
    value = request.frame.value
    # A client that scans asks twice for every scan, always for the same features.
    enabled, codes = _known_features(value) if len(value) <= _MAX_KNOWN_BYTES else _features(value)
    request.session.set_features(enabled)
    request.session.agent = request.frame.key.decode("utf-8", "replace")[:_MAX_AGENT_CHARACTERS]
    return request.session.success(request.frame, value=codes)


def _features(value: bytes) -> tuple[frozenset[int], bytes]:
    """Return the features that a request gets, and their codes.

    :raises StatusError: EINVAL.
    """
    if len(value) % 2:
        raise StatusError(Status.EINVAL, "the list of features has an odd length")
    if len(value) > _MAX_FEATURES * _U16.size:
        count = len(value) // _U16.size
        raise StatusError(Status.EINVAL, f"the list has {count} features; there are {_MAX_FEATURES} codes")
    asked = {code for (code,) in _U16.iter_unpack(value)}
    for feature, needs in _NEEDS.items():
        missing = [need.name for need in needs if need not in asked]
        if feature in asked and missing:
            raise StatusError(Status.EINVAL, f"feature {feature.name} needs {', '.join(missing)}")
    enabled = FEATURES & asked
    return enabled, b"".join(_U16.pack(code) for code in sorted(enabled))


_known_features = lru_cache(64)(_features)


@command(Opcode.SASL_LIST_MECHS, scope=Scope.HANDSHAKE)
def sasl_list_mechanisms(request: CommandRequest) -> Answer:
    """MCBP: SASL list mechanisms, strongest first."""
    _require_password(request)
    return request.session.success(request.frame, value=" ".join(MECHANISMS).encode())


@command(
    Opcode.SASL_AUTH, scope=Scope.HANDSHAKE, key=Presence.REQUIRED, value=Presence.OPTIONAL, barrier=True
)
def sasl_auth(request: CommandRequest) -> Answer:
    """MCBP: SASL auth. A failure leaves the connection open, and unauthenticated."""
    _require_password(request)
    session, payload = request.session, request.frame.value
    if session.scram is not None:
        session.scram = None
        raise StatusError(Status.EINVAL, "SASL_STEP was expected")
    mechanism = request.frame.key.decode("ascii", "replace").upper()
    session.begin_authentication()
    if mechanism not in MECHANISMS:
        raise StatusError(Status.AUTH_ERROR, "the mechanism is not offered")
    if mechanism == _PLAIN:
        return _plain(request, payload)
    users = session.node.cluster.users
    exchange = ScramServer(
        mechanism,
        lambda user: users.scram_credential(mechanism, user),
        secrets.token_urlsafe(24),
        users.decoy_salt,
    )
    try:
        challenge = exchange.first(payload)
    except SaslMalformed as error:
        raise StatusError(Status.EINVAL, str(error)) from error
    session.scram = exchange
    return session.success(request.frame, value=challenge, status=Status.AUTH_CONTINUE)


@command(Opcode.SASL_STEP, scope=Scope.HANDSHAKE, key=Presence.REQUIRED, value=Presence.OPTIONAL)
def sasl_step(request: CommandRequest) -> Answer:
    """MCBP: SASL step, the second and last of SCRAM."""
    _require_password(request)
    session = request.session
    exchange, session.scram = session.scram, None
    if exchange is None:
        raise StatusError(Status.EINVAL, "SASL_AUTH comes first")
    if request.frame.key.decode("ascii", "replace").upper() != exchange.mechanism:
        raise StatusError(Status.EINVAL, "the mechanism is not that of SASL_AUTH")
    try:
        proof = exchange.final(request.frame.value)
    except SaslMalformed as error:
        raise StatusError(Status.EINVAL, str(error)) from error
    except SaslFailure as error:
        raise _denied(request, exchange.username) from error
    session.authenticated(exchange.username)
    return session.success(request.frame, value=proof)


def _require_password(request: CommandRequest) -> None:
    """Refuse a login on a connection that is authenticated by its certificate."""
    if request.session.is_certified:
        raise StatusError(Status.NOT_SUPPORTED, "the connection is authenticated by its certificate")


def _plain(request: CommandRequest, payload: bytes) -> Deferred[bytes]:
    session = request.session
    try:
        _, user, password = parse_plain(payload)
    except SaslMalformed as error:
        raise StatusError(Status.EINVAL, str(error)) from error

    def checked(right: bool) -> bytes:
        if not right:
            raise _denied(request, user)
        session.authenticated(user)
        return session.success(request.frame)

    return maybeDeferred(session.node.cluster.users.verify, user, password).addCallback(checked)


def _denied(request: CommandRequest, user: str) -> StatusError:
    session = request.session
    session.log.info("{peer}: authentication failed for {user!r}", peer=session.peer, user=user[:128])
    return StatusError(Status.AUTH_ERROR, "wrong user name or password")


@command(Opcode.SELECT_BUCKET, scope=Scope.SESSION, key=Presence.REQUIRED, cas=CasRule.ANY)
def select_bucket(request: CommandRequest) -> Answer:
    """MCBP: select bucket.

    A missing bucket is answered like a forbidden one, even to users who may use all: clients treat KEY_ENOENT
    as a bucket that is still being created, and wait for it.
    """
    session, key = request.session, request.frame.key
    if key == _NO_BUCKET:
        session.select(None)
        return session.success(request.frame)
    name = key.decode("utf-8", "replace")
    bucket = session.node.buckets.get(name)
    if bucket is None or not session.may_use(name):
        raise StatusError(Status.EACCESS, f"no bucket {name!r}, or no right to use it")
    session.select(bucket)
    return session.success(request.frame)


@command(Opcode.LIST_BUCKETS, scope=Scope.SESSION, cas=CasRule.ANY)
def list_buckets(request: CommandRequest) -> Answer:
    """MCBP: list buckets: those that this connection may use."""
    names = [name for name in request.session.node.buckets if request.session.may_use(name)]
    return request.session.success(request.frame, value=" ".join(names).encode())


@command(Opcode.GET_CLUSTER_CONFIG, scope=Scope.SESSION, extras=(0, 16))
def get_cluster_config(request: CommandRequest) -> Answer:
    """MCBP: get cluster config. Empty if the client already has this version."""
    session = request.session
    name, revision = session.config()
    if request.frame.extras and _VERSION.unpack(request.frame.extras) >= revision:
        return session.success(request.frame)
    session.known_config = (name, revision)
    config = session.node.cluster.config_bytes(name, session.node)
    return session.success(request.frame, value=config, datatype=Datatype.JSON)


@command(Opcode.GET_ERROR_MAP, scope=Scope.HANDSHAKE, value=Presence.REQUIRED, zero_vbucket=True)
def get_error_map(request: CommandRequest) -> Answer:
    """MCBP: get error map, in the newest version that both sides know."""
    value = request.frame.value
    if len(value) != _U16.size:
        raise StatusError(Status.EINVAL, f"the version has 2 bytes, not {len(value)}")
    version = min(_U16.unpack(value)[0], ERROR_MAP_VERSION)
    if not version:
        raise StatusError(Status.EINVAL, "there is no version 0 of the error map")
    return request.session.success(request.frame, value=_error_map_bytes(version), datatype=Datatype.JSON)


@lru_cache(maxsize=ERROR_MAP_VERSION)
def _error_map_bytes(version: int) -> bytes:
    return to_json(error_map(version))
