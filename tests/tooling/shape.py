"""The shape of the code in numbers: ``python -m tests.tooling.shape [ROOT]``, or ``make shape``.

Everything is read from syntax trees and nothing is imported, so ``ROOT`` may be any checkout of this project,
for example an older one. ``tests/tooling/test_shape.py`` holds limits on some of the numbers.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from tests.tooling.sources import PACKAGES, ROOT, imports_of, module_name, nodes, nodes_of, parsed

__all__ = ["Module", "Shape", "StatefulClass", "boolean_state", "longest_chain", "tangled", "whole"]

LONG_MODULE = 450
LONG_FUNCTION = 60
LONG_SIGNATURE = 8
MANY_BOOLEANS = 5

Function = ast.FunctionDef | ast.AsyncFunctionDef
Graph = dict[str, set[str]]

# What may have functions in it.
_HOLDERS = (ast.stmt, ast.ExceptHandler, ast.match_case)
_BUILDERS = frozenset({"__init__", "__new__", "__post_init__", "__attrs_post_init__"})
_BOOLEAN_CALLS = frozenset({"bool", "isinstance", "issubclass", "hasattr", "callable", "any", "all"})


class Module:
    """One source file.

    :param root: the checkout it lies in.
    """

    def __init__(self, path: Path, root: Path = ROOT) -> None:
        self.path = path
        self.name = module_name(path, root)
        self.text = path.read_text(encoding="utf-8")
        self.tree = parsed(path)

    @property
    def lines(self) -> int:
        """Number of lines, including empty ones."""
        return len(self.text.splitlines())

    @cached_property
    def functions(self) -> list[Function]:
        """Every function and method; a nested one is part of the function around it."""
        found: list[Function] = []
        waiting: list[ast.AST] = [self.tree]
        for node in waiting:
            for one in ast.iter_child_nodes(node):
                if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    found.append(one)
                elif isinstance(one, _HOLDERS):
                    waiting.append(one)
        return found

    @property
    def comments(self) -> int:
        """Number of comments, including suppressions."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return sum(token.type == tokenize.COMMENT for token in tokens)


# ---- functions -----------------------------------------------------------------------------------


def length(function: Function) -> int:
    """Return the lines of a function from ``def`` to its end."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def first_line(function: Function) -> int:
    """Return the number of the line on which a function begins, with its decorators."""
    return min(one.lineno for one in (function, *function.decorator_list))


def parameters(function: Function) -> list[ast.arg]:
    """Return a function's parameters, without ``self`` and ``cls``."""
    given = function.args
    named = [*given.posonlyargs, *given.args]
    if named and named[0].arg in ("self", "cls", "mcs"):
        named = named[1:]
    return [*named, *given.kwonlyargs, *(one for one in (given.vararg, given.kwarg) if one is not None)]


def is_any(annotation: ast.expr | None) -> bool:
    """Return whether an annotation gives no type: ``Any``, alone or as one of several."""
    if annotation is None:
        return False
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value == "Any"
    if isinstance(annotation, ast.BinOp):
        return is_any(annotation.left) or is_any(annotation.right)
    return getattr(annotation, "id", getattr(annotation, "attr", "")) == "Any"


def public_functions(tree: ast.Module) -> Iterator[Function]:
    """Yield the public functions of a module, and the public methods of its public classes."""
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else [node]
        for one in inside:
            if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and not one.name.startswith("_"):
                yield one


# ---- boolean state -------------------------------------------------------------------------------


class StatefulClass(NamedTuple):
    """A class, and those of its attributes that are booleans and change during its objects' life."""

    module: str
    name: str
    booleans: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.module}.{self.name}: {' '.join(self.booleans)}"


def is_boolean(value: ast.expr | None) -> bool:
    """Return whether an expression gives ``True`` or ``False`` whatever comes."""
    if isinstance(value, ast.Constant):
        return isinstance(value.value, bool)
    if isinstance(value, ast.UnaryOp):
        return isinstance(value.op, ast.Not)
    if isinstance(value, ast.BoolOp):
        return all(is_boolean(one) for one in value.values)
    if isinstance(value, ast.IfExp):
        return is_boolean(value.body) and is_boolean(value.orelse)
    if isinstance(value, ast.Call):
        return getattr(value.func, "id", "") in _BOOLEAN_CALLS
    return isinstance(value, ast.Compare)


class _Assignment(NamedTuple):
    target: ast.expr
    value: ast.expr | None
    annotation: ast.expr | None

    @property
    def is_boolean(self) -> bool:
        return is_boolean(self.value) or getattr(self.annotation, "id", "") == "bool"


def _assignments(node: ast.AST) -> Iterator[_Assignment]:
    for one in nodes(node):
        if isinstance(one, ast.Assign):
            for target in one.targets:
                if isinstance(target, ast.Tuple) and isinstance(one.value, ast.Tuple):
                    for part, value in zip(target.elts, one.value.elts, strict=False):
                        yield _Assignment(part, value, None)
                elif isinstance(target, ast.Tuple):
                    for part in target.elts:
                        yield _Assignment(part, None, None)
                else:
                    yield _Assignment(target, one.value, None)
        elif isinstance(one, ast.AnnAssign):
            yield _Assignment(one.target, one.value, one.annotation)


def _owner(target: ast.expr) -> str | None:
    """Return whose attribute is assigned, by its variable; ``""``: no variable, ``None``: no attribute."""
    if not isinstance(target, ast.Attribute):
        return None
    return target.value.id if isinstance(target.value, ast.Name) else ""


def _class_booleans(node: ast.ClassDef, changed_elsewhere: set[str]) -> Iterator[str]:
    seen: dict[str, bool] = {}
    """Boolean attribute -> whether it is assigned after the object was made."""
    for statement in node.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            for one in _assignments(statement):
                if isinstance(one.target, ast.Name) and one.is_boolean:
                    seen.setdefault(one.target.id, False)
    changed = set()
    for method in node.body:
        if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for one in _assignments(method):
                if _owner(one.target) == "self":
                    name = one.target.attr  # type: ignore[attr-defined]  # it has an owner
                    if one.is_boolean:
                        seen.setdefault(name, False)
                    if method.name not in _BUILDERS:
                        changed.add(name)
    return (name for name in seen if name in changed or name in changed_elsewhere)


def boolean_state(modules: Iterable[Module]) -> list[StatefulClass]:
    """Return the classes that have boolean state, those with most of it first.

    An attribute counts if its class, or an object of it, is ever given a boolean under this name, and if it
    is assigned again outside ``__init__``: by a method, or anywhere in the package through another variable
    than ``self``. What a base class keeps counts there.
    """
    modules = list(modules)
    foreign: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        for one in _assignments(module.tree):
            owner = _owner(one.target)
            if owner is not None and owner not in ("self", "cls") and is_boolean(one.value):
                foreign[module.name.split(".")[0]].add(one.target.attr)  # type: ignore[attr-defined]
    found = []
    for module in modules:
        elsewhere = foreign[module.name.split(".")[0]]
        for node in nodes_of(module.tree, ast.ClassDef):
            booleans = tuple(sorted(_class_booleans(node, elsewhere)))
            if booleans:
                found.append(StatefulClass(module.name, node.name, booleans))
    return sorted(found, key=lambda one: (-len(one.booleans), one.module, one.name))


# ---- what imports what ---------------------------------------------------------------------------


@cache
def typing_only(tree: ast.Module) -> set[int]:
    """Return the lines of imports that only a type checker sees."""
    lines: set[int] = set()
    for node in nodes_of(tree, ast.If):
        if "TYPE_CHECKING" in ast.unparse(node.test):
            lines.update(
                inner.lineno for part in node.body for inner in ast.walk(part) if hasattr(inner, "lineno")
            )
    return lines


def tangled(graph: Graph) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle, directly or round other modules."""
    order: list[str] = []
    reverse: Graph = defaultdict(set)
    seen: set[str] = set()
    for start in sorted(graph):
        if start in seen:
            continue
        seen.add(start)
        way = [(start, iter(sorted(graph[start])))]
        while way:
            name, below = way[-1]
            following = next((one for one in below if one not in seen), None)
            if following is None:
                order.append(name)
                way.pop()
            else:
                seen.add(following)
                way.append((following, iter(sorted(graph[following]))))
    for name, below_name in graph.items():
        for one in below_name:
            reverse[one].add(name)
    groups, placed = [], set()
    for name in reversed(order):
        if name in placed:
            continue
        placed.add(name)
        group, waiting = [], [name]
        while waiting:
            one = waiting.pop()
            group.append(one)
            for above in reverse[one] - placed:
                placed.add(above)
                waiting.append(above)
        if len(group) > 1:
            groups.append(sorted(group))
    return sorted(groups)


def longest_chain(graph: Graph) -> list[str]:
    """Return the longest way down the imports, its modules in order; a circle counts as one step."""
    best: dict[str, list[str]] = {}

    def below(name: str, above: frozenset[str]) -> list[str]:
        if name not in best:
            ways = [below(one, above | {name}) for one in sorted(graph[name]) if one not in above | {name}]
            best[name] = [name, *max(ways, key=len, default=[])]
        return best[name]

    return max((below(name, frozenset()) for name in sorted(graph)), key=len, default=[])


# ---- all of it -----------------------------------------------------------------------------------


class Shape:
    """Everything that is measured of a checkout.

    :param root: the checkout.
    :param packages: the packages to look at.
    """

    def __init__(self, root: Path = ROOT, packages: Iterable[str] = PACKAGES) -> None:
        self.root = root
        paths = sorted(path for package in packages for path in (root / package).rglob("*.py"))
        self.modules = [Module(path, root) for path in paths]
        self.lines = sum(module.lines for module in self.modules)
        self.functions = [(module, function) for module in self.modules for function in module.functions]

    def graph(self, *, with_types: bool = False) -> Graph:
        """Return which module imports which, of those measured.

        :param with_types: whether imports for a type checker only count.
        """
        names = {module.name for module in self.modules}
        graph: Graph = {name: set() for name in names}
        for module in self.modules:
            unseen = set() if with_types else typing_only(module.tree)
            for found in imports_of(module.path, self.root):
                target = found.target if found.target in names else found.target.rpartition(".")[0]
                if target in names and target != module.name and found.line not in unseen:
                    graph[module.name].add(target)
        return graph

    def long_modules(self, limit: int = LONG_MODULE) -> dict[str, int]:
        """Return the modules over a limit of lines, with their lines."""
        return {module.name: module.lines for module in self.modules if module.lines > limit}

    def long_functions(self, limit: int = LONG_FUNCTION) -> dict[str, int]:
        """Return the functions over a limit of lines, with their lines."""
        return {f"{m.name}.{f.name}": size for m, f in self.functions if (size := length(f)) > limit}

    def long_signatures(self, limit: int = LONG_SIGNATURE) -> dict[str, int]:
        """Return the functions that have so many parameters or more, with their number."""
        return {
            f"{module.name}:{function.name}:{function.lineno}": size
            for module, function in self.functions
            if (size := len(parameters(function))) >= limit
        }

    def any_share(self, package: str = "") -> tuple[int, int]:
        """Return how many parameters are ``Any``, and how many are annotated, in a package or everywhere."""
        annotations = [
            one.annotation
            for module, function in self.functions
            if not package or module.name.split(".")[0] == package
            for one in parameters(function)
            if one.annotation is not None
        ]
        return sum(map(is_any, annotations)), len(annotations)

    def stateful(self, least: int = MANY_BOOLEANS) -> list[StatefulClass]:
        """Return the classes with so many booleans of state or more."""
        return [one for one in boolean_state(self.modules) if len(one.booleans) >= least]

    def private_reaches(self) -> int:
        """Return how often a private attribute of another object is used."""
        return sum(
            node.attr.startswith("_")
            and not node.attr.startswith("__")
            and getattr(node.value, "id", "") not in ("self", "cls")
            and not (isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super")
            for module in self.modules
            for node in nodes_of(module.tree, ast.Attribute)
        )

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield what is measured, and the number."""
        yield "lines / modules", f"{self.lines:,} / {len(self.modules)}"
        yield "module lines: median / p90 / max", _spread([module.lines for module in self.modules])
        yield f"modules over {LONG_MODULE}", _named(self.long_modules())
        lengths = [length(function) for _, function in self.functions]
        yield "function lines: median / p90 / max", _spread(lengths)
        long = self.long_functions()
        yield f"functions over {LONG_FUNCTION}", f"{_named(long)} of {len(lengths)}"
        public = [one for module in self.modules for one in public_functions(module.tree)]
        documented = sum(ast.get_docstring(one) is not None for one in public)
        yield (
            "public functions documented",
            f"{documented} of {len(public)} ({_percent(documented, len(public))})",
        )
        everything = [one for _, function in self.functions for one in parameters(function)]
        vague, annotated = self.any_share()
        yield (
            "parameters annotated",
            f"{annotated} of {len(everything)} ({_percent(annotated, len(everything))})",
        )
        yield "of these Any", f"{vague} ({_percent(vague, annotated)})"
        for package in PACKAGES:
            vague, annotated = self.any_share(package)
            if annotated:
                yield f"    {package}", f"{vague} of {annotated} ({_percent(vague, annotated)})"
        comments = sum(module.comments for module in self.modules)
        yield "comments per 1,000 lines", f"{1000 * comments / self.lines:.0f}"
        asserts = sum(len(nodes_of(module.tree, ast.Assert)) for module in self.modules)
        todo = sum(
            module.text.count("TO" + "DO") + module.text.count("FIX" + "ME") for module in self.modules
        )
        yield "asserts / TODO", f"{asserts} / {todo}"
        circles = [tangled(self.graph(with_types=typed)) for typed in (False, True)]
        counts = [sum(map(len, groups)) for groups in circles]
        yield "modules in import cycles: at run time / with types", f"{counts[0]} / {counts[1]}"
        for group in circles[1]:
            yield "    " + ", ".join(group), ""
        yield "longest import chain", str(len(longest_chain(self.graph())))
        folder, files = Counter(module.path.parent for module in self.modules).most_common(1)[0]
        yield "largest flat folder", f"{files} ({folder.relative_to(self.root)})"
        signatures = self.long_signatures()
        longest = max((len(parameters(one)) for _, one in self.functions), default=0)
        yield f"functions of {LONG_SIGNATURE}+ parameters; longest", f"{len(signatures)}; {longest}"
        stateful = self.stateful()
        yield f"classes of {MANY_BOOLEANS}+ state booleans", str(len(stateful))
        for one in stateful:
            yield f"    {one}", str(len(one.booleans))
        yield "private reaches per 1,000 lines", f"{1000 * self.private_reaches() / self.lines:.1f}"


@cache
def whole() -> Shape:
    """Return the shape of this checkout's packages, measured once."""
    return Shape()


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _spread(numbers: list[int]) -> str:
    ordered = sorted(numbers)
    ninth = ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)]
    return f"{statistics.median(ordered):.0f} / {ninth} / {ordered[-1]}"


def _named(found: dict[str, int]) -> str:
    most = sorted(found.items(), key=lambda item: -item[1])
    return f"{len(found)} ({', '.join(f'{name} {size}' for name, size in most)})" if found else "0"


def main(arguments: list[str]) -> None:
    """Print the table.

    :param arguments: the checkout to look at; this one if there is none.
    """
    root = Path(arguments[0]).resolve() if arguments else ROOT
    if len(arguments) > 1 or not any((root / package).is_dir() for package in PACKAGES):
        raise SystemExit("usage: python -m tests.tooling.shape [ROOT]; ROOT is a checkout of this project")
    for name, value in Shape(root).rows():
        print(f"{name:<56} {value}".rstrip())


if __name__ == "__main__":
    main(sys.argv[1:])
