"""Members of JSON objects that must be a number, a boolean or a duration."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.dialect.errors import bad_request
from gateway.dialect.expiry import parse_duration

__all__ = ["checked_boolean", "checked_number", "checked_seconds"]


def checked_number(value: object, name: str, low: int, high: int) -> int:
    """Return a JSON member, which must be an integer.

    :raises Refusal: 400, naming the member and its range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise bad_request(f"{name}: expected a whole number from {low} to {high}")
    return value


def checked_boolean(members: Mapping[str, object], name: str) -> bool:
    """Return a member, which must be true or false; false if it is missing.

    :raises Refusal: 400, naming the member.
    """
    value = members.get(name, False)
    if not isinstance(value, bool):
        raise bad_request(f"{name}: expected true or false")
    return value


def checked_seconds(members: Mapping[str, object], name: str, default: str, low: float, high: float) -> float:
    """Return a member, which must be a duration, in seconds.

    :param default: the duration if it is missing.
    :raises Refusal: 400, naming the member and its range.
    """
    value = members.get(name, default)
    nanoseconds = parse_duration(value) if isinstance(value, str) else None
    if nanoseconds is None or not low <= nanoseconds / 1e9 <= high:
        raise bad_request(
            f"{name}: expected a duration as in '5s' or '10ms', from {low:g} to {high:g} seconds"
        )
    return nanoseconds / 1e9
