"""Writes that bring their own version along."""

from __future__ import annotations

from struct import pack, unpack
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.frames import Frame
from couchnode.data.item import Ledger, StatusError
from couchnode.data.storemode import StoreMode
from couchnode.data.vbucket import VBucket
from couchnode.data.withmeta import Content, Version, write
from tests.couchnode.kv.test_commands import CommandCase, Steps
from tests.couchnode.nodes import ServedNode

SKIP, FORCE, REGENERATE = 1, 2, 4
LATER = 4_000_000_000
VERSIONS = st.builds(
    Version, st.integers(1, 3), st.integers(1, 3), st.sampled_from([0, LATER, LATER + 1]), st.integers(0, 2)
)


def section(*pairs: tuple[bytes, bytes]) -> bytes:
    """Return attributes as they come before a body."""
    parts = b"".join(pack(">I", len(name + text) + 2) + name + b"\0" + text + b"\0" for name, text in pairs)
    return pack(">I", len(parts)) + parts


class ResolutionTests(SynchronousTestCase):
    """Which of two versions stays."""

    @given(st.lists(st.tuples(VERSIONS, st.booleans()), min_size=1, max_size=6))
    def test_any_order(self, writes: list[tuple[Version, bool]]) -> None:
        """In whatever order versions come, the highest one is there at the end, with all that it brought."""
        vbucket = VBucket(3, Ledger(2**26), Clock().seconds)
        for version, deleted in writes:
            content = Content(b"" if deleted else b"v%d" % version.flags, deleted=deleted)
            try:
                write(vbucket, b"\0k", content, version)
            except StatusError as refused:
                self.assertEqual(refused.status, Status.KEY_EEXISTS)
        wanted = max(version for version, _ in writes)
        found = vbucket.find(b"\0k")
        assert found is not None
        self.assertEqual((found.revid, found.cas), wanted[:2])
        if not found.deleted:
            self.assertEqual((found.expiry, found.flags), wanted[2:])
            self.assertEqual(found.value, b"v%d" % wanted.flags)

    def test_next_version(self) -> None:
        """Later versions of the document go on from the one that came: revision and CAS grow."""
        vbucket = VBucket(3, Ledger(2**26), Clock().seconds)
        high = 2**62
        write(vbucket, b"\0k", Content(b"1"), Version(40, high, 0, 0))
        item = vbucket.store(StoreMode.SET, b"\0k", b"2")
        self.assertEqual((item.revid, item.cas > high), (41, True))


class WithMeta(CommandCase):
    """The commands."""

    features = (Feature.XERROR, Feature.JSON, Feature.XATTR, Feature.MUTATION_SEQNO)

    def write(
        self, name: str = "SET", meta: tuple[int, ...] = (7, 0, 5, 99), rest: bytes = b"", **parts: Any
    ) -> Frame:
        """Send one: flags, expiry, revision and CAS, then more extras."""
        extras = pack(">IIQQ", *meta) + rest
        return self.ask(Opcode[f"{name}_WITH_META"], **{"key": b"k", "extras": extras, **parts})

    def meta(self) -> tuple[int, ...]:
        """Return whether it is deleted, flags, expiry, revision, and CAS."""
        found = self.ask(Opcode.GET_META, key=b"k")
        return (*unpack(">IIIQ", found.extras), found.cas)

    def test_set(self) -> None:
        """The document has the version that came; the answer has a token."""
        answer = self.write(value=b"v", meta=(7, LATER, 5, 99))
        self.assertEqual((answer.specific, answer.cas, len(answer.extras)), (0, 99, 16))
        self.assertEqual(self.meta(), (0, 7, LATER, 5, 99))
        self.assertEqual(self.ask(Opcode.GET, key=b"k").value, b"v")

    def test_conflicts(self) -> None:
        """An older or equal version is refused, unless the resolution is skipped."""
        self.write(value=b"v")
        for meta in ((7, 0, 5, 99), (9, 0, 5, 98), (7, 0, 4, 2**60), (6, 0, 5, 99)):
            self.assertEqual(self.write(value=b"w", meta=meta).specific, Status.KEY_EEXISTS, meta)
            self.assertEqual(self.write("DEL", meta=meta).specific, Status.KEY_EEXISTS, meta)
        self.assertEqual(self.write(value=b"w", meta=(1, 0, 1, 1), rest=pack(">I", SKIP)).specific, 0)
        self.assertEqual(self.meta(), (0, 1, 0, 1, 1))
        made = self.write(value=b"x", meta=(1, 0, 1, 0), rest=pack(">I", SKIP | REGENERATE))
        self.assertGreater(made.cas, 99)

    def test_delete_and_add(self) -> None:
        """A deletion leaves a tombstone with its version, even of a missing document; ADD is for new ones."""
        self.assertEqual(self.write("DEL", meta=(7, 0, 5, 99)).specific, 0)
        self.assertEqual(self.meta()[0], 1)
        self.assertEqual(self.meta()[3:], (5, 99))
        self.assertEqual(self.ask(Opcode.GET, key=b"k").specific, Status.KEY_ENOENT)
        self.assertEqual(self.write("ADD", value=b"v", meta=(0, 0, 5, 98)).specific, Status.KEY_EEXISTS)
        self.assertEqual(self.write("ADD", value=b"v", meta=(0, 0, 6, 1)).specific, 0)
        self.assertEqual(self.write("ADD", value=b"v", meta=(0, 0, 7, 1)).specific, Status.KEY_EEXISTS)

    def test_cas(self) -> None:
        """With a CAS only that version is replaced; a locked document is refused."""
        self.assertEqual(self.write(value=b"v", cas=5).specific, Status.KEY_ENOENT)
        self.write(value=b"v")
        self.assertEqual(self.write(value=b"w", meta=(7, 0, 6, 1), cas=5).specific, Status.KEY_EEXISTS)
        self.assertEqual(self.write(value=b"w", meta=(7, 0, 6, 100), cas=99).specific, 0)
        self.ask(Opcode.GET_LOCKED, key=b"k")
        self.assertEqual(self.write(value=b"w", meta=(7, 0, 9, 9)).specific, Status.LOCKED)

    def test_attributes(self) -> None:
        """Attributes come before the body; a deletion may keep some."""
        pairs = section((b"_s", b'{"a": 1}'), (b"u", b"[1]"))
        self.assertEqual(self.write(value=pairs + b'{"b":2}', datatype=5).specific, 0)
        self.assertEqual(self.ask(Opcode.GET, key=b"k").value, b'{"b":2}')
        (item,) = [vb.items[b"\0k"] for vb in self.bucket.vbuckets if vb is not None and b"\0k" in vb.items]
        self.assertEqual(item.xattrs, b'{"_s":{"a":1},"u":[1]}')
        self.assertEqual(
            self.write("DEL", meta=(0, 0, 6, 1), value=section((b"_s", b"2")), datatype=4).specific, 0
        )
        for wrong in (
            b"",
            b"\0\0\0\5abc",
            section((b"u", b"{")),
            section((b"u", b"1"), (b"u", b"2")),
            section((b"$document", b"1")),
            section((b"a.b", b"1")),
            section((b"x" * 16, b"1")),
        ):
            answer = self.write(value=wrong, meta=(0, 0, 9, 9), datatype=4)
            self.assertEqual(answer.specific, Status.EINVAL, wrong)

    def test_forms(self) -> None:
        """Extras have four lengths; extended metadata at the end of the value is left out; the rest is
        refused."""
        for revision, rest in enumerate((b"", pack(">H", 3), pack(">I", FORCE), pack(">IH", 0, 3)), 10):
            more = b"xyz" if len(rest) in (2, 6) else b""
            answer = self.write(value=b"v%d" % revision + more, meta=(0, 0, revision, 1), rest=rest)
            self.assertEqual(answer.specific, 0, rest)
            self.assertEqual(self.ask(Opcode.GET, key=b"k").value, b"v%d" % revision)
        for rest, parts in (
            (b"\0", {}),
            (pack(">I", 0x100), {}),
            (pack(">I", REGENERATE), {}),
            (pack(">H", 9), {"value": b"short"}),
            (b"", {"meta": (0, 0, 99, 0)}),
            (b"", {"meta": (0, 0, 99, 2**64 - 1)}),
        ):
            answer = self.write(**{"value": b"v", "meta": (0, 0, 99, 1), "rest": rest, **parts})
            self.assertEqual(answer.specific, Status.EINVAL, (rest, parts))
        self.assertEqual(self.write("DEL", meta=(0, 0, 99, 1), value=b"v").specific, Status.EINVAL)


class Served(ServedNode):
    """Over a socket."""

    @inlineCallbacks
    def test_quiet(self) -> Steps:
        """The quiet twins answer failures alone."""
        client = yield self.connect()
        extras = pack(">IIQQ", 0, 0, 5, 9)
        client.send(Opcode.SETQ_WITH_META, key=b"k", value=b"v", extras=extras)
        client.send(Opcode.ADDQ_WITH_META, key=b"k", value=b"v", extras=extras)
        refused = yield client.next_answer()
        self.assertEqual((refused.opcode, refused.specific), (Opcode.ADDQ_WITH_META, Status.KEY_EEXISTS))
        client.send(Opcode.DELQ_WITH_META, key=b"k", extras=pack(">IIQQ", 0, 0, 6, 9))
        found = yield client.ask(Opcode.GET, key=b"k")
        self.assertEqual(found.specific, Status.KEY_ENOENT)
