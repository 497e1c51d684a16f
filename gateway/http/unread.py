"""Answers that wait in this process because their clients read slowly: a limit on all of them together."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reactor.gate import peer_below
from reactor.sparselog import SparseLog

__all__ = ["Reader", "UnreadAnswers"]


class Reader(Protocol):
    """A connection whose client reads slowly."""

    transport: Any

    def abort(self) -> None:
        """Drop the connection."""


class UnreadAnswers:
    """Counts the bytes of answers that the kernel has not taken from us, over all slow clients.

    A small answer is complete before it is sent, and a client of HTTP/2 may ask for a hundred at once. So
    connections are cut beyond the limit: first those of the address that has most of the bytes, and of these
    the one that has most. Bodies that are produced in parts, and large documents, have limits of their own.

    :param limit: in bytes.
    :param clock: the reactor; connections are cut in its next turn.
    """

    log = Logger()

    def __init__(self, limit: int, clock: IReactorTime) -> None:
        self.limit = limit
        self.used = 0
        """Bytes that wait now."""
        self._clock = clock
        self._sizes: dict[Reader, int] = {}
        self._is_cutting = False
        self._sparse_log = SparseLog(self.log, clock.seconds)

    def hold(self, reader: Reader, size: int) -> None:
        """Note how many bytes wait for a client now; 0 if none do any more."""
        if size <= 0:
            self.release(reader)
            return
        self.used += size - self._sizes.get(reader, 0)
        self._sizes[reader] = size
        if self.used > self.limit and not self._is_cutting:
            # Not at once: the caller may be in the middle of an answer.
            self._is_cutting = True
            self._clock.callLater(0, self._cut)

    def release(self, reader: Reader) -> None:
        """Note that nothing waits for a client, or that the client is gone."""
        self.used -= self._sizes.pop(reader, 0)

    def _cut(self) -> None:
        self._is_cutting = False
        if self.used <= self.limit:
            return
        readers: defaultdict[object, list[Reader]] = defaultdict(list)
        for reader in sorted(self._sizes, key=self._sizes.__getitem__):
            readers[_host(reader)].append(reader)
        totals = {host: sum(self._sizes[reader] for reader in each) for host, each in readers.items()}
        while self.used > self.limit:
            host = max(totals, key=totals.__getitem__)
            worst = readers[host].pop()
            size = self._sizes[worst]
            self._sparse_log.warn(
                "{used} bytes of answers wait for slow clients; the limit is {limit} (--max-buffered): a"
                " connection of {host}, for which {size} of them wait, is cut",
                used=self.used,
                limit=self.limit,
                host=host,
                size=size,
            )
            totals[host] -= size
            self.release(worst)
            worst.abort()


def _host(reader: Reader) -> object:
    peer = peer_below(reader.transport)
    # A Unix socket has no address.
    return getattr(peer, "host", peer)
