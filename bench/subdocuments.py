"""One path of a 1 KiB document changed and read over HTTP, beside the whole document.

    python -m bench.subdocuments [--rounds N] [--seconds N] [--connections N]

Prints medians over the rounds (5) of requests a second, and CPU of the gateway and of its node (in another
process) a request, for PUT, mutate, GET and lookup in turn, each for so many seconds (2) at 32 keep-alive
connections, one request under way on each, on 1,000 keys in turn. The goal: mutate at no less than 1/1.3 of
PUT's rate. The load is made in this process, and shares the cores.
"""

from __future__ import annotations

from bench.rounds import measure, ratio

PATH = "/v1/buckets/default/documents/part-{n}"
DOCUMENT = '{"n":1,"text":"' + "x" * (1024 - 17) + '"}'
REQUESTS = {
    "PUT": ("PUT", PATH, DOCUMENT),
    "mutate": ("POST", PATH + "/mutate", '{"operations":[{"operation":"DictSet","path":"n","value":42}]}'),
    "GET": ("GET", PATH, ""),
    "lookup": ("POST", PATH + "/lookup", '{"operations":[{"operation":"Get","path":"n"}]}'),
}
GOAL = 1.3


def main() -> None:
    """Measure, and print tables."""
    rates = measure("bench.subdocuments", REQUESTS)
    found = ratio(rates, "PUT", "mutate")
    print(f"a mutate takes {found:.2f} of a PUT; the goal is {GOAL}: {'met' if found <= GOAL else 'MISSED'}")


if __name__ == "__main__":
    main()
