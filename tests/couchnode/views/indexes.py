"""Parts for tests of the view engine's worker: indexes made by hand, and a worker process."""

from __future__ import annotations

import json
import marshal
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from couchnode.views.collation import KeyEncoder
from couchnode.views.index import IndexReader, ViewIndex
from couchnode.views.query import IndexQuery
from couchnode.views.reducers import ReductionError

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 60
_LENGTH = struct.Struct("!I")

Row = tuple[str, Any, Any]
"""(document id, key, value)."""


def text(value: Any) -> str:
    """Print JSON as V8 does."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def change(doc: str, vb: int = 0, value: bytes | None = b"{}", seqno: int = 1) -> tuple[Any, ...]:
    """Return a change as the node sends it."""
    return (vb, doc.encode(), value, seqno, 1, 0, 0, 1, None, b"")


def apply(index: ViewIndex, rows: list[Row], marks: dict[int, Any] | None = None, vb: int = 0) -> str | None:
    """Put the rows of documents into an index, and commit."""
    docs = list(dict.fromkeys(doc for doc, _, _ in rows))
    emitted = sorted((docs.index(doc), at) for at, (doc, _, _) in enumerate(rows))
    error = index.apply(
        [change(doc, vb) for doc in docs],
        [(number, text(rows[at][1]), text(rows[at][2])) for number, at in emitted],
        marks or {},
    )
    index.commit()
    return error


def stored(path: str) -> list[Row]:
    """Return all rows of an index, in its order."""
    reader = IndexReader(path)
    try:
        found = [
            json.loads(row) for (row,) in reader.fetch("SELECT row FROM rows ORDER BY key, doc, vb, n", ())
        ]
        return [(row["id"], row["key"], row["value"]) for row in found]
    finally:
        reader.close()


def python_reduce(design: str, source: str, calls: list[Any]) -> list[str]:
    """Stand in for V8: ``sum`` adds values, ``throw`` fails, ``throw on N`` if that value is there."""
    results = []
    for keys, values, again in calls:
        numbers = json.loads(values)
        if keys is not None:
            assert not again
            assert len(json.loads(keys)) == len(numbers)
        if source == "throw" or (source.startswith("throw on") and int(source[9:]) in numbers):
            raise ReductionError("Error: thrown")
        results.append(text(sum(numbers)))
    return results


def given(index: ViewIndex, reduce: str | None = None, name: str = "local") -> dict[str, Any]:
    """Return what a query says of an index made for the map function ``m``."""
    return {"path": index.path, "design": "d", "name": "v", "map": "m", "reduce": reduce, "from": name}


class Answer:
    """The result of a query: its parsed body, and its cost.

    :ivar statements: the statements that ran.
    """

    def __init__(self, sources: list[dict[str, Any]], **plan: Any) -> None:
        self.statements: list[str] = []
        readers = [IndexReader(source["path"]) for source in sources]
        try:
            for reader in readers:
                reader.connection.set_trace_callback(self.statements.append)
            query = IndexQuery(list(zip(sources, readers, strict=True)), plan, python_reduce, KeyEncoder())
            self.blocks = list(query.blocks())
            self.fetched = query.fetched
        finally:
            for reader in readers:
                reader.close()
        self.body = b"".join(self.blocks)
        self.parsed: dict[str, Any] = json.loads(self.body)

    @property
    def rows(self) -> list[Any]:
        """(id, key, value) of map rows, (key, value) of groups."""
        return [tuple(row.values()) for row in self.parsed["rows"]]


class Peer:
    """A blocking connection to a worker."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_SECONDS)
        self._socket.connect(path)
        self._file = self._socket.makefile("rb")

    def send(self, request: Any) -> None:
        """Send a control frame."""
        body = marshal.dumps(request)
        self._socket.sendall(_LENGTH.pack(len(body)) + body)

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def frame(self) -> bytes | None:
        """Return the next frame's body; ``None`` if the connection has ended."""
        head = self._file.read(4)
        return self._file.read(_LENGTH.unpack(head)[0]) if len(head) == 4 else None

    def answer(self) -> Any:
        """Return the next control frame; ``None`` if the connection has ended."""
        body = self.frame()
        return None if body is None else marshal.loads(body)

    def ask(self, request: Any) -> Any:
        """Send a control frame and return the answer."""
        self.send(request)
        return self.answer()

    def body(self) -> bytes:
        """Return the rest of a query's answer, which must end well."""
        parts = []
        while frame := self.frame():
            parts.append(frame)
        assert frame is not None, "the answer was cut"
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()


class WorkerProcess:
    """A real worker, in a process.

    :param folder: where its socket goes.
    """

    def __init__(self, folder: str, *limits: str) -> None:
        self.socket = os.path.join(folder, "s")
        Path(self.socket).unlink(missing_ok=True)
        self.errors = Path(folder, "stderr")
        path = os.pathsep.join([str(ROOT), *(part for part in sys.path if part)])
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "couchnode.views.worker", self.socket, *limits],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": path},
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n", self.errors.read_text()
        self._peers: list[Peer] = []

    def connect(self) -> Peer:
        """Return a new connection."""
        peer = Peer(self.socket)
        self._peers.append(peer)
        return peer

    def query(self, indexes: list[dict[str, Any]], **plan: Any) -> Any:
        """Return the parsed body of an answer, or the refusal."""
        peer = self.connect()
        indexes = [{"from": "local", **index} for index in indexes]
        reply = peer.ask(("query", {"indexes": indexes, "query": plan}))
        try:
            return json.loads(peer.body()) if reply[0] == "head" else reply
        finally:
            peer.close()

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.stop()

    def stop(self) -> int:
        """Close its standard input, wait for its end, and return its status."""
        for peer in self._peers:
            peer.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        status = self.process.wait(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status
