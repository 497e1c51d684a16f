"""The folders of the gateway: allowed imports, no circles, and the same folders in the tests."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sources import ROOT, Import, imports_of, is_inside, source_files

PACKAGE = "gateway"

# A folder of the gateway -> what it may import of the gateway: folders, and modules that lie beside these.
# Those modules (the service, its options, the app that joins everything) may import any folder, as long as
# that makes no circle.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "access": ("cluster", "dialect", "http", "interfaces"),
    "batches": ("cluster", "dialect", "fairness", "http", "limits", "operations"),
    "clients": ("dialect", "http"),
    "cluster": ("dialect", "fairness", "http"),
    "dialect": ("http",),
    "fairness": (),
    "http": (),
    "http2": ("http",),
    "loader": ("dialect",),
    "openapi": ("dialect", "http"),
    "operations": ("dialect", "fairness", "http"),
    "pages": ("http",),
    "plugins": (
        "dialect", "fairness", "http", "interfaces", "metricvalues", "openapi", "pages", "processes",
        "topcounts", "version",
    ),
    "resources": (
        "batches", "cluster", "dialect", "fairness", "http", "limits", "openapi", "operations", "services",
        "version", "views",
    ),
    "tracing": ("clients", "http", "interfaces"),
    "services": ("batches", "cluster", "dialect", "fairness", "http", "views"),
    "views": ("cluster", "dialect", "fairness", "http", "limits"),
    "workers": (
        "access", "cluster", "descriptors", "dialect", "interfaces", "jsonlog", "limits", "listeners", "logs",
        "metricvalues", "options", "processes", "server", "settings", "shutdowndelay",
    ),
}  # fmt: skip

# Test modules of a folder that hold a theme, not a module of that name.
THEMES: dict[str, str] = {
    "access.test_gate": "tokens, keys and passwords at a gateway with rules, over sockets",
    "batches.test_order": "operations on one key, in order",
    "batches.test_phases": "a batch's life, and that its account is even at the end",
    "clients.test_browser": "origins, in a real browser",
    "clients.test_roles": "users with some rights",
    "clients.test_doors": "who gets in, to the gateway and to the node behind it",
    "dialect.test_formats": "everything pure and small: expiry, entity tags, content types, projection, JSON",
    "fairness.test_steps": "long JSON, in steps, over sockets",
    "http.test_backpressure": "slow readers and slow writers",
    "http.test_linger": "how connections end",
    "access.test_bestpractices": "the practices of RFC 8725",
    "http.test_conversation": "requests and answers of one connection",
    "http.test_drain": "the end of a factory",
    "http.test_early": "answers before the end of the request's body",
    "http.test_endings": "how requests end, and how they are counted",
    "http.test_klein": "the same requests through Klein",
    "http.test_listeners": "sockets of every kind",
    "http.test_malformed": "malformed HTTP",
    "http.test_overtls": "requests and answers of one connection, over TLS",
    "http.test_unreadsequences": "what clients of both protocols do while answers wait",
    "openapi.test_examples": "the examples, on a real node",
    "http2.test_attacks": "clients that cause work without use",
    "http2.test_conversation": "requests and answers",
    "http2.test_ends": "how connections end",
    "http2.test_flow": "slow readers and slow writers",
    "http2.test_same": "the same answers as over HTTP/1.1",
    "http2.test_listeners": "sockets of every kind",
    "services.test_tls": "services over TLS",
    "services.test_query": "statements, over sockets",
    "services.test_proxy": "requests that are passed on, over sockets",
    "resources.test_encodings": "compressed documents, rows and batches, over sockets",
    "plugins.test_example": "the plugin of the how-to",
    "views.test_behaviour": "views from end to end",
    "views.test_wellformed": "answers of views are well-formed",
    "workers.test_ends": "both ends of the pipes between supervisor and worker",
    "workers.test_parts": "messages, settings, sums, balance",
    "workers.test_processes": "real processes, from start to stop",
    "workers.test_roll": "new settings, and no request lost",
}


def unit_of(name: str) -> str:
    """Return the folder of the package that a dotted name lies in, or its module beside the folders."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def arrows(package: str = PACKAGE) -> dict[tuple[str, str], Import]:
    """Return the arrows between units of the package, each with an import that makes it."""
    found = {}
    for path in source_files(package):
        for one in imports_of(path):
            ends = unit_of(one.importer), unit_of(one.target)
            if is_inside(one.target, package) and "" not in ends and ends[0] != ends[1]:
                found.setdefault(ends, one)
    return found


def folders(package: str = PACKAGE) -> list[str]:
    """Return the package's folders that hold Python."""
    return sorted(path.parent.name for path in (ROOT / package).glob("*/__init__.py"))


def is_wrong(importer: str, imported: str) -> bool:
    """Return whether the table forbids an arrow."""
    return importer in MAY_IMPORT and imported not in MAY_IMPORT[importer]


def circle(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return units that import each other in a circle, and those that import these; ``[]`` if none do."""
    below: dict[str, set[str]] = {}
    for importer, imported in pairs:
        below.setdefault(importer, set()).add(imported)
        below.setdefault(imported, set())
    # A folder whose imports are all removed is in no circle; the remaining ones are in a circle, or above
    # one.
    while free := [unit for unit, targets in below.items() if not targets & below.keys()]:
        for unit in free:
            del below[unit]
    return sorted(below)


class ArrowTests(SynchronousTestCase):
    """Folders of the gateway import downwards."""

    def test_arrows(self) -> None:
        """No folder imports what the table does not give it."""
        wrong = [str(one) for ends, one in arrows().items() if is_wrong(*ends)]
        self.assertEqual(wrong, [])

    def test_no_circles(self) -> None:
        """Folders, and modules beside them, do not import each other in a circle, nor for annotations."""
        self.assertEqual(circle(arrows()), [])

    def test_every_folder_is_in_the_table(self) -> None:
        """Each folder has a row with its allowed imports, and no other has."""
        self.assertEqual(sorted(MAY_IMPORT), folders())


class MirrorTests(SynchronousTestCase):
    """Tests are in the same folders as the tested modules."""

    def test_folders(self) -> None:
        """Each folder of the gateway has a folder of tests of its name, with tests."""
        without = [
            name for name in folders() if not list((ROOT / "tests" / PACKAGE / name).glob("test_*.py"))
        ]
        self.assertEqual(without, [])

    def test_modules(self) -> None:
        """A test module of a folder has the name of a module there, or of a theme in the table."""
        strangers, named = [], set()
        for path in sorted((ROOT / "tests" / PACKAGE).glob("*/test_*.py")):
            name = f"{path.parent.name}.{path.stem}"
            named.add(name)
            module = ROOT / PACKAGE / path.parent.name / path.name.removeprefix("test_")
            if name not in THEMES and not module.is_file():
                strangers.append(name)
        self.assertEqual(strangers, [])
        self.assertEqual(sorted(THEMES.keys() - named), [], "themes of tests that are gone")


class SelfTests(SynchronousTestCase):
    """The rules find violations, so an empty list above means something."""

    def test_arrows(self) -> None:
        """Sideways and up is wrong."""
        right = [("resources", "dialect"), ("batches", "cluster"), ("app", "resources")]
        wrong = [("dialect", "resources"), ("http", "app"), ("views", "batches"), ("loader", "http")]
        self.assertEqual([ends for ends in right if is_wrong(*ends)], [])
        self.assertEqual([ends for ends in wrong if not is_wrong(*ends)], [])

    def test_circles(self) -> None:
        """A circle of any length is found; a chain, and two ways to the same place, are none."""
        self.assertEqual(circle([("a", "b"), ("b", "c"), ("a", "c")]), [])
        self.assertEqual(circle([("a", "b"), ("b", "a")]), ["a", "b"])
        self.assertEqual(circle([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]), ["a", "b", "c"])

    def test_units(self) -> None:
        """A folder's modules are the folder; a module beside them is itself; the package is neither."""
        names = ("gateway.http.channel", "gateway.app", "gateway.app.Gateway", "gateway")
        self.assertEqual([unit_of(name) for name in names], ["http", "app", "app", ""])
