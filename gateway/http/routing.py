"""Routes: declared once with Klein, found quickly.

A handler carries an :class:`Endpoint`; :func:`mount` declares it on a Klein app. The
:class:`Dispatcher` reads Klein's route map and finds routes made of whole segments by itself, on
the path as it was sent, so that a ``%2F`` in a key is not mistaken for a slash. Any other route
(converters, branches, plain Klein handlers of plugins) is left to Klein.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_to_bytes

from gateway.dialect.errors import Refusal
from gateway.http.request import Request, decode_percent
from gateway.http.response import Response

if TYPE_CHECKING:
    from klein import Klein

__all__ = ["BUCKET", "DOCUMENT", "Dispatcher", "Endpoint", "Handler", "endpoint", "endpoints_of", "mount"]

Handler = Callable[[Request], Any]
"""Takes a request and returns a ``Response``, a Deferred of one, or an operation that has the request for its
receiver (see ``Request.render``); raises what went wrong."""

_VERSIONS = ("/v1", "/v1.alpha")

BUCKET = tuple(f"{version}/buckets/<bucket>" for version in _VERSIONS)
DOCUMENT = tuple(
    f"{version}/buckets/<bucket>{collection}/documents/<key>"
    for version in _VERSIONS
    for collection in ("", "/scopes/<scope>/collections/<collection>")
)


@dataclass(frozen=True)
class Endpoint:
    """One method of one resource."""

    name: str
    method: str
    paths: tuple[str, ...]
    """Klein rules: the same resource under several prefixes."""
    operation: str = ""
    """The SDK's name of what it does, for error mapping and metrics; may be refined by a handler."""
    streamed: bool = False
    """The body is handed over as it arrives."""
    takes: frozenset[bytes] = frozenset()
    """Those of the application's ``selective_headers`` (lower case) that it honours."""
    early: bool = False
    """The handler checks all that it can before it asks for the body, and changes nothing before: so it may
    be called before the body is read, and again afterwards. True of the methods of a resource that has a true
    attribute ``checks_first``."""


_F = TypeVar("_F", bound=Callable[..., Any])


def endpoint(
    name: str,
    method: str,
    *paths: str,
    on: tuple[str, ...] = ("",),
    operation: str = "",
    streamed: bool = False,
    takes: Iterable[str] = (),
) -> Callable[[_F], _F]:
    """Declare the method it decorates as the handler of ``method`` on each of ``paths`` below ``on``.

    :param takes: names of the headers that it honours, of those that an application refuses elsewhere; see
        :attr:`gateway.http.application.Application.selective_headers`.
    """
    rules = tuple(prefix + path for prefix in on for path in (paths or ("",)))
    honoured = frozenset(header.lower().encode("ascii") for header in takes)
    declared = Endpoint(name, method, rules, operation, streamed, honoured)

    def declare(function: _F) -> _F:
        function.endpoint = declared  # type: ignore[attr-defined]
        return function

    return declare


def endpoints_of(resource: object) -> Iterator[tuple[Endpoint, Handler]]:
    """Yield the endpoints declared by the methods of ``resource``, in the order of their names."""
    for name in dir(type(resource)):
        declared = getattr(getattr(type(resource), name), "endpoint", None)
        if isinstance(declared, Endpoint):
            yield declared, getattr(resource, name)


def mount(app: Klein, resource: object, run: Callable[..., Any]) -> None:
    """Declare the endpoints of ``resource`` on ``app``.

    :param run: serves a request when Klein itself dispatches:
        ``run(twisted_request, endpoint, handler, parameters)`` returns something Klein can render.
    """
    checks_first = getattr(resource, "checks_first", False)
    for endpoint_of, handler in endpoints_of(resource):
        declared = replace(endpoint_of, early=checks_first)
        for number, rule in enumerate(declared.paths):
            view = _view(declared, handler, run)
            app.route(rule, methods=[declared.method], endpoint=f"{declared.name}_{number}")(view)


def _view(declared: Endpoint, handler: Handler, run: Callable[..., Any]) -> Callable[..., Any]:
    def view(request: Any, **parameters: str) -> Any:
        return run(request, declared, handler, parameters)

    view.served = (declared, handler)  # type: ignore[attr-defined]
    return view


class _Node:
    __slots__ = ("child", "literals", "methods", "parent")

    def __init__(self, parent: _Node | None = None) -> None:
        self.parent = parent
        self.literals: dict[bytes, _Node] = {}
        self.child: _Node | None = None
        self.methods: dict[str, tuple[Endpoint, Handler, tuple[str, ...]]] = {}
        """By method, with the names of the parameters: two routes may give the same segment two names."""

    @property
    def is_only_child(self) -> bool:
        """Whether any segment at all leads here from the node above."""
        parent = self.parent
        return parent is not None and parent.child is self and not parent.literals


_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+|<([a-z_]+)>")
# What a segment may have that stands for itself: neither an escape nor anything to refuse.
_PLAIN_SEGMENT = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:@-]+")

_KNOWN_PREFIXES = 1024
_LONGEST_KNOWN_PREFIX = 256


class Dispatcher:
    """Finds the handler of a request.

    :param app: all routes must have been declared.
    :param explain: whether to refuse what no route fits; else Klein is asked.
    """

    def __init__(self, app: Klein, *, explain: bool = True) -> None:
        self._root = _Node()
        self._explain = explain
        self.has_others = False
        """Whether there are routes that only Klein can find."""
        # (method, path up to its last slash) -> what was found there, if all that differs is the last
        # segment: documents of one collection differ in nothing else.
        self._known: dict[tuple[str, bytes], tuple[Endpoint, Handler, str, dict[str, bytes], str]] = {}
        for rule in app.url_map.iter_rules():
            served = getattr(app.endpoints[rule.endpoint], "served", None)
            segments = rule.rule[1:].split("/")
            if served is None or not all(_SEGMENT.fullmatch(segment) for segment in segments):
                self.has_others = True
                continue
            self._add(rule.rule, segments, *served)

    def _add(self, rule: str, segments: list[str], declared: Endpoint, handler: Handler) -> None:
        node = self._root
        for segment in segments:
            if segment[0] == "<":
                if node.child is None:
                    node.child = _Node(node)
                node = node.child
            else:
                node = node.literals.setdefault(segment.encode("ascii"), _Node())
        node.methods[declared.method] = (declared, handler, _names(rule))

    def find(self, path: bytes) -> tuple[_Node, list[bytes]] | None:
        """Return the node of a path, and what stands for its parameters; ``None``: no such route."""
        node = self._root
        values = []
        for segment in path[1:].split(b"/"):
            below = node.literals.get(segment)
            if below is None and b"%" in segment:
                below = node.literals.get(unquote_to_bytes(segment))
            if below is None:
                below = node.child
                if below is None or not segment:
                    return None
                values.append(segment)
            node = below
        return (node, values) if node.methods else None

    def dispatch(self, request: Request) -> Handler | None:
        """Return the handler of a request, and fill in ``endpoint``, ``operation`` and ``parameters``.

        :returns: ``None`` if Klein has to be asked.
        :raises Refusal: 404, 405 with ``Allow``, 400 if a segment is badly encoded.
        """
        path = request.path
        cut = path.rfind(b"/") + 1
        known = self._known.get((request.method, path[:cut]))
        if known is not None:
            last = path[cut:]
            if _PLAIN_SEGMENT.fullmatch(last):
                request.endpoint, handler, request.operation, given, name = known
                request.parameters = parameters = given.copy()
                parameters[name] = last
                return handler
        return self._dispatch(request, path, cut)

    def _dispatch(self, request: Request, path: bytes, cut: int) -> Handler | None:
        method = request.method
        if method == "OPTIONS" and self._explain:
            return self._options
        found = self.find(path)
        if found is None:
            if self.has_others or not self._explain:
                return None
            raise no_route(path)
        node, values = found
        served = node.methods.get("GET" if method == "HEAD" else method)
        if served is None:
            if not self._explain:
                return None
            raise Refusal(
                "MethodNotAllowed",
                f"{method[:20]} is not one of the methods of this resource: {', '.join(allowed(node))}.",
                resource="",
                headers=((b"Allow", ", ".join(allowed(node)).encode("ascii")),),
            )
        declared, handler, names = served
        request.endpoint = declared
        request.operation = declared.operation
        if values:
            request.parameters = parameters = {
                name: decode_percent(value, name) for name, value in zip(names, values, strict=True)
            }
            if node.is_only_child and cut <= _LONGEST_KNOWN_PREFIX:
                if len(self._known) >= _KNOWN_PREFIXES:
                    self._known.clear()
                self._known[method, path[:cut]] = (
                    declared, handler, declared.operation, dict(parameters), names[-1]
                )  # fmt: skip
        return handler

    def _options(self, request: Request) -> Response:
        if request.path == b"*":
            return Response(204)
        methods = self.allow(request.path)
        if methods is None and request.path == b"/":
            # What HAProxy asks for when it is not told how to check a server.
            return Response(204, [(b"Allow", b"OPTIONS")])
        if methods is None:
            raise Refusal("RouteNotFound", resource="")
        return Response(204, [(b"Allow", ", ".join(methods).encode("ascii"))])

    def allow(self, path: bytes) -> list[str] | None:
        """Return the methods of a path; ``None`` if there is no such route."""
        found = self.find(path)
        return None if found is None else allowed(found[0])


def _names(rule: str) -> tuple[str, ...]:
    return tuple(re.findall(r"<([a-z_]+)>", rule))


def allowed(node: _Node) -> list[str]:
    """Return the methods a node takes, sorted, with those that every resource has."""
    methods = set(node.methods) | {"OPTIONS"}
    if "GET" in methods:
        methods.add("HEAD")
    return sorted(methods)


def no_route(path: bytes) -> Refusal:
    """Return the 404 for a path that no route has."""
    if path.endswith(b"/documents/") or b"/documents//" in path:
        return Refusal("RouteNotFound", "The document's key is empty; keys have 1 to 250 bytes.", resource="")
    return Refusal("RouteNotFound", resource="")
