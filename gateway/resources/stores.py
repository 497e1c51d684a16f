"""The operation that stores a document, or changes its parts, chosen once for all requests with the same
headers."""

from __future__ import annotations

from typing import Any

from couchbase.subdocument import StoreSemantics
from gateway.dialect.conditions import CREATE, read_condition
from gateway.dialect.errors import Refusal
from gateway.operations.documents import waits_of
from gateway.operations.subdocuments import MUTATE_IN
from gateway.resources.base import Asked
from gateway.resources.headers import MutationHeaders
from txcouchbase.direct import PreparedStore

__all__ = ["StoreForm", "form_of"]

_CHANGES = {"preserve_expiry": False, "store_semantics": StoreSemantics.REPLACE, "access_deleted": False}
"""The usual options of a change of paths."""


class StoreForm:
    """An operation that stores a document, appends or prepends to it, or changes paths of it, without key and
    value.

    :ivar method: method of the driver: ``set``, ``add``, ``replace``, ``append``, ``prepend`` or
        ``mutate_in``.
    :ivar options: the method's other arguments.
    :ivar prepared: the same for ``store`` of a connection's operations; ``None`` for ``mutate_in``.
    :ivar cas: the CAS of all these requests; 0 for none.
    :ivar takes_cas: whether they lack the CAS, which differs from request to request.
    :ivar excludes: whether the document must not exist because of a condition (412, not 409).
    :ivar is_special: whether the operation differs from the unconditional one, or the request has a CAS or
        durability, which explain failures.
    :ivar asked: what explains failures.
    """

    __slots__ = ("asked", "cas", "excludes", "is_special", "method", "options", "prepared", "takes_cas")

    def __init__(
        self, method: str, options: dict[str, Any], *, is_conditional: bool, excludes: bool, takes_cas: bool
    ) -> None:
        self.method = method
        self.options = options
        self.excludes = excludes
        self.takes_cas = takes_cas
        self.cas: int = options.get("cas", 0)
        self.asked = Asked(excludes or takes_cas or bool(self.cas), "durability_level" in options)
        self.is_special = is_conditional or self.asked.durable
        self.prepared: PreparedStore | None = None
        if method != MUTATE_IN.name:
            others = {name: value for name, value in options.items() if name != "cas"}
            self.prepared = PreparedStore(method, **others)


def form_of(name: str, headers: MutationHeaders, now: float) -> StoreForm | None:
    """Return the form of a store; ``None`` if the headers are invalid, or need more than one operation.

    :param name: name of the operation: ``set``, ``add``, ``append``, ``prepend`` or ``mutate_in``.
    :param now: Unix time in seconds.
    """
    form = headers.forms.get(name)
    if form is None and headers.encoding is None:
        form = _form_of(name, headers, now)
        if form is not None and headers.lasts:
            headers.forms[name] = form
    return form


def _form_of(name: str, headers: MutationHeaders, now: float) -> StoreForm | None:
    method, excludes = name, False
    cas: int | None = 0
    try:
        if headers.if_match is not None or headers.if_none_match is not None:
            method, cas = _on_condition(name, headers)
            if cas is None:
                return None
            excludes = method == "add" != name
        expiry = headers.expiry(now)
        waits = headers.durability()
    except Refusal:
        # The general case reports the first error.
        return None
    if waits.wants_copies:
        return None
    options: dict[str, Any] = {}
    if name in ("set", "add"):
        options |= {"ttl": expiry or 0, "format": headers.flags}
        if method != "add":
            options["preserve_expiry"] = expiry is None
    takes_cas = headers.cas is not None and method != "add"
    if name == MUTATE_IN.name:
        options |= _CHANGES | {"ttl": expiry or 0}
    if method != "add" and not takes_cas:
        options["cas"] = cas
    if waits.level:
        options |= waits_of(waits)
    is_conditional = method != name or bool(cas)
    return StoreForm(method, options, is_conditional=is_conditional, excludes=excludes, takes_cas=takes_cas)


def _on_condition(name: str, headers: MutationHeaders) -> tuple[str, int | None]:
    """Return the method of a store with a condition, and the CAS that it needs: ``None`` if the version has
    to be read and compared first.

    :raises Refusal: 400.
    """
    cas = headers.cas
    if cas is None:
        condition = read_condition(headers.if_match, headers.if_none_match)
        if name == "add":
            # A new document always fulfils a condition that excludes versions.
            return name, 0
        if name == "set" and condition == CREATE:
            return "add", 0
        cas = condition.cas()
    return "replace" if name == "set" else name, cas
