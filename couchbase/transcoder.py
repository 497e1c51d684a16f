"""Conversion of Python objects to stored bytes with flags, and back.

The flags stored with a document define its format. SDK 1.2 uses the ``FMT_*`` constants; current SDKs put
their own format code into the top byte ("common flags"). Both are supported, so documents of either kind are
decoded alike.
"""

from __future__ import annotations

import json
import pickle
import warnings
from typing import Any, Callable, Protocol

from couchbase.exceptions import ArgumentError, CouchbaseError, ValueFormatError
from couchbase.protocol.constants import MAX_KEY_BYTES
from couchbase.user_constants import FMT_AUTO, FMT_BYTES, FMT_JSON, FMT_MASK, FMT_PICKLE, FMT_UTF8

COMMON_JSON = 0x02000000
COMMON_BINARY = 0x03000000
COMMON_STRING = 0x04000000
COMMON_PRIVATE = 0x01000000
_COMMON_MASK = 0x0F000000
_COMMON_TO_FORMAT = {COMMON_JSON: FMT_JSON, COMMON_BINARY: FMT_BYTES, COMMON_STRING: FMT_UTF8}


_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def _make_json_parts() -> Callable[[Any, int], Any]:
    """Return the encoder for compact JSON with non-ASCII characters as they are: value, 0 -> parts of text.

    ``JSONEncoder.encode`` builds its accelerator again for each value; this one is built once.
    Without its table of objects being encoded a cycle ends in RecursionError.
    """
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return lambda value, level: (_encoder.encode(value),)
    basestring: Any = json.encoder.encode_basestring
    parts: Callable[[Any, int], Any] = make(
        None, _encoder.default, basestring, None, ":", ",", False, False, True
    )
    return parts


_json_parts = _make_json_parts()


def _dumps(value: Any) -> str:
    return "".join(_json_parts(value, 0))


_json_encode: Callable[[Any], Any] = _dumps
_scan_json: Callable[[str, int], Any] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def _loads(text: str) -> Any:
    """``json.loads`` without its detours for text that is one JSON value and nothing around it."""
    try:
        value, end = _scan_json(text, 0)
    except StopIteration:
        return json.loads(text)
    return value if end == len(text) else json.loads(text)


_json_decode: Callable[[str], Any] = _loads
_pickle_encode: Callable[[Any], bytes] = pickle.dumps
_pickle_decode: Callable[[bytes], Any] = pickle.loads


def set_json_converters(
    encode: Callable[[Any], Any], decode: Callable[[str], Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Replace the JSON functions of every connection; return the previous pair.

    :param encode: object -> ``str`` or ``bytes``.
    :param decode: ``str`` -> object.
    """
    global _json_encode, _json_decode
    previous = _json_encode, _json_decode
    _json_encode, _json_decode = encode, decode
    return previous


def decodes_plain_json() -> bool:
    """Return whether JSON is read by the standard library, not by a converter that a program set."""
    return _json_decode is _loads


def decode_json(text: str) -> Any:
    """Return the object that JSON text encodes, with the current converter."""
    return _json_decode(text)


def set_pickle_converters(
    encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Replace the pickle functions of every connection; return the previous pair.

    :param encode: object -> ``bytes``.
    :param decode: ``bytes`` -> object.
    """
    global _pickle_encode, _pickle_decode
    previous = _pickle_encode, _pickle_decode
    _pickle_encode, _pickle_decode = encode, decode
    return previous


def encode_key(key: object) -> bytes:
    """Return the UTF-8 of a key.

    :raises ValueFormatError: not a ``str``, or not encodable.
    :raises ArgumentError: empty, or over 250 bytes.
    """
    if not isinstance(key, str):
        raise ValueFormatError.pyexc(f"a key must be a str, not {type(key).__name__}", obj=key)
    try:
        encoded = key.encode()
    except UnicodeEncodeError as error:
        raise ValueFormatError.pyexc("the key cannot be encoded as UTF-8", obj=key, inner=error) from error
    if not encoded:
        raise ArgumentError.pyexc("a key must not be empty", obj=key)
    check_key_length(encoded)
    return encoded


def check_key_length(encoded: bytes) -> None:
    """Refuse keys that no server accepts.

    :raises ArgumentError: over 250 bytes.
    """
    if len(encoded) > MAX_KEY_BYTES:
        raise ArgumentError.pyexc(
            f"a key has at most {MAX_KEY_BYTES} bytes of UTF-8, not {len(encoded)}", obj=encoded
        )


def determine_format(value: object) -> int:
    """Return the format that ``FMT_AUTO`` chooses for a value."""
    if isinstance(value, str):
        return FMT_UTF8
    if isinstance(value, (bytes, bytearray)):
        return FMT_BYTES
    if value is None or isinstance(value, (bool, list, tuple, dict)):
        return FMT_JSON
    return FMT_PICKLE


def check_format(format: object, name: str = "format") -> Any:
    """Return ``format`` if it is a number of 32 bits or ``FMT_AUTO``.

    :raises ArgumentError: it is not.
    """
    if format is FMT_AUTO:
        return format
    if isinstance(format, bool) or not isinstance(format, int) or not 0 <= format < 2**32:
        raise ArgumentError.pyexc(f"{name} must be a FMT_* constant", obj=format)
    return format


def encode_value(value: object, format: Any) -> tuple[bytes, int]:
    """Return the bytes and flags that store ``value`` in ``format``.

    :param format: a number whose lowest bits choose (UTF-8, then bytes, then pickle, else JSON), or
        ``FMT_AUTO``.
    :raises ValueFormatError: the value does not fit the format; ``inner_cause`` says why.
    """
    if format is FMT_AUTO:
        format = determine_format(value)
    try:
        if not format & FMT_MASK:
            if _json_encode is _dumps:
                # _dumps is inlined: nearly every write ends here.
                return "".join(_json_parts(value, 0)).encode(), FMT_JSON
            text = _json_encode(value)
            return (text if isinstance(text, bytes) else text.encode()), FMT_JSON
        if format & FMT_UTF8:
            if not isinstance(value, str):
                raise ValueFormatError.pyexc(f"FMT_UTF8 takes a str, not {type(value).__name__}", obj=value)
            return value.encode(), format & FMT_MASK
        if format & FMT_BYTES:
            if not isinstance(value, (bytes, bytearray)):
                raise ValueFormatError.pyexc(
                    f"FMT_BYTES takes bytes or a bytearray, not {type(value).__name__}", obj=value
                )
            return bytes(value), format & FMT_MASK
        pickled = _pickle_encode(value)
        if not isinstance(pickled, bytes):
            raise ValueFormatError.pyexc("the pickle converter must return bytes", obj=pickled)
        return pickled, FMT_PICKLE
    except CouchbaseError:
        raise
    except Exception as error:
        raise ValueFormatError.pyexc("the value cannot be encoded", obj=value, inner=error) from error


def format_of_flags(flags: int) -> int:
    """Return the ``FMT_*`` constant for stored flags of any SDK."""
    common = flags & _COMMON_MASK
    if common in _COMMON_TO_FORMAT:
        return _COMMON_TO_FORMAT[common]
    return flags & FMT_MASK


def decode_value(value: bytes, flags: int) -> Any:
    """Return the object that was stored.

    Values flagged as pickles are unpickled, as SDK 1.2 does: never read such documents from a
    bucket that others can write, or give the connection a :class:`NoPickleTranscoder`.

    :raises ValueFormatError: the bytes are not what the flags say; ``objextra`` holds them.
    """
    try:
        if not flags or flags == COMMON_JSON:
            text = value.decode()
            if _json_decode is _loads:
                # _loads is inlined: nearly every read ends here.
                try:
                    found, end = _scan_json(text, 0)
                    if end == len(text):
                        return found
                except StopIteration:
                    pass  # json.loads raises an error that says what is wrong.
            return _json_decode(text)
        format = format_of_flags(flags)
        if format & FMT_UTF8:
            return value.decode()
        if format & FMT_BYTES:
            return value
        if format & FMT_PICKLE:
            return _pickle_decode(value)
        return _json_decode(value.decode())
    except Exception as error:
        raise ValueFormatError.pyexc(
            f"the value cannot be decoded by its flags (0x{flags:x})", obj=value, inner=error
        ) from error


class AnyTranscoder(Protocol):
    """The interface of a connection's ``transcoder``; keys and values may be of any type."""

    def encode_key(self, key: Any, /) -> bytes:
        """Return the bytes of a key, at most 250."""

    def decode_key(self, key: bytes, /) -> Any:
        """Return the key that results carry; it must be hashable."""

    def encode_value(self, value: Any, format: Any, /) -> tuple[bytes, int]:
        """Return the bytes of a value and the flags to store, a number of 32 bits."""

    def decode_value(self, value: bytes, flags: int, /) -> Any:
        """Return the value for stored bytes and flags."""


class Transcoder:
    """The rules of this module as an object to subclass; give one to a connection as ``transcoder``."""

    def encode_key(self, key: object) -> bytes:
        """See :func:`encode_key`."""
        return encode_key(key)

    def decode_key(self, key: bytes) -> Any:
        """Return the key as ``str``."""
        return key.decode()

    def encode_value(self, value: object, format: Any) -> tuple[bytes, int]:
        """See :func:`encode_value`; without ``FMT_AUTO`` (TypeError)."""
        if format is FMT_AUTO:
            raise TypeError("FMT_AUTO is resolved by determine_format")
        return encode_value(value, format)

    def decode_value(self, value: bytes, flags: int) -> Any:
        """See :func:`decode_value`."""
        return decode_value(value, flags)

    def determine_format(self, value: object) -> int:
        """See :func:`determine_format`."""
        return determine_format(value)


class NoPickleTranscoder(Transcoder):
    """A :class:`Transcoder` that neither pickles nor unpickles.

    Unpickling can run any code. Use this transcoder if others can write to the bucket.
    """

    def encode_value(self, value: object, format: Any) -> tuple[bytes, int]:
        """See :func:`encode_value`.

        :raises ValueFormatError: the value would be pickled.
        """
        if format is FMT_AUTO:
            format = determine_format(value)
        if _pickles(format):
            raise ValueFormatError.pyexc("this transcoder does not pickle", obj=value)
        return encode_value(value, format)

    def decode_value(self, value: bytes, flags: int) -> Any:
        """See :func:`decode_value`.

        :raises ValueFormatError: the flags say that it is a pickle.
        """
        if _pickles(format_of_flags(flags)):
            raise ValueFormatError.pyexc("this transcoder does not unpickle", obj=value)
        return decode_value(value, flags)


def _pickles(format: object) -> bool:
    return isinstance(format, int) and bool(format & FMT_PICKLE) and not format & (FMT_UTF8 | FMT_BYTES)


class RawTranscoder:
    """Keys and values are bytes, and stay unchanged; ``format`` is the 32 bits of flags to store.

    For programs that only pass documents on. It costs nothing: a connection recognises this class (but no
    subclass), and does not call its methods. Results have the given key, the bytes of the value, and the
    stored flags; nothing is ever unpickled. An addition to SDK 1.2.
    """

    def encode_key(self, key: object) -> bytes:
        """Return the key.

        :raises ValueFormatError: not ``bytes``.
        :raises ArgumentError: empty, or over 250 bytes.
        """
        if type(key) is not bytes:
            raise ValueFormatError.pyexc(f"a raw key must be bytes, not {type(key).__name__}", obj=key)
        if not key:
            raise ArgumentError.pyexc("a key must not be empty", obj=key)
        check_key_length(key)
        return key

    def decode_key(self, key: bytes) -> bytes:
        """Return the key."""
        return key

    def encode_value(self, value: object, format: Any) -> tuple[bytes, int]:
        """Return the value with its flags.

        :raises ValueFormatError: not ``bytes``, or flags that are no number of 32 bits.
        """
        if type(value) is not bytes:
            raise ValueFormatError.pyexc(f"a raw value must be bytes, not {type(value).__name__}", obj=value)
        if type(format) is not int or not 0 <= format < 2**32:
            raise ValueFormatError.pyexc("the flags of a raw value must be a number of 32 bits", obj=format)
        return value, format

    def decode_value(self, value: bytes, flags: int) -> bytes:
        """Return the value."""
        return value


class TranscoderPP:
    """The sample transcoder of SDK 1.2, in plain Python: a base for a program's own transcoder.

    Raises ordinary ValueError and TypeError, which the connection wraps.
    """

    def encode_key(self, key: str) -> bytes:
        """Return the key's UTF-8."""
        return key.encode("utf-8")

    def decode_key(self, key: bytes) -> str:
        """Return the key's text."""
        return key.decode("utf-8")

    def encode_value(self, value: object, format: Any) -> tuple[bytes, int]:
        """Return bytes and flags.

        :raises TypeError: the value does not fit the format.
        :raises ValueError: the format is unknown.
        """
        if format is FMT_AUTO:
            format = determine_format(value)
        kind = format & FMT_MASK
        if kind == FMT_BYTES:
            if not isinstance(value, (bytes, bytearray)):
                raise TypeError(f"FMT_BYTES takes bytes or a bytearray, not {type(value).__name__}")
            return bytes(value), format
        if kind == FMT_UTF8:
            if not isinstance(value, str):
                raise TypeError(f"FMT_UTF8 takes a str, not {type(value).__name__}")
            return value.encode("utf-8"), format
        if kind == FMT_PICKLE:
            return pickle.dumps(value), FMT_PICKLE
        if kind == FMT_JSON:
            return json.dumps(value, ensure_ascii=False).encode("utf-8"), FMT_JSON
        raise ValueError(f"unknown format {format!r}")

    def decode_value(self, value: bytes, flags: int) -> Any:
        """Return the object; for flags without a known format, warn and return the bytes."""
        kind = flags & FMT_MASK
        if kind == FMT_BYTES:
            return value
        if kind == FMT_UTF8:
            return value.decode("utf-8")
        if kind == FMT_PICKLE:
            return pickle.loads(value)
        if kind == FMT_JSON:
            return json.loads(value.decode("utf-8"))
        warnings.warn(f"unknown flags 0x{flags:x}: the value is left as bytes", RuntimeWarning, stacklevel=2)
        return value
