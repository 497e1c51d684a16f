"""Design documents: valid contents, and messages for invalid ones."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from couchnode.cluster.designs import (
    DesignError,
    View,
    check_together,
    functions_of,
    read_design,
    restored,
    with_design,
)

MAP = "function (doc, meta) { emit(meta.id, null); }"

WRONG: list[tuple[Any, str]] = [
    ({"views": []}, "The field `views' is not a json object."),
    ({"views": {"": {"map": MAP}}}, "View name cannot be an empty string"),
    ({"views": {" v": {"map": MAP}}}, "View name ` v` cannot have leading or trailing whitespace"),
    ({"views": {"v\n": {"map": MAP}}}, "View name `v\n` cannot have leading or trailing whitespace"),
    ({"views": {"v": MAP}}, "Value for view `v' is not a json object."),
    ({"views": {"v": {"reduce": "_count"}}}, "The `map' field for the view `v' is missing."),
    ({"views": {"v": {"map": 1}}}, "The `map' field of the view `v' is not a json string."),
    (
        {"views": {"v": {"map": MAP, "reduce": None}}},
        "The `reduce' field of the view `v' is not a json string.",
    ),
    ({"views": {"v": {"map": MAP, "reduce": "_foo"}}}, "Invalid built-in reduce function for view `v': _foo"),
    (
        {"views": {"v": {"map": MAP, "reduce": "_count "}}},
        "Invalid built-in reduce function for view `v': _count ",
    ),
    ({"views": {str(n): {"map": MAP} for n in range(65)}}, "A design document has at most 64 views."),
]


class DesignTests(SynchronousTestCase):
    """Reading design documents."""

    def test_good(self) -> None:
        """Views with and without reduce; other members are kept as they came."""
        text = json.dumps(
            {
                "_id": "_design/x",
                "language": "javascript",
                "options": {"updateMinChanges": 7},
                "views": {
                    "a": {"map": MAP},
                    "b": {"map": MAP, "reduce": "_sum"},
                    "c": {"map": MAP, "reduce": MAP},
                },
            },
            indent=1,
        ).encode()
        design = read_design("dev_x", text, None)
        self.assertEqual(design.text, text)
        self.assertEqual(list(design.views.values())[:2], [View("a", MAP, None), View("b", MAP, "_sum")])
        self.assertEqual(design.options, {"updateMinChanges": 7})
        self.assertTrue(design.is_development)
        self.assertEqual(
            [(view, kind) for view, kind, _ in functions_of(design)],
            [("a", "map"), ("b", "map"), ("c", "map"), ("c", "reduce")],
        )
        self.assertEqual(restored("dev_x", design.dump()), design)

    def test_no_views(self) -> None:
        """A design document without views is one."""
        self.assertEqual(read_design("x", b"{}", None).views, {})

    def test_wrong(self) -> None:
        """Each way to be wrong has the server's text."""
        for document, reason in WRONG:
            fault = self.assertRaises(DesignError, read_design, "x", json.dumps(document).encode(), None)
            self.assertEqual((fault.error, fault.reason), ("invalid_design_document", reason))

    def test_a_name_given_twice(self) -> None:
        """A view given twice, or any other member, at any level, is a bad request that names it."""
        for text, name in (
            (b'{"views":{"v":{"map":"x => 1"},"v":{"map":"x => 2"}}}', "'v'"),
            (b'{"views":{},"views":{}}', "'views'"),
            (b'{"views":{"v":{"map":"x => 1","map":"x => 2"}}}', "'map'"),
            (b'{"views":{},"options":{"a":[{"b":1,"\\u0062":2}]}}', "'b'"),
        ):
            fault = self.assertRaises(DesignError, read_design, "x", text, None)
            self.assertEqual(fault.error, "bad_request")
            self.assertIn(f"{name} is given twice", fault.reason)

    def test_byte_order_mark(self) -> None:
        """It is ignored, and not kept."""
        self.assertEqual(read_design("x", b'\xef\xbb\xbf{"views":{}}', None).text, b'{"views":{}}')

    def test_no_document(self) -> None:
        """A body that is not a JSON object, or is too large, is a bad request."""
        for text in (b"", b"{", b"[]", b"\xff", b"[" * 100_000, b" " * (2**20 + 1) + b"{}"):
            fault = self.assertRaises(DesignError, read_design, "x", text, None)
            self.assertEqual(fault.error, "bad_request")
        self.assertRaises(DesignError, read_design, "x" * 201, b"{}", None)

    def test_too_much_for_one_bucket(self) -> None:
        """There is an end to the number of design documents, and to their length together."""
        small = read_design("x", b"{}", None)
        large = read_design("x", b"{}" + b" " * (2**20 - 2), None)
        check_together([small] * 256)
        check_together([large] * 16)
        self.assertRaises(DesignError, check_together, [small] * 257)
        self.assertRaises(DesignError, check_together, [large] * 17)

    def test_revisions(self) -> None:
        """Each change has its own, increasing revision."""
        first = read_design("x", b"{}", None)
        second = read_design("x", b"{}", first)
        self.assertTrue(first.rev.startswith("1-") and second.rev.startswith("2-"))

    def test_read_before(self) -> None:
        """One that was read before is not read again, and gets the revision after the present one's."""
        text = b'{"views": {"v": {"map": "m"}}, "options": {"a": 1}}'
        known = read_design("x", text, None)
        designs = with_design({"x": read_design("x", b"{}", known)}, "x", text)
        with mock.patch("couchnode.cluster.designs.read_json", side_effect=AssertionError):
            changed = with_design(designs, "x", text, known)
        self.assertEqual([designs["x"].rev[:2], changed["x"].rev[:2]], ["3-", "4-"])
        self.assertEqual(replace(changed["x"], rev=known.rev), known)
        self.assertEqual(len({known.rev, designs["x"].rev, changed["x"].rev}), 3)

    def test_signatures(self) -> None:
        """The same functions are the same index, whatever the name of the view."""
        self.assertEqual(View("a", "m", None).signature, View("b", "m", None).signature)
        signatures = {
            View("a", *functions).signature for functions in (("m", None), ("n", None), ("m", "_sum"))
        }
        self.assertEqual(len(signatures), 3)
