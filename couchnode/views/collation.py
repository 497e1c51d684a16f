"""Couchbase's order of view keys as bytes: ``memcmp`` of two sort keys orders their JSON values.

null < false < true < numbers < strings < arrays < objects. A sort key is self-delimiting, kind byte first::

    null     02
    false    03
    true     04
    number   05, then the IEEE double in 8 bytes that compare as the number does
    string   06, then ICU's sort key of the root locale, whose only 00 is its last byte
    array    07, the elements, 00
    object   08, each member as its name (a string) and its value, in stored order, 00

The closing 00 is below every kind byte, so the shorter array comes first, and no sort key is the beginning of
another. What an index needs for ``group_level``: an array key without its closing 00, cut after N elements,
is the beginning of the sort keys of exactly those arrays that begin with equal elements. So each group is one
range of bytes, from its *group key* ``p`` up to ``p + b"\\xff"``: see :func:`group_length`.
"""

from __future__ import annotations

import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from struct import Struct
from typing import Any

import orjson

__all__ = ["GROUP_END", "CollationUnavailable", "KeyEncoder", "group_length"]

_NULL = b"\x02"
_FALSE = b"\x03"
_TRUE = b"\x04"
_NUMBER = b"\x05"
_STRING = b"\x06"
_ARRAY = b"\x07"
_OBJECT = b"\x08"
_END = b"\x00"

#: Appended to a group key, it gives the first position behind the group: it is above any byte that can
# follow.
GROUP_END = b"\xff"

_NUMBER_KIND, _STRING_KIND, _ARRAY_KIND = _NUMBER[0], _STRING[0], _ARRAY[0]

_pack_double = Struct(">d").pack
_pack_bits = Struct(">Q").pack
_unpack_bits = Struct(">Q").unpack

_ALL_BITS = (1 << 64) - 1

# Strings this short are cached: names of types, countries and similar texts repeat often.
_MEMO_LENGTH = 64
_MEMO_SIZE = 16384

# The next token of a JSON text, for texts that the parsers refuse (see KeyEncoder.from_json).
_TOKEN = re.compile(r"[ \t\n\r,:]*(?:([\[\]{}\"])|(null|true|false)|([-0-9][-+.0-9eE]*))")


class CollationUnavailable(Exception):
    """ICU, which orders strings as Couchbase does, is not installed."""


class KeyEncoder:
    """Makes sort keys. It has an ICU collator and a cache, so each thread needs its own.

    :raises CollationUnavailable: the module ``icu`` cannot be imported; the text names what to install.
    """

    def __init__(self) -> None:
        try:
            from icu import (  # type: ignore[import-untyped]
                Collator,
                Locale,
                UCollAttribute,
                UCollAttributeValue,
            )
        except ImportError as error:
            raise CollationUnavailable(
                f"Views need ICU to order keys, and the module icu cannot be imported ({error}):"
                " install pyicu-wheels"
            ) from error
        collator = Collator.createInstance(Locale.getRoot())
        # As V8 does: text that is not normalized compares like the same text normalized.
        collator.setAttribute(UCollAttribute.NORMALIZATION_MODE, UCollAttributeValue.ON)
        self._icu_sort_key = collator.getSortKey
        self._memo: dict[str, bytes] = {}

    def sort_key(self, value: Any) -> bytes:
        """Return the sort key of a parsed JSON value.

        :param value: ``None``, bool, int, float, str (lone surrogates too), list or tuple, or dict in stored
            order.
        :raises TypeError: another type.
        :raises ValueError: NaN, which JSON cannot express.
        :raises RecursionError: nested too deeply for Python; :meth:`from_json` has no such limit.
        """
        kind = type(value)
        if kind is str:
            return self._memo.get(value) or self._string(value)
        if kind is list:
            # The usual keys: arrays of strings and numbers. Their sort keys are joined without another call.
            memo = self._memo
            parts = [_ARRAY]
            for element in value:
                if type(element) is str:
                    parts.append(memo.get(element) or self._string(element))
                else:
                    parts.append(self.sort_key(element))
            parts.append(_END)
            return b"".join(parts)
        if value is None:
            return _NULL
        if kind is bool:
            return _TRUE if value else _FALSE
        if kind is int or kind is float:
            return _number(value)
        if kind is dict:
            parts = [_OBJECT]
            for name, member in value.items():
                parts.append(self._memo.get(name) or self._string(name))
                parts.append(self.sort_key(member))
            parts.append(_END)
            return b"".join(parts)
        if kind is tuple:
            return self.sort_key(list(value))
        raise TypeError(f"Not a JSON value: {kind.__name__}")

    def from_json(self, text: str | bytes) -> bytes:
        """Return the sort key of a JSON text, however deeply it is nested.

        :param text: must be valid JSON (printed by ``JSON.stringify``, or parsed before); anything else gives
            ``ValueError`` or a meaningless sort key.
        """
        try:
            return self.sort_key(orjson.loads(text))
        except (orjson.JSONDecodeError, RecursionError):
            # Lone surrogates, which JavaScript prints as escapes, or nesting beyond what parsers take.
            return self._scan(text if isinstance(text, str) else text.decode())

    def _string(self, text: str) -> bytes:
        key: bytes = _STRING + self._icu_sort_key(text)
        if len(text) <= _MEMO_LENGTH:
            memo = self._memo
            if len(memo) >= _MEMO_SIZE:
                memo.clear()
            memo[text] = key
        return key

    def _scan(self, text: str) -> bytes:
        """Encode a JSON text token by token: the encoding has the shape of the text, no stack is needed."""
        parts: list[bytes] = []
        position = 0
        end = len(text.rstrip(" \t\n\r"))
        while position < end:
            token = _TOKEN.match(text, position)
            if token is None:
                raise ValueError(f"Not a JSON text: {text[:100]!r}")
            position = token.end()
            mark, word, number = token.groups()
            if mark == '"':
                string, position = scanstring(text, position, True)
                parts.append(self._string(string))
            elif mark is not None:
                parts.append(_ARRAY if mark == "[" else _OBJECT if mark == "{" else _END)
            elif word is not None:
                parts.append(_NULL if word == "null" else _TRUE if word == "true" else _FALSE)
            else:
                parts.append(_number(float(number)))
        return b"".join(parts)


def _number(value: float) -> bytes:
    """Encode a number: positive doubles order as their bits do, negative ones the other way round."""
    if value != value:
        raise ValueError("NaN is not a JSON value")
    try:
        # Adding zero makes -0.0 the same as 0.
        packed = _pack_double(value + 0.0)
    except OverflowError:
        packed = _pack_double(float("inf") if value > 0 else float("-inf"))
    if packed[0] < 0x80:
        return _NUMBER + (packed[0] | 0x80).to_bytes(1, "big") + packed[1:]
    return _NUMBER + _pack_bits(_unpack_bits(packed)[0] ^ _ALL_BITS)


def group_length(key: bytes, level: int) -> int:
    """Return the length of a sort key's group key, in bytes.

    The group is the range from ``key[:length]`` up to ``key[:length] + GROUP_END``.

    :param key: a whole sort key.
    :param level: as ``group_level``, at least 1: array keys are cut to their first ``level`` elements; other
        keys, and shorter arrays, are groups of their own. Negative: every key is (``group=true``).
    """
    if level < 1 or key[0] != _ARRAY_KIND:
        return len(key)
    position = 1
    depth = 0
    while True:
        kind = key[position]
        if kind == 0:
            if depth == 0:  # fewer than ``level`` elements
                return len(key)
            position += 1
            depth -= 1
        elif kind == _STRING_KIND:
            position = key.index(0, position) + 1
        elif kind == _NUMBER_KIND:
            position += 9
        else:
            position += 1
            if kind >= _ARRAY_KIND:
                depth += 1
                continue
        if depth == 0:
            level -= 1
            if level == 0:
                return position
