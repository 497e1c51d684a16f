"""The interface by which a vbucket reports its changes."""

from __future__ import annotations

from typing import Protocol, TypeVar

from couchnode.data.item import Item

VB = TypeVar("VB", contravariant=True)
"""A vbucket; this module does not depend on its class."""


class ChangeListener(Protocol[VB]):
    """Is notified of every change, in the order of sequence numbers."""

    def changed(self, vbucket: VB, item: Item) -> None:
        """A document was stored or deleted (``item.deleted``)."""

    def prepared(self, vbucket: VB, item: Item) -> None:
        """A synchronous write waits for other copies; readers do not see it yet."""

    def settled(self, vbucket: VB, item: Item, committed: bool) -> None:
        """A synchronous write was committed or dropped."""
