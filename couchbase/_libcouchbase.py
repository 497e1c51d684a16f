"""The codes of the C library by its names, such as ``LCB_KEY_ENOENT``.

Programs compare ``rc`` with them. In the original, this module was the compiled part; here there is no C
library, so only the names that the original's own tests use exist.
"""

from __future__ import annotations

from typing import Any as _Any

from couchbase import transcoder as _transcoder
from couchbase.exceptions import RESULT_CODES as _RESULT_CODES

globals().update({f"LCB_{row.name}": rc for rc, row in _RESULT_CODES.items()})

PYCBC_CONN_F_WARNEXPLICIT = 1
"""Bit of ``Connection._privflags``: warn about duplicate keys; this SDK always does."""


def _get_helper(name: str) -> _Any:
    """Return a converter that is in use: ``json_encode``, ``json_decode``, ``pickle_encode`` or
    ``pickle_decode``.

    :raises AttributeError: unknown name.
    """
    return getattr(_transcoder, f"_{name}")
