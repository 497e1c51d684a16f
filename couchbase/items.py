"""Items: documents as a program's own objects, and collections of items for multi operations.

An operation on items fills them in place: the MultiResult holds the same objects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from couchbase.exceptions import ArgumentError
from couchbase.protocol.request import Operation, Request
from couchbase.result import Result, ValueResult

if TYPE_CHECKING:
    from typing_extensions import Self


class Slot(Protocol):
    """A slot of a class, which reads and sets a field of its objects."""

    def __get__(self, owner: Result, /) -> Any:
        """Return the field."""

    def __set__(self, owner: Result, value: object, /) -> None:
        """Set the field."""


# The four fields are in the slots of the base classes. A subclass may shadow their names (a property named
# ``value``, an attribute named ``_value``), so the SDK uses the slots.
_CAS: Slot = Result.__dict__["_cas"]
_KEY: Slot = Result.__dict__["_key"]
_RC: Slot = Result.__dict__["_rc"]
_TOKEN: Slot = Result.__dict__["_token"]
_VALUE: Slot = ValueResult.__dict__["_value"]
_FLAGS: Slot = ValueResult.__dict__["_flags"]


def _field(slot: Slot, default: object, doc: str) -> Any:
    def read(item: Result) -> Any:
        try:
            return slot.__get__(item)
        except AttributeError:
            return default

    return property(read, slot.__set__, doc=doc)


class Item(ValueResult):
    """A document that operations read and fill.

    Subclasses may have attributes of their own, and need not call this class's ``__init__``.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Create an item whose value is not set."""
        item = super().__new__(cls)
        _RC.__set__(item, 0)
        _CAS.__set__(item, 0)
        _FLAGS.__set__(item, 0)
        _TOKEN.__set__(item, None)
        return item

    def __init__(self, key: object = None, value: object = None) -> None:
        _KEY.__set__(self, key)
        _VALUE.__set__(self, value)

    if TYPE_CHECKING:
        # The same as the lines below, for type checkers.
        key: Any
        value: Any
        cas: int
        flags: int
    else:
        key = _field(_KEY, None, "The key.")
        value = _field(_VALUE, None, "The document's value.")
        cas = _field(_CAS, 0, "CAS of the document when it was last read or stored; 0 for none.")
        flags = _field(_FLAGS, 0, "Flags stored with the document, once it was read.")

    def as_itcoll(self, **options: object) -> ItemCollection:
        """Return a collection of only this item, with options if any are given."""
        if not options:
            return ItemSequence(self)
        collection = ItemOptionDict()
        collection.add(self, **options)
        return collection

    def _fields(self) -> list[str]:
        rc = _RC.__get__(self)
        return [
            f"RC=0x{rc:X}" + (f"[{self.errstr}]" if rc else ""),
            f"Key={Item.key.__get__(self)!r}",
            f"Value={Item.value.__get__(self)!r}",
            f"CAS=0x{_CAS.__get__(self):x}",
            f"Flags=0x{_FLAGS.__get__(self):x}",
        ]


class ItemCollection:
    """Base of collections of items; subclasses provide the items and their number."""

    def __len__(self) -> int:
        """Return the number of items."""
        raise NotImplementedError("a collection of items must implement __len__")

    def dict_items(self) -> Iterator[tuple[Any, ...]]:
        """Iterate over ``(item, options)``; options are a dict or ``None``."""
        raise NotImplementedError("a collection of items must implement dict_items")

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.dict_items())


class ItemSequence(ItemCollection):
    """Items without options.

    :param obj: a sequence of items, or one item.
    """

    def __init__(self, obj: Item | Collection[Item]) -> None:
        if isinstance(obj, Item):
            self._sequence: Any = [obj]
        elif hasattr(obj, "__len__") and hasattr(obj, "__iter__") and not isinstance(obj, (str, bytes)):
            self._sequence = obj
        else:
            raise ArgumentError.pyexc("expected an Item, or a sequence of items", obj=obj)

    @property
    def sequence(self) -> Any:
        """The items."""
        return self._sequence

    def __len__(self) -> int:
        return len(self._sequence)

    def dict_items(self) -> Iterator[tuple[Any, ...]]:
        """Iterate over ``(item, None)``."""
        return ((item, None) for item in self._sequence)


class ItemOptionDict(ItemCollection):
    """Items with options of their own.

    :param d: dict of item -> dict of options, or ``None``.
    """

    def __init__(self, d: dict[Any, Any] | None = None) -> None:
        if d is not None and not isinstance(d, dict):
            raise ArgumentError.pyexc("expected a dict of item -> options", obj=d)
        self._dict: dict[Any, Any] = {} if d is None else d

    @property
    def dict(self) -> Any:
        """The dict of item -> options or ``None``; changes to it take effect."""
        return self._dict

    def add(self, item: Item, **options: object) -> None:
        """Add an item, or replace its options.

        :param options: for stores ``ttl``, ``format``, ``ignore_cas``; for append and prepend also
            ``fragment``; for reads ``ttl``; for counters ``delta``, ``initial``, ``ttl``.
        """
        self._dict[item] = options or None

    def __len__(self) -> int:
        return len(self._dict)

    def dict_items(self) -> Iterator[tuple[Any, ...]]:
        """Iterate over ``(item, options)``."""
        return iter(self._dict.items())


class ItemTarget(NamedTuple):
    """Takes the place of a key: the item that an operation fills."""

    item: Item
    name: Any = None
    """The key that the result carries; ``None`` for the item's own."""

    @property
    def key(self) -> Any:
        """The key.

        :raises ArgumentError: the item has no key.
        """
        if self.name is not None:
            return self.name
        try:
            key = _KEY.__get__(self.item)
        except AttributeError:
            key = None
        if key is None:
            raise ArgumentError.pyexc("the item has no key", obj=self.item)
        return key


def item_options(items: ItemCollection, allowed: Sequence[str]) -> list[tuple[Item, dict[str, Any]]]:
    """Return the ``(item, options)`` pairs of a collection.

    :param allowed: names that options may have.
    :raises ArgumentError: no items, an object that is not an item, or an unknown option.
    """
    size = len(items)
    if not size:
        raise ArgumentError.pyexc("no items given", obj=items)
    pairs = []
    for _, entry in zip(range(size), items):
        if not isinstance(entry, tuple) or not 1 <= len(entry) <= 2:
            raise ArgumentError.pyexc("a collection of items must yield tuples (item, options)", obj=entry)
        item = entry[0]
        options = entry[1] if len(entry) == 2 else None
        if not isinstance(item, Item):
            raise ArgumentError.pyexc("not an Item", obj=item)
        if options is not None and not isinstance(options, dict):
            raise ArgumentError.pyexc("options of an item must be a dict or None", obj=options)
        unknown = set(options or ()) - set(allowed)
        if unknown:
            raise ArgumentError.pyexc(f"unknown options {unknown}; expected {sorted(allowed)}", obj=options)
        pairs.append((item, dict(options or {})))
    if len(pairs) < size:
        raise ArgumentError.pyexc("the collection of items is shorter than its length", obj=items)
    return pairs


def item_cas(item: Item) -> int:
    """Return an item's CAS."""
    return int(_CAS.__get__(item))


def item_value(item: Item) -> Any:
    """Return an item's value.

    :raises ArgumentError: the value was never set.
    """
    try:
        return _VALUE.__get__(item)
    except AttributeError:
        raise ArgumentError.pyexc("the item's value was never set", obj=repr(type(item))) from None


def extend_value(item: Item, fragment: Any, before: bool) -> None:
    """Extend an item's value by the fragment that was added to the document."""
    value = item_value(item)
    if value is not None:
        _VALUE.__set__(item, fragment + value if before else value + fragment)


def fill(item: Item, result: Result) -> None:
    """Store the outcome of an operation in an item; a failure leaves value and CAS unchanged."""
    _RC.__set__(item, result._rc)
    if result._rc:
        return
    if result._cas:
        _CAS.__set__(item, result._cas)
    if isinstance(result, ValueResult):
        _VALUE.__set__(item, result._value)
        _FLAGS.__set__(item, result._flags)


def filling(operation: Operation, item: Item) -> Operation:
    """Return the operation, changed to store its outcome in ``item``."""
    decode: Callable[..., Any] = operation.decode

    def into_item(request: Request, *answer: Any) -> Any:
        fill(item, decode(request, *answer))
        return item

    def failed(code: int) -> Any:
        _RC.__set__(item, code)
        return item

    return Operation(operation.name, operation.opcode, operation.mutates, failed, into_item)


def extend_values(results: Mapping[Any, Any], items: ItemCollection, before: bool) -> None:
    """Extend the values of the items whose documents were extended, by the fragments in their options.

    :param results: the multi operation's result, or its error's ``all_results``.
    """
    good = {id(result) for result in results.values() if not result.rc}
    for entry in items:
        if id(entry[0]) in good:
            extend_value(entry[0], entry[1]["fragment"], before)
