"""Tests of the HTTP front end.

Most of them make a gateway of their own, and most of the time for that was werkzeug's: for each route it
compiles two functions that make URLs. No gateway makes URLs, so here they are compiled on their first call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from werkzeug.routing import Rule

_Builder = Callable[..., Any]


def on_first_call(compile_builder: Callable[[Rule, bool], _Builder]) -> Callable[..., _Builder]:
    """Return a method like :meth:`Rule._compile_builder` whose result compiles when it is called."""

    def later(rule: Rule, append_unknown: bool = True) -> _Builder:
        def build(this: Rule, **values: Any) -> Any:
            return compile_builder(this, append_unknown).__get__(this, None)(**values)

        return build

    return later


if not hasattr(Rule, "_compiles_on_first_call"):
    Rule._compile_builder = on_first_call(Rule._compile_builder)  # type: ignore[method-assign, arg-type]
    Rule._compiles_on_first_call = True  # type: ignore[attr-defined]
