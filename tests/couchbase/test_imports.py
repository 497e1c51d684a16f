"""Modules loaded by an import: the protocol core loads no driver, and the package still has all its names.

Standard library only; see :mod:`tests.couchbase.support`.
"""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from unittest import TestCase

import couchbase
from tests.couchbase.support import ROOT

BELOW_THE_CORE = {
    "couchbase.errorbase",
    "couchbase.exceptions",
    "couchbase.result",
    "couchbase.user_constants",
}
"""Modules on which the core depends, besides the standard library."""


def loaded_by(program: str) -> list[str]:
    """Return the modules that a fresh interpreter has beyond its own after running a program."""
    tail = "\nimport json, sys; print(json.dumps(sorted(set(sys.modules) - before)))"
    head = "import sys; before = set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", head + program + tail],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found: list[str] = json.loads(done.stdout)
    return found


def ours(modules: list[str]) -> set[str]:
    """Return those of the SDK."""
    return {name for name in modules if name.split(".")[0] == "couchbase"}


def core_modules() -> list[str]:
    """Return the names of all modules of the protocol core."""
    from couchbase import protocol

    return [f"couchbase.protocol.{found.name}" for found in pkgutil.iter_modules(protocol.__path__)]


class LeafTests(TestCase):
    """The core is a leaf."""

    def test_frames_load_the_core_alone(self) -> None:
        """``couchbase.protocol.frames`` loads only modules of ``couchbase.protocol``, and no driver."""
        modules = loaded_by("import couchbase.protocol.frames")
        outside = {name for name in ours(modules) if not name.startswith("couchbase.protocol")}
        self.assertEqual(outside, {"couchbase"})
        self.assertEqual({"ssl", "socket", "selectors", "http.client", "pickle"} & set(modules), set())
        allowed = sys.stdlib_module_names | {"couchbase"} if sys.version_info >= (3, 10) else set()
        if allowed:
            self.assertEqual({name.split(".")[0] for name in modules} - allowed, set())

    def test_the_whole_core_loads_no_driver(self) -> None:
        """All modules of the core together load only exceptions and results of the SDK."""
        modules = loaded_by("\n".join(f"import {name}" for name in core_modules()))
        outside = {name for name in ours(modules) if not name.startswith("couchbase.protocol")}
        self.assertEqual(outside - {"couchbase"}, BELOW_THE_CORE)
        # On PyPy hashlib itself loads the socket module.
        drivers = {"ssl", "socket", "selectors", "http.client"} - set(loaded_by("import hashlib"))
        self.assertEqual(drivers & set(modules), set())

    def test_exceptions_load_nothing(self) -> None:
        """The exceptions import no other part of the SDK."""
        modules = ours(loaded_by("import couchbase.exceptions"))
        self.assertEqual(modules, {"couchbase", "couchbase.errorbase", "couchbase.exceptions"})


class NamesTests(TestCase):
    """Lazily loaded names can be accessed in every way."""

    def ends_well(self, program: str) -> None:
        """Run a program in a fresh interpreter."""
        loaded_by(program)

    def test_star_import(self) -> None:
        """A star import brings each name of ``__all__``."""
        names = ", ".join(couchbase.__all__)
        self.ends_well(f"from couchbase import *\n({names})")

    def test_each_name_alone(self) -> None:
        """Each public name can be imported first, and each is an attribute of the package."""
        for name in couchbase.__all__:
            with self.subTest(name):
                self.assertIs(getattr(couchbase, name), getattr(couchbase, name))
                self.assertIn(name, dir(couchbase))
        self.ends_well("from couchbase import set_json_converters, Couchbase, Connection, FMT_JSON")

    def test_modules_after_a_plain_import(self) -> None:
        """``import couchbase`` alone gives every module of the package, and the modules of views."""
        modules = {found.name for found in pkgutil.iter_modules(couchbase.__path__) if found.name[0] != "_"}
        self.assertEqual(modules, couchbase._MODULES)
        self.assertEqual(modules - set(dir(couchbase)), set())
        self.ends_well("import couchbase\n" + "\n".join(f"couchbase.{name}" for name in sorted(modules)))
        self.ends_well("import couchbase; couchbase.views.iterator.View; couchbase.views.params.Query")
        self.ends_well("import couchbase; couchbase.exceptions.NotFoundError")
        self.ends_well("from couchbase import Couchbase, views")
        self.ends_well("from couchbase import connection, exceptions")

    def test_what_is_not_there(self) -> None:
        """A missing name is an AttributeError or an ImportError that names it."""
        with self.assertRaisesRegex(AttributeError, "'Bucket'"):
            couchbase.Bucket  # type: ignore[attr-defined]  # noqa: B018  # for what it raises
        with self.assertRaisesRegex(ImportError, "Bucket"):
            from couchbase import Bucket  # type: ignore[attr-defined]  # noqa: F401  # for what it raises
        with self.assertRaisesRegex(AttributeError, "'pages'"):
            couchbase.views.pages  # type: ignore[attr-defined]  # noqa: B018  # for what it raises
