"""The declaration of a handler."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Endpoint", "endpoint"]


@dataclass(frozen=True)
class Endpoint:
    """One method of one resource."""

    name: str
    method: str
    paths: tuple[str, ...]
    """Klein rules of the paths: the same resource may have several prefixes."""
    operation: str = ""
    """Name of the operation, for errors and metrics; a handler may set a more specific name. ``""``: the
    operation is not counted."""
    streamed: bool = False
    """Whether the body is delivered as it arrives."""
    takes: frozenset[bytes] = frozenset()
    """The headers (lower case) that the endpoint takes among those that must not be ignored; see
    :meth:`gateway.http.application.Application.select`."""
    early: bool = False
    """Whether the handler checks as much as it can, and changes nothing, before it asks for the body. Then it
    may be called before the body is read, and again afterwards. True for the methods of a resource whose
    attribute ``checks_first`` is true."""


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
    """Declare the decorated method as the handler of ``method`` on each of ``paths`` below ``on``.

    :param takes: names of the headers that the endpoint takes, among those that the application refuses
        elsewhere; see :meth:`gateway.http.application.Application.select`.
    """
    rules = tuple(prefix + path for prefix in on for path in (paths or ("",)))
    honoured = frozenset(header.lower().encode("ascii") for header in takes)
    declared = Endpoint(name, method, rules, operation, streamed, honoured)

    def declare(function: _F) -> _F:
        function.endpoint = declared  # type: ignore[attr-defined]
        return function

    return declare
