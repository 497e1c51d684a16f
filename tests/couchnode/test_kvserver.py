"""The key-value server over real sockets."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from couchbase.protocol.constants import Opcode, Status
from tests.couchnode.nodes import ServedNode

Steps = Generator[Deferred[Any], Any, None]


class FirstSteps(ServedNode):
    """A client without credentials on the open bucket."""

    @inlineCallbacks
    def test_what_is_set_is_got(self) -> Steps:
        """A value comes back with its flags, and with the CAS that SET answered."""
        client = yield self.connect()
        stored = yield client.ask(Opcode.SET, key=b"k", value=b"v", extras=b"\0\0\0\5\0\0\0\0", vbucket=3)
        self.assertEqual((stored.specific, stored.extras, stored.value), (Status.SUCCESS, b"", b""))
        found = yield client.ask(Opcode.GET, key=b"k", vbucket=3)
        self.assertEqual((found.specific, found.extras, found.value), (Status.SUCCESS, b"\0\0\0\5", b"v"))
        self.assertEqual(found.cas, stored.cas)
        self.assertEqual(found.opaque, 2)

    @inlineCallbacks
    def test_a_miss_is_an_empty_key_enoent(self) -> Steps:
        """A missing document is status 1 with no body."""
        client = yield self.connect()
        missing = yield client.ask(Opcode.GET, key=b"k", vbucket=3)
        self.assertEqual((missing.specific, missing.value), (Status.KEY_ENOENT, b""))
