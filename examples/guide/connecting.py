"""Connecting: hosts to try, credentials, and what a failure looks like.

python examples/guide/connecting.py couchbase://127.0.0.1:11210 USER PASSWORD
"""

from __future__ import annotations

import sys
from typing import Any

from couchbase import Couchbase
from couchbase.exceptions import ArgumentError, AuthError, BucketNotFoundError, CouchbaseNetworkError


def by_hosts(nodes: list[str]) -> None:
    """Connect by host and port of the cluster manager, the first of which is not there."""
    hosts = [("127.0.0.1", 1)] + [
        (host, int(port)) for host, _, port in (one.rpartition(":") for one in nodes)
    ]
    cb = Couchbase.connect(bucket="default", host=hosts, timeout=5)
    print("a host that is down was passed over:", cb.connected)
    cb._close()
    try:
        Couchbase.connect(bucket="default", host=["127.0.0.1"], port=1)
    except CouchbaseNetworkError:
        print("no host answers: a CouchbaseNetworkError")


def main(connection_string: str, user: str, password: str) -> None:
    """Connect in some ways that work, and some that do not."""
    cb = Couchbase.connect(
        bucket="default", connection_string=connection_string, username=user, password=password, timeout=5
    )
    print("connected to", cb.bucket, "with a timeout of", cb.timeout)
    # The timeout, like quiet, default_format and transcoder, can be changed at any time.
    cb.timeout = 2.5
    print("the timeout is now", cb.timeout)

    by_hosts(cb.server_nodes)

    attempts: dict[str, dict[str, Any]] = {
        "wrong password": {"bucket": "default", "username": user, "password": "not " + password},
        "no such bucket": {"bucket": "no-such-bucket", "username": user, "password": password},
        "no bucket named": {"username": user, "password": password},
    }
    for reason, keywords in attempts.items():
        try:
            Couchbase.connect(connection_string=connection_string, **keywords)
        except (AuthError, BucketNotFoundError, ArgumentError) as error:
            kinds = (AuthError, BucketNotFoundError, ArgumentError)
            print(f"{reason}:", *(kind.__name__ for kind in kinds if isinstance(error, kind)))

    cb._close()
    print("closed:", cb.closed)


if __name__ == "__main__":
    main(*sys.argv[1:])
