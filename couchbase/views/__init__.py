"""Views: query parameters, the view object, and an incremental reader of answers."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Load a module of this package on first use, as ``couchbase`` does."""
    if name in ("commands", "iterator", "params", "rows"):
        return import_module(f"couchbase.views.{name}")
    raise AttributeError(f"module 'couchbase.views' has no attribute {name!r}")
