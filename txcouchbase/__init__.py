"""Couchbase for Twisted: Deferreds, or results with callbacks, on the SDK's protocol core.

The names that a program needs are here too, imported on first use::

    from txcouchbase import AsyncViewBase, Connection, Query
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from couchbase.asynchronous.view import AsyncViewBase
    from couchbase.views.params import Query
    from txcouchbase.connection import Connection, TxAsyncConnection

__all__ = ["AsyncViewBase", "Connection", "Query", "TxAsyncConnection", "__version__"]

__version__ = "1.2.5"

_HOMES = {
    "AsyncViewBase": "couchbase.asynchronous.view",
    "Connection": "txcouchbase.connection",
    "Query": "couchbase.views.params",
    "TxAsyncConnection": "txcouchbase.connection",
}


def __getattr__(name: str) -> Any:
    """Import a name of ``__all__`` from its module."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    """Return the names, including those not imported yet."""
    return sorted({*globals(), *__all__})
