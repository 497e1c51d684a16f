"""Statistics of nodes: one request per node and group, with any number of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.frames import Frame
from couchbase.result import MultiResult

Question = tuple[int, Callable[["Frame | None"], bool], "dict[str, Any]"]
"""Opcode, listener and fields, the arguments of :meth:`couchbase.protocol.conversation.Conversation.ask`."""


class Statistics:
    """Collects the answers of nodes.

    :param collected: receives the answers: name -> dict of node -> value, an int if it is one; and the groups
        that no node has given (:attr:`couchbase.result.MultiResult.refused`).
    :param groups: the groups of statistics; ``""`` for the default group.
    :param complete: called when the last request is answered or its node is lost.
    """

    def __init__(
        self,
        collected: MultiResult[Any],
        groups: Sequence[str],
        complete: Callable[[], None] = lambda: None,
    ) -> None:
        self.collected = collected
        self.open = 0
        """Number of requests without an answer."""
        self.lost: list[str] = []
        """The nodes that were lost before they answered."""
        self._groups = groups
        self._complete = complete
        self._given: set[str] = set()
        self._refused: dict[str, int] = {}

    def questions(self, node: str) -> list[Question]:
        """Return the requests to a node.

        :param node: ``host:port``, the key of its values.
        """
        self.open += len(self._groups)
        return [(Opcode.STAT, self._listener(node, group), {"key": group.encode()}) for group in self._groups]

    def _listener(self, node: str, group: str) -> Callable[[Frame | None], bool]:
        def take(frame: Frame | None) -> bool:
            if frame is None:
                self.lost.append(node)
            elif frame.specific == Status.SUCCESS and (frame.key or frame.value):
                text = frame.value.decode("utf-8", "replace")
                value: Any = int(text) if text.lstrip("-").isdigit() else text
                self.collected.setdefault(frame.key.decode("utf-8", "replace"), {})[node] = value
                return True
            elif frame.specific == Status.SUCCESS:
                self._given.add(group)
            else:
                self._refused.setdefault(group, frame.specific)
            self.open -= 1
            if not self.open:
                refused = self._refused.items()
                self.collected.refused = {name: status for name, status in refused if name not in self._given}
                self._complete()
            return False

        return take
