"""The pictures of the pages: ``python -m tests.tooling.figures`` draws them into docs/pictures.

``make docs`` runs it, and a test holds the files to what it draws. The chart of the profile is that of the
table in docs/performance.md.
"""

from __future__ import annotations

import re

from tests.tooling.drawing import Bar, Panel, bars, panels, sequence
from tests.tooling.sources import ROOT

FOLDER = ROOT / "docs" / "pictures"
PERFORMANCE = ROOT / "docs" / "performance.md"

REQUEST = """
client | HTTP channel | route | operation | driver | node
client -> HTTP channel: GET .../documents/k
@ HTTP channel: cuts and checks the head (llhttp)
HTTP channel -> route: path, headers
@ route: malformed or not declared: 400, here
route -> operation: bucket, key, options, caller
operation -> driver: get k
@ driver: joins the operations of this turn; the map names the node
driver -> node: GET, opaque 7
node --> driver: value, flags, CAS
@ driver: finds the operation by its opaque
driver --> operation: result, or an exception
operation --> HTTP channel: status, headers, the stored bytes
HTTP channel --> client: 200, ETag, body
"""

FAILOVER = """
client | gateway | node A | node B
client -> gateway: PUT key 1
gateway -> node A: SET key 1
node A -x gateway: A dies; the connection is lost
gateway --> client: 503, retry: ambiguous
client -> gateway: GET key 2
@ gateway: waits for A, up to --timeout, and connects again
gateway -> node B: what is the cluster map?
@ node B: the cluster fails A over: B has its vbuckets
node B --> gateway: a map without A
gateway -> node B: GET key 2
node B --> gateway: value
gateway --> client: 200
"""

CONFLICT = """
Ada | gateway | Bert
Ada -> gateway: GET price
gateway --> Ada: 10, ETag 1
Bert -> gateway: GET price
gateway --> Bert: 10, ETag 1
Ada -> gateway: PUT 11, If-Match 1
gateway --> Ada: 200, ETag 2
Bert -> gateway: PUT 12, If-Match 1
gateway --> Bert: 409 CasMismatch: nothing is written
Bert -> gateway: GET price
gateway --> Bert: 11, ETag 2
Bert -> gateway: PUT 13, If-Match 2
gateway --> Bert: 200, ETag 3
"""

SHAPES = [
    Panel(
        "Beside each program",
        [
            "program / in any language",
            "*couchgateway / 127.0.0.1, in the same pod",
            "Couchbase cluster / key-value, port 11210",
        ],
        "HTTP stays on the machine; each program has a gateway.",
    ),
    Panel(
        "In front of a cluster",
        [
            "clients / HTTPS",
            "proxy or balancer / asks for /ready",
            "*couchgateways / --workers on each machine",
            "Couchbase cluster",
        ],
        "Any number of gateways: they share nothing.",
    ),
    Panel(
        "With the embedded node",
        ["program or browser", "*couchgateway", "*couchnode / in the same process, on SQLite"],
        "For laptops, tests, small machines: no cluster.",
    ),
]

_ROW = re.compile(r"^\| ([^|]+?) \| ([\d.]+)% \| ([\d.]+) \|$", re.MULTILINE)


def profile() -> list[Bar]:
    """Return the stages of a GET from the table in docs/performance.md, the largest first.

    :raises ValueError: the table is not where it was.
    """
    page = PERFORMANCE.read_text("utf-8")
    table = page.partition("| stage | share | us a request |\n")[2].partition("\n\n")[0]
    rows = [Bar(name, float(share), figure) for name, share, figure in _ROW.findall(table)]
    found = [row for row in rows if row.name != "together"]
    if not found:
        raise ValueError(f"{PERFORMANCE.name} has no table with the heading: stage, share, us a request")
    return found


def figures() -> dict[str, str]:
    """Return each picture by the name of its file."""
    return {
        "request.svg": sequence("The way of a GET from the client to the node and back", REQUEST),
        "failover.svg": sequence("A node dies while clients write and read", FAILOVER),
        "conflict.svg": sequence("Two writers, one document: the second is refused", CONFLICT),
        "profile.svg": bars("Where the time of a GET goes", "us", profile()),
        "shapes.svg": panels("Three ways to run couchgateway", SHAPES),
    }


def main() -> None:
    """Write the files."""
    for name, text in figures().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
