"""The systemd unit of docs/howto/operations.md."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sources import ROOT


def unit() -> str:
    """Return the unit as the page shows it."""
    page = (ROOT / "docs" / "howto" / "operations.md").read_text("utf-8")
    lines = re.search(r"\n    \[Unit\]\n(?:(?:    .*)?\n)+", page)
    assert lines is not None
    return "".join(line[4:] + "\n" for line in lines[0].strip("\n").splitlines())


class UnitTests(SynchronousTestCase):
    """The unit, as checked by systemd."""

    if shutil.which("systemd-analyze") is None:
        skip = "systemd-analyze is not installed"

    def test_verify(self) -> None:
        """All its settings are known to systemd, and none causes a warning."""
        path = Path(self.mktemp()).absolute().with_name("couchgateway.service")
        path.parent.mkdir(parents=True, exist_ok=True)
        # The program must be there.
        path.write_text(unit().replace("/opt/couchgateway/bin/twistd", sys.executable))
        checked = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        mine = [line for line in checked.stderr.splitlines() if path.name in line]
        self.assertEqual(mine, [], checked.stderr)

    def test_exposure(self) -> None:
        """It is far from the 9.6 of one without hardening."""
        path = Path(self.mktemp()).absolute().with_name("couchgateway.service")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unit().replace("/opt/couchgateway/bin/twistd", sys.executable))
        checked = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=40", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(checked.returncode, 0, checked.stdout[-500:] + checked.stderr)
