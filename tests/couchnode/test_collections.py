"""Scopes and collections of whole nodes: over sockets, on several nodes, and after the process was killed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from base64 import b64encode
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from struct import unpack
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.threads import deferToThread

from couchbase.protocol.constants import Feature, Opcode, ServerOpcode, Status
from couchbase.protocol.frames import encode_frame_infos
from couchbase.protocol.hashing import vbucket_of
from couchbase.protocol.leb128 import encode_leb128
from tests.couchnode.nodes import Client
from tests.couchnode.rest.test_api import ADMIN, BUCKETS, RestCase, Steps
from tests.couchnode.test_service import ProcessCase

SCOPES = f"{BUCKETS}/default/scopes"
TO_MAJORITY, TO_DISK = (encode_frame_infos([(1, level)]) for level in (b"\1", b"\3"))


class ClusterTests(RestCase):
    """Three nodes with a replica each."""

    nodes = 3
    replicas = 1

    @inlineCallbacks
    def setUp(self) -> Steps:
        yield super().setUp()
        self.clients: list[Client] = []
        for node in self.cluster.nodes:
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", node.address.kv_port)
            client = yield connectProtocol(endpoint, Client())
            self.clients.append(client)
            yield client.hello(Feature.COLLECTIONS, Feature.XERROR, Feature.JSON, Feature.DUPLEX,
                               Feature.CLUSTERMAP_CHANGE_NOTIFICATION)  # fmt: skip
            yield client.plain(*ADMIN)
            yield client.ask(Opcode.SELECT_BUCKET, key=b"default")

    @inlineCallbacks
    def tearDown(self) -> Steps:
        for client in self.clients:
            client.transport.abortConnection()  # type: ignore[union-attr]
            if not client.is_lost:
                yield client.lost
        yield super().tearDown()

    @inlineCallbacks
    def change(self, path: str, method: str = "POST", node: int = 0, **form: str) -> Steps:
        """Change scopes or collections; return the uid of the manifest."""
        answer = yield self.ask(f"{SCOPES}{path}", method, form=form, node=node)
        self.assertEqual(answer.status, 200, answer.body)
        return int(answer.json["uid"], 16)

    @inlineCallbacks
    def request(self, node: int, opcode: int, **parts: Any) -> Steps:
        """Return the answer to a request; pushed maps that come first are left out."""
        opaque = self.clients[node].send(opcode, **parts)
        while True:
            answer = yield self.clients[node].next_answer()
            if answer.opcode == opcode and answer.opaque == opaque:
                return answer

    def place(self, key: bytes) -> tuple[int, int, int]:
        """Return the vbucket of a document's key, and the nodes that have it active and as a replica."""
        vbucket = vbucket_of(key, 1024)
        active, replica = self.cluster.bucket("default").rows[vbucket]
        return vbucket, active, replica

    @inlineCallbacks
    def test_all_nodes_agree(self) -> Steps:
        """When a change is answered every node has it; writes and their copies follow it."""
        yield self.change("", name="s", node=1)
        uid = yield self.change("/s/collections", name="c", node=2)
        for node in range(3):
            found = yield self.request(node, Opcode.GET_COLLECTION_ID, value=b"s.c")
            self.assertEqual(unpack(">QI", found.extras), (uid, 8))
        for number in range(30):
            key = b"k%d" % number
            vbucket, active, replica = self.place(key)
            stored = yield self.request(
                active, Opcode.SET, key=b"\x08" + key, value=b"v", extras=bytes(8), vbucket=vbucket,
                framing=TO_MAJORITY,
            )  # fmt: skip
            self.assertEqual(stored.specific, Status.SUCCESS)
            copy = yield self.request(replica, Opcode.GET_REPLICA, key=b"\x08" + key, vbucket=vbucket)
            self.assertEqual((copy.specific, copy.value), (Status.SUCCESS, b"v"))
            other = yield self.request(active, Opcode.GET, key=b"\0" + key, vbucket=vbucket)
            self.assertEqual(other.specific, Status.KEY_ENOENT)
        uid = yield self.change("/s/collections/c", "DELETE", node=1)
        for number in range(30):
            key = b"k%d" % number
            vbucket, active, replica = self.place(key)
            for node, opcode in ((active, Opcode.GET), (replica, Opcode.GET_REPLICA)):
                gone = yield self.request(node, opcode, key=b"\x08" + key, vbucket=vbucket)
                self.assertEqual(gone.specific, Status.UNKNOWN_COLLECTION)
                self.assertEqual(json.loads(gone.value)["manifest_uid"], f"{uid:x}")
        yield self.change("/s/collections", name="c")
        for number in range(30):
            key = b"k%d" % number
            vbucket, active, _ = self.place(key)
            found = yield self.request(active, Opcode.GET, key=b"\x09" + key, vbucket=vbucket)
            self.assertEqual(found.specific, Status.KEY_ENOENT)

    @inlineCallbacks
    def test_a_change_is_pushed(self) -> Steps:
        """A change is a new configuration, which names the manifest, for each client that asked for them."""
        before = (yield self.ask("/pools/default/b/default")).json["rev"]
        uid = yield self.change("", name="s")
        for client in self.clients:
            while True:
                pushed = yield client.next_answer()
                if pushed.opcode == ServerOpcode.CLUSTERMAP_CHANGE and pushed.key == b"default":
                    config = json.loads(pushed.value)
                    if config["rev"] > before:
                        break
            self.assertEqual((config["name"], config["collectionsManifestUid"]), ("default", f"{uid:x}"))

    @inlineCallbacks
    def test_a_map_that_changes(self) -> Steps:
        """Replicas that become active have the documents of every collection."""
        yield self.change("/_default/collections", name="c")
        keys = [b"k%d" % number for number in range(40)]
        for key in keys:
            vbucket, active, _ = self.place(key)
            parts = {"key": b"\x08" + key, "value": key, "extras": bytes(8), "vbucket": vbucket}
            yield self.request(active, Opcode.SET, **parts)
        rows = self.cluster.bucket("default").rows
        yield self.cluster.apply_map("default", [(replica, active) for active, replica in rows])
        for key in keys:
            vbucket, active, _ = self.place(key)
            found = yield self.request(active, Opcode.GET, key=b"\x08" + key, vbucket=vbucket)
            self.assertEqual((found.specific, found.value), (Status.SUCCESS, key))

    @inlineCallbacks
    def test_flush(self) -> Steps:
        """A flush empties every collection on every node, and keeps them."""
        uid = yield self.change("/_default/collections", name="c")
        vbucket, active, replica = self.place(b"k")
        parts = {"key": b"\x08k", "vbucket": vbucket}
        yield self.request(active, Opcode.SET, extras=bytes(8), framing=TO_MAJORITY, **parts)
        answer = yield self.ask(f"{BUCKETS}/default/controller/doFlush", "POST")
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual((yield self.request(active, Opcode.GET, **parts)).specific, Status.KEY_ENOENT)
        self.assertEqual((yield self.ask(SCOPES)).json["uid"], f"{uid:x}")
        again = yield self.request(active, Opcode.SET, extras=bytes(8), **parts)
        self.assertEqual(again.specific, Status.SUCCESS)


class KilledTests(ProcessCase):
    """The process is killed, without a shutdown, and started again on its data."""

    @inlineCallbacks
    def start(self) -> Steps:
        """Start two nodes on the data; return where their REST interface is, and a client of each."""
        self.node = self.run_twistd(*self.options)
        match = yield self.node.said(
            r"couchbase://127\.0\.0\.1:(\d+),127\.0\.0\.1:(\d+), REST on (http://[\d.:]+)"
        )
        self.rest = match[3]
        self.clients = []
        for port in (match[1], match[2]):
            client = yield self.connect(int(port))
            yield client.hello(Feature.COLLECTIONS, Feature.XERROR, Feature.JSON)
            yield client.plain(*ADMIN)
            yield client.ask(Opcode.SELECT_BUCKET, key=b"default")
            self.clients.append(client)
        bucket = yield deferToThread(self.rest_call, "/pools/default/b/default")
        self.rows = bucket["vBucketServerMap"]["vBucketMap"]

    def setUp(self) -> None:
        """Choose a folder."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        password = folder / "password"
        password.write_text(ADMIN[1])
        password.chmod(0o600)
        self.data = folder / "data"
        self.options = (
            "--rest-port", "0", "--kv-port", "0", "--nodes", "2", "--replicas", "1", "--data", str(self.data),
            "--user", ADMIN[0], "--password-file", str(password), "--bucket", "default",
        )  # fmt: skip

    def rest_call(self, path: str, method: str = "GET", **form: str) -> Any:
        """Call the REST interface (in a thread); return the answer's JSON."""
        credentials = b64encode(":".join(ADMIN).encode()).decode()
        request = Request(
            self.rest + path,
            method=method,
            data=urlencode(form).encode() if form else None,
            headers={"Authorization": f"Basic {credentials}"},
        )
        try:
            return json.loads(urlopen(request, timeout=60).read())
        except HTTPError as fault:
            raise AssertionError(f"{method} {path}: {fault.code} {fault.read()!r}") from fault

    @inlineCallbacks
    def kill(self) -> Steps:
        """Kill the process."""
        self.node.transport.signalProcess("KILL")
        yield self.node.ended
        for client in self.clients:
            if not client.is_lost:
                yield client.lost

    @inlineCallbacks
    def ask_all(self, opcode: int, prefix: bytes, keys: Iterable[bytes], **parts: Any) -> Steps:
        """Send a request for each key to its node; return the answers, those of one node together."""
        waiting = [0, 0]
        for key in keys:
            vbucket = vbucket_of(key, 1024)
            node = self.rows[vbucket][0]
            self.clients[node].send(opcode, key=prefix + key, vbucket=vbucket, **parts)
            waiting[node] += 1
        answers = []
        for node, count in enumerate(waiting):
            for _ in range(count):
                answers.append((yield self.clients[node].next_answer()))
        return answers

    @inlineCallbacks
    def test_a_kill_during_a_drop(self) -> Steps:
        """A drop that was answered holds: the collection is gone, one of the same name is empty and stays so,
        the documents of the others are all there, and nothing of the dropped one stays on the disk."""
        yield self.start()
        for name in ("gone", "kept"):
            yield deferToThread(self.rest_call, f"{SCOPES}/_default/collections", "POST", name=name)
        keys = [b"key-%d" % number for number in range(2000)]
        for prefix in (b"\0", b"\x08", b"\x09"):
            stored = yield self.ask_all(
                Opcode.SET, prefix, keys, value=b"x" * 100, extras=bytes(8), framing=TO_DISK
            )
            self.assertEqual({answer.specific for answer in stored}, {Status.SUCCESS})
        answer = yield deferToThread(self.rest_call, f"{SCOPES}/_default/collections/gone", "DELETE")
        yield self.kill()
        self.assertEqual(len(self.keys_on_disk(b"\x09")), 2 * 2000)
        yield self.start()
        manifest = yield deferToThread(self.rest_call, SCOPES)
        self.assertEqual(manifest["uid"], answer["uid"])
        names = [one["name"] for one in manifest["scopes"][0]["collections"]]
        self.assertEqual(names, ["kept", "_default"])
        yield deferToThread(self.rest_call, f"{SCOPES}/_default/collections", "POST", name="gone")
        found = yield self.clients[0].ask(Opcode.GET_COLLECTION_ID, value=b"_default.gone")
        number = unpack(">QI", found.extras)[1]
        self.assertEqual(number, 10)
        for prefix, status in (
            (b"\x08", Status.UNKNOWN_COLLECTION),
            (encode_leb128(number), Status.KEY_ENOENT),
            (b"\0", Status.SUCCESS),
            (b"\x09", Status.SUCCESS),
        ):
            answers = yield self.ask_all(Opcode.GET, prefix, keys)
            self.assertEqual({answer.specific for answer in answers}, {status}, prefix)
        self.node.transport.signalProcess("TERM")
        yield self.node.ended
        self.assertEqual(len(self.keys_on_disk(b"\x09")), 2 * 2000)
        yield self.start()
        answers = yield self.ask_all(Opcode.GET, encode_leb128(number), keys)
        self.assertEqual({answer.specific for answer in answers}, {Status.KEY_ENOENT})

    def keys_on_disk(self, prefix: bytes) -> list[bytes]:
        """Return the keys of a collection in the files of both nodes, once for each copy."""
        found = []
        # Copies: a file that a crash left may only be opened by the node.
        copy = Path(self.mktemp()).absolute()
        shutil.copytree(self.data, copy)
        for path in sorted(copy.glob("node*/default.sqlite")):
            with closing(sqlite3.connect(path)) as database:
                rows = database.execute("SELECT key FROM documents").fetchall()
            found += [key for (key,) in rows if key.startswith(prefix)]
        return found

    @inlineCallbacks
    def test_a_kill_during_changes(self) -> Steps:
        """Every change that was answered is there after the kill, with its id; no id is given twice."""
        yield self.start()
        seen: dict[str, int] = {}
        for round in range(3):
            answered: list[tuple[str, str]] = []

            def create(names: list[str], answered: list[tuple[str, str]] = answered) -> None:
                for name in names:
                    try:
                        path = f"{SCOPES}/_default/collections"
                        answered.append((name, self.rest_call(path, "POST", name=name)["uid"]))
                    except (OSError, AssertionError):
                        return

            creating = deferToThread(create, [f"c{round}-{number}" for number in range(200)])
            while len(answered) < 5:
                yield deferToThread(lambda: None)
            yield self.kill()
            yield creating
            yield self.start()
            manifest = yield deferToThread(self.rest_call, SCOPES)
            self.assertGreaterEqual(int(manifest["uid"], 16), int(answered[-1][1], 16))
            ids = {one["name"]: int(one["uid"], 16) for one in manifest["scopes"][0]["collections"]}
            self.assertEqual(len(set(ids.values())), len(ids))
            for name, _ in answered:
                self.assertIn(name, ids)
            self.assertEqual({name: ids[name] for name in seen}, seen)
            dropped = answered[0][0]
            yield deferToThread(self.rest_call, f"{SCOPES}/_default/collections/{dropped}", "DELETE")
            highest = max(ids.values())
            yield deferToThread(self.rest_call, f"{SCOPES}/_default/collections", "POST", name=dropped)
            again = yield self.clients[1].ask(Opcode.GET_COLLECTION_ID, value=f"_default.{dropped}".encode())
            self.assertEqual(unpack(">QI", again.extras)[1], highest + 1)
            seen = {**ids, dropped: highest + 1}
