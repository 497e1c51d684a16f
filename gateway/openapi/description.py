"""The vocabulary in which an endpoint describes itself.

The description stands above the handler, under its ``@endpoint``::

    @endpoint("get_size", "GET", "/size", on=DOCUMENT, operation="get")
    @described("Documents", {200: Answer("The size in bytes.", {JSON: whole(0)})}, errors="DocumentNotFound")
    def get_size(self, request: Request) -> Any:
        '''Return the document's size.'''

Everything else comes from other sources: the path and its parameters, the headers in ``takes``, the error
codes that any request can get (:mod:`gateway.openapi.errors`), the first sentence of the docstring as the
summary.
:func:`gateway.openapi.document.document` puts them together; no request pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from gateway.openapi.schemas import ANY, BINARY, TEXT, Schema

__all__ = [
    "ANY_DOCUMENT",
    "DOCUMENT",
    "JSON",
    "LINES",
    "NO_CONTENT",
    "PLAIN",
    "Answer",
    "Body",
    "Description",
    "Example",
    "Parameter",
    "described",
    "description_of",
]

JSON = "application/json"
PLAIN = "text/plain"
BYTES = "application/octet-stream"
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"

DOCUMENT: Mapping[str, Schema] = {JSON: ANY, PLAIN: TEXT, BYTES: BINARY}
"""The content of a document in an answer: bytes of any type; three types are known."""

ANY_DOCUMENT: Mapping[str, Schema] = {JSON: ANY, PLAIN: TEXT, "*/*": BINARY}
"""The content of a document in a request: other types are stored, too."""

NO_CONTENT: Mapping[str, Schema] = {}


class Parameter(NamedTuple):
    """A parameter in the query string, or a header, or a part of the path."""

    name: str
    text: str
    """Its meaning, in one sentence."""
    schema: Schema = TEXT
    example: object = None
    """A real value to show; ``None`` if there is none."""
    required: bool = False


class Body(NamedTuple):
    """The body of a request."""

    content: Mapping[str, Schema]
    """Media type -> schema."""
    text: str = ""
    required: bool = True


class Answer(NamedTuple):
    """The answer with one status."""

    text: str
    """Its content, in one sentence."""
    content: Mapping[str, Schema] = NO_CONTENT
    """Media type -> schema; empty if there is no body."""
    headers: tuple[str | Parameter, ...] = ()
    """Names of the dialect's headers that it has; see :mod:`gateway.openapi.headers`."""


class Given(NamedTuple):
    """A request that prepares an example."""

    method: str
    path: str
    body: str = ""


class Example(NamedTuple):
    """A real request and its real answer: a test sends the request and compares the answer."""

    summary: str
    status: int = 200
    answer: object = None
    """The body of the answer: JSON, or text; ``None`` if it has none, or it is too long to show."""
    body: object = None
    """The body of the request: JSON, or text for other types; ``None`` if it has none."""
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    path: Mapping[str, str] = {}
    """Values of path parameters that differ from the usual ones."""
    given: tuple[Given, ...] = ()
    """Requests to send first."""


@dataclass(frozen=True)
class Description:
    """An endpoint's description, in addition to its ``@endpoint``."""

    tag: str
    """The heading under which the endpoint is listed."""
    answers: Mapping[int, Answer]
    query: tuple[Parameter, ...] = ()
    path: tuple[Parameter, ...] = ()
    headers: tuple[str | Parameter, ...] = ()
    body: Body | None = None
    errors: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    credentials: bool = True
    text: str = ""


_F = TypeVar("_F", bound=Callable[..., Any])


# Many parameters: the parts of a description; keywords.
def described(
    tag: str,
    answers: Mapping[int, Answer],
    *,
    query: tuple[Parameter, ...] = (),
    path: tuple[Parameter, ...] = (),
    headers: tuple[str | Parameter, ...] = (),
    body: Body | None = None,
    errors: str = "",
    examples: tuple[Example, ...] = (),
    credentials: bool = True,
    text: str = "",
) -> Callable[[_F], _F]:
    """Describe the decorated endpoint.

    :param tag: heading under which it is listed, for example ``Documents``.
    :param answers: status -> answer, for all statuses below 400.
    :param query: all query parameters that it takes.
    :param path: parameters of the path that :data:`gateway.openapi.paths.PARAMETERS` lacks.
    :param headers: request headers that it takes in addition to those in its ``takes``.
    :param body: the request's body; ``None`` if it takes none.
    :param errors: error codes, separated by blanks, in addition to those that :mod:`gateway.openapi.errors`
        adds: those of HTTP and, where the path has a bucket, of the caller, the bucket and the cluster.
    :param examples: the first of them is shown first.
    :param credentials: whether the endpoint requires credentials, if the gateway does.
    :param text: further text after the docstring's first sentence, in Markdown.
    """
    description = Description(
        tag, answers, query, path, headers, body, tuple(errors.split()), examples, credentials, text
    )

    def describe(function: _F) -> _F:
        function.description = description  # type: ignore[attr-defined]
        return function

    return describe


def description_of(handler: Callable[..., Any]) -> Description | None:
    """Return a handler's description; ``None`` if it has none."""
    found = getattr(handler, "description", None)
    return found if isinstance(found, Description) else None
