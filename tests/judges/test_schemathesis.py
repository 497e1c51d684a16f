"""Schemathesis sends what the OpenAPI document allows and what it forbids, with all its checks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.judges.programs import ROOT, Process, free_port, twistd

PROGRAM = ROOT / "build" / "judges" / "schemathesis" / "bin" / "st"
FOLDER = Path(__file__).parent / "schemathesis"


class SchemathesisTests(SynchronousTestCase):
    """A gateway that asks for credentials, with its node, and a bucket on disk."""

    if not PROGRAM.exists():
        skip = "schemathesis is not there (make judges fetches it)"

    def setUp(self) -> None:
        self.port = free_port()
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        password = folder / "password.txt"
        password.write_text("couchgateway\n")
        self.gateway: Process = twistd(
            "couchgateway",
            *("--data", str(folder / "data"), "--listen", f"tcp:{self.port}:interface=127.0.0.1"),
            *("--auth", "passthrough", "--user", "admin", "--password-file", str(password)),
        )
        self.addCleanup(self.gateway.stop)
        self.gateway.until_answers(self.port, "/ready")

    def test_all_checks(self) -> None:
        """No answer has an undocumented status, type, form or header, the server never fails, nothing invalid
        is accepted, nothing valid refused, and no method works that is not described."""
        done = subprocess.run(
            [
                str(PROGRAM),
                f"--config-file={FOLDER / 'schemathesis.toml'}",
                "run",
                f"http://127.0.0.1:{self.port}/openapi.json",
                "--auth=admin:couchgateway",
                # The same handlers as for the default collection; only the time would double.
                "--exclude-operation-id-regex=_document_in_collection$",
            ],
            cwd=self.mktemp_folder(),
            env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(FOLDER)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout[-20_000:] + done.stderr)
        self.assertIn("No issues found", done.stdout)

    def mktemp_folder(self) -> str:
        """Return a new empty folder."""
        path = self.mktemp()
        os.makedirs(path)
        return path
