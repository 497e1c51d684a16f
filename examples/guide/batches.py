"""Batches: the same operation for many keys, and a pipeline of different ones.

python examples/guide/batches.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

from couchbase import FMT_UTF8, Couchbase
from couchbase.exceptions import PipelineError


def main(connection_string: str) -> None:
    """Do much at a time, in two ways."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)
    keys = [f"batch:{number:04}" for number in range(1000)]

    cb.set_multi(dict.fromkeys(keys, "x"), format=FMT_UTF8)
    cb.append_multi({key: key[-1] for key in keys})
    found = cb.get_multi(keys)
    print("read:", len(found), "documents, the last is", found[keys[-1]].value)
    print("deleted:", len(cb.delete_multi(keys)))

    # In a pipeline nothing is answered before the end of the block.
    pipeline = cb.pipeline()
    with pipeline:
        print("inside:", cb.set("first", 1), cb.set("second", 2))
        cb.incr("second", amount=40)
        cb.get("first")
        cb.get_multi(["first", "second"])
    for result in pipeline.results or []:
        if isinstance(result, dict):
            print("many:", {key: result[key].value for key in sorted(result)})
        else:
            print(type(result).__name__, result.key, result.value)

    # The object can be used again, but not inside itself.
    with pipeline:
        cb.delete("first")
        cb.delete("second")
    print("again:", [result.success for result in pipeline.results or []])
    with pipeline:
        try:
            with cb.pipeline():
                print("never reached")
        except PipelineError:
            print("no pipeline in a pipeline")
    print("nothing to do:", pipeline.results)


if __name__ == "__main__":
    main(*sys.argv[1:])
