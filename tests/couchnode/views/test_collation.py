"""The order of view keys: worked examples of Couchbase, and V8's collator as the judge of all others."""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from py_mini_racer import MiniRacer
from twisted.trial.unittest import SynchronousTestCase

from couchnode.views.collation import GROUP_END, CollationUnavailable, KeyEncoder, group_length
from tests import tries

# Says of pairs of values how they compare, straight from the rules and with V8's own collator.
REFEREE = """
(function (text) {
  const collator = new Intl.Collator("und");
  const rank = (value) => value === null ? 0 : value === false ? 1 : value === true ? 2
    : typeof value === "number" ? 3 : typeof value === "string" ? 4 : Array.isArray(value) ? 5 : 6;
  const sequence = (left, right) => {
    for (let index = 0; index < Math.min(left.length, right.length); index++) {
      const order = compare(left[index], right[index]);
      if (order) return order;
    }
    return Math.sign(left.length - right.length);
  };
  const compare = (left, right) => {
    const kind = rank(left);
    if (kind !== rank(right)) return Math.sign(kind - rank(right));
    if (kind < 3) return 0;
    if (kind === 3) return Math.sign(left - right);
    if (kind === 4) return Math.sign(collator.compare(left, right));
    if (kind === 5) return sequence(left, right);
    return sequence(Object.entries(left).flat(), Object.entries(right).flat());
  };
  return JSON.parse(text).map(([left, right]) => compare(left, right)).join();
})
"""

# Assigned long ago, so in both versions of Unicode: Latin with marks, Greek, Cyrillic, Hebrew, Arabic, Thai
# (whose vowels are reordered), Hangul, kana, controls (ignorable), punctuation, symbols, beyond 16 bits. Of
# Han ideographs only some: V8 comes without ICU's table that orders later ideographs among the older ones.
ALPHABET = (
    "aAbBzZ019 _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$€\t\n\r\x0b\x0c\x00\x01\x1f\x7f"
    "\u00ad\u00e9e\u0301\u0300\u0323\u0327\u00df\u00e6\u0153\u00f6o\u0308\u0130\u0131"
    "\u03b1\u03ac\u03c9\u0430\u0439\u05d0\u05b0\u0627\u064b\u0e40\u0e01\u0e33\u1100\u1161\u11a8\uac01"
    "\u3042\u30a2\u30fc\u65e5\u672c\ufb01\u200b\u200d\uff21\ufffd\ufffe\uffff\ud7ff\ue000"
    "\U00010400\U00010428\U0001d400\U0001f600\U0001f468\U0010ffff"
)

STRINGS = st.one_of(
    st.text(ALPHABET, max_size=6),
    st.text(st.characters(max_codepoint=0x7F), max_size=8),
    st.sampled_from(["", "a", "A", "á", "a\u0301", "\u0000", "\u0001", "ab", "a\u0000b", "role", "rôle"]),
)
NUMBERS = st.one_of(
    st.integers(-(2**53), 2**53),
    st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 1.5, 1e308, -1e308]),
)
# A member whose name is a number would be moved to the front by JavaScript.
NAMES = STRINGS.filter(lambda name: not name.isdigit())
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, STRINGS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)

ASCENDING = json.loads("""
[null, false, true,
 -3.5, -1, 0, 1, 1.5, 2, 10, 1000.0,
 "", " ", "_x", "1", "10", "2", "a", "A", "á", "Á", "aa", "Aa", "b", "B", "ba", "bb",
 [], [null], [1], [1, 0], [2], ["a"], ["a", 1], ["a", "b"], ["a", {}], ["b"], [[]], [{}],
 {}, {"a": 1}, {"a": 1, "b": 0}, {"a": 2}, {"b": 1}, {"b": 2}, {"b": 2, "a": 1}, {"b": 2, "c": 2}]
""")
# "Then, low to high", of the reference.
ASCII = [
    "\t", "\n", "\v", "\f", "\r", *" _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789",
    *(letter for small in "abcdefghijklmnopqrstuvwxyz" for letter in (small, small.upper())),
]  # fmt: skip
SEQUENCES = [
    ["co op", "co-op", "CO-OP", "coo", "coop", "cop"],
    ["cote", "coté", "côte", "côté"],
    ["role", "Role", "rôle", "Rôle", "roles"],
    ["o", "ö", "p"],
    ["a", "å", "ä", "æ", "b"],
    ["ss", "ß", "st"],
    ["ae", "æ"],
    ["z", "Z", "zz", "\u02ad", "α", "а", "日", "\uefff", "\ufff0"],
    ["1", "10", "2"],
    ["~", "€", "1"],
    ["a", "A", "aa", "b", "B"],
    ["Ab", "abc"],
    ["a", "A", "á", "Á", "b"],
    ASCII,
]


def sign(left: bytes, right: bytes) -> int:
    """Compare as an index does."""
    return (left > right) - (left < right)


class WorkedExamples(SynchronousTestCase):
    """Examples from the documentation of the order."""

    def setUp(self) -> None:
        """One encoder."""
        self.encoder = KeyEncoder()

    def ascending(self, values: list[Any]) -> None:
        """Assert that the sort keys strictly ascend."""
        keys = [self.encoder.sort_key(value) for value in values]
        for (left, below), (right, above) in zip(
            zip(values, keys, strict=True), list(zip(values, keys, strict=True))[1:], strict=False
        ):
            self.assertLess(below, above, f"{left!r} is not below {right!r}")

    def test_all_kinds(self) -> None:
        """The worked example of all kinds ascends."""
        self.ascending(ASCENDING)

    def test_strings(self) -> None:
        """The sequences of strings that were verified with ICU ascend."""
        for sequence in SEQUENCES:
            self.ascending(sequence)

    def test_equal(self) -> None:
        """Equal keys have equal sort keys."""
        sort_key = self.encoder.sort_key
        for group in (
            [1, 1.0, 1e0],
            [0, -0.0, 0.0],
            ["é", "e\u0301"],
            ["", "\x00", "\x08\x0e\x1f\x7f"],
            [2**53, 2**53 + 1],
            [["é", {"é": -0.0}], ("e\u0301", {"e\u0301": 0})],
            [10**400, 10**500],
        ):
            self.assertEqual(len({sort_key(value) for value in group}), 1, group)
        self.assertLess(sort_key(-(10**400)), sort_key(-1e308))

    def test_not_json(self) -> None:
        """Values that JSON cannot say are refused."""
        self.assertRaises(TypeError, self.encoder.sort_key, b"x")
        self.assertRaises(TypeError, self.encoder.sort_key, [object()])
        self.assertRaises(ValueError, self.encoder.sort_key, float("nan"))
        self.assertRaises(ValueError, self.encoder.sort_key, -float("nan"))
        self.assertRaises(ValueError, self.encoder.from_json, "[nonsense]")

    def test_lone_surrogates(self) -> None:
        """Halves of pairs have a place, the same whether parsed by us or by the caller."""
        text = '["a", "\\ud800", {"\\udc00": -1.5}]'
        self.assertEqual(self.encoder.from_json(text), self.encoder.sort_key(json.loads(text)))
        self.assertNotEqual(self.encoder.from_json('"\\ud800"'), self.encoder.from_json('""'))

    def test_deep_nesting(self) -> None:
        """A key may be nested as deep as its 4,095 bytes allow."""
        deep = "[" * 2047 + "]" * 2047
        deeper = "[" * 2000 + '"x"' + "]" * 2000
        self.assertLess(self.encoder.from_json(deep), self.encoder.from_json(deeper.replace('"x"', "{}")))
        self.assertEqual(
            self.encoder.from_json(deeper), b"\x07" * 2000 + self.encoder.sort_key("x") + b"\0" * 2000
        )
        self.assertEqual(group_length(self.encoder.from_json(deep), 1), 2 * 2047 - 1)

    def test_memo_is_bounded(self) -> None:
        """An encoder does not grow with the strings that it has seen."""
        with mock.patch("couchnode.views.collation._MEMO_SIZE", 100):
            for number in range(1000):
                self.encoder.sort_key(f"text {number}")
        self.assertLessEqual(len(self.encoder._memo), 100)
        self.assertEqual(self.encoder.sort_key("text 1"), KeyEncoder().sort_key("text 1"))

    def test_without_icu(self) -> None:
        """A missing ICU says what to install."""
        with mock.patch.dict(sys.modules, {"icu": None}):
            error = self.assertRaises(CollationUnavailable, KeyEncoder)
        self.assertIn("pyicu-wheels", str(error))


class AgainstV8(SynchronousTestCase):
    """The order of sort keys is that of a plain comparison in V8."""

    def setUp(self) -> None:
        """Start V8."""
        self.racer = MiniRacer()
        self.addCleanup(self.racer.close)
        self.referee: Any = self.racer.eval(REFEREE)
        self.encoder = KeyEncoder()

    def compare(self, pairs: list[tuple[Any, Any]]) -> None:
        """Assert that both sides agree on each pair."""
        verdicts = str(self.referee(json.dumps(pairs))).split(",")
        for (left, right), verdict in zip(pairs, verdicts, strict=True):
            ours = sign(self.encoder.sort_key(left), self.encoder.sort_key(right))
            self.assertEqual(ours, int(verdict), f"{left!a} and {right!a}")

    @settings(max_examples=tries(150), deadline=None)
    @given(st.lists(st.tuples(VALUES, VALUES), min_size=30, max_size=60))
    def test_values(self, pairs: list[tuple[Any, Any]]) -> None:
        """Any two JSON values."""
        self.compare(pairs)

    @settings(max_examples=tries(150), deadline=None)
    @given(st.lists(STRINGS, min_size=8, max_size=12))
    def test_strings(self, strings: list[str]) -> None:
        """Strings, each with each."""
        self.compare([(left, right) for left in strings for right in strings])

    def test_every_letter_with_every_other(self) -> None:
        """The alphabet above, each alone and behind another letter."""
        self.compare([(left, right) for left in ALPHABET for right in ALPHABET])
        self.compare([("x" + left, "x" + right + "y") for left in ALPHABET for right in ALPHABET])


class Groups(SynchronousTestCase):
    """A group is a range of bytes."""

    def test_example(self) -> None:
        """The keys of the reference, by level."""
        encoder = KeyEncoder()
        keys: list[Any] = [["USA", "CA", "LA"], ["USA", "CA", "SF"], ["USA", "NY", "NYC"], ["USA"], "x"]
        for level, sizes in ((1, [1, 4]), (2, [1, 1, 2, 1]), (-1, [1, 1, 1, 1, 1])):
            groups: dict[bytes, int] = {}
            for key in sorted(map(encoder.sort_key, keys)):
                group = key[: group_length(key, level)]
                groups[group] = groups.get(group, 0) + 1
            self.assertEqual(list(groups.values()), sizes, level)

    @settings(max_examples=tries(200), deadline=None)
    @given(st.lists(VALUES, min_size=2, max_size=8), st.integers(1, 4))
    def test_ranges(self, values: list[Any], level: int) -> None:
        """A key is in the range of another one's group if, and only if, both are cut to equal keys."""
        encoder = KeyEncoder()
        for left in values:
            whole = encoder.sort_key(left)
            start = whole[: group_length(whole, level)]
            for right in values:
                key = encoder.sort_key(right)
                cut = [value[:level] if isinstance(value, list) else value for value in (left, right)]
                same = encoder.sort_key(cut[0]) == encoder.sort_key(cut[1])
                self.assertEqual(start <= key < start + GROUP_END, same, f"{left!a} and {right!a}")

    @given(VALUES)
    def test_json_text(self, value: Any) -> None:
        """A text has the sort key of the value, also when it is read token by token."""
        encoder = KeyEncoder()
        key = encoder.sort_key(value)
        for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
            self.assertEqual(encoder.from_json(text), key)
            self.assertEqual(encoder._scan(text), key)
