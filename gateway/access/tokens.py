"""Verification of JSON Web Tokens (RFC 7519, with the advice of RFC 8725).

PyJWT checks signature, issuer and audience. Before that, this module decides whether a token is considered at
all, and with which key and algorithm it is checked. Afterwards it checks the token's times.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jwt

from gateway.access.jwks import ALGORITHMS, KeySet
from gateway.access.rights import Identity

__all__ = ["LONGEST_TOKEN", "TokenRefused", "TokenTerms", "UnknownKey", "Verified", "identity_of", "verify"]

LONGEST_TOKEN = 8192
"""Longest token in bytes."""

_SHAPE = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_LONGEST_KID = 256
_MOST_BRACKETS = 200
_LONGEST_VALUE = 1024
_MOST_FACTS = 200
_LATEST = 2.0**53


class TokenRefused(Exception):
    """A token is not accepted; the text says why, for its sender."""


class UnknownKey(TokenRefused):
    """A token names a key that is not in the set; a newer set may have it."""


class TokenTerms(NamedTuple):
    """The claims that tokens must have."""

    issuer: str
    audiences: tuple[str, ...]
    skew_seconds: float = 0.0
    """Tolerance for different clocks, in seconds."""


class Verified(NamedTuple):
    """An accepted token."""

    claims: Mapping[str, Any]
    until: float
    """Unix time from which on the token is no longer accepted."""


def verify(token: bytes, keys: KeySet, terms: TokenTerms, now: float) -> Verified:
    """Check a token.

    :param now: Unix time.
    :raises TokenRefused: the token is not accepted.
    """
    if len(token) > LONGEST_TOKEN:
        raise TokenRefused(f"the token has {len(token)} bytes; at most {LONGEST_TOKEN} are accepted")
    shape = _SHAPE.fullmatch(token)
    if shape is None:
        raise TokenRefused("the token is not a signed JSON Web Token: three parts in base64url")
    header = _json_object(shape[1], "header")
    algorithm = _algorithm(header)
    kid = header.get("kid")
    if "kid" in header and not (isinstance(kid, str) and len(kid) <= _LONGEST_KID):
        raise TokenRefused("the token's kid must be a short string")
    key = keys.find(kid, algorithm)
    if key is None:
        if kid is not None and not keys.knows(kid):
            raise UnknownKey("the token names a key that is not known")
        raise TokenRefused(f"there is no key for the token's algorithm {algorithm}")
    try:
        decoded = jwt.decode_complete(
            token,
            key.key,
            algorithms=[key.algorithm],
            audience=list(terms.audiences),
            issuer=terms.issuer,
            # Checked below, with the gateway's clock.
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "require": ["exp", "sub"],
            },
        )
    except jwt.InvalidSignatureError:
        raise TokenRefused("the token's signature is wrong") from None
    except jwt.InvalidAudienceError:
        raise TokenRefused("the token is for another audience") from None
    except jwt.InvalidIssuerError:
        raise TokenRefused("the token is from another issuer") from None
    except jwt.MissingRequiredClaimError as error:
        raise TokenRefused(f"the token lacks the claim {error.claim}") from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
        raise TokenRefused("the token is malformed") from None
    # PyJWT takes the last of repeated claims; others may take the first.
    claims = _json_object(shape[2], "payload")
    if claims != decoded["payload"]:
        raise TokenRefused("the token is malformed")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_VALUE:
        raise TokenRefused("the token's claim sub is not a short string")
    if not _is_text(subject):
        # The claim is the caller's name in the access log and in metrics, which are UTF-8.
        raise TokenRefused("the token's claim sub contains half of a surrogate pair")
    return Verified(claims, _validity(claims, terms.skew_seconds, now))


def _is_text(value: str) -> bool:
    """Return whether a string of JSON can be written in UTF-8."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _algorithm(header: Mapping[str, Any]) -> str:
    if "crit" in header:
        # RFC 7515 4.1.11: crit lists extensions that the receiver must support; the gateway supports none.
        raise TokenRefused("the token's header has crit, but no extensions are supported")
    kind = header.get("typ")
    if kind is not None and not (isinstance(kind, str) and kind.lower() in _TYPES):
        raise TokenRefused("the token's typ is not that of an access token")
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise TokenRefused(f"the token's algorithm is not one of {', '.join(ALGORITHMS)}")
    return str(algorithm)


def _validity(claims: Mapping[str, Any], skew: float, now: float) -> float:
    """Return the Unix time until which the token is accepted."""
    times = {}
    for name in ("exp", "nbf", "iat"):
        if name not in claims:
            continue
        value = claims[name]
        if type(value) not in (int, float) or not 0 <= value <= _LATEST:
            raise TokenRefused(f"the token's claim {name} is not a time")
        times[name] = float(value)
    until = times["exp"] + skew
    if now >= until:
        raise TokenRefused("the token has expired")
    if times.get("nbf", 0.0) > now + skew or times.get("iat", 0.0) > now + skew:
        raise TokenRefused("the token is not valid yet")
    return until


def _json_object(part: bytes, what: str) -> dict[str, Any]:
    """Decode a part of a token; repeated members and deep nesting are refused."""
    try:
        text = urlsafe_b64decode(part + b"=" * (-len(part) % 4)).decode("utf-8")
        if text.count("{") + text.count("[") > _MOST_BRACKETS:
            raise TokenRefused(f"the token's {what} is nested too deep")
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise TokenRefused(f"the token's {what} is not JSON with distinct names") from None
    if not isinstance(found, dict):
        raise TokenRefused(f"the token's {what} is not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a repeated name")
    return members


def _no_constant(text: str) -> Any:
    raise ValueError(text)


# ---- claims --------------------------------------------------------------------------------------


def identity_of(claims: Mapping[str, Any]) -> Identity:
    """Return the identity of the bearer of a verified token."""
    subject = str(claims["sub"])
    facts = {("subject", subject)}
    values: dict[str, str] = {}
    for path, value in _leaves(claims, ""):
        if len(facts) >= _MOST_FACTS:
            raise TokenRefused(f"the token has more than {_MOST_FACTS} values")
        if len(value) > _LONGEST_VALUE:
            continue
        facts.add(("claim", f"{path}={value}"))
        if path == "groups":
            facts.add(("group", value))
        # A list has no single value, so it cannot replace a name.
        values[path] = "" if path in values else value
    values["name"] = subject
    return Identity("token", subject, frozenset(facts), values)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each string, integer and boolean in a claim."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            # These characters would make a path ambiguous in a rule.
            if not set(name) & set("=*{}"):
                yield from _leaves(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one, path)
    elif isinstance(value, bool):
        yield path, str(value).lower()
    elif isinstance(value, (str, int)):
        yield path, str(value)
