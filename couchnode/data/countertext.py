"""The number in the body of a counter document."""

from __future__ import annotations

import re

from couchbase.protocol.constants import Status
from couchnode.data.item import StatusError

COUNTER_LIMIT = 2**64
"""The smallest number that is too large for a counter."""

# White space and one plus sign may precede the digits; everything from the first white space after them is
# ignored.
_TEXT = re.compile(rb"\s*\+?0*([0-9]{1,20})(?:\s|\Z)")
_TEXT_BYTES = 1024


def parse_counter(text: bytes) -> int:
    """Return the number in the body of a counter.

    :raises StatusError: DELTA_BADVAL: the text is not an unsigned 64-bit number.
    """
    # White space and leading zeros could fill a whole document; real counters are short.
    match = _TEXT.match(text) if len(text) <= _TEXT_BYTES else None
    number = int(match[1]) if match is not None else COUNTER_LIMIT
    if number >= COUNTER_LIMIT:
        raise StatusError(Status.DELTA_BADVAL)
    return number
