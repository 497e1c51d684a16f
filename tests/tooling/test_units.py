"""The systemd units of deploy/systemd."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sources import ROOT

UNITS = ROOT / "deploy" / "systemd"


class UnitTests(SynchronousTestCase):
    """The units, as checked by systemd."""

    if shutil.which("systemd-analyze") is None:
        skip = "systemd-analyze is not installed"

    def check(self, *options: str) -> None:
        """Assert that ``systemd-analyze`` has no complaint about a unit."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.assertEqual(len(list(UNITS.iterdir())), 2)
        for unit in UNITS.iterdir():
            # The program must be there.
            text = unit.read_text().replace("/opt/couchgateway/bin", str(Path(sys.executable).parent))
            (folder / unit.name).write_text(text)
            checked = subprocess.run(
                ["systemd-analyze", *options, str(folder / unit.name)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            self.assertEqual(checked.returncode, 0, checked.stdout[-500:] + checked.stderr)
            self.assertNotIn(unit.name, checked.stderr)

    def test_verify(self) -> None:
        """All settings are known to systemd, and none causes a warning."""
        self.check("verify", "--man=no")

    def test_exposure(self) -> None:
        """The exposure is at most 2.0; it is 9.6 without hardening."""
        self.check("security", "--offline=true", "--threshold=20")
