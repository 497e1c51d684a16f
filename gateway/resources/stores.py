"""How one operation stores a document: found once for all requests that send the same headers."""

from __future__ import annotations

from typing import Any

from gateway.dialect.conditions import CREATE, NO_CONDITION, read_condition
from gateway.dialect.errors import Refusal
from gateway.operations.documents import waits_of
from gateway.resources.headers import MutationHeaders

__all__ = ["StoreForm", "form_of"]


class StoreForm:
    """The operation that stores a document, apart from its key and its value.

    :ivar method: of the driver: ``set``, ``add`` or ``replace``.
    :ivar options: the method's other arguments.
    :ivar excludes: whether the document must not exist because of a condition (412, not 409).
    :ivar is_special: whether it is another operation than without a condition, or what explains failures was
        given: a CAS, or durability.
    """

    __slots__ = ("cas_given", "durable", "excludes", "is_special", "method", "options")

    def __init__(self, method: str, options: dict[str, Any], *, is_conditional: bool, excludes: bool) -> None:
        self.method = method
        self.options = options
        self.excludes = excludes
        self.cas_given = excludes or bool(options.get("cas"))
        self.durable = "durability_level" in options
        self.is_special = is_conditional or self.durable


def form_of(name: str, headers: MutationHeaders, now: float) -> StoreForm | None:
    """Return the form of a store; ``None`` if the headers are wrong, or ask for more than one operation.

    :param name: ``set`` or ``add``.
    :param now: Unix time in seconds.
    """
    form = headers.forms.get(name)
    if form is None and headers.encoding is None:
        form = _form_of(name, headers, now)
        if form is not None and headers.lasts:
            headers.forms = {**headers.forms, name: form}
    return form


def _form_of(name: str, headers: MutationHeaders, now: float) -> StoreForm | None:
    try:
        condition = NO_CONDITION
        if headers.if_match is not None or headers.if_none_match is not None:
            condition = read_condition(headers.if_match, headers.if_none_match)
        expiry = headers.expiry(now)
        waits = headers.durability()
    except Refusal:
        # The general way finds the first fault.
        return None
    if waits.wants_copies:
        return None
    method, excludes = name, False
    cas: int | None = 0
    if name == "set" and condition is not NO_CONDITION:
        # A new document always fulfils a condition on others.
        cas = condition.cas()
        if cas is not None:
            method = "replace"
        elif condition == CREATE:
            method, excludes = "add", True
        else:
            return None
    options: dict[str, Any] = {"ttl": expiry or 0, "format": headers.flags}
    if method != "add":
        options["cas"] = cas
        options["preserve_expiry"] = expiry is None
    if waits.level:
        options.update(waits_of(waits))
    return StoreForm(method, options, is_conditional=method != name, excludes=excludes)
