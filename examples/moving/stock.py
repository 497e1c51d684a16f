"""Stock of a shop with this project's SDK: python stock.py CONNECTION_STRING USER PASSWORD_FILE."""

import sys
from pathlib import Path

import couchbase.subdocument as SD
from couchbase import Connection
from couchbase.exceptions import KeyExistsError, NotFoundError


def take(bucket, key):
    """Take one item; read again if the document has changed."""
    while True:
        found = bucket.get(key)
        stock = found.value
        stock["left"] -= 1
        try:
            bucket.replace(key, stock, cas=found.cas)
        except KeyExistsError:
            continue
        return stock["left"]


def main(connection_string, user, password_file):
    """Print one line for each step."""
    password = Path(password_file).read_text().strip()
    bucket = Connection(
        bucket="default", connection_string=connection_string, username=user, password=password
    )

    bucket.set("stock-hammer", {"left": 3, "shelf": "A7"}, ttl=3600)
    print("left:", take(bucket, "stock-hammer"))

    try:
        bucket.add("stock-hammer", {})
    except KeyExistsError:
        print("insert: it exists")
    try:
        bucket.get("stock-saw")
    except NotFoundError:
        print("get: it does not exist")

    found = bucket.get_multi(["stock-hammer", "stock-saw"], quiet=True)
    there = sorted(key for key, result in found.items() if result.success)
    print("found:", there, "missing:", sorted(set(found) - set(there)))

    parts = bucket.lookup_in("stock-hammer", SD.get("shelf"), SD.exists("price"))
    print("shelf:", parts[0], "price:", parts.exists(1))
    bucket.mutate_in("stock-hammer", SD.upsert("price", 12), preserve_expiry=True)

    print("sold:", bucket.incr("stock-sold", initial=1).value)
    bucket.touch("stock-hammer", ttl=600)
    bucket.delete("stock-hammer")
    bucket.delete("stock-sold")


main(*sys.argv[1:])
