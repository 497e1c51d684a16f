"""A client of one batch that reads while it writes: the batch may have any length, and nothing is kept.

Answers are counted, not parsed, so that the measurement shows the gateway.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import urlsplit

READ_BYTES = 262144
LINE_END = b"}\n"
ERROR = b'"error":'
LAST_CHUNK = b"\r\n0\r\n\r\n"
assert len(LAST_CHUNK) == len(ERROR) - 1, "kept of the received bytes"


class BatchStream:
    """One running ``POST .../batch``.

    :param url: of the gateway.
    :param bodies: parts of the body, each some whole lines.
    :param on_answers: called with the number of answer lines received so far.
    """

    def __init__(
        self, url: str, bodies: Iterable[bytes], on_answers: Callable[[int], None] = lambda n: None
    ) -> None:
        self._parts = urlsplit(url)
        self._bodies = bodies
        self._on_answers = on_answers
        # The last bytes received: a searched mark may be split between two reads.
        self._tail = b""
        self.answers = 0
        self.failures = 0

    def run(self) -> None:
        """Send everything and count every answer.

        :raises RuntimeError: the gateway refused the batch or ended it early.
        """
        assert self._parts.hostname is not None
        with socket.create_connection((self._parts.hostname, self._parts.port or 80)) as connection:
            connection.sendall(self._head())
            connection.setblocking(False)
            poll = select.poll()
            poll.register(connection, select.POLLIN | select.POLLOUT)
            chunks = self._chunks()
            unsent = memoryview(next(chunks))
            while self._tail != LAST_CHUNK:
                ((_, events),) = poll.poll()
                if events & ~select.POLLOUT:
                    self._count(self._some(connection))
                if events & select.POLLOUT:
                    unsent = unsent[connection.send(unsent) :]
                    if not unsent:
                        chunk = next(chunks, b"")
                        if not chunk:
                            poll.modify(connection, select.POLLIN)
                        unsent = memoryview(chunk)

    def _head(self) -> bytes:
        head = (
            f"POST /v1/buckets/default/batch HTTP/1.1\r\nHost: {self._parts.netloc}\r\n"
            "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        return head.encode()

    def _chunks(self) -> Iterator[bytes]:
        for body in self._bodies:
            yield b"%x\r\n%b\r\n" % (len(body), body)
        yield b"0\r\n\r\n"

    def _some(self, connection: socket.socket) -> bytes:
        try:
            data = connection.recv(READ_BYTES)
        except OSError as error:
            raise RuntimeError(f"the gateway closed the connection: {error}") from error
        if not data:
            raise RuntimeError("the gateway ended the answer early")
        return data

    def _count(self, data: bytes) -> None:
        """Count lines, each an object: only that of a failure has an ``"error":``."""
        tail = self._tail
        if not tail and b" 200 " not in data[:20]:
            raise RuntimeError(f"the gateway refused the batch: {data[:500]!r}")
        seam = tail + data[: len(ERROR) - 1]
        self.answers += data.count(LINE_END) + (tail[-1:] + data[:1] == LINE_END)
        self.failures += data.count(ERROR) + seam.count(ERROR)
        self._tail = (tail + data[-len(LAST_CHUNK) :])[-len(LAST_CHUNK) :]
        self._on_answers(self.answers)
