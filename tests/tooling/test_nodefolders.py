"""The folders of the node: allowed imports, no circles, and the same folders in the tests."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.shape import Shape, tangled
from tests.tooling.sources import ROOT
from tests.tooling.test_folders import arrows, circle, folders

PACKAGE = "couchnode"

# A folder of the node -> what it may import of the node: folders, and the ports that lie beside them. Modules
# beside them (the node as a service, its sample, the repair of a data directory) may import any folder.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "access": (),
    "cluster": ("access", "data", "ports"),
    "data": (),
    "kv": ("access", "data", "ports", "tls"),
    "rest": ("access", "cluster", "data", "tls", "views"),
    "views": ("cluster", "data"),
}

# Test modules of a folder that hold a theme, not a module of that name.
THEMES: dict[str, str] = {
    "data.test_damage": "files that are not what was written",
    "kv.test_rangescans": "range scans, from the snapshot to the wire",
    "kv.test_subdocument": "the commands on parts of documents, their attributes and tombstones",
    "rest.test_closed": "who gets into a closed node, over both protocols",
}


class FolderTests(SynchronousTestCase):
    """Folders of the node import downwards, and tests are in the same folders as the tested modules."""

    def test_arrows(self) -> None:
        """No folder imports what the table does not give it."""
        wrong = [
            str(one)
            for (importer, imported), one in arrows(PACKAGE).items()
            if importer in MAY_IMPORT and imported not in MAY_IMPORT[importer]
        ]
        self.assertEqual(wrong, [])

    def test_every_folder_is_in_the_table(self) -> None:
        """Each folder has a row with its allowed imports, and no other has."""
        self.assertEqual(sorted(MAY_IMPORT), folders(PACKAGE))

    def test_no_circles(self) -> None:
        """Neither folders nor modules import each other in a circle, nor for annotations."""
        self.assertEqual(circle(arrows(PACKAGE)), [])
        self.assertEqual(tangled(Shape(packages=[PACKAGE]).graph(with_types=True)), [])

    def test_tests_mirror(self) -> None:
        """Each folder has a folder of tests; a test module there has the name of a module or of a theme."""
        strangers, named = [], set()
        for folder in folders(PACKAGE):
            tests = sorted((ROOT / "tests" / PACKAGE / folder).glob("test_*.py"))
            self.assertNotEqual(tests, [], f"no tests of {folder}")
            for path in tests:
                name = f"{folder}.{path.stem}"
                named.add(name)
                module = ROOT / PACKAGE / folder / path.stem.removeprefix("test_")
                if name not in THEMES and not module.is_dir() and not module.with_suffix(".py").is_file():
                    strangers.append(name)
        self.assertEqual(strangers, [])
        self.assertEqual(sorted(THEMES.keys() - named), [], "themes of tests that are gone")
