"""The OpenAPI document of a Klein app, made from the endpoints that are mounted on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from klein import Klein

from gateway.http.endpoints import Endpoint
from gateway.openapi.description import JSON, Answer, Body, Description, Example, Parameter, description_of
from gateway.openapi.errors import ERROR, codes_of, example_of, statuses_of
from gateway.openapi.headers import ANSWERED, EVERYWHERE, TAKEN
from gateway.openapi.paths import PARAMETERS, names_in, template_of
from gateway.openapi.schemas import COMPONENTS

__all__ = ["VERSION", "About", "Route", "document", "routes_of"]

VERSION = "3.1.0"

_ALPHA = "/v1.alpha/"

_TEXT = """\
Documents, views and the cluster's services over HTTP. Paths, headers, statuses and error codes are those of
Couchbase's Data API v1 where it has the feature.

`HEAD` works wherever `GET` does, and `OPTIONS` answers 204 with `Allow`. An unsupported method is 405 with
the same `Allow`, an unknown query parameter 400; `/health`, `/live`, `/ready`, `/metrics`, `/_p` and
`/v1.alpha/enabled` take any. Every path under `/v1` also works under `/v1.alpha`. All errors have the same
form, whose `code` identifies the error.
"""

TAGS = {
    "Documents": "Documents by their keys: read, store, remove, append.",
    "Counters": "Documents that are a number.",
    "Sub-documents": "Parts of JSON documents, by path.",
    "Expiry and locks": "Touch, lock, unlock.",
    "Copies": "Where the copies of a document are.",
    "Batches": "Many operations in one request.",
    "Collections": "Scopes and collections, and listings of their documents.",
    "Views": "Queries of views.",
    "Design documents": "The definitions of views.",
    "Statements": "Statements of SQL++ (N1QL).",
    "Other services": "The cluster's query, search, analytics and management services, proxied.",
    "Buckets": "Buckets, their statistics, and the caller.",
    "Operations": "Health, metrics and this description.",
}
"""Headings in their order, with descriptions; endpoints may have others."""


class About(NamedTuple):
    """The document's information about the gateway as a whole."""

    version: str
    """The gateway's version."""
    schemes: Mapping[str, Mapping[str, object]]
    """Authentication methods: name -> OpenAPI security scheme; empty if no credentials are required."""


class Route(NamedTuple):
    """One path of an endpoint."""

    rule: str
    methods: tuple[str, ...]
    name: str
    """Unique; the ``operationId``."""
    endpoint: Endpoint | None
    """``None`` for a handler that only Klein knows."""
    handler: Callable[..., Any]
    description: Description | None

    @property
    def is_twin(self) -> bool:
        """Whether the route duplicates a path below ``/v1``."""
        if self.endpoint is None or not self.rule.startswith(_ALPHA):
            return False
        return "/v1/" + self.rule[len(_ALPHA) :] in self.endpoint.paths


def routes_of(app: Klein) -> Iterator[Route]:
    """Yield all routes of an app, in the order of their declaration."""
    for rule in app.url_map.iter_rules():
        view = app.endpoints[rule.endpoint]
        endpoint, handler = getattr(view, "served", (None, view))
        methods = tuple(sorted((rule.methods or {"GET"}) - {"HEAD", "OPTIONS"}))
        name = rule.endpoint if endpoint is None else _name(endpoint, rule.rule)
        yield Route(rule.rule, methods, name, endpoint, handler, description_of(handler))


def _name(endpoint: Endpoint, rule: str) -> str:
    """Return a name for one path of an endpoint: the endpoint's name for the first path, one with the
    location for others."""
    first = endpoint.paths[0]
    if rule == first:
        return endpoint.name
    alpha = "_alpha" if rule.startswith(_ALPHA) else ""
    more = [name for name in names_in(rule) if name not in names_in(first)]
    return f"{endpoint.name}_in_{more[-1]}{alpha}" if more else f"{endpoint.name}{alpha}"


def document(routes: Iterable[Route], about: About) -> dict[str, Any]:
    """Return the document, ready to be written as JSON.

    :param routes: routes; those without a description are shown with the known facts only.
    """
    paths: dict[str, dict[str, Any]] = {}
    tags: list[str] = []
    parts = _Parts()
    for route in sorted(routes, key=_place):
        if route.is_twin:
            continue
        for method in route.methods:
            operation = _operation(route, about, parts)
            paths.setdefault(template_of(route.rule), {})[method.lower()] = operation
            tags += [tag for tag in operation["tags"] if tag not in tags]
    components = {
        "schemas": {},
        "responses": parts.found("responses"),
        "parameters": parts.found("parameters"),
        "securitySchemes": {**about.schemes},
    }
    found: dict[str, Any] = {
        "openapi": VERSION,
        "info": {
            "title": "couchgateway",
            "version": about.version,
            "description": _TEXT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{name: []} for name in about.schemes],
        "tags": [{"name": tag, "description": TAGS.get(tag, tag)} for tag in tags],
        "paths": paths,
        "components": components,
    }
    components["schemas"] = _referred(found)
    return found


class _Parts:
    """The parts that many operations share: written once, and referred to."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, dict[str, Any]]] = {}

    def refer(self, kind: str, name: str, part: dict[str, Any]) -> dict[str, Any]:
        """Return a reference to a part.

        :param name: the part's name, to which a number is appended if another part has it, too.
        """
        known = self._parts.setdefault(kind, {})
        number = 1
        unique = name
        while known.setdefault(unique, part) != part:
            number += 1
            unique = f"{name}_{number}"
        return {"$ref": f"#/components/{kind}/{unique}"}

    def found(self, kind: str) -> dict[str, Any]:
        """Return all parts of a kind, by their names."""
        return self._parts.get(kind, {})


_METHODS = ("GET", "PUT", "POST", "DELETE")


def _place(route: Route) -> tuple[int, str, int]:
    tag = "" if route.description is None else route.description.tag
    return _index(tuple(TAGS), tag), route.rule, _index(_METHODS, route.methods[0])


def _index(known: tuple[str, ...], one: str) -> int:
    return known.index(one) if one in known else len(known)


def _referred(found: object) -> dict[str, Any]:
    """Return the named schemas that a document refers to, directly or through others."""
    schemas: dict[str, Any] = {}
    left = json.dumps(found)
    while True:
        new = [n for n in COMPONENTS if n not in schemas and f'"#/components/schemas/{n}"' in left]
        if not new:
            return dict(sorted(schemas.items()))
        schemas.update((name, COMPONENTS[name]) for name in new)
        left = json.dumps([COMPONENTS[name] for name in new])


# ---- one operation -------------------------------------------------------------------------------


def _operation(route: Route, about: About, parts: _Parts) -> dict[str, Any]:
    summary, _, _ = (route.handler.__doc__ or route.name).strip().partition("\n")
    found: dict[str, Any] = {
        "operationId": route.name,
        "summary": summary.rstrip(".").replace("``", "`"),
        "tags": ["Others"],
    }
    description, endpoint = route.description, route.endpoint
    if description is None or endpoint is None:
        found["parameters"] = [_parameter(one, "path") for one in _in_path(route.rule, ())]
        found["responses"] = {"default": {"description": "The endpoint does not describe its answers."}}
        return found
    found["tags"] = [description.tag]
    if description.text:
        found["description"] = description.text
    found["parameters"] = list(_parameters(route.rule, endpoint, description, parts))
    if description.body is not None:
        found["requestBody"] = _body(description.body, description.examples)
    if not description.credentials and about.schemes:
        found["security"] = []
    responses = {
        str(status): _answer(status, answer, description.examples)
        for status, answer in description.answers.items()
    }
    codes = codes_of(route.rule, endpoint, description, has_callers=bool(about.schemes))
    for status, problems in statuses_of(codes).items():
        # An endpoint may have an error of another form, as /ready has for 503.
        if str(status) not in responses:
            part = _errors(status, problems)
            responses[str(status)] = parts.refer("responses", f"Error{status}", part)
    found["responses"] = dict(sorted(responses.items()))
    return found


def _in_path(rule: str, own: Iterable[Parameter]) -> list[Parameter]:
    """Return the parameters of a rule, in order."""
    known = {**PARAMETERS, **{one.name: one for one in own}}
    return [known.get(name, Parameter(name, f"The {name}.")) for name in names_in(rule)]


def _parameters(
    rule: str, endpoint: Endpoint, description: Description, parts: _Parts
) -> Iterator[dict[str, Any]]:
    example = description.examples[0] if description.examples else Example("")
    in_path = _in_path(rule, description.path)
    for one in in_path:
        if one.name in example.path:
            yield _parameter(one._replace(example=example.path[one.name]), "path")
        else:
            yield parts.refer("parameters", one.name, _parameter(one, "path"))
    for one in description.query:
        # A batch names its collection in the path or in the query.
        if one.name not in names_in(rule):
            yield _parameter(one, "query")
    headers = {one: TAKEN[one] for one in TAKEN if one.lower().encode("ascii") in endpoint.takes}
    for header in (*description.headers, *EVERYWHERE):
        named = TAKEN[header] if isinstance(header, str) else header
        headers[named.name] = named
    for name, header in headers.items():
        yield parts.refer("parameters", name, _parameter(header, "header"))


def _parameter(one: Parameter, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": one.name, "in": where, "description": one.text, "schema": one.schema}
    if one.required or where == "path":
        found["required"] = True
    if one.example is not None:
        found["example"] = one.example
    return found


def _body(body: Body, examples: Iterable[Example]) -> dict[str, Any]:
    found: dict[str, Any] = {"content": {}, "required": body.required}
    if body.text:
        found["description"] = body.text
    for kind, schema in body.content.items():
        shown = {
            example.summary: {"value": example.body}
            for example in examples
            if example.body is not None and example.headers.get("Content-Type", _first(body.content)) == kind
        }
        found["content"][kind] = _media(schema, shown)
    return found


def _answer(status: int, answer: Answer, examples: Iterable[Example]) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.text, "headers": _headers(answer.headers)}
    for kind, schema in answer.content.items():
        shown = {
            example.summary: {"value": example.answer}
            for example in examples
            if example.status == status
            and example.answer is not None
            and example.headers.get("Accept", _first(answer.content)) == kind
        }
        found.setdefault("content", {})[kind] = _media(schema, shown)
    return found


def _first(content: Mapping[str, object]) -> str:
    return next(iter(content), "")


def _media(schema: object, examples: Mapping[str, object]) -> dict[str, Any]:
    return {"schema": schema, "examples": examples} if examples else {"schema": schema}


def _headers(names: Iterable[str | Parameter]) -> dict[str, Any]:
    found = {}
    for one in (*names, *EVERYWHERE):
        header = ANSWERED[one] if isinstance(one, str) else one
        shown: dict[str, Any] = {"description": header.text, "schema": header.schema}
        if header.example is not None:
            shown["example"] = header.example
        if header.required:
            shown["required"] = True
        found[header.name] = shown
    return found


_OF_STATUS = {
    401: ("WWW-Authenticate",),
    503: ("Retry-After",),
    429: ("Retry-After", "RateLimit", "RateLimit-Policy"),
}


def _errors(status: int, problems: Iterable[Any]) -> dict[str, Any]:
    examples = {problem.code: {"value": example_of(problem)} for problem in problems}
    return {
        "description": "\n".join(f"- `{problem.code}`: {problem.text}" for problem in problems),
        "headers": _headers(_OF_STATUS.get(status, ())),
        "content": {JSON: {"schema": ERROR, "examples": examples}},
    }
