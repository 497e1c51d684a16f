"""Attacks of one client on a gateway, within the documented limits; see :mod:`bench.fairness`.

Each attack is a function of a :class:`Target`. It runs until it is done or the target's time is over, in a
separate process, and returns the number of each status: text -> count.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

MIB = 2**20
LINES = 1000
VIEW_DOCUMENTS = 300
DOCUMENTS = "/v1/buckets/default/documents/"
BATCH = "/v1/buckets/default/batch"

Seen = Counter[str]


class Target(NamedTuple):
    """The gateway, and the time until which it is attacked."""

    host: str
    port: int
    until: float
    """By ``time.monotonic()``."""

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, self.until - time.monotonic())

    def connect(self) -> socket.socket:
        """Return a connection whose calls end when the time is over."""
        connection = socket.create_connection((self.host, self.port))
        connection.settimeout(self.left + 0.01)
        return connection

    def rest(self) -> None:
        """Wait until the time is over."""
        time.sleep(self.left)


class Attack(NamedTuple):
    """A row of the table."""

    run: Callable[[Target], Seen]
    documents: dict[str, Callable[[], bytes]] = {}
    """Documents stored before the attack: key -> function that makes the value."""


def text(size: int) -> Callable[[], bytes]:
    """Return a function that makes a JSON document of that many bytes: a long string."""
    return lambda: b'{"text":"' + b"x" * (size - 11) + b'"}'


def numbers(size: int) -> Callable[[], bytes]:
    """Return a function that makes a JSON array of about that size with as many elements as possible."""
    return lambda: b"[" + b"1," * (size // 2 - 2) + b"1]"


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    """Return the bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body or method != "GET":
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def at_once(target: Target, count: int, one: Callable[[Target, Seen], None]) -> Seen:
    """Run a function in many threads, until all are done or the time is over."""
    seen: Seen = Counter()

    def run() -> None:
        try:
            one(target, seen)
        except (TimeoutError, OSError):
            seen["cut"] += 1

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(target.left + 0.5)
    return seen


def status_of(connection: socket.socket) -> str:
    """Read an answer; returns its status, with the error's code."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    body = answer.read()
    if answer.status < 400:
        return str(answer.status)
    return f"{answer.status} {json.loads(body)['code']}"


def reads(key: str) -> bytes:
    """Return a batch of reads of one document."""
    return request("POST", BATCH, b'{"op":"get","key":"%b"}\n' % key.encode() * LINES, "application/x-ndjson")


def unread(sent: bytes, clients: int = 1) -> Callable[[Target], Seen]:
    """Send, and do not read."""

    def one(target: Target, seen: Seen) -> None:
        with target.connect() as connection:
            connection.sendall(sent)
            target.rest()

    return lambda target: at_once(target, clients, one)


def hang_up(sent: bytes, seconds: float, clients: int = 1) -> Callable[[Target], Seen]:
    """Send, wait a moment and close, repeatedly."""

    def one(target: Target, seen: Seen) -> None:
        while target.left:
            with target.connect() as connection:
                connection.sendall(sent)
                time.sleep(min(seconds, target.left))
            seen["closed"] += 1

    return lambda target: at_once(target, clients, one)


def slow(sent: bytes) -> Callable[[Target], Seen]:
    """Send, and read 64 KiB every 10 ms."""

    def one(target: Target, seen: Seen) -> None:
        with target.connect() as connection:
            connection.sendall(sent)
            while target.left and connection.recv(65536):
                time.sleep(0.01)

    return lambda target: at_once(target, 1, one)


def asked(sent: Callable[[], bytes], clients: int = 1, *, once: bool = False) -> Callable[[Target], Seen]:
    """Send and read the answer, repeatedly."""

    def run(target: Target) -> Seen:
        made = sent()

        def one(target: Target, seen: Seen) -> None:
            while target.left:
                with target.connect() as connection:
                    try:
                        connection.sendall(made)
                    except ConnectionError:
                        # The request was refused before all of it was sent.
                        pass
                    seen[status_of(connection)] += 1
                if once:
                    break

        return at_once(target, clients, one)

    return run


def puts(clients: int, size: int = 20 * MIB) -> Callable[[Target], Seen]:
    """Store large documents, all at once."""
    return asked(lambda: request("PUT", DOCUMENTS + "stored", text(size)()), clients, once=True)


def large_sets() -> bytes:
    """Return a batch that stores large JSON."""
    line = b'{"op":"set","key":"set","value":' + numbers(19 * MIB)() + b"}\n"
    return request("POST", BATCH, line * 4, "application/x-ndjson")


def long_line() -> bytes:
    """Return a batch of one line that is far too long."""
    line = b'{"op":"set","key":"set","value":"' + b"x" * (100 * MIB) + b'"}\n'
    return request("POST", BATCH, line, "application/x-ndjson")


def views_unread(target: Target) -> Seen:
    """Query a view for all documents many times, and do not read."""
    code = b'{"views":{"v":{"map":"function(d,m){emit(m.id)}"}}}'
    one = Target(target.host, target.port, target.until)
    with one.connect() as connection:
        connection.sendall(request("PUT", "/v1/buckets/default/designs/fair", code))
        status = status_of(connection)
    path = "/v1/buckets/default/views/fair/v?stale=false&include_docs=true"
    return Counter({"design " + status: 1}) + unread(request("GET", path), 50)(target)


TEXT_1, TEXT_4, TEXT_20 = {"text-1": text(MIB)}, {"text-4": text(4 * MIB)}, {"text-20": text(20 * MIB)}
ARRAY_20, ARRAY_4 = {"array-20": numbers(20 * MIB)}, {"array-4": numbers(4 * MIB)}
MANY = {f"view-{number}": text(100_000) for number in range(VIEW_DOCUMENTS)}

ATTACKS: dict[str, Attack] = {
    "nothing": Attack(lambda target: Counter()),
    "batch, 1000 reads of 1 MiB, hang up after 0.3 s": Attack(hang_up(reads("text-1"), 0.3), TEXT_1),
    "batch, 1000 reads of 4 MiB, hang up after 0.3 s": Attack(hang_up(reads("text-4"), 0.3), TEXT_4),
    "batch, 1000 reads of 20 MiB, hang up after 0.3 s": Attack(hang_up(reads("text-20"), 0.3), TEXT_20),
    "batch, 1000 reads of 20 MiB, unread": Attack(unread(reads("text-20")), TEXT_20),
    "batch, 1000 reads of 4 MiB, read slowly": Attack(slow(reads("text-4")), TEXT_4),
    "batch, 1000 reads of 4 MiB, read": Attack(asked(lambda: reads("text-4")), TEXT_4),
    "ten batches, 1000 reads of 4 MiB, unread": Attack(unread(reads("text-4"), 10), TEXT_4),
    "ten batches, 1000 reads of 20 MiB, hang up": Attack(hang_up(reads("text-20"), 0.3, 10), TEXT_20),
    "batch, 1000 reads of a 20 MiB array, read": Attack(asked(lambda: reads("array-20")), ARRAY_20),
    "batch, 4 sets of a 19 MiB array": Attack(asked(large_sets)),
    "batch, one line of 100 MB": Attack(asked(long_line)),
    "40 GETs of 20 MiB, unread": Attack(unread(request("GET", DOCUMENTS + "text-20"), 40), TEXT_20),
    "40 clients GET 20 MiB and read": Attack(
        asked(lambda: request("GET", DOCUMENTS + "text-20"), 40), TEXT_20
    ),
    "40 clients GET 1 MiB and hang up": Attack(
        hang_up(request("GET", DOCUMENTS + "text-1"), 0.02, 40), TEXT_1
    ),
    "200 pipelined GETs of 20 MiB, unread": Attack(
        unread(request("GET", DOCUMENTS + "text-20") * 200), TEXT_20
    ),
    "8 PUTs of 20 MiB": Attack(puts(8)),
    "12 PUTs of 20 MiB": Attack(puts(12)),
    "50 PUTs of 20 MiB": Attack(puts(50)),
    "4 clients PUT 20 MiB, again and again": Attack(
        asked(lambda: request("PUT", DOCUMENTS + "stored", text(20 * MIB)()), 4)
    ),
    "counter with a 20 MiB array as body": Attack(
        asked(lambda: request("POST", DOCUMENTS + "n/increment", numbers(20 * MIB)()))
    ),
    "4 clients project=[-1] of a 4 MiB array": Attack(
        asked(lambda: request("GET", DOCUMENTS + "array-4?project=[-1]"), 4), ARRAY_4
    ),
    "project=[-1] of a 20 MiB array": Attack(
        asked(lambda: request("GET", DOCUMENTS + "array-20?project=[-1]")), ARRAY_20
    ),
    "50 views with include_docs, unread": Attack(views_unread, MANY),
}
"""Name -> attack."""


def run(name: str, host: str, port: int, seconds: float) -> Seen:
    """Carry out an attack."""
    return ATTACKS[name].run(Target(host, port, time.monotonic() + seconds))
