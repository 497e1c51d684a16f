"""Other changes of one document, observation and refusals on the fast path: what is left to the general path,
and the cost. That the answers are the same is tested in :mod:`tests.couchnode.kv.test_fastpath`."""

from __future__ import annotations

import sys
from struct import pack
from typing import Any

from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.frames import HEADER, encode_request
from couchnode.kv.quickedits import CAS_ONLY, EDITS, FETCHING, STORING, observation
from tests import work
from tests.couchnode.kv.test_fastpath import FEATURES, observed, store_extras
from tests.couchnode.kv.test_server import InMemoryCase

BODY = b'{"text":"%b"}' % (b"x" * 100)
NUMBERS = pack(">QQI", 1, 0, 0)


class FormTests(InMemoryCase):
    """Requests of another form are declined before anything changes."""

    def test_edits(self) -> None:
        """A part that the command must not have, or of another length."""
        vbucket = self.bucket.vbuckets[0]
        vbucket.store(0, b"\0k", b"1")
        before = vbucket.items[b"\0k"]
        for opcode, edit in EDITS.items():
            for extras in (b"", bytes(3), bytes(4), bytes(20)):
                for value in (b"", b"1"):
                    for cas in (0, 2**64 - 1):
                        usual = {
                            Opcode.TOUCH: extras[3:] == b"\0" and not (value or cas),
                            Opcode.GAT: extras[3:] == b"\0" and not (value or cas),
                            Opcode.GET_LOCKED: extras in (b"", bytes(4)) and not (value or cas),
                            Opcode.UNLOCK: False,
                            Opcode.INCREMENT: len(extras) == 20 and not (value or cas),
                            Opcode.DECREMENT: len(extras) == 20 and not (value or cas),
                            Opcode.APPEND: not extras,
                            Opcode.PREPEND: not extras,
                        }[Opcode(opcode)]
                        if not usual:
                            self.assertIsNone(edit(vbucket, b"\0k", extras, value, cas), (opcode, extras))
                            self.assertIs(vbucket.items[b"\0k"], before)

    def test_one_form_of_answer(self) -> None:
        """Each command has one form of answer: the document, a header, or the token of a mutation."""
        self.assertLessEqual(FETCHING | set(CAS_ONLY) | STORING, set(EDITS))
        self.assertEqual(len(FETCHING) + len(CAS_ONLY) + len(STORING), len(EDITS))

    def test_observation(self) -> None:
        """Lists that are empty or cut off, a vbucket that is not here, another history, keys that may be
        invalid."""
        bucket = self.bucket
        vbucket = bucket.vbuckets[0]
        for value in (
            b"",
            observed((0, b"k"))[:-1],
            observed((0, b"k"))[:3],
            observed((len(bucket.vbuckets), b"k")),
            observed((0, b"k"), (0, b"")),
            observed((0, b"k" * 247)),
        ):
            self.assertIsNone(observation(bucket, Opcode.OBSERVE, vbucket, value, prefixed=False), value)
        value = observed((0, b"\x7fk"))
        self.assertIsNone(observation(bucket, Opcode.OBSERVE, vbucket, value, prefixed=True))
        self.assertIsNotNone(observation(bucket, Opcode.OBSERVE, vbucket, value, prefixed=False))
        for value in (b"", pack(">Q", vbucket.uuid + 1)):
            self.assertIsNone(observation(bucket, Opcode.OBSERVE_SEQNO, vbucket, value, prefixed=False))
        value = pack(">Q", vbucket.uuid)
        self.assertIsNone(observation(bucket, Opcode.OBSERVE_SEQNO, None, value, prefixed=False))


class CostTests(InMemoryCase):
    """Bytecode instructions, which do not depend on the machine."""

    def answer_to(self, request: bytes) -> tuple[int, int, int]:
        """Return status and CAS of the answer, and the instructions that it took."""
        used = work.instructions(lambda: self.connection.dataReceived(request))
        fields = HEADER.unpack_from(self.transport.value())
        self.transport.clear()
        return fields[5], fields[8], used

    def test_one_at_a_time(self) -> None:
        """Each request alone takes not much more than a store. On the general path it took 1,900 to 2,400."""
        self.connection.session.set_features(frozenset(FEATURES) - {Feature.COLLECTIONS})
        for key, value in ((b"k", BODY), (b"n", b"5"), (b"t", b"")):
            self.answer_to(encode_request(Opcode.SET, key=key, extras=store_extras(0), value=value))
        vbucket = self.bucket.vbuckets[0]
        requests: dict[str, tuple[int, int, dict[str, Any]]] = {
            "touch": (950, Opcode.TOUCH, {"extras": pack(">I", 100)}),
            "get and touch": (1028, Opcode.GAT, {"extras": pack(">I", 200)}),
            "increment": (968, Opcode.INCREMENT, {"key": b"n", "extras": NUMBERS}),
            "decrement": (968, Opcode.DECREMENT, {"key": b"n", "extras": NUMBERS}),
            "append": (910, Opcode.APPEND, {"key": b"t", "value": b"1"}),
            "prepend": (910, Opcode.PREPEND, {"key": b"t", "value": b"1"}),
            "observe": (645, Opcode.OBSERVE, {"key": b"", "value": observed((0, b"k"))}),
            "observe seqno": (497, Opcode.OBSERVE_SEQNO, {"key": b"", "value": pack(">Q", vbucket.uuid)}),
            "delete": (958, Opcode.DELETE, {}),
            "missing": (480, Opcode.GET, {}),
        }
        for name, (most, opcode, parts) in requests.items():
            status, _, used = self.answer_to(encode_request(opcode, **{"key": b"k", **parts}))
            self.assertEqual(status, Status.KEY_ENOENT if name == "missing" else 0, name)
            self.within(used, most, name)

    def test_locks_and_refusals(self) -> None:
        """The same for a lock, its release, and a store that is refused."""
        self.connection.session.set_features(frozenset(FEATURES) - {Feature.COLLECTIONS})
        stored = {"key": b"k", "extras": store_extras(0), "value": BODY}
        self.answer_to(encode_request(Opcode.SET, **stored))
        status, cas, used = self.answer_to(encode_request(Opcode.GET_LOCKED, key=b"k"))
        self.assertEqual(status, 0)
        self.within(used, 775, "lock")
        status, _, used = self.answer_to(encode_request(Opcode.SET, **stored))
        self.assertEqual(status, Status.LOCKED)
        self.within(used, 610, "locked")
        status, answered, used = self.answer_to(encode_request(Opcode.UNLOCK, key=b"k", cas=cas))
        self.assertEqual((status, answered), (0, 0), "this answer has no CAS")
        self.within(used, 665, "unlock")
        for opcode, other in ((Opcode.SET, 1), (Opcode.ADD, 0)):
            status, _, used = self.answer_to(encode_request(opcode, cas=other, **stored))
            self.assertEqual(status, Status.KEY_EEXISTS)
            self.within(used, 585, f"{opcode.name}, refused")

    def within(self, used: int, most: int, name: str) -> None:
        """Check a budget, on the versions for which it was made."""
        if sys.version_info[:2] in work.INSTRUCTIONS_OF:
            self.assertLessEqual(used, most, name)
