"""Cutting a batch's body into operations."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.batches.splitter import ArraySplitter, BodySplitter, LineSplitter, SplitError, TooLong

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just('"\\[]{},'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
BLANKS = st.text(" \t\n\r", max_size=3)


def in_chunks(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Yield ``data`` cut at each of ``cuts``, which may be anywhere."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        yield data[start:end]


def split(splitter: LineSplitter | ArraySplitter, chunks: Iterator[bytes]) -> list[object]:
    """Feed ``chunks``; a skipped element shows as its class."""
    elements = [element for chunk in chunks for element in splitter.feed(chunk)]
    elements.extend(splitter.finish())
    return [TooLong if isinstance(element, TooLong) else element for element in elements]


class ArrayTests(SynchronousTestCase):
    """One JSON array."""

    @given(
        st.lists(JSON_VALUES, max_size=6), BLANKS, st.booleans(), st.lists(st.integers(0, 10**6), max_size=8)
    )
    def test_any_chunking(self, values: list[object], blank: str, ascii_only: bool, cuts: list[int]) -> None:
        """Every element comes out once, in order and unchanged, however the body is cut."""
        texts = [json.dumps(value, ensure_ascii=ascii_only) for value in values]
        body = f"{blank}[{blank}" + f"{blank},{blank}".join(texts) + f"{blank}]{blank}"
        found = split(ArraySplitter(10**6), in_chunks(body.encode(), cuts))
        self.assertEqual([json.loads(element) for element in found], values)  # type: ignore[arg-type]

    @given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
    def test_arbitrary_bytes_by_chunking(self, junk: bytes, cuts: list[int]) -> None:
        """Whatever follows the bracket, the outcome does not depend on how it was cut."""

        def outcome(chunks: Iterator[bytes]) -> object:
            try:
                return [bytes(element).strip(b" \t\n\r") for element in split(ArraySplitter(100), chunks)]  # type: ignore[call-overload]
            except SplitError as error:
                return str(error)

        self.assertEqual(outcome(in_chunks(b"[" + junk, cuts)), outcome(iter([b"[" + junk])))

    def test_byte_by_byte_with_escapes(self) -> None:
        """Escaped quotes and backslashes at the edge of a chunk do not end a string."""
        body = rb'[{"a":"\\\"]},["},"\\",[[",]"]]]'
        found = split(ArraySplitter(100), iter([body[i : i + 1] for i in range(len(body))]))
        self.assertEqual(found, [rb'{"a":"\\\"]},["}', rb'"\\"', b'[[",]"]]'])

    def test_empty_array(self) -> None:
        """No elements, no error."""
        self.assertEqual(split(ArraySplitter(10), iter([b" [ ", b"  ] "])), [])

    def test_empty_elements(self) -> None:
        """An element that is missing between commas is one bad element, not lost."""
        self.assertEqual(split(ArraySplitter(10), iter([b"[1,,2,]"])), [b"1", b"", b"2", b""])

    def test_long_element_is_skipped(self) -> None:
        """An element over the limit is reported at its position, and those after it are complete."""
        long = json.dumps("x,]" * 50).encode()
        for size in (1, 7, 1000):
            body = b'["a",' + long + b',"b"]'
            chunks = (body[i : i + size] for i in range(0, len(body), size))
            self.assertEqual(split(ArraySplitter(20), chunks), [b'"a"', TooLong, b'"b"'])

    def test_memory_is_bounded_by_the_limit(self) -> None:
        """While a long element is skipped nothing of it is held."""
        splitter = ArraySplitter(1000)
        splitter.feed(b'["')
        for _ in range(100):
            splitter.feed(b"x" * 100)
        self.assertEqual(splitter._parts, [])

    def test_no_array(self) -> None:
        """Another value, trailing data and a missing bracket are distinguished."""
        for body, words in ((b"{}", "not a JSON array"), (b"[1] 2", "after the end"), (b"[1", "ends before")):
            with self.assertRaises(SplitError) as caught:
                split(ArraySplitter(10), iter([body]))
            self.assertIn(words, str(caught.exception))


class LineTests(SynchronousTestCase):
    """One JSON text a line."""

    @given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 10**4), max_size=8), st.booleans())
    def test_any_chunking(self, lines: list[bytes], cuts: list[int], ended: bool) -> None:
        """Every line that is not blank comes out once, whether or not the last one is ended."""
        lines = [line.replace(b"\n", b"") for line in lines]
        body = b"\n".join(lines) + (b"\n" if ended and lines else b"")
        expected = [line for line in lines if line.strip()]
        self.assertEqual(split(LineSplitter(100), in_chunks(body, cuts)), expected)

    def test_long_line(self) -> None:
        """A line over the limit fails at its position, for any chunks."""
        body = b"a\n" + b"x" * 50 + b"\nb\n" + b"y" * 50
        for size in (1, 9, 1000):
            chunks = (body[i : i + size] for i in range(0, len(body), size))
            self.assertEqual(split(LineSplitter(10), chunks), [b"a", TooLong, b"b", TooLong])


class ChoiceTests(SynchronousTestCase):
    """Which form a body has."""

    def test_by_first_byte(self) -> None:
        """A bracket means an array, a blank start is undecided, all else is lines."""
        for body, is_array in ((b"\n [", True), (b"{", False), (b" \n", None), (b"\xef\xbb\xbf [", True)):
            splitter = BodySplitter(10)
            splitter.feed(body)
            self.assertIs(splitter.is_array, is_array, body)

    def test_byte_order_mark(self) -> None:
        """It is ignored at the start, in whatever pieces it comes; elsewhere it is a part of a line."""
        for text, expected in (
            (b'\xef\xbb\xbf{"a":1}\n2', [b'{"a":1}', b"2"]),
            (b"\xef\xbb\xbf[1,2]", [b"1", b"2"]),
            (b"\xef\xbb\xbf", []),
            (b"\xef\xbb", [b"\xef\xbb"]),
            (b"\xef\xbb{}", [b"\xef\xbb{}"]),
            (b"\xbf{}", [b"\xbf{}"]),
            (b"1\n\xef\xbb\xbf2", [b"1", b"\xef\xbb\xbf2"]),
        ):
            for size in (1, 2, 100):
                splitter = BodySplitter(10)
                found = []
                for at in range(0, len(text), size):
                    found += splitter.feed(text[at : at + size])
                self.assertEqual(found + splitter.finish(), expected, (text, size))
