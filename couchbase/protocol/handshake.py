"""The handshake of a new connection: HELLO, SASL, SELECT_BUCKET, configuration.

One plan (see :mod:`couchbase.protocol.plans`) for every driver. Each exchange goes out in one
write, so a handshake with SCRAM costs four round trips and one without credentials two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.errormap import ERROR_MAP_VERSION, ServerStatus, parse_error_map
from couchbase.protocol.failures import error_context, status_name
from couchbase.protocol.frames import Frame
from couchbase.protocol.plans import Compute, Pause, RoundTrip
from couchbase.protocol.sasl import MECHANISMS, SaslFailure, ScramClient, encode_plain
from couchbase.protocol.statuses import RC_OF_STATUS

_U16 = Struct(">H")

LONGEST_PAUSES_SECONDS = 1.5
"""Limit on all pauses of a handshake together, in seconds; the timeout for connecting to a node is 2 s."""

FEATURES = (
    Feature.TCP_NODELAY,
    Feature.MUTATION_SEQNO,
    Feature.XATTR,
    Feature.XERROR,
    Feature.SELECT_BUCKET,
    Feature.DUPLEX,
    Feature.CLUSTERMAP_CHANGE_NOTIFICATION,
    Feature.ALT_REQUEST,
    Feature.SYNC_REPLICATION,
    Feature.PRESERVE_TTL,
    Feature.VATTR,
    Feature.COLLECTIONS,
    Feature.SUBDOC_REPLICA_READ,
)
"""Features that our clients request. Not JSON: flags describe a value, and a server that marks JSON may have
to parse each value that it sends. Not unordered execution: results for one key must arrive in the order of
its operations."""


class Credentials(NamedTuple):
    """The user of a connection. The password is kept as long as the connection exists, which needs it to
    reconnect."""

    user: str
    password: str

    def __repr__(self) -> str:
        # Tracebacks and logs that show credentials must not show the password.
        return f"Credentials(user={self.user!r})"


def credentials_for(bucket: str | None, username: str | None, password: str | None) -> Credentials | None:
    """Return the credentials for the arguments of SDK 1.2; ``None`` to skip authentication.

    A bucket without a password has a user with an empty password; ``default`` needs no user at all.
    """
    if not password and not username and (not bucket or bucket == "default"):
        return None
    return Credentials(username or bucket or "", password or "")


class HandshakeResult(NamedTuple):
    """The result of a handshake."""

    features: frozenset[int]
    config: bytes | None
    """The cluster map as the node sent it; ``None`` if the node sends no map over this protocol."""
    error_map: dict[int, ServerStatus]
    """The entries of the server's error map for unknown statuses, by status; empty without such a map."""

    @property
    def xerror(self) -> bool:
        """Whether the server uses extended statuses on this connection."""
        return Feature.XERROR in self.features


def handshake(
    *,
    agent: str,
    credentials: Credentials | None,
    bucket: str | None,
    nonce: str,
    plain_allowed: bool,
    prefer_plain: bool = False,
    features: Sequence[int] = FEATURES,
) -> Generator[Any, Any, HandshakeResult]:
    """Plan of a handshake.

    :param agent: name of the client program, shown in the server's logs.
    :param credentials: ``None`` skips SASL, for buckets that need none.
    :param bucket: bucket to select; ``None`` for a session of the cluster as a whole.
    :param nonce: fresh printable ASCII without a comma, used for SCRAM.
    :param plain_allowed: whether the password may be sent in clear over this connection: true over TLS, on
        loopback, or if the user allows it.
    :param prefer_plain: choose PLAIN before SCRAM, as official clients do over TLS (users of an
        external directory can log in no other way).
    :raises CouchbaseError: AuthError (credentials refused, or needed), BucketNotFoundError,
        TemporaryFailError (the node is not ready yet), rc 0x28 (no mechanism in common). For an unknown
        status: the error described by the server's error map, after retries if the map demands them.
    """
    opening = [hello(agent, tuple(features))]
    if credentials:
        opening.append((Opcode.SASL_LIST_MECHS, {}))
    granted, *listed = yield RoundTrip(opening)
    enabled = _enabled(granted)
    errors = _Errors(Feature.XERROR in enabled)
    if credentials:
        who = credentials
        yield from errors.insist(
            lambda: _authenticate(who, listed[0], nonce, plain_allowed, prefer_plain),
            f"user {who.user!r:.200} is not let in",
        )
    what = f"bucket {bucket!r} cannot be opened" if bucket else "the node sends no cluster map"
    try:
        config = yield from errors.insist(lambda: _open(bucket, credentials is not None, errors), what)
    except CouchbaseError as error:
        if error.status != Status.NOT_SUPPORTED or Feature.COLLECTIONS not in enabled:
            raise
        # A memcached bucket has no collections, and is not opened for a connection that uses them.
        others = tuple(one for one in features if one != Feature.COLLECTIONS)
        (granted,) = yield RoundTrip([hello(agent, others)])
        enabled = _enabled(granted)
        config = yield from errors.insist(lambda: _open(bucket, credentials is not None, errors), what)
    return HandshakeResult(enabled, config, errors.map)


@lru_cache(32)
def hello(agent: str, features: tuple[int, ...]) -> tuple[int, dict[str, Any]]:
    """Return the request for a connection's features, which replaces those it had.

    Every scan sends it, so it is kept; do not change it.
    """
    codes = b"".join(_U16.pack(code) for code in features)
    return Opcode.HELLO, {"key": json.dumps({"a": agent}).encode()[:250], "value": codes}


class _Errors:
    """The server's error map, for failures of the handshake itself.

    :param offered: whether the server has one.
    """

    def __init__(self, offered: bool) -> None:
        self.map: dict[int, ServerStatus] = {}
        self.is_due = offered

    @staticmethod
    def question() -> tuple[int, dict[str, Any]]:
        """Return the request for the map."""
        return Opcode.GET_ERROR_MAP, {"value": _U16.pack(ERROR_MAP_VERSION)}

    def take(self, answer: Frame) -> None:
        """Read the map."""
        self.is_due = False
        if answer.specific == Status.SUCCESS:
            self.map = parse_error_map(answer.value)

    def insist(self, part: Callable[[], Generator[Any, Any, Any]], what: str) -> Generator[Any, Any, Any]:
        """Perform a part of the handshake, and repeat it if the error map demands this for an unknown status.

        :param what: the beginning of the error's message.
        """
        attempt, spent = 0, 0.0
        while True:
            try:
                return (yield from part())
            except CouchbaseError as error:
                failure = error
            status = failure.status
            if status is None or status in RC_OF_STATUS:
                raise failure
            if self.is_due:
                (answer,) = yield RoundTrip([self.question()])
                self.take(answer)
            explained = self.map.get(status)
            if explained is None:
                raise failure
            delay = None if explained.reconnects else explained.delay(attempt)
            if delay is None or spent + delay > LONGEST_PAUSES_SECONDS:
                raise error_of(explained.code, f"{what}: {explained.words}", status=status) from failure
            yield Pause(delay)
            attempt, spent = attempt + 1, spent + delay


def _open(bucket: str | None, authenticated: bool, errors: _Errors) -> Generator[Any, Any, bytes | None]:
    """Select the bucket and get the configuration; request the error map with them, if necessary."""
    closing: list[tuple[int, dict[str, Any]]] = []
    if errors.is_due:
        closing.append(errors.question())
    if bucket:
        closing.append((Opcode.SELECT_BUCKET, {"key": bucket.encode()}))
    closing.append((Opcode.GET_CLUSTER_CONFIG, {}))
    answers = yield RoundTrip(closing)
    config = None
    for (opcode, _), answer in zip(closing, answers):
        if opcode == Opcode.GET_ERROR_MAP:
            errors.take(answer)
        elif opcode == Opcode.SELECT_BUCKET:
            _check_selected(answer, bucket or "", authenticated)
        else:
            config = _config(answer)
    return config


def _enabled(hello: Frame) -> frozenset[int]:
    # Servers older than HELLO answer "unknown command": nothing is enabled then.
    if hello.specific != Status.SUCCESS:
        return frozenset()
    value = hello.value
    return frozenset(code for (code,) in _U16.iter_unpack(value[: len(value) & ~1]))


def _authenticate(
    credentials: Credentials, listed: Frame, nonce: str, plain_allowed: bool, prefer_plain: bool
) -> Generator[Any, Any, None]:
    mechanism = choose_mechanism(listed.value.decode("ascii", "replace").split(), plain_allowed, prefer_plain)
    user, password = credentials
    name = mechanism.encode()
    if mechanism == "PLAIN":
        payload = encode_plain(user, password)
        (answer,) = yield RoundTrip([(Opcode.SASL_AUTH, {"key": name, "value": payload})])
        _check_authenticated(answer, user)
        return
    scram = ScramClient(mechanism, user, password, nonce)
    try:
        (answer,) = yield RoundTrip([(Opcode.SASL_AUTH, {"key": name, "value": scram.first()})])
        if answer.specific != Status.AUTH_CONTINUE:
            _check_authenticated(answer, user)
            raise SaslFailure("the server ended the exchange before it proved its identity")
        proof = yield Compute(scram.step, (answer.value,))
        (answer,) = yield RoundTrip([(Opcode.SASL_STEP, {"key": name, "value": proof})])
        _check_authenticated(answer, user)
        scram.finish(answer.value)
    except SaslFailure as failure:
        raise _error(
            exceptions.AUTH_ERROR, f"{mechanism} authentication of {user!r:.200} failed: {failure}"
        ) from failure


def choose_mechanism(offered: Iterable[str], plain_allowed: bool, prefer_plain: bool) -> str:
    """Choose among the mechanisms that a server offers.

    :raises CouchbaseError: rc 0x28, none of them can be used.
    """
    known = [name for name in MECHANISMS if name in set(offered)]
    if "PLAIN" in known and not plain_allowed:
        known.remove("PLAIN")
    if not known:
        hint = "" if plain_allowed else "; PLAIN is used only over TLS or loopback, unless allowed"
        raise _error(
            exceptions.SASLMECH_UNAVAILABLE, "the server offers no SASL mechanism that we can use" + hint
        )
    return "PLAIN" if prefer_plain and "PLAIN" in known else known[0]


def _check_authenticated(answer: Frame, user: str) -> None:
    status = answer.specific
    if status == Status.SUCCESS or status == Status.AUTH_CONTINUE:
        return
    if status in (Status.ETMPFAIL, Status.NOT_INITIALIZED, Status.EBUSY):
        raise _error(exceptions.ETMPFAIL, f"the node is not ready: {status_name(status)}", answer)
    raise _error(
        exceptions.AUTH_ERROR, f"the server refused user {user!r:.200}: {status_name(status)}", answer
    )


def _check_selected(answer: Frame, bucket: str, authenticated: bool) -> None:
    status = answer.specific
    # A server without SELECT_BUCKET serves the bucket that has the user's name.
    if status in (Status.SUCCESS, Status.UNKNOWN_COMMAND):
        return
    if status == Status.EACCESS and not authenticated:
        raise _error(
            exceptions.AUTH_ERROR, f"bucket {bucket!r} needs a user and a password, or does not exist", answer
        )
    if status in (Status.EACCESS, Status.KEY_ENOENT, Status.NO_BUCKET):
        raise _error(exceptions.BUCKET_ENOENT, f"no bucket {bucket!r}, or no access to it", answer)
    if status == Status.AUTH_ERROR:
        raise _error(exceptions.AUTH_ERROR, f"no access to bucket {bucket!r}", answer)
    raise _error(exceptions.ETMPFAIL, f"bucket {bucket!r} cannot be opened: {status_name(status)}", answer)


def _config(answer: Frame) -> bytes | None:
    status = answer.specific
    if status == Status.SUCCESS:
        return answer.value or None
    if status in (Status.KEY_ENOENT, Status.UNKNOWN_COMMAND, Status.NOT_SUPPORTED, Status.NO_BUCKET):
        return None
    if status in (Status.EACCESS, Status.AUTH_ERROR):
        raise _error(exceptions.AUTH_ERROR, "the server requires a user and a password", answer)
    raise _error(exceptions.ETMPFAIL, f"the node sends no cluster map: {status_name(status)}", answer)


def no_map(name: str, management_port: int | None) -> CouchbaseError:
    """Return the error for a node that sends no cluster map over the key-value protocol.

    :param name: ``host:port`` of the node.
    :param management_port: the port to ask for the map next; ``None`` if there is none.
    """
    hint = "" if management_port else "; connect with http://host:port of its cluster manager"
    return _error(exceptions.NOT_SUPPORTED, f"{name} sends no cluster map over the key-value protocol{hint}")


def _error(code: int, message: str, answer: Frame | None = None) -> CouchbaseError:
    if answer is None:
        return error_of(code, message)
    return error_of(code, message, status=answer.specific, context=error_context(answer))
