"""The dialect's own header formats: CAS as entity tag, durability, flags, mutation tokens."""

from __future__ import annotations

import re
from typing import NamedTuple

from couchbase.result import MutationToken
from gateway.dialect.errors import bad_request

__all__ = [
    "Durability",
    "etag",
    "parse_cas",
    "parse_count",
    "parse_durability",
    "parse_flags",
    "token_header",
]

_HEX = re.compile(rb"[0-9A-Fa-f]{1,16}")
_CAS_FORM = "1 to 16 hexadecimal digits, not zero, as an ETag of this gateway has them"


def etag(cas: int) -> bytes:
    """Return a CAS as the value of ``ETag``: lower-case hex of at least 8 digits, without quotes."""
    return b"%08x" % cas


def parse_cas(digits: bytes, name: str) -> int:
    """Read a CAS from hex digits.

    :param name: its name in the error message.
    """
    cas = int(digits, 16) if _HEX.fullmatch(digits) else 0
    if not cas:
        raise bad_request(f"{name}: {_shown(digits)} is not a CAS: {_CAS_FORM}")
    return cas


def _shown(value: bytes) -> str:
    return repr(value[:80].decode("latin-1"))


def parse_flags(value: bytes) -> int:
    """Read ``X-CB-Flags``: a decimal number below 2**32."""
    if not re.fullmatch(rb"[0-9]{1,10}", value) or int(value) > 0xFFFFFFFF:
        raise bad_request(f"X-CB-Flags: {_shown(value)} is not a decimal number from 0 to 4294967295")
    return int(value)


_LEVELS = {b"None": 0, b"Majority": 1, b"MajorityAndPersistOnMaster": 2, b"PersistToMajority": 3}

MAX_COPIES = 4
"""A document has at most an active copy and three replicas."""


class Durability(NamedTuple):
    """The copies that a mutation waits for. All zero, the default: only the active copy in memory."""

    level: int = 0
    persist_to: int = 0
    """Number of nodes that have it on disk; -1 for all."""
    replicate_to: int = 0
    """Number of replicas that have it in memory; -1 for all."""

    @property
    def wants_copies(self) -> bool:
        """Whether the request asks for a number of copies."""
        return self.persist_to != 0 or self.replicate_to != 0


NO_DURABILITY = Durability()


def parse_count(value: bytes, name: str) -> int:
    """Read a number of copies: -1 (all) to 4."""
    if not re.fullmatch(rb"-1|[0-9]", value) or int(value) > MAX_COPIES:
        raise bad_request(
            f"{name}: {_shown(value)} is not a number of copies: 0 to {MAX_COPIES}, or -1 for all"
        )
    return int(value)


def parse_durability(level: bytes | None, persist_to: bytes | None, replicate_to: bytes | None) -> Durability:
    """Read ``X-CB-DurabilityLevel``, ``X-CB-PersistTo`` and ``X-CB-ReplicateTo``."""
    if level is None and persist_to is None and replicate_to is None:
        return NO_DURABILITY
    wanted = 0
    if level is not None:
        if level not in _LEVELS:
            raise bad_request(
                f"X-CB-DurabilityLevel: {_shown(level)} is not one of None, Majority, "
                "MajorityAndPersistOnMaster, PersistToMajority"
            )
        wanted = _LEVELS[level]
    asked = Durability(
        wanted,
        0 if persist_to is None else parse_count(persist_to, "X-CB-PersistTo"),
        0 if replicate_to is None else parse_count(replicate_to, "X-CB-ReplicateTo"),
    )
    if asked.level and (asked.persist_to or asked.replicate_to):
        raise bad_request(
            "X-CB-DurabilityLevel cannot be combined with X-CB-PersistTo and X-CB-ReplicateTo: "
            "the server waits for a level, the gateway for numbers of copies"
        )
    return asked


def token_header(bucket: str, token: MutationToken) -> bytes:
    """Return a mutation token as the value of ``X-CB-MutationToken``: ``bucket:vbucket:vbuuid:seqno``."""
    return b"%b:%d:%08x:%d" % (bucket.encode("utf-8"), token.vbucket, token.uuid, token.seqno)
