"""Views: query parameters, the view object, and a reader of answers that works as they arrive."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Load a module of this package when it is first asked for, as ``couchbase`` does with its own."""
    if name in ("commands", "iterator", "params", "rows"):
        return import_module(f"couchbase.views.{name}")
    raise AttributeError(f"module 'couchbase.views' has no attribute {name!r}")
