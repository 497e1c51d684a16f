"""Texts that are JSON, and those that are not; parts of them."""

from __future__ import annotations

import json
import re
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol import jsontext
from couchbase.protocol.jsontext import LEVELS, Checker, NotJson, TooDeep, at_once, check, members, value_end

# Text: Python 3.9 cannot evaluate it.
Loads = "Callable[[bytes], Any] | None"


def strict_loads(data: bytes) -> Any:
    """Parse what is JSON, as the standard library reads it."""

    def refuse(name: str) -> Any:
        raise ValueError(name)

    return json.loads(str(data, "utf-8"), parse_constant=refuse)


def is_json_for_python(data: bytes) -> bool:
    """Return whether the standard library takes it, as it should."""
    try:
        strict_loads(data)
    except ValueError:
        return False
    # PyPy 3.9 takes blanks for digits of an escape that is not the first of its text.
    return all(_FOUR_DIGITS.match(data, one.end()) for one in _ESCAPE.finditer(data) if one[1] == b"u")


def is_json_in_pieces(data: bytes, size: int, loads: Loads) -> bool:
    """Check a text that arrives in pieces of that size."""
    checker = Checker(loads)
    try:
        for at in range(0, len(data), size):
            checker.feed(data[at : at + size])
        checker.finish()
    except NotJson:
        return False
    return True


_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_FOUR_DIGITS = re.compile(rb"[0-9a-fA-F]{4}")

_WORDS = (
    b'[ ] { } , : " "a" \\ \\u12 "\\ud83d" 1 0 - . e + true null fal se "k": [] {} 1e999 ],[ },"b":{'.split()
)
TOKENS = st.lists(st.sampled_from([*_WORDS, b" ", b"\n", b"\xc3", b"\xa9"]), max_size=14).map(b"".join)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=6)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)
MEMBERS = st.dictionaries(st.text(max_size=5), VALUES, max_size=6)


class CheckTests(SynchronousTestCase):
    """Valid and invalid JSON."""

    def setUp(self) -> None:
        """Try the fast parser on the smallest pieces."""
        patcher = patch.object(jsontext, "_BLOCK_LEAST_BYTES", 1)
        patcher.start()
        self.addCleanup(patcher.stop)

    @given(TOKENS, st.integers(1, 9), st.sampled_from([None, strict_loads]))
    def test_any_text(self, text: bytes, size: int, loads: Loads) -> None:
        """A text is JSON if Python says so, in whatever pieces it arrives and with whatever parser."""
        expected = is_json_for_python(text)
        self.assertEqual(is_json_in_pieces(text, size, loads), expected)
        self.assertEqual(is_json_in_pieces(text, 1000, loads), expected)

    @given(VALUES, st.integers(1, 20), st.sampled_from([None, 1]), st.booleans(), st.data())
    def test_values_and_their_damage(
        self, value: object, size: int, indent: int | None, ascii_only: bool, data: st.DataObject
    ) -> None:
        """Python's output is JSON; with one byte changed, the verdict is Python's."""
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
        at = data.draw(st.integers(0, len(text) - 1))
        damaged = (
            text[:at]
            + data.draw(st.sampled_from([b"]", b"}", b",", b'"', b"\\", b"1", b" "]))
            + text[at + 1 :]
        )
        for loads in (None, strict_loads):
            self.assertTrue(is_json_in_pieces(text, size, loads))
            self.assertEqual(is_json_in_pieces(damaged, size, loads), is_json_for_python(damaged))

    def test_what_other_parsers_refuse(self) -> None:
        """Half a surrogate pair as an escape, numbers beyond doubles, thousands of digits."""
        for text in (b'"ab\\ud83d"', b"1e400", b"-1E+400", b"1" * 5000, b'["\\udc00\\ud800", 1e-999]'):
            self.assertTrue(jsontext.is_json(text), text[:20])

    def test_what_is_not_json(self) -> None:
        """Nothing, marks, constants, other encodings, things behind."""
        for text in (
            *(b'"\\"\\u 0ac"', b'"\\n\\u20a "'),
            *(b"", b" ", b"\xef\xbb\xbf1", b"NaN", b"-Infinity", b"'a'", b"\x0c1", b"1 2", b'"\xed\xa0\xbd"'),
            *(b'"\x1f"', b"01", b"1.", b".1", b"+1", b"[1,]", b'{"a":1,}', "1".encode("utf-16"), b'"\xff"'),
        ):
            self.assertFalse(jsontext.is_json(text), text)

    def test_levels(self) -> None:
        """Exactly this many levels are allowed, of whatever kind."""
        for opened, closed in ((b"[", b"]"), (b'{"a":', b"}")):
            for loads in (None, strict_loads):
                for size in (1, 8192):
                    self.assertTrue(is_json_in_pieces(opened * LEVELS + b"1" + closed * LEVELS, size, loads))
                    with self.assertRaises(TooDeep):
                        Checker(loads).feed(opened * (LEVELS + 1))

    def test_place_of_the_fault(self) -> None:
        """It is counted from the start of the text, in whatever piece it is."""
        for size in (1, 3, 100):
            checker = Checker()
            with self.assertRaises(NotJson) as caught:
                for at in range(0, 12, size):
                    checker.feed(b'[1, "a\\u00x"'[at : at + size])
            self.assertEqual(caught.exception.at, 6, size)
            self.assertIn("byte 7", str(caught.exception))

    def test_steps(self) -> None:
        """There is a step for each 8 KiB, so that others are served in between."""
        text = b"[" + b"1," * 2**16 + b"1]"
        self.assertEqual(sum(1 for _ in check(text)), -(-len(text) // jsontext.STEP_BYTES))


class WalkTests(SynchronousTestCase):
    """Positions of the parts of a text."""

    @given(
        st.dictionaries(st.text(max_size=5), VALUES, max_size=6),
        st.sampled_from([None, 1]),
        st.integers(4, 64),
    )
    def test_members(self, value: dict[str, object], indent: int | None, step: int) -> None:
        """Each member with its value, however short the steps."""
        text = json.dumps(value, indent=indent, ensure_ascii=False).encode()
        with patch.object(jsontext, "STEP_BYTES", step):
            self.assertEqual(value_end(text + b" ,", 0), len(text))
            found = at_once(members(text, 0))
        read = [(json.loads(name), json.loads(text[start:end])) for name, start, end in found]
        self.assertEqual(read, list(value.items()))

    def test_long_values_take_several_steps(self) -> None:
        """Strings, numbers, white space and nests of any size."""
        size = 10 * jsontext.STEP_BYTES
        for text in (
            b'"' + b"x" * size + b'"',
            b'"' + b"\\u0041" * size + b'"',
            b"1" * size,
            b"[" + b" " * size + b"]",
            b"[" * size + b"]" * size,
            b"[" + b'"a",' * size + b"1]",
        ):
            steps = jsontext.skip(text, 0)
            self.assertIsNone(next(steps))
            self.assertIsNone(next(steps))
            self.assertEqual(at_once(steps), len(text))
