"""The order in which a service's nodes are tried: round robin, with nodes that failed recently at the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gateway.http.known import Known

__all__ = ["BAD_SECONDS", "NodeChoice"]

BAD_SECONDS = 10.0
"""How long a node that could not be reached is tried only after all others, in seconds."""

_MOST_BAD = 1024


class NodeChoice:
    """The order in which the nodes of a service are tried.

    :param seconds: the reactor's time.
    :param first: number of the first turn; ``None`` for a random one, so that many gateways do not begin with
        the same node.
    """

    def __init__(self, seconds: Callable[[], float], first: int | None = None) -> None:
        self._seconds = seconds
        self._turn = random.randrange(1 << 16) if first is None else first
        self._bad_until: Known[str, float] = Known(_MOST_BAD)

    def order(self, bases: Sequence[str]) -> list[str]:
        """Return base URLs in the order to try them.

        :param bases: base URLs of all nodes that run the service.
        """
        self._turn += 1
        first = self._turn % len(bases)
        turned = [*bases[first:], *bases[:first]]
        if self._bad_until:
            now = self._seconds()
            # The sort is stable: round robin among the good nodes, and among the bad ones.
            turned.sort(key=lambda base: self._bad_until.get(base, now) > now)
        return turned

    def failed(self, base: str) -> None:
        """Note that a node could not be reached, or lost the connection."""
        self._bad_until.learn(base, self._seconds() + BAD_SECONDS)

    def answered(self, base: str) -> None:
        """Note that a node has answered."""
        if self._bad_until:
            self._bad_until.pop(base, None)
