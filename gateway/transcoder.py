"""The transcoder of every connection that the gateway opens: bytes pass unread."""

from __future__ import annotations

__all__ = ["PassThrough"]


class PassThrough:
    """Keys and values are bytes on both sides; ``format`` is the 32 bits of flags to store."""

    def encode_key(self, key: bytes) -> bytes:
        """Return the key as the request's path had it, decoded once."""
        return key

    def decode_key(self, key: bytes) -> bytes:
        """Return the key as it came."""
        return key

    def encode_value(self, value: bytes, format: int | None) -> tuple[bytes, int]:
        """Return the value with its flags."""
        return value, format or 0

    def decode_value(self, value: bytes, flags: int) -> bytes:
        """Return the value as it is stored; nothing is unpickled here, ever."""
        return value
