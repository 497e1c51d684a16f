"""Views: the rates of indexing and of rows to a client, and the cost of an update.

    python -m bench.views [--rows 1000000] [--documents 50000] [--rounds 5] [--sample FILE] [PART...]

Parts: ``map``, ``stream``, ``client``, ``range``, ``update``; all of them by default. ``--sample`` takes the
documents of the map part from a file of JSON lines ``{"id": ..., "doc": ...}``, plain or .gz, instead of
making them up. Processes that cannot report their usage are measured through /proc, so this needs Linux.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from bench import viewdata
from bench.harness import OWN_PYTHON, Samples, Server, machine, run_json
from bench.processes import PROC, cpu_seconds, family, module_of, own_cpu_seconds
from bench.rawclient import RawClient
from bench.serve import PASSWORD, USER

MEBIBYTE = 2**20
REQUESTS = 100
CLIENT_SECONDS = 600
SLOW_READER_PAUSE = 0.005
NUMBERS = "/default/_design/numbers/_view/numbers"
GATEWAY_NUMBERS = "/v1/buckets/default/views/numbers/numbers?stale=ok"
RAW = "node, JSON"
ACCEPTED = {
    "gateway, JSON": "application/json",
    "gateway, NDJSON": "application/x-ndjson",
    "gateway, server-sent events": "text/event-stream",
}
READERS = {
    "treq, bytes that nobody looks at": "bytes",
    "treq, a line to orjson each": "lines",
    "queryEx": "queryEx",
    "queryAll": "queryAll",
}


class Sizes(NamedTuple):
    """Sizes of the measurements."""

    rows: int
    documents: int
    rounds: int
    sample: Path | None


class ViewNode(Server):
    """The node that is measured, in its own process, and a client of its REST interface."""

    def __init__(self) -> None:
        super().__init__("views")
        parts = urlsplit(self.address)
        assert parts.hostname is not None
        self._http = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=CLIENT_SECONDS)
        (services,) = self.ask("GET", "/pools/default/nodeServices")["nodesExt"]
        self.connection_string = f"couchbase://{parts.hostname}:{services['services']['kv']}"

    def ask(self, method: str, path: str, document: Any = None) -> Any:
        """Return the document that answers a request.

        :raises RuntimeError: another status than 200 or 201, or errors inside of the answer.
        """
        headers = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        body = None
        if document is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(document)
        self._http.request(method, path, body, headers)
        response = self._http.getresponse()
        text = response.read()
        answer = json.loads(text) if text else None
        if response.status not in (200, 201) or not isinstance(answer, dict) or "errors" in answer:
            raise RuntimeError(f"{method} {path} answered {response.status} {text[:300]!r}")
        return answer

    def hang_up(self) -> None:
        """Close the connection; the next request opens one. The node closes those that are idle for long."""
        self._http.close()

    def design(self, bucket: str, name: str, document: dict[str, Any]) -> None:
        """Store a design document."""
        self.ask("PUT", f"/{bucket}/_design/{name}", document)

    def update(self, path: str) -> tuple[float, int]:
        """Bring the indexes of a view up to date; return (seconds until the answer, its rows)."""
        begun = time.perf_counter()
        answer = self.ask("GET", f"{path}?stale=false&limit=1&reduce=false")
        return time.perf_counter() - begun, answer["total_rows"]

    def worker(self) -> int:
        """Return the process id of its view worker.

        :raises RuntimeError: it has none.
        """
        for pid in family(self.pid):
            if module_of(pid) == "couchnode.views.worker":
                return pid
        raise RuntimeError("the node has no view worker")

    def __enter__(self) -> ViewNode:
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop it."""
        self._http.close()
        super().__exit__(*exception)


def measure_map(node: ViewNode, sizes: Sizes) -> str:
    """Index documents with the two beer views, and return a table."""
    with RawClient(node.connection_string, "beers") as client:
        count = client.store(viewdata.beers(sizes.documents, sizes.sample))
    samples = Samples()
    for version in range(sizes.rounds + 1):
        node.design("beers", "beer", viewdata.beer_design(version))
        used = cpu_seconds(node.pid)
        seconds, rows = node.update("/beers/_design/beer/_view/brewery_beers")
        used = cpu_seconds(node.pid) - used
        if not 0 < rows <= count:
            raise RuntimeError(f"{rows} rows of {count} documents")
        if version:  # the first starts the worker
            samples.add("both beer views", "documents a second", count / seconds)
            samples.add("both beer views", "CPU us of node and children a document", used / count * 1e6)
    return (
        f"{count:,} documents, each round into new indexes; medians of {sizes.rounds} rounds\n\n"
        + samples.table("into the index")
    )


def fill(node: ViewNode, sizes: Sizes) -> str:
    """Build the large index, and return how long that took."""
    with RawClient(node.connection_string) as client:
        count = client.store(viewdata.numbers(sizes.rows))
        count += client.store(viewdata.single_numbers(sizes.rows, 0))
    node.design("default", "numbers", viewdata.numbers_design())
    seconds, rows = node.update(NUMBERS)
    if rows != sizes.rows:
        raise RuntimeError(f"{rows} rows in the index instead of {sizes.rows}")
    return (
        f"{rows:,} rows of {count:,} documents were indexed in {seconds:.1f} s"
        f" ({rows / seconds:,.0f} a second)"
    )


def measure_stream(node: ViewNode, sizes: Sizes) -> str:
    """Read all rows through HTTP, and return tables."""
    rates, costs = Samples(), Samples()
    with Server("gateway", node.connection_string) as gateway:
        sources = {RAW: (f"{node.address}{NUMBERS}?stale=ok", "application/json")}
        for name, accept in ACCEPTED.items():
            sources[name] = (gateway.address + GATEWAY_NUMBERS, accept)
        watched = {"gateway": gateway.pid, "node": node.pid, "worker": node.worker()}
        lengths: dict[str, float] = {}
        largest: dict[tuple[str, str], float] = {}

        def load(name: str, reader: str = "", pause: float = 0.0) -> dict[str, Any]:
            url, accept = sources[name]
            command = [OWN_PYTHON, "-m", "bench.viewload", url, accept, str(pause)]
            command += map(str, watched.values())
            found: dict[str, Any] = run_json(command, timeout=CLIENT_SECONDS)
            if found["rows"] != sizes.rows:
                raise RuntimeError(f"{name}: {found['rows']} rows instead of {sizes.rows}")
            lengths[name] = found["bytes"] / found["rows"]
            for process, pid in watched.items():
                grown = found["growth"][str(pid)] / MEBIBYTE
                largest[name + reader, process] = max(grown, largest.get((name + reader, process), 0.0))
            return found

        for number in range(sizes.rounds + 1):
            for name in sources:
                before = {process: own_cpu_seconds(pid) for process, pid in watched.items()}
                found = load(name)
                used = {process: own_cpu_seconds(pid) - before[process] for process, pid in watched.items()}
                if not number:  # the first warms up, but its growth counts
                    continue
                rates.add(name, "rows a second", sizes.rows / found["seconds"])
                costs.add(name, "ms to the first row", found["first"] * 1e3)
                for process, seconds in {"client": found["cpu"], **used}.items():
                    costs.add(name, f"CPU us of the {process} a row", seconds / sizes.rows * 1e6)
        for name in sources:
            load(name, ", slow reader", SLOW_READER_PAUSE)
    growth = Samples()
    for (name, process), grown in largest.items():
        growth.add(name, process, grown)
    told = "; ".join(f"{name}: {length:.1f}" for name, length in lengths.items())
    return (
        f"bytes a row: {told}. Medians of {sizes.rounds} rounds; growth is the largest of all rounds\n\n"
        + rates.table(f"{sizes.rows:,} rows", base=RAW)
        + "\n\n"
        + costs.table(f"{sizes.rows:,} rows", digits=2)
        + "\n\n"
        + growth.table("resident MiB more than at the first row", digits=1)
    )


def measure_client(node: ViewNode, sizes: Sizes) -> str:
    """Read all rows with the SDK, from the node and from prepared bytes, and return tables."""
    readers = dict(READERS)
    if find_spec("ijson") is not None:
        readers["treq, ijson"] = "ijson"
    rates, costs, growth = Samples(), Samples(), Samples()
    with Server("rows", str(sizes.rows)) as prepared:
        servers = {"from prepared bytes": prepared.address, "from the node": node.connection_string}
        for _ in range(sizes.rounds):
            for server, address in servers.items():
                for name, reader in readers.items():
                    command = [OWN_PYTHON, "-m", "bench.viewclient", reader, address, "numbers", "numbers"]
                    found = run_json(command, timeout=CLIENT_SECONDS)
                    if found["rows"] != (0 if reader == "bytes" else sizes.rows):
                        raise RuntimeError(f"{name} {server}: {found['rows']} rows instead of {sizes.rows}")
                    rates.add(name, server, sizes.rows / found["seconds"])
                    costs.add(name, server, found["cpu"] / sizes.rows * 1e6)
                    growth.add(name, server, found["growth"] / MEBIBYTE)
    return (
        f"one client process; medians of {sizes.rounds} rounds\n\n"
        + rates.table("rows a second")
        + "\n\n"
        + costs.table("CPU us of the client a row", digits=2)
        + "\n\n"
        + growth.table("resident MiB of the client more than before", digits=1)
    )


def measure_range(node: ViewNode, sizes: Sizes) -> str:
    """Query a few rows of the large index, and return a table."""
    middle, tenth = sizes.rows // 2, sizes.rows // 10
    seconds = build_groups(node, sizes)
    keys = quote(json.dumps(list(range(0, tenth * 10, tenth))), safe="")
    groups = "/default/_design/groups/_view/groups"
    # Path, query, rows that are expected (None: not known), how often it is asked.
    cases: dict[str, tuple[str, str, int | None, int]] = {
        "limit=10, from the start": (NUMBERS, "limit=10", 10, REQUESTS),
        "limit=10, from the middle": (NUMBERS, f"limit=10&startkey={middle}", 10, REQUESTS),
        "the same, descending": (NUMBERS, f"limit=10&startkey={middle}&descending=true", 10, REQUESTS),
        "key=": (NUMBERS, f"key={middle - tenth}", 1, REQUESTS),
        "keys=, ten of them": (NUMBERS, f"keys={keys}", None, REQUESTS),
        "limit=10&skip=1000, from the middle": (
            NUMBERS, f"limit=10&skip=1000&startkey={middle}", 10, REQUESTS
        ),
        f"limit=10&skip={middle}": (NUMBERS, f"limit=10&skip={middle}", 10, sizes.rounds),
        "group_level=1&limit=10": (groups, "group_level=1&limit=10", None, sizes.rounds),
        "group_level=2&limit=10": (groups, "group_level=2&limit=10", 10, REQUESTS),
        "group_level=3&limit=10": (groups, "group_level=3&limit=10", 10, REQUESTS),
        "group_level=1, all": (groups, "group_level=1", None, sizes.rounds),
        "group_level=2, all": (groups, "group_level=2", None, sizes.rounds),
        "reduced to one row": (groups, "", 1, sizes.rounds),
    }  # fmt: skip
    samples = Samples()
    for name, (path, query, expected, times) in cases.items():
        for _ in range(times):
            begun = time.perf_counter()
            rows = node.ask("GET", f"{path}?stale=ok&{query}")["rows"]
            samples.add(name, "ms", (time.perf_counter() - begun) * 1e3)
            if not rows or expected not in (None, len(rows)):
                raise RuntimeError(f"{name}: {len(rows)} rows instead of {expected}")
    return (
        f"an index of {sizes.rows:,} rows; medians of {REQUESTS} requests, or of {sizes.rounds} where more"
        f" than a thousand rows are touched. The index of groups was built in {seconds:.1f} s.\n\n"
        + samples.table("at the node", digits=2)
    )


def build_groups(node: ViewNode, sizes: Sizes) -> float:
    """Build the index whose keys are arrays; return seconds."""
    node.design("default", "groups", viewdata.groups_design())
    seconds, rows = node.update("/default/_design/groups/_view/groups")
    if rows != sizes.rows:
        raise RuntimeError(f"{rows} rows in the index of groups instead of {sizes.rows}")
    return seconds


def measure_update(node: ViewNode, sizes: Sizes) -> str:
    """Change 1,000 documents, bring the indexes up to date, and return a table."""
    alone, among = "these documents alone", f"among {sizes.rows:,} rows"
    paths = {alone: "/single/_design/numbers/_view/numbers", among: NUMBERS}
    expected = {alone: viewdata.UPDATED, among: sizes.rows}
    node.design("single", "numbers", viewdata.numbers_design())
    samples = Samples()
    with (
        RawClient(node.connection_string, "single") as single,
        RawClient(node.connection_string) as default,
    ):
        for version in range(1, sizes.rounds + 2):
            for name, client in ((alone, single), (among, default)):
                client.store(viewdata.single_numbers(sizes.rows, version))
                used = cpu_seconds(node.pid)
                seconds, rows = node.update(paths[name])
                used = cpu_seconds(node.pid) - used
                if rows != expected[name]:
                    raise RuntimeError(f"{name}: {rows} rows instead of {expected[name]}")
                if version > 1:  # the first builds the small index
                    samples.add(name, "ms", seconds * 1e3)
                    samples.add(name, "CPU ms of node and children", used * 1e3)
    title = f"{viewdata.UPDATED:,} documents changed, then stale=false"
    return f"medians of {sizes.rounds} rounds\n\n" + samples.table(title, digits=1, base=alone)


PARTS = {
    "map": measure_map,
    "stream": measure_stream,
    "client": measure_client,
    "range": measure_range,
    "update": measure_update,
}


def read_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.views", description="Measure views.")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="rows of the large index; a multiple of 1,000"
    )
    parser.add_argument(
        "--documents", type=int, default=50_000, help="number of documents for the beer views"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sample", type=Path, help="file of documents for the beer views")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of: {', '.join(PARTS)}")
    given = parser.parse_args()
    if given.rows < 10_000 or given.rows % 1000:
        parser.error("--rows takes a multiple of 1,000, at least 10,000")
    if min(given.documents, given.rounds) < 1:
        parser.error("--documents and --rounds must be at least 1")
    for part in given.parts:
        if part not in PARTS:
            parser.error(f"{part!r} is none of {', '.join(PARTS)}")
    if not PROC.is_dir():
        parser.error("this needs /proc")
    return given


def main() -> None:
    """Measure, and print tables."""
    given = read_arguments()
    sizes = Sizes(given.rows, given.documents, given.rounds, given.sample)
    parts = [part for part in PARTS if not given.parts or part in given.parts]
    print(machine(), flush=True)
    with ViewNode() as node:
        filled = False
        for part in parts:
            if part != "map" and not filled:
                print(f"\n{fill(node, sizes)}")
                filled = True
            node.hang_up()
            print(f"\n-- {part}: {PARTS[part](node, sizes)}", flush=True)


if __name__ == "__main__":
    main()
