"""SDK 1.2's methods that store and remove documents."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from couchbase import arguments, exceptions
from couchbase.codec import Codec
from couchbase.exceptions import ArgumentError, error_of
from couchbase.items import ItemCollection, ItemTarget, item_cas, item_options, item_value
from couchbase.protocol import operations
from couchbase.protocol.durability import check_count
from couchbase.protocol.operations import PRESERVE_EXPIRY_FRAMING, store_extras
from couchbase.protocol.request import Operation, Request
from couchbase.signatures import (
    CasKeys,
    Format,
    Key,
    KeyFragments,
    KeyValues,
    OperationsT,
    OperationT,
)
from couchbase.transcoder import check_format
from couchbase.user_constants import FMT_BYTES, FMT_UTF8

T = TypeVar("T")

_APPENDABLE = (FMT_UTF8, FMT_BYTES)
_PLAIN_EXTRAS = store_extras(0, 0)


class StoreCommands(Codec, Generic[OperationT, OperationsT]):
    """set, add, replace, append, prepend, delete, and their multi forms."""

    # Many parameters: SDK 1.2's arguments; keywords.
    def set(
        self,
        key: Key,
        value: object,
        cas: int = 0,
        ttl: int = 0,
        format: Format | None = None,
        persist_to: int = 0,
        replicate_to: int = 0,
        *,
        durability_level: int = 0,
        preserve_expiry: bool = False,
    ) -> OperationT:
        """Store a document, which is created or replaced.

        :param cas: store only if the document has this version.
        :param ttl: expiry in seconds (up to 30 days) or as a Unix time; 0 for never.
        :param format: a ``FMT_*`` constant; the connection's default format by default.
        :param persist_to: number of nodes that must have it on disk before the call succeeds; negative: all.
        :param replicate_to: number of replicas that must have it in memory; negative: all.
        :param durability_level: 0, or 1 to 3 for a synchronous write (majority; majority and on the
            active's disk; on a majority's disks). Beyond SDK 1.2.
        :param preserve_expiry: keep the expiry of an existing document. Beyond SDK 1.2.
        :returns: OperationResult with the new CAS.
        :raises KeyExistsError: the CAS differs, or the document is locked.
        :raises NotFoundError: a CAS is given and the document is missing.
        """
        request = self._store_request(operations.SET, key, value, cas, ttl, format)
        if persist_to or replicate_to or durability_level:
            return self._mutate(request, persist_to, replicate_to, durability_level, preserve_expiry)
        if preserve_expiry:
            request.framing = PRESERVE_EXPIRY_FRAMING
        return self._driver.submit(request)

    def add(
        self,
        key: Key,
        value: object,
        ttl: int = 0,
        format: Format | None = None,
        persist_to: int = 0,
        replicate_to: int = 0,
        *,
        durability_level: int = 0,
    ) -> OperationT:
        """Store a new document; arguments as for :meth:`set`.

        :raises KeyExistsError: the document exists.
        """
        request = self._store_request(operations.ADD, key, value, 0, ttl, format)
        return self._mutate(request, persist_to, replicate_to, durability_level)

    # Many parameters: SDK 1.2's arguments; keywords.
    def replace(
        self,
        key: Key,
        value: object,
        cas: int = 0,
        ttl: int = 0,
        format: Format | None = None,
        persist_to: int = 0,
        replicate_to: int = 0,
        *,
        durability_level: int = 0,
        preserve_expiry: bool = False,
    ) -> OperationT:
        """Replace an existing document; arguments as for :meth:`set`.

        :raises NotFoundError: the document does not exist.
        """
        request = self._store_request(operations.REPLACE, key, value, cas, ttl, format)
        if persist_to or replicate_to or durability_level:
            return self._mutate(request, persist_to, replicate_to, durability_level, preserve_expiry)
        if preserve_expiry:
            request.framing = PRESERVE_EXPIRY_FRAMING
        return self._driver.submit(request)

    # Many parameters: SDK 1.2's arguments; keywords.
    def append(
        self,
        key: Key,
        value: str | bytes,
        cas: int = 0,
        ttl: int = 0,
        format: Format | None = None,
        persist_to: int = 0,
        replicate_to: int = 0,
        *,
        durability_level: int = 0,
    ) -> OperationT:
        """Append text (``FMT_UTF8``, the default) or bytes to a document's value.

        The document's flags do not change: a JSON document must still be JSON afterwards, or reading it
        fails.

        :raises NotStoredError: no such document.
        """
        request = self._concat_request(operations.APPEND, key, value, cas, ttl, format)
        return self._mutate(request, persist_to, replicate_to, durability_level)

    # Many parameters: SDK 1.2's arguments; keywords.
    def prepend(
        self,
        key: Key,
        value: str | bytes,
        cas: int = 0,
        ttl: int = 0,
        format: Format | None = None,
        persist_to: int = 0,
        replicate_to: int = 0,
        *,
        durability_level: int = 0,
    ) -> OperationT:
        """Like :meth:`append`, but before the value."""
        request = self._concat_request(operations.PREPEND, key, value, cas, ttl, format)
        return self._mutate(request, persist_to, replicate_to, durability_level)

    def set_multi(
        self,
        keys: KeyValues,
        ttl: int = 0,
        format: Format | None = None,
        persist_to: int = 0,
        replicate_to: int = 0,
    ) -> OperationsT:
        """Store many documents from a dict of key -> value. Returns MultiResult."""
        return self._store_multi(operations.SET, keys, ttl, format, persist_to, replicate_to)

    def add_multi(
        self,
        keys: KeyValues,
        ttl: int = 0,
        format: Format | None = None,
        persist_to: int = 0,
        replicate_to: int = 0,
    ) -> OperationsT:
        """Store many new documents from a dict of key -> value. Returns MultiResult."""
        return self._store_multi(operations.ADD, keys, ttl, format, persist_to, replicate_to)

    def replace_multi(
        self,
        keys: KeyValues,
        ttl: int = 0,
        format: Format | None = None,
        persist_to: int = 0,
        replicate_to: int = 0,
    ) -> OperationsT:
        """Replace many existing documents from a dict of key -> value. Returns MultiResult."""
        return self._store_multi(operations.REPLACE, keys, ttl, format, persist_to, replicate_to)

    def append_multi(
        self,
        keys: KeyFragments,
        ttl: int = 0,
        format: Format | None = None,
        persist_to: int = 0,
        replicate_to: int = 0,
    ) -> OperationsT:
        """Append to many documents from a dict of key -> fragment. Returns MultiResult."""
        return self._concat_multi(operations.APPEND, keys, ttl, format, persist_to, replicate_to)

    def prepend_multi(
        self,
        keys: KeyFragments,
        ttl: int = 0,
        format: Format | None = None,
        persist_to: int = 0,
        replicate_to: int = 0,
    ) -> OperationsT:
        """Prepend to many documents from a dict of key -> fragment. Returns MultiResult."""
        return self._concat_multi(operations.PREPEND, keys, ttl, format, persist_to, replicate_to)

    def delete(
        self,
        key: Key,
        cas: int = 0,
        quiet: bool | None = None,
        persist_to: int = 0,
        replicate_to: int = 0,
        *,
        durability_level: int = 0,
    ) -> OperationT:
        """Remove a document.

        :param cas: remove only this version.
        :raises NotFoundError: no such document (unless quiet).
        :raises KeyExistsError: the CAS differs, or the document is locked.
        """
        request = self._request(operations.DELETE, key)
        if cas:
            request.cas = arguments.check_cas(cas)
        request.quiet = self._quiet_for(quiet)
        return self._mutate(request, persist_to, replicate_to, durability_level)

    def delete_multi(
        self,
        keys: CasKeys,
        quiet: bool | None = None,
        persist_to: int = 0,
        replicate_to: int = 0,
        cas: int = 0,
    ) -> OperationsT:
        """Remove many documents; a dict maps each key to its CAS. Returns MultiResult."""
        if cas:
            raise ArgumentError.pyexc("delete_multi takes a CAS by key: pass a dict of key -> cas", obj=cas)
        requests = []
        for key, options in arguments.keys_with_option(keys, "cas", ("cas",)):
            request = self._request(operations.DELETE, key)
            request.cas = arguments.check_cas(options.get("cas", 0))
            request.quiet = self._quiet_for(quiet)
            requests.append(request)
        return self._driver.submit_multi(requests, _durability(persist_to, replicate_to))

    def _store_request(
        self,
        operation: Operation,
        key: Key | ItemTarget,
        value: object,
        cas: int,
        ttl: int,
        format: Format | None,
        make: type[Request] | None = None,
    ) -> Any:
        request = self._request(operation, key, make)
        if format is None:
            format = self._default_format
        elif self._transcoder is None:
            check_format(format)
        request.value, flags = self._encode_value(value, format)
        if flags or ttl:
            request.extras = store_extras(flags, arguments.check_ttl(ttl) if ttl else 0)
        else:
            request.extras = _PLAIN_EXTRAS
        if cas != 0:
            request.cas = arguments.check_cas(cas)
        return request

    def _concat_request(
        self,
        operation: Operation,
        key: Key | ItemTarget,
        value: object,
        cas: int,
        ttl: int,
        format: Format | None,
    ) -> Any:
        format = FMT_UTF8 if format is None else format
        if self._transcoder is None and format not in _APPENDABLE:
            raise ArgumentError.pyexc(f"{operation.name} takes FMT_UTF8 or FMT_BYTES only", obj=format)
        request = self._request(operation, key)
        if ttl:
            raise error_of(
                exceptions.OPTIONS_CONFLICT,
                f"{operation.name} keeps the expiry, so ttl cannot be given",
                key=request.key,
            )
        if self._transcoder is None:
            check_format(format)
        request.value, _ = self._encode_value(value, format)
        request.cas = arguments.check_cas(cas)
        return request

    def _store_multi(
        self,
        operation: Operation,
        keys: KeyValues,
        ttl: int,
        format: Format | None,
        persist_to: int,
        replicate_to: int,
    ) -> OperationsT:
        if isinstance(keys, ItemCollection):
            requests = [
                self._store_request(
                    operation,
                    ItemTarget(item),
                    item_value(item),
                    0 if options.get("ignore_cas") else item_cas(item),
                    _own_or_common("ttl", options, ttl),
                    _own_or_common("format", options, format),
                    self._member_type,
                )
                for item, options in item_options(keys, arguments.STORE_OPTIONS)
            ]
        else:
            make = self._member_type
            requests = [
                self._store_request(operation, key, value, 0, ttl, format, make)
                for key, value in arguments.key_values(keys)
            ]
        return self._driver.submit_multi(requests, _durability(persist_to, replicate_to))

    def _concat_multi(
        self,
        operation: Operation,
        keys: KeyFragments,
        ttl: int,
        format: Format | None,
        persist_to: int,
        replicate_to: int,
    ) -> OperationsT:
        if isinstance(keys, ItemCollection):
            requests = []
            for item, options in item_options(keys, (*arguments.STORE_OPTIONS, "fragment")):
                if "fragment" not in options:
                    raise ArgumentError.pyexc(
                        f"{operation.name} of an item needs the option fragment", obj=item
                    )
                requests.append(
                    self._concat_request(
                        operation,
                        ItemTarget(item),
                        options["fragment"],
                        0 if options.get("ignore_cas") else item_cas(item),
                        _own_or_common("ttl", options, ttl),
                        _own_or_common("format", options, format),
                    )
                )
        else:
            requests = [
                self._concat_request(operation, key, value, 0, ttl, format)
                for key, value in arguments.key_values(keys)
            ]
        return self._driver.submit_multi(requests, _durability(persist_to, replicate_to))

    def _mutate(
        self,
        request: Request,
        persist_to: int,
        replicate_to: int,
        durability_level: int,
        preserve_expiry: bool = False,
    ) -> Any:
        if durability_level or preserve_expiry:
            if durability_level not in (0, 1, 2, 3):
                raise ArgumentError.pyexc("durability_level must be 0, 1, 2 or 3", obj=durability_level)
            timeout_ms = self._driver.level_ms if durability_level else 0
            request.framing = operations.mutation_framing(durability_level, timeout_ms, preserve_expiry)
        if persist_to or replicate_to:
            return self._driver.submit(request, _durability(persist_to, replicate_to))
        return self._driver.submit_level(request) if durability_level else self._driver.submit(request)


def _own_or_common(name: str, options: dict[str, Any], common: T) -> T:
    own: T | None = options.get(name)
    return common if own is None else own


def _durability(persist_to: int, replicate_to: int) -> tuple[int, int] | None:
    pair = check_count("persist_to", persist_to), check_count("replicate_to", replicate_to)
    return pair if any(pair) else None
