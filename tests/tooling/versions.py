"""Runs the tests of the SDK on every Python of this machine: PyPy 3, and each CPython from 3.9.

    python -m tests.tooling.versions [INTERPRETER ...]

Each interpreter gets an environment under ``.venv-versions`` with what the tests need, and nothing of what
the node needs: nodes run on the interpreter of this process. Interpreters that are not installed are skipped
with a message. Ends with status 1 if tests failed somewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.tooling.sources import ROOT

CANDIDATES = ["pypy3", *(f"python3.{minor}" for minor in range(9, 16))]
SUITES = ["tests.couchbase", "tests.protocol", "tests.guide"]
PIP = ["-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
NEEDED = ["Twisted >= 24.11", "hypothesis >= 6.100"]
SECONDS = 600


def works(interpreter: str) -> bool:
    """Return whether there is such an interpreter; a name on the path may be a shim that starts nothing."""
    if shutil.which(interpreter) is None:
        return False
    probe = subprocess.run([interpreter, "-c", "import ensurepip, venv"], capture_output=True)
    return probe.returncode == 0


def run(interpreter: str) -> int:
    """Run the suites on one interpreter; return trial's exit status."""
    environment = ROOT / ".venv-versions" / os.path.basename(interpreter)
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", str(environment)], check=True)
    subprocess.run([str(python), *PIP, "install", *NEEDED], check=True)
    scratch = environment / "trial"
    return subprocess.run(
        [str(python), "-m", "twisted.trial", "--reporter=text", "--temp-directory", str(scratch), *SUITES],
        cwd=ROOT,
        env={**os.environ, "COUCHNODE_PYTHON": sys.executable},
        timeout=SECONDS,
    ).returncode


def main() -> int:
    """Run everything; return the exit status."""
    failed = []
    for interpreter in sys.argv[1:] or CANDIDATES:
        if not works(interpreter):
            print(f"== {interpreter}: not on this machine", flush=True)
            continue
        print(f"== {interpreter}", flush=True)
        if run(interpreter):
            failed.append(interpreter)
    print(f"failed on: {', '.join(failed)}" if failed else "every Python of this machine passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
