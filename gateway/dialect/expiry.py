"""A document's expiry: conversion from HTTP's notations to the protocol's number, and back.

The protocol reads numbers up to 30 days as seconds from now, and larger ones as a Unix time. So a long
duration is converted into a Unix time, and an early Unix time must not be read as a duration.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from couchbase.protocol.constants import RELATIVE_EXPIRY_MAX
from gateway.dialect.errors import bad_request

__all__ = ["expiry_from_expires", "expiry_from_touch", "expiry_from_ttl", "parse_duration"]

EXPIRED = RELATIVE_EXPIRY_MAX + 1
"""The earliest Unix time that the protocol does not read as a duration."""

_MAX_EXPIRY = 2**32 - 1

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_TERM = re.compile(r"(\d*)(?:\.(\d*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII)
_HTTP_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) "
    r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (\d{4}) (\d\d):(\d\d):(\d\d) (?:GMT|UTC)",
    re.ASCII,
)
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_FORMS = "a date as in 'Wed, 21 Oct 2026 07:28:00 GMT', a duration as in '90s' or '1h30m', or 0 for none"


def parse_duration(text: str) -> int | None:
    """Return a duration in Go's notation (``1h30m``, ``1.5s``) in nanoseconds; ``None`` if invalid."""
    if not text or len(text) > 64:
        return None
    at = total = 0
    while at < len(text):
        term = _TERM.match(text, at)
        if term is None or not (term[1] or term[2]):
            return None
        unit = _NANOSECONDS[term[3]]
        total += int(term[1] or 0) * unit
        if term[2]:
            total += int(term[2]) * unit // 10 ** len(term[2])
        at = term.end()
    return total


def _of_duration(nanoseconds: int, now: float) -> int:
    if nanoseconds == 0:
        return EXPIRED
    seconds = -(-nanoseconds // 10**9)  # rounded up: a document must not expire early
    if seconds <= RELATIVE_EXPIRY_MAX:
        return seconds
    return _of_instant(int(now) + seconds)


def _of_instant(unix_seconds: int) -> int:
    if unix_seconds > _MAX_EXPIRY:
        raise bad_request("the expiry is after 7 February 2106, the last day that can be stored")
    return max(unix_seconds, EXPIRED)


def _instant(year: str, month: int, day: str, hour: str, minute: str, second: str) -> int | None:
    try:
        moment = datetime(
            int(year), month, int(day), int(hour), int(minute), int(second), tzinfo=timezone.utc
        )
    except ValueError:
        return None
    return int(moment.timestamp())


def _parse(text: str, now: float) -> int | None:
    if text in ("", "0"):
        return 0
    duration = parse_duration(text)
    if duration is not None:
        return _of_duration(duration, now)
    date = _HTTP_DATE.fullmatch(text)
    if date is not None:
        instant = _instant(date[3], _MONTHS.index(date[2]) + 1, date[1], date[4], date[5], date[6])
        if instant is not None:
            return _of_instant(instant)
    return None


def expiry_from_expires(text: str, now: float) -> int:
    """Read an ``Expires`` header.

    :param text: its value; blank or ``0`` means no expiry.
    :param now: Unix time in seconds.
    :returns: the protocol's number, 0 for none.
    :raises Refusal: 400, naming the accepted forms.
    """
    expiry = _parse(text.strip(" \t"), now)
    if expiry is None:
        raise bad_request(f"Expires: {text[:80]!r} is not {_FORMS}")
    return expiry


def expiry_from_touch(text: str, now: float) -> int:
    """Read the ``expiry`` of a touch: like :func:`expiry_from_expires`, or a date in the format of RFC
    3339."""
    expiry = _parse(text, now)
    if expiry is not None:
        return expiry
    date = _RFC_3339.fullmatch(text)
    if date is not None:
        instant = _instant(date[1], int(date[2]), date[3], date[4], date[5], date[6])
        if instant is not None:
            if date[7]:
                offset = timedelta(hours=int(date[8]), minutes=int(date[9])).total_seconds()
                instant -= int(offset if date[7] == "+" else -offset)
            return _of_instant(instant)
    raise bad_request(f"expiry: {text[:80]!r} is not {_FORMS}, or a date as in RFC 3339")


def expiry_from_ttl(text: str) -> int:
    """Read an ``X-CB-TTL`` header: seconds, or above 30 days a Unix time, as in SDK 1.2."""
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or int(text) > _MAX_EXPIRY:
        raise bad_request(
            f"X-CB-TTL: {text[:80]!r} is neither a number of seconds (0 to 2592000) nor a Unix time"
        )
    return int(text)
