"""The Couchbase SDK: API of the Python SDK 1.2 on a protocol core of its own."""

from __future__ import annotations

from typing import Any

from couchbase.connection import Connection
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
"""The release of the SDK whose interface this is."""

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


class Couchbase:
    """Where programs begin."""

    @staticmethod
    def connect(
        bucket: str | None = None,
        host: Any = "localhost",
        port: int = 8091,
        password: str | None = None,
        quiet: Any = False,
        config_cache: str | None = None,
        unlock_gil: Any = True,
        timeout: float | None = 2.5,
        transcoder: Any = None,
        lockmode: int = LOCKMODE_WAIT,
        **kwargs: Any,
    ) -> Connection:
        """Connect to a bucket; see :class:`couchbase.connection.Connection` for the arguments."""
        return Connection(
            bucket=bucket,
            host=host,
            port=port,
            password=password,
            quiet=quiet,
            config_cache=config_cache,
            unlock_gil=unlock_gil,
            timeout=timeout,
            transcoder=transcoder,
            lockmode=lockmode,
            **kwargs,
        )
