"""Design documents: made in development, tried, published, and removed.

python examples/guide/design_documents.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import json
import sys

from couchbase import Connection, Couchbase
from couchbase.exceptions import HTTPError
from couchbase.result import HttpResult

NAME = "guide_birds"
QUIET = "function (doc, meta) { if (doc.bird) { emit(doc.bird, null); } }"
LOUD = "function (doc, meta) { if (doc.bird) { emit(doc.bird.toUpperCase(), null); } }"
FIRST = {"views": {"by_name": {"map": QUIET}}}
SECOND = {"views": {"by_name": {"map": LOUD}}}
BIRDS = ("finch", "robin", "wren")


def revision_of(found: HttpResult) -> str:
    """Return the revision of a design document that was fetched."""
    headers = found.headers or {}
    return str(json.loads(headers["X-Couchbase-Meta"])["rev"])


def names(cb: Connection, use_devmode: bool) -> list[str]:
    """Query the view of either form of the design document."""
    return [row.key for row in cb.query(NAME, "by_name", use_devmode=use_devmode, full_set=True, stale=False)]


def life(cb: Connection) -> None:
    """Take a design document through its life."""
    # Names of development documents begin with dev_; the methods see to that.
    made = cb.design_create(NAME, FIRST, syncwait=30)
    print("created:", made.success, made.http_status, made.url)
    found = cb.design_get(NAME)
    print("the same:", found.value["views"] == FIRST["views"])
    revision = revision_of(found)
    print("in development:", names(cb, use_devmode=True))

    try:
        names(cb, use_devmode=False)
    except HTTPError as error:
        print("in production: HTTP status", error.objextra.http_status)
    cb.design_publish(NAME, syncwait=30)
    print("published:", names(cb, use_devmode=False))

    # A new version in development leaves the published one alone, until it is published itself.
    cb.design_create(NAME, SECOND, syncwait=30)
    print("another revision:", revision_of(cb.design_get(NAME)) != revision)
    print("in development:", names(cb, use_devmode=True))
    print("in production:", names(cb, use_devmode=False))
    cb.design_publish(NAME, syncwait=30)
    print("published again:", names(cb, use_devmode=False))

    # JSON text works, too.
    cb.design_create(NAME, json.dumps(FIRST), use_devmode=False, syncwait=30)
    print("from text:", names(cb, use_devmode=False))
    cb.design_create(NAME, json.dumps(FIRST), syncwait=30)
    print("from text, in development:", names(cb, use_devmode=True))
    try:
        cb.design_create(NAME, {"views": {"by_name": {"map": "function ("}}}, use_devmode=False)
    except HTTPError as error:
        print("no JavaScript: HTTP status", error.objextra.http_status)


def main(connection_string: str) -> None:
    """Store documents, work with design documents, and clean up."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)
    cb.set_multi({f"bird:{name}": {"bird": name} for name in BIRDS})
    try:
        life(cb)
    finally:
        for use_devmode in (True, False):
            deleted = cb.design_delete(NAME, use_devmode=use_devmode, syncwait=30)
            print("deleted:", deleted.success)
        cb.delete_multi([f"bird:{name}" for name in BIRDS])
    try:
        cb.design_get(NAME)
    except HTTPError as error:
        print("gone: HTTP status", error.objextra.http_status)


if __name__ == "__main__":
    main(*sys.argv[1:])
