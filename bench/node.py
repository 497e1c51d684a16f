"""couchnode alone: the cost of one operation, pipelined and one at a time.

    python -m bench.node [OPERATIONS] [ROUNDS] [CHECKOUT]

The generator sends ready-made bytes and only counts those of the answers, so that the node is what is
measured. With CHECKOUT, the path of another checkout of this repository, its node is measured in turn.
Without, each case is measured in the default collection and in a named one, too, on a connection with
collections; the last table has what the named one costs in relation to the default one.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.harness import HERE, Samples, Server, machine
from bench.rawclient import VBUCKETS, RawClient, set_request
from couchbase.protocol.constants import Opcode
from couchbase.protocol.frames import encode_request
from couchbase.protocol.hashing import vbucket_of
from couchbase.protocol.operations import EXPIRY_LOOKUP_VALUE, mutation_framing

DOCUMENT = b'{"text":"' + b"x" * (1024 - 11) + b'"}'
KEYS = [b"bench-node-%d" % number for number in range(1000)]
JSON_FLAGS = b"\x02\0\0\x06"
BLOCK = 50
BLOCKS_UNDER_WAY = 4
HEADER_BYTES = 24
# How the keys of a connection with collections begin; the server creates one collection, whose id is 8.
DEFAULT_COLLECTION, NAMED_COLLECTION = b"\0", b"\x08"
AIM_RATIO = 1.1
"""What an operation in a named collection may cost of one in the default collection."""


def requests(prefix: bytes = b"") -> dict[str, tuple[list[bytes], int]]:
    """Return, by case, one request a key and how many bytes each answer has.

    :param prefix: what keys begin with on this connection.
    """
    lookup = len(b"33554438") + len(b"0") + 3 * 6 + len(DOCUMENT)
    # The gateway's request to store a document and keep its expiry.
    keep_expiry = mutation_framing(0, 0, preserve_expiry=True)
    store = {"extras": JSON_FLAGS + bytes(4), "value": DOCUMENT}
    cases = {
        "get": ({"opcode": Opcode.GET}, HEADER_BYTES + 4 + len(DOCUMENT)),
        "lookup (the gateway's GET)": (
            {"opcode": Opcode.SUBDOC_MULTI_LOOKUP, "value": EXPIRY_LOOKUP_VALUE},
            HEADER_BYTES + lookup,
        ),
        "set": ({"opcode": Opcode.SET, **store}, HEADER_BYTES),
        "set (the gateway's PUT)": ({"opcode": Opcode.SET, "framing": keep_expiry, **store}, HEADER_BYTES),
    }
    return {
        name: (
            [encode_request(key=prefix + key, vbucket=vbucket_of(key, VBUCKETS), **parts) for key in KEYS],  # type: ignore[arg-type]
            answer_bytes,
        )
        for name, (parts, answer_bytes) in cases.items()
    }


def pipeline(client: RawClient, texts: Sequence[bytes], answer_bytes: int, count: int) -> None:
    """Send ``count`` requests, some blocks ahead of their answers."""
    connection = client.connection
    blocks = itertools.cycle(
        [b"".join(texts[start : start + BLOCK]) for start in range(0, len(texts), BLOCK)]
    )
    sent = received = 0
    while received < count * answer_bytes:
        while sent < count and sent * answer_bytes < received + BLOCK * BLOCKS_UNDER_WAY * answer_bytes:
            connection.sendall(next(blocks))
            sent += BLOCK
        received += len(connection.recv(262144))
    if received != count * answer_bytes:
        raise RuntimeError(f"{received} bytes of answers where {count * answer_bytes} were expected")


def one_at_a_time(client: RawClient, texts: Sequence[bytes], answer_bytes: int, count: int) -> None:
    """Send ``count`` requests, each after the answer to the one before."""
    connection = client.connection
    for text in itertools.islice(itertools.cycle(texts), count):
        connection.sendall(text)
        left = answer_bytes
        while left:
            left -= len(connection.recv(left))


def main() -> None:
    """Measure, and print tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    roots = {"this checkout": HERE.parent}
    if len(sys.argv) > 3:
        roots[sys.argv[3]] = Path(sys.argv[3])
    costs, rates = Samples(), Samples()
    servers = {name: Server("node", root=root) for name, root in roots.items()}
    columns = {name: (server, b"") for name, server in servers.items()}
    if len(roots) == 1:
        (server,) = servers.values()
        columns |= {"_default": (server, DEFAULT_COLLECTION), "named": (server, NAMED_COLLECTION)}
    cases = {prefix: requests(prefix) for _, prefix in columns.values()}
    try:
        clients = {
            name: RawClient(server.address, has_collections=bool(prefix))
            for name, (server, prefix) in columns.items()
        }
        for name, (_, prefix) in columns.items():
            clients[name].ask([set_request(key, DOCUMENT, JSON_FLAGS, prefix) for key in KEYS])
        for _ in range(rounds):
            for case, (name, (server, prefix)) in itertools.product(cases[b""], columns.items()):
                texts, size = cases[prefix][case]
                for way, run, share in (
                    ("pipelined", pipeline, 1),
                    ("one at a time", one_at_a_time, 4),
                ):
                    begun, used = time.perf_counter(), server.cpu_seconds()
                    run(clients[name], texts, size, count // share)
                    seconds, used = time.perf_counter() - begun, server.cpu_seconds() - used
                    costs.add(f"{case}, {way}", name, used / (count // share) * 1e6)
                    rates.add(f"{case}, {way}", name, count // share / seconds)
        for client in clients.values():
            client.connection.close()
    finally:
        for server in servers.values():
            server.__exit__()
    print(f"{machine()}; {count} operations on documents of 1 KiB a round, medians of {rounds} rounds\n")
    print(costs.table("CPU us of the node an operation", digits=2), end="\n\n")
    print(rates.table("operations a second"))
    if "named" in columns:
        print(f"\nA named collection in relation to the default one (aim: at most {AIM_RATIO}):")
        for case in cases[b""]:
            row = f"{case}, pipelined"
            named, default = costs.median(row, "named"), costs.median(row, "_default")
            if named and default:
                print(f"  {row}: {named / default:.3f}")


if __name__ == "__main__":
    main()
