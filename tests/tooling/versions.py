"""Runs the tests of the SDK on every Python of this machine: PyPy 3, and each CPython from 3.9.

    python -m tests.tooling.versions [INTERPRETER ...]

Each interpreter gets an environment under ``.venv-versions`` with what the tests need, and nothing of what
the node needs: nodes run on the interpreter of this process. Interpreters are those on the path and those of
pyenv, without the one of this process, on which ``make test`` runs; what is not installed is skipped with a
message. Two run at once. Ends with status 1 if tests failed somewhere.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.tooling.sources import ROOT

CANDIDATES = ["pypy3", *(f"python3.{minor}" for minor in range(9, 16) if minor != sys.version_info.minor)]
SUITES = ["tests.couchbase", "tests.protocol", "tests.guide"]
PIP = ["-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
NEEDED = ["Twisted >= 24.11", "hypothesis >= 6.100"]
SECONDS = 600


def installed(name: str) -> str | None:
    """Return the path of an interpreter that works; a name on the path may be a shim that starts nothing."""
    return next(filter(_works, (found for found in (shutil.which(name), _of_pyenv(name)) if found)), None)


def _works(interpreter: str) -> bool:
    return subprocess.run([interpreter, "-c", "import ensurepip, venv"], capture_output=True).returncode == 0


def _of_pyenv(name: str) -> str | None:
    """Return the newest of pyenv's interpreters with a name."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = root.glob(f"versions/*/bin/{name}")
    numbers = {path: [int(part) for part in re.findall(r"\d+", path.parts[-3])] for path in found}
    return str(max(numbers, key=lambda path: numbers[path])) if numbers else None


def run(name: str, interpreter: str) -> subprocess.CompletedProcess[str]:
    """Run the suites on one interpreter; return trial's exit status and output."""
    environment = ROOT / ".venv-versions" / name
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", str(environment)], check=True)
    subprocess.run([str(python), *PIP, "install", *NEEDED], check=True)
    scratch = environment / "trial"
    return subprocess.run(
        [str(python), "-m", "twisted.trial", "--reporter=text", "--temp-directory", str(scratch), *SUITES],
        cwd=ROOT,
        env={**os.environ, "COUCHNODE_PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )


def main() -> int:
    """Run everything; return the exit status."""
    failed = []
    found = {name: installed(name) for name in sys.argv[1:] or CANDIDATES}
    with ThreadPoolExecutor(2) as pool:
        runs = {name: pool.submit(run, name, path) for name, path in found.items() if path is not None}
        for name in found:
            if name not in runs:
                print(f"== {name}: not on this machine", flush=True)
                continue
            done = runs[name].result()
            print(f"== {name}\n{done.stdout}", end="", flush=True)
            if done.returncode:
                failed.append(name)
    print(f"failed on: {', '.join(failed)}" if failed else "every Python of this machine passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
