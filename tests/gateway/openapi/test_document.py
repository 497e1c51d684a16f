"""The OpenAPI document: every route is described, and the pages, the routes and the document agree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from klein import Klein
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from twisted.trial.unittest import SynchronousTestCase

import gateway.app
from gateway.dialect.errors import PROBLEMS
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint, mount
from gateway.openapi.description import Answer, Parameter, described
from gateway.openapi.document import document, routes_of
from gateway.openapi.headers import ANSWERED, TAKEN, UNDESCRIBED
from gateway.openapi.paths import names_in, template_of
from gateway.openapi.schemas import COMPONENTS, named, whole
from tests.gateway.openapi.support import ABOUT, own_document, own_plugins, own_routes
from tests.gateway.support import Site
from tests.gateway.test_docs import page, rows

HOW = "put @described(...) under its @endpoint, see docs/contributing.md"


def resolved(made: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return a part of a document, or that to which it refers."""
    if "$ref" not in part:
        return part
    found: Any = made
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found  # type: ignore[no-any-return]


def operations(made: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and operation."""
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


class RouteTests(SynchronousTestCase):
    """Routes and the document."""

    def test_every_route_is_described(self) -> None:
        """A route without a description, or without an example, is a mistake."""
        bare = sorted({route.name for route in own_routes() if route.description is None})
        self.assertEqual(bare, [], HOW)
        poor = {
            route.name for route in own_routes() if not (route.description and route.description.examples)
        }
        self.assertEqual(sorted(poor), [], f"they have no example: {HOW}")

    def test_every_route_is_shown(self) -> None:
        """Each method of each path, except twins below /v1.alpha, is one operation with a name of its own."""
        made = own_document()
        expected = {
            (method, template_of(route.rule))
            for route in own_routes()
            for method in route.methods
            if not route.is_twin
        }
        self.assertEqual({(method, path) for method, path, _ in operations(made)}, expected)
        names = [operation["operationId"] for _, _, operation in operations(made)]
        self.assertEqual(sorted(names), sorted(set(names)))

    def test_parameters_of_paths(self) -> None:
        """They are those of the path, each with an example to fill in."""
        made = own_document()
        for method, path, operation in operations(made):
            found = [resolved(made, one) for one in operation["parameters"]]
            in_path = [one for one in found if one["in"] == "path"]
            self.assertEqual([one["name"] for one in in_path], re.findall(r"{([a-z_]+)}", path))
            for one in in_path:
                self.assertIn("example", one, f"{method} {path}: {HOW}")
            self.assertEqual(len({(one["in"], one["name"].lower()) for one in found}), len(found))

    def test_every_answer_is_complete(self) -> None:
        """Each operation has a success, its errors have the one form, and their codes that status."""
        made = own_document()
        for method, path, operation in operations(made):
            statuses = {int(status) for status in operation["responses"]}
            self.assertTrue(any(status < 400 for status in statuses), f"{method} {path}")
            for status in statuses:
                answer = resolved(made, operation["responses"][str(status)])
                self.assertTrue(answer["description"])
                if status < 400 or path == "/ready":
                    continue
                for code in answer["content"]["application/json"]["examples"]:
                    self.assertEqual(PROBLEMS[code].status, status)

    def test_a_plugin_of_others(self) -> None:
        """Its described endpoints are shown like ours, those that it does not describe with what is known."""

        class Others:
            @endpoint("get_it", "GET", "/it/<it>", takes=("If-Match",))
            @described(
                "Its",
                {200: Answer("It.", {"application/json": whole(0)}, (Parameter("X-It", "It."),))},
                query=(Parameter("how", "How.", required=True),),
                path=(Parameter("it", "Which.", example="one"),),
                credentials=False,
                errors="DocumentNotFound",
            )
            def get_it(self, request: Request) -> Response:
                """Return it.

                And more.
                """
                return Response(200)

            @endpoint("put_it", "PUT", "/it/<it>")
            def put_it(self, request: Request) -> Response:
                return Response(200)

        app = Klein()
        mount(app, Others(), lambda *_: None)

        @app.route("/old/<int:number>", methods=["POST"])
        def old(request: object, number: int) -> bytes:
            """Serve as Klein does."""
            return b""

        made = document(routes_of(app), ABOUT)
        shown = made["paths"]["/it/{it}"]["get"]
        self.assertEqual((shown["summary"], shown["tags"], shown["security"]), ("Return it", ["Its"], []))
        found = {one["name"]: one for one in (resolved(made, one) for one in shown["parameters"])}
        self.assertEqual(set(found), {"it", "how", "If-Match", "X-Request-Id"})
        self.assertTrue(found["it"]["required"] and found["how"]["required"])
        self.assertIn("X-It", shown["responses"]["200"]["headers"])
        self.assertEqual(
            set(shown["responses"]), {"200", "400", "403", "404", "408", "429", "431", "500", "503"}
        )
        self.assertEqual(set(made["paths"]["/it/{it}"]["put"]["responses"]), {"default"})
        self.assertEqual(made["paths"]["/old/{number}"]["post"]["summary"], "Serve as Klein does")
        self.assertEqual([tag["name"] for tag in made["tags"]], ["Its", "Others"])

    def test_valid(self) -> None:
        """The document keeps to OpenAPI 3.1 and JSON Schema, also its defaults and examples of schemas."""
        for schemes in (ABOUT.schemes, {}):
            made = document(own_routes(), ABOUT._replace(schemes=schemes))
            found = [str(error) for error in OpenAPIV31SpecValidator(made).iter_errors()]
            self.assertEqual(found, [])

    def test_examples_are_of_their_schemas(self) -> None:
        """Bodies of examples, of requests and of answers, and examples of parameters."""
        made = own_document()
        for method, path, operation in operations(made):
            parts = [operation.get("requestBody", {})]
            parts += [resolved(made, one) for one in operation["responses"].values()]
            for media in (media for part in parts for media in part.get("content", {}).values()):
                for name, example in media.get("examples", {}).items():
                    self.check(made, media["schema"], example["value"], f"{method} {path}: {name}")
            for one in (resolved(made, one) for one in operation["parameters"]):
                if "example" in one:
                    self.check(made, one["schema"], one["example"], f"{method} {path}: {one['name']}")

    def check(self, made: dict[str, Any], schema: dict[str, Any], value: object, about: str) -> None:
        """Hold a value to a schema of the document."""
        whole = {**schema, "components": made["components"]}
        self.assertEqual([error.message for error in OAS31Validator(whole).iter_errors(value)], [], about)

    def test_compressed_answers(self) -> None:
        """The operations that say so are those whose answers the gateway compresses, and its own pages."""
        made = own_document()
        shown = set()
        for _, _, operation in operations(made):
            found = {resolved(made, one)["name"] for one in operation["parameters"]}
            answers = [resolved(made, one) for one in operation["responses"].values()]
            sends = any("Content-Encoding" in answer["headers"] for answer in answers)
            self.assertEqual("Accept-Encoding" in found, sends, operation["operationId"])
            # Pages and files are packed beforehand.
            if sends and operation.get("security") != []:
                shown.add(operation["operationId"].partition("_in_")[0])
        self.assertEqual(shown, gateway.app._DOCUMENTS | gateway.app._STREAMS)

    def test_no_defaults_in_bodies(self) -> None:
        """A default of a member is said in words: generators make such members required, or send them."""
        made = own_document()
        left: list[Any] = [
            one["requestBody"]["content"] for _, _, one in operations(made) if "requestBody" in one
        ]
        seen: set[str] = set()
        while left:
            part = left.pop()
            if isinstance(part, dict):
                self.assertNotIn("default", part, HOW)
                name = part.get("$ref")
                if isinstance(name, str) and name not in seen:
                    seen.add(name)
                    left.append(resolved(made, part))
                left += [one for key, one in part.items() if key not in ("examples", "$ref")]
            elif isinstance(part, list):
                left += part

    def test_callers(self) -> None:
        """Where nobody has to say who it is there is no scheme, no 401, and no refusal of a password."""
        made = document(own_routes(), ABOUT._replace(schemes={}))
        self.assertEqual((made["security"], made["components"]["securitySchemes"]), ([], {}))
        self.assertNotIn("401", {status for _, _, one in operations(made) for status in one["responses"]})
        self.assertNotIn('"InvalidAuth"', json.dumps(made))
        with_callers = own_document()
        self.assertEqual(with_callers["security"], [{"basic": []}])
        open_to_all = [path for _, path, one in operations(with_callers) if one.get("security") == []]
        self.assertIn("/health", open_to_all)
        for _, path, one in operations(with_callers):
            self.assertEqual("401" in one["responses"], path not in open_to_all, path)

    def test_names_of_schemas(self) -> None:
        """A name stands for one schema."""
        name = next(iter(COMPONENTS))
        self.assertRaises(ValueError, named, name, {"type": "string", "description": "another"})


class QueryTests(SynchronousTestCase):
    """The query's parameters, as handlers read them."""

    # Supervisors and scrapers may add parameters of their own, and services have their own.
    LENIENT = frozenset({"live", "health", "ready", "metrics", "alpha_enabled"})

    def test_parameters(self) -> None:
        """Every endpoint takes exactly the parameters of its description, and refuses another one."""
        asked: list[frozenset[str]] = []
        whole_query = Request.query

        def query(request: Request, allowed: frozenset[str] = frozenset()) -> dict[str, str]:
            asked.append(allowed)
            return whole_query(request, allowed)

        self.patch(Request, "query", query)
        site = Site(plugins=own_plugins())
        for route in own_routes():
            assert route.description is not None, HOW
            if route.name in self.LENIENT or route.rule.startswith("/_p/"):
                continue
            asked.clear()
            path = re.sub(r"<[a-z_]+>", "a", route.rule)
            body = b"{}" if route.description.body is not None else b""
            # A query of its own, as those that were read before are remembered.
            reply = site.request(route.methods[0], f"{path}?nobody-has-this={route.name}", body)
            self.assertEqual(reply.status, 400, route.name)
            self.assertIn("nobody-has-this", reply.json()["message"], route.name)
            described_ = {one.name for one in route.description.query} - set(names_in(route.rule))
            self.assertEqual(asked[-1], described_, f"{route.name}: {HOW}")


class PageTests(SynchronousTestCase):
    """The document and docs/rest-api.md and docs/errors.md, both ways."""

    def setUp(self) -> None:
        self.made = own_document()
        self.text = page("rest-api.md")

    def parameters(self, place: str) -> set[str]:
        """Return the names of all parameters in a place."""
        return {
            one["name"]
            for _, _, operation in operations(self.made)
            for one in (resolved(self.made, one) for one in operation["parameters"])
            if one["in"] == place
        }

    def test_request_headers(self) -> None:
        """The table of request headers has those of the operations, and those that OpenAPI says otherwise."""
        documented = {cells[0].strip("`") for cells in rows(self.text, "header")}
        # No resource takes it.
        documented.discard("Content-Range")
        self.assertEqual(documented - UNDESCRIBED, self.parameters("header"))
        self.assertEqual(UNDESCRIBED - documented, set())
        self.assertEqual(set(TAKEN), self.parameters("header"), "described, but taken by no operation")

    def test_query_parameters(self) -> None:
        """The tables of parameters, and the addresses in the text, have those of the operations."""

        def words(first: str, *columns: int) -> set[str]:
            found = rows(self.text, first)
            return {name for row in found for at in columns for name in re.findall(r"`([A-Za-z_]+)", row[at])}

        documented = words("query", 0) | words("parameter", 0) | words("view parameter", 0, 1)
        documented |= words("parameter of", 1) | set(re.findall(r"[?&]([A-Za-z_]+)=", self.text))
        self.assertEqual(documented, self.parameters("query"))

    def test_members_of_bodies(self) -> None:
        """Every member that a body may have is on the page."""
        named = set(re.findall(r"[`\"]([A-Za-z_]+)[`\"]", self.text))
        for _, path, operation in operations(self.made):
            for media in operation.get("requestBody", {}).get("content", {}).values():
                members = resolved(self.made, media["schema"]).get("properties", {})
                self.assertEqual(set(members) - named, set(), path)

    def test_response_headers(self) -> None:
        """The table of response headers has those of the answers."""
        table = rows(self.text[self.text.index("### Response headers") :], "header")
        documented = {name for cells in table for name in re.findall(r"`([\w-]+)`", cells[0])}
        answers = [
            resolved(self.made, answer)
            for _, _, operation in operations(self.made)
            for answer in operation["responses"].values()
        ]
        shown = {name for answer in answers for name in answer["headers"]}
        # Media types say the first, all files have the second, and only a 405 the last.
        self.assertEqual(documented - {"Content-Type", "X-Content-Type-Options", "Allow"}, shown)
        self.assertEqual(set(ANSWERED) - shown, {"Allow"})

    def test_error_codes(self) -> None:
        """Every code of errors.md is that of some operation, except those of no described method."""
        shown = {
            code
            for _, _, operation in operations(self.made)
            for answer in (resolved(self.made, one) for one in operation["responses"].values())
            for kind in answer.get("content", {}).values()
            for code in kind.get("examples", {})
        }
        documented = {cells[0].strip("`") for cells in rows(page("errors.md"), "code")}
        unseen = {"MethodNotAllowed", "RequestCanceled"}
        self.assertEqual(documented - shown, unseen)

    def test_errors_of_documents(self) -> None:
        """The errors that the table of an operation names are in the document, too."""
        for method, path, codes in self.specific_errors():
            operation = self.made["paths"][path][method.lower()]
            for status, code in codes:
                answer = resolved(self.made, operation["responses"][status])
                self.assertIn(code, answer["content"]["application/json"]["examples"], f"{method} {path}")

    def specific_errors(self) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
        """Yield method, path and (status, code) of the rows of the tables of requests."""
        before: list[tuple[str, str]] = []
        for line in self.text.splitlines():
            asked = re.match(r"\| `(GET|POST|PUT|DELETE) ([D/][^ `]*)`", line)
            if asked is None:
                continue
            codes = []
            for status, names in re.findall(r"\b([45]\d\d) ((?:[A-Z][a-z]+[A-Z]\w+(?:, )?)+)", line):
                codes += [(status, name) for name in names.rstrip(", ").split(", ")]
            if line.rstrip("| ").endswith("the same"):
                codes = before
            before = codes
            path = re.sub(r"\bD\b", "/v1/buckets/{bucket}/documents/{key}", asked[2], count=1)
            yield asked[1], path, codes
