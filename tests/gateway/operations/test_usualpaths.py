"""Specs of usual bodies: the fast path comes to the same as the general parser."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.paths import PreparedLookup, PreparedMutation
from couchbase.protocol.jsontext import at_once
from couchbase.protocol.subdocument import Spec
from gateway.dialect.errors import Refusal
from gateway.dialect.subdocuments import parsing_body
from gateway.operations.kind import Kind
from gateway.operations.subdocuments import LOOKUP_IN, MUTATE_IN
from gateway.operations.usualpaths import usual_lookup, usual_mutation
from gateway.resources.headers import RequestSource
from tests import tries
from tests.gateway.dialect.test_subdocuments import values

_NAMES = st.sampled_from(
    ("DictSet", "DictAdd", "Replace", "Delete", "Counter", "ArrayPushLast", "Get", "Exists")
)
_OTHERS = st.sampled_from(
    ({}, {}, {}, {}, {"xattr": True}, {"values": [1]}, {"path": None}, {"operation": 1}, {"x": 1})
)
_PATHS = st.sampled_from(("a", "a.b[0]", "\u00e9", '"', "a:b", "", "x" * 1025))
_OPERATIONS = st.builds(
    lambda name, path, value, others: {"operation": name, "path": path, **value, **others},
    _NAMES | st.text(max_size=3),
    _PATHS,
    values.map(lambda value: {"value": value}) | st.just({}),
    _OTHERS,
)
_READS = st.builds(
    lambda name, path, others: {"operation": name, "path": path, **others},
    st.sampled_from(("Get", "Exists", "GetCount")),
    _PATHS,
    _OTHERS,
)
_BODIES = (
    st.lists(_OPERATIONS, max_size=17)
    | st.lists(_OPERATIONS, min_size=1, max_size=3)
    | st.lists(_READS, min_size=1, max_size=3)
)
_MORE = st.sampled_from(
    (
        *({}, {}, {}, {"storeSemantic": "Upsert"}, {"storeSemantic": "Insert"}, {"storeSemantic": "Replace"}),
        *(
            {"storeSemantic": None},
            {"storeSemantic": "other"},
            {"accessDeleted": True},
            {"": 1},
            {"null": None},
        ),
    )
)
_STYLES: tuple[Callable[[Any], str], ...] = (
    lambda body: json.dumps(body, separators=(",", ":"), ensure_ascii=False),
    json.dumps,
    lambda body: json.dumps(body, separators=(", ", ":")),
    lambda body: json.dumps(body, indent=1) + "\n",
)


def general(kind: Kind, body: bytes) -> Any:
    """Return the plan that the general parser makes of a body; ``None`` if it refuses it."""
    source = RequestSource(None)  # type: ignore[arg-type]  # whose headers are not looked at
    try:
        return kind.plan(kind.read(at_once(parsing_body(body, kind.body)), source.words), source, 0)
    except Refusal:
        return None


def usual_specs(body: bytes) -> list[Spec] | None:
    """Return the specs of a mutation on the fast path."""
    found = usual_mutation(body)
    return None if found is None else found[0]


class SameTests(SynchronousTestCase):
    """Any body, as several clients write it."""

    @settings(max_examples=tries(600), deadline=None)
    @given(_BODIES, _MORE, st.sampled_from(_STYLES), st.sampled_from((b"", b"\n", b"}", b',"operations":[]')))
    @example([{"operation": "DictSet", "path": "a", "value": -0.0}], {}, _STYLES[0], b"")
    @example([{"operation": "Delete", "path": "a", "value": None}], {}, _STYLES[0], b"")
    def test_specs(
        self,
        operations: list[dict[str, Any]],
        more: dict[str, Any],
        style: Callable[[Any], str],
        end: bytes,
    ) -> None:
        """The specs and what is sent for them are the same, or the body is left to the general parser."""
        body = style({"operations": operations, **more}).encode("utf-8", "surrogatepass")
        body = body[:-1] + end + b"}" if end.startswith(b",") else body + end
        mutation, lookup = usual_mutation(body), usual_lookup(body)
        if mutation is not None:
            specs, semantics = mutation
            plan = general(MUTATE_IN, body)
            expected = PreparedMutation(plan.specs)
            self.assertEqual(
                (specs, specs.specs, specs.encoded), (expected, expected.specs, expected.encoded)
            )
            self.assertEqual(plan, plan._replace(semantics=semantics))
        if lookup is not None:
            plan = general(LOOKUP_IN, body)
            self.assertEqual(lookup, plan)
            self.assertEqual(PreparedLookup(lookup.specs).encoded, plan.specs.encoded)

    def test_usual(self) -> None:
        """Bodies as common clients write them take the fast path."""
        changes = [
            {"operation": "DictSet", "path": "a", "value": {"b": [1.5, "\u00e9", None]}},
            {"operation": "Delete", "path": "b"},
            {"operation": "Counter", "path": "n", "value": -3},
        ]
        scalars = [{"operation": "DictSet", "path": "a", "value": value} for value in (1, "x", True)]
        reads = [{"operation": "Get", "path": "a"}, {"operation": "Exists", "path": "\u00e9"}]
        for style in _STYLES[:2]:
            body = style({"operations": changes}).encode()
            self.assertEqual(usual_specs(body), general(MUTATE_IN, body).specs)
        for style in _STYLES:
            body = style({"operations": scalars}).encode()
            self.assertEqual(usual_specs(body), general(MUTATE_IN, body).specs)
        for style in (*_STYLES[:1], *_STYLES[3:]):
            body = style({"operations": reads[:1]}).encode()
            self.assertIsNot(usual_lookup(body), None)
        body = _STYLES[0]({"operations": reads}).encode()
        self.assertEqual(usual_lookup(body), general(LOOKUP_IN, body))

    def test_unusual(self) -> None:
        """Numbers that would change, repeated members, and everything that is refused."""
        for text in (
            *(
                b"1.0e1",
                b"-0",
                b"1e400",
                b'"\\ud800"',
                b'"\\u0061"',
                b'{"a":1,"a":2}',
            ),
            *(b"[1 ,2]", b"null", b'1,"value":2', b'1,"path":"b"', b'1,"xattr":true', b"NaN", b'"\xff"'),
        ):
            body = b'{"operations":[{"operation":"DictSet","path":"a","value":%b}]}' % text
            self.assertIs(usual_mutation(body), None, text)
        for body in (
            b"",
            b"[]",
            b"7",
            b'"a"',
            b"{}",
            b'{"operations":{}}',
            b'{"operations":[[]]}',
            b'{"operations":"ab"}',
            b'{"operations":[{"operation":"Get","path":"a","xattr":true}]}',
            b'{"operations":[{"operation":"Get","path":"a","value":1}]}',
            b'{"operations":[{"operation":"Delete","path":"a","xattr":true}]}',
            b'{"operations":[{"operation":"Delete","path":"a","xattr":true,"createParents":false}]}',
            b'{"operations":[{"operation":"DictSet","path":"a","value":1,"xattr":true}]}',
        ):
            self.assertIs(usual_mutation(body), None, body)
            self.assertIs(usual_lookup(body), None, body)
