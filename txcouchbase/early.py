"""Operations that are started before the connection is up: their Deferreds fail instead of raising
exceptions."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from twisted.internet.defer import fail

from couchbase.exceptions import CouchbaseError

_T = TypeVar("_T")

_SINGLE = (
    *("set", "get", "add", "append", "prepend", "replace", "delete", "incr", "decr", "touch", "lock"),
    *("unlock", "arithmetic", "endure", "observe", "rget", "lookup_in", "mutate_in"),
)
_OPERATIONS = frozenset({*_SINGLE, *(f"{name}_multi" for name in _SINGLE), "stats"})
_classes: dict[type, type] = {}


def connecting(cls: type[_T]) -> type[_T]:
    """Return the class of an object whose connection is not up: wrong arguments fail the Deferred.

    Once the connection is up, the object's class is ``cls`` again.
    """
    made = _classes.get(cls)
    if made is None:
        names = [name for name in dir(cls) if name in _OPERATIONS or name.endswith("Multi")]
        members: dict[str, Any] = {name: _early(getattr(cls, name)) for name in names}
        members |= {"_when_connected": cls, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
        made = _classes[cls] = type(cls.__name__, (cls,), members)
    return made


def _early(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.connected:
            self.__class__ = getattr(type(self), "_when_connected", type(self))
            return method(self, *args, **kwargs)
        try:
            return method(self, *args, **kwargs)
        except CouchbaseError as error:
            # Through its traceback the error would keep the connection alive as long as the program keeps the
            # error.
            return fail(error.with_traceback(None))

    return call
