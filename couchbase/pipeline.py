"""Context managers of a connection: pipelines, and durability for a block."""

from __future__ import annotations

from typing import Any


class Pipeline:
    """Collects the operations of a ``with`` block and sends them together.

    Inside the block every operation returns ``None`` at once. The end of the block waits for all answers and
    raises the first error among them. An object can be reused, but not nested in itself or in another
    pipeline of the same connection.
    """

    def __init__(self, parent: Any) -> None:
        self._parent = parent
        self._results: list[Any] | None = None

    @property
    def results(self) -> list[Any] | None:
        """A result (MultiResult of a multi operation) for each operation, in their order.

        ``None`` before the first use; unchanged by a block that failed.
        """
        return self._results

    def __enter__(self) -> None:
        self._parent._pipeline_begin()

    def __exit__(self, *args: object) -> None:
        self._results = self._parent._pipeline_end()


class DurabilityContext:
    """Durability requirements for mutations without their own, within a ``with`` block."""

    def __init__(self, parent: Any, persist_to: int, replicate_to: int, timeout: float) -> None:
        self._parent = parent
        self._wanted = persist_to, replicate_to, int(timeout * 1_000_000)
        self._before: tuple[int, int, int] = (0, 0, 0)

    def __enter__(self) -> None:
        parent = self._parent
        self._before = parent._dur_persist_to, parent._dur_replicate_to, parent._dur_timeout
        parent._dur_persist_to, parent._dur_replicate_to, parent._dur_timeout = self._wanted

    def __exit__(self, *args: object) -> None:
        parent = self._parent
        parent._dur_persist_to, parent._dur_replicate_to, parent._dur_timeout = self._before
