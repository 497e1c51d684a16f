"""Helpers for parsers of long JSON texts."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["first_repeated", "without_collecting"]


@contextmanager
def without_collecting() -> Iterator[None]:
    """Keep the garbage collector from running while a long text is parsed.

    Parsing only creates objects, and the collector would examine all of them repeatedly.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def first_repeated(names: Iterable[str]) -> str:
    """Return the first name that comes a second time.

    :raises ValueError: none does.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    raise ValueError("no name is repeated")
