"""The codes of the C library by its names, ``LCB_KEY_ENOENT`` and the like.

They are for programs that compare ``rc`` with them. The original had its compiled part here; nothing else of
that exists, since there is no C library.
"""

from __future__ import annotations

from couchbase.exceptions import RESULT_CODES

globals().update({f"LCB_{row.name}": rc for rc, row in RESULT_CODES.items()})

__all__ = sorted(f"LCB_{row.name}" for row in RESULT_CODES.values())
