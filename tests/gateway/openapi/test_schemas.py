"""Short forms of schemas."""

from __future__ import annotations

from openapi_schema_validator import OAS31Validator
from twisted.trial.unittest import SynchronousTestCase

from gateway.openapi.schemas import ANY, Schema, choice, listed, nullable, text, thing, whole


def is_valid(schema: Schema, value: object) -> bool:
    """Return whether a value keeps to a schema."""
    return bool(OAS31Validator(schema).is_valid(value))


class SchemaTests(SynchronousTestCase):
    """What they let through."""

    def test_things(self) -> None:
        """Unknown members are refused unless the schema takes more; required ones must be there."""
        strict = thing({"a": whole(0), "b": text()}, "a")
        self.assertTrue(is_valid(strict, {"a": 1, "b": "x"}))
        for wrong in ({}, {"a": -1}, {"a": 1, "c": 2}, [], None):
            self.assertFalse(is_valid(strict, wrong), wrong)
        self.assertTrue(is_valid(thing({}, more=True), {"c": 2}))
        self.assertFalse(is_valid(thing({}, more=whole(0)), {"c": "x"}))

    def test_lists_and_numbers(self) -> None:
        """Bounds are included."""
        few = listed(whole(1, 3), 1, 2)
        for right in ([1], [1, 3]):
            self.assertTrue(is_valid(few, right))
        for wrong in ([], [0], [4], [1, 1, 1]):
            self.assertFalse(is_valid(few, wrong))

    def test_nullable(self) -> None:
        """A member that may be null takes its values and null, whatever its schema is made of."""
        for schema, right, wrong in (
            (whole(0), 1, "x"),
            (choice("a", "b"), "b", "c"),
            ({"anyOf": [choice("any"), whole(0, 2)]}, 2, 3),
            ({"type": ["integer", "string"]}, "x", []),
        ):
            found = nullable(schema)
            self.assertTrue(is_valid(found, right) and is_valid(found, None), schema)
            self.assertFalse(is_valid(found, wrong), schema)
            self.assertFalse(is_valid(schema, None), schema)
        self.assertTrue(is_valid(nullable(ANY), None))
        named = {"$ref": "#/components/schemas/X"}
        self.assertEqual(nullable(named), {"anyOf": [named, {"type": "null"}]})

    def test_defaults_in_words(self) -> None:
        """The default of such a member is in its description only."""
        self.assertEqual(
            nullable(whole(0, default=15, about="Seconds.")),
            {"type": ["integer", "null"], "minimum": 0, "description": "Seconds; default `15`."},
        )
        self.assertEqual(
            nullable({"type": "boolean", "default": False}),
            {"type": ["boolean", "null"], "description": "Default `false`."},
        )
