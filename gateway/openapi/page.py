"""The OpenAPI document as a web page, complete without scripts; a script adds search and a form to try
requests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from gateway.openapi.typewords import Names, words_of

__all__ = ["parts", "render"]

_CODE = re.compile(r"`([^`]+)`")

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}: REST reference</title>
<link rel="icon" href="/docs/icon.svg">
<link rel="stylesheet" href="/docs/colors.css">
<link rel="stylesheet" href="/docs/page.css">
<script type="module" src="/docs/page.mjs"></script>
</head>
<body>
<a class="skip" href="#main">Skip to the reference</a>
<header>
<h1>{title} <span class="version">{version}</span></h1>
<p><a href="/openapi.json">OpenAPI {openapi}</a></p>
</header>
"""


def render(made: Mapping[str, Any]) -> str:
    """Return a document of :func:`gateway.openapi.document.document` as HTML.

    Every text is escaped. All files that the page needs are below ``/docs/``.
    """
    return "".join(parts(made))


def parts(made: Mapping[str, Any]) -> Iterator[str]:
    """Yield the same HTML in parts, each of which takes little time."""
    return _Page(made).parts()


def _text(words: object) -> str:
    """Return text as HTML; text between backticks becomes code."""
    return _CODE.sub(r"<code>\1</code>", escape(str(words)))


def _shown(value: object) -> str:
    """Return a value as it is sent: strings unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


class _Page:
    """One page.

    :param made: the document.
    """

    def __init__(self, made: Mapping[str, Any]) -> None:
        self._made = made
        components = made["components"]
        self._schemas: Mapping[str, Any] = components.get("schemas", {})
        self._names = Names(self._schemas)
        self._by_tag: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
        for path, methods in made["paths"].items():
            for method, operation in methods.items():
                for tag in operation["tags"]:
                    self._by_tag.setdefault(tag, []).append((method.upper(), path, operation))
        self._codes: dict[str, tuple[str, str]] = {}

    def parts(self) -> Iterator[str]:
        """Yield the page from its head to its end."""
        info = self._made["info"]
        yield _HEAD.format(
            title=escape(info["title"]), version=escape(info["version"]), openapi=self._made["openapi"]
        )
        yield from self._contents()
        yield '<main id="main" tabindex="-1">\n<section aria-labelledby="about">\n<h2 id="about">About</h2>\n'
        for paragraph in info["description"].strip().split("\n\n"):
            yield f"<p>{_text(paragraph)}</p>\n"
        yield from self._credentials()
        yield "</section>\n"
        for tag in self._made["tags"]:
            yield from self._section(tag)
        yield from self._errors()
        yield from self._types()
        yield "</main>\n</body>\n</html>\n"

    def _contents(self) -> Iterator[str]:
        yield '<nav aria-label="Contents">\n<div class="search" hidden><label for="search">Search</label>'
        yield '<input id="search" type="search" autocomplete="off" spellcheck="false">'
        yield '<p id="found" role="status"></p></div>\n'
        for tag in self._made["tags"]:
            yield f"<details open><summary>{escape(tag['name'])}</summary>\n<ul>\n"
            for method, path, operation in self._by_tag.get(tag["name"], ()):
                name = operation["operationId"]
                yield f'<li data-for="{escape(name)}"><a href="#{escape(name)}">{_method(method)}'
                yield f"<span>{escape(operation['summary'])}{_where(path)}</span></a></li>\n"
            yield "</ul>\n</details>\n"
        yield '<p><a href="#errors">Error codes</a></p>\n<p><a href="#types">Types</a></p>\n</nav>\n'

    def _credentials(self) -> Iterator[str]:
        schemes = self._made["components"].get("securitySchemes", {})
        if not schemes:
            yield "<p>This gateway requires no credentials.</p>\n"
            return
        yield "<p>Callers authenticate in one of these ways:</p>\n<ul>\n"
        for name, scheme in schemes.items():
            what = " ".join(str(scheme[key]) for key in ("type", "scheme", "in", "name") if key in scheme)
            about = _text(scheme.get("description", ""))
            yield f"<li><code>{escape(name)}</code>: {escape(what)}. {about}</li>\n"
        yield "</ul>\n"
        kinds = {(scheme.get("type"), str(scheme.get("scheme", "")).lower()) for scheme in schemes.values()}
        fields = []
        if ("http", "basic") in kinds:
            fields += [_field("user", "User", "text"), _field("password", "Password", "password")]
        if ("http", "bearer") in kinds:
            fields.append(_field("token", "Bearer token", "password"))
        for scheme in schemes.values():
            if scheme.get("type") == "apiKey" and scheme.get("in") == "header":
                header = escape(str(scheme["name"]))
                fields.append(_field(f"key-{header}", header, "password", f' data-header="{header}"'))
        if not fields:
            return
        yield '<form id="credentials" class="fields" hidden autocomplete="off">\n'
        yield "<p>For requests from this page. The credentials are forgotten when the page is closed.</p>\n"
        yield from fields
        yield "</form>\n"

    # ---- one operation ---------------------------------------------------------------------------

    def _section(self, tag: Mapping[str, Any]) -> Iterator[str]:
        anchor = "tag-" + re.sub(r"[^a-z0-9]+", "-", tag["name"].lower())
        yield f'<section class="tag" aria-labelledby="{anchor}">\n'
        yield f'<h2 id="{anchor}">{escape(tag["name"])}</h2>\n'
        yield f"<p>{_text(tag['description'])}</p>\n"
        for method, path, operation in self._by_tag.get(tag["name"], ()):
            yield from self._operation(method, path, operation)
        yield "</section>\n"

    def _operation(self, method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
        name = escape(operation["operationId"])
        shown_path = re.sub(r"(\{[a-z_]+\})", r"<var>\1</var>", escape(path))
        words = f"{method} {path} {operation['operationId']} {operation['summary']}".lower()
        yield f'<article id="{name}" data-words="{escape(words)}" aria-labelledby="{name}-title">\n'
        yield f'<h3 id="{name}-title">{escape(operation["summary"])}{_where(path)}</h3>\n'
        yield f'<p class="route">{_method(method)} <code>{shown_path}</code></p>\n'
        if "description" in operation:
            yield f"<p>{_text(operation['description'])}</p>\n"
        if operation.get("security") == []:
            yield '<p class="quiet">Needs no credentials.</p>\n'
        yield f'<form class="try" data-method="{method}" data-path="{escape(path)}" autocomplete="off">\n'
        yield from self._parameters(name, operation)
        yield from self._body(name, operation.get("requestBody"))
        curl = escape(self._curl(method, path, operation))
        yield f'<div class="line"><pre class="curl" tabindex="0" aria-label="Command line">{curl}</pre>'
        yield '<span class="buttons" hidden><button type="button" class="copy">Copy</button> '
        yield '<button type="submit">Send</button></span></div>\n'
        yield '<div class="outcome" hidden></div>\n</form>\n'
        yield from self._answers(name, operation)
        yield "</article>\n"

    def _parameters(self, name: str, operation: Mapping[str, Any]) -> Iterator[str]:
        found = [self._resolved(one) for one in operation.get("parameters", ())]
        if not found:
            return
        yield _table("Name", "In", "Value", "Meaning", label="Parameters")
        for one in found:
            must = _MUST if one.get("required") and one["in"] != "path" else ""
            field = self._input(f"{name}-{one['in']}-{one['name']}", one)
            yield f'<tr><th scope="row"><code>{escape(one["name"])}</code>{must}</th><td>{one["in"]}</td>'
            yield f"<td>{field}</td><td>{_text(one.get('description', ''))} "
            yield f'<span class="quiet">{self._words(one["schema"])}</span></td></tr>\n'
        yield "</tbody>\n</table></div>\n"

    def _input(self, anchor: str, one: Mapping[str, Any]) -> str:
        schema = one["schema"]
        if "$ref" in schema:
            schema = self._resolved(schema)
        value = one.get("example") if one["in"] == "path" or one.get("required") else None
        marks = (
            f'id="{escape(anchor)}" data-in="{one["in"]}" name="{escape(one["name"])}" '
            f'aria-label="{escape(one["name"])}"'
        )
        words = ["true", "false"] if schema.get("type") == "boolean" else schema.get("enum")
        if words:
            options = "".join(f"<option>{escape(str(word))}</option>" for word in words)
            return f"<select {marks}><option></option>{options}</select>"
        kept = "" if value is None else f' value="{escape(str(value))}"'
        hint = one.get("example")
        shown = "" if hint is None or value is not None else f' placeholder="{escape(str(hint))}"'
        return f'<input type="text" spellcheck="false" {marks}{kept}{shown}>'

    def _body(self, name: str, body: Mapping[str, Any] | None) -> Iterator[str]:
        if body is None:
            return
        kinds = list(body["content"])
        first = body["content"][kinds[0]]
        must = "" if body.get("required") else " It is optional."
        yield f'<p class="body">Body: {_text(body.get("description", ""))}{must} '
        yield f'<span class="quiet">{self._words(first["schema"])}</span></p>\n'
        kind, example = next(
            (
                (kind, one["value"])
                for kind in kinds
                for one in body["content"][kind].get("examples", {}).values()
            ),
            (kinds[0], ""),
        )
        options = "".join(
            f"<option{' selected' if one == kind else ''}>{escape(_typed(one))}</option>" for one in kinds
        )
        yield f'<div class="fields"><label for="{name}-type">Content-Type</label>'
        yield f'<select id="{name}-type" class="type">{options}</select>'
        yield f'<label for="{name}-body">Body</label>'
        yield f'<textarea id="{name}-body" rows="5" spellcheck="false">{escape(_shown(example))}'
        yield "</textarea></div>\n"

    def _curl(self, method: str, path: str, operation: Mapping[str, Any]) -> str:
        for one in map(self._resolved, operation.get("parameters", ())):
            if one["in"] == "path" and "example" in one:
                path = path.replace("{" + one["name"] + "}", str(one["example"]))
        verb = "" if method == "GET" else f" -X {method}"
        body = operation.get("requestBody", {}).get("content", {})
        for kind, media in body.items():
            for example in media.get("examples", {}).values():
                value = example["value"]
                sent = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                quoted = sent.replace("'", "'\\''")
                return f"curl -i{verb} -H 'Content-Type: {kind}' -d '{quoted}' \"$GATEWAY{path}\""
        return f'curl -i{verb} "$GATEWAY{path}"'

    def _answers(self, name: str, operation: Mapping[str, Any]) -> Iterator[str]:
        yield _table("Status", "Meaning", label="Answers")
        for status, answer in operation["responses"].items():
            found = self._resolved(answer)
            yield f'<tr><th scope="row">{escape(status)}</th><td>{self._answer(status, found)}</td></tr>\n'
        yield "</tbody>\n</table></div>\n"

    def _answer(self, status: str, answer: Mapping[str, Any]) -> str:
        content = answer.get("content", {})
        examples = [one for media in content.values() for one in media.get("examples", {}).items()]
        if status.isdigit() and int(status) >= 400 and examples:
            for code, example in examples:
                self._codes.setdefault(code, (status, example["value"]["message"]))
            return ", ".join(
                f'<a href="#code-{escape(code)}"><code>{escape(code)}</code></a>' for code, _ in examples
            )
        parts = [_text(answer["description"])]
        for kind, media in content.items():
            parts.append(
                f'<br><code>{escape(kind)}</code> <span class="quiet">{self._words(media["schema"])}</span>'
            )
        headers = ", ".join(f"<code>{escape(header)}</code>" for header in answer.get("headers", ()))
        if headers:
            parts.append(f'<br><span class="quiet">Headers:</span> {headers}')
        for title, example in examples:
            parts.append(f"<details><summary>Example: {escape(title)}</summary>")
            parts.append(f'<pre tabindex="0">{escape(_shown(example["value"]))}</pre></details>')
        return "".join(parts)

    # ---- shared parts ----------------------------------------------------------------------------

    def _errors(self) -> Iterator[str]:
        yield '<section aria-labelledby="errors">\n<h2 id="errors">Error codes</h2>\n'
        yield _table("Code", "Status", "Meaning", label="Codes")
        for code, (status, message) in sorted(self._codes.items(), key=lambda row: (row[1][0], row[0])):
            yield f'<tr id="code-{escape(code)}"><th scope="row"><code>{escape(code)}</code></th>'
            yield f"<td>{status}</td><td>{_text(message)}</td></tr>\n"
        yield "</tbody>\n</table></div>\n</section>\n"

    def _types(self) -> Iterator[str]:
        yield '<section aria-labelledby="types">\n<h2 id="types">Types</h2>\n'
        for name, schema in self._schemas.items():
            yield f'<article id="type-{escape(name)}" aria-labelledby="type-{escape(name)}-title">\n'
            yield f'<h3 id="type-{escape(name)}-title">{escape(name)}</h3>\n'
            members = schema.get("properties")
            if not members:
                yield f"<p>{self._words(schema)}</p>\n</article>\n"
                continue
            required = schema.get("required", ())
            yield _table("Member", "Value", label="Members")
            for member, one in members.items():
                must = _MUST if member in required else ""
                yield f'<tr><th scope="row"><code>{escape(member)}</code>{must}</th>'
                yield f"<td>{_text(one.get('description', ''))} "
                yield f'<span class="quiet">{self._words(one)}</span></td></tr>\n'
            yield "</tbody>\n</table></div>\n</article>\n"
        yield "</section>\n"

    def _resolved(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in part:
            return part
        kind, name = part["$ref"].split("/")[-2:]
        return self._made["components"][kind][name]

    def _words(self, schema: Mapping[str, Any]) -> str:
        """Return the type of a schema as HTML, with links to named types."""
        return "".join(
            f'<a href="#type-{escape(name)}">{escape(name)}</a>' if name else _text(words)
            for words, name in self._names.cut(words_of(schema))
        )


def _typed(kind: str) -> str:
    """Return a media type to send for a media type or range."""
    return "application/octet-stream" if kind == "*/*" else kind


_MUST = ' <span class="must">required</span>'


def _table(*headings: str, label: str) -> str:
    """Return the beginning of a table, up to its first row; a table that is too wide scrolls sideways."""
    cells = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    return (
        f'<div class="wide" role="group" aria-label="{label}" tabindex="0"><table>\n'
        f"<caption>{label}</caption>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n"
    )


def _method(method: str) -> str:
    return f'<b class="method {method.lower()}">{escape(method)}</b>'


def _where(path: str) -> str:
    """Return a mark for paths that exist in every collection."""
    return " <small>in a collection</small>" if "{collection}/" in path else ""


def _field(name: str, label: str, kind: str, marks: str = "") -> str:
    return f'<label for="{name}">{label}</label><input id="{name}" type="{kind}" autocomplete="off"{marks}>\n'
