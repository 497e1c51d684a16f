"""Handles unknown statuses with the server's error map.

A future server may answer with statuses that today's clients do not know. Its error map
(GET_ERROR_MAP, versions 1 and 2) describes each. A known status is handled by our own table
(:mod:`couchbase.protocol.statuses`), whatever the map says about it.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from couchbase import exceptions
from couchbase.protocol.constants import SUCCESS_STATUSES, Status
from couchbase.protocol.statuses import RC_OF_STATUS, RETRY_DELAYS, Action

ERROR_MAP_VERSION = 2
"""The latest version that :func:`parse_error_map` understands."""

LONGEST_TEXT = 200
"""Number of characters that are kept of a name or a description."""
LONGEST_DELAY_SECONDS = 60.0
SHORTEST_DELAY_SECONDS = 0.001
"""Shortest pause in seconds: a server that asks for no pause must not keep the client and the network
busy."""
MOST_ATTEMPTS = 1000

_RETRIED = frozenset({"retry-now", "retry-later", "auto-retry"})
_LATER = 2  # Index in RETRY_DELAYS at which "retry-later" begins (50 ms).

_CODE_OF_ATTRIBUTE = (
    ("auth", exceptions.AUTH_ERROR),
    ("item-locked", exceptions.KEY_EEXISTS),
    ("rate-limit", exceptions.EBUSY),
    ("system-constraint", exceptions.ENOMEM),
    ("temp", exceptions.ETMPFAIL),
    ("retry-now", exceptions.ETMPFAIL),
    ("retry-later", exceptions.ETMPFAIL),
    ("auto-retry", exceptions.ETMPFAIL),
    ("item-deleted", exceptions.KEY_ENOENT),
    ("invalid-input", exceptions.EINVAL),
    ("internal", exceptions.EINTERNAL),
)
"""Attribute -> result code. A status gets the code of its first attribute in this table, or
``exceptions.ERROR``."""

# These statuses are known, although they have no result code of their own.
_OTHERS_KNOWN = frozenset(
    map(int, (Status.UNKNOWN_COLLECTION, Status.UNKNOWN_SCOPE, *SUCCESS_STATUSES, *range(0xC0, 0xE0)))
)


class RetrySpec(NamedTuple):
    """How a server wants a status to be retried; times in seconds."""

    strategy: str
    """``constant``, ``linear`` or ``exponential``."""
    interval: float
    after: float
    """Pause before the first retry, in seconds."""
    ceiling: float
    """The longest pause, in seconds."""
    max_duration: float | None
    """Seconds after the first answer in which retries may start; ``None`` leaves the limit to the timeout."""

    def pause(self, attempt: int) -> float:
        """Return the seconds to wait before retry number ``attempt`` (the first is 0)."""
        seconds = self.after if attempt == 0 else self._grown(attempt)
        return max(SHORTEST_DELAY_SECONDS, min(seconds, self.ceiling, LONGEST_DELAY_SECONDS))

    def _grown(self, attempt: int) -> float:
        if self.strategy == "linear":
            return self.interval * attempt
        if self.strategy == "exponential":
            # A power of the interval in milliseconds, as the specification of error maps says.
            base = self.interval * 1000
            try:
                return float(base**attempt) / 1000
            except OverflowError:
                return LONGEST_DELAY_SECONDS
        return self.interval

    def delay(self, attempt: int, spent: float | None = None) -> float | None:
        """Return the pause before retry number ``attempt``; ``None`` to stop retrying.

        :param spent: seconds since the first answer; by default the sum of the pauses before this one.
        """
        if attempt >= MOST_ATTEMPTS:
            return None
        pause = self.pause(attempt)
        if self.max_duration is not None:
            if spent is None:
                spent = sum(self.pause(earlier) for earlier in range(attempt))
            if spent + pause > self.max_duration:
                return None
        return pause


class ServerStatus(int):
    """A status that only the server's error map explains."""

    name: str
    """The server's name for it, at most 200 characters."""
    description: str
    attributes: frozenset[str]
    retry: RetrySpec | None
    code: int
    """The result code for its attributes."""

    def __new__(
        cls,
        status: int,
        name: str = "",
        description: str = "",
        attributes: frozenset[str] = frozenset(),
        retry: RetrySpec | None = None,
    ) -> ServerStatus:
        """Create the status from its entry in the map."""
        made = super().__new__(cls, status)
        made.name, made.description, made.attributes, made.retry = name, description, attributes, retry
        made.code = next(
            (code for attribute, code in _CODE_OF_ATTRIBUTE if attribute in attributes), exceptions.ERROR
        )
        return made

    @property
    def reconnects(self) -> bool:
        """Whether the connection is unusable after this answer."""
        return "conn-state-invalidated" in self.attributes

    @property
    def refreshes(self) -> bool:
        """Whether to request a newer cluster map."""
        return "fetch-config" in self.attributes

    def delay(self, attempt: int, spent: float | None = None) -> float | None:
        """Return the seconds to wait before retry number ``attempt`` (the first is 0).

        ``None`` if it must not be retried, or the limit of retries is reached.

        :param spent: seconds since the first answer with it; by default the sum of the pauses.
        """
        wanted = self.attributes & _RETRIED
        if not wanted or "no-retry" in self.attributes:
            return None
        if self.retry is not None:
            return self.retry.delay(attempt, spent)
        first = 0 if "retry-now" in wanted else _LATER
        return RETRY_DELAYS[min(attempt + first, len(RETRY_DELAYS) - 1)]

    def action(self, attempt: int, spent: float | None = None) -> Action:
        """Return what to do with the answer to an operation that was already retried ``attempt`` times.

        :param spent: seconds since the first answer with it; by default the sum of the pauses.
        """
        if self.delay(attempt, spent) is None:
            return Action.SURFACE
        return Action.REMAP if self.refreshes else Action.RETRY

    @property
    def words(self) -> str:
        """The server's answer as text, for people."""
        name = f"{self.name} (0x{int(self):02x})" if self.name else f"0x{int(self):02x}"
        return f"{name}: {self.description}" if self.description else name


def parse_error_map(value: bytes) -> dict[int, ServerStatus]:
    """Return an error map's entries for unknown statuses, by status.

    Invalid entries are ignored without an error, if necessary the whole map.
    """
    try:
        errors = json.loads(value)["errors"].items()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    found: dict[int, ServerStatus] = {}
    for key, entry in errors:
        try:
            status = int(key, 16)
        except ValueError:
            continue
        known = status in RC_OF_STATUS or status in _OTHERS_KNOWN
        if 0 < status <= 0xFFFF and not known and isinstance(entry, dict):
            found[status] = _read_entry(status, entry)
    return found


def _read_entry(status: int, entry: dict[str, Any]) -> ServerStatus:
    attributes = entry.get("attrs")
    names = frozenset(
        name for name in (attributes if isinstance(attributes, list) else ()) if isinstance(name, str)
    )
    return ServerStatus(
        status, _text(entry.get("name")), _text(entry.get("desc")), names, _read_retry(entry.get("retry"))
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return "".join(char if char.isprintable() else " " for char in value[:LONGEST_TEXT])


def _read_retry(spec: object) -> RetrySpec | None:
    if not isinstance(spec, dict) or spec.get("strategy") not in ("constant", "linear", "exponential"):
        return None
    interval = _seconds(spec.get("interval"))
    if interval is None:
        return None
    after, ceiling = _seconds(spec.get("after")), _seconds(spec.get("ceil"))
    return RetrySpec(
        spec["strategy"],
        interval,
        interval if after is None else after,
        ceiling or LONGEST_DELAY_SECONDS,
        _seconds(spec.get("max-duration")) or None,
    )


def _seconds(milliseconds: object) -> float | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, (int, float)):
        return None
    # False for a NaN, too.
    return milliseconds / 1000 if 0 <= milliseconds <= 86_400_000 else None
