"""Run the tests of the original SDK 1.2 on this project's packages; for a process of its own.

``python -m tests.judges.original CHECKOUT SUITE HOST PORT [NAME...]`` prints one JSON object on its last
line: the name of each test (``Class.test``) and what became of it, ``[outcome, text]``, where the outcome is
``passed``, ``failed`` or ``skipped``. With names, only those tests run.

Only the tests and the stand-in's client module come from the checkout: everything else that they import is
ours, or a few lines here in place of libraries that are no longer kept. The checkout is not written to. What
Python 3 demands of the sources is changed as they are imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import sys
import tempfile
import types
import unittest
import urllib.parse
from pathlib import Path
from typing import Any
from urllib.request import urlopen

SUITES = {
    "couchbase": "couchbase.tests.test_sync",
    "gcouchbase": "gcouchbase.tests.test_api",
    "txcouchbase": "txcouchbase.tests",
}
"""Each suite's name, and the module, or package of modules, that has its tests."""

PYTHON_3 = [
    (re.compile(rb"\bcouchbase\.async\b"), b"couchbase.asynchronous"),
    (re.compile(rb"\b(\w+)\.keys\(\)\[0\]"), rb"list(\1.keys())[0]"),
]

_TAKEN = re.compile(r"(couchbase|gcouchbase|txcouchbase)\.(tests(\..+)?|mockserver)$")


class _Loader(importlib.machinery.SourceFileLoader):
    """Change what Python 3 demands; leave no compiled files behind."""

    def get_data(self, path: str) -> bytes:
        data = super().get_data(path)
        for pattern, replacement in PYTHON_3:
            data = pattern.sub(replacement, data)
        return data

    def path_stats(self, path: str) -> Any:
        raise OSError("compiled files are neither read nor written")


class Finder(importlib.abc.MetaPathFinder):
    """Find the original's tests in a checkout, and nothing else of it."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if not _TAKEN.match(fullname):
            return None
        place = self._checkout.joinpath(*fullname.split("."))
        if place.is_dir():
            file, inside = place / "__init__.py", [str(place)]
        else:
            file, inside = place.with_suffix(".py"), None
        if not file.is_file():
            return None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=_Loader(fullname, str(file)), submodule_search_locations=inside
        )


class _Resourced(unittest.TestCase):
    """What the tests use of testresources: things that are made once, and are attributes of each test."""

    resources: list[tuple[str, Any]] = []

    def setUp(self) -> None:
        super().setUp()
        for name, manager in self.resources:
            setattr(self, name, manager.make())


def _stand_in(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def install(checkout: Path, host: str, port: int) -> None:
    """Make the tests importable, for a cluster.

    The working directory becomes a new one, which has the configuration that they read.
    """
    sys.meta_path.insert(0, Finder(checkout))
    _stand_in("testresources", ResourcedTestCase=_Resourced, TestResourceManager=object)
    _stand_in(
        "couchbase._pyport",
        ulp=urllib.parse,
        urlopen=urlopen,
        basestring=str,
        unicode=str,
        xrange=range,
        long=int,
    )
    _stand_in("nose")
    _stand_in("nose.plugins")
    _stand_in("nose.plugins.attrib", attr=lambda *words: lambda thing: thing)
    for old, new in (("assertEquals", "assertEqual"), ("assertItemsEqual", "assertCountEqual")):
        if not hasattr(unittest.TestCase, old):
            setattr(unittest.TestCase, old, getattr(unittest.TestCase, new))
    os.chdir(tempfile.mkdtemp(prefix="original-"))
    Path("tests.ini").write_text(
        f"[realserver]\nhost = {host}\nport = {port}\nadmin_username = Administrator\n"
        "admin_password = password\n"
        "bucket_name = default\nbucket_password =\nenabled = True\n[mock]\nenabled = False\n",
        encoding="utf-8",
    )


class _Outcomes(unittest.TestResult):
    """Keep what became of each test."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, tuple[str, str]] = {}

    def _note(self, test: Any, outcome: str, text: str = "") -> None:
        name = f"{type(test).__name__}.{test.id().rpartition('.')[2]}"
        if self.of.get(name, ("passed",))[0] == "passed":
            self.of[name] = (outcome, text)

    def addSuccess(self, test: Any) -> None:
        self._note(test, "passed")

    def addError(self, test: Any, err: Any) -> None:
        text = err.getTraceback() if hasattr(err, "getTraceback") else self._exc_info_to_string(err, test)  # type: ignore[attr-defined]
        self._note(test, "failed", text)

    addFailure = addError

    def addSkip(self, test: Any, reason: str) -> None:
        self._note(test, "skipped", str(reason))


def tests_of(suite: str) -> unittest.TestSuite:
    """Return the tests of a suite."""
    name = SUITES[suite]
    package = importlib.import_module(name)
    modules = [package]
    if hasattr(package, "__path__"):
        files = sorted(Path(package.__path__[0]).glob("test_*.py"))
        modules = [importlib.import_module(f"{name}.{file.stem}") for file in files]
    return unittest.TestSuite(
        unittest.defaultTestLoader.loadTestsFromTestCase(kind)
        for module in modules
        for kind in sorted({kind for kind in vars(module).values() if isinstance(kind, type)}, key=repr)
        if issubclass(kind, unittest.TestCase) and _is_of(kind, suite)
    )


def _is_of(kind: type, suite: str) -> bool:
    return suite != "txcouchbase" or any(base.__name__ == "_TxTestCase" for base in kind.__mro__[1:])


def run(suite: str, wanted: list[str]) -> dict[str, tuple[str, str]]:
    """Run a suite's tests.

    :param wanted: names of tests; none: all.
    """
    tests: list[Any] = [test for tests in tests_of(suite) for test in tests]  # type: ignore[union-attr]
    outcomes = _Outcomes()
    for test in tests:
        if not wanted or f"{type(test).__name__}.{test.id().rpartition('.')[2]}" in wanted:
            test.run(outcomes)
    return outcomes.of


def main() -> None:
    """Run what the command line says."""
    checkout, suite, host, port, *wanted = sys.argv[1:]
    install(Path(checkout).absolute(), host, int(port))
    outcomes = run(suite, wanted)
    print()
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
