"""Pessimistic locking: lock a document, so that no other client can change it for a while.

python examples/guide/pessimistic_locking.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
import time
from typing import Any

from couchbase import Couchbase
from couchbase.exceptions import KeyExistsError, NotFoundError, TemporaryFailError

KEY = "safe"
PATIENCE_SECONDS = 20


def set_when_free(cb: Any, key: str, value: Any) -> bool:
    """Store as soon as no lock is in the way; false if that takes too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            cb.set(key, value)
            return True
        except KeyExistsError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)


def main(connection_string: str) -> None:
    """Lock, use and unlock."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)
    cb.set(KEY, {"gold": 3})

    locked = cb.lock(KEY, ttl=10)
    print("locked:", locked.value)
    # Others can read, but neither change nor lock.
    print("read:", cb.get(KEY).value)
    for name, attempt in (
        ("set", lambda: cb.set(KEY, {"gold": 0})),
        ("delete", lambda: cb.delete(KEY)),
        ("lock", lambda: cb.lock(KEY, ttl=10)),
    ):
        try:
            attempt()
        except KeyExistsError:
            print(f"{name}: KeyExistsError")
        except TemporaryFailError as error:
            print(f"{name}: TemporaryFailError, transient: {bool(error.is_transient)}")

    # The holder of the lock's CAS can store, and that unlocks.
    cb.set(KEY, {"gold": 4}, cas=locked.cas)
    print("stored by the owner:", cb.get(KEY).value)
    cb.set(KEY, {"gold": 5})
    print("stored by anyone:", cb.get(KEY).value)

    # Or unlock without a change.
    locked = cb.lock(KEY, ttl=10)
    print("unlocked:", cb.unlock(KEY, locked.cas).success)
    try:
        cb.unlock(KEY, locked.cas)
    except TemporaryFailError:
        print("it is not locked any more")

    # A lock expires, so that a program that died blocks no one.
    cb.lock(KEY, ttl=1)
    print("free again:", set_when_free(cb, KEY, {"gold": 6}))

    # Without a time it is the server's default: 15 seconds.
    print("no time given:", cb.unlock(KEY, cb.lock(KEY).cas).success)
    try:
        cb.lock("no-such-safe", ttl=10)
    except NotFoundError:
        print("nothing to lock: NotFoundError")

    both = cb.lock_multi([KEY], ttl=10)
    print("many at a time:", bool(cb.unlock_multi(both).all_ok))
    cb.delete(KEY)


if __name__ == "__main__":
    main(*sys.argv[1:])
