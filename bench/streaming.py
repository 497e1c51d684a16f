"""A batch as a client sees it that reads while it writes: any length, nothing kept."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

READ_BYTES = 262144


class Batch:
    """One ``POST .../batch`` under way.

    :param url: of the gateway.
    :param bodies: parts of the body, each some whole lines.
    :param on_answers: called with how many lines of the answer have come so far.
    """

    def __init__(
        self, url: str, bodies: Iterable[bytes], on_answers: Callable[[int], None] = lambda n: None
    ) -> None:
        self._parts = urlsplit(url)
        self._bodies = bodies
        self._on_answers = on_answers
        self._begun = b""
        self._error: BaseException | None = None
        self.answers = 0
        self.failures = 0

    def run(self) -> None:
        """Send everything and count every answer.

        :raises RuntimeError: the gateway refused the batch or broke it off.
        """
        assert self._parts.hostname is not None
        with socket.create_connection((self._parts.hostname, self._parts.port or 80)) as connection:
            writer = threading.Thread(target=self._write, args=(connection,), daemon=True)
            writer.start()
            self._read(connection)
            writer.join()
        if self._error is not None:
            raise self._error

    def _write(self, connection: socket.socket) -> None:
        try:
            head = (
                f"POST /v1/buckets/default/batch HTTP/1.1\r\nHost: {self._parts.netloc}\r\n"
                "Content-Type: application/x-ndjson\r\n"
                "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            )
            connection.sendall(head.encode())
            for body in self._bodies:
                connection.sendall(b"%x\r\n%b\r\n" % (len(body), body))
            connection.sendall(b"0\r\n\r\n")
        except OSError as error:
            self._error = RuntimeError(f"the gateway closed the connection: {error}")

    def _read(self, connection: socket.socket) -> None:
        """Take the answer out of its chunks, as it comes."""
        held = b""
        while b"\r\n\r\n" not in held:
            held += self._some(connection)
        head, _, held = held.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(f"the gateway refused the batch: {head[:200]!r} {held[:300]!r}")
        while True:
            while b"\r\n" not in held:
                held += self._some(connection)
            size_line, _, held = held.partition(b"\r\n")
            size = int(size_line, 16)
            if not size:
                return
            while len(held) < size + 2:
                held += self._some(connection)
            self._count(held[:size])
            held = held[size + 2 :]

    def _count(self, data: bytes) -> None:
        """Count whole lines without parsing them: only a failure has an ``"error":``."""
        lines, newline, self._begun = (self._begun + data).rpartition(b"\n")
        data = lines + newline
        self.answers += data.count(b"\n")
        self.failures += data.count(b'"error":')
        self._on_answers(self.answers)

    def _some(self, connection: socket.socket) -> bytes:
        data = connection.recv(READ_BYTES)
        if not data:
            raise RuntimeError("the gateway broke the answer off")
        return data
