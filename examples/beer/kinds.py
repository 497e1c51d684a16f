"""The two kinds of documents, what their fields take, and forms read against them. Nothing here does I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

UNSHOWABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""Characters that no keyboard makes and no page may hold."""

Parse = Callable[[str], Any]


class Wrong(ValueError):
    """The input is not valid for the field; the text says what is."""


@dataclass(frozen=True)
class Field:
    """One field of a form, and the member of the document that it edits.

    :ivar name: both of the ``<input>`` and of the member.
    :ivar control: ``text``, ``textarea``, ``brewery`` (a choice), or another type of ``<input>``.
    :ivar parse: from text to what is stored; raises :class:`Wrong`. An empty field is not stored.
    :ivar limits: further attributes of the ``<input>``.
    """

    name: str
    label: str
    hint: str = ""
    control: str = "text"
    required: bool = False
    longest: int = 100
    parse: Parse = str
    limits: Mapping[str, str] = field(default_factory=dict)

    def read(self, text: str) -> Any:
        """Return what to store for a text, ``None`` for an empty one.

        :raises Wrong: the field does not take it.
        """
        text = text.replace("\r\n", "\n").strip()
        if self.control != "textarea":
            text = " ".join(text.split())
        if not text:
            if self.required:
                raise Wrong("Choose a brewery." if self.control == "brewery" else f"Enter the {self.noun}.")
            return None
        if UNSHOWABLE.search(text):
            raise Wrong(f"The {self.noun} has characters that cannot be shown; type it again.")
        if len(text) > self.longest:
            raise Wrong(f"The {self.noun} is {len(text)} characters long; at most {self.longest} fit.")
        return self.parse(text)

    @property
    def noun(self) -> str:
        """The label, for use within a sentence."""
        return self.label if self.label.isupper() else self.label[0].lower() + self.label[1:]


def _number(low: float, high: float, unit: str) -> Parse:
    def parse(text: str) -> float:
        try:
            value = float(text.replace(",", "."))
        except ValueError:
            value = math.nan
        if "_" in text or not low <= value <= high:
            raise Wrong(f"Enter a number from {low:g} to {high:g}{unit}, such as 4.5.")
        return value

    return parse


def _whole(text: str) -> int:
    if not re.fullmatch("[0-9]{1,13}", text):
        raise Wrong("Enter digits only: the number under the bar code, at most 13 of them.")
    return int(text)


def _web_address(text: str) -> str:
    # Checked with care because it becomes a link: javascript: must not.
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in text
    except ValueError:
        good = False
    if not good:
        raise Wrong("Enter a whole web address, such as https://brewery.example/.")
    return text


def is_web_address(value: Any) -> bool:
    """Return whether a stored value may become a link: other programs store documents, too."""
    try:
        return isinstance(value, str) and bool(_web_address(value))
    except Wrong:
        return False


def _phone(text: str) -> str:
    if not re.fullmatch(r"[0-9+()./ -]*[0-9][0-9+()./ -]*", text):
        raise Wrong("Enter a telephone number: digits, spaces and + ( ) . / - only.")
    return text


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


@dataclass(frozen=True)
class Kind:
    """One kind of documents.

    :ivar name: the document's ``type``, and what addresses begin with.
    """

    name: str
    plural: str
    title: str
    fields: tuple[Field, ...]


_DECIMAL = {"inputmode": "decimal"}
_DIGITS = {"inputmode": "numeric"}
_NAME = Field("name", "Name", required=True)
_DESCRIPTION = Field("description", "Description", control="textarea", longest=4000)

BEER = Kind(
    "beer",
    "beers",
    "Beers",
    (
        _NAME,
        Field("brewery_id", "Brewery", control="brewery", required=True, longest=250),
        Field("style", "Style", "For example Porter or India Pale Ale."),
        Field("category", "Category", "For example Irish Ale."),
        Field("abv", "Alcohol (% by volume)", "From 0 to 100, such as 4.5.",
              parse=_number(0, 100, " percent"), limits=_DECIMAL),
        Field("ibu", "Bitterness (IBU)", "From 0 to 1000.", parse=_number(0, 1000, ""), limits=_DECIMAL),
        Field("srm", "Colour (SRM)", "From 0, pale, to 100, black.", parse=_number(0, 100, ""),
              limits=_DECIMAL),
        Field("upc", "Bar code (UPC)", "The digits under the bar code.", parse=_whole, limits=_DIGITS),
        _DESCRIPTION,
    ),
)  # fmt: skip
BREWERY = Kind(
    "brewery",
    "breweries",
    "Breweries",
    (
        _NAME,
        Field("address", "Street", "One line for each line of the address.", "textarea", longest=400,
              parse=_lines),
        Field("city", "City"),
        Field("state", "State"),
        Field("code", "Postal code", longest=20),
        Field("country", "Country"),
        Field("phone", "Telephone", "Digits, spaces and + ( ) . / - only.", "tel", longest=40, parse=_phone),
        Field("website", "Web site", "Such as https://brewery.example/.", "url", longest=500,
              parse=_web_address),
        _DESCRIPTION,
    ),
)  # fmt: skip
KINDS = {kind.name: kind for kind in (BEER, BREWERY)}


@dataclass
class Form:
    """The input of a form: as text, as values to store, and its errors.

    :ivar texts: every field's text, as it was typed.
    :ivar values: what to store, for fields without an error.
    :ivar errors: by field, a sentence that says what to do.
    """

    kind: Kind
    texts: dict[str, str]
    values: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def read_form(kind: Kind, given: Mapping[str, str]) -> Form:
    """Read what was sent; a field that is missing counts as empty."""
    form = Form(kind, {one.name: given.get(one.name, "") for one in kind.fields})
    for one in kind.fields:
        try:
            form.values[one.name] = one.read(form.texts[one.name])
        except Wrong as wrong:
            form.errors[one.name] = str(wrong)
    return form


def blank_form(kind: Kind, **texts: str) -> Form:
    """Return a form in which nothing was typed yet, but ``texts``."""
    return Form(kind, {one.name: texts.get(one.name, "") for one in kind.fields})


def form_of(kind: Kind, document: Mapping[str, Any]) -> Form:
    """Return a form that shows a stored document."""
    return Form(kind, {one.name: as_text(document.get(one.name)) for one in kind.fields})


def as_text(value: Any) -> str:
    """Return a stored value as a field shows it; it may be any value, since other programs store documents,
    too."""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list):
        return "\n".join(as_text(one) for one in value)
    return value if isinstance(value, str) else str(value)


def differences(kind: Kind, stored: Mapping[str, Any], form: Form) -> list[Field]:
    """Return the fields in which a form would change a document."""
    changed = []
    for one in kind.fields:
        value = form.values.get(one.name)
        if as_text(value) != as_text(stored.get(one.name)):
            changed.append(one)
    return changed


def merged(kind: Kind, stored: Mapping[str, Any], form: Form, updated: str) -> dict[str, Any]:
    """Return a document with a form's values, and everything that the form does not know left as it is."""
    document = {**stored, "type": kind.name, "updated": updated}
    for one in kind.fields:
        value = form.values[one.name]
        if value is not None:
            document[one.name] = value
        else:
            document.pop(one.name, None)
    return document


def slug(name: str) -> str:
    """Return a name as part of a key: letters and digits of any script, joined by underscores."""
    words = "".join(char if char.isalnum() else " " for char in name.casefold()).split()
    return "_".join(words).encode()[:100].decode(errors="ignore") or "nameless"
