"""Limits on the shape of the code, and the measuring itself. ``make shape`` prints all numbers."""

from __future__ import annotations

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.shape import (
    LONG_MODULE,
    LONG_SIGNATURE,
    MANY_BOOLEANS,
    Module,
    Shape,
    boolean_state,
    first_line,
    is_any,
    length,
    longest_chain,
    main,
    parameters,
    tangled,
    whole,
)
from tests.tooling.sources import PACKAGES

# Names that are over a limit today. Each list may only become shorter: a name that is no longer over a limit
# fails its test, and is to be deleted here. A module is named by its package and its own name, so that it
# may move between the folders of the package.
LONG_MODULES: set[str] = set()

STATEFUL_CLASSES: set[str] = set()

REASON = "# Many parameters: "
"""Begins the comment above a function of eight parameters or more; the reason follows."""

MOST_ANY = 0.04
"""Share of parameters that may be ``Any``."""


def short(module: str, name: str = "") -> str:
    """Return the name of a module, or of something in it, as in the lists above."""
    return f"{module.split('.')[0]}: {name or module.rpartition('.')[2]}"


class LimitTests(SynchronousTestCase):
    """The product keeps to the limits, except for the names above."""

    def setUp(self) -> None:
        self.shape = whole()

    def compare(self, found: dict[str, object], excepted: set[str], what: str) -> None:
        """Compare what is over a limit with what may be."""
        new = {name: detail for name, detail in found.items() if name not in excepted}
        self.assertEqual(new, {}, f"over the limit: {what}")
        self.assertEqual(sorted(excepted - set(found)), [], "within the limit by now: delete the exception")

    def test_modules(self) -> None:
        """No module has more than 450 lines."""
        found: dict[str, object] = {short(name): size for name, size in self.shape.long_modules().items()}
        self.compare(found, LONG_MODULES, f"more than {LONG_MODULE} lines")

    def test_boolean_state(self) -> None:
        """No class has five booleans of state: a state is one field with named values."""
        found: dict[str, object] = {
            short(one.module, one.name): one.booleans for one in self.shape.stateful()
        }
        self.compare(found, STATEFUL_CLASSES, f"{MANY_BOOLEANS} or more booleans that change")

    def test_long_signatures(self) -> None:
        """Every function with eight parameters or more has a reason above it, and no other has."""
        for module in self.shape.modules:
            lines = module.text.splitlines()
            found = {number for number, line in enumerate(lines, 1) if line.strip().startswith(REASON)}
            wanted = {
                first_line(function) - 1
                for function in module.functions
                if len(parameters(function)) >= LONG_SIGNATURE
            }
            self.assertEqual(found, wanted, module.path)

    def test_any(self) -> None:
        """At most 4 % of a package's parameters are ``Any``."""
        found = {}
        for package in PACKAGES:
            vague, annotated = self.shape.any_share(package)
            if vague > MOST_ANY * annotated:
                found[package] = f"{vague} of {annotated}"
        self.assertEqual(found, {}, "parameters that are Any")


def tree_of(text: str) -> ast.Module:
    """Return a syntax tree."""
    return ast.parse(text)


STATES = """
class Door:
    is_open = False
    is_locked: bool = False
    is_wooden = True
    colour = "red"

    def __init__(self, is_new):
        self.is_new = bool(is_new)
        self.creaks = not is_new
        self.handle = None

    def open(self):
        self.is_open = True
        self.handle = self.creaks = self.is_new or self.is_open

    def paint(self, colour):
        self.colour = colour
"""

FOREIGN = """
def lock(door):
    door.is_locked = True
"""


class MeasureTests(SynchronousTestCase):
    """The measures distinguish the cases."""

    def module(self, name: str, text: str) -> Module:
        """Return a module with this text."""
        folder = Path(self.mktemp())
        path = folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        return Module(path, folder)

    def test_boolean_state(self) -> None:
        """A boolean counts if it changes after the object was made, also by another module of the package."""
        door = self.module("house.door", STATES)
        (alone,) = boolean_state([door])
        self.assertEqual((alone.name, alone.booleans), ("Door", ("creaks", "is_open")))
        (seen,) = boolean_state([door, self.module("house.keys", FOREIGN)])
        self.assertEqual(seen.booleans, ("creaks", "is_locked", "is_open"))
        (other,) = boolean_state([door, self.module("garden.keys", FOREIGN)])
        self.assertEqual(other.booleans, alone.booleans)

    def test_any(self) -> None:
        """``Any`` alone or in a union is no type; in a container it is one."""
        for text, expected in {
            "Any": True,
            "Any | None": True,
            "'Any'": True,
            "typing.Any": True,
            "dict[str, Any]": False,
            "int | None": False,
            "'int'": False,
        }.items():
            self.assertEqual(is_any(ast.parse(text, mode="eval").body), expected, text)

    def test_functions(self) -> None:
        """A nested function is part of the one around it; ``self`` is no parameter."""
        module = self.module(
            "house.roof", "class A:\n def f(self, a, /, b, *c, d, **e):\n  def g(): pass\n  return g\n"
        )
        (function,) = module.functions
        self.assertEqual(length(function), 3)
        self.assertEqual([one.arg for one in parameters(function)], ["a", "b", "d", "c", "e"])

    def test_circles(self) -> None:
        """Modules that reach each other form a circle, and no others."""
        graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"f"}, "f": {"e"}}
        self.assertEqual(tangled(graph), [["b", "c"], ["e", "f"]])
        self.assertEqual(tangled({"a": {"b"}, "b": set()}), [])

    def test_chain(self) -> None:
        """The longest way down is found, not the first."""
        graph = {"a": {"d", "b"}, "b": {"c"}, "c": {"d"}, "d": set()}
        self.assertEqual(longest_chain(graph), ["a", "b", "c", "d"])

    def test_table(self) -> None:
        """The table has a number for every measure, and the error about a wrong argument lists the valid
        ones."""
        rows = dict(Shape(packages=["gcouchbase"]).rows())
        self.assertRegex(rows["lines / modules"], r"^[\d,]+ / \d+$")
        self.assertRegex(rows["asserts / TODO"], r"^\d+ / 0$")
        self.assertIn("usage", str(self.assertRaises(SystemExit, main, [self.mktemp()])))
