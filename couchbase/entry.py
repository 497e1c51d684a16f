"""The entry point of programs of SDK 1.2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from couchbase.connection import Connection
from couchbase.signatures import Host, RareOptions
from couchbase.transcoder import AnyTranscoder
from couchbase.user_constants import LOCKMODE_WAIT

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Couchbase:
    """The entry point of programs."""

    # Many parameters: SDK 1.2's arguments.
    @staticmethod
    def connect(
        bucket: str | None = None,
        host: Host = "localhost",
        port: int = 8091,
        password: str | None = None,
        quiet: bool = False,
        config_cache: str | None = None,
        unlock_gil: bool = True,
        timeout: float | None = 2.5,
        transcoder: AnyTranscoder | type[AnyTranscoder] | None = None,
        lockmode: int = LOCKMODE_WAIT,
        **kwargs: Unpack[RareOptions],
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
