"""Design documents: their valid content, and the views that they define.

The checks and their texts are those of Couchbase Server (views-and-rest reference, section 5.5).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

from couchnode.cluster.strictjson import RepeatedName, read_json

BUILTIN_REDUCES = ("_count", "_sum", "_stats")
DEV_PREFIX = "dev_"

MAX_DESIGN_BYTES = 1024 * 1024
"""Longest design document."""

MAX_VIEWS = 64
"""Most views in one design document."""

MAX_DESIGNS = 256
"""Most design documents of one bucket."""

MAX_TOTAL_BYTES = 16 * 1024 * 1024
"""Largest total size of a bucket's design documents."""

_BLANKS = " \t\r\n"


class DesignError(ValueError):
    """A design document is invalid.

    :ivar error: ``invalid_design_document`` or ``bad_request``.
    :ivar reason: text for people.
    """

    def __init__(self, reason: str, error: str = "invalid_design_document") -> None:
        super().__init__(reason)
        self.error = error
        self.reason = reason


@dataclass(frozen=True)
class View:
    """One view: its name and the source of its functions.

    :ivar reduce: a built-in's name, JavaScript, or ``None``.
    """

    name: str
    map: str
    reduce: str | None

    @cached_property
    def signature(self) -> str:
        """Identifier of this view's index: views with the same functions share an index."""
        text = json.dumps([self.map, self.reduce], ensure_ascii=True)
        return sha256(text.encode("ascii")).hexdigest()[:32]


@dataclass(frozen=True)
class DesignDocument:
    """One design document of a bucket.

    :ivar text: the JSON as it was stored, without a byte order mark.
    :ivar rev: ``<count>-<hex>``, new for each change.
    :ivar views: name -> view.
    :ivar options: the member ``options``, empty if there is none.
    """

    name: str
    text: bytes
    rev: str
    views: dict[str, View]
    options: dict[str, Any]

    @property
    def is_development(self) -> bool:
        """Whether queries cover only a part of the data by default."""
        return self.name.startswith(DEV_PREFIX)

    @property
    def meta(self) -> dict[str, str]:
        """Value of the ``X-Couchbase-Meta`` header."""
        return {"id": f"_design/{self.name}", "rev": self.rev, "type": "json"}

    def after(self, previous: DesignDocument | None) -> DesignDocument:
        """Return it with the revision that follows the one of the design document that it replaces."""
        return replace(self, rev=_next_revision(previous))

    def dump(self) -> dict[str, str]:
        """Return the argument of :func:`restored`."""
        return {"rev": self.rev, "text": self.text.decode("utf-8")}


class NoSuchDesign(KeyError):
    """There is no design document of that name."""


Designs = Mapping[str, DesignDocument]
"""The design documents of a bucket, by name."""


def with_design(
    designs: Designs, name: str, text: bytes, known: DesignDocument | None = None
) -> dict[str, DesignDocument]:
    """Return the design documents with one added or replaced.

    :param known: what :func:`read_design` made of it, if that was done before.
    :raises DesignError: it is invalid, see :func:`read_design` and :func:`check_together`.
    """
    previous = designs.get(name)
    changed = {
        **designs,
        name: read_design(name, text, previous) if known is None else known.after(previous),
    }
    check_together(changed.values())
    return changed


def without_design(designs: Designs, name: str) -> dict[str, DesignDocument]:
    """Return design documents without one of them.

    :raises NoSuchDesign: there is none of that name.
    """
    if name not in designs:
        raise NoSuchDesign(name)
    return {other: design for other, design in designs.items() if other != name}


def restored(name: str, data: dict[str, str]) -> DesignDocument:
    """Return the design document that :meth:`DesignDocument.dump` described."""
    text = data["text"].encode("utf-8")
    document = json.loads(text)
    return DesignDocument(name, text, data["rev"], _views(document), _options(document))


def read_design(name: str, text: bytes, previous: DesignDocument | None) -> DesignDocument:
    """Check a design document, except whether its functions compile.

    :param previous: the design document that it replaces.
    :raises DesignError: it is invalid, with the server's text.
    """
    if not name or len(name.encode("utf-8", "surrogatepass")) > 200:
        raise DesignError("the name of a design document has 1 to 200 bytes", "bad_request")
    if len(text) > MAX_DESIGN_BYTES:
        raise DesignError(f"a design document has at most {MAX_DESIGN_BYTES} bytes", "bad_request")
    try:
        document = read_json(text)
    except RepeatedName as error:
        raise DesignError(str(error), "bad_request") from None
    except ValueError:
        raise DesignError("invalid UTF-8 JSON", "bad_request") from None
    if not isinstance(document, dict):
        raise DesignError("Document must be a JSON object", "bad_request")
    views = _views(document)
    text = text.removeprefix(b"\xef\xbb\xbf")
    return DesignDocument(name, text, _next_revision(previous), views, _options(document))


def check_together(designs: Iterable[DesignDocument]) -> None:
    """Check that a bucket can hold all of these design documents.

    :raises DesignError: they are too many, or too long together.
    """
    sizes = [len(design.text) for design in designs]
    if len(sizes) > MAX_DESIGNS:
        raise DesignError(f"a bucket has at most {MAX_DESIGNS} design documents", "bad_request")
    if sum(sizes) > MAX_TOTAL_BYTES:
        raise DesignError(
            f"the design documents of a bucket have at most {MAX_TOTAL_BYTES} bytes together", "bad_request"
        )


def functions_of(design: DesignDocument) -> list[tuple[str, str, str]]:
    """Return the JavaScript functions of a design document as (view, ``map`` or ``reduce``, source)."""
    found = []
    for view in design.views.values():
        found.append((view.name, "map", view.map))
        if view.reduce is not None and view.reduce not in BUILTIN_REDUCES:
            found.append((view.name, "reduce", view.reduce))
    return found


def syntax_error(view: str, kind: str, text: str) -> DesignError:
    """Return the error for a function that does not compile."""
    return DesignError(f"Syntax error in the {kind} function of the view `{view}': {text}")


def _next_revision(previous: DesignDocument | None) -> str:
    count = 1 + int(previous.rev.partition("-")[0]) if previous is not None else 1
    return f"{count}-{secrets.token_hex(4)}"


def _options(document: dict[str, Any]) -> dict[str, Any]:
    options = document.get("options")
    return options if isinstance(options, dict) else {}


def _views(document: dict[str, Any]) -> dict[str, View]:
    definitions = document.get("views", {})
    if not isinstance(definitions, dict):
        raise DesignError("The field `views' is not a json object.")
    if len(definitions) > MAX_VIEWS:
        raise DesignError(f"A design document has at most {MAX_VIEWS} views.")
    return {name: _view(name, definition) for name, definition in definitions.items()}


def _view(name: str, definition: Any) -> View:
    if not name:
        raise DesignError("View name cannot be an empty string")
    if name[0] in _BLANKS or name[-1] in _BLANKS:
        raise DesignError(f"View name `{name}` cannot have leading or trailing whitespace")
    if not isinstance(definition, dict):
        raise DesignError(f"Value for view `{name}' is not a json object.")
    if "map" not in definition:
        raise DesignError(f"The `map' field for the view `{name}' is missing.")
    for kind in ("map", "reduce"):
        if kind in definition and not isinstance(definition[kind], str):
            raise DesignError(f"The `{kind}' field of the view `{name}' is not a json string.")
    reduce = definition.get("reduce")
    if reduce is not None and reduce.startswith("_") and reduce not in BUILTIN_REDUCES:
        raise DesignError(f"Invalid built-in reduce function for view `{name}': {reduce}")
    return View(name, definition["map"], reduce)
