"""The official Python client 4.x, in a separate environment, against one and against three nodes."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from couchnode.service import EmbeddedNode

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("official_client.py")
MOVE_AFTER = "collections_manifest"

Steps = Generator[Deferred[Any], Any, Any]
Table = dict[str, Any]


def interpreter() -> Path | None:
    """Return the Python that has the official client, ``None`` if there is none.

    It is the one that ``INTEROP_PYTHON`` names, or that of ``.venv-interop``.
    """
    named = os.environ.get("INTEROP_PYTHON")
    path = Path(named) if named else ROOT / ".venv-interop" / "bin" / "python"
    return path if path.exists() else None


class Conversation(ProcessProtocol):
    """Runs the script and collects its lines.

    :param on_check: called with the name of each check that is over.
    """

    def __init__(self, on_check: Any) -> None:
        self.results: Table = {}
        self.done: Deferred[Table] = Deferred()
        self._on_check = on_check
        self._rest = b""
        self._errors = b""

    def outReceived(self, data: bytes) -> None:
        """Take in what the script printed."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            result = json.loads(line)
            self.results[result["check"]] = result
            self._on_check(result["check"])

    def errReceived(self, data: bytes) -> None:
        """Keep the end of what it said on standard error, for the message of a failure."""
        self._errors = (self._errors + data)[-4000:]

    def processEnded(self, reason: Failure) -> None:
        """Hand over the results, also those before a crash."""
        if not reason.check(ProcessDone):
            text = f"{reason.value} {self._errors.decode('utf-8', 'replace')}"
            self.results["process"] = {"raised": text}
        self.done.callback(self.results)


class OfficialClient:
    """One run of the script for all tests of a class; each test looks at one check.

    What a check returns is described in the script; ``expected`` says what it must be.
    """

    nodes = 1
    replicas = 0
    timeout = 120
    expected: Table = {
        "upsert_and_get": [{"name": "Ada", "n": 1}, True, True],
        "mutation_token": [True, True, 1, "default"],
        "insert": ["once", "DocumentExistsException"],
        "replace": [2, "DocumentNotFoundException"],
        "get_missing": "DocumentNotFoundException",
        "get_multi": [True, False, 1000, {"no-such-document": "DocumentNotFoundException"}],
        "all_vbuckets_of_many_keys": [True, True],
        "cas_mismatch": ["CasMismatchException", "CasMismatchException", None, 3],
        "remove": ["DocumentNotFoundException", "DocumentNotFoundException"],
        "exists": [True, False, False],
        "formats": ["täxt", [0, 255], "🍺 ÿ"],
        "odd_keys": [True, "InvalidArgumentException"],
        # The client has no special exception for "too big".
        "large_values": [20 * 2**20 - 2, "CouchbaseException"],
        "expiry": [1, True, "DocumentNotFoundException"],
        "no_expiry": None,
        "touch": "DocumentNotFoundException",
        "get_and_touch": [{"v": 1}, "DocumentNotFoundException"],
        "touch_away_an_expiry": None,
        "preserve_expiry": [True, None],
        "lock_and_unlock": [
            1,
            True,
            "DocumentLockedException",
            "CasMismatchException",
            1,
            3,
            "DocumentNotLockedException",
        ],
        "lock_ends_with_a_store": 3,
        "lock_runs_out": True,
        "lock_missing": "DocumentNotFoundException",
        "append_and_prepend": ["abc", "DocumentNotFoundException", "DocumentNotFoundException"],
        "counters": [10, 15, 12, 0, 0],
        "counter_errors": ["DeltaInvalidException", "DocumentNotFoundException"],
        "lookup_in": [2, False, 3, "x", "PathNotFoundException", "DocumentNotFoundException"],
        "mutate_in": [{"list": [1, 2], "n": 5, "new": {"deep": "v"}}, "PathNotFoundException"],
        "get_projected": {"a": 1, "b": {"c": 2}},
        "client_durability": 1,
        "durability_levels": [
            {"MAJORITY": None, "MAJORITY_AND_PERSIST_TO_ACTIVE": None, "PERSIST_TO_MAJORITY": None},
            "PERSIST_TO_MAJORITY",
        ],
        "durable_operations": "DocumentNotFoundException",
        "replica_reads": [True, [False], {"v": 1}, "DocumentUnretrievableException"],
        "subdocument_replica_reads": 2,
        "ping": {"key_value": ["ok"], "management": ["ok"], "view": ["ok"]},
        # The client asks again and again for a collection that does not exist.
        "unknown_collection": "UnAmbiguousTimeoutException",
        "unknown_bucket": "BucketNotFoundException",
        "wrong_password": "AuthenticationException",
        # A bucket's own user may not know of others, also where those have no password.
        "bucket_user": [1, "BucketNotFoundException"],
        "buckets": [
            "BucketAlreadyExistsException",
            ["made", True, 0, "membase"],
            ["default", "made", "private"],
            120,
            "BucketDoesNotExistException",
            "BucketDoesNotExistException",
            "BucketDoesNotExistException",
        ],
        "ephemeral_bucket": ["ephemeral", "DurabilityInvalidLevelException", "BucketNotFlushableException"],
        "bad_bucket_settings": ["InvalidArgumentException"] * 3,
        "design_documents": [
            ["by_name", "by_place", "longest", "sizes"],
            "_count",
            "DesignDocumentNotFoundException",
            True,
            [["places"], ["places"]],
        ],
        "view_query": [
            ["place-1", ["AT", "Graz"], 1],
            ["place-5", ["FR", None], 5],
            6,
            ["a", "A", "ä", "Ada", "b", "C d"],
        ],
        "view_ranges": [
            ["place-3", "place-4", "place-2"],
            ["place-3", "place-4"],
            ["place-3", "place-4"],
            ["place-5", "place-3", "place-4"],
            ["place-0", "place-3"],
            ["place-5", "place-2"],
            ["place-4"],
        ],
        "view_reduces": [
            [[None, None, 6]],
            [[None, ["AT"], 2], [None, ["DE"], 3], [None, ["FR"], 1]],
            [[None, ["AT", "Graz"], 1], [None, ["AT", "Wien"], 1]],
            [[None, None, {"sum": 14, "count": 4, "min": 2, "max": 5, "sumsqr": 54}]],
            [[None, None, 3]],
        ],
        "view_sees_changes": [[["AT"], 1], [["CH"], 1], [["DE"], 3]],
        "view_development": [5, True],
        "view_errors": [
            "DesignDocumentNotFoundException",
            "DesignDocumentNotFoundException",
            "InvalidArgumentException",
            "InvalidArgumentException",
            "InvalidArgumentException",
            "InvalidArgumentException",
            "DesignDocumentNotFoundException",
        ],
        "drop_design_document": [
            "DesignDocumentNotFoundException",
            "DesignDocumentNotFoundException",
            0,
        ],
        "collections_manifest": [["_default", ["_default"]]],
        "while_vbuckets_move": [0, True],
    }
    results: Table | None = None

    @inlineCallbacks
    def setUp(self) -> Steps:
        """Run the script once; skip all tests where the official client is not installed."""
        python = interpreter()
        if python is None:
            raise SkipTest("the official client is not installed: make interop builds its environment")
        if type(self).results is None:
            type(self).results = {}  # one try for all tests
            type(self).results = yield self._run_script(python)

    @inlineCallbacks
    def _run_script(self, python: Path) -> Steps:
        node = EmbeddedNode(
            Path(self.mktemp()),  # type: ignore[attr-defined]
            nodes=self.nodes,
            replicas=self.replicas,
            users=[("Administrator", "password")],
            buckets=[("default", None), ("private", "bucket-password")],
        )
        yield node.start()
        moving: list[Deferred[Any]] = []

        def over(name: str) -> None:
            if name == MOVE_AFTER and self.nodes > 1:
                moving.append(self._move(node))

        conversation = Conversation(over)
        arguments = [
            str(python),
            str(SCRIPT),
            node.connection_string,
            "Administrator",
            "password",
            str(self.nodes),
        ]
        process = reactor.spawnProcess(
            conversation, arguments[0], arguments, env={"PATH": os.environ["PATH"]}
        )
        limit = reactor.callLater(self.timeout - 10, process.signalProcess, "KILL")
        results = yield conversation.done
        if limit.active():
            limit.cancel()
        yield gatherResults(moving)
        yield node.stop()
        return results

    @inlineCallbacks
    def _move(self, node: EmbeddedNode) -> Steps:
        """Swap every active copy with its replica, three times."""
        for _ in range(3):
            yield deferLater(reactor, 0.3)
            rows = node.cluster.bucket("default").rows
            yield node.cluster.apply_map("default", [(row[1], row[0]) for row in rows])

    def test_every_check_ran(self: Any) -> None:
        """The script came to its end, and every check that it made is looked at by a test."""
        self.assertEqual(set(self.results), set(self.expected))


def _test_of(name: str) -> Any:
    def test(self: Any) -> None:
        result = self.results.get(name, "did not run")
        self.assertEqual(
            result.get("returned", result) if isinstance(result, dict) else result, self.expected[name]
        )

    test.__doc__ = f"The official client finds as expected: {name.replace('_', ' ')}."
    return test


for _name in OfficialClient.expected:
    setattr(OfficialClient, f"test_{_name}", _test_of(_name))


class OneNodeTests(OfficialClient, TestCase):
    """One node without replicas."""


class ThreeNodesTests(OfficialClient, TestCase):
    """Three nodes with one replica."""

    nodes = 3
    replicas = 1
    expected = {
        **OfficialClient.expected,
        "replica_reads": [True, [False, True], {"v": 1}, "DocumentUnretrievableException"],
    }
