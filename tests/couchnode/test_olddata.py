"""Data folders that earlier versions wrote open, with everything that was stored."""

from __future__ import annotations

import json
import tarfile
from base64 import b64decode
from collections.abc import Generator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from couchbase import subdocument
from couchbase.connection import Connection
from couchbase.exceptions import NotFoundError
from couchbase.transcoder import FMT_JSON
from couchnode.data.storeschema import READABLE_VERSIONS, SCHEMA_VERSION
from couchnode.service import EmbeddedNode
from couchnode.views.service import is_available

Steps = Generator[Deferred[Any], Any, Any]
FOLDERS = Path(__file__).parent / "folders"
BUCKET, PASSWORD = "shop", "secret-of-shop"


def archive_of(version: str) -> Path:
    """Return the archive of a version of the files."""
    return FOLDERS / f"version-{version}.tar.xz"


class OldDataTests(TestCase):
    """A node on the folder of an earlier version."""

    timeout = 240

    def unpacked(self, version: str) -> Path:
        """Return a folder with a version's two data folders."""
        folder = Path(self.mktemp())
        with tarfile.open(archive_of(version)) as archive:
            for member in archive:
                # No names from outside: these archives are the repository's own.
                archive.extract(member, folder)
        return folder

    @inlineCallbacks
    def check(self, version: str, state: str) -> Steps:
        """Start a node twice on one folder of a version, and compare what it has, and what is added."""
        folder = self.unpacked(version)
        expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        for times in (0, 1):
            node = EmbeddedNode(str(folder / state))
            yield node.start()
            try:
                yield deferToThread(self.compare, node.connection_string, expected, times)
            finally:
                yield node.stop()

    def compare(self, connection_string: str, expected: dict[str, Any], times: int) -> None:
        """Read everything as a client does."""
        client = Connection(
            bucket=BUCKET, username=BUCKET, password=PASSWORD, connection_string=connection_string
        )
        for key, stored in expected["documents"].items():
            for replica in (False, True):
                found = client.get(key, replica=replica)
                value = stored["value"] if stored["fmt"] == FMT_JSON else b64decode(stored["bytes"])
                mine = found.value.encode() if isinstance(found.value, str) else found.value
                self.assertEqual((mine, found.cas), (value, stored["cas"]), key)
            if stored["ttl"]:
                spec = subdocument.get("$document.exptime", xattr=True)
                self.assertEqual(client.lookup_in(key, spec)[0], stored["ttl"])
        for index in range(expected["replaced"]):
            with self.assertRaises(NotFoundError):
                client.get(f"gone:{index}")
        for name, design in expected["design"].items():
            found = client.design_get(name, use_devmode=False)
            self.assertEqual(found.value["views"], design["views"])
            if is_available():
                rows = list(client.query(name, "by_n", stale=False, limit=3))
                self.assertEqual([row.key for row in rows], [0, 1, 2])
        attribute = expected.get("attribute")
        if attribute:
            spec = subdocument.get(attribute["path"], xattr=True)
            self.assertEqual(client.lookup_in(attribute["key"], spec)[0], attribute["value"])
        stored = expected.get("collection")
        if stored:
            other = client.collection(stored["name"], scope=stored["scope"])
            found = other.get(stored["key"])
            self.assertEqual((found.value, found.cas), (stored["value"], stored["cas"]))
        # New versions continue the history: a write gets a later CAS, and is there after the next start.
        if times:
            self.assertEqual(client.get("written").value, {"by": "the newest version"})
        newest = max(one["cas"] for one in expected["documents"].values())
        self.assertGreater(client.set("written", {"by": "the newest version"}, persist_to=1).cas, newest)


def _add_tests() -> None:
    for version in READABLE_VERSIONS:
        for state in ("stopped", "crashed"):

            def test(self: OldDataTests, version: str = version, state: str = state) -> Deferred[Any]:
                return self.check(version, state)

            test.__doc__ = (
                f"Version {version}, {state}: every document is there, with its CAS and its replica."
            )
            setattr(OldDataTests, f"test_{version}_{state}", test)


_add_tests()


class ArchiveTests(SynchronousTestCase):
    """The archives themselves."""

    def test_each_version(self) -> None:
        """Every version of the files that can be read has an archive, the current one included."""
        self.assertIn(str(SCHEMA_VERSION), READABLE_VERSIONS)
        kept = sorted(path.name for path in FOLDERS.glob("*.tar.xz"))
        self.assertEqual(kept, sorted(archive_of(version).name for version in READABLE_VERSIONS))
