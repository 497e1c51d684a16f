"""Rules that every source file keeps: docstrings, the oldest language, declared dependencies."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementedBy

from tests.tooling.shape import typing_only
from tests.tooling.sources import PACKAGES, ROOT, imports_of, module_name, parsed, source_files

Definition = (ast.FunctionDef, ast.AsyncFunctionDef)


def is_public(name: str) -> bool:
    """Return whether a name is public: no leading underscore (special methods follow Python's own rules)."""
    return not name.startswith("_")


def inherits_words(path: Path, class_name: str, method: str) -> bool:
    """Return whether a base class or a declared interface documents this method already."""
    owner = getattr(importlib.import_module(module_name(path)), class_name)
    if inspect.getdoc(inspect.getattr_static(owner, method)) or inspect.getdoc(getattr(owner, method)):
        return True
    return any(method in interface for interface in implementedBy(owner).flattened())


def is_accessor(node: ast.AST) -> bool:
    """Return whether a function is a property's setter or deleter, or one face of an overload."""
    decorators = [ast.unparse(one) for one in getattr(node, "decorator_list", [])]
    return any(name.endswith((".setter", ".deleter", "overload")) for name in decorators)


def undocumented(path: Path) -> list[str]:
    """Return the public names of one file that say nothing about themselves."""
    tree = parsed(path)
    where = str(path.relative_to(ROOT))
    missing = [] if ast.get_docstring(tree) else [f"{where}: the module"]
    for node in tree.body:
        if isinstance(node, Definition) and is_public(node.name) and not is_accessor(node):
            if not ast.get_docstring(node):
                missing.append(f"{where}:{node.lineno} {node.name}")
        elif isinstance(node, ast.ClassDef) and is_public(node.name):
            if not ast.get_docstring(node):
                missing.append(f"{where}:{node.lineno} {node.name}")
            missing += [
                f"{where}:{inner.lineno} {node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, Definition)
                and is_public(inner.name)
                and not is_accessor(inner)
                and not ast.get_docstring(inner)
                and not inherits_words(path, node.name, inner.name)
            ]
    return missing


class DocstringTests(SynchronousTestCase):
    """Public names document themselves."""

    def test_every_public_name_has_a_docstring(self) -> None:
        """Each public module, class, function and method has one, its own or its interface's."""
        missing = [line for path in source_files() for line in undocumented(path)]
        self.assertEqual(missing, [], "\n" + "\n".join(missing))


class LanguageTests(SynchronousTestCase):
    """``couchbase`` keeps to Python 3.9."""

    def test_couchbase_parses_as_python_3_9(self) -> None:
        """No match statement, no parenthesised context managers, nothing else newer than 3.9."""
        newer = []
        for path in source_files("couchbase"):
            try:
                ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 9))
            except SyntaxError as error:
                newer.append(str(error))
        self.assertEqual(newer, [])

    def test_couchbase_writes_unions_only_where_nothing_evaluates_them(self) -> None:
        """``X | None`` in an annotation fails at import on 3.9 unless annotations are postponed."""
        wrong = []
        for path in source_files("couchbase"):
            tree = parsed(path)
            postponed = any(
                isinstance(node, ast.ImportFrom)
                and node.module == "__future__"
                and any(alias.name == "annotations" for alias in node.names)
                for node in tree.body
            )
            if postponed:
                continue
            for node in ast.walk(tree):
                for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
                    inside = ast.walk(annotation) if isinstance(annotation, ast.AST) else ()
                    if any(isinstance(one, ast.BinOp) for one in inside):
                        wrong.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
        self.assertEqual(wrong, [])


# Import name -> name of the distribution in setup.py, where the two differ.
DISTRIBUTIONS = {
    "opentelemetry": "opentelemetry-sdk",
    "twisted": "Twisted",
    "OpenSSL": "Twisted",  # the [tls] extra brings pyOpenSSL and service-identity
    "service_identity": "Twisted",
    "zope": "zope.interface",
    "google_crc32c": "google-crc32c",
    "jwt": "PyJWT",
    "prometheus_client": "prometheus-client",
    "icu": "pyicu-wheels",
    "py_mini_racer": "mini-racer",
}


class DependencyTests(SynchronousTestCase):
    """Imports are declared, and declared packages are explained and pinned."""

    def declared(self, *lists: str) -> list[str]:
        """Return the distribution names in the named lists of setup.py."""
        values = {}
        for node in parsed(ROOT / "setup.py").body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                values[node.targets[0].id] = node.value
        names = []
        for name in lists:
            elements = values[name].elts  # type: ignore[attr-defined]
            texts = [element.value for element in elements if isinstance(element, ast.Constant)]
            # A list that others are part of.
            parts = [one.value.id for one in elements if isinstance(one, ast.Starred)]  # type: ignore[attr-defined]
            names += self.declared(*(part for part in parts if part.startswith("VIEWS")))
            names += [text.split(">=")[0].split(";")[0].split("[")[0].strip() for text in texts]
        return names

    def everything(self) -> list[str]:
        """Return every distribution that setup.py names."""
        return self.declared(
            "VIEWS_REQUIREMENTS",
            "REQUIREMENTS",
            "GEVENT_REQUIREMENTS",
            "OTEL_REQUIREMENTS",
            "TEST_REQUIREMENTS",
            "DEVELOPMENT_REQUIREMENTS",
        )

    def tools(self) -> dict[str, list[str]]:
        """Return what has an environment of its own: the names of each requirements/*.in, by file."""
        files = sorted((ROOT / "requirements").glob("*.in"))
        return {
            path.stem: [line for line in path.read_text("utf-8").split("\n") if line and line[0] != "#"]
            for path in files
        }

    def test_imports_are_declared(self) -> None:
        """A source package imports the standard library, this project and what install_requires names.

        gcouchbase and gateway.tracing alone have an extra each, too.
        """
        always = set(self.declared("REQUIREMENTS"))
        extras = {
            "gcouchbase": set(self.declared("GEVENT_REQUIREMENTS")),
            "gateway.tracing": set(self.declared("OTEL_REQUIREMENTS")),
        }
        wrong = []
        for path in source_files():
            name = module_name(path)
            declared = always.union(*(extras[one] for one in extras if name.startswith(one)))
            unseen = typing_only(parsed(path))
            for found in imports_of(path):
                top = found.target.split(".")[0]
                if top in sys.stdlib_module_names or top in PACKAGES or top == "":
                    continue
                if top == "typing_extensions" and found.line in unseen:
                    continue  # Type checkers bring it.
                if DISTRIBUTIONS.get(top, top) not in declared:
                    wrong.append(str(found))
        self.assertEqual(wrong, [])

    def test_dependencies_are_explained(self) -> None:
        """docs/dependencies.md says of each dependency what it is for."""
        page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
        rows = {line.split("|")[1].strip().strip("`") for line in page.splitlines() if line.startswith("| ")}
        self.assertEqual([name for name in self.everything() + self.tools()["site"] if name not in rows], [])

    def test_users_of_dependencies(self) -> None:
        """docs/dependencies.md names the source packages that import a dependency."""
        users: dict[str, set[str]] = {}
        for path in source_files():
            for found in imports_of(path):
                top = found.target.split(".")[0]
                name = DISTRIBUTIONS.get(top, top)
                users.setdefault(f"`{name}`", set()).add(module_name(path).split(".")[0])
        page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
        rows = [[cell.strip() for cell in line.split("|")] for line in page.splitlines()]
        told = {row[1]: set(row[2].split(", ")) & {*PACKAGES} for row in rows if len(row) == 5}
        self.assertEqual({name: told[name] for name in users if name in told},
                         {name: users[name] for name in users if name in told})  # fmt: skip

    def test_nothing_gone_is_explained(self) -> None:
        """docs/dependencies.md explains no dependency that nothing names any more."""
        page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
        rows = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| `")}
        named = [*self.everything(), *self.tools()["site"]]
        self.assertEqual(sorted(rows - {f"`{name}`" for name in named}), [])

    def test_tools_are_locked(self) -> None:
        """Each requirements/*.in has a lock of exact versions, without addresses, that pins all its names."""
        self.assertEqual(sorted(self.tools()), ["dist", "site"])
        for name, wanted in self.tools().items():
            text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
            lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
            self.assertEqual([line for line in lines if "==" not in line or "://" in line], [])
            pinned = {line.split("==")[0] for line in lines}
            self.assertEqual([one for one in wanted if one not in pinned], [])

    def test_dependencies_are_locked(self) -> None:
        """requirements/lock.txt pins each dependency exactly, and has only names and versions; what is needed
        to run is pinned alike in requirements/run.txt."""
        text = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
        self.assertEqual([line for line in lines if "==" not in line or "://" in line], [])
        pinned = {line.split("==")[0].lower().replace(".", "-") for line in lines}
        wanted = [name.lower().replace(".", "-") for name in self.everything()]
        self.assertEqual([name for name in wanted if name not in pinned], [])
        running = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8").splitlines()
        to_run = [line for line in running if line and not line.lstrip().startswith("#")]
        self.assertEqual([line for line in to_run if line.split(" ;")[0] not in "\n".join(lines)], [])
        self.assertIn("setuptools", {line.split("==")[0] for line in to_run})
        self.assertEqual([line for line in to_run if line.startswith(("ruff", "mypy", "hypothesis"))], [])
