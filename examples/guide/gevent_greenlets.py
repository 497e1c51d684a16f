"""gevent: a connection that many greenlets share, each of which looks as if it waited alone.

python examples/guide/gevent_greenlets.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

import gevent
from gevent.pool import Pool

from couchbase import FMT_UTF8
from couchbase.exceptions import KeyExistsError, NotFoundError, PipelineError
from gcouchbase.connection import GConnection

DESIGN = "guide_greenlets"
VIEWS = {
    "by_number": {"map": "function (doc, meta) { if (doc.greenlet >= 0) { emit(doc.greenlet, null); } }"}
}
GREENLETS = 100
ROUNDS = 20


def work(cb: GConnection, number: int) -> int:
    """Count, and keep a document of this greenlet's own; return the last number that it had."""
    last = 0
    for _ in range(ROUNDS):
        last = cb.incr("total", initial=1).value
    cb.set(f"greenlet:{number}", {"greenlet": number})
    found = cb.get(f"greenlet:{number}")
    assert found.value == {"greenlet": number}, "greenlets must not get each other's answers"
    return last


def edit(cb: GConnection, letter: str) -> None:
    """Add a letter to a document that all edit at once."""
    while True:
        found = cb.get("letters")
        try:
            cb.set("letters", found.value + letter, cas=found.cas, format=FMT_UTF8)
            return
        except KeyExistsError:
            pass  # Another greenlet changed it.


def look(cb: GConnection, key: str) -> str:
    """Return whether there is a document; what an operation raises arrives in the greenlet that asked."""
    try:
        return f"{cb.get(key).key} is there"
    except NotFoundError as error:
        return f"{error.key} is not there"


def tick(ticks: list[int]) -> None:
    """Show that others run while one waits for an answer."""
    while True:
        ticks.append(1)
        gevent.sleep(0)


def main(connection_string: str) -> None:
    """Do the same in a hundred greenlets; nothing needs to be patched for that."""
    cb = GConnection(bucket="default", connection_string=connection_string, timeout=20)
    ticks: list[int] = []
    ticking = gevent.spawn(tick, ticks)

    outcomes = Pool(GREENLETS).map(lambda number: work(cb, number), range(GREENLETS))
    print("the last number:", max(outcomes), "of", GREENLETS * ROUNDS)
    print("each greenlet had its own:", len(set(outcomes)) == GREENLETS)
    print("somebody else ran meanwhile:", len(ticks) > 1)
    ticking.kill()

    cb.set("letters", "", format=FMT_UTF8)
    gevent.joinall([gevent.spawn(edit, cb, letter) for letter in "gevent"], raise_error=True)
    print("letters:", sorted(cb.get("letters").value))

    keys = [f"greenlet:{number}" for number in range(GREENLETS)]
    print("many:", len(cb.get_multi(keys)), "of", GREENLETS)
    print("an exception:", gevent.spawn(look, cb, "nowhere").get())
    try:
        with cb.pipeline():
            print("never reached")
    except PipelineError:
        print("no pipelines: operations of greenlets leave together anyway")

    cb.design_create(DESIGN, {"views": VIEWS}, use_devmode=False, syncwait=30)
    try:
        view = cb.query(DESIGN, "by_number", stale=False, startkey=10, endkey=14)
        print("a view:", [row.key for row in view])
    finally:
        cb.design_delete(DESIGN, use_devmode=False)
        cb.delete_multi([*keys, "total", "letters"])
    cb._close()


if __name__ == "__main__":
    main(*sys.argv[1:])
