"""A gateway, or a node, in a separate process whose system clock a test can set.

``python -m tests.gateway.clockgateway gateway|node OPTION...``; a number on standard input says by how many
seconds the clock is off from then on, and ``ok`` on standard output that it is.
"""

from __future__ import annotations

import sys
import threading
import time

_real_time = time.time
_off = 0.0


def _told() -> float:
    return _real_time() + _off


def _listen() -> None:
    global _off
    for line in sys.stdin:
        _off = float(line)
        print("ok", flush=True)


def main(what: str, arguments: list[str]) -> None:
    """Run until the process is ended."""
    # Before any import of Twisted, which keeps a reference to the function.
    time.time = _told
    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner, textFileLogObserver

    from couchnode.service import makeService as make_node
    from gateway.service import makeService as make_gateway

    if what == "gateway":
        from gateway.commandline import Options
    else:
        from couchnode.service import Options  # type: ignore[assignment]
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    options = Options()
    options.parseOptions(arguments)
    service = (make_gateway if what == "gateway" else make_node)(options)  # type: ignore[operator]
    service.privilegedStartService()
    service.startService()
    threading.Thread(target=_listen, daemon=True).start()
    reactor.run(installSignalHandlers=True)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
