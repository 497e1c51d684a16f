"""Base of drivers that deliver results by callbacks (``couchbase.async`` in SDK 1.2; ``async`` is a keyword
now)."""

from __future__ import annotations

from couchbase.asynchronous.connection import Async

__all__ = ["Async"]
