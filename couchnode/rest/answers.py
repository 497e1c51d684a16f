"""Bodies of requests and responses: responses are JSON documents, requests are forms."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from twisted.web.iweb import IRequest
from twisted.web.server import Request

from couchnode.cluster.config import encode
from couchnode.cluster.definition import DefinitionError

MAX_FIELDS = 100
"""Most fields in one form."""


def json_answer(request: IRequest, document: Any, status: int = 200) -> bytes:
    """Set status and headers of a response with ``document``, and return its body."""
    return plain_answer(request, encode(document), status=status)


def plain_answer(
    request: IRequest, body: bytes, content_type: bytes = b"application/json", status: int = 200
) -> bytes:
    """Set status and headers of a response with ``body``, and return it."""
    request.setResponseCode(status)
    request.setHeader(b"content-type", content_type)
    request.setHeader(b"content-length", b"%d" % len(body))
    request.setHeader(b"cache-control", b"no-cache,no-store,must-revalidate")
    return body


def read_form(request: Request) -> dict[str, str]:
    """Read the form in the body; clients may begin it with ``&``.

    :raises DefinitionError: it is not a form, or a repeated field has different values.
    """
    try:
        assert request.content is not None  # the body was read before
        text = request.content.read().decode("utf-8")
        pairs = [part for part in text.split("&") if part]
        if any("=" not in part for part in pairs):
            raise ValueError("every field is name=value")
        fields = parse_qsl(
            "&".join(pairs), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
        )
    except ValueError as fault:
        raise DefinitionError(
            {"_": f"the body must be a form (application/x-www-form-urlencoded, UTF-8): {fault}"}
        ) from None
    form: dict[str, str] = {}
    for name, value in fields:
        # The Go client sends maxTTL twice when it edits a bucket.
        if form.setdefault(name, value) != value:
            raise DefinitionError({name: "is given more than once, with different values"})
    return form
