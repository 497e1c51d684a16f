"""Exceptions in batches: one failure does not stop the others, and the exception knows them all.

python examples/guide/batch_errors.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

from couchbase import Couchbase
from couchbase.exceptions import CouchbaseError, KeyExistsError, NotFoundError, ValueFormatError


def main(connection_string: str) -> None:
    """Let batches fail in part."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)
    cb.set("there", "old")

    # add_multi cannot add existing documents; it still adds the others.
    try:
        cb.add_multi({"there": "new", "here": "new"})
    except KeyExistsError as error:
        print("failed:", error.key, "of", len(error.all_results))
        for key in sorted(error.all_results):
            result = error.all_results[key]
            print(f"  {key}: {'done' if result.success else 'failed'}, rc {hex(result.rc)}")
        print("  all_ok:", bool(error.all_results.all_ok))
        print("  the result that failed:", error.result.key)
    print("stored:", {key: result.value for key, result in sorted(cb.get_multi(["here", "there"]).items())})

    # With quiet, the results show which are missing.
    try:
        cb.get_multi(["here", "nowhere", "there"])
    except NotFoundError as error:
        print("missing:", error.key, "- found:", sorted(k for k, r in error.all_results.items() if r.success))
    found = cb.get_multi(["here", "nowhere", "there"], quiet=True)
    print("quiet:", [(key, found[key].success) for key in sorted(found)])

    # Values that cannot be sent are found before anything is sent.
    try:
        cb.set_multi({"here": "newer", "there": {1, 2}})
    except ValueFormatError:
        print("nothing was sent:", cb.get("here").value)

    # A pipeline raises at its end, when all operations are done; its results are those of the last success.
    pipeline = cb.pipeline()
    try:
        with pipeline:
            cb.set("here", "from a pipeline")
            cb.get("nowhere")
            cb.set("there", "from a pipeline")
    except CouchbaseError as error:
        print("pipeline:", error.key, "not found:", isinstance(error, NotFoundError))
    print("results:", pipeline.results)
    print("done:", cb.get("here").value, "/", cb.get("there").value)

    cb.delete_multi(["here", "there"])


if __name__ == "__main__":
    main(*sys.argv[1:])
