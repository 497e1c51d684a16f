"""Routes: declared once with Klein, found fast.

A handler carries an :class:`Endpoint`; :func:`mount` declares it on a Klein app. The
:class:`Dispatcher` reads Klein's route map and finds routes made of whole segments itself, in the undecoded
path, so that a ``%2F`` in a key is not mistaken for a slash. All other routes (converters, branches, plain
Klein handlers of plugins) are left to Klein.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from gateway.http.encoding import decode_percent
from gateway.http.endpoints import Endpoint, endpoint
from gateway.http.known import Known
from gateway.http.refusal import FixedRefusal, Refusal
from gateway.http.request import Handler, Request
from gateway.http.response import Response

if TYPE_CHECKING:
    from klein import Klein

__all__ = ["Dispatcher", "Endpoint", "Handler", "endpoint", "endpoints_of", "mount"]


def endpoints_of(resource: object) -> Iterator[tuple[Endpoint, Handler]]:
    """Yield the endpoints declared by the methods of ``resource``, in the order of their names."""
    for name in dir(type(resource)):
        declared = getattr(getattr(type(resource), name), "endpoint", None)
        if isinstance(declared, Endpoint):
            yield declared, getattr(resource, name)


def mount(app: Klein, resource: object, run: Callable[..., Any]) -> None:
    """Declare the endpoints of ``resource`` on ``app``.

    :param run: serves a request when Klein itself dispatches:
        ``run(twisted_request, endpoint, handler, parameters)`` returns an object that Klein can render.
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


# Clients can send others.
_KNOWN_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE"})


class _Node:
    __slots__ = ("child", "literals", "methods", "parent", "refusals", "rest")

    def __init__(self, parent: _Node | None = None) -> None:
        self.parent = parent
        self.literals: dict[bytes, _Node] = {}
        self.child: _Node | None = None
        self.rest: _Node | None = None
        """The node for every path below this one that has no other route (``<path:name>``)."""
        self.methods: dict[str, tuple[Endpoint, Handler, tuple[str, ...]]] = {}
        """Endpoints by method, with the names of the parameters: two routes may name the same segment
        differently."""
        self.refusals: dict[str, Refusal] = {}
        """The refusal of methods that the node does not have."""

    @property
    def is_only_child(self) -> bool:
        """Whether the node's parent has no other child, so that every segment leads to this node."""
        parent = self.parent
        return parent is not None and parent.child is self and not parent.literals

    def not_allowed(self, method: str) -> Refusal:
        """Return the refusal (405) of a method."""
        refusal = self.refusals.get(method)
        if refusal is None:
            methods = ", ".join(allowed(self))
            kind = FixedRefusal if method in _KNOWN_METHODS else Refusal
            refusal = kind(
                "MethodNotAllowed",
                f"{method[:20]} is not one of the methods of this resource: {methods}.",
                resource="",
                headers=((b"Allow", methods.encode("ascii")),),
            )
            if kind is FixedRefusal:
                self.refusals[method] = refusal
        return refusal


MissingRoute = Callable[[bytes], Refusal]
"""Takes a path, and returns its refusal."""

_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+|<([a-z_]+)>")
_REST = re.compile(r"<path:[a-z_]+>")
# Segments that need no decoding and are always valid.
_PLAIN_SEGMENT = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:@-]+")

_Found = tuple[Endpoint, Handler, str, dict[str, bytes], str]
"""The result for a path: its parameters, and the name of the parameter that varies."""

_KNOWN_PREFIXES = 1024
_LONGEST_KNOWN_PREFIX = 256


class Dispatcher:
    """Finds the handler of a request.

    :param app: all routes must have been declared.
    :param missing_route: makes the 404 answer for a path without a route; ``None`` leaves such paths, and
        methods without a route, to Klein.
    """

    def __init__(self, app: Klein, missing_route: MissingRoute | None = None) -> None:
        self._root = _Node()
        self._missing_route = missing_route
        self.has_others = False
        """Whether there are routes that only Klein can find."""
        # Cache: (method, path up to its last slash) -> the result, if only the last segment varies.
        self._known: Known[tuple[str, bytes], _Found] = Known(_KNOWN_PREFIXES)
        # The same for a literal after the segment that varies: (method, path up to the slash before that
        # segment, the last segment).
        self._suffixed: Known[tuple[str, bytes, bytes], _Found] = Known(_KNOWN_PREFIXES)
        for rule in app.url_map.iter_rules():
            served = getattr(app.endpoints[rule.endpoint], "served", None)
            segments = rule.rule[1:].split("/")
            whole = segments[:-1] if _REST.fullmatch(segments[-1]) else segments
            is_plain = rule.rule == "/" or all(_SEGMENT.fullmatch(segment) for segment in whole)
            if served is None or not is_plain:
                self.has_others = True
                continue
            self._add(rule.rule, segments, *served)

    def _add(self, rule: str, segments: list[str], declared: Endpoint, handler: Handler) -> None:
        node = self._root
        for segment in segments:
            if segment.startswith("<path:"):
                if node.rest is None:
                    node.rest = _Node()
                node = node.rest
            elif segment.startswith("<"):
                if node.child is None:
                    node.child = _Node(node)
                node = node.child
            else:
                node = node.literals.setdefault(segment.encode("ascii"), _Node(node))
        node.methods[declared.method] = (declared, handler, _names(rule))

    def find(self, path: bytes) -> tuple[_Node, list[bytes]] | None:
        """Return the node of a path, and the values of its parameters; ``None`` if there is no such route."""
        node = self._root
        values: list[bytes] = []
        behind: tuple[_Node, list[bytes]] | None = None
        at = 1
        for segment in path[1:].split(b"/"):
            if node.rest is not None:
                behind = node.rest, [*values, path[at:]]
            at += len(segment) + 1
            below = node.literals.get(segment)
            if below is None and b"%" in segment:
                below = node.literals.get(unquote_to_bytes(segment))
            if below is None:
                below = node.child
                if below is None or not segment:
                    return behind
                values.append(segment)
            node = below
        return (node, values) if node.methods else behind

    def dispatch(self, request: Request) -> Handler | None:
        """Return the handler of a request, and fill in ``endpoint``, ``operation`` and ``parameters``.

        :returns: the handler, which may be a refusal: 404, or 405 with ``Allow``; ``None`` if only Klein
            knows.
        :raises Refusal: 400 if the encoding of a segment is invalid.
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
        before = path.rfind(b"/", 0, max(cut - 1, 0)) + 1
        known = self._suffixed.get((method, path[:before], path[cut:]))
        if known is not None:
            middle = path[before : cut - 1]
            if _PLAIN_SEGMENT.fullmatch(middle):
                request.endpoint, handler, request.operation, given, name = known
                request.parameters = parameters = given.copy()
                parameters[name] = middle
                return handler
        missing_route = self._missing_route
        if method == "OPTIONS" and missing_route is not None:
            return self._options
        found = self.find(path)
        if found is None:
            if self.has_others or missing_route is None:
                return None
            return missing_route(path)
        node, values = found
        served = node.methods.get("GET" if method == "HEAD" else method)
        if served is None:
            return None if missing_route is None else node.not_allowed(method)
        declared, handler, names = served
        request.endpoint = declared
        request.operation = declared.operation
        if values:
            request.parameters = parameters = {
                name: decode_percent(value, name) for name, value in zip(names, values, strict=True)
            }
            if node.is_only_child and cut <= _LONGEST_KNOWN_PREFIX:
                found_out = declared, handler, declared.operation, dict(parameters), names[-1]
                self._known.learn((method, path[:cut]), found_out)
            elif node.parent is not None and node.parent.is_only_child and cut <= _LONGEST_KNOWN_PREFIX:
                found_out = declared, handler, declared.operation, dict(parameters), names[-1]
                self._suffixed.learn((method, path[:before], path[cut:]), found_out)
        return handler

    def _options(self, request: Request) -> Response:
        if request.path == b"*":
            return Response(204)
        methods = self.allow(request.path)
        if methods is None and request.path == b"/":
            # HAProxy's default health check.
            return Response(204, [(b"Allow", b"OPTIONS")])
        if methods is None:
            raise Refusal("RouteNotFound", resource="")
        return Response(204, [(b"Allow", ", ".join(methods).encode("ascii"))])

    def allow(self, path: bytes) -> list[str] | None:
        """Return the methods of a path; ``None`` if there is no such route."""
        found = self.find(path)
        return None if found is None else allowed(found[0])


def _names(rule: str) -> tuple[str, ...]:
    return tuple(re.findall(r"<(?:path:)?([a-z_]+)>", rule))


def allowed(node: _Node) -> list[str]:
    """Return the methods that a node accepts, sorted, including those that every resource has."""
    methods = set(node.methods) | {"OPTIONS"}
    if "GET" in methods:
        methods.add("HEAD")
    return sorted(methods)
