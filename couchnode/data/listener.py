"""What a vbucket tells about its changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from couchnode.data.item import Item

if TYPE_CHECKING:
    from couchnode.data.vbucket import VBucket


class ChangeListener(Protocol):
    """Is notified of every change, in the order of sequence numbers."""

    def changed(self, vbucket: VBucket, item: Item) -> None:
        """A document was stored or deleted (``item.deleted``)."""

    def prepared(self, vbucket: VBucket, item: Item) -> None:
        """A synchronous write waits for other copies; readers do not see it yet."""

    def settled(self, vbucket: VBucket, item: Item, committed: bool) -> None:
        """A synchronous write became the document, or was dropped."""
