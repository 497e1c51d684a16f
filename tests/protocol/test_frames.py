"""Frames: cutting a byte stream, and building it."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import HEADER_BYTES, REQUEST_MAGICS, RESPONSE_MAGICS
from couchbase.protocol.frames import (
    HEADER,
    Frame,
    FrameError,
    FrameReader,
    decode_frame_infos,
    encode_frame_infos,
    encode_request,
    encode_response,
)

parts = st.fixed_dictionaries(
    {
        "key": st.binary(max_size=250),
        "extras": st.binary(max_size=255),
        "value": st.binary(max_size=2000),
        "opaque": st.integers(0, 2**32 - 1),
        "cas": st.integers(0, 2**64 - 1),
        "datatype": st.integers(0, 255),
        "framing": st.binary(max_size=255),
    }
)


def in_every_split(data):
    """Yield ``data`` whole, byte by byte, and cut once at every position."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for cut in range(1, len(data)):
        yield [data[:cut], data[cut:]]


class EncodingTests(SynchronousTestCase):
    """Built frames are those of the protocol's examples."""

    def test_get_request_of_the_protocol_document(self):
        """The documented GET of "Hello" comes out byte for byte."""
        self.assertEqual(
            encode_request(0x00, key=b"Hello").hex(),
            "8000000500000000000000050000000000000000000000" + "0048656c6c6f",
        )

    def test_counter_request_of_the_protocol_document(self):
        """The documented INCR comes out byte for byte."""
        frame = encode_request(
            0x05, key=b"counter", extras=(1).to_bytes(8, "big") + bytes(8) + b"\0\0\x0e\x10", vbucket=0
        )
        self.assertEqual(
            frame.hex(),
            "80050007140000000000001b000000000000000000000000"
            "0000000000000001000000000000000000000e10636f756e746572",
        )

    def test_captured_durability_frame(self):
        """Preserve-TTL, then majority with 9000 ms: as captured from the official client."""
        self.assertEqual(encode_frame_infos([(5, b""), (1, b"\x01\x23\x28")]).hex(), "5013012328")

    def test_lengths_that_do_not_fit(self):
        """A part that its length field cannot express is refused, not truncated."""
        for keywords in (
            {"extras": bytes(256)},
            {"key": bytes(65536)},
            {"key": bytes(256), "framing": b"\x50"},
            {"framing": bytes(256)},
            {"framing": b"\x50", "magic": 0x80},
        ):
            self.assertRaises(FrameError, encode_request, 0, **keywords)

    @given(st.integers(0, 255), st.integers(0, 65535), parts)
    def test_round_trip(self, opcode, specific, fields):
        """Whatever is encoded is read back, for requests and responses."""
        for encode, name in ((encode_request, "vbucket"), (encode_response, "status")):
            data = encode(opcode, **{name: specific}, **fields)
            (frame,) = FrameReader().feed(data)
            self.assertEqual((frame.opcode, frame.specific), (opcode, specific))
            self.assertEqual({name: getattr(frame, name) for name in fields}, fields)

    @given(st.lists(st.tuples(st.integers(0, 270), st.binary(max_size=40)), max_size=5))
    def test_frame_infos_round_trip(self, infos):
        """Identifiers and lengths survive, with and without the escape byte."""
        self.assertEqual(decode_frame_infos(encode_frame_infos(infos)), infos)

    @given(st.binary(max_size=60))
    def test_frame_infos_of_any_bytes(self, data):
        """Decoding gives pairs or FrameError, nothing else."""
        try:
            decode_frame_infos(data)
        except FrameError:
            pass


class ReaderTests(SynchronousTestCase):
    """Cutting, in any chunking, within limits."""

    def test_every_split(self):
        """The result does not depend on where the bytes were split."""
        frames = [
            encode_request(1, key=b"k", extras=bytes(8), value=b"v" * 20),
            encode_request(0, key=b"key", framing=b"\x50"),
            encode_response(0, 1, opaque=7),
        ]
        data = b"".join(frames)
        whole = FrameReader().feed(data)
        self.assertEqual(len(whole), 3)
        for chunks in in_every_split(data):
            reader = FrameReader()
            found = [frame for chunk in chunks for frame in reader.feed(chunk)]
            self.assertEqual(found, whole)
            self.assertEqual(reader.buffered_bytes, 0)

    def test_unknown_magic_ends_the_stream(self):
        """Frames before the violation are returned, and nothing after it."""
        reader = FrameReader(magics=RESPONSE_MAGICS)
        good = encode_response(0)
        self.assertEqual(len(reader.feed(good + encode_request(0, key=b"k"))), 1)
        self.assertIn("0x80", str(reader.violation))
        self.assertEqual(reader.feed(good), [])

    def test_body_over_the_limit_is_refused_by_its_header(self):
        """A huge claim is a violation before any of its body arrives, and buffers nothing."""
        reader = FrameReader(max_frame_bytes=1024)
        header = HEADER.pack(0x80, 1, 0, 0, 0, 0, 1024 - HEADER_BYTES + 1, 0, 0)
        self.assertEqual(reader.feed(header), [])
        self.assertIsInstance(reader.violation, FrameError)
        self.assertEqual(reader.buffered_bytes, 0)

    def test_largest_frame_fits(self):
        """The limit itself is allowed."""
        reader = FrameReader(max_frame_bytes=1024)
        (frame,) = reader.feed(encode_request(1, value=bytes(1000)))
        self.assertEqual(len(frame.value), 1000)

    def test_lengths_beyond_the_body(self):
        """Extras and key longer than the body cannot be."""
        for key, extras, body in ((5, 0, 4), (0, 5, 4), (3, 3, 5)):
            reader = FrameReader()
            reader.feed(HEADER.pack(0x80, 0, key, extras, 0, 0, body, 0, 0) + bytes(body))
            self.assertIsNotNone(reader.violation)

    def test_buffers_at_most_one_frame(self):
        """Bytes are held for one incomplete frame only."""
        reader = FrameReader()
        data = encode_request(1, value=bytes(5000))
        reader.feed(data + data[:100])
        self.assertEqual(reader.buffered_bytes, 100)

    @given(st.lists(st.binary(max_size=80), max_size=10))
    def test_any_bytes(self, chunks):
        """Arbitrary input gives frames or a violation, never an exception."""
        reader = FrameReader(max_frame_bytes=4096, magics=REQUEST_MAGICS)
        for chunk in chunks:
            for frame in reader.feed(chunk):
                self.assertIsInstance(frame, Frame)
            self.assertLessEqual(reader.buffered_bytes, 4096 + len(chunk))
