"""The API: public names of the SDK are documented; :mod:`tests.judges.test_pydoctor` makes pages of them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from importlib.util import find_spec
from types import FunctionType, ModuleType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sources import ROOT

PACKAGES = [name for name in ("couchbase", "txcouchbase", "gcouchbase") if (ROOT / name).is_dir()]
# Optional requirements of a package.
NEEDED = {"gcouchbase": "gevent"}


def modules() -> Iterator[ModuleType]:
    """Import and yield every module of the SDK that can be imported here."""
    for package in PACKAGES:
        if find_spec(NEEDED.get(package, package)) is None:
            continue
        found = importlib.import_module(package)
        yield found
        for module in pkgutil.walk_packages(found.__path__, package + "."):
            yield importlib.import_module(module.name)


def shown(owner: Any) -> Iterator[tuple[str, Any]]:
    """Yield the public functions, classes and properties of a module or class, including inherited ones.

    Those of other projects are theirs to document.
    """
    for name in dir(owner):
        if name.startswith("_"):
            continue
        # A module may import a name lazily.
        found = getattr(owner, name) if inspect.ismodule(owner) else inspect.getattr_static(owner, name)
        if isinstance(found, (staticmethod, classmethod)):
            found = found.__func__
        of = found.fget if isinstance(found, property) else found
        if isinstance(of, (FunctionType, type)) and of.__module__.partition(".")[0] in PACKAGES:
            yield name, found


class ApiTests(SynchronousTestCase):
    """Everything that the SDK shows at run time."""

    def test_whatever_a_program_can_reach_has_a_docstring(self) -> None:
        """Also what other names, private bases or decorators lead to, which the source does not show."""
        missing, count = [], 0
        for module in modules():
            if not module.__doc__:
                missing.append(module.__name__)
            for name, found in shown(module):
                count += 1
                if not inspect.getdoc(found):
                    missing.append(f"{module.__name__}.{name}")
                if isinstance(found, type):
                    members = list(shown(found))
                    count += len(members)
                    missing += [
                        f"{module.__name__}.{name}.{member}"
                        for member, what in members
                        if not (inspect.getdoc(what) or inspect.getdoc(getattr(found, member)))
                    ]
        self.assertEqual(missing, [], "\n" + "\n".join(missing))
        self.assertGreater(count, 1000, "the search finds less than the SDK has")
