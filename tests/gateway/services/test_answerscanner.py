"""Answers of the query service, cut into rows and members in whatever pieces they arrive."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.services import answerscanner
from gateway.services.answerscanner import AnswerScanner, BadAnswer
from tests.gateway.services.test_readonly import VALUES
from tests.gateway.support import in_every_split

ANSWER = (
    b'{\n"requestID": "a,}\\"b",\n"signature": {"*":"*"},\n"results": [\n{"a":1,"b":"],\\\\"},\n[1, {}],\n'
    b'9223372036854775807,\n"x"\n],\n"status": "success",\n"metrics": {"n":[1,2]}\n}\n'
)
ROWS = [b'{"a":1,"b":"],\\\\"}', b"[1, {}]", b"9223372036854775807", b'"x"']
MEMBERS = {
    "requestID": b'"a,}\\"b"',
    "signature": b'{"*":"*"}',
    "status": b'"success"',
    "metrics": b'{"n":[1,2]}',
}


def scanned(*parts: bytes, limit: int = 1000) -> tuple[list[bytes], dict[str, bytes]]:
    """Return rows and members of a whole answer."""
    scanner = AnswerScanner(limit)
    rows = [row.strip() for part in parts for row in scanner.feed(part)]
    scanner.finish()
    return rows, scanner.members


class ScannerTests(SynchronousTestCase):
    """:class:`AnswerScanner`."""

    def test_every_split(self) -> None:
        """Rows and members come out as they went in, wherever the answer is cut."""
        for parts in in_every_split(ANSWER):
            self.assertEqual(scanned(*parts), (ROWS, MEMBERS))

    @given(
        st.lists(VALUES, max_size=5),
        st.dictionaries(st.text().filter(lambda name: name != "results"), VALUES, max_size=5),
        st.integers(0, 5),
        st.sampled_from([None, 0, 2]),
        st.lists(st.integers(0, 500), max_size=8),
    )
    def test_any_answer(
        self, rows: list[Any], members: dict[str, Any], at: int, indent: int | None, cuts: list[int]
    ) -> None:
        """The same for any values, in any pieces, with the rows at any place."""
        pairs = list(members.items())
        pairs.insert(min(at, len(pairs)), ("results", rows))
        text = json.dumps(dict(pairs), indent=indent).encode()
        ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
        parts = [text[begin:end] for begin, end in zip(ends, ends[1:], strict=False)]
        found, others = scanned(*parts, limit=len(text))
        self.assertEqual([json.loads(row) for row in found], rows)
        self.assertEqual({name: json.loads(value) for name, value in others.items()}, members)

    def test_without_rows(self) -> None:
        """An answer may have no rows, no list of them, or nothing at all."""
        for text, members in (
            (b'{"results":[ ],"status":"x"}', {"status": b'"x"'}),
            (b'{"results":null}', {"results": b"null"}),
            (b'{"errors":[{"code":1}],"status":"fatal"}', {"errors": b'[{"code":1}]', "status": b'"fatal"'}),
            (b" { } ", {}),
        ):
            for parts in in_every_split(text):
                self.assertEqual(scanned(*parts), ([], members))

    def test_broken(self) -> None:
        """Anything else is refused, in whatever pieces it arrives; nothing that is cut counts as complete."""
        for text in (
            *(
                b"",
                b"[]",
                b"<html>",
                b"{",
                b'{"a"',
                b'{"a":1',
                b'{"a":1}x',
                b'{"a":1}{}',
                b'{"a":1,}',
                b'{,"a":1}',
            ),
            *(
                b'{"a":1]}',
                b'{"results":[1',
                b'{"results":[1,,2]}',
                b'{"results":[1]x}',
                b'{"results":[1]"a":2}',
            ),
            *(
                b"{a:1}",
                b'{"a":1,"a":2}',
                b'{"results":[],"results":[1]}',
                b'{"a" 1}',
                b"\x00\xff",
                b'{"\\x":1}',
            ),
            *(b'{"results":[,]}', b'{"results":[1 ,]}', b'{"' + b"n" * 2000),
        ):
            for parts in in_every_split(text) if len(text) < 100 else [[text]]:
                self.assertRaises(BadAnswer, scanned, *parts)

    def test_limits(self) -> None:
        """A row, or everything beside the rows, that is too large is refused; little is held until then."""
        self.assertEqual(scanned(b'{"results":["', b"x" * 8, b'"]}', limit=10)[0], [b'"xxxxxxxx"'])
        for parts in in_every_split(b'{"results":["xxxxxxxxx"]}'):
            self.assertRaises(BadAnswer, scanned, *parts, limit=10)
        self.patch(answerscanner, "MOST_MEMBER_BYTES", 20)
        scanner = AnswerScanner(10)
        with self.assertRaises(BadAnswer):
            scanner.feed(b'{"profile":"' + b"x" * 30)

    def test_held(self) -> None:
        """The bytes of a row that is not complete can be accounted for."""
        scanner = AnswerScanner(1000)
        scanner.feed(b'{"results":[{"a":"' + b"x" * 100)
        self.assertEqual(scanner.held, 106)
        scanner.feed(b'"}')
        self.assertEqual(scanner.held, 108)
        scanner.feed(b",")
        self.assertEqual(scanner.held, 0)
