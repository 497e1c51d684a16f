"""Encoding of a connection's keys and values, and the making of its requests.

The base of SDK 1.2's methods for every driver: :class:`Codec` holds the settings that decide how
keys and values become bytes and back; the driver executes requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

from couchbase import arguments
from couchbase.exceptions import ArgumentError, CouchbaseError, ValueFormatError
from couchbase.items import ItemTarget, filling
from couchbase.protocol.constants import MAX_COLLECTION_KEY_BYTES
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE
from couchbase.protocol.request import Operation, Request
from couchbase.signatures import Format
from couchbase.transcoder import (
    AnyTranscoder,
    RawTranscoder,
    check_key_length,
    decode_value,
    encode_key,
    encode_value,
)
from couchbase.user_constants import FMT_AUTO, FMT_BYTES, FMT_JSON

SHORT_KEY = MAX_COLLECTION_KEY_BYTES // 4
"""Strings of up to this number of characters fit into a key, however many bytes each character takes; also in
a named collection."""


class Codec:
    """Encodes and decodes a connection's keys and values, and builds its requests."""

    _driver: Any
    """The :class:`couchbase.driver.Driver` that executes requests."""
    _request_type: type[Any] = Request
    _member_type: type[Any] = Request
    """Class of the objects that :meth:`_members` makes."""

    _keyspace = DEFAULT_KEYSPACE
    """The collection that operations are for."""
    _followers: WeakValueDictionary[int, Any] | None = None
    """The views of collections that follow these settings, by their ids; ``None`` before the first one."""
    _quiet = False
    _default_format: Any = FMT_JSON
    _transcoder: Any = None
    _data_passthrough = False
    # Converts bytes and flags to a value; chosen when a setting changes, not for each operation.
    _decoder: Any = staticmethod(decode_value)
    # The same for ``no_format``.
    _bytes_decoder: Any = None
    # Converts a value and its format to bytes and flags.
    _encode_value: Any = staticmethod(encode_value)
    # Type of keys whose encoding is known, so that only their length has to be checked.
    _key_type: type[Any] | None = str
    # The same, if it is ``str``.
    _text_type: type[Any] | None = str
    _keys_as_given = True

    # ---- settings --------------------------------------------------------------------------------

    @property
    def quiet(self) -> bool:
        """Whether a missing document is a result with ``success`` false instead of an error."""
        return self._quiet

    @quiet.setter
    def quiet(self, value: bool) -> None:
        self._quiet = _flag("quiet", value)
        self._tell("quiet", value)

    @property
    def default_format(self) -> Format:
        """Default format of stored values: a number or ``FMT_AUTO``."""
        return self._default_format

    @default_format.setter
    def default_format(self, value: Format) -> None:
        if value is not FMT_AUTO and (isinstance(value, bool) or not isinstance(value, int)):
            raise ArgumentError.pyexc("default_format must be a FMT_* constant", obj=value)
        self._default_format = value
        self._tell("default_format", value)

    @property
    def transcoder(self) -> AnyTranscoder | None:
        """Object that encodes and decodes keys and values; ``None`` for the built-in rules.

        With a :class:`couchbase.transcoder.RawTranscoder`, keys and values are bytes and stay unchanged.
        """
        return self._transcoder

    @transcoder.setter
    def transcoder(self, value: AnyTranscoder | None) -> None:
        self._transcoder = value or None
        self._choose()
        self._tell("transcoder", value)

    @property
    def data_passthrough(self) -> bool:
        """Whether values are returned as raw bytes, whatever their flags."""
        return self._data_passthrough

    @data_passthrough.setter
    def data_passthrough(self, value: bool) -> None:
        self._data_passthrough = _flag("data_passthrough", value)
        self._choose()
        self._tell("data_passthrough", value)

    def _tell(self, setting: str, value: object) -> None:
        """Pass a changed setting on to the views of collections."""
        for view in list(self._followers.values()) if self._followers else ():
            view._adopt(setting, value)

    # ---- keys and values -------------------------------------------------------------------------

    def _encode_key(self, key: object) -> bytes:
        transcoder = self._transcoder
        if transcoder is None:
            return encode_key(key)
        if type(transcoder) is RawTranscoder:
            return transcoder.encode_key(key)
        encoded = _ask(transcoder, "encode_key", key)
        if not isinstance(encoded, bytes) or not encoded:
            raise ValueFormatError.pyexc("encode_key must return bytes that are not empty", obj=encoded)
        check_key_length(encoded)
        return encoded

    def _choose(self) -> None:
        transcoder = self._transcoder
        # Every operation reads these, so they are attributes of the instance, not of the class.
        self._request_type = type(self)._request_type
        self._keyspace = self._keyspace
        self._key_type = self._text_type = None
        self._keys_as_given = False
        if type(transcoder) is RawTranscoder:
            self._key_type, self._keys_as_given = bytes, True
            self._encode_value = transcoder.encode_value
        elif transcoder is None:
            self._encode_value = encode_value
            if not self._data_passthrough:
                self._key_type = self._text_type = str
                self._keys_as_given = True
        else:
            self._encode_value = _TranscoderEncoder(transcoder)
        if self._data_passthrough or type(transcoder) is RawTranscoder:
            self._decoder = self._bytes_decoder = None
        elif transcoder is None:
            self._decoder, self._bytes_decoder = decode_value, None
        else:
            self._decoder = _TranscoderDecoder(transcoder)
            self._bytes_decoder = _TranscoderDecoder(transcoder, FMT_BYTES)

    def _result_key(self, encoded: bytes) -> Any:
        """Return the key for results, which may differ from the caller's key."""
        if self._data_passthrough:
            return encoded
        key = _ask(self._transcoder, "decode_key", encoded)
        try:
            hash(key)
        except TypeError as error:
            raise ValueFormatError.pyexc(
                "decode_key must return a hashable key", obj=key, inner=error
            ) from error
        return key

    def _request(self, operation: Operation, key: Any, make: type[Request] | None = None) -> Any:
        kind = type(key)
        if make is None:
            make = self._request_type
        # The common case first: most programs only pass short strings (or, with raw keys, short bytes).
        if kind is self._key_type and key and len(key) <= SHORT_KEY:
            if kind is bytes:
                return make(operation, key, key)
            try:
                return make(operation, key, key.encode())
            except UnicodeEncodeError:
                pass  # Refused below, with the SDK's error.
        if kind is ItemTarget:
            operation, key = filling(operation, key.item), key.key
        encoded = self._encode_key(key)
        if not self._keys_as_given:
            key = self._result_key(encoded)
        return make(operation, key, encoded)

    def _members(
        self,
        operation: Operation,
        keys: Sequence[Any],
        quiet: bool,
        decode_value: Callable[[bytes, int], Any] | None,
    ) -> list[Any]:
        """Return requests of a multi operation that differ only in their keys."""
        make, kind = self._member_type, self._key_type
        members: list[Any] = []
        add = members.append
        for key in keys:
            if type(key) is kind and key and len(key) <= SHORT_KEY:
                try:
                    add(make(operation, key, key if kind is bytes else key.encode(), quiet, decode_value))
                    continue
                except UnicodeEncodeError:
                    pass  # Refused below, with the SDK's error.
            encoded = self._encode_key(key)
            add(
                make(
                    operation,
                    key if self._keys_as_given else self._result_key(encoded),
                    encoded,
                    quiet,
                    decode_value,
                )
            )
        return members

    def _quiet_for(self, quiet: bool | None) -> bool:
        return self._quiet if quiet is None else bool(quiet)


class _TranscoderEncoder:
    """A custom transcoder's ``encode_value`` with its failures wrapped."""

    __slots__ = ("_transcoder",)

    def __init__(self, transcoder: AnyTranscoder) -> None:
        self._transcoder = transcoder

    def __call__(self, value: object, format: Format) -> tuple[bytes, int]:
        encoded = _ask(self._transcoder, "encode_value", value, format)
        if (
            not isinstance(encoded, tuple)
            or len(encoded) != 2
            or not isinstance(encoded[0], bytes)
            or not isinstance(encoded[1], int)
            or not 0 <= encoded[1] <= arguments.MAX_U32
        ):
            raise ValueFormatError.pyexc("encode_value must return (bytes, flags below 2**32)", obj=encoded)
        return encoded


class _TranscoderDecoder:
    """A custom transcoder's ``decode_value`` with its failures wrapped.

    :param flags: flags to pass instead of the stored ones.
    """

    __slots__ = ("_flags", "_transcoder")

    def __init__(self, transcoder: AnyTranscoder, flags: int | None = None) -> None:
        self._transcoder = transcoder
        self._flags = flags

    def __call__(self, value: bytes, flags: int) -> Any:
        return _ask(self._transcoder, "decode_value", value, flags if self._flags is None else self._flags)


def _ask(transcoder: object, method: str, *args: object) -> Any:
    """Call a transcoder; any failure in the call becomes a ValueFormatError with its cause."""
    try:
        return getattr(transcoder, method)(*args)
    except CouchbaseError:
        raise
    except Exception as error:
        raise ValueFormatError.pyexc(f"the transcoder's {method} failed", obj=args[0], inner=error) from error


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, int):
        raise TypeError(f"{name} must be a bool, not {type(value).__name__}")
    return bool(value)
