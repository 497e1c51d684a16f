"""Chunked bodies of requests, parsed by llhttp."""

from __future__ import annotations

from httptools import HttpParserError, HttpRequestParser

from gateway.http.heads import malformed
from gateway.http.refusal import Refusal

__all__ = ["ChunkReader"]

_EMPTY_LINE = b"\r\n\r\n"


class ChunkReader:
    """Reads one chunked body.

    Chunk extensions and trailers are ignored: nothing after a body may change the headers that the request
    was checked by.

    :param max_overhead: limit on extensions and trailers together, in bytes.
    """

    __slots__ = ("_max_overhead", "_overhead", "_parser", "_parts", "_tail", "is_complete")

    def __init__(self, max_overhead: int) -> None:
        self.is_complete = False
        self._max_overhead = max_overhead
        self._overhead = 0
        self._parts: list[bytes] = []
        self._tail = b""
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")

    def read(self, data: bytes) -> tuple[bytes, int]:
        """Take received bytes.

        :returns: the part of the body in ``data``, and the position in ``data`` up to which it was read.
        :raises Malformed: the chunks are malformed.
        :raises Refusal: 431, extensions or trailers are too long.
        """
        try:
            end = self._feed(data)
        except HttpParserError as error:
            raise malformed(error) from None
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        # The bytes for the size, newlines and a signature of each chunk are not limited.
        size = len(body)
        self._overhead = max(0, self._overhead + end - size - 16 * len(parts) - 2 * size)
        parts.clear()
        if self._overhead > self._max_overhead:
            raise Refusal("HeadersTooLarge", "Chunk extensions or trailers are too long.", resource="")
        return body, end

    def _feed(self, data: bytes) -> int:
        # A message ends with an empty line, so llhttp gets nothing after an empty line until it is known
        # whether the message ended there.
        view = memoryview(data)
        start = 0
        while start < len(data) and not self.is_complete:
            tail = self._tail
            found = (tail + data[start : start + 3]).find(_EMPTY_LINE)
            if found >= 0:
                end = start + found + 4 - len(tail)
            else:
                found = data.find(_EMPTY_LINE, start)
                end = found + 4 if found >= 0 else len(data)
            self._tail = (tail + data[max(start, end - 3) : end])[-3:]
            self._parser.feed_data(view[start:end])
            start = end
        return start

    def close(self) -> None:
        """Drop the parser, which refers to this object."""
        del self._parser

    def on_body(self, data: bytes) -> None:
        """Called by httptools: a part of the body."""
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """Called by httptools: the body has ended."""
        self.is_complete = True
