"""Methods that read and change parts of documents: ``lookup_in``, ``mutate_in`` and their multi forms.

Beyond SDK 1.2, in the style of its methods; names are those of later SDKs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Generic, NoReturn, Union

from couchbase import arguments, exceptions
from couchbase.exceptions import ArgumentError, error_of
from couchbase.items import ItemCollection
from couchbase.mutations import StoreCommands
from couchbase.protocol import subdocument
from couchbase.protocol.constants import Opcode
from couchbase.protocol.durability import check_count
from couchbase.protocol.failures import no_such_replica
from couchbase.protocol.operations import PRESERVE_EXPIRY_FRAMING
from couchbase.protocol.request import Request
from couchbase.protocol.subdocument import LOOKUP_IN, MAX_SPECS, MUTATE_IN, Spec, Specs
from couchbase.signatures import Key, OperationsT, OperationT, SubdocsT, SubdocT
from couchbase.subdocument import StoreSemantics

__all__ = ["PathCommands", "PreparedLookup", "PreparedMutation"]

KeySpecs = Union[Collection[Key], Mapping[str, Any], Mapping[bytes, Any]]
"""Documents of a multi operation: keys, or a dict of key -> spec or specs."""

# Opcodes of specs that change a path, other than those of the whole document.
_USUAL = frozenset(range(Opcode.SUBDOC_DICT_ADD, Opcode.SUBDOC_COUNTER + 1))
_pack_spec = subdocument.MUTATION_SPEC.pack

_DOCUMENT_FLAGS = {
    StoreSemantics.REPLACE: 0,
    StoreSemantics.UPSERT: subdocument.UPSERT_DOCUMENT,
    StoreSemantics.INSERT: subdocument.INSERT_DOCUMENT,
}


class PreparedLookup(list[Spec]):
    """Lookup specs that are checked and encoded once, for many documents. The list must not be changed.

    :raises ArgumentError: there are no specs, more than 16, or one that changes something.
    """

    __slots__ = ("encoded", "specs")

    def __init__(self, specs: Sequence[Spec]) -> None:
        super().__init__(specs)
        self.specs = _arranged(specs, True)
        self.encoded = subdocument.lookup_value(self.specs)


class PreparedMutation(list[Spec]):
    """Specs of a mutation that are checked and encoded once, for many documents. Do not change the list.

    :raises ArgumentError: no specs, more than 16, or one that reads.
    """

    __slots__ = ("encoded", "specs")

    def __init__(self, specs: Sequence[Spec]) -> None:
        super().__init__(specs)
        self.specs = _arranged(specs, False)
        self.encoded = subdocument.mutation_value(self.specs)

    @classmethod
    def of_body(cls, specs: Sequence[Spec], encoded: bytes) -> PreparedMutation:
        """Return the same for specs that the caller has checked and encoded.

        :param specs: 1 to 16 specs that change paths of the body, in the order that is sent.
        """
        prepared = cls.__new__(cls)
        prepared.extend(specs)
        prepared.specs = Specs(tuple(specs), None)
        prepared.encoded = encoded
        return prepared


class PathCommands(
    StoreCommands[OperationT, OperationsT], Generic[OperationT, OperationsT, SubdocT, SubdocsT]
):
    """lookup_in, mutate_in, and their multi forms."""

    def lookup_in(
        self,
        key: Key,
        *specs: Spec | Sequence[Spec],
        quiet: bool | None = None,
        access_deleted: bool = False,
        replica: int | str | None = None,
    ) -> SubdocT:
        """Read paths of a document.

        :param specs: 1 to 16 specs of :mod:`couchbase.subdocument` that read, or one list of them; a
            :class:`PreparedLookup` costs less for many documents.
        :param quiet: whether a missing document is a result instead of NotFoundError; the connection's
            setting by default. Its paths then raise NotFoundError.
        :param access_deleted: also read the attributes of a deleted document.
        :param replica: index of the replica to read from, or ``"any"`` to read from replicas one after the
            other until one has the document; by default the active node.
        :returns: SubdocResult, with a value for each spec. A failed path is not an error of the operation:
            its exception is raised when the path is accessed.
        :raises NotFoundError: no such document.
        :raises DocumentNotJsonError: (on access) the document is not JSON.
        :raises ArgumentError: there are no specs, more than 16, or one that changes something.
        :raises NotSupportedError: the server has no extended attributes (before 5.0), or no lookups from
            replicas (before 7.6).
        :raises CouchbaseError: (rc 0x23) the bucket has no such replica.
        """
        if len(specs) == 1 and type(specs[0]) is PreparedLookup and replica is None:
            prepared: Any = specs[0]
            request = self._request(LOOKUP_IN, key)
            request.specs, request.value = prepared.specs, prepared.encoded
            if access_deleted:
                request.extras = subdocument.lookup_extras(subdocument.ACCESS_DELETED)
            request.quiet = self._quiet if quiet is None else bool(quiet)
            return self._driver.submit(request)
        request = self._lookup_request(key, _arranged(specs, True), access_deleted, replica)
        request.quiet = self._quiet_for(quiet)
        return self._driver.submit(request) if replica is None else self._driver.submit_to_replica(request)

    def lookup_in_multi(
        self,
        keys: KeySpecs,
        *specs: Spec | Sequence[Spec],
        quiet: bool | None = None,
        access_deleted: bool = False,
        replica: int | str | None = None,
    ) -> SubdocsT:
        """Read paths of many documents: keys with common specs, or a dict of key -> spec or list of specs.

        Returns MultiResult. Other arguments as for :meth:`lookup_in`.
        """
        requests = []
        for key, wanted, _ in _by_key(keys, specs, True):
            request = self._lookup_request(key, wanted, access_deleted, replica)
            request.quiet = self._quiet_for(quiet)
            requests.append(request)
        return self._driver.submit_multi(requests)

    # Many parameters: the options of later SDKs; keywords.
    def mutate_in(
        self,
        key: Key,
        *specs: Spec | Sequence[Spec],
        cas: int = 0,
        ttl: int = 0,
        preserve_expiry: bool = False,
        store_semantics: StoreSemantics = StoreSemantics.REPLACE,
        persist_to: int = 0,
        replicate_to: int = 0,
        durability_level: int = 0,
        access_deleted: bool = False,
        create_as_deleted: bool = False,
        revive: bool = False,
    ) -> SubdocT:
        """Change paths of a document: all of them, or none.

        Without ``ttl`` and ``preserve_expiry`` the document's expiry is removed, as by ``set``.

        :param specs: 1 to 16 specs of :mod:`couchbase.subdocument` that change something, or one list of
            them; a :class:`PreparedMutation` costs less for many documents. Specs of attributes are executed
            before those of the body; otherwise they are executed in order.
        :param cas: change only this version.
        :param ttl: expiry in seconds (up to 30 days) or as a Unix time; 0 for never.
        :param preserve_expiry: keep the expiry of an existing document.
        :param store_semantics: whether the document must exist (the default), is created if it is missing, or
            must not exist. The latter two create missing parents of paths, too, and take no ``cas``.
        :param persist_to: as in ``set``, like ``replicate_to`` and ``durability_level``.
        :param access_deleted: also change the attributes of a deleted document.
        :param create_as_deleted: create the document as a deleted one, which has only attributes.
        :param revive: restore a deleted document; needs ``access_deleted``.
        :returns: SubdocResult with the new CAS, and the new numbers of counters.
        :raises NotFoundError: no such document.
        :raises KeyExistsError: the CAS differs, the document is locked, or it exists but must not.
        :raises SubdocPathNotFoundError: a path does not exist; likewise SubdocPathExistsError,
            SubdocPathMismatchError and others. ``path`` and ``path_index`` say which. Nothing was changed.
        :raises ArgumentError: there are no specs, more than 16, or one that reads, or options cannot be
            combined.
        :raises NotSupportedError: the server lacks attributes (before 5.0), or preserved expiry (before 7.0).
        """
        if (
            len(specs) == 1
            and store_semantics is StoreSemantics.REPLACE
            and not (ttl or preserve_expiry or access_deleted or create_as_deleted or revive)
        ):
            # Fast path for the usual cases: one path of an existing document, or prepared specs.
            (spec,) = specs
            wanted: Specs | None = None
            if type(spec) is PreparedMutation:
                wanted, encoded = spec.specs, spec.encoded
            else:
                if type(spec) is list and len(spec) == 1:
                    (spec,) = spec
                if type(spec) is Spec and spec[0] in _USUAL:
                    opcode, path_flags, path, value = spec
                    wanted = Specs((spec,), None)
                    encoded = _pack_spec(opcode, path_flags, len(path), len(value)) + path + value
            if wanted is not None and not (persist_to or replicate_to):
                request = self._request(MUTATE_IN, key)
                request.specs, request.value = wanted, encoded
                if cas:
                    request.cas = arguments.check_cas(cas)
                if durability_level:
                    return self._mutate(request, 0, 0, durability_level)
                return self._driver.submit(request)
        flags = _document_flags(store_semantics, access_deleted, create_as_deleted, revive)
        prepared: Any = specs[0] if len(specs) == 1 and type(specs[0]) is PreparedMutation else None
        wanted = _arranged(specs, False) if prepared is None else prepared.specs
        _check_options(store_semantics, cas, ttl, preserve_expiry, key)
        if (persist_to or replicate_to) and any(spec.opcode == Opcode.DELETE for spec in wanted.given):
            _conflict("persist_to and replicate_to cannot wait for a removal here: use delete", key)
        known = None if prepared is None else prepared.encoded
        request = self._mutation_request(key, wanted, flags, ttl, known)
        if cas:
            request.cas = arguments.check_cas(cas)
        return self._mutate(request, persist_to, replicate_to, durability_level, preserve_expiry)

    def mutate_in_multi(
        self,
        keys: KeySpecs,
        *specs: Spec | Sequence[Spec],
        ttl: int = 0,
        store_semantics: StoreSemantics = StoreSemantics.REPLACE,
        persist_to: int = 0,
        replicate_to: int = 0,
    ) -> SubdocsT:
        """Change paths of many documents, each separately: all paths of a document are changed, or none.

        :param keys: keys with common specs; or a dict of key -> spec, list of specs, or dict of ``specs``,
            ``cas``, ``ttl`` and ``preserve_expiry``.
        :returns: MultiResult. Other arguments as for :meth:`mutate_in`.
        """
        flags = _document_flags(store_semantics, False, False, False)
        requests = []
        for key, wanted, options in _by_key(keys, specs, False):
            cas, own = options.get("cas", 0), options.get("ttl", 0) or ttl
            keeps = bool(options.get("preserve_expiry", False))
            _check_options(store_semantics, cas, own, keeps, key)
            request = self._mutation_request(key, wanted, flags, own)
            request.cas = arguments.check_cas(cas)
            if keeps:
                request.framing = PRESERVE_EXPIRY_FRAMING
            requests.append(request)
        counts = check_count("persist_to", persist_to), check_count("replicate_to", replicate_to)
        return self._driver.submit_multi(requests, counts if any(counts) else None)

    def _lookup_request(self, key: Key, specs: Specs, access_deleted: bool, replica: int | str | None) -> Any:
        request = self._request(LOOKUP_IN, key)
        request.specs = specs
        request.value = subdocument.lookup_value(specs)
        flags = subdocument.ACCESS_DELETED if access_deleted else 0
        if replica is not None:
            request.replica = _replica_index(replica)
            if request.replica < -1:
                raise no_such_replica(request)
            flags |= subdocument.REPLICA_READ
        request.extras = subdocument.lookup_extras(flags)
        return request

    def _mutation_request(
        self, key: Key, specs: Specs, flags: int, ttl: int, encoded: bytes | None = None
    ) -> Any:
        request: Request = self._request(MUTATE_IN, key)
        request.specs = specs
        request.value = subdocument.mutation_value(specs) if encoded is None else encoded
        request.extras = subdocument.mutation_extras(flags, arguments.check_ttl(ttl))
        return request


def _arranged(specs: Sequence[Any], reads: bool) -> Specs:
    if len(specs) == 1 and not isinstance(specs[0], Spec) and isinstance(specs[0], (list, tuple)):
        specs = specs[0]
    if not 0 < len(specs) <= MAX_SPECS:
        raise ArgumentError.pyexc(f"1 to {MAX_SPECS} specs are allowed, not {len(specs)}", obj=specs)
    for spec in specs:
        if not isinstance(spec, Spec):
            raise ArgumentError.pyexc("a spec must be made by a function of couchbase.subdocument", obj=spec)
        if spec.is_lookup is not reads:
            wanted, other = ("reads", "mutate_in") if reads else ("changes something", "lookup_in")
            raise ArgumentError.pyexc(
                f"each spec must be one that {wanted}; others are for {other}", obj=spec
            )
    return subdocument.arrange(specs)


def _replica_index(replica: int | str) -> int:
    """Return the index of a replica; -1 for any."""
    if replica == "any":
        return -1
    if isinstance(replica, bool) or not isinstance(replica, int):
        raise ArgumentError.pyexc('replica must be an int, or "any"', obj=replica)
    return replica if replica >= 0 else -2


_OPTIONS = frozenset({"specs", "cas", "ttl", "preserve_expiry"})


def _by_key(keys: Any, specs: Sequence[Any], reads: bool) -> list[tuple[Any, Specs, dict[str, Any]]]:
    """Return (key, specs, options) of each document of a multi operation."""
    if isinstance(keys, ItemCollection):
        raise ArgumentError.pyexc(
            "items are not supported here; pass keys, or a dict of key -> specs", obj=keys
        )
    collected = arguments.key_collection(keys)
    if not isinstance(keys, Mapping):
        common = _arranged(specs, reads)
        return [(key, common, {}) for key in collected]
    if specs:
        raise ArgumentError.pyexc("a dict has the specs of each key, so no others can be given", obj=specs)
    found = []
    for key in collected:
        given, options = keys[key], {}
        if isinstance(given, dict):
            allowed = frozenset({"specs"}) if reads else _OPTIONS
            if not given.keys() <= allowed or "specs" not in given:
                raise ArgumentError.pyexc(
                    f"the options for {key!r} must be specs and others of {sorted(allowed)}", obj=given
                )
            given, options = given["specs"], given
        found.append((key, _arranged((given,), reads), options))
    return found


def _document_flags(
    semantics: StoreSemantics, access_deleted: bool, create_as_deleted: bool, revive: bool
) -> int:
    try:
        flags = _DOCUMENT_FLAGS[StoreSemantics(semantics)]
    except ValueError:
        raise ArgumentError.pyexc("store_semantics must be one of StoreSemantics", obj=semantics) from None
    if revive and (not access_deleted or create_as_deleted):
        raise ArgumentError.pyexc(
            "revive needs access_deleted, and cannot be combined with create_as_deleted"
        )
    return (
        flags
        | (subdocument.ACCESS_DELETED if access_deleted else 0)
        | (subdocument.CREATE_AS_DELETED if create_as_deleted else 0)
        | (subdocument.REVIVE if revive else 0)
    )


def _check_options(semantics: StoreSemantics, cas: int, ttl: int, preserve_expiry: bool, key: Any) -> None:
    if cas and semantics != StoreSemantics.REPLACE:
        _conflict("a cas is for an existing document, so it needs StoreSemantics.REPLACE", key)
    if preserve_expiry and semantics == StoreSemantics.INSERT:
        _conflict(
            "preserve_expiry is for existing documents, so it cannot be combined with StoreSemantics.INSERT",
            key,
        )
    if preserve_expiry and ttl and semantics == StoreSemantics.REPLACE:
        _conflict("ttl and preserve_expiry cannot be combined, as the document exists", key)


def _conflict(message: str, key: Any) -> NoReturn:
    raise error_of(exceptions.OPTIONS_CONFLICT, message, key=key)
