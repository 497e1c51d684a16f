"""Programs of others that are not Python's, wherever they are, and running ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from bench.ports import free_port

__all__ = [
    "DEBIAN",
    "ROOT",
    "START_SECONDS",
    "Process",
    "environment",
    "free_port",
    "get",
    "missing",
    "program",
    "twistd",
]

ROOT = Path(__file__).parent.parent.parent
DEBIAN = ROOT / "build" / "judges" / "debian"
"""The folder in which ``make judges`` unpacks Debian's packages."""

START_SECONDS = 60.0


def program(name: str) -> str | None:
    """Return the path of a program: one that is installed, or what ``make judges`` brought."""
    places = [DEBIAN / "usr" / "sbin", DEBIAN / "usr" / "bin"]
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, places)]))


def missing(*names: str) -> str | None:
    """Return why programs cannot be started, ``None`` if they can."""
    absent = [name for name in names if program(name) is None]
    return f"not installed: {', '.join(absent)} (make judges fetches Debian's)" if absent else None


def environment() -> dict[str, str]:
    """Return the environment for such a program."""
    libraries = [str(path) for path in DEBIAN.glob("usr/lib/*-linux-gnu*")]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else dict(os.environ)


class Process:
    """A running program; its output is in a file."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # it is open as long as the program runs
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=environment() if env is None else env,
        )

    @property
    def log(self) -> str:
        """Its output so far."""
        return os.pread(self._log.fileno(), 10**7, 0).decode("utf-8", "replace")

    def until_answers(self, port: int, path: str, status: int = 200) -> None:
        """Wait until it answers with a status."""
        until = time.monotonic() + START_SECONDS
        while get(port, path) != status:
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"it does not answer:\n{self.log}")
            time.sleep(0.05)

    def until_says(self, words: str) -> None:
        """Wait until it has printed these words."""
        until = time.monotonic() + START_SECONDS
        while words not in self.log:
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"it does not say {words!r}:\n{self.log}")
            time.sleep(0.05)

    def stop(self) -> int:
        """End it, in order if possible, and return its status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(START_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            self._log.close()


def twistd(*arguments: str) -> Process:
    """Start one of ours."""
    clean = {name: value for name, value in os.environ.items() if "COUCHGATEWAY" not in name}
    clean["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    code = "from twisted.scripts.twistd import run; run()"
    command = [sys.executable, "-c", code, "--nodaemon", "--pidfile="]
    return Process([*command, *arguments], clean)


def get(port: int, path: str) -> int | None:
    """Return the status of a GET, ``None`` if there is no answer."""
    connection: Any = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return int(connection.getresponse().status)
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
