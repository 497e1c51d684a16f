"""Durability: writes that wait for copies on disk and on other nodes.

Needs a bucket with one replica on two nodes that write to disks.

python examples/guide/durable_writes.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

from couchbase import OBS_FOUND, OBS_MASK, OBS_PERSISTED, Couchbase
from couchbase.exceptions import ArgumentError, KeyExistsError, NotFoundError, TimeoutError

KEY = "contract"


def main(connection_string: str) -> None:
    """Write, wait and watch."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)
    print("replicas:", cb.configured_replica_count)

    # On two disks, and in the memory of one replica.
    stored = cb.set(KEY, {"signed": True}, persist_to=2, replicate_to=1)
    print("stored:", stored.success)

    copies = cb.observe(KEY).value
    print("copies:", len(copies), "of which masters:", sum(copy.from_master for copy in copies))
    print("all on disk:", all(copy.flags & OBS_MASK == OBS_PERSISTED for copy in copies))
    print("all of the same version:", {copy.cas for copy in copies} == {stored.cas})
    (master,) = cb.observe(KEY, master_only=True).value
    print("the master alone:", master.flags in (OBS_FOUND, OBS_PERSISTED))

    # -1: as many as possible. If more are requested, nothing is stored.
    print("everywhere:", cb.set(KEY, {"signed": False}, persist_to=-1, replicate_to=-1).success)
    try:
        cb.set(KEY, {"signed": None}, persist_to=4)
    except ArgumentError as error:
        print("too many:", hex(error.rc), "- value:", cb.get(KEY).value)

    # For all changes of a block.
    with cb.durability(persist_to=-1, replicate_to=-1, timeout=10):
        cb.set_multi({KEY: 1, "appendix": 2})
        cb.delete("appendix")
    print("durable block: done")

    # Store now, wait later.
    version = cb.set(KEY, "final").cas
    print("endured:", cb.endure(KEY, persist_to=-1, replicate_to=-1, cas=version).success)
    cb.set(KEY, "final, really")
    try:
        cb.endure(KEY, persist_to=1, replicate_to=0, cas=version)
    except KeyExistsError:
        print("endure: that version was replaced")
    try:
        cb.endure(KEY, persist_to=1, replicate_to=0, check_removed=True, timeout=0.2)
    except TimeoutError as error:
        print("endure: still not removed; transient:", bool(error.is_transient))
    cb.delete(KEY)
    print("removed everywhere:", cb.endure(KEY, check_removed=True, persist_to=-1, replicate_to=-1).success)
    try:
        cb.endure(KEY, persist_to=1, replicate_to=0)
    except NotFoundError:
        print("endure: nothing there")


if __name__ == "__main__":
    main(*sys.argv[1:])
