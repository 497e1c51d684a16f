"""Exports and loads while the gateway or the node is started again, and loads that are killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, inlineCallbacks
from twisted.protocols.portforward import ProxyFactory, ProxyServer

from couchnode.embedded import EmbeddedNode
from gateway.loader.arguments import parse_export
from gateway.loader.client import Client
from gateway.loader.exporter import Exporter
from gateway.loader.output import Output
from gateway.loader.progress import Note
from tests.gateway.loader.test_exportcommand import LOAD, ExportTestCase
from tests.gateway.loader.test_exporter import Program

B = "/v1/buckets/default"
DOCUMENTS = 3000


class RelayedConnection(ProxyServer):
    """One client's connection, which passes no more than the relay's allowance to the gateway."""

    factory: Relay

    def connectionMade(self) -> None:
        """Connect to the gateway."""
        self.factory.clients.add(self)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Pass on what the client sends."""
        self.factory.allowance -= len(data)
        if self.factory.allowance >= 0:
            super().dataReceived(data)
        elif not self.factory.used_up.called:
            self.factory.used_up.callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        """Leave the gateway, too."""
        self.factory.clients.discard(self)
        super().connectionLost(reason)


class Relay(ProxyFactory):
    """A port that stays, in front of a gateway whose port changes.

    :ivar allowance: bytes that clients may still send.
    """

    protocol = RelayedConnection

    def __init__(self, url: str) -> None:
        self.noisy = False
        self.clients: set[RelayedConnection] = set()
        self.allowance = 2**62
        self.used_up: Deferred[None] = Deferred()
        self.lead_to(url)

    def lead_to(self, url: str) -> None:
        """Send the next connections there."""
        self.host, port = url.removeprefix("http://").split(":")
        self.port = int(port)

    def cut(self) -> None:
        """End all connections."""
        for client in list(self.clients):
            assert client.transport is not None
            client.transport.abortConnection()  # type: ignore[attr-defined]


class InterruptionTests(ExportTestCase):
    """A gateway behind a relay, and a node that keeps its data."""

    @inlineCallbacks
    def setUp(self) -> Any:
        self.data = self.mktemp()
        self.node = EmbeddedNode(self.data, users=[("admin", "secret")])
        yield self.node.start()
        self.addCleanup(lambda: self.node.stop())
        password = Path(self.mktemp())
        password.write_text("secret\n")
        self.credentials = ("admin", "secret")
        self.account = ["--user", "admin", "--password-file", str(password)]
        self.options = {"cluster": self.node.connection_string}
        yield super().setUp()
        self.relay = Relay(super().url)
        port = reactor.listenTCP(0, self.relay, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.relayed = f"http://127.0.0.1:{port.getHost().port}"

    @property
    def url(self) -> str:
        """The address that programs use."""
        return getattr(self, "relayed", None) or super().url

    @inlineCallbacks
    def tearDown(self) -> Any:
        self.relay.cut()
        yield super().tearDown()

    @inlineCallbacks
    def restart_gateway(self) -> Any:
        """End all connections and the gateway, and start another one."""
        self.relay.cut()
        yield self.service.stopService()
        self.service = yield self.begin(self.settings())
        self.relay.lead_to(self.service.urls[0])

    @inlineCallbacks
    def restart_node(self) -> Any:
        """Start the node again, with its data, where it was."""
        kv, rest = self.node.connection_string, self.node.rest_urls[0]
        yield self.node.stop()
        ports = [int(address.rpartition(":")[2].partition("/")[0]) for address in (kv, rest)]
        self.node = EmbeddedNode(self.data, users=[("admin", "secret")], kv_port=ports[0], rest_port=ports[1])
        yield self.node.start()

    @inlineCallbacks
    def fill_many(self) -> Any:
        """Store many documents, larger together than what connections hold."""
        filling = "x" * 2000
        for first in range(0, DOCUMENTS, 500):
            numbers = range(first, first + 500)
            yield self.batch(*({"op": "set", "key": f"k{n}", "value": [n, filling]} for n in numbers))

    @inlineCallbacks
    def export_with(self, interrupt: Any) -> Any:
        """Export the default collection; ``interrupt`` begins after its twentieth part."""
        yield self.fill_many()
        file = self.new_file()
        arguments = [str(file), "--bucket", "default", "--url", self.url, *self.account]
        client = Client(parse_export(arguments), reactor)
        self.addCleanup(client.close)
        output, parts, interrupted = Output(file), [], []

        def on_part() -> None:
            parts.append(exporter.state.documents)
            if len(parts) == 20:
                interrupted.append(interrupt())

        note = Note(file.with_name("note"), {})
        # Patient: on a busy machine the start takes its time.
        exporter = Exporter(client, output, note, reactor, on_part=on_part, attempts=60)
        yield ensureDeferred(exporter.write(("_default", "_default")))
        output.close()
        yield interrupted[0]
        lines = [json.loads(line) for line in file.read_bytes().splitlines()]
        found = [(line["id"], line["export"]["json"][0]) for line in lines]
        self.assertEqual(sorted(found), sorted((f"k{n}", n) for n in range(DOCUMENTS)))
        self.assertLess(parts[19], DOCUMENTS)

    def test_the_gateway_starts_again(self) -> Any:
        """An export goes on with the next gateway; each document is written once."""
        return self.export_with(self.restart_gateway)

    def test_the_node_starts_again(self) -> Any:
        """An export goes on with the node's data from its disk; each document is written once."""
        return self.export_with(self.restart_node)

    @inlineCallbacks
    def test_a_load_is_killed(self) -> Any:
        """After ``kill -9`` the same command stores the rest: every document has its last value, and what
        was noted as done is not sent again."""
        file = self.new_file("documents.jsonl")
        lines = []
        # A repeated key ends a batch: there are more than the twenty between two notes.
        for round_ in range(60):
            lines += [{"id": f"k{round_}-{n}", "doc": [round_, n]} for n in range(10)]
            lines += [{"id": "same", "doc": number} for number in (-round_, round_)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.relay.allowance = file.stat().st_size
        arguments = [str(file), "--bucket", "default", "--url", self.url, *self.account]
        program = Program(arguments, LOAD)
        yield self.relay.used_up
        program.transport.signalProcess("KILL")
        self.assertEqual((yield program.ended), -signal.SIGKILL)
        noted = json.loads(Path(f"{file}.progress").read_bytes())["lines_done"]
        self.assertTrue(0 < noted < len(lines), noted)
        self.relay.allowance = 2**62
        words = yield self.tool(LOAD, file)
        self.assertIn(f"{len(lines) - noted} stored, 0 failed, {noted} done before", words)
        self.assertFalse(os.path.exists(f"{file}.progress"))
        listed = yield self.ask("GET", B + "/documents?include_docs=true")
        found = {row["id"]: row["doc"]["json"] for row in listed.json()["rows"]}
        self.assertEqual(found, {line["id"]: line["doc"] for line in lines})
        self.assertEqual(len(listed.json()["rows"]), len(found))

    @inlineCallbacks
    def test_a_load_and_the_gateway_starts_again(self) -> Any:
        """A load goes on with the next gateway; every document is stored."""
        file = self.new_file("documents.jsonl")
        filling = "x" * 2000
        file.write_text("".join(f'{{"id":"k{n}","doc":[{n},"{filling}"]}}\n' for n in range(DOCUMENTS)))
        self.relay.allowance = file.stat().st_size // 2
        ended = self.tool(LOAD, file)
        yield self.relay.used_up
        self.relay.allowance = 2**62
        yield self.restart_gateway()
        words = yield ended
        self.assertIn(f"{DOCUMENTS} stored, 0 failed", words)
        listed = yield self.ask("GET", B + "/documents?include_docs=true")
        found = {row["id"]: row["doc"]["json"][0] for row in listed.json()["rows"]}
        self.assertEqual(found, {f"k{n}": n for n in range(DOCUMENTS)})
