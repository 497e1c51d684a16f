"""What a plain ``pip install .`` brings along."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sources import PACKAGES, ROOT

BUILT_FROM = [*PACKAGES, "twisted", "setup.py", "pyproject.toml", "README.md", "LICENSE"]


class WheelTests(SynchronousTestCase):
    """The wheel has everything that twistd, type checkers and the command line need."""

    def wheel(self) -> zipfile.ZipFile:
        """Build the wheel from a copy of the sources, so that no build folder is left in the checkout."""
        scratch = Path(self.mktemp())
        for name in BUILT_FROM:
            source, copy = ROOT / name, scratch / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
            else:
                shutil.copy(source, copy)
        built = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
             "--no-index", "--wheel-dir", str(scratch / "wheels"), str(scratch / "source")],
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.assertEqual(built.returncode, 0, built.stdout + built.stderr)
        (path,) = (scratch / "wheels").glob("couchgateway-*.whl")
        return zipfile.ZipFile(path)

    def test_contents(self) -> None:
        """Packages, typing markers, twistd's plugins and the command are in; tests and benchmarks are not."""
        with self.wheel() as wheel:
            names = set(wheel.namelist())
            (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
            self.assertIn("couchgateway-load = gateway.load:main", wheel.read(entry_points).decode())
        for package in PACKAGES:
            self.assertIn(f"{package}/__init__.py", names)
            self.assertIn(f"{package}/py.typed", names)
        modules = {
            str(path.relative_to(ROOT))
            for package in PACKAGES
            for pattern in ("*.py", "*.js")
            for path in (ROOT / package).rglob(pattern)
        }
        plugins = {f"twisted/plugins/{name}_plugin.py" for name in ("couchgateway", "couchnode")}
        self.assertEqual((modules | plugins) - names, set())
        # An __init__.py here would overwrite Twisted's own on installation.
        self.assertEqual({name for name in names if name.startswith("twisted/")}, plugins)
        tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
        self.assertEqual(tops, {*PACKAGES, "twisted"})
