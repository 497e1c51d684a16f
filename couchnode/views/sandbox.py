"""The process that runs the JavaScript of views: V8 with one context for each design, and no data of value.

``python -m couchnode.views.sandbox`` is started by :mod:`couchnode.views.sandboxes` and serves its standard
input and output until the input ends. User code may kill it (V8 aborts when it runs out of memory); nothing
is lost then.

Frames in both directions are a 4-byte big-endian length and a body. Requests are marshalled tuples: first the
:class:`SandboxLimits`, then ``("load", slot, sources)``, ``("map", slot, changes)``, ``("reduce", slot,
calls)``, ``("on", slot)`` to continue a paused batch, ``("check", sources)``. The body of a reply is one kind
byte and a text: see the constants. Output that Python or V8 print is kept out of the replies.
"""

from __future__ import annotations

import json
import marshal
import os
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

# Slow imports happen inside functions: the worker imports this module, too, for its
# constants.
if TYPE_CHECKING:
    from py_mini_racer import MiniRacer

from reactor.children import leave_signals_to_parent
from reactor.framing import LENGTH

__all__ = ["SandboxLimits", "main"]

READY = b"S"
"""The process serves; the text is V8's version."""

RESULT = b"R"
"""The text is the result of prelude.js: sections after a batch, a JSON array of reasons after a check."""

REFUSED = b"E"
"""A function does not load: the text is its number, a tab, and the reason in JSON."""

TIMEOUT = b"T"
"""The time limit was exceeded; the text is the finished part, or empty if V8 did not stop. The process
ends."""

MEMORY = b"M"
"""The memory limit was exceeded. The process ends."""

BROKEN = b"X"
"""An internal error; the text describes it. The process ends."""

# How long V8 may take to report the part finished before the timeout.
_STOP_SECONDS = 0.5
_SHORTEST_WAIT_SECONDS = 0.01
PATIENCE = 4
"""Factor between the limits on wall-clock time and processor time of a call.

On a busy machine a harmless document has to wait; only long computations should count."""

SETTLE_SECONDS = 2.0
"""How long promises of a function may run after it has returned."""

_THREAD_STACK_BYTES = 512 * 1024


class SandboxLimits(NamedTuple):
    """Limits on user functions; docs/views describes what happens beyond them."""

    #: Processor time; on the clock PATIENCE times as much.
    call_seconds: float = 10.0
    #: JavaScript heap of one design's functions.
    heap_bytes: int = 128 * 1024 * 1024
    #: Memory of a whole process beyond its memory at start; covers what V8 does not count as heap.
    data_bytes: int = 512 * 1024 * 1024
    #: A key must be shorter than this.
    key_bytes: int = 4096
    #: Keys and values of one document in one view.
    document_rows_bytes: int = 1024 * 1024
    value_bytes: int = 16 * 1024 * 1024 - 1
    document_keys: int = 65535
    reduction_bytes: int = 64 * 1024
    #: Documents in a row over the limits of time or memory after which the functions are disabled.
    timeouts_in_a_row: int = 5

    @property
    def slice_seconds(self) -> float:
        """Time after which a batch pauses between two documents."""
        return min(1.0, self.call_seconds / 10)


class _Over(Exception):
    """The process has to end: the kind and text of its last reply."""

    def __init__(self, kind: bytes, text: str = "") -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text


class _Context:
    """One V8 isolate with the prelude; its functions never see another one."""

    def __init__(self, prelude: str, limits: SandboxLimits) -> None:
        from py_mini_racer import MiniRacer

        self._seconds = limits.call_seconds + limits.slice_seconds
        self._racer: MiniRacer = MiniRacer()
        self._racer.set_hard_memory_limit(limits.heap_bytes)
        setup: Any = self._racer.eval(prelude)
        self._host = setup(
            json.dumps(
                {
                    "keyBytes": limits.key_bytes,
                    "rowsBytes": limits.document_rows_bytes,
                    "valueBytes": limits.value_bytes,
                    "keysPerDocument": limits.document_keys,
                    "reductionBytes": limits.reduction_bytes,
                    "sliceMilliseconds": limits.slice_seconds * 1000,
                }
            )
        )

    def close(self) -> None:
        self._racer.close()

    def call(self, operation: str, text: str = "") -> str:
        """Load or check functions."""
        return str(self._enter(operation, text, self._seconds))

    def batch(self, operation: str, text: str = "") -> str:
        """Run (or continue) a batch and return its sections."""
        try:
            sections = self._enter(operation, text, self._seconds)
        except _Over as over:
            if over.kind == TIMEOUT:
                # Only after V8 has really stopped: a call waits for that before its own time begins.
                self.settle(_STOP_SECONDS)
                over.text = self._enter("take", "", _STOP_SECONDS)
            raise
        self.settle(SETTLE_SECONDS)
        return str(sections)

    def settle(self, seconds: float) -> None:
        """Make sure that V8 is idle: no promise of user code keeps it busy."""
        self._guard(lambda: self._racer.eval("0", timeout_sec=seconds))

    def _enter(self, operation: str, text: str, seconds: float) -> Any:
        import asyncio

        loop = self._racer._ctx.event_loop  # type: ignore[union-attr]  # MiniRacer's own timeouts are in wall-clock time
        call = self._host.cancelable()(operation, text)
        return self._guard(lambda: asyncio.run_coroutine_threadsafe(_within(call, seconds), loop).result())

    def _guard(self, enter: Callable[[], Any]) -> Any:
        from py_mini_racer import JSEvalException, JSOOMException, JSTimeoutException

        try:
            return enter()
        except JSTimeoutException:
            raise _Over(TIMEOUT) from None
        except JSOOMException:
            raise _Over(MEMORY) from None
        except JSEvalException as error:
            if self._racer.was_hard_memory_limit_reached():
                raise _Over(MEMORY) from None
            raise _Over(BROKEN, str(error)) from None


async def _within(call: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """Await a call of V8 with a limit on processor time, and PATIENCE times that on the clock.

    :raises JSTimeoutException: the limit was exceeded; V8 was asked to stop.
    """
    import asyncio

    from py_mini_racer import JSTimeoutException

    task = asyncio.ensure_future(call)
    # The process does nothing else, so its processor time is the call's, including V8's helper threads.
    used_before, began = time.process_time(), time.monotonic()
    left = seconds
    while left > 0:
        done, _ = await asyncio.wait({task}, timeout=max(left, _SHORTEST_WAIT_SECONDS))
        if done:
            return task.result()
        left = min(used_before + seconds - time.process_time(), began + seconds * PATIENCE - time.monotonic())
    task.cancel()
    await asyncio.wait({task})
    raise JSTimeoutException


class _Sandbox:
    """Answers requests, one at a time."""

    def __init__(self, limits: SandboxLimits, prelude: str) -> None:
        self._limits = limits
        self._prelude = prelude
        self._contexts: dict[int, _Context] = {}
        self._running = "map"
        self._checker: _Context | None = None

    def answer(self, request: tuple[Any, ...]) -> tuple[bytes, str]:
        """Return the kind and the text of the reply.

        :raises _Over: this reply must be the last.
        """
        operation = request[0]
        if operation == "check":
            return RESULT, json.dumps([self._check(source) for source in request[1]])
        slot = request[1]
        if operation == "load":
            old = self._contexts.pop(slot, None)
            if old is not None:
                old.close()
            context = _Context(self._prelude, self._limits)
            refused = context.call("load", json.dumps(request[2]))
            if refused:
                context.close()
                return REFUSED, refused
            context.settle(SETTLE_SECONDS)
            self._contexts[slot] = context
            return RESULT, ""
        context = self._contexts[slot]
        if operation == "on":
            return RESULT, context.batch(f"{self._running} on")
        self._running = operation
        if operation == "reduce":
            return RESULT, context.batch("reduce", _reduce_text(request[2]))
        sections = context.batch("map", _map_text(request[2], trust=True))
        if sections.split("\f", 2)[1] == "unparsed":
            # A value was marked as JSON but is not.
            sections = context.batch("map", _map_text(request[2], trust=False))
        return RESULT, sections

    def _check(self, source: str) -> str:
        if self._checker is None:
            self._checker = _Context(self._prelude, self._limits)
        reason = self._checker.call("check", source)
        if reason != "?":
            return reason
        # As in Couchbase's engine: the value of the text decides, evaluated in a context of its own.
        context = _Context(self._prelude, self._limits)
        refused = context.call("load", json.dumps([source]))
        context.settle(SETTLE_SECONDS)
        context.close()
        return str(json.loads(refused.partition("\t")[2])) if refused else ""


def _map_text(changes: Sequence[tuple[Any, ...]], trust: bool) -> str:
    """Return the JSON text of a batch of documents for prelude.js."""
    from orjson import dumps

    items = []
    for vb, key, value, seqno, cas, expiry, flags, revid, known_json, xattrs in changes:
        try:
            name = dumps(key.decode())
        except UnicodeDecodeError:
            items.append(b"null")
            continue
        if known_json if trust and known_json is not None else _is_json(value):
            kind = 0
        else:
            kind = 1
            value = b'"' + b64encode(value) + b'"'
        items.append(
            b'[%b,"%d-%016x%08x%08x","%d","%d",%d,%d,%d,%b,%b]'
            % (name, revid, cas, expiry, flags, seqno, vb, expiry, flags, kind, value, xattrs or b"{}")
        )
    return (b"[" + b",".join(items) + b"]").decode(errors="replace")


def _reduce_text(calls: Sequence[tuple[str | None, str, bool]]) -> str:
    """Return the JSON text of calls of a reduce function for prelude.js."""
    return (
        "["
        + ",".join(
            f"[{'null' if keys is None else keys},{values},{'true' if rereduce else 'false'}]"
            for keys, values, rereduce in calls
        )
        + "]"
    )


def _is_json(value: bytes) -> bool:
    from couchnode.data.item import is_json

    return is_json(value)


def _limit_process(limits: SandboxLimits) -> None:
    """Limit the memory of the process, counted from what V8 reserves when it starts."""
    # Not at the top: Windows has no such module, and no sandboxes (see couchnode.views.service).
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        # When memory runs out, the kernel should kill this process before any that holds data.
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("500")
        with open("/proc/self/status") as status:
            used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (used + limits.data_bytes,) * 2)
    except (OSError, StopIteration, ValueError):
        # Not Linux: V8's own limits remain.
        pass


def _serve(requests: Any, replies: Any) -> None:
    def reply(kind: bytes, text: str) -> None:
        body = text.encode(errors="surrogatepass")
        replies.write(LENGTH.pack(len(body) + 1) + kind + body)
        replies.flush()

    def next_request() -> Any:
        head = requests.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack(head)
        body = requests.read(length)
        return marshal.loads(body) if len(body) == length else None

    first = next_request()
    if first is None:
        return
    limits = SandboxLimits(*first)
    try:
        from importlib import resources

        from py_mini_racer import MiniRacer, init_mini_racer

        threading.stack_size(_THREAD_STACK_BYTES)
        prelude = resources.files("couchnode.views").joinpath("prelude.js").read_text(encoding="utf-8")
        # The isolate's own limit stops the function; V8's, far above, ends the process.
        megabytes = max(16, limits.heap_bytes >> 19)
        init_mini_racer(flags=("--single-threaded", f"--max-heap-size={megabytes}"))
        with MiniRacer() as racer:
            version = racer.v8_version
        _limit_process(limits)
        sandbox = _Sandbox(limits, prelude)
    except Exception as error:  # noqa: BLE001  # reported to the parent, whatever it is
        reply(BROKEN, f"{type(error).__name__}: {error}")
        return
    reply(READY, version)
    while True:
        request = next_request()
        if request is None:
            return
        try:
            reply(*sandbox.answer(request))
        except _Over as over:
            reply(over.kind, over.text)
            return
        except MemoryError:
            reply(MEMORY, "")
            return
        except Exception as error:  # noqa: BLE001  # reported; the process is started again
            reply(BROKEN, f"{type(error).__name__}: {error}")
            return


def main() -> None:
    """Serve standard input and output until the input ends, then end at once, whatever V8 still does."""
    leave_signals_to_parent()
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    try:
        _serve(requests, replies)
    except BrokenPipeError:
        pass
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
