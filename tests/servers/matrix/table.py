"""Makes docs/servers.md of the catalogues and of what is expected, as ``make docs`` does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.servers.matrix import operations, resources
from tests.servers.matrix.expected import (
    COUCHNODE,
    GOCAVES,
    LIMITS,
    MOCK_FOUR,
    MOCK_ONE,
    PROGRAMS,
    SERVERS,
    VERSIONS,
    limit_of,
)
from tests.servers.matrix.rows import Row

PAGE = Path(__file__).parents[3] / "docs" / "servers.md"

_INTRODUCTION = """\
# Operations and resources by server

This page lists the servers that support each operation of the SDK and each resource of the gateway.

Couchbase Server 5.0 is the oldest supported version. A request that a server does not offer is never sent
to it: the operation uses a replacement, or is refused before anything is sent, with an error that names the
missing feature.

`make docs` generates this page from the expected results of the tests. The tests run every row against the
server of every column, and fail if a result differs.

| column | server | run by |
| --- | --- | --- |
{columns}

The scripted nodes are one active node and one replica. In HELLO they grant the features that the sources of
that version's key-value engine grant, and they close the connection if they receive a frame that they did
not grant. Their cluster manager, design documents and views are the same for all versions. So these columns
test the requests that are sent and the handling of the answers. CouchbaseMock and gocaves are independent
implementations, and test the rest.

| word | meaning |
| --- | --- |
| yes | It works as documented. |
| partly | It works, with the restriction in the note. |
| refused | It fails with NotSupportedError or 501 `NotSupported`; nothing was sent. |
| no | The server does not support it; the note names the error. |
"""

_TESTS = {
    "couchnode": "`tests.servers.matrix.test_node`",
    "scripted": "`tests.servers.matrix.test_matrix`",
    "programs": "`tests.judges.test_matrix`",
}
_SHORT = {MOCK_ONE: "mock 1", MOCK_FOUR: "mock 4"}
_ABOUT = {
    MOCK_ONE: "CouchbaseMock 1.5.25, one node without replicas",
    MOCK_FOUR: "CouchbaseMock 1.5.25, four nodes and two replicas",
    GOCAVES: "gocaves, two nodes and a replica; only if `GOCAVES` names the program",
}


def render() -> str:
    """Return the page's text."""
    columns = [(COUCHNODE, "two embedded nodes with a replica, on disk", _TESTS["couchnode"])]
    columns += [
        (version, f"scripted nodes that answer like Couchbase Server {version}", _TESTS["scripted"])
        for version in VERSIONS
    ]
    columns += [(_SHORT.get(program, program), _ABOUT[program], _TESTS["programs"]) for program in PROGRAMS]
    parts = [
        _INTRODUCTION.format(columns="\n".join(f"| {' | '.join(column)} |" for column in columns)),
        "## The SDK\n",
        "The tests run each row with `couchbase`, `gcouchbase` and `txcouchbase`, unless the row names one\n"
        "of them. The other names of `txcouchbase` (`getMulti` ...) are aliases of these methods. `Admin`\n"
        "is for the administration of a cluster.\n",
        *_table(operations.ROWS, "operation", "with"),
        "## The gateway\n",
        "`D` is the path of a document, `/v1/buckets/{bucket}/documents/{key}`.\n",
        *_table(resources.ROWS, "resource", "with"),
        "## Notes\n",
        *(f"{number}. {limit.note}" for number, limit in enumerate(LIMITS, 1)),
    ]
    return "\n".join(parts) + "\n"


def _table(rows: Iterable[Row], *headings: str) -> list[str]:
    names = [_SHORT.get(server, server) for server in SERVERS]
    cells = [[*headings, *names], ["---"] * (len(headings) + len(names))]
    for row in rows:
        cells.append([_name(row), _code(row.option), *(_cell(server, row) for server in SERVERS)])
    return [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in cells] + [""]


def _name(row: Row) -> str:
    if len(row.faces) > 1 or resources.GATEWAY in row.faces:
        return f"`{row.name}`"
    (face,) = row.faces
    return f"`{row.name}` ({'Admin' if face == operations.ADMINISTRATOR else f'`{face}`'})"


def _code(option: str) -> str:
    """Return an option as it is printed: names as code, words as words."""
    return option if not option or option.startswith(("of ", "without ")) else f"`{option}`"


def _cell(server: str, row: Row) -> str:
    limit = limit_of(server, row)
    return "yes" if limit is None else f"{limit.outcome.value} ({LIMITS.index(limit) + 1})"


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
