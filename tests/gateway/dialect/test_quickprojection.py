"""The fast path of projection comes to the same as the general parser."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.jsontext import at_once
from gateway.dialect import jsontools
from gateway.dialect.errors import Refusal
from gateway.dialect.projection import parse_projection, project, projecting
from gateway.dialect.quickprojection import known_part
from tests import tries

_NAMES = ("a", "b", "\u00e9", "\u00e9 y", '"')
_VALUES = st.recursive(
    st.sampled_from((1, -0.0, 1.5e30, 2**70, "a", "\u00e9", '"\\', None, True, "")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3),
    max_leaves=12,
)


_FEW = st.sampled_from((1, 1, 1, 2, 2, 3, 4))


def _written(name: str) -> str:
    return f".{name}" if name.isidentifier() else f".`{name}`"


@st.composite
def _questions(draw: st.DrawFn) -> tuple[Any, list[str]]:
    """Return a value, and paths in it, of whose steps some do not exist."""
    value = draw(
        st.dictionaries(st.sampled_from(_NAMES), _VALUES, min_size=1)
        | st.lists(_VALUES, min_size=1, max_size=3)
        | _VALUES
    )
    paths = []
    for _ in range(draw(_FEW)):
        path, below = "", value
        for _ in range(draw(_FEW)):
            steps = {".a": None, "[0]": None}
            if isinstance(below, dict):
                steps = {_written(name): part for name, part in below.items()} or {".a": None}
            elif isinstance(below, list):
                steps = {f"[{at}]": part for at, part in enumerate([*below, None])}
                steps["[-1]"] = below[-1] if below else None
            elif path:
                break
            step = draw(st.sampled_from(sorted(steps)) | st.sampled_from((".b", "[1]")))
            path, below = path + step, steps.get(step)
        paths.append(path.removeprefix("."))
    return value, paths


_COMPACT = {"separators": (",", ":"), "ensure_ascii": False}
_LAYOUTS: tuple[dict[str, Any], ...] = (_COMPACT, {}, {"ensure_ascii": False}, {"indent": 1})


class SameTests(SynchronousTestCase):
    """Any paths in any document."""

    @settings(max_examples=tries(800), deadline=None)
    @given(_questions(), st.sampled_from(_LAYOUTS))
    @example(([1], ["[0]", "[-1]"]), {})
    @example(({"\u00e9": {"a": "\u00e9"}}, ["\u00e9.a"]), {})
    @example(({"a": "", "b": "x"}, ["a"]), {})
    @example(({"a": [1], "b": {"c": 1}}, ["a", "b"]), {})
    @example(([1, 2], ["[1]", "[0]"]), {})
    @example(({"a": '"\\', "b": 1}, ["a"]), {})
    @example(({"\u00e9 y": 1}, ["`\u00e9 y`"]), _COMPACT)
    @example(({"b": {"a": 2}, "a": 1}, ["a"]), {})
    @example(({"b": "a", "a": 1}, ["a"]), {})
    def test_parts(self, question: tuple[Any, list[str]], layout: dict[str, Any]) -> None:
        """The bytes, or the refusal, are the same."""
        value, paths = question
        text = json.dumps(value, **layout).encode()
        parsed = parse_projection(",".join(paths))
        outcomes: list[Any] = []
        for find in (project, lambda *given: at_once(projecting(*given))):
            try:
                outcomes.append(find(text, parsed))
            except Refusal as refusal:
                outcomes.append((refusal.problem.code, refusal.message))
        self.assertEqual(*outcomes)

    def test_usual(self) -> None:
        """Nested members and elements of compact documents take the fast path."""
        document = b'{"a":{"b":[1.50,{"c":null}]},"d":"x"}'.replace(b"1.50", b"1.5")
        for paths, expected in (
            ("a.b[1].c,d", b'{"a":{"b":[{"c":null}]},"d":"x"}'),
            ("a.b[-1]", b'{"a":{"b":[{"c":null}]}}'),
            ("a.none,none", b"null"),
        ):
            tree = parse_projection(paths).tree
            assert tree is not None
            self.assertEqual(known_part(document, tree), expected)
            spaced = json.dumps(json.loads(document)).encode()
            self.assertEqual(json.loads(known_part(spaced, tree) or b"1"), json.loads(expected))

    def test_unusual(self) -> None:
        """Documents whose parts could serialize to other texts, mismatches, and paths to the same element."""
        tree = parse_projection("a.b").tree
        assert tree is not None
        for document in (b'{"a":{"b":1.0e1}}', b'{"a" :{"b":1}}', b'{"a":1}', b"[1]", b"7", b"", b"not JSON",
                         b'{"a":{"b":1},"a":{"b":2}}', b"[" * 300 + b"]" * 300):  # fmt: skip
            self.assertIs(known_part(document, tree), None, document)
        self.assertIs(parse_projection("a[0],a[-1]").tree, None)

    def test_levels(self) -> None:
        """Where a value is nested too deep for a serializer, its parts are searched for."""

        def dumps(value: Any) -> bytes:
            raise RecursionError

        self.patch(jsontools, "dumps", dumps)
        self.assertEqual(project(b'{"a":{"b":1}}', parse_projection("a")), b'{"a":{"b":1}}')
        self.assertEqual(project(b'{"a":{"b":1}}', parse_projection("a.b")), b'{"a":{"b":1}}')
