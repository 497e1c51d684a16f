"""Run the application: ``python -m examples.beer --embedded --load``, or with a connection string."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import react
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from couchbase.exceptions import CouchbaseError
from couchbase.protocol.connstr import parse_connection_string
from examples.beer.app import BeerApp
from examples.beer.documents import LoadError
from examples.beer.site import BeerSite
from examples.beer.store import Store
from txcouchbase.connection import Connection

SAMPLE = Path(__file__).resolve().parents[1] / "sample-breweries.jsonl"
DEFAULT_BUCKET = "default"


class Unable(Exception):
    """The application cannot start; the text says why and what to do."""


def read_options(arguments: Sequence[str]) -> Namespace:
    """Read the command line; ends the process if it cannot be."""
    parser = ArgumentParser(prog="python -m examples.beer", description="Beers and breweries in a browser.")
    parser.add_argument("connection_string", nargs="?", help="such as couchbase://127.0.0.1[:PORT][/BUCKET]")
    parser.add_argument("--embedded", action="store_true", help="run on a node inside this process")
    parser.add_argument("--data-dir", type=Path, help="where that node keeps its data (nowhere by default)")
    parser.add_argument("--bucket", help="the connection string's, or 'default'")
    parser.add_argument("--username", help="the bucket's name by default")
    parser.add_argument("--password-file", type=Path, help="file whose first line is the password")
    parser.add_argument("--host", default="127.0.0.1", help="IP address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for a free one (8000)")
    parser.add_argument("--load", type=Path, nargs="?", const=SAMPLE, metavar="FILE",
                        help="add the documents of a file of JSON lines (the sample by default)")  # fmt: skip
    parser.add_argument("--access-log", action="store_true", help="write a line for each request")
    options = parser.parse_args(arguments)
    if options.embedded == (options.connection_string is not None):
        parser.error("name a connection string, or --embedded, and not both")
    if options.data_dir is not None and not options.embedded:
        parser.error("--data-dir is for --embedded")
    if options.embedded and (options.username or options.password_file):
        parser.error("--username and --password-file are for a connection string")
    if not 0 <= options.port <= 65535:
        parser.error("--port: a number from 0 to 65535")
    return options


class Running:
    """The application while it runs: its node if it has one, its connection, its port."""

    def __init__(self, reactor: Any, options: Namespace) -> None:
        self._reactor = reactor
        self._options = options
        self._node: Any = None
        self._connection: Connection | None = None
        self._site: BeerSite | None = None
        self._port: Any = None

    async def start(self) -> str:
        """Start everything, and return the address to open.

        :raises Unable: something cannot be.
        """
        options, reactor = self._options, self._reactor
        bucket = options.bucket or DEFAULT_BUCKET
        username = options.username
        try:
            if options.embedded:
                # Only this process may connect: it alone has the password.
                username, password = "Administrator", token_urlsafe()
                options.connection_string = await self._start_node(bucket, (username, password))
            elif not options.bucket:
                bucket = parse_connection_string(options.connection_string).bucket or DEFAULT_BUCKET
            self._connection = Connection(
                bucket=bucket,
                connection_string=options.connection_string,
                username=username,
                password=password if options.embedded else _first_line(options.password_file),
                reactor=reactor,
            )
            await self._connection.connect()
            store = Store(self._connection, reactor)
            if options.load:
                added, kept = await store.load(options.load)
                print(f"{options.load.name}: {added} documents added, {kept} were there already", flush=True)
            await store.prepare()
            self._site = BeerSite(BeerApp(store).app.resource(), reactor, options.access_log)
            self._port = reactor.listenTCP(options.port, self._site, interface=options.host)
        except CouchbaseError as error:
            raise Unable(
                f"{options.connection_string}, bucket {bucket}: {error.message or error}\n"
                "Is the cluster running, with that bucket and views, and are the credentials right?"
            ) from error
        except (LoadError, CannotListenError) as error:
            raise Unable(str(error)) from error
        where = f"[{options.host}]" if ":" in options.host else options.host
        return f"http://{where}:{self._port.getHost().port}/"

    async def stop(self) -> None:
        """Stop everything that was started."""
        if self._port is not None:
            await self._port.stopListening()
        if self._site is not None:
            self._site.close()
        if self._connection is not None:
            self._connection._close()
        if self._node is not None:
            await self._node.stop()

    async def _start_node(self, bucket: str, user: tuple[str, str]) -> str:
        # Imported only here: with your own cluster, the node is not needed.
        from couchnode.cluster.metadata import DataDirectoryError
        from couchnode.embedded import EmbeddedNode, StartError

        node = EmbeddedNode(self._options.data_dir, users=[user], buckets=[(bucket, None)])
        try:
            await node.start()
        except (StartError, DataDirectoryError) as error:
            raise Unable(str(error)) from error
        self._node = node
        return node.connection_string


def _first_line(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text().splitlines()[0]
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise Unable(f"--password-file {path} has no password: {error}") from error


async def run(reactor: Any, options: Namespace) -> None:
    """Run until the process is asked to end."""
    running = Running(reactor, options)
    ended: Deferred[None] = Deferred()
    try:
        address = await running.start()
    except Unable as error:
        await running.stop()
        print(error, file=sys.stderr)
        raise SystemExit(1) from error
    reactor.addSystemEventTrigger("before", "shutdown", lambda: ensureDeferred(running.stop()))
    print(f"Open {address} (Ctrl-C ends this)", flush=True)
    await ended


def main(arguments: Sequence[str]) -> None:
    """Run on the global reactor."""
    options = read_options(arguments)
    level = LogLevel.info if options.access_log else LogLevel.warn
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(level)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    react(lambda reactor: ensureDeferred(run(reactor, options)))


if __name__ == "__main__":
    main(sys.argv[1:])
