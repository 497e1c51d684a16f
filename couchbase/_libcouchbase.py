"""The codes of the C library by its names, ``LCB_KEY_ENOENT`` and the like.

They are for programs that compare ``rc`` with them. The original had its compiled part here; nothing else of
that exists, since there is no C library.
"""

from __future__ import annotations

from couchbase.exceptions import RESULT_CODES as _RESULT_CODES

globals().update({f"LCB_{row.name}": rc for rc, row in _RESULT_CODES.items()})
