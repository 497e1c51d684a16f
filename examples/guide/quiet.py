"""Quiet: missing documents as results instead of exceptions.

python examples/guide/quiet.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

from couchbase import Couchbase
from couchbase.exceptions import NotFoundError

KEY = "no-such-document"


def main(connection_string: str) -> None:
    """Read missing documents, with and without ``quiet``."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)

    try:
        cb.get(KEY)
    except NotFoundError as error:
        print("loud:", error.key, hex(error.rc))

    # For one call ...
    result = cb.get(KEY, quiet=True)
    print("quiet call: success", result.success, "value", result.value, hex(result.rc))
    print("quiet delete: success", cb.delete(KEY, quiet=True).success)

    # ... or for all of them, except where a call says otherwise.
    cb.quiet = True
    print("quiet connection: success", cb.get(KEY).success)
    print("touch, too: success", cb.touch(KEY, ttl=10).success)
    try:
        cb.get(KEY, quiet=False)
    except NotFoundError:
        print("loud again where the call asks for it")

    # Only reading and removing can be quiet. What needs a document to change still raises.
    try:
        cb.replace(KEY, "value")
    except NotFoundError:
        print("replace is never quiet")
    try:
        cb.incr(KEY)
    except NotFoundError:
        print("incr is never quiet")


if __name__ == "__main__":
    main(*sys.argv[1:])
