"""Reads the answer to a view query over HTTP, in a separate process, without parsing it.

    python -m bench.viewload URL ACCEPT PAUSE PID...

Sleeps for PAUSE seconds, reading nothing, after each piece that came. Prints a JSON object: seconds until the
first row and until the end, rows, bytes, the CPU seconds that this process used; and for each PID how much
its resident size grew, in bytes, from the first row to the last.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import treq
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import LoopingCall, react
from twisted.web.http_headers import Headers

from bench.processes import resident_bytes
from bench.serve import PASSWORD, USER

ROW = b'"id":'
SAMPLE_SECONDS = 0.02


class Answer:
    """The answer received so far.

    :param pause: seconds to sleep after each piece.
    :param pids: processes whose size is watched from the first row on.
    """

    def __init__(self, pause: float, pids: list[int]) -> None:
        self.begun = time.perf_counter()
        self.first: float | None = None
        self.rows = 0
        self.bytes = 0
        self._tail = b""
        self._pause = pause
        self._pids = pids
        self._before: dict[int, int] = {}
        self.growth: dict[int, int] = {}

    def take(self, data: bytes) -> None:
        """Count the rows of some more bytes."""
        self.bytes += len(data)
        self.rows += (self._tail + data).count(ROW)
        self._tail = data[1 - len(ROW) :]
        if self.rows and self.first is None:
            self.first = time.perf_counter() - self.begun
            self._before = {pid: resident_bytes(pid) for pid in self._pids}
            self.growth = dict.fromkeys(self._pids, 0)
        if self._pause:
            time.sleep(self._pause)

    def sample(self) -> None:
        """Record the sizes of the processes."""
        for pid, before in self._before.items():
            self.growth[pid] = max(self.growth[pid], resident_bytes(pid) - before)


def cpu_seconds() -> float:
    """Return user and system time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def load(url: str, accept: str, pause: float, pids: list[int]) -> None:
    """Read one answer, and print its figures."""
    used = cpu_seconds()
    answer = Answer(pause, pids)
    sampling = LoopingCall(answer.sample)
    sampling.start(SAMPLE_SECONDS)
    headers = Headers({"Accept": [accept]})
    auth = None if "/v1/" in url else (USER, PASSWORD)  # the gateway is open
    response = await treq.get(url, headers=headers, auth=auth, unbuffered=True)
    await treq.collect(response, answer.take)
    seconds = time.perf_counter() - answer.begun
    answer.sample()
    sampling.stop()
    if response.code != 200 or answer.first is None:
        raise RuntimeError(f"{url} answered {response.code} and {answer.bytes} bytes")
    print(
        json.dumps(
            {
                "first": answer.first,
                "seconds": seconds,
                "rows": answer.rows,
                "bytes": answer.bytes,
                "cpu": cpu_seconds() - used,
                "growth": answer.growth,
            }
        )
    )


if __name__ == "__main__":
    url, accept, pause, *pids = sys.argv[1:]
    react(lambda reactor: ensureDeferred(load(url, accept, float(pause), [int(pid) for pid in pids])))
