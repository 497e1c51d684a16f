"""The authorizer of a gateway with rules: identifies the caller and checks whether a rule allows the request.

The caller behind a header and the decisions for that caller are cached: a repeated request costs three
dictionary lookups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gateway.access.actions import ENDPOINTS, OPERATION_ACTIONS, OTHER, SERVICES, UNKNOWN, Extent, Need
from gateway.access.refusals import AccessDenied
from gateway.access.rights import Bound, Denied, Identity, Rights
from gateway.access.rules import RuleTable
from gateway.access.ways import Way
from gateway.cluster.credentials import CallerCredentials, Passthrough
from gateway.dialect.errors import Refusal, bad_request
from gateway.http.known import Known, KnownBySize
from gateway.http.request import NotYet, Request

__all__ = ["Charge", "Confirm", "Gatekeeper", "Granted"]

_KNOWN_CALLERS = 2048
_KNOWN_BYTES = 8 << 20
"""Memory for callers in each of the tables: names and claims may be nearly as long as a head."""
_UNCONFIRMED_BYTES = 2 << 20
"""The same for those with a password that nobody has confirmed yet: anyone can send them."""
_CALLER_BYTES, _TEXT_BYTES = 1500, 60
"""What a caller takes without its texts, and a text without its characters."""
_KNOWN_GRANTS = 64
_NAMES = ("bucket", "scope", "collection")
_LONGEST_NAME = 251
_KEY = b"X-API-Key "
"""Prefix of a value that is handled like ``Authorization`` but came from ``X-API-Key``."""

Confirm = Callable[[CallerCredentials], "Deferred[Any]"]
"""Asks the cluster whether credentials are valid; fails if not."""

Charge = Callable[[Request, str], object]
"""Counts a request of the caller with this name; raises Refusal (429) if the caller exceeds its limit."""


class Caller:
    """A recognised caller, with its rights and the decisions made for it."""

    __slots__ = ("grants", "identity", "mark", "rights", "until")

    def __init__(self, identity: Identity, rights: Rights, until: float, mark: str) -> None:
        self.identity = identity
        self.rights = rights
        self.until = until
        """Unix time until which the caller may be recognised without another check."""
        self.mark = mark
        """Identifies the caller, for rate limits."""
        self.grants: Known[tuple[str, tuple[bytes | None, ...]], Granted] = Known(_KNOWN_GRANTS)


class Granted(CallerCredentials):
    """The credentials with which a caller's request is carried out at the cluster."""

    __slots__ = ("_own", "account", "caller")

    def __init__(self, caller: Caller, own: CallerCredentials, account: str | None) -> None:
        self.caller = caller
        self.user = own.user
        self.digest = own.digest
        self._own = own
        self.account = account
        """Name of the account in the table of rules; ``None``: the caller's own, or the service account."""

    @property
    def password(self) -> str:
        """The password of the account."""
        return self._own.password

    @property
    def stands_for_anyone(self) -> bool:  # type: ignore[override]
        """Whether the caller is anonymous."""
        return self.caller.identity.kind == "anyone"

    @property
    def name(self) -> str:
        """The caller's own name."""
        return self.caller.identity.name

    def line_check(self, bucket: str) -> Callable[[str, tuple[str, str]], None] | None:
        """Return a function that checks the operations of a batch; ``None`` if all are allowed.

        It takes an operation's name, and scope and collection; it raises Refusal (403).
        """
        rights, account = self.caller.rights, self.account
        if rights.is_total(bucket, account):
            return None

        decided: Known[tuple[str, tuple[str, str]], Denied | None] = Known(_KNOWN_GRANTS)

        def check(operation: str, place: tuple[str, str]) -> None:
            key = (OPERATION_ACTIONS[operation], place)
            if key in decided:
                denied = decided[key]
            else:
                denied = decided.learn(key, rights.line_denied(key[0], bucket, place, account))
            if denied is not None:
                raise AccessDenied(denied)

        return check

    def shows(self, bucket: str, scope: str | None = None, collection: str | None = None) -> bool:
        """Return whether a list may show this to the caller."""
        return self.caller.rights.shows(bucket, scope, collection)


class Gatekeeper:
    """Recognises callers by one or several methods, and applies the table of rules.

    :param ways: tried in this order.
    :param table: returns the current rules.
    :param service: the account of rules that name none; ``None``: there is none.
    :param basic: reads HTTP Basic; ``None``: the gateway does not accept HTTP Basic.
    :param secret: 16 to 64 random bytes, new in each process.
    :param now: returns the Unix time in seconds.
    """

    # Many parameters: the parts that the settings choose; keywords.
    def __init__(
        self,
        ways: Iterable[Way],
        *,
        table: Callable[[], RuleTable],
        service: CallerCredentials | None,
        basic: Passthrough | None,
        confirm: Confirm,
        charge: Charge | None,
        secret: bytes,
        now: Callable[[], float],
    ) -> None:
        self._ways = list(ways)
        self._table = table
        self._service = service
        self._basic = basic
        self._confirm = confirm
        self._charge = charge
        self._secret = secret
        # Copying a keyed hash costs less than making one.
        self._marks = blake2b(key=secret, digest_size=32)
        self._now = now
        self._callers: KnownBySize[bytes, Caller] = KnownBySize(_KNOWN_CALLERS, _KNOWN_BYTES)
        # Callers without a header of their own; and callers with a password, by digest. They have separate
        # tables: otherwise a client could make up a header whose hash equals such a digest.
        self._by_identity: KnownBySize[tuple[str, str, frozenset[tuple[str, str]]], Caller] = KnownBySize(
            _KNOWN_CALLERS, _KNOWN_BYTES
        )
        self._by_digest: KnownBySize[bytes, Caller] = KnownBySize(_KNOWN_CALLERS, _UNCONFIRMED_BYTES)
        self._accounts: dict[str, CallerCredentials] = {}
        self._followers: dict[object, Callable[[], object]] = {}
        self.schemes: Mapping[str, Mapping[str, object]] = {
            name: scheme for way in self._ways for name, scheme in way.schemes.items()
        }
        """See :class:`gateway.cluster.credentials.Authorizer`."""
        self._challenges = tuple(
            (b"WWW-Authenticate", challenge)
            for challenge in dict.fromkeys(way.challenge for way in self._ways)
            if challenge
        )

    def forget(self) -> None:
        """Forget all decisions, because rules or keys have changed."""
        for cache in (self._callers, self._by_identity, self._by_digest, self._accounts):
            cache.clear()
        for changed in list(self._followers.values()):
            changed()

    def follow(self, changed: Callable[[], object]) -> Callable[[], object]:
        """See :class:`gateway.cluster.credentials.Authorizer`."""
        follower = object()
        self._followers[follower] = changed
        return partial(self._followers.pop, follower, None)

    def identify(self, request: Request) -> CallerCredentials:
        """Return the credentials with which a request is carried out.

        :raises Refusal: 400, 401, 403, or 429.
        :raises NotYet: the answer is only known later.
        """
        headers = request.headers
        header: Any = headers.get(b"authorization")
        if b"x-api-key" in headers:
            key = headers[b"x-api-key"]
            # Both are refused below, as is a header that is given twice.
            header = _KEY + key if header is None and key.__class__ is bytes else None
        if header.__class__ is not bytes:
            return self._recognise(request, None, b"")
        marks = self._marks.copy()
        marks.update(header)
        mark = marks.digest()
        caller = self._callers.get(mark)
        if caller is None or self._now() >= caller.until:
            return self._recognise(request, header, mark)
        if self._charge is not None and request.caller is None:
            self._charge(request, caller.mark)
        endpoint = request.endpoint
        names = tuple(map(request.parameters.get, _NAMES))
        grant = caller.grants.get(("" if endpoint is None else endpoint.name, names))
        return grant or self._grant(request, caller)

    # ---- who -------------------------------------------------------------------------------------

    def _recognise(self, request: Request, header: bytes | None, mark: bytes) -> CallerCredentials:
        if header is None:
            # This refuses duplicate headers.
            header = request.header(b"Authorization")
            key = request.header(b"X-API-Key")
            if header is not None and key is not None:
                raise bad_request("Authorization and X-API-Key both say who calls; send one of them")
            if key is not None:
                header = _KEY + key
            if header is not None:
                mark = blake2b(header, key=self._secret, digest_size=32).digest()
        scheme = b"" if header is None else header.partition(b" ")[0].lower()
        if scheme == b"basic" and self._basic is not None:
            return self._own(request, self._basic.identify(request))
        for way in self._ways:
            found = way.recognise(
                request, scheme, b"" if header is None else header[len(scheme) + 1 :].strip()
            )
            if found is not None:
                identity, until = found
                if header is not None and until > 0:
                    caller = self._caller(identity, until)
                    self._callers.learn_sized(mark, caller, _size(identity))
                else:
                    caller = self._known(identity)
                if self._charge is not None and request.caller is None:
                    self._charge(request, caller.mark)
                return self._grant(request, caller)
        raise Refusal("Unauthorized", self._wanted(scheme), resource="", headers=self._challenges)

    def _wanted(self, scheme: bytes) -> str:
        accepted = ", ".join(dict.fromkeys(way.words for way in self._ways))
        if not scheme:
            return f"Credentials are required: {accepted}."
        return f"These credentials are of a kind that is not accepted; expected {accepted}."

    def _caller(self, identity: Identity, until: float, *, own_only: bool = False) -> Caller:
        rights = Rights(self._table(), identity, own_only=own_only)
        return Caller(identity, rights, until, f"{identity.kind}:{identity.name}")

    def _known(self, identity: Identity) -> Caller:
        key = identity[:3]
        found = self._by_identity.get(key)
        return found or self._by_identity.learn_sized(key, self._caller(identity, 0.0), _size(identity))

    def _own(self, request: Request, own: CallerCredentials) -> CallerCredentials:
        """Return the grant for a password that the cluster has not confirmed yet."""
        caller = self._by_digest.get(own.digest)
        if caller is None:
            identity = Identity("user", own.user, frozenset({("user", own.user)}), {"name": own.user})
            caller = self._caller(identity, 0.0, own_only=True)
            self._by_digest.learn_sized(own.digest, caller, _size(identity))
            # Not by name: whoever sends wrong passwords must not use up another's limit.
            caller.mark = own.digest.hex()
        if self._charge is not None and request.caller is None:
            self._charge(request, caller.mark)
        try:
            self._rule(request, caller)
        except Denied as denied:
            # Only the user may know about the rules.
            refusal = Failure(AccessDenied(denied))
            raise NotYet(self._confirm(own).addCallback(lambda _: refusal)) from None
        return Granted(caller, own, None)

    # ---- what ------------------------------------------------------------------------------------

    def _rule(self, request: Request, caller: Caller) -> Bound:
        parameters = request.parameters
        endpoint = request.endpoint
        need = UNKNOWN if endpoint is None else ENDPOINTS.get(endpoint.name, UNKNOWN)
        if "service" in parameters:
            action = SERVICES.get(parameters["service"], OTHER)
            return caller.rights.rule_for(Need(frozenset((action,)), Extent.CLUSTER))
        if need is UNKNOWN and "bucket" in parameters:
            # The endpoint of a plugin that wants a connection to this bucket.
            need = Need(UNKNOWN.actions, Extent.BUCKET)
        if need.extent in (Extent.ANYTHING, Extent.CLUSTER):
            return caller.rights.rule_for(need)
        if "bucket" not in parameters:
            return caller.rights.rule_for(UNKNOWN)
        return caller.rights.rule_for(
            need,
            _name(parameters["bucket"]),
            _name(parameters.get("scope", b"_default")),
            _name(parameters.get("collection", b"_default")),
        )

    def _grant(self, request: Request, caller: Caller) -> Granted:
        try:
            rule = self._rule(request, caller)
        except Denied as denied:
            raise AccessDenied(denied, is_token=caller.identity.kind == "token") from None
        grant = Granted(caller, self._account(rule), rule.account)
        parameters = request.parameters
        if "service" in parameters:
            # The key of the cache says nothing of it.
            return grant
        names = tuple(map(parameters.get, _NAMES))
        if request.endpoint is not None and all(name is None or len(name) <= _LONGEST_NAME for name in names):
            caller.grants.learn((request.endpoint.name, names), grant)
        return grant

    def _account(self, rule: Bound) -> CallerCredentials:
        name = rule.account
        if name is None:
            if self._service is None:
                raise AccessDenied(Denied(rule.name, "anything, as it names no account"))
            return self._service
        known = self._accounts.get(name)
        if known is None:
            account = self._table().accounts[name]
            known = CallerCredentials(account.user, account.password, self._secret)
            self._accounts[name] = known
        return known


def _size(identity: Identity) -> int:
    """Estimate the bytes that a caller takes in memory, rather too many."""
    texts = [identity.name, *(value for _, value in identity.facts)]
    for name, value in identity.values.items():
        texts += name, value
    characters = sum(len(text) if text.isascii() else 4 * len(text) for text in texts)
    return _CALLER_BYTES + _TEXT_BYTES * len(texts) + characters


def _name(value: bytes) -> str:
    """Return a name from a path; what is not UTF-8 becomes a name that no rule lists."""
    return value.decode("utf-8", "replace")
