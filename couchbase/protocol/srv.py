"""DNS SRV records, which list a cluster's nodes under one name. Works on bytes, without socket or clock.

A connection string with exactly one host name and no port may be the name of a cluster rather than of a node:
``_couchbase._tcp.NAME`` (TLS: ``_couchbases._tcp.NAME``) then lists its nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import NamedTuple

from couchbase.protocol.connstr import Seed, split_host_port
from couchbase.protocol.constants import DEFAULT_MANAGEMENT_PORT, DEFAULT_MANAGEMENT_TLS_PORT

_HEADER = Struct(">HHHHHH")
_FIXED = Struct(">HHIH")
_TYPE_SRV, _CLASS_IN = 33, 1
_RESPONSE, _TRUNCATED, _RECURSE, _CODE = 0x8000, 0x0200, 0x0100, 0x000F
_NAME_ERROR = 3
DNS_PORT = 53
MOST_RECORDS = 256
LONGEST_NAME = 255


class DnsError(ValueError):
    """An answer is malformed, or reports a failure of the server."""


class Record(NamedTuple):
    """One SRV record."""

    priority: int
    weight: int
    port: int
    target: str


class Answer(NamedTuple):
    """A server's answer about a name; it may have no records."""

    records: tuple[Record, ...]
    ttl: int
    """Seconds for which the answer is valid; 0 without records."""
    truncated: bool = False
    """Whether to ask again over TCP."""


def service_name(host: str, tls: bool) -> str | None:
    """Return the name of a host's SRV records; ``None`` for an address, or a name of this machine."""
    bare = host.rstrip(".")
    if ":" in bare or bare.replace(".", "").isdigit() or bare == "localhost" or len(bare) > 230:
        return None
    if not bare.isascii() or not all(0 < len(label) < 64 for label in bare.split(".")):
        return None
    return f"_couchbase{'s' if tls else ''}._tcp.{bare}"


def nameservers(resolv_conf: str) -> list[tuple[str, int]]:
    """Return the servers in ``/etc/resolv.conf``, at most three, like the platform's resolver."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            found.append((words[1], DNS_PORT))
    return found[:3]


def nameserver(text: str) -> tuple[str, int]:
    """Read ``host`` or ``host:port``.

    :raises CouchbaseError: InvalidError, it is neither.
    """
    host, port = split_host_port(text)
    return host, DNS_PORT if port is None else port


def encode_query(number: int, name: str) -> bytes:
    """Return the query for a name's SRV records."""
    labels = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split("."))
    return _HEADER.pack(number, _RECURSE, 1, 0, 0, 0) + labels + b"\0" + b"\0\x21\0\x01"


def decode_answer(number: int, name: str, data: bytes) -> Answer | None:
    """Parse a message; ``None`` if it does not answer this query (the right answer may still arrive).

    :raises DnsError: it is malformed, or the server failed.
    """
    if len(data) < _HEADER.size:
        return None
    found, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
    if found != number or not flags & _RESPONSE or questions != 1:
        return None
    asked, at = _read_name(data, _HEADER.size)
    if asked.lower() != name.lower() or data[at : at + 4] != b"\0\x21\0\x01":
        return None
    at += 4
    code = flags & _CODE
    if code == _NAME_ERROR:
        return Answer((), 0)
    if code:
        raise DnsError(f"the name server failed with code {code}")
    if flags & _TRUNCATED:
        return Answer((), 0, True)
    records, ttl = [], 2**31 - 1
    for _ in range(min(answers, MOST_RECORDS)):
        _, at = _read_name(data, at)
        if at + _FIXED.size > len(data):
            raise DnsError("a record ends early")
        kind, family, seconds, size = _FIXED.unpack_from(data, at)
        at += _FIXED.size
        if at + size > len(data):
            raise DnsError("a record ends early")
        # Aliases also limit how long the answer is valid.
        ttl = min(ttl, seconds if seconds < 2**31 else 0)
        if (kind, family) == (_TYPE_SRV, _CLASS_IN):
            if size < 7:
                raise DnsError("an SRV record is too short")
            priority, weight, port = (int.from_bytes(data[at + n : at + n + 2], "big") for n in (0, 2, 4))
            target, _ = _read_name(data, at + 6)
            # A target of "." means that the service does not exist.
            if target and port:
                records.append(Record(priority, weight, port, target))
        at += size
    return Answer(tuple(records), ttl if records else 0)


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    """Return a name and the offset of its end."""
    labels: list[str] = []
    end, length = None, 0
    limit = at
    while True:
        if at >= len(data):
            raise DnsError("a name ends early")
        size = data[at]
        if size >= 0xC0:
            if at + 2 > len(data):
                raise DnsError("a name ends early")
            target = (size & 0x3F) << 8 | data[at + 1]
            end = at + 2 if end is None else end
            # Pointers must go backwards, so that none is followed twice.
            if target >= limit:
                raise DnsError("a name points forwards")
            at = limit = target
            continue
        if size >= 0x40:
            raise DnsError("a label of an unknown kind")
        at += 1
        if not size:
            return ".".join(labels), at if end is None else end
        label = data[at : at + size]
        length += size + 1
        if len(label) < size or length > LONGEST_NAME:
            raise DnsError("a name is too long")
        labels.append(label.decode("ascii", "replace"))
        at += size


def in_order(records: Sequence[Record], random: Callable[[], float]) -> list[Record]:
    """Return records in the order in which to try them: by priority, then at random by weight."""
    ordered: list[Record] = []
    for priority in sorted({record.priority for record in records}):
        left = sorted((one for one in records if one.priority == priority), key=lambda one: one.weight)
        while left:
            mark = random() * sum(one.weight for one in left)
            chosen = 0
            while chosen < len(left) - 1 and mark >= left[chosen].weight:
                mark -= left[chosen].weight
                chosen += 1
            ordered.append(left.pop(chosen))
    return ordered


def seeds_of(records: Sequence[Record], tls: bool, random: Callable[[], float]) -> tuple[Seed, ...]:
    """Return the seeds to bootstrap from."""
    management = DEFAULT_MANAGEMENT_TLS_PORT if tls else DEFAULT_MANAGEMENT_PORT
    return tuple(Seed(one.target, one.port, management) for one in in_order(records, random))
