"""Hello: store one document, read it back, remove it.

python examples/guide/hello.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

from couchbase import Couchbase


def main(connection_string: str) -> None:
    """Greet through the bucket."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)
    cb.set("greeting", {"hello": "world"})
    result = cb.get("greeting")
    print("key:", result.key)
    print("value:", result.value)
    cb.delete("greeting")


if __name__ == "__main__":
    main(*sys.argv[1:])
