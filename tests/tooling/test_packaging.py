"""The packages that a plain ``pip install .`` installs."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import setuptools
from packaging.requirements import Requirement
from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sources import PACKAGES, ROOT

BUILT_FROM = [*PACKAGES, "twisted", "setup.py", "pyproject.toml", "README.md", "LICENSE", "docs/man"]


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
        """Packages, typing markers, twistd's plugins and commands are in; tests and benchmarks are not."""
        with self.wheel() as wheel:
            names = set(wheel.namelist())
            (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
            commands = wheel.read(entry_points).decode()
            self.assertIn("couchgateway = gateway.commandline:main", commands)
            self.assertIn("couchnode = couchnode.command:main", commands)
            self.assertIn("couchgateway-load = gateway.loader.command:main", commands)
            self.assertIn("couchgateway-export = gateway.loader.exportcommand:main", commands)
        for package in PACKAGES:
            self.assertIn(f"{package}/__init__.py", names)
            self.assertIn(f"{package}/py.typed", names)
        modules = {
            str(path.relative_to(ROOT))
            for package in PACKAGES
            for pattern in ("*.py", "*.js", "*.mjs", "*.css", "*.html", "*.svg")
            for path in (ROOT / package).rglob(pattern)
        }
        plugins = {f"twisted/plugins/{name}_plugin.py" for name in ("couchgateway", "couchnode", "direct")}
        self.assertEqual((modules | plugins) - names, set())
        # An __init__.py here would overwrite Twisted's own on installation.
        self.assertEqual({name for name in names if name.startswith("twisted/")}, plugins)
        manuals = {name.rpartition("/")[2] for name in names if "/data/share/man/man1/" in name}
        self.assertEqual(manuals, {path.name for path in (ROOT / "docs" / "man").iterdir()})
        tops = {
            name.split("/")[0] for name in names if not name.split("/")[0].endswith((".dist-info", ".data"))
        }
        self.assertEqual(tops, {*PACKAGES, "twisted"})


def place(
    system: str, version: str, machine: str, python: str, implementation: str = "CPython"
) -> dict[str, str]:
    """Return what markers see on a machine."""
    return {
        "sys_platform": system,
        "platform_version": version,
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_python_implementation": implementation,
    }


def darwin(number: int) -> str:
    """Return ``platform.version()`` of macOS; Darwin 22 is macOS 13, and so on."""
    return f"Darwin Kernel Version {number}.6.0: Mon Jul 29 21:14:30 PDT 2024; root:xnu-1/RELEASE_ARM64_T6000"


class PlatformTests(SynchronousTestCase):
    """A plain installation includes the parts of views on platforms with prebuilt wheels, and works on
    others, too."""

    # Platforms with wheels of pyicu-wheels in the index, found with pip download --platform; there is no
    # sdist.
    PLACES = [
        (place("linux", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)", "x86_64", "3.10"), "2.15.2"),
        (place("linux", "#1-Alpine SMP PREEMPT_DYNAMIC 2024-11-22", "aarch64", "3.14"), "2.15.2"),
        (place("win32", "10.0.22631", "AMD64", "3.12"), "2.15.2"),
        (place("darwin", darwin(24), "arm64", "3.14"), "2.15.2"),
        (place("darwin", darwin(25), "x86_64", "3.11"), "2.15.2"),
        (place("darwin", darwin(23), "arm64", "3.12"), "2.14"),
        (place("darwin", darwin(23), "x86_64", "3.13"), "2.14"),
        (place("darwin", darwin(22), "x86_64", "3.10"), "2.14"),
        (place("darwin", darwin(22), "arm64", "3.12"), None),
        (place("darwin", darwin(23), "arm64", "3.14"), None),
        (place("darwin", darwin(21), "arm64", "3.12"), None),
        (place("linux", "#1 SMP", "x86_64", "3.11", "PyPy"), None),
    ]

    def test_requirements(self) -> None:
        """The newest version of pyicu-wheels that has a wheel for the platform, or none."""
        self.patch(setuptools, "setup", lambda **_: None)
        namespace = runpy.run_path(str(ROOT / "setup.py"))
        wanted = [Requirement(text) for text in namespace["VIEWS_WHERE_READY_BUILT"] if "pyicu" in text]
        for environment, version in self.PLACES:
            fitting = [one for one in wanted if one.marker is None or one.marker.evaluate(environment)]
            self.assertEqual(len(fitting), 0 if version is None else 1, environment)
            self.assertTrue(all(one.specifier.contains(str(version)) for one in fitting), environment)

    def test_locks(self) -> None:
        """The locks agree, so that ``make run`` installs there."""
        for name in ("lock.txt", "lowest.txt"):
            lines = (ROOT / "requirements" / name).read_text("utf-8").splitlines()
            pinned = [Requirement(line) for line in lines if line.startswith("pyicu-wheels==")]
            for environment, version in self.PLACES:
                fitting = [one for one in pinned if one.marker is None or one.marker.evaluate(environment)]
                self.assertEqual(
                    [str(one.specifier) for one in fitting], [f"=={version}"] if version else [], environment
                )
