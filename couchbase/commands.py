"""SDK 1.2's key-value methods, shared by all drivers.

:class:`Commands` turns calls into checked requests; its driver returns results, Deferreds or AsyncResults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic

from couchbase import arguments, exceptions
from couchbase.codec import SHORT_KEY
from couchbase.exceptions import ArgumentError, error_of
from couchbase.items import ItemCollection, ItemTarget
from couchbase.paths import PathCommands
from couchbase.protocol import operations
from couchbase.protocol.constants import COUNTER_NO_CREATE
from couchbase.protocol.durability import ENDURE_INTERVAL_SECONDS, check_count
from couchbase.protocol.failures import no_such_replica
from couchbase.protocol.request import Operation, Request
from couchbase.signatures import (
    CasKeys,
    ExpiryT,
    Key,
    Keys,
    OperationsT,
    OperationT,
    StatsT,
    SubdocsT,
    SubdocT,
    ValuesT,
    ValueT,
    VersionKeys,
)

_GET = operations.GET


class Commands(
    PathCommands[OperationT, OperationsT, SubdocT, SubdocsT],
    Generic[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
):
    """Key-value operations of SDK 1.2 with their multi forms, for a driver to derive from."""

    # ---- reading ---------------------------------------------------------------------------------

    def get(
        self,
        key: Key,
        ttl: int = 0,
        quiet: bool | None = None,
        replica: bool = False,
        no_format: bool = False,
    ) -> ValueT:
        """Read a document.

        :param ttl: also set the document's expiry, in seconds (up to 30 days) or as a Unix time.
        :param quiet: whether a missing document is a result instead of NotFoundError; the
            connection's setting by default.
        :param replica: read only from replicas, one after the other until one has the document.
        :param no_format: return the value as bytes.
        :returns: ValueResult.
        :raises NotFoundError: no such document.
        """
        silent = self._quiet if quiet is None else bool(quiet)
        decoder = self._bytes_decoder if no_format else self._decoder
        if not ttl and not replica and type(key) is self._text_type and key and len(key) <= SHORT_KEY:
            try:
                # _request is inlined: nearly every read begins here.
                encoded = key.encode()  # type: ignore[union-attr]  # it is a str
            except UnicodeEncodeError:
                pass  # Refused below, with the SDK's error.
            else:
                request = self._request_type(_GET, key, encoded, silent, decoder, self._keyspace)
                return self._driver.submit(request)
        if ttl or replica:
            if replica:
                if ttl:
                    raise ArgumentError.pyexc("replica and ttl cannot be combined")
                return self.rget(key, quiet=quiet)
            request = self._request(operations.GET_AND_TOUCH, key)
            request.extras = operations.expiry_extras(arguments.check_ttl(ttl))
        else:
            request = self._request(_GET, key)
        request.quiet, request.decode_value = silent, decoder
        return self._driver.submit(request)

    def get_multi(
        self,
        keys: Keys,
        ttl: int = 0,
        quiet: bool | None = None,
        replica: bool = False,
        no_format: bool = False,
    ) -> ValuesT:
        """Read many documents; a dict maps each key to its ttl. Returns MultiResult."""
        if replica:
            if ttl:
                raise ArgumentError.pyexc("replica and ttl cannot be combined")
            return self.rget_multi(keys, quiet=quiet)
        silent = self._quiet_for(quiet)
        decoder = self._bytes_decoder if no_format else self._decoder
        common = arguments.check_ttl(ttl)
        if not common and not isinstance(keys, (dict, ItemCollection)):
            # The common case: the same options for all keys.
            collected = arguments.key_collection(keys)
            return self._driver.submit_multi(self._members(operations.GET, collected, silent, decoder))
        requests = []
        for key, options in arguments.keys_with_option(keys, "ttl", ("ttl",)):
            expiry = _own_or_common_ttl(options, common)
            request = self._request(operations.GET_AND_TOUCH if expiry else operations.GET, key)
            if expiry:
                request.extras = operations.expiry_extras(expiry)
            request.quiet = silent
            request.decode_value = decoder
            requests.append(request)
        return self._driver.submit_multi(requests)

    def get_with_expiry(self, key: Key, quiet: bool | None = None, no_format: bool = False) -> ExpiryT:
        """Read a document together with its expiry.

        An addition to SDK 1.2. Returns a result with ``expiry``: Unix time in seconds, 0 for never.

        :raises NotFoundError: no such document.
        """
        request = self._request(operations.GET_WITH_EXPIRY, key)
        request.value = operations.EXPIRY_LOOKUP_VALUE
        request.quiet = self._quiet if quiet is None else bool(quiet)
        request.decode_value = self._bytes_decoder if no_format else self._decoder
        return self._driver.submit(request)

    def rget(self, key: Key, replica_index: int | None = None, quiet: bool | None = None) -> ValueT:
        """Read from replicas, never from the active node.

        :param replica_index: index of the replica, from 0; by default, replicas are read one after the other
            until one has the document.
        :raises NotFoundError: no replica (or not the given one) has the document.
        :raises CouchbaseError: (rc 0x23) the bucket has no such replica.
        """
        return self._driver.submit_to_replica(self._rget_request(key, replica_index, quiet))

    def rget_multi(self, keys: Keys, replica_index: int | None = None, quiet: bool | None = None) -> ValuesT:
        """Read many documents from replicas. Returns MultiResult."""
        return self._driver.submit_multi(
            [
                self._rget_request(key, replica_index, quiet)
                for key, _ in arguments.keys_with_option(keys, "none", ())
            ]
        )

    def _rget_request(self, key: Key | ItemTarget, replica_index: int | None, quiet: bool | None) -> Any:
        if replica_index is not None and (
            isinstance(replica_index, bool) or not isinstance(replica_index, int)
        ):
            raise ArgumentError.pyexc("replica_index must be an int", obj=replica_index)
        request = self._request(operations.GET_REPLICA, key)
        request.quiet = self._quiet_for(quiet)
        request.decode_value = self._decoder
        request.replica = -1 if replica_index is None else replica_index
        if replica_index is not None and replica_index < 0:
            raise no_such_replica(request)
        return request

    # ---- expiry, locks, counters -----------------------------------------------------------------

    def touch(self, key: Key, ttl: int = 0) -> OperationT:
        """Set a document's expiry; 0 removes it.

        :raises NotFoundError: no such document.
        """
        return self._driver.submit(self._touch_request(key, ttl))

    def touch_multi(self, keys: Keys, ttl: int = 0) -> OperationsT:
        """Set the expiry of many documents; a dict maps each key to its ttl. Returns MultiResult."""
        common = arguments.check_ttl(ttl)
        return self._driver.submit_multi(
            [
                self._touch_request(key, _own_or_common_ttl(options, common))
                for key, options in arguments.keys_with_option(keys, "ttl", ("ttl",))
            ]
        )

    def _touch_request(self, key: Key | ItemTarget, ttl: int) -> Any:
        request = self._request(operations.TOUCH, key)
        request.extras = operations.expiry_extras(arguments.check_ttl(ttl))
        request.quiet = self._quiet
        return request

    def lock(self, key: Key, ttl: int = 0) -> ValueT:
        """Read a document and lock it.

        :param ttl: seconds until the lock expires; 0 (the default) for the server's default, which is 15.
            Servers hold locks for at most 30 seconds, and for 15 if more is requested.
        :returns: ValueResult whose ``cas`` unlocks the document, or stores it.
        :raises TemporaryFailError: the document is locked already.
        """
        return self._driver.submit(self._lock_request(key, ttl))

    def lock_multi(self, keys: Keys, ttl: int = 0) -> ValuesT:
        """Read and lock many documents; a dict maps each key to its ttl; 0 and a missing ttl are as for
        :meth:`lock`. Returns MultiResult."""
        common = arguments.check_ttl(ttl)
        return self._driver.submit_multi(
            [
                self._lock_request(key, _own_or_common_ttl(options, common))
                for key, options in arguments.keys_with_option(keys, "ttl", ("ttl",))
            ]
        )

    def _lock_request(self, key: Key | ItemTarget, ttl: int) -> Any:
        request = self._request(operations.LOCK, key)
        request.extras = operations.expiry_extras(arguments.check_ttl(ttl))
        request.quiet = self._quiet
        request.decode_value = self._decoder
        return request

    def unlock(self, key: Key, cas: int) -> OperationT:
        """Release a lock with the CAS that :meth:`lock` returned.

        :raises TemporaryFailError: the CAS is not the lock's, or the document is not locked.
        """
        return self._driver.submit(self._unlock_request(key, cas))

    def unlock_multi(self, keys: VersionKeys) -> OperationsT:
        """Release many locks: a dict of key -> CAS, a MultiResult, or Results."""
        return self._driver.submit_multi(
            [
                self._unlock_request(key, options.get("cas"))
                for key, options in arguments.keys_with_option(keys, "cas", ("cas",))
            ]
        )

    def _unlock_request(self, key: Key | ItemTarget, cas: int | None) -> Any:
        request = self._request(operations.UNLOCK, key)
        request.cas = arguments.check_unlock_cas(cas)
        return request

    def incr(
        self,
        key: Key,
        amount: int = 1,
        initial: int | None = None,
        ttl: int = 0,
        *,
        persist_to: int = 0,
        replicate_to: int = 0,
        durability_level: int = 0,
    ) -> ValueT:
        """Add to a counter.

        :param amount: number to add; a negative number subtracts.
        :param initial: value of a missing counter, which is then created (``amount`` is not added).
        :param ttl: expiry of a newly created counter.
        :param persist_to: copies on disk to wait for, as in ``set``. Copies of any later version count as
            well, as other clients may change the counter. Not in SDK 1.2, like ``replicate_to`` and
            ``durability_level``.
        :param replicate_to: replicas in memory to wait for, as in ``set``.
        :returns: ValueResult with the new number.
        :raises NotFoundError: no such document, and no ``initial``.
        :raises DeltaBadvalError: the document is not an unsigned decimal number.
        """
        request = self._counter_request(amount, initial, ttl, key)
        return self._mutate(request, persist_to, replicate_to, durability_level)

    def decr(
        self,
        key: Key,
        amount: int = 1,
        initial: int | None = None,
        ttl: int = 0,
        *,
        persist_to: int = 0,
        replicate_to: int = 0,
        durability_level: int = 0,
    ) -> ValueT:
        """Subtract from a counter, which stops at 0; arguments as for :meth:`incr`."""
        request = self._counter_request(_negated(amount), initial, ttl, key)
        return self._mutate(request, persist_to, replicate_to, durability_level)

    def arithmetic(self, key: Key, amount: int = 1, initial: int | None = None, ttl: int = 0) -> ValueT:
        """The same as :meth:`incr`."""
        return self._driver.submit(self._counter_request(amount, initial, ttl, key))

    def incr_multi(self, keys: Keys, amount: int = 1, initial: int | None = None, ttl: int = 0) -> ValuesT:
        """Add to many counters; a dict maps each key to its amount, or to a dict of delta, initial and
        ttl."""
        return self._counter_multi(keys, amount, initial, ttl, False)

    def decr_multi(self, keys: Keys, amount: int = 1, initial: int | None = None, ttl: int = 0) -> ValuesT:
        """Subtract from many counters; arguments as for :meth:`incr_multi`."""
        return self._counter_multi(keys, amount, initial, ttl, True)

    def arithmetic_multi(
        self, keys: Keys, amount: int = 1, initial: int | None = None, ttl: int = 0
    ) -> ValuesT:
        """The same as :meth:`incr_multi`, for a dict only."""
        if not isinstance(keys, dict):
            raise ArgumentError.pyexc("arithmetic_multi takes a dict", obj=keys)
        return self._counter_multi(keys, amount, initial, ttl, False)

    def _counter_multi(self, keys: Keys, amount: int, initial: int | None, ttl: int, negate: bool) -> ValuesT:
        requests = []
        for key, options in arguments.keys_with_option(keys, "amount", ("delta", "initial", "ttl")):
            if options and "amount" not in options and "delta" not in options:
                raise ArgumentError.pyexc(f"delta is missing for {key!r}", obj=options)
            delta = options.get("amount", options.get("delta", amount))
            requests.append(
                self._counter_request(
                    _negated(delta) if negate else delta,
                    options.get("initial", initial),
                    options.get("ttl", ttl),
                    key,
                )
            )
        return self._driver.submit_multi(requests)

    def _counter_request(self, amount: int, initial: int | None, ttl: int, key: Key | ItemTarget) -> Any:
        amount, initial, expiry = arguments.check_counter(amount, initial, ttl)
        if expiry == COUNTER_NO_CREATE:
            raise ArgumentError.pyexc("this ttl cannot be used: servers read it as 'do not create'", obj=ttl)
        request = self._request(operations.DECR if amount < 0 else operations.INCR, key)
        request.extras = operations.counter_extras(abs(amount), initial, expiry)
        return request

    # ---- copies ----------------------------------------------------------------------------------

    def observe(self, key: Key, master_only: bool = False) -> ValueT:
        """Ask every node that holds the document for its state.

        :returns: ValueResult whose value is a list of ObserveInfo; a missing document is not an error.
        """
        return self._driver.submit_observe([self._watched(operations.OBSERVE, key)], bool(master_only), True)

    def observe_multi(self, keys: Keys, master_only: bool = False) -> ValuesT:
        """Observe many documents. Returns MultiResult."""
        documents = [self._watched(operations.OBSERVE, key) for key in arguments.key_collection(keys)]
        return self._driver.submit_observe(documents, bool(master_only), False)

    def endure(
        self,
        key: Key,
        persist_to: int = -1,
        replicate_to: int = -1,
        cas: int = 0,
        check_removed: bool = False,
        timeout: float = 5.0,
        interval: float = ENDURE_INTERVAL_SECONDS,
    ) -> OperationT:
        """Wait until enough nodes hold a document.

        :param cas: wait for this version; 0 for any version.
        :param check_removed: wait until the document is removed instead.
        :param timeout: seconds after which TimeoutError is raised.
        :param interval: seconds between two polls; the first is immediate.
        :raises NotFoundError: the active node does not have the document.
        :raises KeyExistsError: the active node has another version.
        """
        documents = [self._watched(operations.ENDURE, key, cas)]
        return self._endure(documents, persist_to, replicate_to, timeout, interval, check_removed, True)

    def endure_multi(
        self,
        keys: CasKeys,
        persist_to: int = -1,
        replicate_to: int = -1,
        timeout: float = 5.0,
        interval: float = ENDURE_INTERVAL_SECONDS,
        check_removed: bool = False,
    ) -> OperationsT:
        """Wait for many documents: keys, Results, a dict of key -> CAS, or a MultiResult.

        :raises ArgumentError: (rc 0x22) the same key twice.
        """
        documents = [
            self._watched(operations.ENDURE, key, options.get("cas", 0))
            for key, options in arguments.keys_with_option(keys, "cas", ("cas",))
        ]
        if len({document.key_bytes for document in documents}) < len(documents):
            raise error_of(exceptions.DUPLICATE_COMMANDS, "endure_multi: a key is given twice", objextra=keys)
        return self._endure(documents, persist_to, replicate_to, timeout, interval, check_removed, False)

    def _endure(
        self,
        documents: Sequence[Request],
        persist_to: int,
        replicate_to: int,
        timeout: float,
        interval: float,
        check_removed: bool,
        single: bool,
    ) -> Any:
        if not (type(timeout) is type(interval) is float and timeout > 0 < interval):
            _check_seconds("timeout", timeout)
            _check_seconds("interval", interval)
        if not type(persist_to) is type(replicate_to) is int:
            check_count("persist_to", persist_to)
            check_count("replicate_to", replicate_to)
        return self._driver.submit_endure(
            documents, persist_to, replicate_to, timeout, interval, bool(check_removed), single
        )

    def _watched(self, operation: Operation, key: Key | ItemTarget, cas: object = 0) -> Request:
        """Return the document to ask nodes about."""
        encoded: Any = key
        if not (type(key) is self._key_type is bytes and 0 < len(key) <= SHORT_KEY):
            encoded = self._encode_key(key.key if type(key) is ItemTarget else key)
            if not self._keys_as_given:
                name = self._result_key(encoded)
                key = ItemTarget(key.item, name) if type(key) is ItemTarget else name
        document: Request = self._request_type(operation, key, encoded)
        document.keyspace, document.cas = self._keyspace, arguments.check_cas(cas)
        return document

    def stats(self, keys: str | bytes | Sequence[str | bytes] | None = None) -> StatsT:
        """Ask every node for statistics.

        :param keys: a group, a list of groups (``"memory"``, ``"vbucket"`` ...), or None for the
            default group.
        :raises ArgumentError: an empty list, or one with a member that is not a str.
        :returns: MultiResult: name -> dict of ``host:port`` -> value, converted to int if it is one.
        """
        if keys is None:
            groups: list[Any] = [""]
        else:
            groups = list(keys) if isinstance(keys, (list, tuple)) else [keys]
            if not groups:
                raise ArgumentError.pyexc("no groups given", obj=keys)
        names = []
        for group in groups:
            if not isinstance(group, (str, bytes)):
                raise ArgumentError.pyexc("the name of a group of statistics must be a str", obj=group)
            names.append(group.decode() if isinstance(group, bytes) else group)
        return self._driver.submit_stats(names)


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ArgumentError.pyexc(f"{name} must be a positive number of seconds", obj=value)


def _own_or_common_ttl(options: dict[str, Any], common: int) -> int:
    own = arguments.check_ttl(options.get("ttl", 0))
    if own and common:
        raise ArgumentError.pyexc("ttls by key and a common ttl cannot be combined", obj=own)
    return own or common


def _negated(amount: int) -> int:
    # A wrong type is left to the next check, which names it.
    return -amount if isinstance(amount, int) and not isinstance(amount, bool) else amount
