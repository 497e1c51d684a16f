"""gocaves, a stand-in for a cluster in Go, where ``GOCAVES`` names the program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections import deque

PROGRAM = os.environ.get("GOCAVES")
USER, PASSWORD = "Administrator", "password"


def missing() -> str | None:
    """Return why it cannot be started, ``None`` if it can."""
    if not PROGRAM:
        return "GOCAVES names no program: build gocaves from its sources"
    return None if shutil.which(PROGRAM) else f"GOCAVES names {PROGRAM!r}, which cannot be executed"


class Caves:
    """A running gocaves: two nodes, and the bucket ``default``."""

    def __init__(self) -> None:
        assert PROGRAM
        self._process = subprocess.Popen(
            [PROGRAM, "-mock-only"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.startswith(b"{"):
                self.string: str = json.loads(line)["connstr"]
                # It writes a line for each request, and would block if the lines were not read.
                self._last: deque[bytes] = deque(maxlen=20)
                threading.Thread(target=self._last.extend, args=(self._process.stderr,), daemon=True).start()
                return
        self.stop()
        raise RuntimeError("gocaves ended while it started")

    def stop(self) -> None:
        """End it; RuntimeError with its last output if it ended before."""
        if self._process.poll() is not None:
            words = b"".join(getattr(self, "_last", ())).decode(errors="replace")
            raise RuntimeError(f"gocaves ended with status {self._process.returncode}: {words}")
        self._process.kill()
        self._process.wait()
