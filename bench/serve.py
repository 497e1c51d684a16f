"""The servers that are measured, each in a process of its own.

    python -m bench.serve node
    python -m bench.serve gateway [CONNECTION_STRING]
    python -m bench.serve klein
    python -m bench.serve resource

Prints ``{"address": ...}`` once it serves. Then it answers lines on its standard input: ``cpu`` and
``resident``. It ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from typing import Any

from klein import Klein
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver
from twisted.web.resource import Resource
from twisted.web.server import Site

USER, PASSWORD = "bench", "bench-password"
BODY = b'{"text":"' + b"x" * (1024 - 11) + b'"}'

reactor: Any = installed


def node() -> Deferred[tuple[str, Any]]:
    """Start an embedded node with a bucket ``default``, in memory; fires with (address, stop)."""
    from couchnode.service import EmbeddedNode

    embedded = EmbeddedNode(None, users=[(USER, PASSWORD)], buckets=[("default", None)])
    return embedded.start().addCallback(lambda _: (embedded.connection_string, embedded.stop))


def gateway(cluster: str | None = None) -> Deferred[tuple[str, Any]]:
    """Start a gateway, on its embedded node unless a cluster is given."""
    from gateway.options import resolve
    from gateway.service import GatewayService

    given: dict[str, Any] = {"listen": ["tcp:0:interface=127.0.0.1"], "auth": "none"}
    with tempfile.NamedTemporaryFile("w", suffix=".password") as file:
        if cluster is None:
            given["ephemeral"] = True
        else:
            file.write(PASSWORD + "\n")
            file.flush()
            given.update({"cluster": cluster, "user": USER, "password-file": file.name})
        settings = resolve(given, {})
    service = GatewayService(settings)
    service.privilegedStartService()
    service.startService()
    return service.started.addCallback(lambda _: (service.urls[0], service.stopService))


def klein() -> tuple[str, Any]:
    """Start a bare Klein application that does the least for the same requests."""
    app = Klein()

    @app.route("/v1/buckets/<bucket>/documents/<key>", methods=["GET"])
    def get(request: Any, bucket: str, key: str) -> bytes:
        request.setHeader(b"Content-Type", b"application/json")
        return BODY

    @app.route("/v1/buckets/<bucket>/documents/<key>", methods=["PUT"])
    def put(request: Any, bucket: str, key: str) -> bytes:
        request.content.read()
        return b""

    return serve(app.resource())


class Plain(Resource):
    """The least that twisted.web can do for the same requests."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """Return 1 KiB."""
        request.setHeader(b"Content-Type", b"application/json")
        return BODY

    def render_PUT(self, request: Any) -> bytes:
        """Read the body."""
        request.content.read()
        return b""


def serve(root: Any) -> tuple[str, Any]:
    """Listen for a resource; returns (address, stop)."""
    site = Site(root)
    site.displayTracebacks = False
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    return f"http://127.0.0.1:{port.getHost().port}", port.stopListening


class Control(LineOnlyReceiver):
    """Answers on standard output, and ends with standard input."""

    delimiter = b"\n"

    def __init__(self) -> None:
        self.stop: Any = lambda: None

    def tell(self, **facts: Any) -> None:
        """Print one line."""
        self.sendLine(json.dumps(facts).encode())

    def lineReceived(self, line: bytes) -> None:
        """Answer a question."""
        if line == b"cpu":
            used = resource.getrusage(resource.RUSAGE_SELF)
            self.tell(cpu=used.ru_utime + used.ru_stime)
        elif line == b"resident":
            self.tell(resident=resident_bytes())

    @inlineCallbacks
    def connectionLost(self, reason: Any) -> Any:  # type: ignore[override]
        """Stop the server, then the process."""
        yield self.stop()
        if reactor.running:
            reactor.stop()


def resident_bytes() -> int:
    """Return the resident size of this process now (its largest so far, where /proc is missing)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@inlineCallbacks
def start(role: str, *arguments: str) -> Any:
    """Start a role, and be asked about it."""
    control = Control()
    try:
        started = {"node": node, "gateway": gateway, "klein": klein, "resource": lambda: serve(Plain())}[role]
        outcome: Any = started(*arguments)
        address, control.stop = (yield outcome) if isinstance(outcome, Deferred) else outcome
    except Exception:
        reactor.stop()
        raise
    StandardIO(control)
    control.tell(address=address)


def main() -> None:
    """Run until standard input ends."""
    reactor.callWhenRunning(
        lambda: start(*sys.argv[1:]).addErrback(lambda failure: failure.printTraceback(sys.stderr))
    )
    reactor.run()


if __name__ == "__main__":
    main()
