"""Schemas in words."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gateway.openapi.schemas import ANY, BINARY, BOOLEAN, choice, listed, text, thing, whole
from gateway.openapi.typewords import Names, words_of


class WordTests(SynchronousTestCase):
    """Each kind of schema."""

    def test_words(self) -> None:
        """Types, ranges, defaults, alternatives."""
        for schema, expected in (
            (ANY, "any JSON"),
            (text(), "string"),
            (BINARY, "bytes"),
            (BOOLEAN, "boolean (default `false`)"),
            (whole(0), "whole number from 0"),
            (whole(-1, 4, default=-1), "whole number from -1 to 4 (default `-1`)"),
            (choice("a", "b", default="a"), "`a` or `b` (default `a`)"),
            ({"type": ["string", "null"], "enum": ["a", None]}, "`a` or null"),
            ({"type": ["integer", "string"]}, "whole number or string"),
            ({"type": ["integer", "null"], "minimum": 0, "maximum": 4}, "whole number from 0 to 4 or null"),
            (listed(whole(0)), "array of whole number from 0"),
            (listed(ANY), "array of any JSON"),
            (thing({}), "object"),
            (thing({"a": ANY, "b": ANY}), "object with `a`, `b`"),
            ({"const": "set"}, "`set`"),
            ({"anyOf": [choice("ok"), BOOLEAN]}, "`ok` or boolean (default `false`)"),
        ):
            self.assertEqual(words_of(schema), expected)

    def test_names(self) -> None:
        """References are found among the words, if the document has them."""
        names = Names({"Copy": {}})
        cut = list(names.cut(words_of(listed({"$ref": "#/components/schemas/Copy"}))))
        self.assertEqual(cut, [("array of ", ""), ("", "Copy")])
        self.assertEqual(list(names.cut(words_of({"$ref": "#/components/schemas/Other"}))), [("Other", "")])
