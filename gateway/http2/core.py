"""The ``h2`` library's connection, as a server that checks requests itself uses it."""

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
"""Bytes of a body that a client may send before its handler wants them, as the protocol sets out."""
STREAM_WINDOW = 2**17
"""Bytes of a body that may be on their way once its handler wants them."""
CONNECTION_WINDOW = 2**19
"""Bytes of all bodies of a connection that may be on their way."""

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
    """One connection's state: frames in, events out; and frames that are to be sent.

    Three things are not left to h2, which would end the connection for them: whether a request is well-formed
    (:mod:`gateway.http2.heads`), whether a body has the announced length, and how many streams there may be.

    :param max_streams: what is announced as limit on streams open at once; its owner enforces it.
    :param max_headers: what is announced as limit on the size of a head.
    """

    # h2 remembers how streams have ended, to tell frames that were on their way from wrong ones.
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
        # From here on this limit is the owner's, who refuses single streams.
        self.local_settings = Settings(client=False)
        # A head beyond its limit is still decoded, so that it can be refused with words; the decoder's state
        # is lost beyond this.
        self.decoder.max_header_list_size = max(4 * max_headers, _LEAST_DECODED)
        self.increment_flow_control_window(CONNECTION_WINDOW - FIRST_WINDOW)
        self.receive_data(PREFACE)

    def limit_table(self) -> None:
        """Limit the memory that a client may have us use for headers that repeat in answers."""
        if self.encoder.header_table_size > _HEADER_TABLE_BYTES:
            self.encoder.header_table_size = _HEADER_TABLE_BYTES

    def _begin_new_stream(self, stream_id: int, allowed_ids: Any) -> Any:
        stream: Any = super()._begin_new_stream(stream_id, allowed_ids)
        # Without an expected length it compares none.
        stream._initialize_content_length = _ignore
        return stream

    def _terminate_connection(self, error_code: ErrorCodes) -> None:
        """Leave the GOAWAY to the owner, who gives the reason with it."""


def _ignore(headers: object) -> None:
    pass


def is_whole_body(event: Any, number: int) -> bool:
    """Return whether an event is the whole body of a stream."""
    return type(event) is DataReceived and event.stream_id == number and event.stream_ended is not None
