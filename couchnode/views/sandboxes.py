"""The worker's side of the sandboxes: map and reduce calls that always return, whatever user code does.

Blocking, for the worker's threads. A :class:`Sandbox` is one process; a :class:`SandboxPool` starts a few on
demand and restarts them when they die. The functions of one design get a V8 context of their own.

Documents that kill a process or exceed its limits are found and dropped: see :meth:`SandboxPool.map`.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from couchnode.views.sandbox import RESULT, TIMEOUT, SandboxLimits
from couchnode.views.sandboxprocess import FunctionError, Sandbox, SandboxDied, SandboxError, over_text

__all__ = [
    "BuildError",
    "Change",
    "FunctionError",
    "SandboxLimits",
    "MapOutput",
    "Sandbox",
    "SandboxDied",
    "SandboxError",
    "SandboxPool",
    "ViewRows",
]

#: vb, key, value (None: deleted), seqno, cas, expiry, flags, revid, is_json (None: not checked yet), xattrs.
Change = tuple[int, bytes, "bytes | None", int, int, int, int, int, "bool | None", bytes]

# One entry into V8 costs 0.2 ms and more, so documents are sent in batches, limited in number and in
# bytes.
_BATCH_DOCUMENTS = 500
_BATCH_BYTES = 4 * 1024 * 1024
_BATCH_CALLS = 2000

# Most designs whose documents over the limits are counted at a time.
_COUNTED_DESIGNS = 1000


class BuildError(Exception):
    """The index cannot be built from these documents with these functions.

    :ivar reason: what is wrong.
    :ivar index: number of the function among those given, ``None`` if it may be any.
    """

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.index = index


@dataclass
class ViewRows:
    """Rows of one view, as three lists of one length; in the order of the changes, then as emitted."""

    #: For each row, the number of its change among those given.
    changes: list[int] = field(default_factory=list)
    #: For each row, the key as JSON text.
    keys: list[str] = field(default_factory=list)
    #: For each row, the value as JSON text.
    values: list[str] = field(default_factory=list)


@dataclass
class MapOutput:
    """The output of map functions for changes."""

    #: For each function.
    rows: list[ViewRows]
    #: (number of the change, number of the function or None for all, reason) of failures without rows.
    dropped: list[tuple[int, int | None, str]] = field(default_factory=list)
    #: Texts that the functions passed to log(), up to a hundred per batch.
    logged: list[str] = field(default_factory=list)


@dataclass
class _Ran:
    """The outcome of one request to run a batch."""

    #: Number of finished items; their results are in ``sections``: dropped, log, and one for each function.
    finished: int
    sections: list[str]
    #: The functions' own failure: number of the function, a tab, the reason in JSON.
    failure: str = ""
    #: Why the process ended: see :func:`_over`.
    over: str = ""
    #: Whether it was the time limit.
    late: bool = False
    #: Whether the first unfinished item was the cause.
    known: bool = False
    more: bool = False


class SandboxPool:
    """Sandbox processes for any number of threads: started on demand, replaced when they die.

    :param limits: limits on user functions.
    :param size: most processes at once; further callers wait for one.
    """

    def __init__(self, limits: SandboxLimits = SandboxLimits(), size: int = 3) -> None:  # noqa: B008  # immutable
        self._limits = limits
        self._size = size
        self._changed = threading.Condition()
        self._idle: list[Sandbox] = []
        self._busy: set[Sandbox] = set()
        self._starting = 0
        self._closed = False
        # Consecutive documents over the limits, for each design.
        self._over: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> SandboxPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes; running calls raise :exc:`SandboxError`."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            for sandbox in self._busy:
                sandbox.kill()
            self._changed.notify_all()
        for sandbox in idle:
            sandbox.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the live processes."""
        with self._changed:
            return [sandbox.pid for sandbox in (*self._idle, *self._busy)]

    def check(self, functions: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return for each (``"map"`` or ``"reduce"``, source) why it is not a function, or ``None`` if it is.

        A text that is one function is not run; any other expression is evaluated. Built-in reduce functions
        must not be passed.

        :raises SandboxError: no process can be started.
        """
        if not functions:
            return []
        # One at a time, as a text that breaks the parser must not affect the others.
        return [self._check(source) for _kind, source in functions]

    def map(self, design: str, sources: Sequence[str], changes: Sequence[Change]) -> MapOutput:
        """Run the map functions of one design over documents.

        A batch that fails is run again in parts until the documents that caused it are found. A document that
        exceeds the time limit alone, or twice in a row kills the process or exceeds the memory limit, is
        dropped from all functions. One whose function throws is dropped from that function.

        :param design: names the design; its functions share a context, which no other design gets.
        :param sources: the functions.
        :param changes: deleted ones, and those with keys that are not UTF-8, are skipped.
        :raises FunctionError: a function does not load.
        :raises BuildError: too large a value, too many keys, or too many documents in a row over the limits.
        :raises SandboxError: no process can be started, or the pool was closed.
        """
        output = MapOutput([ViewRows() for _source in sources])
        if not sources:
            return output
        key = (design, "map", *sources)
        chunk: list[int] = []
        size = 0
        for index, change in enumerate(changes):
            value = change[2]
            if value is None:
                continue
            if chunk and (len(chunk) >= _BATCH_DOCUMENTS or size + len(value) > _BATCH_BYTES):
                self._map_chunk(key, sources, changes, chunk, output)
                chunk, size = [], 0
            chunk.append(index)
            size += len(value)
        if chunk:
            self._map_chunk(key, sources, changes, chunk, output)
        return output

    def reduce(self, design: str, source: str, keys: str | None, values: str, rereduce: bool) -> str:
        """Run a reduce function once; see :meth:`reduce_many`."""
        return self.reduce_many(design, source, [(keys, values, rereduce)])[0]

    def reduce_many(
        self, design: str, source: str, calls: Sequence[tuple[str | None, str, bool]]
    ) -> list[str]:
        """Run a reduce function several times and return the reductions as JSON texts.

        Far cheaper than one by one: a request costs 0.5 ms, whatever it contains.

        :param calls: (keys, values, rereduce) of each: keys is the JSON text of ``[[key, id], ...]`` or
            ``None``, values the JSON text of an array.
        :raises FunctionError: it does not load, threw, exceeded a limit, or returned too much.
        :raises SandboxError: no process can be started, or the pool was closed.
        """
        key = (design, "reduce", source)
        results: list[str] = []
        died = False
        while len(results) < len(calls):
            start = len(results)
            end, size = start, 0
            while end < len(calls) and end - start < _BATCH_CALLS and (size < _BATCH_BYTES or end == start):
                size += len(calls[end][0] or "") + len(calls[end][1])
                end += 1
            for ran in self._run(key, [source], ("reduce", list(calls[start:end]))):
                results += ran.sections[2].split("\n")[:-1]
                if ran.finished:
                    died = False
                if ran.failure:
                    raise FunctionError(json.loads(ran.failure.split("\t")[1]))
                if ran.over:
                    if died or ran.late:
                        raise FunctionError(f"the reduce function {ran.over}")
                    # A single failure may be caused by an earlier call, or by chance.
                    died = True
        return results

    def _check(self, source: str) -> str | None:
        reason = ""
        for _attempt in range(2):
            try:
                kind, text = self._with(None, lambda sandbox: sandbox.ask(("check", [source])))
            except SandboxDied as error:
                reason = str(error)
                continue
            if kind == RESULT:
                return json.loads(text)[0] or None
            reason = over_text(kind, text, self._limits)
        return f"the function cannot be evaluated: it {reason}"

    def _map_chunk(
        self,
        key: tuple[Any, ...],
        sources: Sequence[str],
        changes: Sequence[Change],
        chunk: list[int],
        output: MapOutput,
    ) -> None:
        """Run the map functions over the documents with these numbers, in as many attempts as necessary."""
        alone = False  # the batch failed, and the cause is searched for
        died = False  # ... and this one was the only one in the process when it died
        while chunk:
            part = chunk[:1] if alone else chunk
            done = 0
            over = ""
            known = False
            for ran in self._run(key, sources, ("map", [changes[index] for index in part])):
                if ran.failure:
                    view, reason = ran.failure.split("\t")
                    name = changes[part[ran.finished]][1].decode(errors="replace")
                    raise BuildError(f"{json.loads(reason)} (document {name!r})", int(view))
                self._collect(part, ran, output)
                done = ran.finished
                over, known = ran.over, ran.known or (alone and ran.late)
            if done:
                self._count_over(key[0], over=False)
                died = False
            chunk = chunk[done:]
            if not over:
                continue
            if not known and not alone:
                alone = True
                continue
            if not known and not died:
                # Perhaps the documents before it left too much memory in use, or the process was killed from
                # outside.
                died = True
                continue
            output.dropped.append((chunk[0], None, f"the map function {over}"))
            chunk = chunk[1:]
            alone = died = False
            documents = self._count_over(key[0], over=True)
            if documents >= self._limits.timeouts_in_a_row:
                self._count_over(key[0], over=False)
                raise BuildError(
                    f"{documents} documents in a row failed: for the last, the map function {over}"
                )

    def _count_over(self, design: str, over: bool) -> int:
        """Count a document over the limits, or reset the count; return the number of consecutive ones."""
        with self._changed:
            count = self._over.pop(design, 0) + 1 if over else 0
            if over:
                self._over[design] = count
                if len(self._over) > _COUNTED_DESIGNS:
                    self._over.popitem(last=False)
            else:
                self._over.pop(design, None)
            return count

    @staticmethod
    def _collect(part: list[int], ran: _Ran, output: MapOutput) -> None:
        dropped, logged, *sections = ran.sections
        for line in dropped.split("\n")[:-1]:
            position, view, reason = line.split("\t")
            if int(position) < ran.finished:
                output.dropped.append((part[int(position)], int(view), json.loads(reason)))
        output.logged += map(json.loads, logged.split("\n")[:-1])
        contiguous = part[-1] - part[0] == len(part) - 1
        for rows, section in zip(output.rows, sections, strict=True):
            lines = section.split("\n")
            positions = [int(position) for position in lines[0:-1:3]]
            keys = lines[1::3]
            values = lines[2::3]
            while positions and positions[-1] >= ran.finished:
                # Stopped between the functions of one document: it is not finished.
                del positions[-1], keys[-1], values[-1]
            if not contiguous:
                positions = [part[position] for position in positions]
            elif part[0]:
                first = part[0]
                positions = [first + position for position in positions]
            rows.changes += positions
            rows.keys += keys
            rows.values += values

    def _run(
        self, key: tuple[Any, ...], sources: Sequence[str], request: tuple[str, list[Any]]
    ) -> list[_Ran]:
        """Run a batch to its end or its failure; each part has its count of finished items so far."""

        def on(box: Sandbox) -> list[_Ran]:
            slot = box.load(key, sources)
            parts: list[_Ran] = []
            finished = 0
            order: tuple[Any, ...] = (request[0], slot, request[1])
            while True:
                try:
                    kind, text = box.ask(order)
                except SandboxDied as error:
                    nothing = [""] * (2 + len(sources))
                    parts.append(_Ran(finished, nothing, over=str(error), late=error.late))
                    return parts
                ran = _ran(kind, text, finished, len(request[1]), len(sources), self._limits)
                finished = ran.finished
                parts.append(ran)
                if ran.over:
                    # Its context may be corrupt, if the process is still alive.
                    box.close()
                if not ran.more or ran.over:
                    return parts
                order = ("on", slot)

        failed = ""
        for _attempt in range(2):
            try:
                return self._with(key, on)
            except SandboxDied as error:
                # It happened while the functions were loaded: caused by them, or by chance.
                failed = str(error)
        raise FunctionError(f"the function cannot be evaluated: it {failed}")

    def _with(self, key: tuple[Any, ...] | None, do: Any) -> Any:
        """Call ``do`` with a process that no other thread uses."""
        sandbox = self._take(key)
        try:
            return do(sandbox)
        finally:
            self._give_back(sandbox)
            if self._closed:
                raise SandboxError("View functions no longer run: the worker is closing")

    def _take(self, key: tuple[Any, ...] | None) -> Sandbox:
        with self._changed:
            while True:
                if self._closed:
                    raise SandboxError("View functions no longer run: the worker is closing")
                if self._idle:
                    # Prefer one that has the functions loaded.
                    chosen = next(
                        (box for box in self._idle if key is not None and box.has(key)), self._idle[-1]
                    )
                    self._idle.remove(chosen)
                    self._busy.add(chosen)
                    return chosen
                if len(self._busy) + self._starting < self._size:
                    self._starting += 1
                    break
                self._changed.wait()
        try:
            started = Sandbox(self._limits)
        except BaseException:
            with self._changed:
                self._starting -= 1
                self._changed.notify()
            raise
        with self._changed:
            self._starting -= 1
            self._busy.add(started)
            if self._closed:
                started.kill()
        return started

    def _give_back(self, sandbox: Sandbox) -> None:
        with self._changed:
            self._busy.discard(sandbox)
            keep = sandbox.alive and not self._closed
            if keep:
                self._idle.append(sandbox)
            self._changed.notify()
        if not keep:
            sandbox.close()


def _ran(kind: bytes, text: str, before: int, items: int, functions: int, limits: SandboxLimits) -> _Ran:
    """Read the reply to a batch.

    :param before: items finished by earlier replies, in case this one does not report any.
    :param items: total number of items.
    :param functions: number of sections of rows expected.
    """
    nothing = [""] * (2 + functions)
    if kind not in (RESULT, TIMEOUT) or not text:
        return _Ran(before, nothing, over=over_text(kind, text, limits), late=kind == TIMEOUT)
    position, failure, *sections = text.split("\f")
    finished = int(position.rstrip("+"))
    more = position.endswith("+") and not failure
    if failure == "unparsed":
        return _Ran(before, nothing, over="was given text that V8 does not accept as JSON")
    if (
        len(sections) != 2 + functions
        or not before <= finished <= items
        or more != (finished < items and not failure)
    ):
        # Possible for functions that put setters where the host's library stores the arguments of calls.
        return _Ran(before, nothing, over="tampers with the arrays of its context")
    if kind == TIMEOUT:
        return _Ran(finished, sections, over=over_text(kind, "", limits), late=True, known=finished < items)
    return _Ran(finished, sections, failure, more=more)
