"""``couchgateway-export``: write the documents of a bucket to a file of JSON lines, through a gateway.

Documents are read from the gateway's listings in parts, so memory use does not depend on their number.
Progress is recorded in a file next to the output, so that an interrupted export resumes where it stopped,
without repeating a document. The lines are those of :mod:`gateway.loader.exportlines`; ``couchgateway-load``
reads them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys

from tqdm import tqdm
from twisted.internet.task import deferLater

from couchbase.protocol.keyspace import DEFAULT_NAME
from gateway.loader.arguments import given_place, note_path, parse_export
from gateway.loader.client import ATTEMPTS, LOST, TRANSIENT_HTTP, Client, lost, pause_seconds, refusal
from gateway.loader.errors import LoadError
from gateway.loader.exporter import Exporter, Place, State
from gateway.loader.output import Output
from gateway.loader.program import run_program
from gateway.loader.progress import Note
from reactor.kinds import IReactor

__all__ = ["main"]


async def _export(options: argparse.Namespace, reactor: IReactor) -> int:
    client = Client(options, reactor)
    note = Note(note_path(options), {"bucket": options.bucket, "url": options.url, **given_place(options)})
    if options.restart:
        note.forget()
        options.file.unlink(missing_ok=True)
    noted = note.read()
    state = State() if noted is None else State.of_note(noted)
    before = state.documents
    places = await _places(client, options, reactor)
    designs = await _designs(client, reactor) if options.designs and not state.designs else []
    if noted is None:
        Output.check_new(options.file)
        note.write(state.as_note())
    output = Output(options.file, state.size_bytes)
    # disable=None: the bar is for terminals only.
    bar = tqdm(initial=before, unit=" documents", unit_scale=True, disable=None, file=sys.stderr)

    def advance() -> None:
        bar.update(exporter.state.documents - bar.n)

    exporter = Exporter(client, output, note, reactor, state=state, on_part=advance)
    interruption = reactor.addSystemEventTrigger("before", "shutdown", exporter.save)
    started = reactor.seconds()
    try:
        exporter.write_designs(designs)
        for place in places:
            await exporter.write(place)
    finally:
        reactor.removeSystemEventTrigger(interruption)
        bar.close()
        output.close()
    note.forget()
    seconds = max(reactor.seconds() - started, 1e-6)
    state = exporter.state
    count = state.documents - before
    skipped = f", {state.skipped} records of transactions left out" if state.skipped else ""
    resumed = f", {before} written before" if before else ""
    print(
        f"{count} documents of {len(places)} collection{'s' * (len(places) != 1)} written{resumed}{skipped}"
        f" ({seconds:.2f} s, {count / seconds:.0f} documents a second)"
    )
    return 0


async def _ask(client: Client, path: str, reactor: IReactor) -> tuple[int, bytes]:
    """Read a resource of the bucket; temporary failures are retried.

    :raises LoadError: the failures persist.
    """
    attempt = 0
    while True:
        try:
            status, body = await client.get(path)
            if status not in TRANSIENT_HTTP:
                return status, body
            trouble = refusal(status, body)
        except LOST as error:
            trouble = lost(error)
        attempt += 1
        if attempt >= ATTEMPTS:
            raise LoadError(f"{trouble}; gave up after {attempt} attempts")
        await deferLater(reactor, pause_seconds(attempt, random.random))


async def _places(client: Client, options: argparse.Namespace, reactor: IReactor) -> list[Place]:
    """Return the collections to write."""
    if options.collection is not None:
        return [(options.scope or DEFAULT_NAME, options.collection)]
    status, body = await _ask(client, "/scopes", reactor)
    if status == 501 and options.scope in (None, DEFAULT_NAME):
        # The cluster has no collections.
        return [(DEFAULT_NAME, DEFAULT_NAME)]
    if status != 200:
        raise LoadError(refusal(status, body))
    try:
        places = [
            (str(scope["name"]), str(collection["name"]))
            for scope in json.loads(body)["scopes"]
            if options.scope in (None, scope["name"])
            for collection in scope["collections"]
        ]
    except (ValueError, KeyError, TypeError):
        raise LoadError(f"not a gateway's list of scopes: {body[:200]!r}") from None
    if not places and options.scope is not None:
        raise LoadError(f"the bucket has no scope {options.scope!r} with a collection")
    return sorted(places)


async def _designs(client: Client, reactor: IReactor) -> list[tuple[str, bytes]]:
    """Return name and text of each design document."""
    status, body = await _ask(client, "/designs", reactor)
    if status != 200:
        raise LoadError(refusal(status, body))
    try:
        return [
            (str(design["name"]), json.dumps(design["design"], ensure_ascii=False).encode())
            for design in json.loads(body)["designs"]
        ]
    except (ValueError, KeyError, TypeError):
        raise LoadError(f"not a gateway's list of design documents: {body[:200]!r}") from None


def main(argv: list[str] | None = None) -> None:
    """Run the command and exit with its status.

    :param argv: the arguments; ``None`` takes those of the process.
    """
    run_program("couchgateway-export", lambda: parse_export(argv), _export)
