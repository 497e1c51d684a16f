"""API keys: a file with one line per key, which has the key's hash but not the key."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from hashlib import sha256
from hmac import compare_digest
from secrets import token_urlsafe
from typing import NamedTuple

from gateway.access.files import ReadFile, read_file
from gateway.access.rights import Identity

__all__ = ["PREFIX", "ApiKey", "ApiKeys", "WrongKeys", "key_line", "new_key", "read_keys"]

PREFIX = "cgk_"
"""Prefix of every key: it lets secret scanners find leaked keys, and distinguishes a key from a token."""

_MOST_KEYS = 100_000
_LARGEST_FILE = 2**25
_LINE = re.compile(r"([A-Za-z0-9_.@-]{1,64})\s+sha256:([0-9a-f]{64})(?:\s+([0-9]{4}-[0-9]{2}-[0-9]{2}))?")
_LONGEST_KEY = 256
_DAY_SECONDS = 86400


class WrongKeys(ValueError):
    """A key file is invalid; the text says where and why."""


class ApiKey(NamedTuple):
    """One line of the file."""

    name: str
    digest: bytes
    until: float
    """Unix time at which the key expires; infinity if it never does."""


class ApiKeys:
    """The keys of a file.

    A key has 256 random bits, so reversing its plain SHA-256 is as hard as guessing the key. The hash can be
    looked up in a dictionary: the time of a lookup can reveal only bits of the hash.
    """

    def __init__(self, keys: dict[bytes, ApiKey]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._keys)

    def find(self, key: bytes, now: float) -> tuple[Identity, float] | None:
        """Return a key's owner and expiry time; ``None`` if the key is unknown or has expired.

        :param now: Unix time.
        """
        if len(key) > _LONGEST_KEY:
            return None
        digest = sha256(key).digest()
        found = self._keys.get(digest)
        if found is None or not compare_digest(found.digest, digest) or now >= found.until:
            return None
        facts = frozenset({("key", found.name)})
        return Identity("key", found.name, facts, {"name": found.name}), found.until


def new_key() -> str:
    """Return a new random key."""
    return PREFIX + token_urlsafe(32)


def key_line(name: str, key: str, until: str = "") -> str:
    """Return the key's line for the key file.

    :param until: last day on which the key is valid, as in 2027-01-31; ``""`` for no end.
    :raises WrongKeys: name or day is invalid.
    """
    line = f"{name} sha256:{sha256(key.encode('utf-8')).hexdigest()} {until}".strip()
    _key(line, "the key")
    return line


def read_keys(path: str, read: ReadFile = read_file) -> ApiKeys:
    """Read a key file: lines ``NAME sha256:HASH [YYYY-MM-DD]``; empty lines and those with ``#`` are ignored.

    :param read: returns the content of a file.
    :raises WrongKeys: the file cannot be read, or is invalid.
    """
    try:
        text = read(path, _LARGEST_FILE).decode("utf-8-sig")
    except ValueError as error:
        raise WrongKeys(f"{path}: {error}") from None
    keys: dict[bytes, ApiKey] = {}
    names = set()
    for number, line in enumerate(text.split("\n"), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        key = _key(content, f"{path}:{number}")
        if key.name in names or key.digest in keys:
            raise WrongKeys(f"{path}:{number}: there is another key with this name or hash")
        names.add(key.name)
        keys[key.digest] = key
        if len(keys) > _MOST_KEYS:
            raise WrongKeys(f"{path}: there are more than {_MOST_KEYS} keys")
    return ApiKeys(keys)


def _key(content: str, where: str) -> ApiKey:
    match = _LINE.fullmatch(content)
    if match is None:
        raise WrongKeys(
            f"{where}: expected NAME sha256:HASH, with 64 hexadecimal digits, and optionally the last day, "
            "as in 2027-01-31; couchgateway-key NAME makes one"
        )
    name, digest, day = match.groups()
    until = float("inf")
    if day is not None:
        try:
            last = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=timezone.utc)
        except ValueError:
            raise WrongKeys(f"{where}: {day} is not a day") from None
        # Not the day after it: 9999-12-31, which often stands for no end, has none.
        until = last.timestamp() + _DAY_SECONDS
    return ApiKey(name, bytes.fromhex(digest), until)
