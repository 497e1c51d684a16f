"""``Accept-Encoding`` and ``Content-Encoding``: the Data API's rules for Snappy, and ours for other codings.

The Data API knows ``identity`` and ``snappy``; it sends a document that is not stored compressed as a Snappy
block only to clients that refuse ``identity``. Registered codings are an addition: an answer is encoded with
one if ``Accept-Encoding`` names it, with a weight not lower than that of ``identity``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from couchbase.protocol.constants import MAX_VALUE_BYTES
from gateway.dialect.errors import bad_request
from gateway.http.compression import ENCODINGS, LEAST_BYTES, SNAPPY
from gateway.http.known import Known

try:
    import cramjam
except ImportError:  # a platform without a wheel
    cramjam = None  # type: ignore[assignment]

__all__ = ["Accepted", "choose", "inflated", "inflated_bytes", "parse_accept_encoding"]

_WEIGHT = re.compile(
    rb"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]{1,3})?|inf(?:inity)?|nan)", re.IGNORECASE
)
_IDENTITY = b"identity"
_UNNAMED_IDENTITY = 0.001
_MAX_LENGTH_BYTES = 5


class Accepted(NamedTuple):
    """The weights of an ``Accept-Encoding``."""

    identity: float
    snappy: float
    others: dict[bytes, float]
    """The weights of the registered codings that the header names, in lower case."""


# A cache: each program sends the same header each time.
_known: Known[bytes, Accepted] = Known(256)
_LONGEST_KNOWN = 128


def parse_accept_encoding(value: bytes) -> Accepted:
    """Read the header, as strictly as the Data API does.

    :raises Refusal: 400: a part has two parameters, one other than ``q``, or a weight that is not a number.
    """
    known = _known.get(value)
    if known is None:
        known = _parse(value)
        if len(value) <= _LONGEST_KNOWN:
            _known.learn(value, known)
    return known


def _parse(value: bytes) -> Accepted:
    given: dict[bytes, float] = {}
    others: dict[bytes, float] = {}
    identity, snappy = _UNNAMED_IDENTITY, 0.0
    for number, part in enumerate(value.split(b",")):
        name, *parameters = (piece.strip(b" \t") for piece in part.split(b";"))
        weight = 1.0
        if parameters:
            (parameter, *more) = parameters
            text = parameter[2:]
            if more or not parameter.startswith(b"q=") or not _WEIGHT.fullmatch(text):
                raise bad_request(
                    f"Accept-Encoding: part {number}, {part[:40].decode('latin-1')!r}, "
                    "is not a coding with an optional weight, such as 'gzip;q=0.5'"
                )
            weight = float(text)
        if name == b"*":
            # '*' applies to the codings that no earlier part names.
            identity = weight if _IDENTITY not in given else identity
            snappy = weight if SNAPPY not in given else snappy
        elif name == _IDENTITY:
            identity = given[name] = weight
        elif name == SNAPPY:
            snappy = given[name] = weight
        elif name.lower() in ENCODINGS:
            others[name.lower()] = weight
    return Accepted(identity, snappy, others)


def choose(accepted: Accepted, size: int | None, *, is_document: bool) -> bytes | None:
    """Return the coding of an answer; ``None`` to send it as it is.

    :param size: of the body in bytes; ``None`` for a stream.
    :param is_document: whether it may be a Snappy block.
    """
    identity = accepted.identity
    is_refused = identity <= 0
    best, best_weight = None, 0.0
    if is_document and is_refused and accepted.snappy > identity and cramjam is not None:
        best, best_weight = SNAPPY, accepted.snappy
    if size is None or size >= LEAST_BYTES or is_refused:
        for encoding in ENCODINGS:
            weight = accepted.others.get(encoding, 0.0)
            if weight > max(best_weight, 0.0) and weight >= identity:
                best, best_weight = encoding, weight
    return best


def inflated_bytes(block: bytes) -> int:
    """Return the size of the value in a raw Snappy block, which is given at the start of the block.

    :raises Refusal: 400: it is not such a block, or the value is larger than a document may be.
    """
    size = 0
    for at, byte in enumerate(block[:_MAX_LENGTH_BYTES]):
        size |= (byte & 0x7F) << (7 * at)
        if not byte & 0x80:
            if size > MAX_VALUE_BYTES:
                raise bad_request(
                    f"the decompressed body has {size} bytes; a document has at most {MAX_VALUE_BYTES}"
                )
            return size
    raise _not_snappy()


def inflated(block: bytes) -> bytes:
    """Return the value in a raw Snappy block; raises Refusal (400), like :func:`inflated_bytes`."""
    inflated_bytes(block)
    if cramjam is None:
        raise bad_request("Content-Encoding: snappy is not available here: the library is not installed")
    try:
        return bytes(cramjam.snappy.decompress_raw(block))
    except Exception:  # noqa: BLE001  # the library's error has no public name in every version
        raise _not_snappy() from None


def _not_snappy() -> Exception:
    return bad_request("Content-Encoding: the body is not one Snappy block (raw format)")
