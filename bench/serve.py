"""The measured servers, each in a separate process.

    python -m bench.serve node [MEBIBYTES]
    python -m bench.serve stub [PEM]
    python -m bench.serve gateway [CONNECTION_STRING] [--OPTION=VALUE ...]
    python -m bench.serve twisted-tls [CONNECTION_STRING] [--OPTION=VALUE ...]
    python -m bench.serve klein
    python -m bench.serve resource [unlogged]
    python -m bench.serve views
    python -m bench.serve rows ROWS

Options are those of ``twistd couchgateway``. Prints ``{"address": ...}`` once it serves. Then it answers
lines on its standard input: ``cpu`` and ``resident``; ``sample`` begins to note which functions it runs
(bench.sampler), and ``stacks`` ends that and prints them; ``count`` begins to count bytecode instructions
(bench.instructions), and ``instructions`` ends that and prints the number. It ends when its standard input
does.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from reactor.direct import install

if __name__ == "__main__" and sys.argv[1:2] == ["node"]:
    # As the command couchnode does; the imports below would choose Twisted's default reactor.
    install()

from klein import Klein
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from bench.instructions import InstructionCounter
from bench.sampler import Sampler

USER, PASSWORD = "bench", "bench-password"
BODY = b'{"text":"' + b"x" * (1024 - 11) + b'"}'
CHUNK_BYTES = 65536

reactor: Any = installed


def node(mebibytes: str = "256") -> Deferred[tuple[str, Any]]:
    """Start an embedded node in memory, with a bucket ``default`` of that size and a collection ``bench`` in
    it; fires with (address, stop)."""
    from couchnode.service import EmbeddedNode

    quota = int(mebibytes) * 2**20
    embedded = EmbeddedNode(None, users=[(USER, PASSWORD)], buckets=[("default", None)], quota_bytes=quota)

    def created(_: None) -> Deferred[Any]:
        return embedded.cluster.change_manifest(
            "default", lambda manifest: manifest.with_collection("_default", "bench")
        )

    started = embedded.start().addCallback(created)
    return started.addCallback(lambda _: (embedded.connection_string, embedded.stop))


def stub(pem: str = "") -> tuple[str, Any]:
    """Listen with the key-value server of prepared answers; returns (address, stop).

    :param pem: file of a certificate and its key, to speak TLS with.
    """
    from bench.stub import Stub
    from reactor.tls.contexts import server_context
    from reactor.tls.factory import ServerSide, TlsFactory

    factory: Any = Factory.forProtocol(Stub)
    if pem:
        context = server_context(pem, pem)
        factory = TlsFactory(ServerSide(lambda protocols: context), factory, reactor)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    address = f"127.0.0.1:{port.getHost().port}"
    secure = f"couchbases://{address}?certpath={pem}"
    return secure if pem else f"couchbase://{address}", port.stopListening


def views() -> Deferred[tuple[str, Any]]:
    """Start an embedded node with the buckets of bench.views; the address is that of its REST interface."""
    from couchnode.service import EmbeddedNode

    buckets = [(name, None) for name in ("default", "beers", "single")]
    embedded = EmbeddedNode(None, users=[(USER, PASSWORD)], buckets=buckets)
    return embedded.start().addCallback(lambda _: (embedded.rest_urls[0], embedded.stop))


@inlineCallbacks
def rows(count: str) -> Any:
    """Start a node whose configuration sends every view query to a server of prepared bytes."""
    from bench.viewdata import answer
    from couchnode.service import EmbeddedNode

    embedded = EmbeddedNode(None, users=[(USER, PASSWORD)], buckets=[("default", None)])
    yield embedded.start()
    factory = Factory.forProtocol(PreparedAnswer)
    factory.parts = list(in_chunks(answer(int(count))))  # type: ignore[attr-defined]
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    node = embedded.cluster.nodes[0]
    node.address = node.address._replace(views_port=port.getHost().port)
    return embedded.connection_string, embedded.stop


def gateway(*arguments: str) -> Deferred[tuple[str, Any]]:
    """Start a gateway with all that a user gets, on its embedded node unless a cluster is given."""
    from gateway.service import Options, makeService

    clusters = [argument for argument in arguments if not argument.startswith("--")]
    given = [argument for argument in arguments if argument.startswith("--")]
    options = Options()
    with tempfile.NamedTemporaryFile("w", suffix=".password") as file:
        file.write(PASSWORD + "\n")
        file.flush()
        where = ["--ephemeral"]
        if clusters:
            where = [f"--cluster={clusters[0]}", f"--user={USER}", f"--password-file={file.name}"]
        options.parseOptions(["--listen=tcp:0:interface=127.0.0.1", "--auth=none", *where, *given])
    service: Any = makeService(options)
    service.privilegedStartService()
    service.startService()
    return service.started.addCallback(lambda _: (service.urls[-1], service.stopService))


def twisted_tls(*arguments: str) -> Deferred[tuple[str, Any]]:
    """Start a gateway whose ``ssl:`` endpoints are Twisted's."""
    import gateway.listeners

    gateway.listeners.tls_endpoint = lambda *_, **__: None
    return globals()["gateway"](*arguments)


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


def plain(logged: str = "") -> tuple[str, Any]:
    """Start twisted.web's plain resource; with ``unlogged`` without its usual access log."""
    return serve(Plain(), is_logged=logged != "unlogged")


def serve(root: Any, *, is_logged: bool = True) -> tuple[str, Any]:
    """Listen for a resource; returns (address, stop)."""
    site = Site(root)
    site.displayTracebacks = False
    if not is_logged:
        site.log = lambda request: None  # type: ignore[method-assign]
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    return f"http://127.0.0.1:{port.getHost().port}", port.stopListening


def in_chunks(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the head and the body of an HTTP answer in pieces as long as a node may write them."""
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    held = bytearray()
    for text in texts:
        held += text
        if len(held) >= CHUNK_BYTES:
            yield b"%x\r\n%b\r\n" % (len(held), bytes(held))
            held.clear()
    yield b"%x\r\n%b\r\n0\r\n\r\n" % (len(held), bytes(held))


@implementer(IPullProducer)
class PreparedAnswer(Protocol):
    """Answers each GET with the parts that its factory holds."""

    def __init__(self) -> None:
        self.factory: Any = None
        self.received = b""
        self.left: Iterator[bytes] = iter(())

    def dataReceived(self, data: bytes) -> None:
        """Begin to answer once a request is complete."""
        self.received += data
        if self.received.endswith(b"\r\n\r\n"):
            self.received = b""
            self.left = iter(self.factory.parts)
            self.transport.registerProducer(self, False)  # type: ignore[union-attr]

    def resumeProducing(self) -> None:
        """Continue to write."""
        part = next(self.left, None)
        if part is None:
            self.transport.unregisterProducer()  # type: ignore[union-attr]
        else:
            self.transport.write(part)  # type: ignore[union-attr]

    def stopProducing(self) -> None:
        """The client is gone."""
        self.left = iter(())


class Control(LineOnlyReceiver):
    """Answers on standard output, and ends with standard input."""

    delimiter = b"\n"

    def __init__(self) -> None:
        self.stop: Any = lambda: None
        self.sampler = Sampler()
        self.counter = InstructionCounter()

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
        elif line == b"sample":
            self.sampler.start()
            self.tell(sample=True)
        elif line == b"stacks":
            self.tell(stacks=self.sampler.stop())
        elif line == b"count":
            self.tell(count=True)
            self.counter.start()
        elif line == b"instructions":
            self.tell(instructions=self.counter.stop())

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
    """Start a role, and answer questions about it."""
    control = Control()
    try:
        started: Any = {
            "node": node,
            "stub": stub,
            "gateway": gateway,
            "twisted-tls": twisted_tls,
            "klein": klein,
            "resource": plain,
            "views": views,
            "rows": rows,
        }[role]
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
