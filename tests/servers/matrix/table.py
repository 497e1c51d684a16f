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
# What works against which server

This page says which servers support each operation of the SDK and each resource of the gateway.

Couchbase Server 5.0 is the oldest that is supported. What a server does not offer is never sent to it: an
operation goes another way, or is refused before anything is sent, with an error that names what is missing.

`make docs` writes this page from what the tests expect. The tests run every row against every server of its
columns, and fail if one does anything else.

| column | server | run by |
| --- | --- | --- |
{columns}

Scripted nodes are two, an active one and a replica. They grant in HELLO what the sources of that version's
key-value engine grant, and close the connection at a frame that they did not grant. Their cluster manager,
design documents and views are the same for all versions. So these columns prove what is sent, and how answers
are understood; CouchbaseMock and gocaves, which others wrote, prove the rest.

| word | meaning |
| --- | --- |
| yes | It does what its documentation says. |
| partly | It is done, but for what the note says. |
| refused | NotSupportedError or 501 `NotSupported`; nothing was sent. |
| no | The server does not have it; the note names the error. |
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
    GOCAVES: "gocaves, two nodes and a replica; only where `GOCAVES` names the program",
}


def render() -> str:
    """Return the page's text."""
    columns = [(COUCHNODE, "the embedded node: two, with a replica, on disk", _TESTS["couchnode"])]
    columns += [
        (version, f"scripted nodes that answer as Couchbase Server {version}", _TESTS["scripted"])
        for version in VERSIONS
    ]
    columns += [(_SHORT.get(program, program), _ABOUT[program], _TESTS["programs"]) for program in PROGRAMS]
    parts = [
        _INTRODUCTION.format(columns="\n".join(f"| {' | '.join(column)} |" for column in columns)),
        "## The SDK\n",
        "`couchbase`, `gcouchbase` and `txcouchbase` run each row, unless it names the one that has it. The\n"
        "other names of `txcouchbase` (`getMulti` ...) are the same methods. `Admin` is of the cluster.\n",
        *_table(operations.ROWS, "operation", "with"),
        "## The gateway\n",
        "`D` is a document's path, `/v1/buckets/{bucket}/documents/{key}`.\n",
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
