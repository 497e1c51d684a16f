"""Samples the functions of this process, each time it has used a given amount of CPU.

A signal every few milliseconds of CPU time costs nearly nothing, where a tracing profiler makes calls slower
than what they call. The kernel looks at such timers when its own clock ticks, so samples are rarer than
requested. What a C function takes counts for the Python function that called it.
"""

from __future__ import annotations

import signal
from types import CodeType, FrameType
from typing import Any

INTERVAL_SECONDS = 0.001
TRANSPORTS = frozenset({"twisted.internet.tcp", "twisted.internet.abstract"})


class Sampler:
    """Counts stacks between :meth:`start` and :meth:`stop`; for the main thread, and Unix."""

    def __init__(self) -> None:
        # By id, since hashing a code object reads all of it; the object is kept so that its id stays unique.
        self._labels: dict[int, tuple[str, str, CodeType]] = {}
        self.counts: dict[tuple[str, ...], int] = {}
        """How often each stack was sampled so far, the innermost function first."""
        self._wakeup = -1

    def start(self) -> None:
        """Begin without samples."""
        self.counts = {}
        # Every signal would wake up the reactor, which would also be sampled.
        self._wakeup = signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGPROF, self._take)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def stop(self) -> dict[str, int]:
        """Return stack -> how often it was seen: functions as module:name, outermost first, with ``;``."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wakeup)
        return {";".join(reversed(stack)): count for stack, count in self.counts.items()}

    def _take(self, number: int, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            code = frame.f_code
            known = self._labels.get(id(code))
            if known is None:
                module = frame.f_globals.get("__name__", "?")
                name = getattr(code, "co_qualname", code.co_name)  # 3.11
                known = self._labels[id(code)] = (module, f"{module}:{name}", code)
            module, label, _ = known
            stack.append(label + _whose(frame) if module in TRANSPORTS else label)
            frame = frame.f_back
        key = tuple(stack)
        self.counts[key] = self.counts.get(key, 0) + 1


def _whose(frame: FrameType) -> str:
    """Return which protocol a transport works for, as ``(module:class)``: one class serves all of them."""
    protocol: Any = getattr(frame.f_locals.get("self"), "protocol", None)
    protocol = getattr(protocol, "_wrappedProtocol", protocol)  # as an endpoint connects it
    return "" if protocol is None else f"({type(protocol).__module__}:{type(protocol).__qualname__})"
