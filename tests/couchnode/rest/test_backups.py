"""Backups of a running node, over HTTP: their content, a start from them, and what can go wrong."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.threads import deferToThread

from couchbase import subdocument
from couchbase.connection import Connection
from couchbase.exceptions import NotFoundError
from couchnode.cluster.backups import Backups
from couchnode.rest.backups import PATH
from couchnode.service import EmbeddedNode
from tests.couchnode.rest.test_api import ADMIN, RestCase, Steps
from tests.couchnode.stores import fill_disk_of_copies, slow_copies

VIEWER = ("vera", "secret of vera")


class BackupCase(RestCase):
    """Two nodes with a replica, on disk."""

    @inlineCallbacks
    def setUp(self) -> Steps:
        self.exchanges = []
        self.others: list[EmbeddedNode] = []
        self.path = Path(self.mktemp())
        self.node = yield self.start(self.path)
        self.cluster = self.node.cluster

    @inlineCallbacks
    def tearDown(self) -> Steps:
        for other in self.others:
            yield other.stop()
        yield super().tearDown()

    @inlineCallbacks
    def start(self, path: Path) -> Steps:
        """Start a node on a folder."""
        node = EmbeddedNode(
            path, nodes=2, replicas=1, users=[ADMIN], buckets=[("shop", "pw")], quota_bytes=2**27
        )
        yield node.start()
        return node

    def client(self, node: EmbeddedNode) -> Connection:
        """Connect to the bucket."""
        return Connection(
            bucket="shop", username="shop", password="pw", connection_string=node.connection_string
        )

    @inlineCallbacks
    def names(self) -> Steps:
        """Return the names of the backups, as listed."""
        answer = yield self.ask(PATH)
        return [one["name"] for one in answer.json]


class ContentTests(BackupCase):
    """What a backup has."""

    @inlineCallbacks
    def test_under_load(self) -> Steps:
        """A node that starts from a backup made while clients write has every document that was acknowledged
        before it; active copies and replicas agree."""
        stop = threading.Event()
        acknowledged: dict[str, int] = {}

        def write(first: int) -> None:
            client = self.client(self.node)
            number = first
            while not stop.is_set():
                key = f"key:{number % 500}"
                acknowledged[key] = client.set(key, {"n": number}).cas
                number += 2

        writers = [deferToThread(write, first) for first in (0, 1)]
        while len(acknowledged) < 500:
            yield deferToThread(lambda: None)
        before = dict(acknowledged)
        answer = yield self.ask(PATH, "POST", form={"name": "first"})
        stop.set()
        yield gatherResults(writers)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.json["folder"], str(self.path.absolute() / "backups" / "first"))
        other = yield self.start(Path(answer.json["folder"]))
        self.others.append(other)
        yield deferToThread(self.compare, other, before)

    def compare(self, node: EmbeddedNode, before: dict[str, int]) -> None:
        """Read everything from both copies."""
        client = self.client(node)
        for key, cas in before.items():
            found = client.get(key)
            # Another write may have come while the backup was made.
            self.assertGreaterEqual(found.cas, cas)
            # A replica that was copied later than the active copy knows a future that is none now.
            client.endure(key, persist_to=1, replicate_to=1, cas=found.cas, timeout=60)
            copy = client.get(key, replica=True)
            self.assertEqual((copy.value, copy.cas), (found.value, found.cas), key)

    @inlineCallbacks
    def test_everything(self) -> Steps:
        """Users, designs, collections, attributes and deletions are in it; it belongs to its owner alone."""
        yield self.ask("/pools/default/buckets/shop/scopes", "POST", form={"name": "eu"})
        yield self.ask(
            "/pools/default/buckets/shop/scopes/eu/collections", "POST", form={"name": "carts", "maxTTL": "0"}
        )
        user = {"password": VIEWER[1], "roles": "data_reader[shop]"}
        self.assertEqual((yield self.ask("/settings/rbac/users/local/vera", "PUT", form=user)).status, 200)

        def fill() -> int:
            client = self.client(self.node)
            client.design_create("d", {"views": {"v": {"map": "function (doc) {}"}}}, use_devmode=False)
            client.collection("carts", scope="eu").set("cart", {"n": 1})
            client.set("gone", 1)
            client.delete("gone")
            client.set("doc", {"n": 1})
            return client.mutate_in("doc", subdocument.upsert("by", "vera", xattr=True)).cas

        cas = yield deferToThread(fill)
        answer = yield self.ask(PATH, "POST")
        self.assertEqual(answer.status, 200, answer.body)
        folder = Path(answer.json["folder"])
        self.assertRegex(folder.name, r"^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ$")
        self.assertEqual(folder.stat().st_mode & 0o77, 0)
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self.assertEqual(answer.json["bytes"], total)
        other = yield self.start(folder)
        self.others.append(other)

        def check() -> None:
            client = self.client(other)
            self.assertEqual(
                client.design_get("d", use_devmode=False).value["views"]["v"]["map"][:8], "function"
            )
            self.assertEqual(client.collection("carts", scope="eu").get("cart").value, {"n": 1})
            with self.assertRaises(NotFoundError):
                client.get("gone")
            found = client.lookup_in("doc", subdocument.get("by", xattr=True))
            self.assertEqual((found[0], found.cas), ("vera", cas))

        yield deferToThread(check)
        port, self.cluster = self.cluster, other.cluster
        self.assertEqual((yield self.ask("/pools/default", auth=VIEWER)).status, 200)
        self.cluster = port

    @inlineCallbacks
    def test_topology_waits(self) -> Steps:
        """A change of buckets or collections that comes meanwhile is made afterwards, and is not in it."""
        arrived, go = slow_copies(self)
        backup = self.ask(PATH, "POST", form={"name": "one"})
        yield deferToThread(arrived.wait, 60)
        change = self.ask("/pools/default/buckets/shop/scopes", "POST", form={"name": "late"})
        self.assertFalse(self.node.cluster.buckets["shop"].manifest.uid)
        go.set()
        self.assertEqual([(yield backup).status, (yield change).status], [200, 200])
        other = yield self.start(self.path / "backups" / "one")
        self.others.append(other)
        self.assertFalse(other.cluster.buckets["shop"].manifest.uid)


class ManagementTests(BackupCase):
    """Names, lists, deletions, and what goes wrong."""

    @inlineCallbacks
    def test_list_and_remove(self) -> Steps:
        """Backups are listed, the oldest first, and deleted by name."""
        self.assertEqual((yield self.names()), [])
        for at, name in enumerate(("b", "a", "c.1_x-Y")):
            self.assertEqual((yield self.ask(PATH, "POST", form={"name": name})).status, 200)
            os.utime(self.path / "backups" / name, (1000 + at, 1000 + at))
        self.assertEqual((yield self.names()), ["b", "a", "c.1_x-Y"])
        self.assertEqual((yield self.ask(f"{PATH}/a", "DELETE")).status, 200)
        self.assertEqual((yield self.names()), ["b", "c.1_x-Y"])
        for name in ("a", "..", "b%2F..", "node0", "%00"):
            self.assertEqual((yield self.ask(f"{PATH}/{name}", "DELETE")).status, 404, name)
        self.assertTrue((self.path / "cluster.json").exists())

    @inlineCallbacks
    def test_keep(self) -> Steps:
        """``keep`` deletes the oldest of those that are too many, after the new one is complete."""
        for at, name in enumerate("abcd"):
            yield self.ask(PATH, "POST", form={"name": name})
            os.utime(self.path / "backups" / name, (1000 + at, 1000 + at))
        self.assertEqual((yield self.ask(PATH, "POST", form={"name": "e", "keep": "2"})).status, 200)
        self.assertEqual((yield self.names()), ["d", "e"])

    @inlineCallbacks
    def test_refusals(self) -> Steps:
        """Bad names and fields are refused with what was expected; nothing is made."""
        yield self.ask(PATH, "POST", form={"name": "there"})
        for form, words in (
            ({"name": ""}, "1 to 100 letters"),
            ({"name": "../x"}, "1 to 100 letters"),
            ({"name": ".hidden"}, "does not begin"),
            ({"name": "x" * 101}, "1 to 100 letters"),
            ({"name": "x.partial"}, "does not end"),
            ({"name": "a\0b"}, "1 to 100 letters"),
            ({"keep": "0"}, "1 to 999999"),
            ({"keep": "many"}, "1 to 999999"),
            ({"folder": "/tmp"}, "Unsupported key"),
        ):
            answer = yield self.ask(PATH, "POST", form=form)
            self.assertEqual(answer.status, 400, form)
            self.assertIn(words, str(answer.json["errors"]))
        answer = yield self.ask(PATH, "POST", form={"name": "there"})
        self.assertEqual((answer.status, "already" in str(answer.json["errors"])), (500, True))
        self.assertEqual((yield self.names()), ["there"])

    @inlineCallbacks
    def test_rights(self) -> Steps:
        """Only full administrators make, list and delete them."""
        user = {"password": VIEWER[1], "roles": "cluster_admin"}
        self.assertEqual((yield self.ask("/settings/rbac/users/local/vera", "PUT", form=user)).status, 200)
        for auth, status in ((None, 401), (VIEWER, 403), (("shop", "pw"), 403)):
            for method, path in (("GET", PATH), ("POST", PATH), ("DELETE", f"{PATH}/x")):
                self.assertEqual((yield self.ask(path, method, auth)).status, status, (auth, method))
        self.assertEqual((yield self.names()), [])

    @inlineCallbacks
    def test_one_at_a_time(self) -> Steps:
        """A second one is refused while one is being made."""
        arrived, go = slow_copies(self)
        first = self.ask(PATH, "POST", form={"name": "one"})
        yield deferToThread(arrived.wait, 60)
        answer = yield self.ask(PATH, "POST", form={"name": "two"})
        self.assertEqual((answer.status, "another" in str(answer.json)), (400, True))
        go.set()
        self.assertEqual((yield first).status, 200)
        self.assertEqual((yield self.names()), ["one"])

    @inlineCallbacks
    def test_stop(self) -> Steps:
        """A node that stops ends its backup, of which nothing is left, and keeps its documents."""
        yield deferToThread(lambda: self.client(self.node).set("doc", {"n": 1}))
        arrived, go = slow_copies(self)
        backup = self.node.cluster.backups.make("one")
        yield deferToThread(arrived.wait, 60)
        stopped = self.node.stop()
        while not self.node.cluster.backups.is_closed:
            yield deferToThread(lambda: None)
        go.set()
        failure: Any = yield self.assertFailure(backup, Exception)
        self.assertIn("stop", str(failure))
        yield stopped
        self.assertEqual(list((self.path / "backups").iterdir()), [])
        other = yield self.start(self.path)
        self.others.append(other)
        value = yield deferToThread(lambda: self.client(other).get("doc").value)
        self.assertEqual(value, {"n": 1})

    @inlineCallbacks
    def test_full_disk(self) -> Steps:
        """If the disk refuses, the answer says so, nothing is left, and the next one works."""

        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        complete = Backups._complete
        self.patch(Backups, "_complete", refuse)
        answer = yield self.ask(PATH, "POST", form={"name": "one"})
        self.assertEqual(answer.status, 500)
        folder = self.path / "backups" / "one"
        self.assertIn(f"{folder} cannot be made: No space left on device", str(answer.json))
        self.assertEqual(list((self.path / "backups").iterdir()), [])
        self.patch(Backups, "_complete", complete)
        self.assertEqual((yield self.ask(PATH, "POST", form={"name": "one"})).status, 200)

    @inlineCallbacks
    def test_full_disk_of_the_copy(self) -> Steps:
        """The answer names the backup and its file, not the store, which has room."""
        fill_disk_of_copies(self)
        answer = yield self.ask(PATH, "POST", form={"name": "one"})
        self.assertEqual(answer.status, 500)
        folder = (self.path / "backups" / "one").absolute()
        self.assertIn(f"{folder} cannot be made: {folder}.partial/node0/", str(answer.json))
        self.assertIn(".sqlite: database or disk is full", str(answer.json))
        self.assertEqual(list((self.path / "backups").iterdir()), [])

    @inlineCallbacks
    def test_leftovers(self) -> Steps:
        """The half backup of a process that was killed is no backup, and goes with the next one."""
        partial = self.path / "backups" / "old.partial" / "node0"
        partial.mkdir(parents=True)
        (partial / "shop.sqlite").write_bytes(b"half")
        self.assertEqual((yield self.names()), [])
        yield self.ask(PATH, "POST", form={"name": "new"})
        self.assertEqual([path.name for path in (self.path / "backups").iterdir()], ["new"])


class EphemeralTests(RestCase):
    """A node that keeps nothing."""

    @inlineCallbacks
    def test_refused(self) -> Steps:
        """There is nothing to copy."""
        self.assertEqual((yield self.ask(PATH)).json, [])
        answer = yield self.ask(PATH, "POST")
        self.assertEqual((answer.status, "ephemeral" in str(answer.json)), (400, True))
