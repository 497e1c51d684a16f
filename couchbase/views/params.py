"""Parameters of a view query: checked when set, encoded on request."""

from __future__ import annotations

import json
import urllib.parse as ulp  # noqa: F401  # 1.2 has this name here
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Callable, Final, Literal, NoReturn, TypedDict, Union, overload
from urllib.parse import quote, unquote

from couchbase.exceptions import ArgumentError

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _Unspec:
    """Type of :data:`UNSPEC`; there is one."""

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return ""

    def __repr__(self) -> str:
        return "<Placeholder>"

    def __copy__(self) -> _Unspec:
        return self

    def __deepcopy__(self, memo: object) -> _Unspec:
        return self

    def __reduce__(self) -> str:
        return "UNSPEC"


UNSPEC = _Unspec()
"""Stands for "not set"; setting an option to it removes the option."""

STALE_UPDATE_BEFORE: Final = "false"
"""Index everything first, then answer."""
STALE_UPDATE_AFTER: Final = "update_after"
"""Answer from the index as it is, then update it."""
STALE_OK: Final = "ok"
"""Answer from the index as it is."""
ONERROR_CONTINUE: Final = "continue"
"""Answer with the available rows, and the errors with them."""
ONERROR_STOP: Final = "stop"
"""End the rows at the first error."""


_Flag = Union[bool, float, Literal["true", "false"], _Unspec]
_Number = Union[float, str, _Unspec]
_Text = Union[str, float, _Unspec]
_Stale = Union[bool, float, Literal["ok", "false", "true", "update_after"], _Unspec]
_OnError = Union[Literal["continue", "stop"], _Unspec]
_Range = Union[Sequence[object], _Unspec]
_TextRange = Union[Sequence[Union[str, float]], _Unspec]


class QueryOptions(TypedDict, total=False):
    """Options of a view query, by name; see :class:`Query`."""

    descending: _Flag
    reduce: _Flag
    group: _Flag
    inclusive_end: _Flag
    full_set: _Flag
    debug: _Flag
    skip: _Number
    limit: _Number
    group_level: _Number
    connection_timeout: _Number
    startkey: object
    endkey: object
    key: object
    keys: object
    startkey_docid: _Text
    endkey_docid: _Text
    stale: _Stale
    on_error: _OnError
    mapkey_single: object
    mapkey_multi: object
    mapkey_range: _Range
    dockey_range: _TextRange


def _refuse(name: str, value: object, expected: str) -> NoReturn:
    raise ArgumentError.pyexc(f"{name} must be {expected}", obj=value)


def _boolean(name: str, value: object) -> str:
    if isinstance(value, (bool, int, float)):
        return "true" if value else "false"
    if isinstance(value, str) and value in ("true", "false"):
        return value
    _refuse(name, value, "a bool, a number, 'true' or 'false'")


def _number(name: str, value: object) -> str:
    if not isinstance(value, bool) and isinstance(value, (int, float, str)):
        try:
            return str(int(value))
        except (ValueError, OverflowError):
            pass
    _refuse(name, value, "a whole number")


def _string(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        _refuse(name, value, "a str or a number")
    return str(value)


def _json_value(name: str, value: object) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError.pyexc(
            f"{name} cannot be serialized as JSON: {error}", obj=value, inner=error
        ) from error


def _json_array(name: str, value: object) -> str:
    text = _json_value(name, value)
    if not text.startswith("["):
        _refuse(name, value, "a value that is a JSON array")
    return text


def _stale(name: str, value: object) -> str:
    if isinstance(value, str) and value in (STALE_OK, STALE_UPDATE_BEFORE, STALE_UPDATE_AFTER):
        return value
    try:
        return STALE_OK if _boolean(name, value) == "true" else STALE_UPDATE_BEFORE
    except ArgumentError:
        _refuse(name, value, "'ok', 'false', 'update_after' or a bool")


def _on_error(name: str, value: object) -> str:
    if not isinstance(value, str) or value not in (ONERROR_CONTINUE, ONERROR_STOP):
        _refuse(name, value, "'continue' or 'stop'")
    return value


_TYPES: dict[str, Callable[[str, Any], str]] = {
    **dict.fromkeys(("descending", "reduce", "group", "inclusive_end", "full_set", "debug"), _boolean),
    **dict.fromkeys(("skip", "limit", "group_level", "connection_timeout"), _number),
    **dict.fromkeys(("startkey", "endkey", "key"), _json_value),
    "keys": _json_array,
    **dict.fromkeys(("startkey_docid", "endkey_docid"), _string),
    "stale": _stale,
    "on_error": _on_error,
}
_HANDLER_MAP = _TYPES
"""The same under 1.2's name."""
_ALIASES = {"mapkey_single": "key", "mapkey_multi": "keys"}
_RANGES = {"mapkey_range": ("startkey", "endkey"), "dockey_range": ("startkey_docid", "endkey_docid")}


class Params:
    """The names of the options: ``Params.STARTKEY == 'startkey'``, and so on."""

    DESCENDING = "descending"
    REDUCE = "reduce"
    GROUP = "group"
    INCLUSIVE_END = "inclusive_end"
    FULL_SET = "full_set"
    DEBUG = "debug"
    SKIP = "skip"
    LIMIT = "limit"
    GROUP_LEVEL = "group_level"
    CONNECTION_TIMEOUT = "connection_timeout"
    STARTKEY = "startkey"
    ENDKEY = "endkey"
    KEY = "key"
    KEYS = "keys"
    STARTKEY_DOCID = "startkey_docid"
    ENDKEY_DOCID = "endkey_docid"
    STALE = "stale"
    ON_ERROR = "on_error"
    MAPKEY_SINGLE = "mapkey_single"
    MAPKEY_MULTI = "mapkey_multi"
    MAPKEY_RANGE = "mapkey_range"
    DOCKEY_RANGE = "dockey_range"


_UNCHANGING = (str, int, float, bool)


class Query:
    """Options of a view query.

    Each option is a keyword and a property. An option that is not set reads as :data:`UNSPEC`;
    setting it to :data:`UNSPEC` removes it. ``mapkey_single`` is another name of ``key`` and
    ``mapkey_multi`` of ``keys``; ``mapkey_range`` and ``dockey_range`` set start and end together.

    :param passthrough: send all values unchanged: only names are checked.
    :param unrecognized_ok: accept unknown options, and send them unchanged after the others.
    :raises ArgumentError: an unknown option, or a value that the option cannot have.
    """

    STRING_RANGE_END = "\u0fff"
    """Appended to a prefix, it is the end of the range of strings that begin with the prefix."""

    __slots__ = ("_base", "_passthrough", "_raw", "_sent", "_set", "_unrecognized_ok")

    if TYPE_CHECKING:
        # Properties, made below. The same as QueryOptions: a type checker needs both lists written out.
        descending: _Flag
        reduce: _Flag
        group: _Flag
        inclusive_end: _Flag
        full_set: _Flag
        debug: _Flag
        skip: _Number
        limit: _Number
        group_level: _Number
        connection_timeout: _Number
        startkey: object
        endkey: object
        key: object
        keys: object
        startkey_docid: _Text
        endkey_docid: _Text
        stale: _Stale
        on_error: _OnError
        mapkey_single: object
        mapkey_multi: object
        mapkey_range: _Range
        dockey_range: _TextRange

    @overload
    def __init__(self, **options: Unpack[QueryOptions]) -> None: ...

    @overload
    def __init__(self, passthrough: bool, unrecognized_ok: bool = ..., **options: object) -> None: ...

    @overload
    def __init__(self, passthrough: bool = ..., *, unrecognized_ok: bool, **options: object) -> None: ...

    def __init__(self, passthrough: bool = False, unrecognized_ok: bool = False, **options: object) -> None:
        self._passthrough = passthrough
        self._unrecognized_ok = unrecognized_ok
        self._base = ""
        # The values set, by option; the texts to send, by parameter, not percent-encoded; and unknown
        # options.
        self._set: dict[str, Any] = {}
        self._sent: dict[str, str] = {}
        self._raw: dict[str, str] = {}
        for name, value in options.items():
            self._set_option(name, value)

    def update(self, copy: bool = False, **options: object) -> Query:
        """Set more options.

        :param copy: change and return a copy instead of this object.
        :raises ArgumentError: see the class; the options before the wrong one stay set.
        """
        target = deepcopy(self) if copy else self
        for name, value in options.items():
            target._set_option(name, value)
        return target

    def __deepcopy__(self, memo: dict[int, Any]) -> Query:
        # Every query that is sent was copied, and has few options, mostly plain ones.
        copied: Query = object.__new__(type(self))
        copied._passthrough, copied._unrecognized_ok = self._passthrough, self._unrecognized_ok
        copied._base, copied._sent, copied._raw = self._base, self._sent.copy(), self._raw.copy()
        copied._set = {
            name: value if type(value) in _UNCHANGING else deepcopy(value, memo)
            for name, value in self._set.items()
        }
        return copied

    @classmethod
    def from_any(cls, params: Query | dict[str, Any] | str) -> Query:
        """Return a new Query from a Query, a dict of options, or the text of a query string.

        Text is sent verbatim, before all other options.

        :raises ArgumentError: something else, or a wrong option.
        """
        if isinstance(params, Query):
            return params.__deepcopy__({})
        if isinstance(params, dict):
            return cls(**params)
        if isinstance(params, str):
            query = cls()
            query._base = params
            return query
        raise ArgumentError.pyexc("query must be a Query, a dict or a str", obj=params)

    @property
    def has_blob(self) -> bool:
        """Whether a part of this is sent unchecked: it was made from text, or with one of the two flags."""
        return bool(self._base or self._passthrough or self._unrecognized_ok)

    @property
    def encoded(self) -> str:
        """The query string, ``''`` if nothing is set."""
        return self._encode(self._sent)

    @property
    def _long_query_encoded(self) -> tuple[str, str]:
        """The query string without ``keys``, and a JSON body with them."""
        rest = {name: text for name, text in self._sent.items() if name != "keys"}
        keys = self._sent.get("keys")
        if keys is not None and self._passthrough:
            keys = unquote(keys)
        return self._encode(rest), "{}" if keys is None else f'{{"keys":{keys}}}'

    def _encode(self, sent: dict[str, str]) -> str:
        escape: Callable[[str], str] = str if self._passthrough else quote
        parts = [self._base] if self._base else []
        parts += [f"{escape(name)}={escape(text)}" for name, text in sent.items()]
        parts += [f"{name}={text}" for name, text in self._raw.items()]
        return "&".join(parts)

    def _get_option(self, name: str) -> Any:
        return self._set.get(_ALIASES.get(name, name), UNSPEC)

    def _set_option(self, name: str, value: object) -> None:
        name = _ALIASES.get(name, name)
        if name in _RANGES:
            self._set_range(name, value)
        elif name in _TYPES:
            self._send(name, value)
            self._remember(name, value)
        elif not self._unrecognized_ok:
            raise ArgumentError.pyexc(f"unknown view option {name!r}", obj={name: value})
        elif value is UNSPEC:
            self._raw.pop(name, None)
        else:
            self._raw[name] = _string(name, value)

    def _remember(self, name: str, value: object) -> None:
        if value is UNSPEC:
            self._set.pop(name, None)
        else:
            self._set[name] = value

    def _send(self, name: str, value: object) -> None:
        if value is UNSPEC:
            self._sent.pop(name, None)
        else:
            self._sent[name] = (_string if self._passthrough else _TYPES[name])(name, value)

    def _set_range(self, name: str, value: object) -> None:
        start, end = _RANGES[name]
        if value is UNSPEC:
            value = ()
        if not isinstance(value, (list, tuple)) or len(value) > 2:
            _refuse(name, value, "a list or tuple of one or two elements")
        taken = [option for option in (start, end) if option in self._set]
        if taken:
            raise ArgumentError.pyexc(f"{name} cannot be set together with {' and '.join(taken)}", obj=value)
        first, second = (*value, UNSPEC, UNSPEC)[:2]
        # Checked before the first is changed, so that a refused range changes nothing.
        for option, bound in ((start, first), (end, second)):
            if bound is not UNSPEC and not self._passthrough:
                _TYPES[option](option, bound)
        self._send(start, first)
        self._send(end, second)
        self._remember(name, value if value else UNSPEC)

    def __repr__(self) -> str:
        return f"{type(self).__name__}:{self.encoded!r}"


def _option(name: str) -> property:
    def read(self: Query) -> Any:
        return self._get_option(name)

    def write(self: Query, value: Any) -> None:
        self._set_option(name, value)

    return property(read, write, doc=f"Option ``{name}``.")


for _name in (*_TYPES, *_ALIASES, *_RANGES):
    setattr(Query, _name, _option(_name))


def make_options_string(
    input: Query | dict[str, Any] | str, unrecognized_ok: bool = False, passthrough: bool = False
) -> str:
    """Return the query string of a Query, or of a dict of options.

    :raises ArgumentError: something else, or a wrong option.
    """
    if isinstance(input, dict):
        return Query(passthrough=passthrough, unrecognized_ok=unrecognized_ok, **input).encoded
    return Query.from_any(input).encoded


def make_dvpath(doc: str, view: str) -> str:
    """Return the path of a view, below its bucket's, up to the question mark."""
    return f"_design/{quote(doc, safe='')}/_view/{quote(view, safe='')}?"


def with_devmode(design: object) -> str:
    """Return the name of the development form of a design document.

    :raises ArgumentError: not a text.
    """
    if not isinstance(design, str) or not design:
        raise ArgumentError.pyexc("the name of a design document must be a str that is not empty", obj=design)
    return design if design.startswith("dev_") else f"dev_{design}"
