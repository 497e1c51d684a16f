"""The reader of answers: any legal JSON, in any pieces, in every form, is what json.loads says it is."""

import json
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.exceptions import ArgumentError, CouchbaseNetworkError, NetworkError, ProtocolError
from couchbase.views.lines import is_object_a_line
from couchbase.views.rows import RowReader, exact_loads
from tests import tries

try:
    from orjson import loads as fast_loads
except ImportError:
    # Not json.loads, which takes NaN.
    fast_loads = exact_loads

# Strings full of what the reader looks for.
NASTY = st.text(st.sampled_from('{}[]",:\\\r\n\t é€😀\ud800x1'), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**62, 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NASTY
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(
    st.fixed_dictionaries({"id": NASTY, "key": VALUES, "value": VALUES}) | st.just({}) | VALUES, max_size=12
)
EXTRA = st.dictionaries(
    st.sampled_from(["total_rows", "errors", "debug_info", "rows ", "x\\", 'q"]}']), VALUES, max_size=4
)
STYLES = st.sampled_from(["capi", "lf", "compact", "spaced", "indent0", "indent2", "tabs", "wide"])


def printed(value, style, ascii_only):
    """Print JSON in a style that no reader may rely on."""
    options = {"ensure_ascii": ascii_only}
    if style in ("capi", "lf", "compact"):
        return json.dumps(value, separators=(",", ":"), **options)
    if style == "wide":
        return json.dumps(value, indent=1, separators=(" ,\r\n \t", " : "), **options)
    indent = {"spaced": None, "indent0": 0, "indent2": 2, "tabs": "\t"}[style]
    return json.dumps(value, indent=indent, **options)


@st.composite
def answers(draw):
    """An answer: its text, its rows, and its other members."""
    rows, extra, style = draw(ROWS), draw(EXTRA), draw(STYLES)
    # Lone surrogates exist in JSON only as escapes.
    ascii_only = draw(st.booleans()) or "\\ud800" in json.dumps([rows, extra])
    members = [(name, value) for name, value in extra.items()]
    colon = draw(st.sampled_from([":", " :"]))
    at = draw(st.integers(0, len(members)))
    parts = []
    for index in range(len(members) + 1):
        if index == at:
            separator = {"capi": ",\r\n", "lf": ",\n"}.get(style)
            if separator is None:
                text = printed(rows, style, ascii_only)
            else:
                text = "[\r\n" + separator.join(printed(row, style, ascii_only) for row in rows) + "\r\n]"
            parts.append('"rows":' + text)
        if index < len(members):
            name, value = members[index]
            parts.append(json.dumps(name) + colon + printed(value, style, ascii_only))
    begin, end = draw(st.sampled_from([("{", "}"), (" {", "}\r\n"), ("{", "\r\n}\r\n"), ("{", "\n}")]))
    text = begin + ",".join(parts) + end
    return text.encode(), rows, extra


def pieces(data, cuts):
    """Cut data at the given places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in zip(places, places[1:])]  # noqa: B905  # Python 3.9


CUTS = st.lists(st.integers(0, 5000), max_size=30)


def read(form, parts, loads=fast_loads):
    """Read a whole answer; return what came and the reader."""
    reader = RowReader(form, loads)
    out = []
    for part in parts:
        out += reader.feed(part)
    reader.finish()
    return out, reader


def same(left, right):
    """Compare JSON values, telling 1 from 1.0 and true."""
    return json.dumps(left) == json.dumps(right)


class AnyAnswerTests(SynchronousTestCase):
    """Properties, over everything that JSON allows."""

    @settings(max_examples=tries(400), deadline=None)
    @given(answers(), CUTS, st.sampled_from([fast_loads, None]))
    def test_rows(self, answer, cuts, loads):
        """Decoded rows and members are json.loads' own."""
        text, rows, extra = answer
        got, reader = read("rows", pieces(text, cuts), loads)
        self.assertTrue(same(got, rows), (got, rows))
        self.assertTrue(same(reader.meta, extra))
        self.assertEqual((reader.count, reader.rows_seen), (len(rows), True))

    @settings(max_examples=tries(400), deadline=None)
    @given(answers(), CUTS, st.sampled_from([fast_loads, None]))
    def test_lines_and_blocks(self, answer, cuts, loads):
        """Rows as text are pieces of the answer, and mean the same."""
        text, rows, _ = answer
        lines, reader = read("lines", pieces(text, cuts), loads)
        self.assertTrue(same([json.loads(line) for line in lines], rows))
        self.assertEqual(reader.count, len(rows))
        self.assertTrue(all(line in text and line == line.strip() for line in lines))
        blocks, reader = read("blocks", pieces(text, cuts), loads)
        self.assertTrue(same(json.loads(b"[" + b",".join(blocks) + b"]"), rows))
        self.assertEqual(reader.count, len(rows))
        self.assertTrue(all(block in text for block in blocks))
        for block in blocks:
            self.assertTrue(json.loads(b"[" + block + b"]"))

    @settings(max_examples=tries(150), deadline=None)
    @given(answers(), CUTS, st.integers(0, 10**6), st.sampled_from(["rows", "lines", "blocks"]))
    def test_truncation(self, answer, cuts, where, form):
        """An answer cut at any byte is found out, and the rows before the cut are right."""
        text, rows, _ = answer
        text = text.strip()
        cut = text[: where % len(text)]
        reader = RowReader(form, fast_loads)
        out = []
        for part in pieces(cut, cuts):
            out += reader.feed(part)
        self.assertRaises(NetworkError, reader.finish)
        if form == "rows":
            self.assertTrue(same(out, rows[: len(out)]))

    @settings(max_examples=tries(300), deadline=None)
    @given(answers(), st.integers(0, 10**6), st.binary(min_size=1, max_size=3), CUTS)
    def test_damage(self, answer, where, junk, cuts):
        """A damaged answer gives the same as json.loads, or an error."""
        text, _, _ = answer
        place = where % len(text)
        damaged = text[:place] + junk + text[place + 1 :]
        try:
            expected = json.loads(damaged.decode())
        except ValueError:
            expected = None
        try:
            got, reader = read("rows", pieces(damaged, cuts))
        except CouchbaseNetworkError:
            # Two members of one name are legal, if not wise; two arrays of rows are refused.
            if isinstance(expected, dict):
                self.assertEqual(damaged.count(b'"rows"'), 2)
            return
        self.assertIsInstance(expected, dict)
        wanted = expected.pop("rows") if isinstance(expected.get("rows"), list) else []
        self.assertTrue(same(got, wanted))
        self.assertTrue(same(reader.meta, expected))

    @settings(max_examples=tries(200), deadline=None)
    @given(
        st.lists(VALUES | st.dictionaries(NASTY, VALUES, max_size=4), min_size=1, max_size=6), st.booleans()
    )
    def test_the_proof_by_lines(self, values, ascii_only):
        """It holds for objects, one a line, and never for lines that are not that."""
        ascii_only = ascii_only or "\\ud800" in json.dumps(values)
        lines = [printed(value, "compact", ascii_only).encode() for value in values]
        if is_object_a_line(b",\r\n".join(lines), len(lines)):
            self.assertTrue(all(line.startswith(b"{") for line in lines))


class ParticularAnswersTests(SynchronousTestCase):
    """Cases worth a name."""

    def test_each_row_comes_at_once(self):
        """A row is returned with its last byte, and total_rows when it was read."""
        reader = RowReader()
        self.assertIsNone(reader.total_rows)
        self.assertEqual(reader.feed(b'{"total_rows":3,"rows":[\r\n{"key":1'), [])
        self.assertEqual(reader.total_rows, 3)
        self.assertEqual(reader.feed(b"}"), [{"key": 1}])
        self.assertEqual(reader.feed(b',\r\n{"key":2}]'), [{"key": 2}])
        self.assertEqual(reader.feed(b',"errors":[]}'), [])
        reader.finish()
        self.assertEqual(reader.meta, {"total_rows": 3, "errors": []})

    def test_line_ends_that_are_no_row_ends(self):
        """Rows broken into lines that look like the view engine's are still whole rows."""
        body = b'{"rows":[{"value":[{},\r\n{"a":1},\r\n{}]},\r\n{"value":2}\r\n]}'
        for form, expected in (
            ("rows", [{"value": [{}, {"a": 1}, {}]}, {"value": 2}]),
            ("lines", [b'{"value":[{},\r\n{"a":1},\r\n{}]}', b'{"value":2}']),
        ):
            for cut in range(len(body)):
                self.assertEqual(read(form, [body[:cut], body[cut:]])[0], expected)

    def test_brackets_in_strings_that_fit(self):
        """One row of two lines, each of which would balance if its strings did not count."""
        plain = b'{"b":["]",{"c":"}"},\r\n{"d":"{"},"["]}'
        # The same with strings that end in a backslash on either side of each.
        escaped = (
            rb'{"b":["\\","]","\\",{"c":"\\","d":"}","e":"\\"},' + b"\r\n"
            rb'{"f":"\\","g":"{","h":"\\"},"\\","[","\\"]}'
        )
        for row in (plain, escaped):
            body = b'{"rows":[' + row + b',\r\n{"z":1}\r\n]}'
            self.assertEqual(read("lines", [body])[0], [row, b'{"z":1}'])
            self.assertEqual(b",\r\n".join(read("blocks", [body])[0]), row + b',\r\n{"z":1}')
            self.assertEqual(read("blocks", [body])[1].count, 2)

    def test_two_rows_on_a_line(self):
        """They are two rows."""
        body = b'{"rows":[{"a":[{},\n{}]},{"b":1},\n{"c":2}]}'
        lines, _ = read("lines", [body])
        self.assertEqual(lines, [b'{"a":[{},\n{}]}', b'{"b":1}', b'{"c":2}'])

    def test_no_rows_member(self):
        """An error object is an answer, too; an object whose rows are no array is not."""
        _, reader = read("rows", [b'{"error":"not_found","reason":"missing"}\n'])
        self.assertEqual(reader.meta, {"error": "not_found", "reason": "missing"})
        self.assertFalse(reader.rows_seen)
        for value in (b"null", b"{}", b'"x"', b"1", b" null"):
            for form in ("rows", "lines", "blocks"):
                body = b'{"a":1,"rows":' + value + b',"rows":[]}'
                error = self.assertRaises(ProtocolError, read, form, [body])
                self.assertIn("'rows'", error.message)

    def test_scalars(self):
        """A row that is neither an object, an array nor a string is checked in every form."""
        for form in ("rows", "lines", "blocks"):
            for row in (b"oops", b"\x0b1", b"01", b"NaN", b"-Infinity", b"tru"):
                reader = RowReader(form, fast_loads)
                self.assertEqual(len(reader.feed(b'{"rows":[true,' + row)), 1)
                error = self.assertRaises(ProtocolError, reader.feed, b"]}")
                self.assertIn("row 2 is not JSON", error.message)
            self.assertEqual(len(read("lines", [b'{"rows":[null,1E400,-0.5]}'])[0]), 3)

    def test_constants(self):
        """NaN and Infinity are not JSON, with any parser."""
        for loads in (fast_loads, None):
            for name in (b"NaN", b"Infinity", b"-Infinity"):
                for body in (b'{"rows":[{"key":' + name + b"}]}", b'{"a":' + name + b',"rows":[]}'):
                    error = self.assertRaises(ProtocolError, read, "rows", [body], loads)
                    self.assertIn(name.decode() + " is not JSON", error.message)

    def test_large_integers_are_exact(self):
        """No number is rounded for speed."""
        numbers = [2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**20]
        rows = [{"key": number, "value": 0} for number in numbers]
        body = b'{"rows":[' + b",\r\n".join(json.dumps(row).encode() for row in rows) + b"]}"
        self.assertTrue(same(read("rows", [body])[0], rows))

    def test_surrogates_and_depth(self):
        """The standard library reads what a fast parser refuses."""
        deep = b'{"rows":[{"key":"\\ud800"},\r\n{"key":' + b"[" * 300 + b"]" * 300 + b"}\r\n]}"
        rows, _ = read("rows", [deep])
        self.assertEqual(rows[0], {"key": "\ud800"})
        bottomless = b'{"rows":[{"key":' + b"[" * 200_000 + b"]" * 200_000 + b"}]}"
        self.assertRaises(ProtocolError, read, "rows", [bottomless])
        self.assertEqual(len(read("lines", [bottomless])[0]), 1)

    def test_garbage(self):
        """Input that is not an answer is refused at once, and so is everything after it."""
        for body in (
            b"<html>", b"[]", b'"x"', b"nul", b'{"rows":[,{}]}', b'{"rows":[{},]}', b'{"rows":[{} {}]}',
            b"{,}", b'{"rows":[{}]]}', b'{"a" 1}', b'{"a":tru}', b'{"rows":[{}]}x', b'{"a":}', b'{1:2}',
            b'{"rows":[{a}]}', b'{"rows":[{"a":1}{"b":2},\r\n{"c":1}]}', b'{"rows":[],"rows":[]}',
            b'{"rows":[{"a":\xff}]}', b'{"a":1,}',
        ):  # fmt: skip
            reader = RowReader("rows", fast_loads)
            error = self.assertRaises(ProtocolError, self.drive, reader, body)
            self.assertIs(self.assertRaises(ProtocolError, reader.feed, b"{}"), error)
            self.assertIs(self.assertRaises(ProtocolError, reader.finish), error)
        self.assertRaises(NetworkError, RowReader().finish)

    @staticmethod
    def drive(reader, body):
        reader.feed(body)
        reader.finish()

    def test_rows_before_garbage(self):
        """They are returned; the error comes with the next call."""
        for form in ("rows", "lines", "blocks"):
            reader = RowReader(form, fast_loads)
            self.assertEqual(len(reader.feed(b'{"rows":[{"a":1},\r\n{"b":2}!')), 2)
            self.assertRaises(ProtocolError, reader.finish)
        reader = RowReader("rows", fast_loads)
        self.assertEqual(reader.feed(b'{"rows":[{"a":1},{"b":2},{c}]}'), [{"a": 1}, {"b": 2}])
        error = self.assertRaises(ProtocolError, reader.finish)
        self.assertIn("row 3", str(error))

    def test_limits(self):
        """One row, and everything beside the rows, has a largest size."""
        reader = RowReader(max_value_bytes=100)
        reader.feed(b'{"rows":[')
        for _ in range(50):
            self.assertEqual(len(reader.feed(b'{"key":"' + b"x" * 50 + b'"},')), 1)
        reader.feed(b'{"key":"')
        self.assertRaises(ProtocolError, reader.feed, b"x" * 200)
        reader = RowReader(max_value_bytes=100)
        self.assertRaises(
            ProtocolError, self.drive, reader, b'{"a":"' + b"x" * 60 + b'","b":"' + b"x" * 60 + b'"}'
        )

    def test_usual_and_unusual(self):
        """The usual beginning and end of an answer are read like any other spelling of them."""
        rows = ['{"id":"a","key":1}', '{"key":{"b":["}\\n]\\n}"]}}', '{"key":[\n{\n}\n]\n}']
        for total in ("0", "7", "-7", "1.0", "1e3", "07", "9" * 18, "9" * 19, "9" * 40, "true", "null"):
            for number in range(4):
                text = ",\n".join(rows[:number])
                usual = f'{{"total_rows":{total},"rows":[\n{text}\n]\n}}'
                unusual = f' {{"total_rows" :{total} ,"rows":[\n{text}\n ] }}'
                for form in ("rows", "lines", "blocks"):
                    outcomes = [self.outcome(form, [one]) for one in (usual, unusual)]
                    outcomes += [self.outcome(form, [usual[:at], usual[at:]]) for at in range(len(usual))]
                    self.assertEqual([one for one in outcomes if one != outcomes[0]], [], (total, number))

    def outcome(self, form, parts):
        """Return an answer's rows as one text and its other members, or that it was refused."""
        reader = RowReader(form, fast_loads)
        out = []
        try:
            for part in parts:
                out += reader.feed(part.encode())
            reader.finish()
        except ProtocolError:
            return "refused"
        separator = ",\n" if form != "rows" else None
        text = json.dumps(out) if separator is None else separator.join(one.decode() for one in out)
        return text, json.dumps(reader.meta), reader.count, reader.rows_seen

    def test_limit_of_the_usual_beginning(self):
        """It is that of any other spelling."""
        for limit in range(30):
            fails = []
            for text in (b'{"total_rows":12,"rows":[', b'{"total_rows" :12 ,"rows":['):
                reader = RowReader(max_value_bytes=limit)
                try:
                    reader.feed(text)
                except ProtocolError:
                    fails.append(text)
            self.assertIn(len(fails), (0, 2), limit)

    def test_wrong_form(self):
        """There are three."""
        self.assertRaises(ArgumentError, RowReader, "objects")

    def test_time_is_linear(self):
        """Long rows, strings and escapes in small pieces cost what their bytes cost."""
        size = 2_000_000
        for body in (
            b'{"rows":[{"key":"' + b"x" * size + b'"}]}',
            b'{"rows":[{"key":"' + b"\\\\" * (size // 2) + b'"}]}',
            b'{"rows":[{"key":[' + b'{"a":[]},\r\n' * (size // 11) + b"1]}]}",
            b'{"rows":[' + b"1," * (size // 20) + b"1]}",
            b'{"rows":[' + b'{"a":1},' * (size // 80) + b"1]}",
            b'{"x":"' + b"x" * size + b'"}',
        ):
            for form in ("rows", "blocks"):
                began = time.process_time()
                read(form, [body[at : at + 4096] for at in range(0, len(body), 4096)])
                # Quadratic would be minutes.
                self.assertLess(time.process_time() - began, 5)

    def test_memory_is_flat(self):
        """Returned rows are not kept."""
        reader = RowReader("rows", fast_loads)
        reader.feed(b'{"rows":[\r\n')
        piece = b'{"id":"a","key":1,"value":null},\r\n' * 2000
        for _ in range(50):
            reader.feed(piece)
            self.assertLess(len(reader._buffer), 10)
        self.assertEqual(reader.count, 100_000)
