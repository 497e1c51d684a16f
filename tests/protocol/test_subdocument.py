"""Sub-document operations: the bytes of requests, answers of every kind, and nodes that lack something."""

from __future__ import annotations

import json
from struct import pack
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import couchbase.subdocument as SD
from couchbase import exceptions
from couchbase.exceptions import (
    CouchbaseError,
    DocumentNotJsonError,
    KeyExistsError,
    NotFoundError,
    NotSupportedError,
    ProtocolError,
    SubdocPathExistsError,
    SubdocPathMismatchError,
    SubdocPathNotFoundError,
    SubdocXattrError,
)
from couchbase.protocol import subdocument
from couchbase.protocol.call import Step
from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.frames import Frame, encode_response
from couchbase.protocol.operations import PRESERVE_EXPIRY_FRAMING
from couchbase.protocol.pathresults import SubdocResult
from couchbase.protocol.subdocument import LOOKUP_IN, MUTATE_IN, Spec
from tests.protocol.memory_driver import cluster_of

TOKEN = bytes.fromhex("00006d8f1a2b3c4d 0000000000000008")
paths = st.builds(
    Spec,
    st.sampled_from([0xC7, 0xC8, 0xC9, 0xCF]),
    st.sampled_from([0, 1, subdocument.XATTR]),
    st.binary(max_size=9),
    st.binary(max_size=9),
)


def entries(*answers: tuple[int, bytes]) -> bytes:
    """Return the value of a lookup's answer."""
    return b"".join(pack(">HI", status, len(value)) + value for status, value in answers)


def call_of(operation: Any, *specs: Spec, **options: Any) -> Step:
    """Return an operation on a document."""
    call = Step(operation, "k1", b"k1")
    call.specs = subdocument.arrange(specs)
    reads = operation is LOOKUP_IN
    encode = subdocument.lookup_value if reads else subdocument.mutation_value
    call.value = encode(call.specs)
    for name, value in options.items():
        setattr(call, name, value)
    return call


class RequestTests(SynchronousTestCase):
    """The bytes that are sent, as the protocol's documentation has them."""

    def test_lookup(self) -> None:
        """Attributes, then the whole document."""
        specs = subdocument.arrange([SD.get("$document", True), SD.get("txn", xattr=True), SD.get_full()])
        self.assertIsNone(specs.order)
        self.assertEqual(
            subdocument.lookup_value(specs).hex(),
            "c5040009" + b"$document".hex() + "c5040003" + b"txn".hex() + "00000000",
        )
        self.assertEqual(subdocument.lookup_extras(subdocument.ACCESS_DELETED), b"\x04")
        self.assertEqual(subdocument.lookup_extras(0), b"")

    def test_mutation(self) -> None:
        """A staged insert: two attributes, one of them a macro."""
        specs = subdocument.arrange(
            [
                SD.insert("txn", {"op": {}}, xattr=True),
                SD.upsert("txn.op.crc32", SD.MutationMacro.VALUE_CRC32C),
            ]
        )
        macro = b'"${Mutation.value_crc32c}"'
        self.assertEqual(
            subdocument.mutation_value(specs).hex(),
            "c704000300000009" + b'txn{"op":{}}'.hex() + "c814000c0000001a" + (b"txn.op.crc32" + macro).hex(),
        )

    def test_extras(self) -> None:
        """Expiry and flags are sent only if there is something to say."""
        self.assertEqual(
            [subdocument.mutation_extras(*pair) for pair in ((0, 0), (1, 0), (0, 60), (0x0E, 60))],
            [b"", b"\x01", bytes((0, 0, 0, 60)), bytes((0, 0, 0, 60, 0x0E))],
        )

    @given(st.lists(paths, min_size=1, max_size=16))
    def test_order(self, specs: list[Spec]) -> None:
        """Attributes are sent first, otherwise the order is kept; positions refer to the caller's order."""
        arranged = subdocument.arrange(specs)
        sent = [specs[arranged.position(index)] for index in range(len(specs))]
        attributes = [spec for spec in specs if spec.flags & subdocument.XATTR]
        others = [spec for spec in specs if not spec.flags & subdocument.XATTR]
        self.assertEqual(sent, attributes + others)
        expected = b"".join(
            pack(">BBHI", spec.opcode, spec.flags, len(spec.path), len(spec.value)) + spec.path + spec.value
            for spec in sent
        )
        self.assertEqual(subdocument.mutation_value(arranged), expected)


class AnswerTests(SynchronousTestCase):
    """Results of answers."""

    def setUp(self) -> None:
        """Connect to a node that answers as ``self.answer`` says."""
        self.cluster, (self.node,) = cluster_of(1)
        self.answer: dict[str, Any] = {}
        self.node.script = self.script

    def script(self, frame: Frame) -> bytes | None:
        """Answer sub-document requests."""
        if frame.opcode not in (Opcode.SUBDOC_MULTI_LOOKUP, Opcode.SUBDOC_MULTI_MUTATION):
            return None
        return encode_response(frame.opcode, opaque=frame.opaque, **{"cas": 7, **self.answer})

    def carry_out(self, call: Step, **answer: Any) -> Any:
        """Return the result of an operation, or raise its error."""
        self.answer = answer
        self.cluster.give([call])
        self.cluster.deliver()
        self.assertTrue(call.done)
        if call.error is not None:
            raise call.error
        return call.result

    def looked_up(self, status: int, *answers: tuple[int, bytes]) -> SubdocResult:
        """Return the result of a lookup of a, @x (an attribute), exists b, count c."""
        specs = SD.get("a"), SD.get("x", xattr=True), SD.exists("b"), SD.count("c")
        result = self.carry_out(call_of(LOOKUP_IN, *specs), status=status, value=entries(*answers))
        self.assertIsInstance(result, SubdocResult)
        return result

    def test_values(self) -> None:
        """Values are in the caller's order, by index and by path."""
        found = self.looked_up(0, (0, b'"attribute"'), (0, b"[1, 2]"), (0, b""), (0, b"3"))
        self.assertEqual(list(found), [[1, 2], "attribute", True, 3])
        self.assertEqual((found["a"], found["x"], found[2], found["c"]), ([1, 2], "attribute", True, 3))
        self.assertEqual((found.cas, found.key, found.rc, found.success, len(found)), (7, "k1", 0, True, 4))
        self.assertEqual((found.raw(0), found.is_deleted, found.flags), (b"[1, 2]", False, 0))
        self.assertEqual(found.content_as[int](3), 3)
        self.assertRaises(CouchbaseError, lambda: found.content_as[str](3))
        for wrong in (4, -1, "d", None, True):
            self.assertRaises(CouchbaseError, lambda which=wrong: found[which])

    def test_failed_paths(self) -> None:
        """A failed path raises when it is accessed, and hurts no other."""
        missing, mismatch = (Status.SUBDOC_PATH_ENOENT, b""), (Status.SUBDOC_PATH_MISMATCH, b"")
        found = self.looked_up(Status.SUBDOC_MULTI_PATH_FAILURE, missing, (0, b"1"), missing, mismatch)
        self.assertEqual((found[0], found.get("x", 5), found.get(0), found[2]), (1, 5, 1, False))
        self.assertEqual([found.exists(which) for which in (0, "x", 2)], [True, False, False])
        error = self.assertRaises(SubdocPathNotFoundError, lambda: found["x"])
        self.assertEqual((error.path, error.status, error.key, error.result), ("x", 0xC0, "k1", found))
        for access in (found.exists, found.get, found.raw, found.__getitem__):
            self.assertRaises(SubdocPathMismatchError, access, 3)
        self.assertRaises(SubdocPathNotFoundError, list, found)

    def test_exists_of_no_json(self) -> None:
        """If the document has no paths, ``exists`` fails, too."""
        wrong = (Status.SUBDOC_DOC_NOT_JSON, b"")
        found = self.looked_up(Status.SUBDOC_MULTI_PATH_FAILURE, (0, b"1"), wrong, wrong, wrong)
        self.assertRaises(DocumentNotJsonError, found.exists, 2)
        self.assertRaises(DocumentNotJsonError, lambda: found[2])

    def test_tombstones(self) -> None:
        """Answers about deleted documents are decoded like others."""
        ok, gone = (0, b"1"), (Status.SUBDOC_PATH_ENOENT, b"")
        for status, answers in ((0xCD, (ok, ok, (0, b""), ok)), (0xD3, (ok, gone, gone, gone))):
            found = self.looked_up(status, *answers)
            self.assertEqual((found["x"], found.is_deleted, found.exists(0)), (1, True, status == 0xCD))
        changed = self.carry_out(call_of(MUTATE_IN, SD.remove("x", True)), status=0xCD, extras=TOKEN)
        self.assertEqual((changed.is_deleted, changed.cas, changed.mutation_token.seqno), (True, 7, 8))

    def test_flags(self) -> None:
        """Flags come from the virtual attribute."""
        for path, text in (("$document", b'{"flags":50,"CAS":"0x1"}'), ("$document.flags", b"50")):
            call = call_of(LOOKUP_IN, SD.get(path, xattr=True))
            self.assertEqual(self.carry_out(call, value=entries((0, text))).flags, 50)

    def test_changed(self) -> None:
        """Counters have values; positions are those that were sent."""
        specs = SD.counter("n", 1), SD.upsert("a", 1), SD.counter("m", -1, xattr=True)
        value = pack(">BHI", 0, 0, 2) + b"-1" + pack(">BHI", 1, 0, 2) + b"12"
        changed = self.carry_out(call_of(MUTATE_IN, *specs), value=value, extras=TOKEN)
        self.assertEqual((list(changed), changed["n"], changed["m"]), ([12, None, -1], 12, -1))
        self.assertEqual(changed.mutation_token.uuid, 0x6D8F1A2B3C4D)

    def test_failed_mutation(self) -> None:
        """One path failed: the error names the caller's spec."""
        specs = SD.insert("a", 1), SD.upsert("b", 1), SD.upsert("x", 1, xattr=True)
        for sent, position, path in ((0, 2, "x"), (1, 0, "a"), (2, 1, "b")):
            call = call_of(MUTATE_IN, *specs)
            value = pack(">BH", sent, Status.SUBDOC_PATH_EEXISTS)
            error = self.assertRaises(SubdocPathExistsError, self.carry_out, call, status=0xCC, value=value)
            self.assertEqual((error.path_index, error.path, error.operation), (position, path, "mutate_in"))
            self.assertEqual((error.status, error.ambiguous), (0xC9, False))
            self.assertIn(repr(path), error.message)

    def test_statuses(self) -> None:
        """Each status of a path has its own exception."""
        classes = {}
        for status in range(0xC0, 0xD8):
            if status in (0xCC, 0xCD, 0xD3):
                continue
            value = pack(">BH", 0, status)
            call = call_of(MUTATE_IN, SD.upsert("a", 1))
            error = self.assertRaises(CouchbaseError, self.carry_out, call, status=0xCC, value=value)
            self.assertNotIn(error.rc, (0, exceptions.ERROR), hex(status))
            classes[status] = type(error)
        self.assertEqual(len({classes[status] for status in range(0xC0, 0xCB)}), 11)
        for status in (0xCE, 0xD0, 0xD1, 0xD2, 0xD4):
            self.assertTrue(issubclass(classes[status], SubdocXattrError), hex(status))

    def test_of_the_document(self) -> None:
        """Statuses of the document are those of other operations."""
        for status, kind in (
            (Status.KEY_ENOENT, NotFoundError),
            (Status.KEY_EEXISTS, KeyExistsError),
            (Status.NOT_STORED, KeyExistsError),
            (Status.LOCKED, KeyExistsError),
            (Status.SUBDOC_CAN_ONLY_REVIVE_DELETED, KeyExistsError),
        ):
            call = call_of(MUTATE_IN, SD.upsert("a", 1))
            error = self.assertRaises(kind, self.carry_out, call, status=status)
            self.assertIsInstance(error.result, SubdocResult)
        context = json.dumps({"error": {"context": "Request must include path"}}).encode()
        call = call_of(LOOKUP_IN, SD.get("a"))
        error = self.assertRaises(CouchbaseError, self.carry_out, call, status=Status.EINVAL, value=context)
        self.assertEqual(error.context, "Request must include path")

    def test_quiet(self) -> None:
        """A quiet lookup of a missing document has a result, whose paths say so."""
        missing = self.carry_out(call_of(LOOKUP_IN, SD.get("a"), quiet=True), status=Status.KEY_ENOENT)
        self.assertEqual((missing.success, len(missing), missing.rc), (False, 0, exceptions.KEY_ENOENT))
        for access in (missing.exists, missing.get, missing.__getitem__):
            self.assertRaises(NotFoundError, access, 0)

    def test_malformed(self) -> None:
        """Answers that break the protocol."""
        lookup, change = (LOOKUP_IN, SD.get("a")), (MUTATE_IN, SD.counter("a", 1))
        for request, status, value in (
            (lookup, 0, b""),
            (lookup, 0, entries((0, b"1"), (0, b"2"))),
            (lookup, 0xCC, entries((0xC0, b""))[:-1]),
            (lookup, 0, entries((0, b"123"))[:-1]),
            (change, 0, pack(">BHI", 0, 0, 9) + b"1"),
            (change, 0, pack(">BHI", 1, 0, 1) + b"1"),
            (change, 0, pack(">BHI", 0, 0, 1)),
            (change, 0, b"12345"),
            (change, 0xCC, pack(">BH", 1, 0xC0)),
        ):
            call = call_of(*request)
            self.assertRaises(ProtocolError, self.carry_out, call, status=status, value=value)

    def test_lacking(self) -> None:
        """Nothing is sent that the node did not offer."""
        self.node.features = (Feature.XERROR,)
        self.cluster, (self.node,) = cluster_of(1)
        talk = next(iter(self.cluster.peers.values())).conversation
        assert talk is not None
        talk.lacking = frozenset({Feature.XATTR, Feature.PRESERVE_TTL})
        self.cluster.reroute()
        self.node.script = self.script
        attribute = call_of(LOOKUP_IN, SD.get("x", xattr=True))
        keeping = call_of(MUTATE_IN, SD.upsert("a", 1), framing=PRESERVE_EXPIRY_FRAMING)
        for call, word in ((attribute, "5.0"), (keeping, "7.0")):
            error = self.assertRaises(NotSupportedError, self.carry_out, call)
            self.assertIn(word, error.message)
        plain = call_of(LOOKUP_IN, SD.get("a"))
        self.assertEqual(self.carry_out(plain, value=entries((0, b"1")))[0], 1)
