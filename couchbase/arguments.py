"""Checks of the arguments that operations take, as SDK 1.2 defines them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

from couchbase import exceptions
from couchbase.exceptions import ArgumentError, error_of
from couchbase.items import ItemCollection, ItemTarget, item_cas, item_options
from couchbase.protocol.sasl import has_control
from couchbase.result import Result
from couchbase.tlsfiles import OPTIONS as FILE_OPTIONS
from couchbase.user_constants import LOCKMODE_EXC, LOCKMODE_NONE, LOCKMODE_WAIT

OPTIONS = FILE_OPTIONS | {"network", "nameserver", "compression"}
"""Names of connection string options."""

MAX_U32 = 2**32 - 1
MAX_U64 = 2**64 - 1
# Keywords that SDK 1.2's own packages pass to connections; they have no effect here.
_INTERNAL = frozenset({"_iops", "_flags", "_conntype", "_errors"})
# Collections whose iteration is known to match their length.
_WHOLE = frozenset({list, tuple, set, frozenset, dict})


def check_ttl(ttl: object) -> int:
    """Return an expiry in the protocol's format: 0 for any false value, else a 32-bit number.

    Up to 30 days (2592000) it is in seconds from now; above, it is a Unix time.

    :raises ArgumentError: not a whole number, negative, or beyond 32 bits.
    """
    if not ttl:
        return 0
    if not isinstance(ttl, int) or not 0 < ttl <= MAX_U32:
        raise ArgumentError.pyexc("ttl must be a whole number of seconds from 0 to 4294967295", obj=ttl)
    return int(ttl)


def check_cas(cas: object) -> int:
    """Return a CAS.

    :raises ArgumentError: not an unsigned 64-bit number.
    """
    if type(cas) is int and 0 <= cas <= MAX_U64:
        # The usual case.
        return cas
    if isinstance(cas, bool) or not isinstance(cas, int) or not 0 <= cas <= MAX_U64:
        raise ArgumentError.pyexc("cas must be an unsigned 64-bit int", obj=cas)
    return cas


def check_unlock_cas(cas: object) -> int:
    """Return the CAS of an unlock operation.

    :raises ArgumentError: not a number, or 0.
    """
    found = 0 if cas is None else check_cas(cas)
    if not found:
        raise ArgumentError.pyexc("unlock needs the CAS that lock returned", obj=cas)
    return found


def check_counter(amount: object, initial: object, ttl: object) -> tuple[int, int | None, int]:
    """Return ``(amount, initial or None, expiry)`` of a counter operation.

    :raises ArgumentError: ``amount`` is not an int of at most 64 bits, or ``initial`` is negative.
    :raises CouchbaseError: (rc 0x3A) a ttl without ``initial``, to which it would apply.
    """
    if isinstance(amount, bool) or not isinstance(amount, int) or abs(amount) > MAX_U64:
        raise ArgumentError.pyexc("amount must be an int of at most 64 bits", obj=amount)
    if isinstance(initial, bool) or not isinstance(initial, int):
        initial = None
    elif not 0 <= initial <= MAX_U64:
        raise ArgumentError.pyexc("initial must be an unsigned 64-bit int", obj=initial)
    expiry = check_ttl(ttl)
    if expiry and initial is None:
        raise error_of(
            exceptions.OPTIONS_CONFLICT, "ttl needs initial: it applies to a counter that is created"
        )
    return amount, initial, expiry


def key_collection(keys: object) -> list[Any]:
    """Return the keys of a multi operation's collection.

    :raises ArgumentError: not a sized iterable other than text, empty, or shorter than its length.
    """
    if (
        isinstance(keys, (str, bytes, bytearray))
        or not isinstance(keys, Sized)
        or not isinstance(keys, Iterable)
    ):
        raise ArgumentError.pyexc("keys must be a list, tuple, set, dict or a similar collection", obj=keys)
    size = len(keys)
    if not size:
        raise ArgumentError.pyexc("no keys given", obj=keys)
    if type(keys) in _WHOLE:
        return list(keys)
    iterator: Iterator[Any] = iter(keys)
    collected = [key for _, key in zip(range(size), iterator)]
    if len(collected) < size:
        raise ArgumentError.pyexc("the collection of keys is shorter than its length", obj=keys)
    return collected


def check_keywords(unknown: dict[str, Any]) -> None:
    """Refuse unknown keywords of a connection.

    :raises ArgumentError: there are unknown keywords.
    """
    wrong = sorted(set(unknown) - _INTERNAL)
    if wrong:
        raise ArgumentError.pyexc(f"unknown arguments {wrong}", obj=unknown)


def check_lockmode(lockmode: object) -> None:
    """Refuse an invalid lock mode.

    :raises ArgumentError: it is not a lock mode.
    """
    if lockmode not in (LOCKMODE_NONE, LOCKMODE_EXC, LOCKMODE_WAIT):
        raise ArgumentError.pyexc("lockmode must be a LOCKMODE_* constant", obj=lockmode)


def check_texts(**texts: object) -> None:
    """Refuse keywords of a connection that are neither a ``str`` nor ``None``.

    :raises ArgumentError: one of them has another type.
    """
    for name, text in texts.items():
        if text is not None and not isinstance(text, str):
            # Exceptions are printed with their attributes, so no attribute may be a password, of whatever
            # type.
            shown = None if name == "password" else text
            raise ArgumentError.pyexc(f"{name} must be a str, not {type(text).__name__}", obj=shown)


def check_credentials(username: str | None, password: str | None) -> None:
    """Refuse names and passwords with control characters, which no server accepts.

    :raises ArgumentError: one has a control character; the text names the argument, and does not quote it.
    """
    for name, text in (("username", username), ("password", password)):
        if text and has_control(text):
            raise ArgumentError.pyexc(
                f"{name} contains control characters (such as NUL, tab or line end), which no server accepts"
            )


def check_bucket_user(username: str | None, bucket: str) -> None:
    """Refuse a user name other than the bucket's together with ``host``, as in SDK 1.2.

    :raises CouchbaseError: (rc 0x26) the user has another name.
    """
    if username and username != bucket:
        message = (
            "with host, the username must be the bucket's name; for other users give a connection_string"
        )
        raise error_of(exceptions.INVALID_USERNAME, message)


def check_flags(**flags: object) -> None:
    """Refuse keywords of a connection that are neither a bool nor an int.

    :raises ArgumentError: one of them has another type.
    """
    for name, flag in flags.items():
        if not isinstance(flag, int):
            raise ArgumentError.pyexc(f"{name} must be a bool, not {type(flag).__name__}", obj=flag)


def check_options(options: Mapping[str, str]) -> None:
    """Check the options of a connection string.

    ``compression=off`` comes from libcouchbase: values are never compressed here, so no other value is
    possible.

    :raises ArgumentError: an option is unknown, or has an invalid value.
    """
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise ArgumentError.pyexc(
            f"unknown connection string options {unknown}; known: {sorted(OPTIONS)}", obj=dict(options)
        )
    if options.get("compression", "off") != "off":
        raise ArgumentError.pyexc(
            "compression: values are never compressed; expected off", obj=options["compression"]
        )


def check_hosts(host: object) -> Any:
    """Return the ``host`` of a connection: a string, or a list of names and ``(name, port)`` pairs.

    :raises ArgumentError: it has another form.
    """
    if not isinstance(host, (str, list, tuple)):
        raise ArgumentError.pyexc("host must be a str or a list", obj=host)
    for entry in () if isinstance(host, str) else host:
        if not isinstance(entry, str) and not (
            isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[0], str)
        ):
            raise ArgumentError.pyexc("a list of hosts must have names and (name, port) pairs", obj=entry)
    return host


STORE_OPTIONS = ("ttl", "format", "ignore_cas")


def key_values(keys: object) -> list[tuple[Any, Any]]:
    """Return the ``(key, value)`` pairs of a store operation's dict.

    :raises ArgumentError: not a dict, or empty.
    """
    if not isinstance(keys, dict):
        raise ArgumentError.pyexc("expected a dict of key -> value", obj=keys)
    if not keys:
        raise ArgumentError.pyexc("no keys given", obj=keys)
    return list(keys.items())


def keys_with_option(keys: object, option: str, allowed: Iterable[str]) -> list[tuple[Any, dict[str, Any]]]:
    """Return ``(key, options)`` pairs of a collection; a dict maps keys to options.

    A dict's value is the value of ``option``, a dict of ``allowed`` options, or (for ``cas``) a Result with
    the CAS.

    :raises ArgumentError: an unknown option.
    """
    if isinstance(keys, ItemCollection):
        names = () if option == "cas" else tuple("delta" if name == "amount" else name for name in allowed)
        pairs = item_options(keys, names)
        if option == "cas":
            return [(ItemTarget(item), {"cas": item_cas(item)}) for item, _ in pairs]
        return [(ItemTarget(item), options) for item, options in pairs]
    collected = key_collection(keys)
    if not isinstance(keys, dict):
        return [
            (entry.key, {option: entry.cas}) if option == "cas" and isinstance(entry, Result) else (entry, {})
            for entry in collected
        ]
    by_key = []
    known = frozenset(allowed)
    for key in collected:
        value = keys[key]
        if isinstance(value, Result) and option == "cas":
            by_key.append((key, {"cas": value.cas}))
        elif isinstance(value, dict):
            unknown = set(value) - known
            if unknown:
                raise ArgumentError.pyexc(
                    f"unknown options {unknown} for {key!r}; expected {sorted(known)}", obj=value
                )
            by_key.append((key, dict(value)))
        else:
            by_key.append((key, {option: value}))
    return by_key


def check_seconds(name: str, value: object) -> float:
    """Return a setting that is a duration in seconds.

    :raises TypeError: not a number.
    :raises ValueError: not above 0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not value > 0:
        raise ValueError(f"{name} must be above 0, not {value!r}")
    return float(value)
