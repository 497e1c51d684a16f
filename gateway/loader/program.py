"""Common parts of the programs that load and export documents: running, and the exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from twisted.internet.defer import ensureDeferred

from gateway.loader.errors import LoadError
from reactor.console import console
from reactor.kinds import IReactor

__all__ = ["EXIT_SOME_FAILED", "run_program"]

EXIT_SOME_FAILED = 1
EXIT_STOPPED = 2
EXIT_INTERRUPTED = 130


def run_program(
    name: str,
    parse: Callable[[], argparse.Namespace],
    work: Callable[[argparse.Namespace, IReactor], Awaitable[int]],
) -> NoReturn:
    """Run a program, and exit with its status.

    :param name: name of the program, for messages.
    :param parse: reads the command line.
    :param work: takes the parsed options; fires with the exit status.
    """
    with console():
        _run(name, parse(), work)


def _run(
    name: str, options: argparse.Namespace, work: Callable[[argparse.Namespace, IReactor], Awaitable[int]]
) -> NoReturn:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    outcome = EXIT_INTERRUPTED

    async def run() -> None:
        nonlocal outcome
        try:
            outcome = await work(options, reactor)
        except LoadError as error:
            print(f"{name}: {error}", file=sys.stderr)
            outcome = EXIT_STOPPED
        finally:
            if reactor.running:
                reactor.stop()

    reactor.callWhenRunning(lambda: ensureDeferred(run()))
    reactor.run()
    if outcome == EXIT_INTERRUPTED:
        print(f"{name}: interrupted; the same command resumes", file=sys.stderr)
    sys.exit(outcome)
