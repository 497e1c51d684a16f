"""A worker's process: ``python -m gateway.workers.process REACTOR NAME``, started by the supervisor.

REACTOR is the module of the reactor to use; NAME identifies the worker in process lists. The process inherits
the channel as descriptors 3 (to read) and 4 (to write), the memory of ``balance`` as 5, and the sockets and
the copies of files as higher ones. Its standard output and standard error go to the supervisor's log.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from reactor.children import leave_signals_to_parent

__all__ = ["COUNTS", "CHANNEL_IN", "CHANNEL_OUT", "FIRST_SOCKET", "main"]

CHANNEL_IN, CHANNEL_OUT, COUNTS, FIRST_SOCKET = 3, 4, 5, 6

_LINGER_SECONDS = 5.0
"""How long a worker may outlive its supervisor and the grace time, in seconds."""


def main(reactor_module: str) -> int:
    """Run until the supervisor sends ``stop``, or is gone; return the exit status."""
    leave_signals_to_parent()
    import_module(reactor_module).install()
    from twisted.internet import reactor as installed
    from twisted.internet.stdio import StandardIO
    from twisted.logger import globalLogBeginner

    from gateway.workers.worker import Worker
    from reactor.clock import use_monotonic_clock
    from reactor.shutdown import stop_once

    reactor: Any = installed
    use_monotonic_clock(reactor)
    stop_once(reactor)
    worker = Worker(reactor, reactor.stop)
    pipes: Any = StandardIO
    pipes(worker, CHANNEL_IN, CHANNEL_OUT, reactor)
    observers: list[Any] = [worker.observe]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False, discardBuffer=True)
    reactor.addSystemEventTrigger("before", "shutdown", worker.stop)
    threading.Thread(target=_end_with_supervisor, args=(worker.grace_seconds,), daemon=True).start()
    reactor.run()
    return int(worker.failed)


def _end_with_supervisor(grace_seconds: Callable[[], float]) -> None:
    """End the process after the supervisor has ended, even if the reactor is stuck; runs in a thread."""
    watched = select.poll()
    watched.register(CHANNEL_IN, 0)
    watched.poll()  # until the other end is closed
    time.sleep(grace_seconds() + _LINGER_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
