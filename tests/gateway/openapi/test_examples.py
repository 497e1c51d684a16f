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
            for found, name in ((result, "BatchResult"), (result.get("error"), "BatchError")):
                if found is not None:
                    strict = {
                        **COMPONENTS[name],
                        "additionalProperties": False,
                        "components": {"schemas": COMPONENTS},
                    }
                    OAS31Validator(strict).validate(found)

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
