"""Where programs of SDK 1.2 begin."""

from __future__ import annotations

from typing import Any

from couchbase.connection import Connection
from couchbase.user_constants import LOCKMODE_WAIT


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
