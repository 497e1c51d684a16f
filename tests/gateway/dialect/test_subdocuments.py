"""Bodies of ``lookup`` and ``mutate``: values keep their text, and two parsers agree."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.jsontext import at_once
from gateway.dialect.errors import Refusal
from gateway.dialect.subdocuments import PathOperation, parse_body, parsing_body
from tests import tries

NAMES = frozenset({"operations", "storeSemantic", "preserveExpiry"})

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
operations = st.fixed_dictionaries(
    {},
    optional={
        "operation": st.sampled_from(["Get", "DictSet", 'a"b', "a:b"]) | scalars,
        "path": st.text(max_size=5),
        "value": values,
        "values": st.lists(values, max_size=3) | scalars,
        "xattr": scalars,
    },
)
bodies = st.fixed_dictionaries(
    {}, optional={"operations": st.lists(operations, max_size=3) | scalars, "storeSemantic": scalars}
)


def outcome(body: bytes, slowly: bool) -> Any:
    """Return the result of a body."""
    try:
        return at_once(parsing_body(body, NAMES)) if slowly else parse_body(body, NAMES)
    except Refusal as refusal:
        return refusal.message


class ParserTests(SynchronousTestCase):
    """Parsed specifications."""

    def only(self, text: bytes) -> PathOperation:
        """Return the one operation of a body, by both parsers."""
        body = b'{"operations":[%b]}' % text
        found = outcome(body, False)
        self.assertEqual(found, outcome(body, True))
        (operation,) = found["operations"]
        return operation  # type: ignore[no-any-return]

    def test_texts(self) -> None:
        """Values are stored as they are written."""
        for text in (
            *(b"1", b"-0", b"1.0", b"1e400", b"12345678901234567890123", b'"a"', b'"\\u0061"', b'"\xc3\xa9"'),
            *(b"true", b"[1, 2]", b'{"a" : [1.50]}', b"0.1000", b'"a:b"', b'"-0"', b"-0.0", b"{}"),
        ):
            operation = self.only(b'{"operation":"DictSet","path":"p","value":%b}' % text)
            self.assertEqual((operation.value, operation.values), (text, None))
            self.assertEqual(operation.members, {"operation": "DictSet", "path": "p"})
            operation = self.only(b'{ "values" : [ %b , null ] }' % text)
            self.assertEqual(operation.values, (text, b"null"))

    def test_null_counts_as_missing(self) -> None:
        """On every level; an empty list of values is one."""
        operation = self.only(b'{"operation":null,"path":null,"value":null,"xattr":null,"values":null}')
        self.assertEqual(operation, PathOperation({}))
        self.assertEqual(self.only(b'{"values":[]}').values, ())
        self.assertEqual(outcome(b'{"operations":null,"storeSemantic":null}', False), {})

    def test_wrong_bodies(self) -> None:
        """Each names what is wrong."""
        for body, words in (
            (b"", "no body"),
            (b"{", "not JSON"),
            (b"[]", "not an object"),
            (b"null", "not an object"),
            (b'{"operation":[]}', "unknown member 'operation'"),
            (b'{"operations":{}}', "operations: expected a list"),
            (b'{"operations":[1]}', "operations[0]: expected an object"),
            (
                b'{"operations":[{},{"path":"a","path":"b"}]}',
                "operations[1]: the member 'path' is given twice",
            ),
            (b'{"operations":[{"value":1,"value":1}]}', "'value' is given twice"),
            (b'{"operations":[{"value":1,"\\u0076alue":1}]}', "'value' is given twice"),
            (b'{"operations":[],"operations":[]}', "'operations' is given twice"),
            (b'{"operations":[{"values":1}]}', "operations[0].values: expected a list"),
            (b'{"operations":[{"path":"%b"}]}' % (b"a" * 70000), ""),
        ):
            message = outcome(body, True)
            if words:
                self.assertIn(words, message)
                self.assertEqual(outcome(body, False), message)
        self.assertIn("more than 65536 bytes", message)

    def test_mark(self) -> None:
        """A byte order mark is ignored, as in all bodies."""
        self.assertEqual(outcome(b'\xef\xbb\xbf{"operations":[]}', False), {"operations": []})

    @settings(max_examples=tries(300), deadline=None)
    @given(bodies, st.booleans())
    def test_parsers_agree(self, body: dict[str, Any], compact: bool) -> None:
        """The short way for usual bodies comes to the same as the long one."""
        text = json.dumps(body, separators=(",", ":") if compact else None, ensure_ascii=compact)
        data = text.encode("utf-8", "surrogatepass")
        slowly = outcome(data, True)
        self.assertEqual(outcome(data, False), slowly)
        if isinstance(slowly, dict):
            for given_, read in zip(body.get("operations") or (), slowly.get("operations", ()), strict=True):
                if given_.get("value") is not None:
                    self.assertEqual(json.loads(read.value), given_["value"])
