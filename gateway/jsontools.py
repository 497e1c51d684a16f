"""JSON in and out, by orjson where it is installed and by the standard library elsewhere.

Both accept exactly what RFC 8259 allows (no ``NaN``), and both refuse with :class:`NotJson`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["NotJson", "dumps", "is_json", "loads"]

NotJson = ValueError
"""What :func:`loads` raises: json's and orjson's own errors derive from it."""

loads: Callable[[bytes], Any]
dumps: Callable[[Any], bytes]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _strict_loads(data: bytes) -> Any:
    try:
        # Decoded here, because json.loads would also take UTF-16 and UTF-32.
        return json.loads(str(data, "utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("too many levels") from None


def _compact_dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


try:
    import orjson
except ImportError:  # PyPy
    loads, dumps = _strict_loads, _compact_dumps
else:
    loads, dumps = orjson.loads, orjson.dumps


def is_json(data: bytes) -> bool:
    """Tell whether ``data`` is one JSON text in UTF-8."""
    try:
        loads(data)
    except ValueError:
        return False
    return True
