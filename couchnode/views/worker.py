"""The view worker: ``python -m couchnode.views.worker SOCKET [name=value ...]``.

A process of blocking threads beside the node. It owns the index files, orders keys, maps documents in
sandboxes and answers queries. It listens on a Unix socket, prints ``ready``, and ends when its standard input
is closed, which means that the node is gone, or on SIGTERM. It may end at any point without loss.

Each connection is for one activity, and begins with a control frame (operation, arguments):

``check``
    Report the first function that V8 does not accept, and why. Any number of times on a connection.
``open``
    Open indexes to write, then any number of ``apply``, ``reconcile`` and ``drop``, answered in order.
    Opening an index takes it away from the connection that had it. After an answer ``("error", reason)`` the
    connection is closed, and uncommitted changes are rolled back. A failed build is not such an error, but a
    member of the answer; further requests for that view on this connection are answered with it and ignored.
``query``
    Stream rows: ``("head", {})``, data frames, an empty one; or ``("refused", {...})``. Any number of times
    on a connection; if an answer is cut off, the connection is closed.
``forget``
    Delete index files.

The other arguments set limits: those of :class:`couchnode.views.sandbox.SandboxLimits`, ``sandboxes`` and
``queries``.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from couchnode.views.collation import KeyEncoder
from couchnode.views.errors import QueryError
from couchnode.views.files import Files, Readers
from couchnode.views.index import IndexReader
from couchnode.views.query import IndexQuery
from couchnode.views.reducers import ReduceCall, ReductionError
from couchnode.views.sandboxes import FunctionError, SandboxError, SandboxLimits, SandboxPool
from couchnode.views.update import PATIENCE_SECONDS, UnknownOperationError, Updating, tell
from couchnode.views.wire import Blocked, Wire
from reactor.children import leave_signals_to_parent
from reactor.framing import FramingError

MAX_QUERIES = 64
MAX_CONNECTIONS = 512
PAUSE_SECONDS = 5.0


class ViewWorker:
    """The state shared by all connections.

    :param pool: runs functions.
    :param max_queries: queries at a time; more are refused.
    """

    def __init__(self, pool: SandboxPool, max_queries: int = MAX_QUERIES) -> None:
        self.pool = pool
        self.files = Files()
        self.readers = Readers()
        self.queries = threading.BoundedSemaphore(max_queries)
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def listen(self, listener: socket.socket) -> None:
        """Serve connections, each in a thread; returns when the listener is closed."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if not self._connections.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        wire = Wire(connection)
        try:
            self._converse(wire)
        except (FramingError, Blocked, OSError) as error:
            if not isinstance(error, ConnectionError):
                print(f"view worker: a connection ended: {error}", file=sys.stderr, flush=True)
        except BaseException as error:  # noqa: BLE001  # the peer must get an answer in any case
            tell(wire, error)
        finally:
            wire.close()
            self._connections.release()

    def _converse(self, wire: Wire) -> None:
        while (request := wire.receive()) is not None:
            operation, arguments = request
            if operation == "check":
                wire.send(("ok", self._check(arguments["functions"])), PATIENCE_SECONDS)
            elif operation == "open":
                Updating(self.files, self.pool, self.damaged, wire, arguments["indexes"]).run()
                return
            elif operation == "query":
                if not self._answer(wire, arguments):
                    return
            elif operation == "forget":
                for path in arguments["paths"]:
                    self.readers.forget(path)
                    self.files.forget(path)
                wire.send(("ok", None), PATIENCE_SECONDS)
            else:
                raise UnknownOperationError(f"unknown operation {operation!r}")

    def _check(self, functions: list[tuple[str, str]]) -> list[str | None]:
        """Check functions up to the first that is refused: each may take the full time of a call."""
        found: list[str | None] = []
        for function in functions:
            found += self.pool.check([function])
            if found[-1] is not None:
                break
        return found

    # ---- queries ---------------------------------------------------------------------------------

    def _answer(self, wire: Wire, arguments: dict[str, Any]) -> bool:
        """Answer a query; return whether the answer is complete."""
        if not self.queries.acquire(blocking=False):
            _refuse(wire, QueryError(503, "too_many_requests", "too many queries at a time; try again later"))
            return True
        try:
            with self.readers.lent([given["path"] for given in arguments["indexes"]]) as readers:
                return self._stream(wire, arguments, readers)
        finally:
            self.queries.release()

    def _stream(self, wire: Wire, arguments: dict[str, Any], readers: list[IndexReader | None]) -> bool:
        def reduce_many(design: str, source: str, calls: list[ReduceCall]) -> list[str]:
            if wire.is_closed():
                raise ConnectionResetError("the answer is no longer wanted")
            try:
                return self.pool.reduce_many(design, source, calls)
            except (FunctionError, SandboxError) as error:
                raise ReductionError(str(error)) from error

        try:
            indexes = list(zip(arguments["indexes"], readers, strict=True))
            running = IndexQuery(indexes, arguments["query"], reduce_many, KeyEncoder(), self.damaged)
            blocks = running.blocks()
            first = next(blocks)
        except QueryError as refused:
            _refuse(wire, refused)
            return True
        wire.send(("head", {}), PATIENCE_SECONDS)
        wire.send_data(first, PATIENCE_SECONDS, PAUSE_SECONDS, running.release)
        try:
            for block in blocks:
                wire.send_data(block, PATIENCE_SECONDS, PAUSE_SECONDS, running.release)
        except (FramingError, Blocked, OSError):
            raise
        except Exception:  # noqa: BLE001  # too late for an error: the answer is cut off
            traceback.print_exc()
            return False
        wire.send_data(b"", PATIENCE_SECONDS, PAUSE_SECONDS, running.release)
        return True

    def damaged(self, path: str) -> None:
        """Delete a damaged file; it is rebuilt when it is opened next."""
        print(f"view worker: {path} is damaged and will be rebuilt", file=sys.stderr, flush=True)
        self.files.forget(path)


def _refuse(wire: Wire, refused: QueryError) -> None:
    reply = {"status": refused.status, "error": refused.error, "reason": refused.reason}
    wire.send(("refused", reply), PATIENCE_SECONDS)


def main(arguments: Sequence[str]) -> int:
    """Run the worker until its standard input ends.

    :param arguments: the socket's path, then ``name=value`` for limits.
    """
    if not arguments:
        print("usage: python -m couchnode.views.worker SOCKET [name=value ...]", file=sys.stderr)
        return 2
    path, *settings = arguments
    try:
        limits, others = _limits(settings)
    except ValueError as error:
        print(f"view worker: {error}", file=sys.stderr)
        return 2
    worker = ViewWorker(
        SandboxPool(limits, int(others.get("sandboxes", 3))), int(others.get("queries", MAX_QUERIES))
    )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        listener.listen(128)
    except OSError as error:
        print(f"view worker: cannot listen at {path}: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    leave_signals_to_parent()
    # Computing threads yield sooner, so that an update does not delay a short query.
    sys.setswitchinterval(0.001)
    threading.Thread(target=worker.listen, args=(listener,), daemon=True).start()
    print("ready", flush=True)
    try:
        while os.read(0, 4096):
            pass
    finally:
        listener.close()
        worker.pool.close()
        sys.stdout.flush()
        sys.stderr.flush()
        # Threads may be at any point, which is safe for index files.
        os._exit(0)
    return 0


def _limits(settings: Sequence[str]) -> tuple[SandboxLimits, dict[str, float]]:
    values: dict[str, float] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in (*SandboxLimits._fields, "sandboxes", "queries"):
            raise ValueError(f"unknown limit {name!r}")
        try:
            values[name] = float(text) if name == "call_seconds" else int(text)
        except ValueError:
            raise ValueError(f"the limit {name} takes a number, not {text!r}") from None
        if values[name] <= 0:
            raise ValueError(f"the limit {name} must be more than 0")
    others: dict[str, float] = {name: values.pop(name) for name in ("sandboxes", "queries") if name in values}
    return SandboxLimits(**values), others  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
