"""Tests of the HTTP front end.

Most of them make a gateway of their own, and most of the time for that was werkzeug's: it parses each route,
and compiles two functions for it that make URLs. Here each route is compiled once in a process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from werkzeug.routing import Rule

_FOUND = ("_parts", "_trace", "_converters")
"""What werkzeug finds out about a route, besides the names of its parameters and the two functions."""


def once(compile_rule: Callable[[Rule], None]) -> Callable[[Rule], None]:
    """Return a method like :meth:`Rule.compile` that copies what it has found for an equal route before."""
    known: dict[Any, Any] = {}

    def compile_known(rule: Rule) -> None:
        of = rule.map
        if of is None or of.host_matching or of.sort_parameters or rule.defaults:
            compile_rule(rule)
            return
        asked = rule.rule, rule.subdomain, rule.merge_slashes, tuple(of.converters.items())
        found = known.get(asked)
        if found is None:
            compile_rule(rule)
            builders = [getattr(rule, name).__func__ for name in ("_build", "_build_unknown")]
            known[asked] = {name: getattr(rule, name) for name in _FOUND}, set(rule.arguments), builders
            return
        attributes, names, builders = found
        vars(rule).update(attributes)
        rule.arguments |= names
        rule._build, rule._build_unknown = (builder.__get__(rule, None) for builder in builders)

    return compile_known


if not hasattr(Rule, "_is_compiled_once"):
    Rule.compile = once(Rule.compile)  # type: ignore[method-assign, assignment]
    Rule._is_compiled_once = True  # type: ignore[attr-defined]
