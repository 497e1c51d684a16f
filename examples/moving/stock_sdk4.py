"""Stock of a shop with the official SDK 4: python stock_sdk4.py CONNECTION_STRING USER PASSWORD_FILE."""

import sys
from datetime import timedelta
from pathlib import Path

import couchbase.subdocument as SD
from couchbase.auth import PasswordAuthenticator
from couchbase.cluster import Cluster
from couchbase.exceptions import CASMismatchException, DocumentExistsException, DocumentNotFoundException
from couchbase.options import ClusterOptions, IncrementOptions, ReplaceOptions, SignedInt64


def take(collection, key):
    """Take one item; read again if the document has changed."""
    while True:
        found = collection.get(key)
        stock = found.content_as[dict]
        stock["left"] -= 1
        try:
            collection.replace(key, stock, ReplaceOptions(cas=found.cas))
        except CASMismatchException:
            continue
        return stock["left"]


def main(connection_string, user, password_file):
    """Print one line for each step."""
    password = Path(password_file).read_text().strip()
    cluster = Cluster.connect(connection_string, ClusterOptions(PasswordAuthenticator(user, password)))
    collection = cluster.bucket("default").default_collection()

    collection.upsert("stock-hammer", {"left": 3, "shelf": "A7"}, expiry=timedelta(hours=1))
    print("left:", take(collection, "stock-hammer"))

    try:
        collection.insert("stock-hammer", {})
    except DocumentExistsException:
        print("insert: it exists")
    try:
        collection.get("stock-saw")
    except DocumentNotFoundException:
        print("get: it does not exist")

    found = collection.get_multi(["stock-hammer", "stock-saw"])
    print("found:", sorted(found.results), "missing:", sorted(found.exceptions))

    parts = collection.lookup_in("stock-hammer", [SD.get("shelf"), SD.exists("price")])
    print("shelf:", parts.content_as[str](0), "price:", parts.exists(1))
    collection.mutate_in("stock-hammer", [SD.upsert("price", 12)])

    counter = collection.binary().increment("stock-sold", IncrementOptions(initial=SignedInt64(1)))
    print("sold:", counter.content)
    collection.touch("stock-hammer", timedelta(minutes=10))
    collection.remove("stock-hammer")
    collection.remove("stock-sold")
    cluster.close()


main(*sys.argv[1:])
