"""When ``make dist`` builds a release, and when it refuses; ``tests.judges.test_release`` has the files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.version import VERSION
from tests.tooling import release
from tests.tooling.release import obstacle
from tests.tooling.sources import ROOT


class ObstacleTests(SynchronousTestCase):
    """CHANGELOG.md and the version of the sources."""

    def test_dated(self) -> None:
        """A version with its date is released, whatever is below it."""
        text = "# Changelog\n\n## 0.2.0 - 2027-01-31\n\n### Fixed\n\n## 0.1.0 - 2026-12-01\n"
        for trial in (False, True):
            self.assertIsNone(obstacle(text, "0.2.0", trial=trial))

    def test_unreleased(self) -> None:
        """It is refused, with both ways out; a trial is not."""
        text = "# Changelog\n\n## 0.2.0 - unreleased\n\n## 0.1.0 - 2026-12-01\n"
        reason = str(obstacle(text, "0.2.0"))
        self.assertIn("0.2.0 is unreleased; write the date", reason)
        self.assertIn("make dist TRIAL=1", reason)
        self.assertIsNone(obstacle(text, "0.2.0", trial=True))

    def test_other_version(self) -> None:
        """The first section is that of the sources, in a trial too."""
        text = "# Changelog\n\n## 0.2.0 - 2027-01-31\n"
        for trial in (False, True):
            for version in ("0.1.0", "0.2.1", "0.2.0.dev1", ""):
                reason = str(obstacle(text, version, trial=trial))
                self.assertIn(
                    f"begins with version 0.2.0, but couchbase/protocol/version.py has {version};", reason
                )

    def test_other_heading(self) -> None:
        """A section without version or date is none; nor is a missing one."""
        for heading in (
            "Unreleased",
            "0.2.0",
            "0.2.0 - soon",
            "v0.2.0 - 2027-01-31",
            "2027-01-31",
            "0.2 - unreleased",
        ):
            reason = str(obstacle(f"# Changelog\n\n## {heading}\n", "0.2.0", trial=True))
            self.assertEqual(
                reason,
                f"CHANGELOG.md begins with {heading!r}; expected as in '0.2.0 - 2027-01-31'",
            )
        self.assertIn("begins with ''", str(obstacle("# Changelog\n", "0.2.0", trial=True)))


class MakeTests(SynchronousTestCase):
    """The program."""

    def head(self, changelog: str) -> None:
        """Have ``git archive`` return sources with this changelog, and the version of these sources."""
        folder = Path(self.mktemp())
        version = folder / "couchbase" / "protocol" / "version.py"
        version.parent.mkdir(parents=True)
        version.write_bytes((ROOT / "couchbase" / "protocol" / "version.py").read_bytes())
        (folder / "CHANGELOG.md").write_text(changelog)
        archive = subprocess.run(
            [sys.executable, "-m", "tarfile", "-c", "sources.tar", "couchbase", "CHANGELOG.md"], cwd=folder
        )
        self.assertEqual(archive.returncode, 0)
        content = (folder / "sources.tar").read_bytes()

        def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[bytes]:
            return subprocess.CompletedProcess([], 0, content)

        self.patch(release, "subprocess", type("Module", (), {"run": run}))

    def test_refused(self) -> None:
        """Nothing is built, and an earlier release stays."""

        def build(*_: object) -> None:
            raise AssertionError("built")

        self.patch(release, "_build", build)
        dist = Path(self.mktemp())
        dist.mkdir()
        (dist / "old").touch()
        self.head(f"# Changelog\n\n## {VERSION} - unreleased\n")
        refused = self.assertRaises(SystemExit, release.make, dist)
        self.assertIn(
            f"HEAD cannot be released: CHANGELOG.md says that {VERSION} is unreleased", str(refused)
        )
        self.head("# Changelog\n\n## 99.0.0 - 2027-01-31\n")
        refused = self.assertRaises(SystemExit, release.make, dist, trial=True)
        self.assertIn("begins with version 99.0.0", str(refused))
        self.assertTrue((dist / "old").exists())
        self.head(f"# Changelog\n\n## {VERSION} - 2027-01-31\n")
        self.assertRaises(AssertionError, release.make, dist)
