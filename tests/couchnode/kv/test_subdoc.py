"""Parts of documents: paths, and the operations on texts."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import Opcode, Status
from couchnode.data.item import StatusError
from couchnode.kv import jsonpath
from couchnode.kv.jsonpath import find, levels, members, value_at
from couchnode.kv.paths import Component, parse_path
from couchnode.kv.subdoc import lookup, mutate
from tests import tries

UPSERT, ADD = Opcode.SUBDOC_DICT_UPSERT, Opcode.SUBDOC_DICT_ADD
PUSH_LAST, PUSH_FIRST = Opcode.SUBDOC_ARRAY_PUSH_LAST, Opcode.SUBDOC_ARRAY_PUSH_FIRST

# Names with other control characters than these cannot be written in a path.
_KEYS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t\r"),
    min_size=1,
    max_size=4,
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_LAYOUTS = st.sampled_from([{}, {"indent": 2}, {"separators": (" , ", " : ")}, {"ensure_ascii": False}])


def every_path(value: Any) -> list[tuple[bytes, Any]]:
    """Return each path into a value, and the value at it."""
    paths: list[tuple[bytes, Any]] = []
    if isinstance(value, dict):
        for key, inner in value.items():
            name = json.dumps(key, ensure_ascii=False)[1:-1]
            step = f"`{name.replace('`', '``')}`".encode()
            paths.append((step, inner))
            paths += [(step + (b"" if rest[:1] == b"[" else b".") + rest, v) for rest, v in every_path(inner)]
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            step = b"[%d]" % index
            paths.append((step, inner))
            paths += [(step + (b"" if rest[:1] == b"[" else b".") + rest, v) for rest, v in every_path(inner)]
    return paths


STEPS: dict[bytes, tuple[Component, ...]] = {
    b"": (),
    b"a": (b"a",),
    b"a.b[3].c": (b"a", b"b", 3, b"c"),
    b"a.[3]": (b"a", 3),
    b"a[0].[1][2]": (b"a", 0, 1, 2),
    b"[-1]": (-1,),
    b"[-1][-1].x": (-1, -1, b"x"),
    b"a[]": (b"a", 0),
    b"[01]": (1,),
    b"a.": (b"a",),
    b"a[0].": (b"a", 0),
    b"`a.b[0]`.c": (b"a.b[0]", b"c"),
    b"x`.`y": (b"x.y",),
    b"`a`b": (b"ab",),
    b"`a``b`": (b"a`b",),
    b"a``b": (b"a`b",),
    b"````": (b"`",),
    b"`]`": (b"]",),
    " größe ".encode(): (" größe ".encode(),),
    rb"a\"b\\\/\b\f\n\r\t": (rb"a\"b\\\/\b\f\n\r\t",),
    b".".join([b"a"] * 31): (b"a",) * 31,
}
"""Path -> its steps."""

MALFORMED = (
    b".", b".a", b"a..b", b"a...", b"``", b"a.``.b", b"[", b"a]", b"a[0", b"[x]", b"[-2]", b"[-]", b"[+1]",
    b"[1 ]", b"a[0]b", b"a[0]..b", b"`a", b"a`", b"`a``", b'a"b', b'`a"b`', b"a\\", b"a\\.b", b"a\\x",
    b"\\u0061", b"a\nb", b"\x00", b"[18446744073709551616]", b"[99999999999999999999999]",
)  # fmt: skip
"""Invalid paths."""


class Paths(SynchronousTestCase):
    """The path syntax."""

    def test_steps(self) -> None:
        """Dots, brackets and back quotes."""
        for path, steps in STEPS.items():
            self.assertEqual(parse_path(path), steps, path)

    def test_malformed(self) -> None:
        """Invalid paths, and paths with too many steps."""
        for path in MALFORMED:
            refusal = self.assertRaises(StatusError, parse_path, path)
            self.assertEqual(refusal.status, Status.SUBDOC_PATH_EINVAL, path)
        for path in (b".".join([b"a"] * 32), b"[0]" * 32, b"a." * 40 + b"]"):
            refusal = self.assertRaises(StatusError, parse_path, path)
            self.assertEqual(refusal.status, Status.SUBDOC_PATH_E2BIG, path)

    @settings(max_examples=tries(300), deadline=None)
    @given(_JSON, _LAYOUTS)
    def test_every_path_leads_to_its_value(self, value: Any, layout: dict[str, Any]) -> None:
        """In any document of any layout each path finds exactly what decoding finds there."""
        text = json.dumps(value, **layout).encode()
        for path, inner in every_path(value):
            span = find(text, parse_path(path))
            self.assertEqual(json.loads(text[span.start : span.end]), inner, (text, path))
        if isinstance(value, (dict, list)):
            self.assertEqual(len(list(members(text, value_at(text, 0)))), len(value))

    @settings(max_examples=tries(300), deadline=None)
    @given(st.binary(max_size=30))
    def test_any_bytes_as_a_path(self, path: bytes) -> None:
        """Whatever is given as a path is a list of steps or refused."""
        try:
            parse_path(path)
        except StatusError as refusal:
            self.assertEqual(refusal.status, Status.SUBDOC_PATH_EINVAL)

    @settings(max_examples=tries(300), deadline=None)
    @given(_JSON, _LAYOUTS, _JSON, st.data())
    def test_changes_change_nothing_else(
        self, value: Any, layout: dict[str, Any], new: Any, data: Any
    ) -> None:
        """Replacing or deleting at any path does to the text what it does to the decoded value."""
        text = json.dumps(value, **layout).encode()
        paths = every_path(value)
        if not paths or levels(text) > 20:
            return
        path, old = data.draw(st.sampled_from(paths))
        replaced = mutate(Opcode.SUBDOC_REPLACE, text, path, json.dumps(new).encode()).text
        self.assertEqual(json.loads(lookup(Opcode.SUBDOC_GET, replaced, path)), new)
        back = mutate(Opcode.SUBDOC_REPLACE, replaced, path, json.dumps(old).encode()).text
        self.assertEqual(json.loads(back), value)
        deleted = json.loads(mutate(Opcode.SUBDOC_DELETE, text, path, b"").text)
        steps = parse_path(path)
        last = steps[-1]
        expected = json.loads(text)
        holder = expected
        for step in steps[:-1]:
            holder = holder[step if isinstance(step, int) else json.loads(b'"' + step + b'"')]
        del holder[last if isinstance(last, int) else json.loads(b'"' + last + b'"')]
        self.assertEqual(deleted, expected)


DEEP_ARRAY = b"[" * 32 + b"]" * 32
ENOENT, MISMATCH, EINVAL = Status.SUBDOC_PATH_ENOENT, Status.SUBDOC_PATH_MISMATCH, Status.SUBDOC_PATH_EINVAL
EEXISTS, CANTINSERT = Status.SUBDOC_PATH_EEXISTS, Status.SUBDOC_VALUE_CANTINSERT
TOO_DEEP, DOC_TOO_DEEP = Status.SUBDOC_VALUE_ETOODEEP, Status.SUBDOC_DOC_E2DEEP
INSERT, UNIQUE = Opcode.SUBDOC_ARRAY_INSERT, Opcode.SUBDOC_ARRAY_ADD_UNIQUE
REPLACE, DELETE, COUNTER = Opcode.SUBDOC_REPLACE, Opcode.SUBDOC_DELETE, Opcode.SUBDOC_COUNTER
MUTATIONS_DONE: tuple[tuple[int, bytes, bytes, bytes, bool, bytes | Status], ...] = (
    # opcode, document, path, value, whether parents are created; then the new document or the status
    (UPSERT, b'{ "a" : 1 }', b"a", b"[2]", False, b'{ "a" : [2] }'),
    (UPSERT, b'{"a":1}', b"b", b"2", False, b'{"a":1,"b":2}'),
    (UPSERT, b'{ "a": 1 }', b"b", b" 2 ", False, b'{ "a": 1 ,"b": 2 }'),
    (UPSERT, b"{ }", b"b", b"2", False, b'{ "b":2}'),
    (UPSERT, b"{}", b"x`.`y", b"2", False, b'{"x.y":2}'),
    (UPSERT, rb"{}", rb"a\n", b"2", False, rb'{"a\n":2}'),
    (UPSERT, b'{"a":1,"a":2}', b"a", b"3", False, b'{"a":3,"a":2}'),
    (UPSERT, rb'{"\u0061":1}', b"a", b"3", False, rb'{"\u0061":3}'),
    (ADD, b"{}", b"b", b'"x"', False, b'{"b":"x"}'),
    (UPSERT, b"{}", b"a.b.c", b"1", True, b'{"a":{"b":{"c":1}}}'),
    (UPSERT, b'{"a":{"x":0}}', b"a.b.c", b"1", True, b'{"a":{"x":0,"b":{"c":1}}}'),
    (ADD, b'{"a":1}', b"a", b"2", False, EEXISTS),
    (UPSERT, b"{}", b"a.b", b"1", False, ENOENT),
    (UPSERT, b"{}", b"a[0].b", b"1", True, ENOENT),
    (UPSERT, b'{"a":[]}', b"a[0].b", b"1", True, ENOENT),
    (UPSERT, b'{"a":1}', b"a.b", b"1", False, MISMATCH),
    (UPSERT, b'{"a":1}', b"a[0]", b"1", False, MISMATCH),
    (UPSERT, b"[1]", b"a", b"1", False, MISMATCH),
    (UPSERT, b"[1]", b"[0]", b"1", False, EINVAL),
    (UPSERT, b"{}", b"[0]", b"1", False, MISMATCH),
    (UPSERT, b"1", b"a", b"1", False, Status.SUBDOC_DOC_NOT_JSON),
    *((UPSERT, b"{}", b"a", bad, False, CANTINSERT) for bad in (b"{", b"x", b"1,2", b"1}", b" ", b"'a'")),
    # the path before the fragment, the fragment before the document
    (UPSERT, b"1", b"a..b", b"x", False, EINVAL),
    (UPSERT, b"1", b"a.b", b"x", False, CANTINSERT),
    (REPLACE, b"[1, 2]", b"[-1]", b"3", False, b"[1, 3]"),
    (REPLACE, b"{}", b"a", b"3", False, ENOENT),
    (REPLACE, b"{}", b"a", b"3", True, ENOENT),
    (REPLACE, b"[]", b"[-1]", b"3", False, ENOENT),
    (DELETE, b"[1,2,3]", b"[0]", b"", False, b"[2,3]"),
    (DELETE, b"[1,2,3]", b"[1]", b"", False, b"[1,3]"),
    (DELETE, b"[1,2,3 ]", b"[-1]", b"", False, b"[1,2 ]"),
    (DELETE, b"[1]", b"[0]", b"", False, b"[]"),
    (DELETE, b'{"a": 1, "b": 2}', b"b", b"", False, b'{"a": 1}'),
    (DELETE, b'{"a": 1, "b": 2}', b"a", b"", False, b'{ "b": 2}'),
    (DELETE, b'{ "a": {"b": [1]} , "c": 2}', b"a.b", b"", False, b'{ "a": {} , "c": 2}'),
    (DELETE, b"[1]", b"[1]", b"", False, ENOENT),
    (DELETE, b"[1]", b"a", b"", False, MISMATCH),
    (PUSH_LAST, b'{"a":[1]}', b"a", b"2,3", False, b'{"a":[1,2,3]}'),
    (PUSH_LAST, b'{"a":[ 1 ]}', b"a", b"2", False, b'{"a":[ 1 ,2]}'),
    (PUSH_LAST, b'{"a":[ ]}', b"a", b"2", False, b'{"a":[2]}'),
    (PUSH_LAST, b"[ ]", b"", b"1", False, b"[1]"),
    (PUSH_LAST, b"[1]\n", b"", b" 2, 3", False, b"[1, 2, 3]"),
    (PUSH_LAST, b"{}", b"a", b"1", True, b'{"a":[1]}'),
    (PUSH_LAST, b"{}", b"a.b", b"1,2", True, b'{"a":{"b":[1,2]}}'),
    (PUSH_LAST, b"{}", b"a", b"1", False, ENOENT),
    (PUSH_LAST, b'{"a":{}}', b"a", b"1", False, MISMATCH),
    (PUSH_LAST, b"{}", b"", b"1", False, MISMATCH),
    (PUSH_LAST, b"1", b"", b"1", False, Status.SUBDOC_DOC_NOT_JSON),
    (PUSH_LAST, b"[]", b"", b"1],[2", False, CANTINSERT),
    (PUSH_LAST, b"[]", b"", b" ", False, CANTINSERT),
    (PUSH_LAST, b"[]", b"", b"1,", False, CANTINSERT),
    (PUSH_FIRST, b"[2]", b"", b'0, {"x":1}', False, b'[0, {"x":1},2]'),
    (PUSH_FIRST, b"[ 2]", b"", b"1", False, b"[ 1,2]"),
    (PUSH_FIRST, b'{"a":[ ]}', b"a", b"1", False, b'{"a":[1]}'),
    (PUSH_FIRST, b"{}", b"a.b", b"1", True, b'{"a":{"b":[1]}}'),
    (PUSH_FIRST, b"{}", b"a", b"1", False, ENOENT),
    (PUSH_FIRST, b"{}", b"", b"1", True, MISMATCH),
    (INSERT, b"[1,3]", b"[1]", b"2", False, b"[1,2,3]"),
    (INSERT, b"[1,2]", b"[2]", b"3,4", False, b"[1,2,3,4]"),
    (INSERT, b"[ ]", b"[0]", b"1", False, b"[1]"),
    (INSERT, b'{"a":[1,3]}', b"a.[1]", b"2", False, b'{"a":[1,2,3]}'),
    (INSERT, b"[1]", b"[2]", b"2", False, ENOENT),
    (INSERT, b"{}", b"a[0]", b"2", True, ENOENT),
    (INSERT, b"[1]", b"[-1]", b"2", False, EINVAL),
    (INSERT, b'{"a":1}', b"a", b"2", False, EINVAL),
    (INSERT, b'{"a":1}', b"[0]", b"2", False, MISMATCH),
    (UNIQUE, b'[1,"a"]', b"", b'"b"', False, b'[1,"a","b"]'),
    (UNIQUE, b"[1]", b"", b"1.0", False, b"[1,1.0]"),
    (UNIQUE, b'["1"]', b"", b"1", False, b'["1",1]'),
    (UNIQUE, b"{}", b"a", b"1", True, b'{"a":[1]}'),
    (UNIQUE, b'[1,"a"]', b"", b'"a"', False, EEXISTS),
    (UNIQUE, b"[1,[]]", b"", b"1", False, EEXISTS),
    (UNIQUE, b"[[],1]", b"", b"1", False, MISMATCH),
    *((UNIQUE, b"[]", b"", bad, False, CANTINSERT) for bad in (b"{}", b"[]", b"1,2", b"x")),
    (COUNTER, b'{"n":1}', b"n", b"-5", False, b'{"n":-4}'),
    (COUNTER, b'{"n": 9223372036854775806}', b"n", b"1", False, b'{"n": 9223372036854775807}'),
    (COUNTER, b'{"n":-9223372036854775808}', b"n", b"9223372036854775807", False, b'{"n":-1}'),
    (COUNTER, b"[7]", b"[0]", b"1", False, b"[8]"),
    (COUNTER, b"{}", b"n", b"5", False, b'{"n":5}'),
    (COUNTER, b"{}", b"a.n", b"5", True, b'{"a":{"n":5}}'),
    (COUNTER, b"{}", b"a.n", b"5", False, ENOENT),
    (COUNTER, b"[]", b"[0]", b"5", True, ENOENT),
    *(
        (COUNTER, b"not looked at", b"n", delta, False, Status.SUBDOC_DELTA_EINVAL)
        for delta in (b"0", b"-0", b"01", b"+1", b"1.0", b" 1", b"x", b"9223372036854775808", b"9" * 20)
    ),
    *(
        (COUNTER, b'{"n":' + value + b"}", b"n", b"1", False, MISMATCH)
        for value in (b"1.5", b'"5"', b"null", b"[]", b"1e3", b"true")
    ),
    (COUNTER, b'{"n":9223372036854775808}', b"n", b"1", False, Status.SUBDOC_NUM_ERANGE),
    (COUNTER, b'{"n":-' + b"9" * 5000 + b"}", b"n", b"1", False, Status.SUBDOC_NUM_ERANGE),
    (COUNTER, b'{"n":9223372036854775807}', b"n", b"1", False, CANTINSERT),
    (COUNTER, b'{"n":-9223372036854775808}', b"n", b"-1", False, CANTINSERT),
    # 32 levels, of which a scalar or an empty container is one
    (UPSERT, b"{}", b"a", DEEP_ARRAY[1:-1], False, b'{"a":' + DEEP_ARRAY[1:-1] + b"}"),
    (UPSERT, b"{}", b"a", DEEP_ARRAY, False, TOO_DEEP),
    (UPSERT, b"{}", b"a", b"[" * 31 + b"1" + b"]" * 31, False, TOO_DEEP),
    (
        UPSERT,
        b"{}",
        b"a",
        b'[{"x":' * 15 + b"1" + b"}]" * 15,
        False,
        b'{"a":' + b'[{"x":' * 15 + b"1" + b"}]" * 15 + b"}",
    ),
    (UPSERT, b"{}", b"a", b'"' + b"[" * 99 + b'"', False, b'{"a":"' + b"[" * 99 + b'"}'),
    (UPSERT, b"{}", b".".join([b"a"] * 31), b"1", True, b'{"a":' * 31 + b"1" + b"}" * 31),
    (UPSERT, b"{}", b".".join([b"a"] * 31), b"[1]", True, TOO_DEEP),
    (PUSH_LAST, b"[]", b"", DEEP_ARRAY[1:-1], False, b"[" + DEEP_ARRAY[1:-1] + b"]"),
    (PUSH_LAST, b"[]", b"", DEEP_ARRAY, False, TOO_DEEP),
    (PUSH_FIRST, b"{}", b".".join([b"a"] * 31), b"1", True, TOO_DEEP),
    (PUSH_FIRST, b"{}", b".".join([b"a"] * 30), b"1", True, b'{"a":' * 30 + b"[1]" + b"}" * 30),
    (INSERT, b"[]", b"[0]", DEEP_ARRAY, False, TOO_DEEP),
    (PUSH_FIRST, b"[" + DEEP_ARRAY + b"]", b"", b"1", False, DOC_TOO_DEEP),
    (UPSERT, b'{"deep":' + DEEP_ARRAY + b',"a":1}', b"a", b"2", False, DOC_TOO_DEEP),
    (UPSERT, b'{"a":1,"deep":' + DEEP_ARRAY + b"}", b"a", b"2", False, b'{"a":2,"deep":' + DEEP_ARRAY + b"}"),
    (UPSERT, b'{"a":1,"deep":' + DEEP_ARRAY + b"}", b"b", b"2", False, DOC_TOO_DEEP),
)
LOOKUPS_DONE: tuple[tuple[int, bytes, bytes, bytes | Status], ...] = (
    (Opcode.SUBDOC_GET, b'{ "a" : [1, 2.50, {"x": "y"}] }', b"a[1]", b"2.50"),
    (Opcode.SUBDOC_GET, b'{"a":[1,[2,3]]}', b"a[-1][-1]", b"3"),
    (Opcode.SUBDOC_GET, b'{"a":1,"a":2}', b"a", b"1"),
    (Opcode.SUBDOC_GET, rb'{"\u0061\n":1,"a\n":2}', rb"a\n", b"1"),
    (Opcode.SUBDOC_GET, rb'{"\ud83d\ude00":1}', "😀".encode(), b"1"),
    (Opcode.SUBDOC_GET, rb'{"\\u0061":1}', b"a", ENOENT),
    (Opcode.SUBDOC_GET, b'{"":1}', b"a", ENOENT),
    (Opcode.SUBDOC_GET, b'{"a":1}', b"a.b", MISMATCH),
    (Opcode.SUBDOC_GET, b"5", b"a", Status.SUBDOC_DOC_NOT_JSON),
    (Opcode.SUBDOC_EXISTS, b'{"a":[1]}', b"a[0]", b""),
    (Opcode.SUBDOC_EXISTS, b'{"a":[]}', b"a[-1]", ENOENT),
    (Opcode.SUBDOC_GET_COUNT, b'{"a":[1,2]}', b"a", b"2"),
    (Opcode.SUBDOC_GET_COUNT, b'{"a":1,"b":{}}', b"", b"2"),
    (Opcode.SUBDOC_GET_COUNT, b"[ ]", b"", b"0"),
    (Opcode.SUBDOC_GET_COUNT, b'{"a":1}', b"a", MISMATCH),
    (Opcode.SUBDOC_GET_COUNT, b"5", b"", Status.SUBDOC_DOC_NOT_JSON),
    (Opcode.SUBDOC_GET, b'{"a":' * 48 + b"1" + b"}" * 48, b"a", DOC_TOO_DEEP),
    (Opcode.SUBDOC_GET, b'{"a":' * 48 + b"1" + b"}" * 48, b".".join([b"a"] * 31), DOC_TOO_DEEP),
    (Opcode.SUBDOC_GET, b'{"a":' * 31 + b"1" + b"}" * 31, b".".join([b"a"] * 31), b"1"),
    (Opcode.SUBDOC_GET, b'{"a":' * 31 + b"{ }" + b"}" * 31, b".".join([b"a"] * 31), b"{ }"),
    (Opcode.SUBDOC_EXISTS, b'{"a":' * 31 + b"{ }" + b"}" * 31, b".".join([b"a"] * 31), b""),
)


class Operations(SynchronousTestCase):
    """Each operation on a text."""

    def test_mutations(self) -> None:
        """The text is edited in place, or the status names the first problem."""
        for opcode, text, path, value, creates, expected in MUTATIONS_DONE:
            case = (Opcode(opcode).name, text, path, value)
            if isinstance(expected, Status):
                refusal = self.assertRaises(StatusError, mutate, opcode, text, path, value, creates)
                self.assertEqual(refusal.status, expected, case)
            else:
                self.assertEqual(mutate(opcode, text, path, value, creates).text, expected, case)

    def test_lookups(self) -> None:
        """The text is the document's own, or the status says what is wrong first."""
        for opcode, text, path, expected in LOOKUPS_DONE:
            case = (Opcode(opcode).name, text, path)
            if isinstance(expected, Status):
                refusal = self.assertRaises(StatusError, lookup, opcode, text, path)
                self.assertEqual(refusal.status, expected, case)
            else:
                self.assertEqual(lookup(opcode, text, path), expected, case)

    def test_counters_answer(self) -> None:
        """A counter answers with its number, and no other operation has an answer."""
        self.assertEqual(mutate(COUNTER, b'{"n":41}', b"n", b"1").answer, b"42")
        self.assertEqual(mutate(COUNTER, b"{}", b"n", b"-3").answer, b"-3")
        self.assertIsNone(mutate(UPSERT, b"{}", b"n", b"1").answer)

    @settings(max_examples=tries(300), deadline=None)
    @given(_JSON, _LAYOUTS)
    def test_levels(self, value: Any, layout: dict[str, Any]) -> None:
        """Levels are counted as by walking through the values."""

        def walk(one: Any) -> int:
            inner = list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else []
            return 1 + max((walk(each) for each in inner), default=0)

        self.assertEqual(levels(json.dumps(value, **layout).encode()), walk(value))


# ---- any operation anywhere ----------------------------------------------------------------------

# One of the names is escaped in some layouts, and some values look like names.
_NAMES = st.sampled_from("abcé")
_STEPS = st.lists(st.sampled_from(("a", "b", "c", "é", 0, 1, -1)), min_size=1, max_size=4)
_TREES = st.recursive(
    st.sampled_from((1, 7, "x", "a", '"b":1,', "é\\", None, True, 1.5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=10,
)
_ROOTS = st.lists(_TREES, max_size=3) | st.dictionaries(_NAMES, _TREES, max_size=4)
_STEP_BYTES = st.sampled_from((10, 20, 2**13))
"""How much text is examined at once."""


def model_child(holder: Any, step: str | int) -> tuple[bool, Any]:
    """Return whether a value has that child, and the child.

    :raises StatusError: the step does not fit the value.
    """
    if not isinstance(holder, dict if isinstance(step, str) else list):
        raise StatusError(MISMATCH)
    if isinstance(step, str):
        return step in holder, holder.get(step)
    at = len(holder) - 1 if step == -1 else step
    return 0 <= at < len(holder), holder[at] if 0 <= at < len(holder) else None


def model_walk(root: Any, steps: list[str | int]) -> tuple[Any, int]:
    """Return how far steps lead: the value reached, and the number of steps taken."""
    value = root
    for taken, step in enumerate(steps):
        there, inner = model_child(value, step)
        if not there:
            return value, taken
        value = inner
    return value, len(steps)


def model_add(holder: Any, missing: list[str | int], value: Any, creates: bool) -> None:
    """Add a value below an object, with the objects between."""
    if len(missing) > 1 and not creates:
        raise StatusError(ENOENT)
    if not isinstance(missing[0], str) or any(not isinstance(step, str) for step in missing):
        raise StatusError(ENOENT)
    for step in missing[:0:-1]:
        value = {step: value}
    holder[missing[0]] = value


def model(opcode: int, root: Any, steps: list[str | int], value: Any, creates: bool) -> None:
    """Change a decoded document as an operation must.

    :raises StatusError: the operation fails.
    """
    last = steps[-1]
    if opcode == INSERT and (not isinstance(last, int) or last < 0):
        raise StatusError(EINVAL)
    target, taken = model_walk(root, steps)
    left = steps[taken:]
    holder = model_walk(root, steps[:-1])[0] if len(left) <= 1 else target
    if opcode in (UPSERT, ADD):
        if not isinstance(last, str):
            raise StatusError(EINVAL)
        if left:
            model_add(target, left, value, creates)
        elif opcode == ADD:
            raise StatusError(EEXISTS)
        else:
            holder[last] = value
    elif opcode in (REPLACE, DELETE):
        if left:
            raise StatusError(ENOENT)
        if opcode == DELETE:
            del holder[last]
        else:
            holder[last] = value
    elif opcode == INSERT:
        if len(left) > 1 or (left and last != len(holder)):
            raise StatusError(ENOENT)
        holder.insert(last, value)
    elif opcode == COUNTER:
        if not left:
            if not isinstance(target, int) or isinstance(target, bool):
                raise StatusError(MISMATCH)
            holder[last] = target + value
        elif isinstance(target, dict) and not isinstance(last, str) and (len(left) == 1 or creates):
            raise StatusError(EINVAL)
        elif not isinstance(target, dict):
            raise StatusError(ENOENT)
        else:
            model_add(target, left, value, creates)
    else:
        model_push(opcode, target, left, value, creates)


def model_push(opcode: int, target: Any, left: list[str | int], value: Any, creates: bool) -> None:
    """Do the same for the operations that add to an array."""
    if left:
        if not creates:
            raise StatusError(ENOENT)
        model_add(target, left, [value], creates)
        return
    if not isinstance(target, list):
        raise StatusError(MISMATCH)
    if opcode == UNIQUE:
        for element in target:
            if isinstance(element, (list, dict)):
                raise StatusError(MISMATCH)
            if json.dumps(element) == json.dumps(value):
                raise StatusError(EEXISTS)
    target.insert(0 if opcode == PUSH_FIRST else len(target), value)


class ModelTests(SynchronousTestCase):
    """Operations on texts against a simple model on decoded documents."""

    @settings(max_examples=tries(500), deadline=None)
    @given(
        st.sampled_from((UPSERT, ADD, REPLACE, DELETE, INSERT, COUNTER, PUSH_LAST, PUSH_FIRST, UNIQUE)),
        _ROOTS,
        _LAYOUTS,
        _STEPS,
        _TREES,
        st.booleans(),
        _STEP_BYTES,
    )
    def test_mutations(
        self,
        opcode: int,
        root: Any,
        layout: dict[str, Any],
        steps: list[str | int],
        value: Any,
        creates: bool,
        step_bytes: int,
    ) -> None:
        """Each operation at any path does what the model does, or fails with the same status."""
        if opcode == UNIQUE and isinstance(value, (list, dict)):
            value = "scalar"
        if opcode == COUNTER:
            value = 5
        text = json.dumps(root, **layout).encode()
        path = ".".join(step if isinstance(step, str) else f"[{step}]" for step in steps).encode()
        fragment = b"" if opcode == DELETE else json.dumps(value, **layout).encode()
        expected: Any = json.loads(text)
        try:
            model(opcode, expected, steps, value, creates)
        except StatusError as refusal:
            expected = refusal.status
        try:
            with patch.object(jsonpath, "_STEP_BYTES", step_bytes):
                found: Any = json.loads(mutate(opcode, text, path, fragment, creates).text)
        except StatusError as refusal:
            found = refusal.status
        case = (Opcode(opcode).name, text, path, fragment, creates)
        self.assertEqual(found, expected, case)

    @settings(max_examples=tries(500), deadline=None)
    @given(
        st.sampled_from((Opcode.SUBDOC_GET, Opcode.SUBDOC_EXISTS, Opcode.SUBDOC_GET_COUNT)),
        _ROOTS,
        _LAYOUTS,
        _STEPS,
        _STEP_BYTES,
    )
    def test_lookups(
        self, opcode: int, root: Any, layout: dict[str, Any], steps: list[str | int], step_bytes: int
    ) -> None:
        """Each lookup at any path finds what is there."""
        text = json.dumps(root, **layout).encode()
        path = (
            "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in steps)
            .lstrip(".")
            .encode()
        )
        try:
            value, taken = model_walk(root, steps)
            if taken < len(steps):
                raise StatusError(ENOENT)
            expected: Any = value
            if opcode == Opcode.SUBDOC_EXISTS:
                expected = None
            elif opcode == Opcode.SUBDOC_GET_COUNT:
                if not isinstance(value, (list, dict)):
                    raise StatusError(MISMATCH)
                expected = len(value)
        except StatusError as refusal:
            expected = refusal.status
        try:
            with patch.object(jsonpath, "_STEP_BYTES", step_bytes):
                found: Any = json.loads(lookup(opcode, text, path) or b"null")
        except StatusError as refusal:
            found = refusal.status
        self.assertEqual(found, expected, (Opcode(opcode).name, text, path))
