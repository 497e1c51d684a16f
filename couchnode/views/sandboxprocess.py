"""One sandbox process, for the worker's threads: requests to it always return.

See :mod:`couchnode.views.sandbox` for its protocol, :mod:`couchnode.views.sandboxes` for its users.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from couchnode.views.sandbox import (
    BROKEN,
    MEMORY,
    PATIENCE,
    READY,
    REFUSED,
    RESULT,
    SETTLE_SECONDS,
    TIMEOUT,
    SandboxLimits,
)
from reactor import children
from reactor.framing import FrameBuffer, frame_of

__all__ = ["FunctionError", "Sandbox", "SandboxDied", "SandboxError", "over_text"]

# Most contexts in one process; the least recently used one is dropped first.
_CONTEXTS = 8

_START_SECONDS = 30.0
_MARGIN_SECONDS = 2.0
_READ_BYTES = 1024 * 1024
# The limits on functions' results also bound the length of a reply.
_MAX_REPLY_BYTES = 2**32 - 1


class SandboxError(Exception):
    """No sandbox process can be started; the text says why."""


class SandboxDied(Exception):
    """The process ended, or was ended because it did not answer; the text says which.

    :ivar late: it did not answer.
    """

    late = False


class FunctionError(Exception):
    """A function does not compile, is not a function, or (a reduce function) threw or returned too much.

    :ivar reason: the text of V8 or the sandbox.
    :ivar index: number of the function among those given.
    """

    def __init__(self, reason: str, index: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.index = index


class Sandbox:
    """One sandbox process. Used by one thread at a time.

    :raises SandboxError: it does not start.
    """

    def __init__(self, limits: SandboxLimits) -> None:
        self._limits = limits
        #: (design, kind, functions) -> slot, least recently used first.
        self._slots: OrderedDict[tuple[Any, ...], int] = OrderedDict()
        self._arrived = FrameBuffer(_MAX_REPLY_BYTES)
        self._closed = False
        try:
            self._process = subprocess.Popen(
                children.command("couchnode.views.sandbox"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=children.environment(),
                bufsize=0,
            )
        except OSError as error:
            raise SandboxError(f"The process for view functions cannot be started: {error}") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        try:
            kind, text = self._ask(tuple(limits), _START_SECONDS)
        except SandboxDied as error:
            raise SandboxError(f"The process for view functions does not start: it {error}") from error
        except BaseException:
            self.close()
            raise
        if kind != READY:
            self.close()
            raise SandboxError(
                f"The process for view functions does not start ({text}); is mini-racer installed?"
            )
        #: V8's version.
        self.engine = text

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can take another request."""
        return not self._closed and self._process.poll() is None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def kill(self) -> None:
        """End the process; a call of another thread fails. The pipes stay open until :meth:`close`."""
        if self._process.poll() is None:
            self._process.kill()

    def close(self) -> None:
        """End the process at once and wait for it. Can be called repeatedly."""
        self.kill()
        self._process.wait()
        self._closed = True
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def has(self, key: tuple[Any, ...]) -> bool:
        """Return whether the functions of this key are loaded."""
        return key in self._slots

    def load(self, key: tuple[Any, ...], sources: Sequence[str]) -> int:
        """Return the slot of a context with these functions, loading them if necessary.

        :raises FunctionError: one of them does not load.
        :raises SandboxDied: the process ended in the meantime.
        """
        slot = self._slots.get(key)
        if slot is not None:
            self._slots.move_to_end(key)
            return slot
        if len(self._slots) < _CONTEXTS:
            slot = len(self._slots)
        else:
            slot = self._slots.popitem(last=False)[1]
        kind, text = self.ask(("load", slot, list(sources)))
        if kind == RESULT:
            self._slots[key] = slot
            return slot
        if kind == REFUSED:
            # The slot is free, but slots are counted: keep it under an unused name.
            self._slots[(slot,)] = slot
            self._slots.move_to_end((slot,), last=False)
            index, reason = text.split("\t")
            raise FunctionError(json.loads(reason), int(index))
        raise FunctionError(f"the function cannot be evaluated: it {over_text(kind, text, self._limits)}")

    def ask(self, request: tuple[Any, ...]) -> tuple[bytes, str]:
        """Send a request and return the kind and the text of the reply.

        After any kind but ``RESULT`` and ``REFUSED`` the process has ended, and is closed here.

        :raises SandboxDied: it ended without a reply, or was killed because none came in time.
        """
        limits = self._limits
        seconds = (limits.call_seconds + limits.slice_seconds) * PATIENCE + SETTLE_SECONDS + _MARGIN_SECONDS
        kind, text = self._ask(request, seconds)
        if kind not in (RESULT, REFUSED):
            self.close()
        return kind, text

    def _ask(self, request: tuple[Any, ...], seconds: float) -> tuple[bytes, str]:
        deadline = time.monotonic() + seconds
        try:
            self._write(frame_of(request), deadline)
            reply = self._read(deadline)
        except (OSError, EOFError):
            self.close()
            raise SandboxDied(f"ended with status {self._process.returncode}") from None
        return bytes(reply[:1]), str(reply[1:], "utf-8", "surrogatepass")

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        """Wait until the pipe is ready; end the process if that takes too long."""
        poll = select.poll()
        poll.register(descriptor, event)
        while not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            if time.monotonic() >= deadline:
                self.close()
                death = SandboxDied("did not stop when its time ran out")
                death.late = True
                raise death

    def _write(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._to, rest) :]
            except BlockingIOError:
                self._wait(self._to, select.POLLOUT, deadline)

    def _read(self, deadline: float) -> bytes:
        while (body := self._arrived.take()) is None:
            try:
                data = os.read(self._from, _READ_BYTES)
            except BlockingIOError:
                self._wait(self._from, select.POLLIN, deadline)
                continue
            if not data:
                raise EOFError
            self._arrived.feed(data)
        return body


def over_text(kind: bytes, text: str, limits: SandboxLimits) -> str:
    """Return why a process ended with such a reply, as a predicate for "the function"."""
    if kind == TIMEOUT:
        return f"ran longer than {limits.call_seconds:g} s"
    if kind == MEMORY:
        return f"used more than {limits.heap_bytes // (1024 * 1024)} MiB of memory"
    return f"failed in the sandbox: {text if kind == BROKEN else f'reply {kind!r}'}"
