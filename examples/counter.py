"""Count to three on a bucket, with Deferreds.

python examples/counter.py couchbase://127.0.0.1:11210 [USER PASSWORD_FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from couchbase.exceptions import NotFoundError
from txcouchbase.connection import Connection


async def count(reactor: Any, connection_string: str, user: str | None, password: str | None) -> None:
    """Increment a counter a few times, and look at it."""
    connection = Connection(
        bucket="default",
        connection_string=connection_string,
        username=user,
        password=password,
        reactor=reactor,
    )
    try:
        await connection.delete("example-counter", quiet=True)
        for _ in range(3):
            result = await connection.incr("example-counter", initial=1)
            print(result.key, result.value)
        try:
            await connection.get("example-nothing")
        except NotFoundError as error:
            print("no such document:", error.key)
    finally:
        connection._close()


def main(
    reactor: Any, connection_string: str, user: str | None = None, password_file: str | None = None
) -> Any:
    """Run until the counting is done."""
    password = None if password_file is None else Path(password_file).read_text().splitlines()[0]
    return ensureDeferred(count(reactor, connection_string, user, password))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 4) or not sys.argv[1]:
        sys.exit("counter.py needs a connection string; " + (__doc__ or "").splitlines()[2])
    react(main, sys.argv[1:])
