"""The keys that sign tokens: a JSON Web Key Set (RFC 7517)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jwt

from gateway.access.files import ReadFile, read_file

__all__ = [
    "ALGORITHMS",
    "LARGEST_SET",
    "KeySet",
    "SigningKey",
    "WrongKeySet",
    "parse_key_set",
    "read_key_set",
]

ALGORITHMS = ("RS256", "ES256", "EdDSA", "HS256")
"""Accepted algorithms; the last one only for key sets in files."""

LARGEST_SET = 2**18
"""Largest set in bytes."""

_MOST_KEYS = 100
_LEAST_RSA_BITS = 2048
_MOST_RSA_BITS = 8192
_LEAST_SECRET_BYTES = 32
_LONGEST_KID = 256
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})


class WrongKeySet(ValueError):
    """A key set is invalid; the text says why."""


class SigningKey(NamedTuple):
    """A key, with the one algorithm that it may be used for."""

    kid: str | None
    algorithm: str
    key: Any
    """The key object for PyJWT."""


class KeySet:
    """Keys by their id. The algorithm belongs to the key: a token cannot choose it."""

    def __init__(self, keys: list[SigningKey]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._keys)

    def find(self, kid: str | None, algorithm: str) -> SigningKey | None:
        """Return the key with an id for an algorithm; without an id, the only key for that algorithm."""
        found = [key for key in self._keys if key.algorithm == algorithm and (kid is None or key.kid == kid)]
        return found[0] if found and (kid is not None or len(found) == 1) else None

    def knows(self, kid: str) -> bool:
        """Return whether there is a key with this id."""
        return any(key.kid == kid for key in self._keys)


def read_key_set(path: str, read: ReadFile = read_file) -> KeySet:
    """Read a key set from a file, which may contain HS256 secrets.

    :param read: returns the content of a file.
    :raises WrongKeySet: the file cannot be read, or has no usable key.
    """
    try:
        return parse_key_set(read(path, LARGEST_SET), secrets=True)
    except ValueError as error:
        raise WrongKeySet(f"{path}: {error}") from None


def parse_key_set(content: bytes, *, secrets: bool) -> KeySet:
    """Parse a key set; keys for other purposes or algorithms are left out.

    :param secrets: whether HS256 secrets are accepted.
    :raises WrongKeySet: the text is not a key set, or has no usable key.
    """
    if len(content) > LARGEST_SET:
        raise WrongKeySet(f"it has {len(content)} bytes; at most {LARGEST_SET} are allowed")
    try:
        members = json.loads(content)
    except (ValueError, RecursionError):
        raise WrongKeySet("it is not JSON") from None
    rows = members.get("keys") if isinstance(members, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise WrongKeySet('expected a JSON Web Key Set: {"keys": [{"kty": ...}, ...]}')
    if len(rows) > _MOST_KEYS:
        raise WrongKeySet(f"it has {len(rows)} keys; at most {_MOST_KEYS} are allowed")
    keys = [key for row in rows if (key := _signing_key(row, secrets=secrets)) is not None]
    if not keys:
        allowed = ALGORITHMS if secrets else ALGORITHMS[:-1]
        raise WrongKeySet(f"it has no valid key for {', '.join(allowed)}")
    return KeySet(keys)


def _algorithm(row: Mapping[str, Any]) -> str | None:
    """Return the algorithm that a key is for."""
    kind, curve = row.get("kty"), row.get("crv")
    found = {
        ("RSA", None): "RS256",
        ("EC", "P-256"): "ES256",
        ("OKP", "Ed25519"): "EdDSA",
        ("oct", None): "HS256",
    }.get((kind, curve) if isinstance(kind, str) and isinstance(curve, str | None) else ("", None))
    given = row.get("alg")
    # RFC 9864 calls EdDSA with this curve Ed25519.
    return found if given in (None, found) or (found == "EdDSA" and given == "Ed25519") else None


def _signing_key(row: Mapping[str, Any], *, secrets: bool) -> SigningKey | None:
    algorithm = _algorithm(row)
    operations = row.get("key_ops")
    kid = row.get("kid")
    if (
        algorithm is None
        or (algorithm == "HS256" and not secrets)
        or row.get("use", "sig") != "sig"
        or not (operations is None or (isinstance(operations, list) and "verify" in operations))
        or not (kid is None or (isinstance(kid, str) and len(kid) <= _LONGEST_KID))
    ):
        return None
    # A private key in the set is a mistake of its owner. Only its public half is read: without its primes,
    # they would be computed, which takes seconds.
    public = {name: value for name, value in row.items() if name not in _PRIVATE}
    try:
        key: Any = jwt.PyJWK(public, algorithm).key
    except Exception:  # noqa: BLE001  # PyJWT and cryptography raise many kinds for invalid numbers
        return None
    if algorithm == "HS256":
        return SigningKey(kid, algorithm, key) if len(key) >= _LEAST_SECRET_BYTES else None
    if algorithm == "RS256" and not _LEAST_RSA_BITS <= key.key_size <= _MOST_RSA_BITS:
        return None
    return SigningKey(kid, algorithm, key)
