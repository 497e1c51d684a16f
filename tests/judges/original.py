"""Run the tests of the original SDK 1.2 on this project's packages, in a separate process.

``unshare -rn python -m tests.judges.original CHECKOUT SUITE CLUSTER [NAME...]`` prints one JSON object on its
last line: the name of each test (``Class.test``) and its outcome, ``[outcome, text]``, where the
outcome is ``passed``, ``failed`` or ``skipped``. With names, only those tests run. They find a cluster of
ours at port 8091, which some of them have written into them; so the process has a network of its own.

Only the tests and the stand-in's client module come from the checkout: everything else that they import is
ours, or a few lines here in place of libraries that are no longer kept. The checkout is not written to. What
Python 3 demands of the sources is changed as they are imported.
"""

from __future__ import annotations

import fcntl
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import types
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.judges import programs

SUITES = {
    "couchbase": "couchbase.tests.test_sync",
    "gcouchbase": "gcouchbase.tests.test_api",
    "txcouchbase": "txcouchbase.tests",
}
"""Each suite's name, and the module, or package of modules, that has its tests."""

PORT = 8091

CLUSTERS = {
    "administered": "--nodes 4 --replicas 1 --user Administrator --open-buckets",
    "bare": "--nodes 4 --replicas 1",
}
"""Kinds of clusters that the tests can have: with the administrator whom they know, or without any."""

TRIAL_SECONDS = 20
"""Seconds for a trial test, and the same again for its cleanup."""

DOCUMENTS = 7303
"""Documents of beer-sample."""

_EXAMPLES = Path(__file__).parent.parent.parent / "examples"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

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
    """Find the original's tests in a checkout, and nothing else in it."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if not _TAKEN.match(fullname):
            return None
        place = self._checkout.joinpath(*fullname.split("."))
        if fullname == "txcouchbase.tests":
            # Its own code only skips all of them on Python 3.
            empty = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            empty.submodule_search_locations = [str(place)]
            return empty
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
    """The part of testresources that the tests use: objects that are created once, and are attributes of
    each test."""

    resources: list[tuple[str, Any]] = []

    def setUp(self) -> None:
        super().setUp()
        for name, manager in self.resources:
            setattr(self, name, manager.make())


def _stand_in(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def beers() -> Iterator[dict[str, Any]]:
    """Yield lines of a sample that is like beer-sample where the tests look: as many documents, with the
    members that they read, and as many in the ranges that they name. All else is invented."""
    breweries = [
        ("abbaye_de_maredsous", ["8", "10", "triple"]),
        *((f"under_{number:02}", ["ale"]) for number in range(28)),
        *((f"us_{number:02}", ["ale"]) for number in range(16)),
    ]
    others = DOCUMENTS - sum(1 + len(brewed) for _, brewed in breweries)
    breweries += [(f"brewery_{number:04}", ["ale", "lager", "stout"]) for number in range(others // 4)]
    breweries += [(f"closed_{number}", []) for number in range(others % 4)]
    said = {"updated": "2010-07-22 20:00:20", "description": "Invented."}
    for brewery, brewed in breweries:
        where = {"city": "Alderwick", "state": "North Marches", "code": "AW1", "country": "Estland"}
        reach = {"phone": "1", "website": "http://brewery.invalid/", "address": ["1 Lane"]}
        yield {"id": brewery, "doc": {"name": brewery, "type": "brewery", **where, **reach, **said}}
        for beer in brewed:
            kind = {"abv": 5.0, "category": "Ale", "style": "Pale", "brewery_id": brewery}
            yield {"id": f"{brewery}-{beer}", "doc": {"name": beer, "type": "beer", **kind, **said}}


def start(cluster: str, directory: Path) -> programs.Process:
    """Start a cluster at port 8091, with the bucket beer-sample and what is in it.

    :param cluster: one of :data:`CLUSTERS`.
    """
    (directory / "password").write_text("password\n", encoding="utf-8")
    sample = directory / "beers.jsonl"
    sample.write_text("\n".join(map(json.dumps, beers())), encoding="utf-8")
    options = CLUSTERS[cluster].split()
    if "--user" in options:
        options.append(f"--password-file={directory / 'password'}")
    node = programs.twistd(
        *f"couchnode --rest-port {PORT} --kv-port 0 --data {directory / 'data'}".split(),
        *["--bucket", "beer-sample", "--bucket", "default"],
        *["--sample", str(sample), "--sample", str(_EXAMPLES / "beer-views.jsonl")],
        *options,
    )
    node.until_says("ready:")
    return node


def use_own_network() -> None:
    """Switch the loopback interface of this process's network on.

    :raises OSError: it is not allowed to.
    """
    with socket.socket() as some:
        request = struct.pack("16sh", b"lo", 0).ljust(40, b"\0")
        (flags,) = struct.unpack_from("h", fcntl.ioctl(some, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(some, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP).ljust(40, b"\0"))


def install(checkout: Path, host: str, port: int) -> None:
    """Make the tests importable, for a cluster.

    The working directory becomes a new one, which has the configuration that they read.
    """
    sys.meta_path.insert(0, Finder(checkout))
    _stand_in("testresources", ResourcedTestCase=_Resourced, TestResourceManager=object)
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
    """Record the outcome of each test."""

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
        if suite == "txcouchbase":
            test.timeout = TRIAL_SECONDS
        if not wanted or f"{type(test).__name__}.{test.id().rpartition('.')[2]}" in wanted:
            test.run(outcomes)
    return outcomes.of


def names(suite: str, wanted: list[str]) -> list[str]:
    """Return the names of a suite's tests, or those that are wanted of them."""
    tests: list[Any] = [test for tests in tests_of(suite) for test in tests]  # type: ignore[union-attr]
    found = [f"{type(test).__name__}.{test.id().rpartition('.')[2]}" for test in tests]
    return [name for name in found if not wanted or name in wanted]


def run_apart(checkout: Path, wanted: list[str]) -> dict[str, tuple[str, str]]:
    """Run trial tests, each in a process with its own reactor, on the running cluster."""
    outcomes = {}
    for name in wanted:
        command = [
            sys.executable,
            "-m",
            "tests.judges.original",
            str(checkout),
            "txcouchbase",
            "running",
            name,
        ]
        done = subprocess.run(command, capture_output=True, cwd=programs.ROOT, timeout=100, check=True)
        outcomes.update(json.loads(done.stdout.splitlines()[-1]))
    return outcomes


def main() -> None:
    """Run what the command line says."""
    checkout, suite, cluster, *wanted = sys.argv[1:]
    checkout_path = Path(checkout).absolute()
    if cluster == "running":
        install(checkout_path, "localhost", PORT)
        show(run(suite, wanted))
        return
    use_own_network()
    with tempfile.TemporaryDirectory() as directory:
        node = start(cluster, Path(directory))
        try:
            install(checkout_path, "localhost", PORT)
            if suite == "txcouchbase":
                outcomes = run_apart(checkout_path, names(suite, wanted))
            else:
                outcomes = run(suite, wanted)
        finally:
            node.stop()
    show(outcomes)


def show(outcomes: dict[str, tuple[str, str]]) -> None:
    """Print the outcomes of the tests."""
    print()
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
