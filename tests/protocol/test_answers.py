"""Answers cut out of a byte stream, and decoded as they are cut."""

from struct import Struct
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, ProtocolError
from couchbase.protocol import answers as answers_module
from couchbase.protocol import operations
from couchbase.protocol.answers import ABSENT, MOST_HEADS, AnswerReader, Heads, Undecodable
from couchbase.protocol.call import Step
from couchbase.protocol.constants import MAX_FRAME_BYTES, RESPONSE_MAGICS, Opcode, Status
from couchbase.protocol.conversation import Conversation
from couchbase.protocol.frames import (
    HEADER,
    Frame,
    FrameReader,
    encode_frame_infos,
    encode_request,
    encode_response,
)
from couchbase.protocol.pathresults import SubdocResult
from couchbase.protocol.refused import REFUSALS, STATUSES
from couchbase.protocol.request import Request
from couchbase.protocol.subdocument import LOOKUP_IN, MUTATE_IN, Spec, arrange
from couchbase.result import ExpiryResult
from couchbase.transcoder import decode_value
from tests import tries

_ENTRY = Struct(">HI")


def call(operation, key, decode=None):
    """Return a request as a driver keeps it."""
    request = Request(operation, key, key.encode(), decode_value=decode)
    request.vbucket = 7
    return request


def lookup(flags, expiry, body, statuses=(0, 0, 0)):
    """Return the value of an answer to a lookup of flags, expiry and document."""
    texts = (flags, expiry, body)
    return b"".join(_ENTRY.pack(statuses[at], len(text)) + text for at, text in enumerate(texts))


def pairs(flat):
    """Return what a reader completed as pairs."""
    return [(flat[at], flat[at + 1]) for at in range(0, len(flat), 2)]


class _Stream:
    """A conversation: its pending operations, and the received bytes."""

    def __init__(self):
        token = bytes(range(16))
        self.pending = {
            1: call(operations.GET, "get", decode_value),
            2: call(operations.SET, "set"),
            3: call(operations.GET, "missing"),
            4: call(operations.DELETE, "plain"),
            5: call(operations.INCR, "counter"),
            6: call(operations.GET, "alternate"),
            8: call(operations.GET_WITH_EXPIRY, "expiry"),
            9: call(operations.GET, "broken", decode_value),
            10: call(operations.GET, "no flags"),
        }
        infos = encode_frame_infos([(0, b"\0\1")])
        self.data = b"".join(
            (
                encode_response(Opcode.GET, opaque=1, cas=11, extras=bytes(4), value=b'{"a":1}'),
                encode_response(Opcode.SET, opaque=2, cas=12, extras=token),
                encode_response(Opcode.GET, Status.KEY_ENOENT, opaque=3, value=b"{}"),
                encode_request(0x01, opaque=4, magic=0x82, key=b"b", value=b"config"),
                encode_response(Opcode.DELETE, opaque=4, cas=14),
                encode_response(Opcode.INCREMENT, opaque=5, cas=15, value=bytes(7) + b"\5", datatype=1),
                encode_response(Opcode.GET, opaque=6, cas=16, extras=bytes(4), value=b"6", framing=infos),
                encode_response(Opcode.STAT, opaque=7, key=b"name", value=b"value"),
                encode_response(Opcode.SUBDOC_MULTI_LOOKUP, opaque=8, cas=18, value=lookup(b"2", b"3", b"x")),
                encode_response(Opcode.GET, opaque=9, cas=19, extras=bytes(4), value=b"{"),
                encode_response(Opcode.GET, opaque=10, cas=20, value=b"1"),
            )
        )

    def read(self, chunks):
        """Return a line for everything that the chunks complete."""
        reader = AnswerReader()
        lines = []
        for chunk in chunks:
            for found, result in pairs(reader.feed(chunk, self.pending)):
                if found is not None:
                    lines.append((found.key, result.key, result.cas, result.value, result.mutation_token))
                elif isinstance(result, Undecodable):
                    lines.append((result.call.key, type(result.error).__bases__[0].__name__))
                else:
                    lines.append((result.magic, result.specific, result.opaque, result.key, result.value))
        return lines, sorted(self.pending), reader.violation


class AnswerTests(SynchronousTestCase):
    """Results of received bytes."""

    def test_every_kind_in_every_split(self):
        """Successes are decoded; all else is handed over, in order, and has left nothing."""
        whole = _Stream()
        expected = whole.read([whole.data])
        lines, left, violation = expected
        self.assertIsNone(violation)
        # Frames that were returned are still pending: the miss, and the answer with framing extras.
        self.assertEqual(left, [3, 6])
        token = operations.OperationResult()
        token._token = (7, bytes(range(16)))
        self.assertEqual(
            lines[:9],
            [
                ("get", "get", 11, {"a": 1}, None),
                ("set", "set", 12, None, token.mutation_token),
                (0x81, Status.KEY_ENOENT, 3, b"", b"{}"),
                (0x82, 0, 4, b"b", b"config"),
                ("plain", "plain", 14, None, None),
                ("counter", "counter", 15, 5, None),
                (0x18, 0, 6, b"", b"6"),
                (0x81, 0, 7, b"name", b"value"),
                ("expiry", "expiry", 18, b"x", None),
            ],
        )
        self.assertEqual([line[0] for line in lines[9:]], ["broken", "no flags"])
        data = whole.data
        splits = [[data[at : at + 1] for at in range(len(data))]]
        splits += [[data[:cut], data[cut:]] for cut in range(1, len(data))]
        for chunks in splits:
            self.assertEqual(_Stream().read(chunks), expected)

    def test_quiet_operations(self):
        """A missing document is a result for a quiet operation, an existing one for a quiet add, in every
        split; no other refusal is."""
        answers = [
            encode_response(Opcode.SUBDOC_MULTI_LOOKUP, Status.KEY_ENOENT, opaque=1, value=b'{"error":{}}'),
            encode_response(Opcode.GET, Status.EACCESS, opaque=2),
            encode_response(Opcode.APPEND, Status.KEY_ENOENT, opaque=3),
            encode_response(Opcode.SUBDOC_MULTI_LOOKUP, Status.KEY_ENOENT, opaque=4),
            encode_response(Opcode.ADD, Status.KEY_EEXISTS, opaque=5, value=b'{"error":{}}'),
            encode_response(Opcode.SET, Status.KEY_EEXISTS, opaque=6),
            encode_response(Opcode.ADD, Status.KEY_ENOENT, opaque=7),
        ]
        data = b"".join(answers)
        for cut in range(1, len(data)):
            quiet = {
                1: call(operations.GET_WITH_EXPIRY, "a"),
                2: call(operations.GET, "b"),
                3: call(operations.APPEND, "c"),
                5: call(operations.ADD, "e"),
                6: call(operations.SET, "f"),
                7: call(operations.ADD, "g"),
            }
            for one in quiet.values():
                one.quiet = True
            pending = {**quiet, 4: call(operations.GET_WITH_EXPIRY, "loud")}
            reader = AnswerReader()
            found = [
                pair for piece in (data[:cut], data[cut:]) for pair in pairs(reader.feed(piece, pending))
            ]
            (missing, result), (_, refused), (appended, not_stored), (_, loud), *others = found
            (added, exists), (_, overwritten), (_, unlikely) = others
            self.assertEqual((added, exists.rc, exists.key), (quiet[5], exceptions.KEY_EEXISTS, "e"))
            self.assertEqual((overwritten.opaque, unlikely.opaque), (6, 7))
            self.assertEqual((missing, result.rc, result.key), (quiet[1], exceptions.KEY_ENOENT, "a"))
            self.assertEqual((refused.opaque, refused.specific), (2, Status.EACCESS))
            self.assertEqual((appended, not_stored.rc), (quiet[3], exceptions.NOT_STORED))
            self.assertEqual((loud.opaque, loud.specific), (4, Status.KEY_ENOENT))
            self.assertEqual(sorted(pending), [2, 4, 6, 7])

    def test_large_values_in_pieces(self):
        """Pieces are joined when the value is complete, and nothing is held afterwards."""
        pending = {1: call(operations.GET, "k")}
        data = encode_response(Opcode.GET, opaque=1, extras=bytes(4), value=b"x" * 100_000)
        reader = AnswerReader()
        for at in range(0, len(data), 1000):
            self.assertNotEqual(pending, {})
            flat = reader.feed(data[at : at + 1000], pending)
        self.assertEqual((flat[1].value, pending, reader._have), (b"x" * 100_000, {}, 0))

    def test_violations(self):
        """A header that cannot be is refused before its body arrives, and what came before it counts."""
        for header in (
            HEADER.pack(0x80, 0, 0, 0, 0, 0, 5, 2, 0),
            HEADER.pack(0x81, 0, 0, 0, 0, 0, MAX_FRAME_BYTES, 2, 0),
            HEADER.pack(0x81, 0, 0, 4, 0, 0, 3, 2, 0),
            HEADER.pack(0x81, 0, 4, 0, 0, 0, 3, 2, 0),
        ):
            pending = {1: call(operations.DELETE, "k"), 2: call(operations.GET, "k")}
            reader = AnswerReader()
            before = encode_response(Opcode.DELETE, opaque=1)
            flat = reader.feed(before + header, pending)
            self.assertEqual(len(flat), 2)
            self.assertIsNotNone(reader.violation)
            self.assertEqual(reader.feed(before, pending), [])
            self.assertEqual(list(pending), [2])

    @settings(max_examples=tries(300), deadline=None)
    @given(
        *(st.sampled_from([0x81, 0x81, 0x80, 0x18]), st.sampled_from([0, 0, 1, 0x100])),
        *(st.sampled_from([0, 0, 4, 255]), st.integers(0, 5)),
        *(st.sampled_from([0, 0, 1, 2, 3, 5, 0x20, 0xCC, 0xCC]), st.sampled_from([Opcode.GET, Opcode.ADD])),
    )
    def test_kinds_of_headers(self, magic, key_length, extras_length, datatype, status, opcode):
        """What a header's first fields say is found by one look-up, also after many other headers."""
        head = HEADER.pack(magic, opcode, key_length, extras_length, datatype, status, 0, 0, 0)[:8]
        is_simple = magic == 0x81 and key_length == 0
        full = Heads(dict.fromkeys(range(MOST_HEADS), 0))
        for heads in (Heads(), full):
            size = len(heads)
            for _ in range(2):
                found = heads[int.from_bytes(head, "big")]
                if is_simple and status == 0 and datatype <= 1:
                    self.assertEqual(found, extras_length)
                else:
                    self.assertGreater(found, 0xFFFF_FFFF)
                    is_known = status in STATUSES or (status == 0xCC and datatype <= 1)
                    is_absent = is_simple and is_known and extras_length == 0
                    self.assertEqual(found == ABSENT, is_absent)
            self.assertEqual(len(heads), min(size + 1, MOST_HEADS))

    @settings(max_examples=tries(200), deadline=None)
    @given(st.binary(max_size=200), st.booleans())
    def test_any_bytes(self, data, plausible):
        """Answers, frames, or a violation: nothing is raised."""
        if plausible:
            data = HEADER.pack(0x81, 0, 0, 4, 0, 0, len(data), 1, 0) + data
        pending = {1: call(operations.GET, "k", decode_value)}
        for found, result in pairs(AnswerReader().feed(data, pending)):
            if found is None:
                self.assertIsInstance(result, (Frame, Undecodable))

    @settings(max_examples=tries(200), deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([0x81, 0x81, 0x18, 0x82, 0x80]),
                *[st.integers(0, 255)] * 2,
                st.binary(max_size=9),
            ),
            max_size=4,
        ),
        st.lists(st.integers(0, 6), min_size=8, max_size=8),
        st.integers(0, 150),
    )
    def test_frames(self, heads, lengths, cut):
        """Frames are those that the reader of frames finds, and so is the violation, in every split."""
        data = b""
        for at, (magic, opcode, status, body) in enumerate(heads):
            key, extras = lengths[2 * at], lengths[2 * at + 1]
            data += (
                HEADER.pack(magic, opcode, key, extras, status % 7, status, len(body), at, 2**40 + at) + body
            )
        whole = FrameReader(magics=RESPONSE_MAGICS)
        expected = whole.feed(data)
        reader = AnswerReader()
        found = [result for chunk in (data[:cut], data[cut:]) for _, result in pairs(reader.feed(chunk, {}))]
        self.assertEqual(found, expected)
        self.assertTrue(all(type(frame) is Frame for frame in found))
        self.assertEqual(str(reader.violation), str(whole.violation))


entries = st.lists(st.tuples(st.sampled_from([0, 0, 0xC0, 0xC1, 0xC8]), st.binary(max_size=9)), max_size=4)
failed_path = st.builds(
    Struct(">BH").pack, st.sampled_from([0, 1, 1, 2]), st.sampled_from([0, 1, *range(0xC0, 0xDA)])
)
forms = (
    st.sampled_from([0, 0, 0, 1, 2, 4]),
    st.sampled_from([{}, {}, {}, {"key": b"k"}, {"extras": bytes(4)}, {"framing": b"\x02\0\1"}]),
    st.sampled_from([False, True, REFUSALS]),
)
looked_up = st.one_of(
    failed_path,
    entries.map(lambda found: b"".join(_ENTRY.pack(status, len(text)) + text for status, text in found)),
    st.binary(max_size=30),
)
path_answers = st.tuples(
    st.sampled_from([LOOKUP_IN, LOOKUP_IN, LOOKUP_IN, MUTATE_IN, MUTATE_IN, operations.GET_WITH_EXPIRY]),
    st.sampled_from([0xCC, 0xCC, 0xCC, 0xD3, 0xCD, 0, Status.KEY_ENOENT]),
    looked_up,
    *forms,
)
refused_answers = st.tuples(
    st.sampled_from(operations.OPERATIONS),
    st.sampled_from([*STATUSES, Status.EINVAL, Status.EACCESS, Status.SUBDOC_DOC_NOT_JSON]),
    st.sampled_from([b"", b"", b'{"error":{"context":"why"}}']),
    *forms,
)


class PathTests(SynchronousTestCase):
    """Lookups of which some paths are missing."""

    def outcomes(self, answers, cuts):
        """Return the outcome of each operation, and what is left."""
        talk = Conversation("n:1", "n", mock.Mock(), mock.Mock(most_pending=100))
        calls, data = [], b""
        talk.opaque = len(answers)
        for opaque, (operation, status, value, datatype, parts, quiet) in enumerate(answers, 1):
            one = Step(operation, "k", b"k", quiet)
            one.specs, one.vbucket = arrange([Spec(0xC5, 0, b"a"), Spec(0xC6, 0, b"b")]), 7
            one.opaque, one.pending = opaque, talk.pending
            talk.pending[opaque] = one
            calls.append(one)
            data += encode_response(
                operation.opcode, status, opaque=opaque, cas=opaque, value=value, datatype=datatype, **parts
            )
        at = 0
        for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
            talk.receive(data[at:cut])
            at = cut
        found = []
        for one in calls:
            error, result = one.error, one.result
            if error is not None:
                told = error.rc, error.message, error.key, error.operation, error.status, error.ambiguous
                found.append((type(error), told, repr(error.result)))
            elif result is not None:
                own = result.answers if isinstance(result, SubdocResult) else None
                key = getattr(result, "key", None)
                found.append((type(result), result.rc, result.cas, key, own, result.mutation_token))
                found.append([getattr(result, name, None) for name in ("is_deleted", "kind", "path")])
            else:
                found.append(one.opaque)
        return found, list(talk.pending), talk.opaque, talk.lacking, talk.fault

    @settings(max_examples=tries(300), deadline=None)
    @given(st.lists(path_answers, min_size=1, max_size=4), st.lists(st.integers(0, 300), max_size=3))
    def test_directly(self, answers, cuts):
        """Decoded directly, they have the outcome that they have as frames."""
        self.check(answers, cuts)

    @settings(max_examples=tries(300), deadline=None)
    @given(st.lists(refused_answers, min_size=1, max_size=4), st.lists(st.integers(0, 300), max_size=3))
    def test_refusals(self, answers, cuts):
        """So have refusals, as exceptions and as results."""
        self.check(answers, cuts)

    def check(self, answers, cuts):
        """Compare both ways."""
        direct = self.outcomes(answers, cuts)
        fields = {"_SHORT": frozenset(), "_HEADS": Heads()}
        with mock.patch.multiple(answers_module, **fields):
            self.assertEqual(direct, self.outcomes(answers, []))

    def test_without_frames(self):
        """The usual answer makes no frame."""
        value = _ENTRY.pack(0xC0, 0) + _ENTRY.pack(0, 1) + b"1"
        with mock.patch.object(FrameReader, "feed", side_effect=AssertionError):
            found, left, *_ = self.outcomes([(LOOKUP_IN, 0xCC, value, 0, {}, True)], [])
        self.assertEqual((found[0][:5], left), ((SubdocResult, 0, 1, "k", [(0xC0, b""), (0, b"1")]), []))


texts = st.sampled_from([b"0", b"1", b"33554432", b"1700000000", b"", b"x", b"0" * 70])
any_statuses = st.sampled_from([(0, 0, 0), (0, 0, 0), (0, 0, 0), (0xC0, 0, 0), (0, 0xC0, 0), (0, 0, 0xC0)])


class LookupTests(SynchronousTestCase):
    """Reading a document with its expiry."""

    def decode(self, value):
        """Return what the answer is decoded to, with other bytes around it as in a chunk."""
        data = b"before" + value + b"behind"
        request = call(operations.GET_WITH_EXPIRY, "k")
        return operations.GET_WITH_EXPIRY.decode(request, 5, data, 6, 6, 6 + len(value))

    def test_values(self):
        """Flags, expiry and document, the first time and when their texts are known."""
        for body in (b"", b"{}", b"x" * 300):
            for flags, expiry in ((0, 0), (0x02000000, 1_700_000_000), (2**32 - 1, 1)):
                for _ in range(2):
                    result = self.decode(lookup(b"%d" % flags, b"%d" % expiry, body))
                    self.assertIsInstance(result, ExpiryResult)
                    self.assertEqual((result.value, result.flags, result.expiry), (body, flags, expiry))
                    self.assertEqual((result.cas, result.key, result.rc), (5, "k", 0))

    @settings(max_examples=tries(200), deadline=None)
    @given(st.lists(st.tuples(texts, texts, st.binary(max_size=9), any_statuses), min_size=1, max_size=5))
    def test_any_order(self, answers):
        """Whatever was read before, an answer is read as its entries say, or refused."""
        for flags, expiry, body, statuses in answers:
            value = lookup(flags, expiry, body, statuses)
            try:
                numbers = int(flags), int(expiry)
            except ValueError:
                numbers = None
            if any(statuses) or numbers is None:
                self.assertRaises(CouchbaseError, self.decode, value)
            else:
                result = self.decode(value)
                self.assertEqual((result.value, result.flags, result.expiry), (body, *numbers))

    def test_long_texts(self):
        """Texts too long for the cache are still read."""
        known = dict(operations._lookup_heads)
        for _ in range(2):
            result = self.decode(lookup(b"0" * 300 + b"1", b"0" * 300 + b"2", b"body"))
            self.assertEqual((result.value, result.flags, result.expiry), (b"body", 1, 2))
        self.assertEqual(operations._lookup_heads, known)

    def test_memory_is_bounded(self):
        """However many different expiries there are."""
        for expiry in range(operations._MAX_LOOKUP_HEADS + 10):
            self.assertEqual(self.decode(lookup(b"0", b"%d" % expiry, b"{}")).expiry, expiry)
        self.assertLessEqual(len(operations._lookup_heads), operations._MAX_LOOKUP_HEADS)

    def test_malformed(self):
        """Each of the ways in which an answer can be wrong, also right after a good one like it."""
        good = lookup(b"0", b"0", b"{}")
        for value in (
            b"",
            good[:-1],
            good + b"x",
            good[:14],
            lookup(b"0", b"0", b"{}") + _ENTRY.pack(0, 0),
            lookup(b"x", b"0", b"{}"),
            lookup(b"0", b"", b"{}"),
            lookup(b"0", b"0", b"{}", (Status.SUBDOC_PATH_ENOENT, 0, 0)),
            lookup(b"0", b"0", b"{}", (0, 0, Status.SUBDOC_PATH_ENOENT)),
            _ENTRY.pack(0, 2**31) + b"0",
            _ENTRY.pack(0, 1) + b"0" + _ENTRY.pack(0, 2**31) + b"0" + bytes(6),
        ):
            self.decode(good)
            self.assertRaises((CouchbaseError, ProtocolError), self.decode, value)
