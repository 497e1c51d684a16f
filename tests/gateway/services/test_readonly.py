"""Statements that must change nothing, and the members of JSON objects as they were sent."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlencode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.dialect.errors import Refusal
from gateway.dialect.jsontools import RepeatedName
from gateway.services.members import read_members
from gateway.services.readonly import FORM, read_only_body, read_only_query

JSON = b"application/json"

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=6)
INDENTS = st.sampled_from([None, 0, 1])


class MembersTests(SynchronousTestCase):
    """:func:`read_members`."""

    @given(OBJECTS, INDENTS, st.booleans())
    def test_any_object(self, value: dict[str, Any], indent: int | None, ascii_only: bool) -> None:
        """Each member is the text of its value, however the object is written."""
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        try:
            text.decode()
        except UnicodeDecodeError:  # half of a surrogate pair is no UTF-8
            return
        found = read_members(b" \n" + text + b"\t")
        self.assertEqual({name: json.loads(part) for name, part in found.items()}, value)
        for part in found.values():
            self.assertEqual((part, part in text), (part.strip(), True))

    def test_numbers_stay(self) -> None:
        """Numbers keep their digits."""
        text = b'{"a":9223372036854775807,"b" : 1.10e+400 ,"c":[123456789012345678901234567890]}'
        self.assertEqual(
            read_members(text),
            {"a": b"9223372036854775807", "b": b"1.10e+400", "c": b"[123456789012345678901234567890]"},
        )

    def test_bad(self) -> None:
        """Anything but an object of members given once is refused."""
        for text in (
            b"",
            b"[]",
            b"1",
            b"{",
            b'{"a":1,}',
            b"{}{}",
            b'{"a":nul}',
            b'\xff{"a":1}',
            b'{"a":"\n"}',
        ):
            self.assertRaises(ValueError, read_members, text)
        self.assertRaises(RepeatedName, read_members, b'{"a":1,"\\u0061":2}')
        self.assertEqual(read_members(b" {} "), {})


class ReadOnlyTests(SynchronousTestCase):
    """:func:`read_only_body` and :func:`read_only_query`."""

    @given(OBJECTS)
    def test_json(self, value: dict[str, Any]) -> None:
        """What is sent on says ``readonly`` once, and is otherwise the same; or nothing is sent on."""
        try:
            body = json.dumps(value).encode()
            changed = json.loads(read_only_body(body, JSON, b""))
        except Refusal:
            plain = [name.strip().lower() for name in value]
            self.assertTrue(
                len(set(plain)) < len(plain)
                or any(one.strip().lower() == "readonly" and item is not True for one, item in value.items())
            )
        else:
            self.assertEqual(
                [item for name, item in changed.items() if name.strip().lower() == "readonly"], [True]
            )
            self.assertEqual({**changed, **value}, changed)

    @given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
    def test_form(self, pairs: list[tuple[str, str]]) -> None:
        """The same of forms and query strings."""
        try:
            text = urlencode(pairs).encode()
            outcomes = [read_only_body(text, FORM, b""), read_only_query(text)]
        except (Refusal, UnicodeEncodeError):
            return
        for outcome in outcomes:
            found = parse_qsl(outcome.decode(), keep_blank_values=True)
            said = [value for name, value in found if name.strip().lower() == "readonly"]
            self.assertEqual([one.strip().lower() for one in said], ["true"])
            self.assertEqual(
                [pair for pair in found if pair != ("readonly", "true")],
                [pair for pair in pairs if pair != ("readonly", "true")],
            )

    def test_contradictions(self) -> None:
        """Whatever says otherwise, in any spelling, does not pass."""
        for body in (
            b'{"readonly":false}',
            b'{"READONLY":"true"}',
            b'{" readonly":1}',
            b'{"\\u0072eadonly":null}',
        ):
            refusal = self.assertRaises(Refusal, read_only_body, body, JSON, b"")
            self.assertEqual(refusal.problem.code, "ServiceForbidden")
        for form in (b"readonly=false", b"ReadOnly=0", b"%72eadonly=", b"+readonly=no"):
            for check in (lambda one: read_only_body(one, FORM, b""), read_only_query):
                refusal = self.assertRaises(Refusal, check, form)
                self.assertEqual(refusal.problem.code, "ServiceForbidden")
        for form in (b"a=1&a=2", b"readonly=true&readonly=true", b"a=%ff", b"\xff=1"):
            self.assertRaises(Refusal, read_only_body, form, FORM, b"")
        self.assertRaises(Refusal, read_only_body, b"{}", b"text/plain", b"")
        self.assertRaises(Refusal, read_only_body, b"{}", JSON, b"readonly=true")

    def test_unchanged(self) -> None:
        """A body that says so already is sent as it is; a byte order mark is left out."""
        body = b'{ "statement" : "SELECT 1", "readonly":true }'
        self.assertEqual(read_only_body(body, JSON + b"; charset=utf-8", b""), body)
        self.assertEqual(read_only_body(b"\xef\xbb\xbf {}", JSON, b""), b'{"readonly":true}')
