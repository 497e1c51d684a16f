"""Runs the modules of this package, several at once, each in a trial of its own.

    python -m tests.judges [MODULE ...]

Most of them wait for programs of others. What a module printed follows when it is over; the exit status is 1
if one failed. ``JOBS`` in the environment is how many run at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FrameType

_PACKAGE = "tests.judges"
_JOBS = 3
# They take longest, so they begin.
_FIRST = tuple(
    f"{_PACKAGE}.test_{name}" for name in ("clients", "stopping", "console", "docs_page", "release")
)


def modules() -> list[str]:
    """Return the test modules of this package."""
    found = {f"{_PACKAGE}.{path.stem}" for path in Path(__file__).parent.glob("test_*.py")}
    return [*_FIRST, *sorted(found.difference(_FIRST))]


class Run:
    """One module in its process."""

    def __init__(self, module: str, scratch: Path) -> None:
        self.module = module
        self._command = [
            sys.executable,
            "-m",
            "twisted.trial",
            "--temp-directory",
            str(scratch / module),
            module,
        ]
        self._process: subprocess.Popen[str] | None = None

    def finish(self) -> tuple[str, int]:
        """Run it to its end; return its output and exit status."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output, _ = self._process.communicate()
        return output, self._process.returncode

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(names: list[str]) -> int:
    """Run everything; return the exit status."""
    signal.signal(signal.SIGTERM, _stop)
    failed = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        ThreadPoolExecutor(int(os.environ.get("JOBS") or _JOBS)) as pool,
    ):
        running = {
            pool.submit(run.finish): run for run in (Run(name, Path(scratch)) for name in names or modules())
        }
        try:
            for done in as_completed(running):
                output, status = done.result()
                print(f"== {running[done].module}\n{output}", end="", flush=True)
                if status:
                    failed.append(running[done].module)
        finally:
            for future, run in running.items():
                future.cancel()
                run.stop()
    outcome = f"failed: {', '.join(sorted(failed))}" if failed else "every judge agreed or was skipped"
    print(outcome, flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
