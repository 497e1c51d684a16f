"""A store whose files are moved or deleted while it is open."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from couchnode.data.storage import StoreLostError
from tests.couchnode.data.test_storage import StoreCase, item, transaction

Steps = Generator[Deferred[Any], Any, None]


class PlaceTests(StoreCase):
    """What the store reports, and where its documents are."""

    @inlineCallbacks
    def refused_after(self, name: str, change: Callable[[], object]) -> Steps:
        """See that nothing is reported as written after a change of the files."""
        store, _ = yield self.open()
        yield store.write(transaction(item(b"k", b"1")))
        change()
        for value in (b"2", b"3"):
            lost = yield self.assertFailure(store.write(transaction(item(b"k", value, 2))), StoreLostError)
            self.assertIn(f"{name} was moved, deleted or replaced", str(lost))
        self.store = store

    @inlineCallbacks
    def test_deleted(self) -> Steps:
        """The folder is deleted, with everything in it."""

        def delete() -> None:
            for file in self.path.parent.iterdir():
                file.unlink()

        yield self.refused_after(str(self.path), delete)

    @inlineCallbacks
    def test_log_deleted(self) -> Steps:
        """Only the write-ahead log is deleted, which has the changes that a crash would leave."""
        log = Path(f"{self.path}-wal")
        yield self.refused_after(str(log), log.unlink)

    @inlineCallbacks
    def test_replaced(self) -> Steps:
        """A copy has the name of the open file."""

        def replace() -> None:
            content = self.path.read_bytes()
            self.path.unlink()
            self.path.write_bytes(content)

        yield self.refused_after(str(self.path), replace)

    @inlineCallbacks
    def test_moved_and_put_back(self) -> Steps:
        """What was written meanwhile is in the moved file; after it is back, writing works again."""
        away = self.path.parent.with_name("away")
        yield self.refused_after(str(self.path), lambda: self.path.parent.rename(away))
        away.rename(self.path.parent)
        found = yield self.contents(self.store)
        self.assertEqual(found[5, b"k"].value, b"3")
        yield self.store.write(transaction(item(b"k", b"4", 4)))
        yield self.store.close()
        store, opened = yield self.open()
        self.assertTrue(opened.clean)
        self.assertEqual((yield self.contents(store))[5, b"k"].value, b"4")
