"""Documents of 1 KiB in a named collection over HTTP, beside those of the default one.

    python -m bench.keyspaces [--rounds N] [--seconds N] [--connections N]

Prints medians over the rounds (5) of requests a second, and CPU of the gateway and of its node (in another
process) a request, for GET and PUT in both collections in turn, each for so many seconds (2) at 32 keep-alive
connections, one request under way on each, on 1,000 keys in turn. The goal: a named collection takes no more
than 1.1 of the time. The load is made in this process, and shares the cores.
"""

from __future__ import annotations

from urllib.request import Request, urlopen

from bench.load import DOCUMENT
from bench.rounds import measure, ratio

BUCKET = "/v1/buckets/default"
COLLECTION = f"{BUCKET}/scopes/bench/collections/bench"
PATHS = {"default": BUCKET + "/documents/{n}", "named": COLLECTION + "/documents/{n}"}
REQUESTS = {
    f"{method}, {name}": (method, path, DOCUMENT if method == "PUT" else "")
    for method in ("PUT", "GET")
    for name, path in PATHS.items()
}
GOAL = 1.1


def create(url: str) -> None:
    """Create the collection."""
    for path in (COLLECTION.partition("/collections/")[0], COLLECTION):
        with urlopen(Request(url + path, method="PUT"), timeout=30) as answer:
            answer.read()


def main() -> None:
    """Measure, and print tables."""
    rates = measure("bench.keyspaces", REQUESTS, create)
    for method in ("GET", "PUT"):
        found = ratio(rates, *(f"{method}, {name}" for name in PATHS))
        verdict = "met" if found <= GOAL else "MISSED"
        print(f"a {method} in a named collection takes {found:.2f}; the goal is {GOAL}: {verdict}")


if __name__ == "__main__":
    main()
