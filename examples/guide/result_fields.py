"""Results: the fields of an operation's answer.

python examples/guide/result_fields.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import re
import sys

from couchbase import Couchbase

KEY = "city:graz"


def shown(result: object) -> str:
    """Return the printed form of a result, with a word in place of the CAS: it is new with every change."""
    return re.sub(r"CAS=0x[1-9a-f][0-9a-f]*", "CAS=<some>", repr(result))


def main(connection_string: str) -> None:
    """Look at results of several operations."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)

    stored = cb.set(KEY, {"people": 300000})
    print("stored:", shown(stored))
    print("value of a store:", stored.value)

    found = cb.get(KEY)
    print("found:", shown(found))
    print("rc, success, errstr:", found.rc, found.success, found.errstr)
    print("flags:", found.flags)
    print("the same version:", found.cas == stored.cas)
    changed = cb.set(KEY, {"people": 300001})
    print("another version after a change:", changed.cas != stored.cas)

    try:
        found.value = None
    except AttributeError:
        print("results cannot be changed")

    cb.delete(KEY)
    missing = cb.get(KEY, quiet=True)
    print("missing: rc", missing.rc, "success", missing.success, "value", missing.value, "cas", missing.cas)


if __name__ == "__main__":
    main(*sys.argv[1:])
