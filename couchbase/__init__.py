"""The Couchbase SDK: the API of the Python SDK 1.2 on its own protocol core.

Names are loaded on first use, so that a program that needs only the protocol core (the embedded node) does
not load a driver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from couchbase.connection import Connection
    from couchbase.entry import Couchbase
    from couchbase.transcoder import set_json_converters, set_pickle_converters
    from couchbase.user_constants import (
        FMT_AUTO,
        FMT_BYTES,
        FMT_JSON,
        FMT_MASK,
        FMT_PICKLE,
        FMT_UTF8,
        LOCKMODE_EXC,
        LOCKMODE_NONE,
        LOCKMODE_WAIT,
        OBS_FOUND,
        OBS_LOGICALLY_DELETED,
        OBS_MASK,
        OBS_NOTFOUND,
        OBS_PERSISTED,
    )

__version__ = "1.2.5"
"""The SDK release whose interface this package has."""

__all__ = [
    "FMT_AUTO",
    "FMT_BYTES",
    "FMT_JSON",
    "FMT_MASK",
    "FMT_PICKLE",
    "FMT_UTF8",
    "LOCKMODE_EXC",
    "LOCKMODE_NONE",
    "LOCKMODE_WAIT",
    "OBS_FOUND",
    "OBS_LOGICALLY_DELETED",
    "OBS_MASK",
    "OBS_NOTFOUND",
    "OBS_PERSISTED",
    "Connection",
    "Couchbase",
    "__version__",
    "set_json_converters",
    "set_pickle_converters",
]

_HOMES = {
    "Connection": "connection",
    "Couchbase": "entry",
    "set_json_converters": "transcoder",
    "set_pickle_converters": "transcoder",
    **{name: "user_constants" for name in __all__ if name.startswith(("FMT_", "LOCKMODE_", "OBS_"))},
}
# ``import couchbase`` alone is enough for couchbase.exceptions and other modules, as in SDK 1.2.
_MODULES = frozenset(
    {
        *(
            "admin",
            "administration",
            "arguments",
            "asynchronous",
            "blocking",
            "codec",
            "commands",
            "connection",
            "controls",
        ),
        *("collection", "designs", "documents", "driver", "signatures", "tlsfiles"),
        *("entry", "errorbase", "exceptions", "experimental", "headers", "items", "manifest", "paths"),
        *("pipeline", "protocol", "result", "mutations", "scan", "subdocument", "timings", "transcoder"),
        *("user_constants", "users", "views"),
    }
)


def __getattr__(name: str) -> Any:
    """Load a name or a module of the SDK on first use (PEP 562)."""
    if name in _HOMES:
        value = getattr(import_module(f"couchbase.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"couchbase.{name}")
    raise AttributeError(f"module 'couchbase' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
