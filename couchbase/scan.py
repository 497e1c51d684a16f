"""Scans: the documents of a collection, read in pages. An addition to SDK 1.2, with the names of later
SDKs."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from random import getrandbits
from struct import Struct
from typing import Any, Callable, NamedTuple, Optional, Union

from couchbase.exceptions import ArgumentError
from couchbase.protocol.constants import MAX_KEY_BYTES
from couchbase.protocol.rangescan import Page, Position, Scanner, Selection, keys_with
from couchbase.result import ExpiryResult

__all__ = ["PrefixScan", "RangeScan", "SamplingScan", "Scan", "ScanResult", "ScanTerm"]

_VBUCKET = Struct(">H")


class ScanTerm(NamedTuple):
    """One end of a range.

    :ivar term: a key.
    :ivar exclusive: whether the key itself is left out.
    """

    term: str | bytes
    exclusive: bool = False


End = Optional[Union[str, bytes, ScanTerm]]


class RangeScan(NamedTuple):
    """The keys from ``start`` to ``end``, by default inclusive; ``None`` for no limit."""

    start: End = None
    end: End = None


class PrefixScan(NamedTuple):
    """The keys that begin with ``prefix``."""

    prefix: str | bytes


class SamplingScan(NamedTuple):
    """About ``limit`` documents chosen at random, and never more; the same ``seed`` chooses the same."""

    limit: int
    seed: int | None = None


class ScanResult(ExpiryResult):
    """One document of a scan: ``key``, ``value``, ``cas``, ``flags`` and ``expiry``.

    Without a transcoder, ``key`` is a str, or bytes if it is not UTF-8.

    ``value`` is ``None``, and numbers are 0, if the scan returns only keys.

    :ivar attributes: its extended attributes, by name; empty unless the scan reads them.
    """

    __slots__ = ("attributes",)

    def __init__(
        self,
        key: Any,
        value: Any = None,
        cas: int = 0,
        flags: int = 0,
        expiry: int = 0,
        attributes: bytes = b"",
    ) -> None:
        super().__init__(0, cas, value, flags)
        self._key = key
        self._expiry = expiry
        self.attributes: dict[str, Any] = json.loads(attributes) if attributes else {}


def selection_of(what: Any) -> Selection:
    """Return a scan's selection, in the protocol's form.

    :raises ArgumentError: it is none of the three kinds, or has an invalid key or number.
    """
    if what is None:
        return Selection()
    if isinstance(what, Selection):
        return what
    if isinstance(what, PrefixScan):
        return keys_with(_key("prefix", what.prefix))
    if isinstance(what, SamplingScan):
        for name, number in (("limit", what.limit), ("seed", 0 if what.seed is None else what.seed)):
            if type(number) is not int or not 0 <= number < 2**32:
                raise ArgumentError.pyexc(f"{name} of a sample must be a number from 0 to 2^32-1", obj=number)
        seed = getrandbits(32) if what.seed is None else what.seed
        return Selection(samples=what.limit, seed=seed)
    if not isinstance(what, RangeScan):
        raise ArgumentError.pyexc("expected a RangeScan, PrefixScan or SamplingScan", obj=what)
    start, after = _end("start", what.start)
    end, before = _end("end", what.end)
    return Selection(start, end, after, before)


def _as_text(key: bytes) -> str | bytes:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key


def _as_is(value: bytes, flags: int) -> bytes:
    return value


def _end(name: str, given: Any) -> tuple[bytes | None, bool]:
    if given is None:
        return None, False
    if isinstance(given, ScanTerm):
        return _key(name, given.term), bool(given.exclusive)
    return _key(name, given), False


def _key(name: str, given: Any) -> bytes:
    if not isinstance(given, (str, bytes)):
        raise ArgumentError.pyexc(f"{name} must be a key, a str or bytes", obj=given)
    encoded = given if isinstance(given, bytes) else given.encode()
    if len(encoded) > MAX_KEY_BYTES:
        raise ArgumentError.pyexc(f"{name} must have at most {MAX_KEY_BYTES} bytes of UTF-8", obj=given)
    return encoded


def cursor_of(position: Position) -> str:
    """Return a position as text."""
    packed = _VBUCKET.pack(position.vbucket) + (b"" if position.after is None else b"\x01" + position.after)
    return urlsafe_b64encode(packed).decode().rstrip("=")


def position_of(cursor: Any) -> Position:
    """Return the position of a cursor.

    :raises ArgumentError: it is not the cursor of a scan.
    """
    try:
        packed = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        (vbucket,) = _VBUCKET.unpack_from(packed)
        after = packed[3:] if packed[2:3] == b"\x01" else None
        position = Position(vbucket, after)
        if cursor_of(position) == cursor and len(after or b"") <= MAX_KEY_BYTES:
            return position
    except Exception:  # noqa: BLE001  # whatever is wrong with it, it is no cursor
        pass
    raise ArgumentError.pyexc("this is not the cursor of a scan", obj=cursor)


class Scan:
    """A running scan: the part that all drivers share.

    :param documents: the connection, or its view of a collection.
    """

    def __init__(
        self,
        documents: Any,
        what: Any,
        ids_only: bool,
        after: str | None,
        timeout: float | None,
        no_format: bool,
        with_attributes: bool = False,
    ) -> None:
        self._driver = driver = documents._driver
        # Keeps the connection while the scan is used.
        self._documents = documents
        self._timeout = driver.views_timeout if timeout is None else timeout
        self._left = what.limit if isinstance(what, SamplingScan) else None
        self._ids_only = bool(ids_only)
        self._is_left = False
        """Whether the scan was ended early."""
        self._decode_key: Callable[[bytes], Any] = (
            documents._result_key if documents.transcoder or documents.data_passthrough else _as_text
        )
        decode = documents._bytes_decoder if no_format else documents._decoder
        self._decode: Callable[[bytes, int], Any] = decode or _as_is
        position = None if after is None else position_of(after)
        self._scanner = Scanner(
            driver.cluster,
            driver.cluster.seconds,
            selection_of(what),
            keys_only=self._ids_only,
            with_attributes=with_attributes,
            keyspace=documents._keyspace,
            position=position,
        )
        self.cursor: str | None = None if position is None else cursor_of(position)
        """The position after the last page, for ``after`` of another :meth:`scan`; ``None`` before the first
        page, and after the end."""

    def expect(self, rows: int) -> None:
        """Limit the number of further results; may be called before each page.

        Servers then return little more than that. Pages may still have more results.
        """
        self._scanner.expect(rows)

    def page_plan(self) -> Any:
        """Return the plan that gets the next page, a :class:`couchbase.protocol.rangescan.Page`."""
        if self._left == 0:
            # Servers need not keep the rest.
            return self._scanner.cancel()
        return self._scanner.next_page(self._timeout)

    def accept(self, page: Page | None) -> list[ScanResult]:
        """Return the results of a page; none after the end."""
        if page is None:
            if not self._is_left:
                self.cursor = None
            return []
        rows = page.rows
        self.cursor = None if page.position is None else cursor_of(page.position)
        if self._left is not None:
            rows = rows[: self._left]
            self._left -= len(rows)
        if self._ids_only:
            return [ScanResult(self._decode_key(key)) for key in rows]
        decode_key, decode = self._decode_key, self._decode
        return [
            ScanResult(
                decode_key(row.key),
                decode(row.value, row.flags),
                row.cas,
                row.flags,
                row.expiry,
                row.attributes,
            )
            for row in rows
        ]
