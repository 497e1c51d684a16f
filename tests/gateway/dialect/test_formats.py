"""Expiry, entity tags, flags, durability, content types, projection, JSON: the pure parts."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from email.utils import format_datetime
from itertools import product
from math import inf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import RELATIVE_EXPIRY_MAX
from couchbase.protocol.jsontext import STEP_BYTES, at_once
from couchbase.result import MutationToken
from gateway.dialect.contenttypes import content_type
from gateway.dialect.errors import Refusal
from gateway.dialect.expiry import (
    EXPIRED,
    expiry_from_expires,
    expiry_from_touch,
    expiry_from_ttl,
    parse_duration,
)
from gateway.dialect.headers import (
    Durability,
    parse_durability,
    parse_flags,
    token_header,
)
from gateway.dialect.jsontools import _strict_loads, dumps, loads, loads_unique
from gateway.dialect.projection import member_text, parse_projection, project, projecting
from gateway.http.encoding import _compact_dumps, decode_percent, parse_query

NOW = 1_700_000_000.0


class RefusingTestCase(SynchronousTestCase):
    """Asserts about refusals."""

    def refuses(
        self, words: str, function: object, *arguments: object, code: str = "InvalidArgument"
    ) -> None:
        """``function`` refuses with a message that has ``words``."""
        with self.assertRaises(Refusal) as caught:
            function(*arguments)  # type: ignore[operator]
        self.assertIn(words, caught.exception.message)
        self.assertEqual(caught.exception.problem.code, code)


class ExpiryTests(RefusingTestCase):
    """From words to the protocol's number."""

    def test_none(self) -> None:
        """Blank and 0 mean no expiry."""
        self.assertEqual([expiry_from_expires(text, NOW) for text in ("", "0", "  ")], [0, 0, 0])

    def test_durations(self) -> None:
        """Go's notation, rounded up to seconds; over 30 days it becomes a time; 0s is the past."""
        for text, expected in (
            ("90s", 90),
            ("1h30m", 5400),
            ("1.5s", 2),
            (".5m", 30),
            ("1500ms", 2),
            ("1ns", 1),
            ("1\u00b5s", 1),
            ("720h0m0s", RELATIVE_EXPIRY_MAX),
            ("720h0m1s", int(NOW) + RELATIVE_EXPIRY_MAX + 1),
            ("0s", EXPIRED),
        ):
            self.assertEqual(expiry_from_expires(text, NOW), expected, text)

    @given(st.integers(1, 10**9))
    def test_any_duration_ends_when_it_says(self, seconds: int) -> None:
        """As the protocol reads the number, the document lives for the requested time."""
        expiry = expiry_from_expires(f"{seconds}s", NOW)
        lives = expiry if expiry <= RELATIVE_EXPIRY_MAX else expiry - int(NOW)
        self.assertEqual(lives, seconds)

    @given(st.integers(0, 2**32 - 1))
    def test_any_date(self, instant: int) -> None:
        """A date gives its Unix time; one in the first days of 1970 remains in the past."""
        date = format_datetime(datetime.fromtimestamp(instant, timezone.utc), usegmt=True)
        self.assertEqual(expiry_from_expires(date, NOW), max(instant, EXPIRED))

    def test_utc(self) -> None:
        """The Data API's own answers say UTC, not GMT."""
        self.assertEqual(expiry_from_expires("Tue, 14 Nov 2023 22:13:20 UTC", NOW), int(NOW))

    def test_bad(self) -> None:
        """Bare seconds, days, ISO 8601, other dates, impossible ones, and negative durations."""
        for text in (
            "60",
            "1d",
            "-5s",
            "1",
            "s",
            "1h-",
            "2026-10-21T07:28:00Z",
            "Wednesday, 21-Oct-26 07:28:00 GMT",
            "Wed, 31 Feb 2026 07:28:00 GMT",
            "Wed, 21 Oct 2026 07:28:00 CET",
            "Wed Oct 21 07:28:00 2026",
            "\u0661s",
        ):
            self.refuses("is not a date", expiry_from_expires, text, NOW)
        self.refuses("2106", expiry_from_expires, "Wed, 21 Oct 2126 07:28:00 GMT", NOW)
        self.refuses("2106", expiry_from_expires, "9999999h", NOW)

    def test_touch_also_takes_rfc_3339(self) -> None:
        """With an offset or Z."""
        self.assertEqual(expiry_from_touch("2023-11-14T22:13:20Z", NOW), int(NOW))
        self.assertEqual(expiry_from_touch("2023-11-15T00:13:20+02:00", NOW), int(NOW))
        self.assertEqual(expiry_from_touch("2023-11-14t21:13:20.5-01:00", NOW), int(NOW))
        self.assertEqual(expiry_from_touch("", NOW), 0)
        self.refuses("RFC 3339", expiry_from_touch, "2023-02-30T00:00:00Z", NOW)

    def test_ttl(self) -> None:
        """SDK 1.2's number goes through as it is."""
        self.assertEqual([expiry_from_ttl(text) for text in ("0", "60", "1800000000")], [0, 60, 1800000000])
        for text in ("", "-1", "1.5", "4294967296", "1s"):
            self.refuses("X-CB-TTL", expiry_from_ttl, text)

    @given(st.text(max_size=20))
    def test_arbitrary_text(self, text: str) -> None:
        """A number that fits the protocol, or a refusal; nothing else."""
        for read in (expiry_from_expires, expiry_from_touch):
            try:
                self.assertTrue(0 <= read(text, NOW) < 2**32)
            except Refusal as refusal:
                self.assertEqual(refusal.problem.status, 400)

    def test_long_duration_text(self) -> None:
        """A text of any length is no reason to work for long."""
        self.assertIsNone(parse_duration("1s" * 1000))


class HeaderTests(RefusingTestCase):
    """Flags, durability, tokens."""

    def test_flags(self) -> None:
        """Decimal, 32 bits."""
        self.assertEqual(parse_flags(b"33554432"), 33554432)
        for value in (b"", b"-1", b"4294967296", b"0x1", b"1 "):
            self.refuses("X-CB-Flags", parse_flags, value)

    def test_durability(self) -> None:
        """Levels by name, copies by number; not both."""
        self.assertEqual(parse_durability(b"PersistToMajority", None, None), Durability(3, 0, 0))
        self.assertEqual(parse_durability(b"None", b"-1", b"2"), Durability(0, -1, 2))
        self.refuses("X-CB-DurabilityLevel", parse_durability, b"majority", None, None)
        self.refuses("X-CB-PersistTo", parse_durability, None, b"5", None)
        self.refuses("X-CB-ReplicateTo", parse_durability, None, None, b"one")
        self.refuses("combined", parse_durability, b"Majority", b"1", None)

    def test_token(self) -> None:
        """vbuuid in hex of at least 8 digits, the rest decimal."""
        self.assertEqual(token_header("b", MutationToken(12, 0xABC, 7)), b"b:12:00000abc:7")


class ContentTypeTests(SynchronousTestCase):
    """Flags back to a content type."""

    def test_table(self) -> None:
        """Common flags, flags of SDK 1.2, and looking at the value."""
        for flags, value, expected in (
            (33554432, b"no JSON", b"application/json"),
            (0x03000000, b"{}", b"application/octet-stream"),
            (67108864, b"\xff", b"text/plain"),
            (1, b"{}", b"application/octet-stream"),
            (2, b"{}", b"application/octet-stream"),
            (4, b"{}", b"text/plain"),
            (0, b'{"a":1}', b"application/json"),
            (0, b"NaN", b"text/plain"),
            (0x01000000, b"\xff", b"application/octet-stream"),
            (0, b"", b"text/plain"),
        ):
            self.assertEqual(content_type(flags, value), expected, (flags, value))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=15,
)


class ProjectionTests(RefusingTestCase):
    """Parts of documents."""

    def project(self, document: str, paths: str) -> str:
        """Project text."""
        return project(document.encode(), parse_projection(paths)).decode()

    def test_examples(self) -> None:
        """Members, elements, both; missing paths are left out; if all are missing, the result is null."""
        document = '{"a": 1.0, "b":{"c":[10,20,{"d":1e400}], "x":2}, "e.f":3, "g`h":4}'
        for paths, expected in (
            ("a", '{"a":1.0}'),
            ("a,b.x", '{"a":1.0,"b":{"x":2}}'),
            ("b.c[0]", '{"b":{"c":[10]}}'),
            ("b.c[-1].d,b.c[1]", '{"b":{"c":[20,{"d":1e400}]}}'),
            ("b.c[7]", "null"),
            ("nope", "null"),
            ("nope,a", '{"a":1.0}'),
            ("`e.f`", '{"e.f":3}'),
            ("`g``h`", '{"g`h":4}'),
            ("b,b.x", '{"b":{"c":[10,20,{"d":1e400}], "x":2}}'),
            ("a,a", '{"a":1.0}'),
        ):
            self.assertEqual(self.project(document, paths), expected, paths)
        self.assertEqual(self.project("[1,[2,3]]", "[1][0]"), "[[2]]")
        self.assertEqual(self.project("[]", "[-1]"), "null")

    def test_last_and_its_number(self) -> None:
        """An element that is selected twice, by number and as the last, loses no part."""
        self.assertEqual(self.project('[{"a":1,"b":2}]', "[0].a,[-1].b"), '[{"a":1},{"b":2}]')

    @given(
        st.dictionaries(st.text(min_size=1, max_size=5), JSON_VALUES, min_size=1, max_size=5), st.booleans()
    )
    def test_any_member(self, document: dict[str, object], ascii_only: bool) -> None:
        """Every member can be named, and comes back as it is written in the document."""
        text = json.dumps(document, ensure_ascii=ascii_only)
        for name, value in document.items():
            found = json.loads(self.project(text, "`" + name.replace("`", "``") + "`"))
            self.assertEqual(found, {name: value})

    @given(
        st.recursive(
            st.sampled_from(
                [
                    "1",
                    "-1.50e3",
                    '"a"',
                    '"a b"',
                    '"\\u0061"',
                    "true",
                    "null",
                    '"{,:\\""',
                    '""',
                    "12345678901234567890",
                ]
            ),
            lambda inner: (
                st.lists(inner, max_size=3).map(lambda values: "[" + ", ".join(values) + "]")
                | st.lists(
                    st.tuples(st.sampled_from(['"a"', '"b"', '"true"', '"\\u0061"', '"c"']), inner),
                    max_size=4,
                ).map(lambda pairs: "{ " + " ,".join(f"{name} :\n{value}" for name, value in pairs) + "}")
            ),
            max_leaves=12,
        ),
        st.sampled_from(["a", "b,a", "true", "c,d,a", "a,a", "d"]),
    )
    def test_same_in_the_short_way(self, document: str, paths: str) -> None:
        """The way for names of members in a short document gives what the general way does."""
        parsed = parse_projection(paths)
        self.assertEqual(bool(parsed.names), paths != "a,a")
        try:
            expected = at_once(projecting(document.encode(), parsed))
        except Refusal as refusal:
            self.refuses(refusal.message, project, document.encode(), parsed, code=refusal.problem.code)
        else:
            self.assertEqual(project(document.encode(), parsed), expected)

    @given(st.text("ab.[]0-1,`", max_size=12))
    def test_arbitrary_paths(self, text: str) -> None:
        """Paths, or a refusal."""
        try:
            self.assertTrue(all(steps for _, steps in parse_projection(text)))
        except Refusal as refusal:
            self.assertEqual(refusal.problem.status, 400)

    def test_in_steps(self) -> None:
        """However short the steps, the parts are the same; there are as many steps as the length needs."""
        document = (
            b'{"a":['
            + b'{"x":"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"},' * 3000
            + b'[1,[2,"\\"]"]]],"b":"'
            + b"z" * 99_999
            + b'"}'
        )
        for paths, expected in (
            ("a[-1][1][0]", b'{"a":[[[2]]]}'),
            ("a[-1][0],a[3000][1]", b'{"a":[[1],[[2,"\\"]"]]]}'),
            ("b", b'{"b":"' + b"z" * 99_999 + b'"}'),
        ):
            steps = projecting(document, parse_projection(paths))
            taken = 0
            while True:
                try:
                    next(steps)
                except StopIteration as done:
                    self.assertEqual(done.value, expected, paths)
                    break
                taken += 1
            self.assertGreaterEqual(taken, len(document) // STEP_BYTES)

    def test_paths_that_repeat_themselves(self) -> None:
        """The work is bounded: an element named by number and as the last, at each level, is refused."""
        document = b"[" * 9 + b'"' + b"x" * 100_000 + b'"' + b"]" * 9
        paths = ",".join("".join(steps) for steps in product(("[0]", "[-1]"), repeat=9))
        self.refuses("too often", project, document, parse_projection(paths))

    def test_levels(self) -> None:
        """A document that is nested more deeply than JSON may be has its own error."""
        for size in (1025, 100_000):
            deep = b"[" * size + b"]" * size
            self.refuses("nested too deep", project, deep, parse_projection("[0]"), code="DocumentTooDeep")

    def test_bad_paths(self) -> None:
        """Empty paths, open brackets and quotes, too many levels."""
        for text in ("", ",", "a,", "a..b", ".a", "a.", "a[", "a[x]", "a[01]", "`a", "a`b`", "a]"):
            self.refuses("project", parse_projection, text)
        self.refuses("32 levels", parse_projection, ".".join("a" * 33))

    def test_mismatch(self) -> None:
        """A path through a scalar, or through the other kind of container."""
        for document, path in (('{"a":1}', "a.b"), ('{"a":[]}', "a.b"), ('{"a":{}}', "a[0]"), ("1", "a")):
            self.refuses(
                "another type", project, document.encode(), parse_projection(path), code="PathMismatch"
            )

    def test_no_json(self) -> None:
        """Neither is a document that is JSON up to the part asked for."""
        for document in (b"", b'{"a":1', b'{"a":1}x', b'{"a":NaN}', b"\xff", b'{"a":1,}'):
            self.refuses("not JSON", project, document, parse_projection("a"), code="DocumentNotJson")


class MemberTextTests(SynchronousTestCase):
    """Cutting a value out of its line."""

    @given(st.dictionaries(st.sampled_from(["op", "key", "value", "x"]), JSON_VALUES), JSON_VALUES)
    def test_any_object(self, members: dict[str, object], value: object) -> None:
        """The text found is that of the member, wherever it stands."""
        members["value"] = value
        text = json.dumps(members, indent=1).encode()
        self.assertEqual(json.loads(member_text(text, "value")), value)

    def test_text_is_kept(self) -> None:
        """Digits, blanks and escapes are kept; of repeated members the last counts."""
        self.assertEqual(
            member_text(b'{"value":1,"value": [1.00, "\\u0041"] }', "value"), b'[1.00, "\\u0041"]'
        )


class UrlTests(RefusingTestCase):
    """Percent-encoding and queries."""

    @given(st.text())
    def test_round_trip(self, text: str) -> None:
        """Any UTF-8 text can be a key, each byte percent-encoded."""
        raw = b"".join(b"%%%02X" % byte for byte in text.encode())
        self.assertEqual(decode_percent(raw, "key"), text.encode())

    def test_once(self) -> None:
        """A percent sign that was encoded is not decoded again."""
        self.assertEqual(decode_percent(b"%2525%2F+", "key"), b"%25/+")

    def test_bad(self) -> None:
        """Broken escapes, raw control bytes, no UTF-8."""
        for raw, words in ((b"%", "hexadecimal"), (b"a%4", "hexadecimal"), (b"a%zz", "hexadecimal")):
            self.refuses(words, decode_percent, raw, "key")
        for raw in (b"a\x00", b"a b", b"\x7f"):
            self.refuses("percent-encoded", decode_percent, raw, "key")
        for raw in (b"%FF", b"\xff", b"%C3"):
            self.refuses("UTF-8", decode_percent, raw, "key")

    def test_query(self) -> None:
        """Unknown and repeated parameters are named; plus is a blank."""
        allowed = frozenset({"project", "replica"})
        self.assertEqual(parse_query(b"project=a+b%2C&", allowed), {"project": "a b,"})
        self.refuses("it takes project, replica", parse_query, b"x=1", allowed)
        self.refuses("it takes none", parse_query, b"x", frozenset())
        self.refuses("twice", parse_query, b"project=a&project=b", allowed)


class JsonTests(SynchronousTestCase):
    """orjson and the standard library behave alike here."""

    @given(JSON_VALUES)
    def test_both_print_and_parse(self, value: object) -> None:
        """Either parses what the other prints."""
        try:
            printed = dumps(value)
        except (TypeError, ValueError):
            return  # orjson prints 64 bits at most, and no lone surrogates
        self.assertEqual(_strict_loads(printed), loads(printed))
        self.assertEqual(_strict_loads(_compact_dumps(value)), value)

    def test_numbers_of_any_length(self) -> None:
        """However long a whole number is, it is JSON; beyond all use it is infinite."""
        for digits in (b"1" * 400, b"1" * 4000, b"1" * 5000, b"-" + b"9" * 4300):
            text = b'{"a":[%b,1e400]}' % digits
            for parse in (loads, loads_unique, _strict_loads):
                number, large = parse(text)["a"]
                self.assertEqual(number, int(digits) if len(digits) <= 4000 else float(digits))
                self.assertEqual(large, inf)

    @given(st.binary(max_size=20))
    def test_both_refuse_the_same(self, data: bytes) -> None:
        """Both accept and refuse the same texts."""
        outcomes = []
        for parse in (loads, _strict_loads):
            try:
                parse(data)
                outcomes.append(True)
            except ValueError:
                outcomes.append(False)
        self.assertEqual(outcomes[0], outcomes[1])
