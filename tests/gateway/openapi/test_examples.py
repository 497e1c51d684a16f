"""The examples of the OpenAPI document are real: each is sent to a gateway with its node."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from openapi_schema_validator import OAS31Validator
from twisted.internet.defer import inlineCallbacks

from gateway.openapi.description import JSON, Description, Example
from gateway.openapi.document import Route
from gateway.openapi.errors import codes_of
from gateway.openapi.paths import PARAMETERS, names_in, template_of
from gateway.openapi.schemas import COMPONENTS
from tests.gateway.openapi.support import own_plugins, own_routes
from tests.gateway.test_behaviour import Answered, GatewayTestCase

USUAL = frozenset(
    {
        *("connection", "content-length", "content-type", "date", "server", "transfer-encoding"),
        *("x-content-type-options", "x-request-id"),
    }
)
"""Headers that need no description."""

VOLATILE = frozenset({"cas", "uid", "requestId", "version"})
"""Members that differ each time."""


def steady(value: Any) -> Any:
    """Return JSON without the values that differ each time."""
    if isinstance(value, dict):
        return {name: type(one).__name__ if name in VOLATILE else steady(one) for name, one in value.items()}
    return [steady(one) for one in value] if isinstance(value, list) else value


def validate_strictly(value: Any, name: str) -> None:
    """Compare a value with a named schema, which must name all of the value's members."""
    strict = {**COMPONENTS[name], "additionalProperties": False, "components": {"schemas": COMPONENTS}}
    OAS31Validator(strict).validate(value)


def path_of(route: Route, description: Description, example: Example) -> str:
    """Return the path of an example, with its query."""
    known = {**PARAMETERS, **{one.name: one for one in description.path}}
    values = {name: example.path.get(name, str(known[name].example)) for name in names_in(route.rule)}
    path = template_of(route.rule).format(**{name: quote(one, safe="") for name, one in values.items()})
    return f"{path}?{urlencode(example.query)}" if example.query else path


class ExampleTests(GatewayTestCase):
    """Every example, on its endpoint's first path."""

    def plugins(self) -> list[Any]:
        """Return all of this project."""
        return own_plugins()

    @inlineCallbacks
    def test_results_of_batches(self) -> Any:
        """The type of a batch's results names every member that an operation can have."""
        lines = [
            {"op": "set", "key": "a", "value": {"n": 1}},
            {"op": "get", "key": "a"},
            {"op": "set", "key": "t", "text": "x", "flags": 67108864},
            {"op": "get", "key": "t"},
            {"op": "set", "key_base64": "/w==", "base64": "/w=="},
            {"op": "get", "key_base64": "/w=="},
            {"op": "incr", "key": "n", "initial": 1},
            {"op": "observe", "key": "a"},
            {"op": "lookup_in", "key": "a", "operations": [{"operation": "Get", "path": "n"}]},
            {
                "op": "mutate_in",
                "key": "a",
                "operations": [{"operation": "Counter", "path": "n", "value": 1}],
            },
            {"op": "delete", "key": "a"},
            {"op": "get", "key": "a"},
            {"op": "none"},
        ]
        answer = yield self.ask(
            "POST", "/v1/buckets/default/batch", json.dumps(lines).encode(), Content_Type="application/json"
        )
        results = answer.json()
        self.assertEqual([one["status"] for one in results], [200] * 11 + [404, 400])
        for result in results:
            validate_strictly(result, "BatchResult")
            if "error" in result:
                validate_strictly(result["error"], "BatchError")

    @inlineCallbacks
    def test_rows_with_documents(self) -> Any:
        """The types of rows of listings and views name every member, also of documents and errors."""
        yield self.clear()
        documents = "/v1/buckets/default/documents"
        yield self.ask("PUT", f"{documents}/a", b"1", Content_Type="application/json", Expires="1h")
        odd = b'{"op": "set", "key_base64": "/w==", "base64": "/w=="}'
        yield self.ask("POST", "/v1/buckets/default/batch", odd, Content_Type="application/x-ndjson")
        xattr = {"operation": "DictSet", "path": "x", "value": 1, "xattr": True}
        yield self.ask(
            "POST",
            f"{documents}/a/mutate",
            json.dumps({"operations": [xattr], "preserveExpiry": True}).encode(),
            Content_Type="application/json",
        )
        listing = yield self.ask("GET", f"{documents}?include_docs=true&include_xattrs=true&cursors=true")
        rows = listing.json()["rows"]
        metas = [row["doc"]["meta"] for row in rows if "doc" in row]
        self.assertEqual(len(metas), 2)
        members = {"id", "id_base64", "cas", "flags", "expiry", "xattrs"}
        self.assertEqual({name for meta in metas for name in meta}, members)
        self.assertTrue(any("cursor" in row for row in rows))
        for row in rows:
            validate_strictly(row, "ListingRow")
            if "doc" in row:
                validate_strictly(row["doc"], "RowDocument")
                self.assertEqual(set(row["doc"]["meta"]) - members, set())
        design = {"views": {"v": {"map": "function (doc, meta) { emit(1, null); }"}}}
        yield self.ask("PUT", "/v1/buckets/default/designs/d", json.dumps(design).encode())
        view = "/v1/buckets/default/views/d/v?include_docs=true&stale="
        answer = yield self.ask("GET", view + "false")
        yield self.ask("DELETE", f"{documents}/a")
        later = yield self.ask("GET", view + "ok")
        found = [*answer.json()["rows"], *later.json()["rows"]]
        self.assertTrue(any("doc_error" in row for row in found))
        for row in found:
            validate_strictly(row, "ViewRow")
            if "doc_error" in row:
                validate_strictly(row["doc_error"], "BatchError")

    @inlineCallbacks
    def test_examples(self) -> Any:
        """The answer has the status, the content type and the headers of the document, and the example's
        body."""
        for route in own_routes():
            described = route.description
            if described is None or route.endpoint is None or route.rule != route.endpoint.paths[0]:
                continue
            for example in described.examples:
                yield self.clear()
                for before in example.given:
                    kind = {"Content_Type": "application/json"} if before.body else {}
                    stored = yield self.ask(before.method, before.path, before.body.encode(), **kind)
                    self.assertIn(stored.status, (200, 201), f"{before}: {stored.body!r}")
                body = example.body
                headers = dict(example.headers)
                if body is not None and not isinstance(body, str):
                    body = json.dumps(body)
                    headers.setdefault("Content-Type", "application/json")
                answer = yield self.client.request(
                    route.methods[0],
                    self.url + path_of(route, described, example),
                    data=(body or "").encode(),
                    headers=headers,
                )
                content = yield answer.content()
                self.check(route, described, example, Answered(answer, content))

    @inlineCallbacks
    def clear(self) -> Any:
        """Remove what other examples left in lists."""
        listed = yield self.ask("GET", "/v1/buckets/default/designs")
        for one in listed.json()["designs"]:
            yield self.ask("DELETE", f"/v1/buckets/default/designs/{one['name']}")

    def check(self, route: Route, described: Description, example: Example, answer: Answered) -> None:
        """Compare an answer with its example, and with the answers that are described."""
        about = f"{route.name}: {example.summary}: {answer.body!r:.400}"
        self.assertEqual(answer.status, example.status, about)
        self.assertRegex(answer.header("X-Request-Id") or "", ".", about)
        if answer.status >= 400:
            assert route.endpoint is not None
            codes = codes_of(route.rule, route.endpoint, described, has_callers=False)
            self.assertIn(answer.json()["code"], codes, about)
            return
        declared = described.answers[answer.status]
        kind = (answer.header("Content-Type") or "").partition(";")[0]
        self.assertEqual(kind in declared.content, bool(declared.content), about)
        named = {(one if isinstance(one, str) else one.name).lower() for one in declared.headers}
        self.assertEqual(answer.names - named - USUAL, set(), about)
        if kind == JSON:
            schema = {**declared.content[JSON], "components": {"schemas": COMPONENTS}}
            found = [error.message for error in OAS31Validator(schema).iter_errors(answer.json())]
            self.assertEqual(found, [], about)
        if isinstance(example.answer, str):
            self.assertEqual(answer.body.decode(), example.answer, about)
        elif example.answer is not None:
            self.assertEqual(steady(answer.json()), steady(example.answer), about)
