"""Eviction: an ephemeral bucket with nruEviction takes every write, and gives up its oldest documents."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchnode.data.bucket import NodeBucket
from couchnode.data.eviction import HIGH_WATERMARK, MOST_AT_ONCE
from couchnode.data.item import StatusError
from couchnode.data.storage import MemoryStore
from couchnode.data.storemode import StoreMode
from couchnode.data.vbucket import VBucket
from tests.couchnode.nodes import UUID

QUOTA = 2**20
VALUE = bytes(1000)


class EvictionTests(SynchronousTestCase):
    """A bucket of one MiB with four vbuckets."""

    def setUp(self) -> None:
        """Make it."""
        self.bucket = NodeBucket(
            "b", UUID, vbucket_count=4, quota_bytes=QUOTA, store=MemoryStore(), clock=Clock()
        )
        self.successResultOf(self.bucket.start())
        self.bucket.evictor.is_on = True

    def vbucket(self, number: int) -> VBucket:
        """Return one of its vbuckets."""
        vbucket = self.bucket.vbuckets[number % 4]
        assert vbucket is not None
        return vbucket

    def store(self, number: int, value: bytes = VALUE) -> Any:
        """Store document ``number``."""
        return self.vbucket(number).store(StoreMode.SET, b"%d" % number, value)

    def test_every_write_succeeds(self) -> None:
        """Ten times the quota is written; memory stays below the watermark, and the newest document
        exists."""
        for number in range(10_000):
            self.store(number)
            self.assertLessEqual(self.bucket.memory_bytes, HIGH_WATERMARK * QUOTA)
        self.assertIsNotNone(self.vbucket(9999).get(b"9999"))
        self.assertIsNone(self.vbucket(0).get(b"0"))
        self.assertGreater(self.bucket.evictor.evicted, 9000)

    def test_locked_documents_stay(self) -> None:
        """A document that a client has locked is not deleted, however old it is."""
        self.store(0)
        self.vbucket(0).lock(b"0")
        for number in range(1, 5000):
            self.store(number)
        self.assertIsNotNone(self.vbucket(0).get(b"0"))

    def test_large_documents(self) -> None:
        """A large document replaces many small ones, in steps that stay short."""
        for number in range(2000):
            self.store(number, b"")
        before = self.bucket.evictor.evicted
        self.store(5000, bytes(QUOTA // 4))
        self.assertLessEqual(self.bucket.evictor.evicted - before, MOST_AT_ONCE)
        self.assertIsNotNone(self.vbucket(5000).get(b"5000"))

    def test_without_the_policy(self) -> None:
        """With noEviction a full bucket refuses writes and keeps what it has."""
        self.bucket.evictor.is_on = False
        with self.assertRaises(StatusError):
            for number in range(2000):
                self.store(number)
        self.assertIsNotNone(self.vbucket(0).get(b"0"))
        self.assertEqual(self.bucket.evictor.evicted, 0)
