"""A server of :mod:`bench.serve` that also measures its reactor's turns, and finds the slow functions.

    python bench/turns.py CHECKOUT ROLE [ARGUMENT ...]

Runs the code of CHECKOUT, which may be an older one. Beyond the questions of :mod:`bench.serve` it answers
``turns``: ``[wall, cpu, function]`` of the longest turns since it was asked last, in seconds, longest by CPU
time first. A turn is what the reactor does between two polls, so nobody else is served meanwhile. Its CPU
time does not depend on other processes.
"""

from __future__ import annotations

import os
import signal
import sys
from time import perf_counter, thread_time
from types import FrameType
from typing import Any

KEPT = 5
SAMPLE_SECONDS = 0.005
NOTED_SECONDS = 0.02


class Turns:
    """Stands between the reactor and its epoll object.

    :param reactor: of :mod:`twisted.internet.epollreactor`.
    """

    def __init__(self, reactor: Any) -> None:
        self._poller = reactor._poller
        reactor._poller = self
        self._wall, self._cpu = perf_counter(), thread_time()
        self._longest: list[tuple[float, float, str]] = []
        self._samples: dict[str, int] = {}
        signal.signal(signal.SIGPROF, self._sample)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)

    def poll(self, timeout: float, most: int) -> Any:
        """End a turn, wait, and begin another."""
        cpu, wall = thread_time() - self._cpu, perf_counter() - self._wall
        if cpu > NOTED_SECONDS:
            self._note(wall, cpu)
        self._samples.clear()
        try:
            return self._poller.poll(timeout, most)
        finally:
            self._wall, self._cpu = perf_counter(), thread_time()

    def _note(self, wall: float, cpu: float) -> None:
        place = max(self._samples, key=self._samples.__getitem__, default="?")
        self._longest.append((wall, cpu, place))
        self._longest.sort(key=lambda turn: -turn[1])
        del self._longest[KEPT:]

    def take(self) -> list[tuple[float, float, str]]:
        """Return the longest turns, and forget them."""
        longest, self._longest = self._longest, []
        return longest

    def _sample(self, number: int, frame: FrameType | None) -> None:
        if thread_time() - self._cpu < SAMPLE_SECONDS:
            return
        names: list[str] = []
        while frame is not None and len(names) < 4:
            module = frame.f_globals.get("__name__", "?")
            if module.partition(".")[0] in _OWN or not names:
                names.append(f"{module}:{frame.f_code.co_name}:{frame.f_lineno}")
            frame = frame.f_back
        place = " < ".join(names)
        self._samples[place] = self._samples.get(place, 0) + 1


_OWN = frozenset({"gateway", "txcouchbase", "couchbase", "couchnode"})


def main() -> None:
    """Serve as :mod:`bench.serve` does."""
    root = sys.argv.pop(1)
    sys.path[0] = root
    os.chdir(root)
    from bench import serve

    class Control(serve.Control):
        """Answers one more question."""

        def lineReceived(self, line: bytes) -> None:
            if line == b"turns":
                self.tell(turns=turns.take())
            else:
                super().lineReceived(line)

    turns = Turns(serve.reactor)
    # The result of its start().
    serve.Control = Control  # type: ignore[misc]
    serve.main()


if __name__ == "__main__":
    main()
