"""Clients that others' generators make of the OpenAPI document, in TypeScript and Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.judges.programs import ROOT, Process, free_port, twistd

GENERATED = ROOT / "build" / "judges" / "generated"
CLIENTS = Path(__file__).parent / "clients"
TYPESCRIPT = GENERATED / "typescript" / "node_modules"
PYTHON = GENERATED / "python" / "bin"

EXPECTED = [
    {"name": "put", "status": 200, "value": None},
    {"name": "get", "status": 200, "value": {"name": "Amber Ale", "sold": 1}},
    {"name": "missing", "status": 404, "value": "DocumentNotFound"},
    {"name": "stale", "status": 409, "value": "CasMismatch"},
    {"name": "count", "status": 200, "value": 7},
    {"name": "lookup", "status": 200, "value": ["Amber Ale", False]},
    {"name": "batch", "status": 200, "value": [200, 404]},
    {"name": "scopes", "status": 200, "value": ["_default"]},
    {"name": "list", "status": 200, "value": ["visits"]},
]
"""What both programs print."""


class GeneratedTests(SynchronousTestCase):
    """From the document of a running gateway to the answers of a program."""

    def setUp(self) -> None:
        self.port = free_port()
        self.gateway: Process = twistd(
            "couchgateway", "--ephemeral", "--listen", f"tcp:{self.port}:interface=127.0.0.1"
        )
        self.addCleanup(self.gateway.stop)
        self.gateway.until_answers(self.port, "/ready")
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def run_it(self, *command: object, **environment: str) -> str:
        """Run a program in the folder to its end, and return its output."""
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def lines(self, output: str) -> list[Any]:
        """Return what a program printed."""
        return [json.loads(line) for line in output.splitlines()]

    def test_typescript(self) -> None:
        """openapi-typescript makes types with which a program compiles; openapi-fetch runs it."""
        for name in ("client.ts", "tsconfig.json", "package.json"):
            shutil.copy(CLIENTS / "typescript" / name, self.folder)
        (self.folder / "node_modules").symlink_to(TYPESCRIPT, target_is_directory=True)
        self.run_it(
            TYPESCRIPT / ".bin" / "openapi-typescript", f"{self.url}/openapi.json", "--output", "gateway.ts"
        )
        self.run_it(TYPESCRIPT / ".bin" / "tsc", "--project", ".")
        lines = self.lines(self.run_it("node", "built/client.js", self.url))
        self.assertEqual(lines[:-1], EXPECTED)

    def test_python(self) -> None:
        """openapi-python-client makes a package for every operation, whose models read the answers."""
        said = self.run_it(
            PYTHON / "openapi-python-client", "generate", "--url", f"{self.url}/openapi.json",
            "--output-path", "couchgateway_client", "--meta", "none",
        )  # fmt: skip
        self.assertNotIn("will not be generated", said)
        self.assertNotIn("Unable to", said)
        program = CLIENTS / "python" / "generated.py"
        lines = self.lines(self.run_it(PYTHON / "python", program, self.url, PYTHONPATH=str(self.folder)))
        self.assertEqual(lines, EXPECTED)

    if not TYPESCRIPT.exists() or shutil.which("node") is None:
        test_typescript.skip = "openapi-typescript is not there (make judges fetches it)"  # type: ignore[attr-defined]
    if not (PYTHON / "openapi-python-client").exists():
        test_python.skip = "openapi-python-client is not there (make judges fetches it)"  # type: ignore[attr-defined]
