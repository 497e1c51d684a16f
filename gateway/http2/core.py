"""The ``h2`` library's connection, for a server that checks requests itself."""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived
from h2.settings import SettingCodes, Settings
from hpack import Encoder

from gateway.http.opening import PREFACE

__all__ = ["CONNECTION_WINDOW", "FIRST_WINDOW", "STREAM_WINDOW", "Core", "is_whole_body"]

FIRST_WINDOW = 2**16 - 1
"""Bytes of a body that a client may send before its handler wants them; the protocol's initial window."""
STREAM_WINDOW = 2**17
"""Bytes of a body that may be on their way after its handler has asked for it."""
CONNECTION_WINDOW = 2**19
"""Bytes of all bodies of one connection that may be on their way."""

_HEADER_TABLE_BYTES = 4096
_LEAST_DECODED = 2**16

_CONFIGURATION = H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
    validate_inbound_headers=False,
    normalize_inbound_headers=False,
)


class _QuickEncoder(Encoder):
    """Compresses headers with hpack's tables, but without Huffman coding, which takes an eighth of the CPU of
    a small answer and saves some twenty bytes."""

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        """Encode a block of headers."""
        return super().encode(headers, huffman)


class Core(H2Connection):
    """One connection's state: turns received frames into events, and makes the frames to send.

    Three checks are not left to h2, which would end the connection if they fail: whether a request is
    well-formed (:mod:`gateway.http2.heads`), whether a body has the announced length, and how many streams
    there may be.

    :param max_streams: announced limit on open streams; the owner of this object enforces it.
    :param max_headers: announced limit on the size of a head, in bytes.
    """

    # h2 remembers how streams have ended, to distinguish frames that were on their way from invalid ones.
    MAX_CLOSED_STREAMS = 1024

    def __init__(self, max_streams: int, max_headers: int) -> None:
        super().__init__(_CONFIGURATION)
        self.encoder = _QuickEncoder()
        announced = {
            SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: max_headers,
        }
        self.local_settings = Settings(client=False, initial_values=announced)
        self.initiate_connection()
        # From here on the owner enforces this limit, and refuses single streams.
        self.local_settings = Settings(client=False)
        # A head over its limit is still decoded, so that it can be refused with a message; beyond this limit,
        # the decoder's state is lost.
        self.decoder.max_header_list_size = max(4 * max_headers, _LEAST_DECODED)
        self.increment_flow_control_window(CONNECTION_WINDOW - FIRST_WINDOW)
        self.receive_data(PREFACE)

    def limit_table(self) -> None:
        """Limit the memory that a client can make us use for the table of repeated answer headers."""
        if self.encoder.header_table_size > _HEADER_TABLE_BYTES:
            self.encoder.header_table_size = _HEADER_TABLE_BYTES

    def _begin_new_stream(self, stream_id: int, allowed_ids: Any) -> Any:
        stream: Any = super()._begin_new_stream(stream_id, allowed_ids)
        # h2 does not compare lengths if none is expected.
        stream._initialize_content_length = _ignore
        return stream

    def _terminate_connection(self, error_code: ErrorCodes) -> None:
        """Send no GOAWAY: the owner sends one, with the reason."""


def _ignore(headers: object) -> None:
    pass


def is_whole_body(event: Any, number: int) -> bool:
    """Return whether an event is the whole body of a stream."""
    return type(event) is DataReceived and event.stream_id == number and event.stream_ended is not None
