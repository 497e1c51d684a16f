"""Encodings of URLs, dates and JSON in HTTP."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from gateway.http.refusal import bad_request

__all__ = ["any_json", "decode_percent", "dumps", "http_date", "parse_query"]

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(rb"[\x00-\x20\x7f]")
_PLAIN = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:@/-]+")


def decode_percent(raw: bytes, what: str) -> bytes:
    """Undo percent-encoding, once.

    :param what: name of the text in the error message.
    :raises Refusal: 400 for a broken escape, a raw control byte, or bytes that are not UTF-8.
    """
    if _PLAIN.fullmatch(raw):
        return raw
    decoded = raw
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            raise bad_request(
                f"{what}: '%' must be followed by two hexadecimal digits; write '%25' for the character '%'"
            )
        decoded = unquote_to_bytes(raw)
    if _CONTROL.search(raw):
        raise bad_request(f"{what}: control characters and blanks must be percent-encoded")
    try:
        decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise bad_request(f"{what}: after percent-decoding it must be UTF-8") from None
    return decoded


def parse_query(raw: bytes, allowed: frozenset[str]) -> dict[str, str]:
    """Read a query string.

    :raises Refusal: 400 for an unknown or repeated parameter, or invalid encoding.
    """
    parameters: dict[str, str] = {}
    for pair in raw.split(b"&"):
        if not pair:
            continue
        name_bytes, _, value = pair.partition(b"=")
        name = decode_percent(name_bytes.replace(b"+", b"%20"), "query").decode("utf-8")
        if name not in allowed:
            takes = "it takes " + ", ".join(sorted(allowed)) if allowed else "it takes none"
            raise bad_request(f"unknown query parameter {name[:80]!r}; {takes}")
        if name in parameters:
            raise bad_request(f"query parameter {name!r} is given twice")
        decoded = decode_percent(value.replace(b"+", b"%20"), f"query parameter {name!r}")
        parameters[name] = decoded.decode("utf-8")
    return parameters


@lru_cache(maxsize=1024)
def _day_of_date(days: int) -> bytes:
    return formatdate(days * 86_400, usegmt=True)[: -len("00:00:00 GMT")].encode("ascii")


def http_date(unix_seconds: float) -> bytes:
    """Return a time in HTTP's format, without fractions of a second."""
    # The library's function takes five times as long; its result is cached for a day.
    days, seconds = divmod(int(unix_seconds), 86_400)
    return b"%b%02d:%02d:%02d GMT" % (_day_of_date(days), seconds // 3600, seconds // 60 % 60, seconds % 60)


def _compact_dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


dumps: Callable[[object], bytes]
"""Returns the JSON of a value, made by orjson if it is installed."""

try:
    import orjson
except ImportError:  # PyPy
    dumps = _compact_dumps
else:
    dumps = orjson.dumps


def any_json(value: object) -> bytes:
    """Serialize any value that came from JSON, including those that orjson cannot serialize."""
    try:
        return dumps(value)
    except (TypeError, ValueError, UnicodeEncodeError):
        return json.dumps(_finite(value), separators=(",", ":")).encode("ascii")


def _finite(value: object) -> object:
    """Return a value in which numbers that JSON cannot express are replaced by null."""
    if isinstance(value, dict):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_finite(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
