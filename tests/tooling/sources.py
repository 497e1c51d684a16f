"""The repository as data, for the tests of this folder: its files, their syntax trees, their imports."""

from __future__ import annotations

import ast
import functools
import gc
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

ROOT = Path(__file__).resolve().parents[2]
Node = TypeVar("Node", bound=ast.AST)
PACKAGES = ("couchbase", "txcouchbase", "gcouchbase", "couchnode", "gateway", "reactor")


class Import(NamedTuple):
    """One imported module: the importing module, the line, and the full dotted name."""

    importer: str
    path: Path
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.target}"


def source_files(*packages: str) -> list[Path]:
    """Return every Python file of these packages (all source packages if none is named), sorted."""
    return sorted(path for package in packages or PACKAGES for path in (ROOT / package).rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of one file."""
    text = path.read_text(encoding="utf-8")
    # Trees stay: collections that look at a million nodes took three times as long as parsing.
    _collect_once()
    gc.disable()
    try:
        tree = ast.parse(text, filename=str(path))
        gc.freeze()
        return tree
    finally:
        gc.enable()


@functools.cache
def _collect_once() -> None:
    """Leave nothing of earlier tests to be kept."""
    gc.collect()


@functools.cache
def nodes(tree: ast.AST) -> list[ast.AST]:
    """Return a syntax tree's nodes in the order of :func:`ast.walk`, without contexts (``ast.Load`` ...).

    They are kept: many tests ask the same trees.
    """
    found = [tree]
    for node in found:
        for name in node._fields:
            value = getattr(node, name, None)
            if value.__class__ is list:
                found += [one for one in value if isinstance(one, ast.AST)]
            elif isinstance(value, ast.AST) and name != "ctx":
                found.append(value)
    return found


@functools.cache
def _by_kind(tree: ast.AST) -> dict[type[ast.AST], list[ast.AST]]:
    found: dict[type[ast.AST], list[ast.AST]] = {}
    for node in nodes(tree):
        found.setdefault(node.__class__, []).append(node)
    return found


def nodes_of(tree: ast.AST, kind: type[Node]) -> list[Node]:
    """Return a syntax tree's nodes of one class, in the order of :func:`ast.walk`."""
    return _by_kind(tree).get(kind, [])  # type: ignore[return-value]  # they are of this class


def module_name(path: Path, root: Path = ROOT) -> str:
    """Return the dotted name under which ``path`` is imported.

    :param root: the checkout it lies in.
    """
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_inside(name: str, package: str) -> bool:
    """Return whether the dotted ``name`` is ``package`` or lies in it."""
    return name == package or name.startswith(package + ".")


@functools.cache
def imports_of(path: Path, root: Path = ROOT) -> list[Import]:
    """Return what a file imports, anywhere in it, also under TYPE_CHECKING or by a constant name.

    ``from a import b`` counts as ``a.b``, so that naming a submodule this way does not hide it.

    :param root: the checkout it lies in.
    """
    return list(_imports_of(path, root))


def _imports_of(path: Path, root: Path) -> Iterator[Import]:
    importer = module_name(path, root)
    package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
    for node in nodes(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, path, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                yield Import(importer, path, node.lineno, f"{base}.{alias.name}")
        elif isinstance(node, ast.Call) and node.args:
            function = (
                node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            )
            first = node.args[0]
            named = function in ("import_module", "__import__", "namedAny", "namedModule")
            if named and isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield Import(importer, path, node.lineno, first.value)


def tracked_files() -> list[Path]:
    """Return the files of the repository as git knows them: tracked ones, and new ones it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True,
    ).stdout  # fmt: skip
    paths = (ROOT / name for name in listed.decode().split("\0") if name)
    return sorted(path for path in paths if path.is_file())
