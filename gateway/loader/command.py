"""``couchgateway-load``: send the documents of a JSON-lines file to a bucket, through a gateway.

Lines are sent in small batches (``POST /v1/buckets/{bucket}/batch``), a few at a time, so memory use does not
depend on the file's length. A document's text is sent exactly as it is in the file. Batches that share a key
never overtake each other: the last line with a key wins, as if lines were sent one by one. Progress is
recorded in a file next to the input, so that an interrupted load resumes where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import time

from tqdm import tqdm

from gateway.loader.arguments import given_place, note_path, parse_load
from gateway.loader.client import Client
from gateway.loader.file import Source
from gateway.loader.lines import LineReader
from gateway.loader.loader import Loader
from gateway.loader.program import EXIT_SOME_FAILED, run_program
from gateway.loader.progress import Progress
from reactor.kinds import IReactor

__all__ = ["main"]


async def _load(options: argparse.Namespace, reactor: IReactor) -> int:
    source = Source(options.file)
    identity = {
        "bytes": source.size_bytes,
        "bucket": options.bucket,
        "url": options.url,
        **given_place(options),
    }
    progress = Progress(note_path(options), identity)
    if options.restart:
        progress.forget()
    # disable=None: show the bar on terminals only.
    bar = tqdm(total=source.size_bytes, unit="B", unit_scale=True, disable=None, file=sys.stderr)

    def report(number: int, key: str, code: str, message: str) -> None:
        name = f"{key}: " if key else ""
        tqdm.write(f"{options.file}:{number}: {name}{code}: {message}", file=sys.stderr)

    def advance() -> None:
        bar.set_postfix_str(f"{loader.stored} stored, {loader.failed} failed", refresh=False)
        bar.update(source.position_bytes() - bar.n)

    reader = LineReader(
        options.key_field,
        options.value_field,
        seconds=time.time,
        overridden=frozenset(given_place(options)),
    )
    loader = Loader(
        source.lines(),
        reader,
        Client(options, reactor),
        progress,
        report,
        reactor,
        on_batch=advance,
    )
    interruption = reactor.addSystemEventTrigger("before", "shutdown", loader.save)
    started = reactor.seconds()
    try:
        await loader.run()
    finally:
        # The run has ended: its progress file was written or removed.
        reactor.removeSystemEventTrigger(interruption)
        bar.close()
        source.close()
    seconds = max(reactor.seconds() - started, 1e-6)
    before = f", {loader.skipped} done before" if loader.skipped else ""
    expired = f", {loader.expired} expired" if loader.expired else ""
    print(
        f"{loader.stored} stored, {loader.failed} failed{expired}{before}"
        f" ({seconds:.2f} s, {loader.stored / seconds:.0f} documents a second)"
    )
    return EXIT_SOME_FAILED if loader.failed else 0


def main(argv: list[str] | None = None) -> None:
    """Run the command and exit with its status.

    :param argv: the arguments; ``None`` takes those of the process.
    """
    run_program("couchgateway-load", lambda: parse_load(argv), _load)
