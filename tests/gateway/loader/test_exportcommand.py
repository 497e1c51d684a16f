"""``couchgateway-export`` and ``couchgateway-load`` together, over sockets."""

from __future__ import annotations

import gzip
import json
import os
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.utils import getProcessOutputAndValue

from couchnode.embedded import EmbeddedNode
from tests.gateway.test_behaviour import GatewayTestCase
from tests.tooling.forking import output_of

B = "/v1/buckets/default"
EXPORT = "from gateway.loader.exportcommand import main; main()"
# On Linux ru_maxrss begins with the memory of the process that has started this one; VmHWM does not.
EXPORT_AND_TELL = """
import os, resource
from gateway.loader.exportcommand import main
try:
    main()
finally:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if os.path.exists("/proc/self/status"):
        peak = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]
    print("peak", peak)
"""
LOAD = "from gateway.loader.command import main; main()"
LATER = 4_000_000_000
"""An expiry that is far away."""


class ExportTestCase(GatewayTestCase):
    """Runs the programs as processes of their own."""

    account: list[str] = []
    """Options for the gateway."""

    @inlineCallbacks
    def tool(
        self, code: str, file: Path, *more: str, status: int = 0, bucket: str = "default", anew: bool = False
    ) -> Any:
        """Run a program, as a new interpreter or as a fork; returns its output."""
        arguments = ["-c", code, str(file), "--bucket", bucket, "--url", self.url, *self.account, *more]
        if anew:
            output, errors, ended = yield getProcessOutputAndValue(sys.executable, arguments, os.environ)
        else:
            output, errors, ended = yield output_of(*arguments)
        self.assertEqual(ended, status, output + errors)
        return (output + errors).decode()

    def new_file(self, name: str = "export.jsonl") -> Path:
        """Return the path of a file that does not exist, in a folder of its own."""
        folder = Path(self.mktemp())
        folder.mkdir()
        return folder / name

    @inlineCallbacks
    def batch(self, *lines: dict[str, Any]) -> Any:
        """Run operations, all of which must succeed."""
        body = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"
        answer = yield self.ask("POST", B + "/batch", body, Accept="application/x-ndjson")
        for line in answer.body.splitlines():
            self.assertEqual(json.loads(line).get("status"), 200, line)

    @inlineCallbacks
    def flush(self) -> Any:
        """Remove all documents."""
        for _ in range(3):
            listed = yield self.ask("GET", B + "/scopes")
            for scope in listed.json()["scopes"]:
                for collection in scope["collections"]:
                    path = f"{B}/scopes/{scope['name']}/collections/{collection['name']}"
                    keys = yield self.ask("GET", path + "/documents", Accept="application/x-ndjson")
                    lines = [json.loads(row) for row in keys.body.splitlines()]
                    body = b"\n".join(
                        json.dumps(
                            {"op": "delete", **{name.replace("id", "key"): key for name, key in line.items()}}
                        ).encode()
                        for line in lines
                    )
                    if lines:
                        yield self.ask("POST", path + "/batch", body)

    @inlineCallbacks
    def fill(self) -> Any:
        """Store one document of each kind, in two collections."""
        yield self.ask("PUT", B + "/scopes/shop")
        yield self.ask("PUT", B + "/scopes/shop/collections/stock")
        attributes = [
            {"operation": "DictSet", "path": name, "xattr": True, "values": [value]}
            for name, value in (("app", {"n": 1.0}), ("_sync", [1, "two"]), ("none", None))
        ]
        place = {"scope": "shop", "collection": "stock"}
        yield self.batch(
            {"op": "set", "key": "json", "value": {"n": 1}},
            {"op": "set", "key": "flags", "value": 7, "flags": 4294967295, "ttl": LATER},
            {"op": "set", "key": 'odd "é"\\', "value": "text"},
            {"op": "set", "key_base64": b64encode(b"\xff\x00\n").decode(), "value": True},
            {"op": "set", "key": "text", "text": "line\nline"},
            {"op": "set", "key": "bytes", "base64": b64encode(bytes(range(256))).decode()},
            {"op": "set", "key": "empty", "base64": ""},
            {
                "op": "set",
                "key": "spread",
                "base64": b64encode(b' {"a":\r\n1}\n').decode(),
                "flags": 33554432,
            },
            {"op": "set", "key": "_txn:atr-1", "value": {}},
            {"op": "set", "key": "with", "value": [], "ttl": LATER},
            {"op": "mutate_in", "key": "with", "operations": attributes, "preserveExpiry": True},
            {"op": "set", "key": "json", "value": {"n": 2}, **place},
            {"op": "set", "key": "_txn:atr-1", "value": {}, **place},
            {"op": "mutate_in", "key": "json", "operations": attributes[:1], **place},
        )

    @inlineCallbacks
    def round_trip(self) -> Any:
        """Export, load into the empty bucket, and export again."""
        yield self.fill()
        first, second = self.new_file(), self.new_file("second.jsonl.gz")
        words = yield self.tool(EXPORT, first)
        self.assertIn("10 documents of 2 collections written, 2 records of transactions left out", words)
        lines = {line["id"] + line.get("scope", ""): line for line in read(first) if "id" in line}
        self.assertEqual(len(read(first)), 10)
        self.assertEqual(
            lines["json"], {"id": "json", "export": {"meta": {"flags": 33554432}, "json": {"n": 1}}}
        )
        meta = {
            "flags": 33554432,
            "expiry": LATER,
            "xattrs": {"app": {"n": 1.0}, "_sync": [1, "two"], "none": None},
        }
        self.assertEqual(lines["with"]["export"]["meta"], meta)
        self.assertEqual(lines["jsonshop"]["collection"], "stock")
        self.assertFalse(first.with_name(first.name + ".progress").exists())
        yield self.flush()
        words = yield self.tool(LOAD, first)
        self.assertIn("10 stored, 0 failed (", words)
        yield self.tool(EXPORT, second)
        self.assertEqual(gzip.decompress(second.read_bytes()), first.read_bytes())


class ExportTests(ExportTestCase):
    """What is written, and read back."""

    @inlineCallbacks
    def test_round_trip(self) -> Any:
        """What a load of an export stores, another export writes the same; nothing of transactions."""
        yield self.round_trip()

    @inlineCallbacks
    def test_places(self) -> Any:
        """A scope or a collection alone is written; a load can put everything elsewhere."""
        yield self.fill()
        for options, count in (
            (["--scope", "shop"], 1),
            (["--scope", "_default"], 9),
            (["--collection", "_default"], 9),
            (["--scope", "shop", "--collection", "stock"], 1),
        ):
            file = self.new_file()
            yield self.tool(EXPORT, file, *options)
            self.assertEqual(len(read(file)), count, options)
        yield self.tool(LOAD, file, "--scope", "_default", "--collection", "_default")
        found = yield self.ask("GET", B + "/documents/json")
        self.assertEqual(found.json(), {"n": 2})
        words = yield self.tool(EXPORT, self.new_file(), "--scope", "nowhere", status=2)
        self.assertIn("no scope 'nowhere'", words)
        words = yield self.tool(EXPORT, self.new_file(), "--collection", "nowhere", status=2)
        self.assertIn("CollectionNotFound", words)

    @inlineCallbacks
    def test_expired(self) -> Any:
        """Lines whose expiry is over are counted, and not stored."""
        file = self.new_file()
        file.write_text('{"id":"a","export":{"meta":{"flags":0,"expiry":1000000000},"json":1}}\n')
        words = yield self.tool(LOAD, file)
        self.assertIn("0 stored, 0 failed, 1 expired (", words)
        found = yield self.ask("GET", B + "/documents/a")
        self.assertEqual(found.status, 404)

    @inlineCallbacks
    def test_designs(self) -> Any:
        """Design documents are written on demand, and made of the lines; a bad one is reported."""
        design = {"views": {"all": {"map": "function (doc, meta) { emit(meta.id, 'é'); }"}}}
        yield self.ask("PUT", B + "/designs/d", json.dumps(design).encode())
        yield self.batch({"op": "set", "key": "_design/document", "value": 1})
        file = self.new_file()
        yield self.tool(EXPORT, file)
        self.assertEqual([line["id"] for line in read(file)], ["_design/document"])
        yield self.tool(EXPORT, file, "--restart", "--designs")
        self.assertEqual(read(file)[0], {"id": "_design/d", "doc": design})
        self.assertEqual(len(read(file)), 2)
        yield self.ask("DELETE", B + "/designs/d")
        with open(file, "a", encoding="utf-8") as more:
            more.write('{"id":"_design/bad","doc":[1]}\n')
        words = yield self.tool(LOAD, file, status=1)
        self.assertIn(":3: _design/bad: InvalidArgument: ", words)
        self.assertIn("2 stored, 1 failed", words)
        found = yield self.ask("GET", B + "/designs/d")
        self.assertEqual(found.json(), design)

    @inlineCallbacks
    def test_existing_files(self) -> Any:
        """A file is replaced only on demand."""
        yield self.fill()
        file = self.new_file()
        yield self.tool(EXPORT, file)
        before = file.read_bytes()
        file.write_bytes(b"precious")
        words = yield self.tool(EXPORT, file, status=2)
        self.assertIn("exists; --restart replaces it", words)
        self.assertEqual(file.read_bytes(), b"precious")
        yield self.tool(EXPORT, file, "--restart")
        self.assertEqual(file.read_bytes(), before)

    @inlineCallbacks
    def test_memory(self) -> Any:
        """What an export keeps in memory does not grow with what it writes."""
        peaks = []
        for count in (1, 40):
            text = "x" * 1_000_000
            for number in range(count):
                yield self.batch({"op": "set", "key": f"k{number}", "value": text})
            file = self.new_file()
            # Free memory of what it is forked from would hide some of what it takes.
            words = yield self.tool(EXPORT_AND_TELL, file, anew=True)
            self.assertGreater(file.stat().st_size, count * len(text))
            peaks.append(int(words.partition("peak ")[2].split()[0]) * 1024)
        self.assertLess(peaks[1] - peaks[0], 15 * len(text))


class ThreeNodesTests(ExportTestCase):
    """A cluster of three nodes."""

    @inlineCallbacks
    def setUp(self) -> Any:
        self.node = EmbeddedNode(None, nodes=3, replicas=1, users=[("admin", "secret")])
        yield self.node.start()
        password = Path(self.mktemp())
        password.write_text("secret\n")
        self.credentials = ("admin", "secret")
        self.account = ["--user", "admin", "--password-file", str(password)]
        self.options = {"cluster": self.node.connection_string}
        yield super().setUp()

    @inlineCallbacks
    def tearDown(self) -> Any:
        yield super().tearDown()
        yield self.node.stop()

    @inlineCallbacks
    def test_round_trip(self) -> Any:
        """What a load of an export stores, another export writes the same."""
        yield self.round_trip()


def read(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a plain file."""
    return [json.loads(line) for line in file.read_bytes().splitlines()]
