"""Base of drivers that answer by callbacks (``couchbase.async`` of SDK 1.2; the word is reserved now)."""

from __future__ import annotations

from couchbase.asynchronous.connection import Async

__all__ = ["Async"]
