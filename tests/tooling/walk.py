"""The ways through the code: which of our functions run, one after the other, for one operation.

    python -m tests.tooling.walk [NAME]

Writes the table of ways into docs/architecture.md, or prints the whole way of one operation. Each call of a
function of the product counts; nodes that a gateway asks, and Twisted, do not.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from couchbase.protocol.constants import Opcode
from couchbase.protocol.frames import FrameReader, encode_request
from couchnode.data.flusher import WRITE_DELAY_SECONDS
from tests.couchnode.kv.test_fastpath import Node
from tests.gateway.support import Transport, basic, passthrough, raw_request
from tests.gateway.test_hotpath import CLIENT, JSON, PATH, HotPathTests
from tests.tooling.picture import PAGE
from tests.tooling.sources import PACKAGES, ROOT
from tests.txcouchbase.memory import STORED

BEGIN = "<!-- the ways: python -m tests.tooling.walk -->\n"
END = "<!-- end of the ways -->\n"

# Frames of their own before Python 3.12, and not since.
_INSIDE = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>", "<module>")


class Call(NamedTuple):
    """One call of a function of ours."""

    file: str
    """Relative to the checkout."""
    function: str


class Walk(NamedTuple):
    """Calls in their order."""

    calls: tuple[Call, ...]

    @property
    def files(self) -> int:
        """How many files it touches."""
        return len({call.file for call in self.calls})

    @property
    def moves(self) -> int:
        """How often it goes into a file, from outside or from another one."""
        return len(list(groupby(self.calls, lambda call: call.file)))

    @property
    def returns(self) -> int:
        """How often it comes to a file in which it was before."""
        return self.moves - self.files

    def __str__(self) -> str:
        stations = groupby(self.calls, lambda call: call.file)
        return "\n".join(f"{file}: {' '.join(call.function for call in calls)}" for file, calls in stations)


def walk(*steps: Callable[[], object], packages: tuple[str, ...] = PACKAGES, root: Path = ROOT) -> Walk:
    """Run steps and return the calls of functions of some packages."""
    folders = tuple(f"{root / name}/" for name in packages)
    found: list[Call] = []

    def note(frame: Any, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_name not in _INSIDE and code.co_filename.startswith(folders):
            found.append(Call(str(Path(code.co_filename).relative_to(root)), code.co_name))

    before = sys.getprofile()
    gc.disable()
    sys.setprofile(note)
    try:
        for step in steps:
            step()
    finally:
        sys.setprofile(before)
        gc.enable()
    return Walk(tuple(found))


# ---- the operations ------------------------------------------------------------------------------


def request_way(data: bytes, start: bytes = b"", **options: Any) -> Walk:
    """Return the way of a request through a gateway that has served others like it.

    :param data: what arrives; all of it was served once before.
    :param start: what arrives before it, and is not looked at: the beginning of a long request.
    """
    case = HotPathTests("test_get")
    try:
        return _request_way(case, data, start, options)
    finally:
        # What it replaced: real connections would go to its nodes in memory.
        case.doCleanups()


def _request_way(case: HotPathTests, data: bytes, start: bytes, options: dict[str, Any]) -> Walk:
    client: Transport = case.open(**options)[0]
    for received in (start, data):
        client.protocol.dataReceived(received)
        for _ in range(8):  # the pool's connections open
            case.carry_out()
    client.clear()
    before = walk(lambda: client.protocol.dataReceived(data), lambda: case.clock.advance(0))
    asked = case.node
    answers = asked.answers()
    after = walk(lambda: asked.protocol.dataReceived(answers), lambda: case.clock.advance(0))
    if not client.value():
        raise RuntimeError("nothing was answered: this is not the way of a request")
    return Walk(before.calls + after.calls)


def node_way(opcode: int, **fields: Any) -> Walk:
    """Return the way of a command through a node, until what it wrote is on the disk."""
    node = Node(frozenset(), persistent=True)
    node.bucket.ledger.quota_bytes = 2**24
    stored = encode_request(Opcode.SET, key=b"k", extras=bytes(8), value=b"{}")
    data = encode_request(opcode, key=b"k", **fields)
    for received in (stored, data):
        node.connection.dataReceived(received)
        node.clock.advance(WRITE_DELAY_SECONDS)
    node.answers()
    found = walk(lambda: node.connection.dataReceived(data), lambda: node.clock.advance(WRITE_DELAY_SECONDS))
    (answer,) = FrameReader().feed(node.answers())
    if answer.specific:
        raise RuntimeError(f"status {answer.specific:#x}: this is not the way of a success")
    node.connection.connectionLost()
    return found


BATCH = raw_request(
    "POST",
    "/v1/buckets/b/batch",
    headers={"Content-Type": "application/x-ndjson", "Content-Length": "100000"},
)

WAYS: dict[str, Callable[[], Walk]] = {
    "`GET` of a document": lambda: request_way(raw_request("GET", PATH, headers=CLIENT)),
    "the same with a password": lambda: request_way(
        raw_request("GET", PATH, headers={**CLIENT, **basic("user", "password")}), authorizer=passthrough()
    ),
    "`PUT` of a document": lambda: request_way(raw_request("PUT", PATH, STORED, {**CLIENT, **JSON})),
    "a usual line of a batch": lambda: request_way(b'{"op":"set","key":"k","value":1}\n', BATCH),
    "a line with an option": lambda: request_way(b'{"op":"set","key":"k","value":1,"ttl":0}\n', BATCH),
    "SET in the node": lambda: node_way(Opcode.SET, extras=bytes(8), value=b"{}"),
    "APPEND in the node": lambda: node_way(Opcode.APPEND, value=b"x"),
    "GETK in the node": lambda: node_way(Opcode.GETK),
}


# ---- the page ------------------------------------------------------------------------------------


def rows(ways: dict[str, Callable[[], Walk]] = WAYS) -> Iterator[str]:
    """Yield the table."""
    yield "| | calls of ours | files | moves between files | of these back |"
    yield "| --- | --- | --- | --- | --- |"
    for name, way in ways.items():
        found = way()
        yield f"| {name} | {len(found.calls)} | {found.files} | {found.moves} | {found.returns} |"


def drawn(page: str, table: str) -> str:
    """Return the page with another table.

    :raises ValueError: it has no place for one.
    """
    before, found, after = page.partition(BEGIN)
    if not found or END not in after:
        raise ValueError(f"no place for the ways: expected the lines {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + table + END + after.partition(END)[2]


def main(arguments: list[str]) -> None:
    """Write the page, or print one way."""
    if arguments:
        found = [way for name, way in WAYS.items() if arguments[0] in name]
        if not found:
            raise SystemExit(f"no way is named {arguments[0]!r}; there are: {', '.join(WAYS)}")
        print(found[0]())
        return
    table = "".join(f"{row}\n" for row in rows())
    PAGE.write_text(drawn(PAGE.read_text("utf-8"), table), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
