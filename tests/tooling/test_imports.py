"""The arrows of the architecture: allowed imports between packages."""

from __future__ import annotations

import ast
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.shape import typing_only
from tests.tooling.sources import (
    PACKAGES,
    ROOT,
    Import,
    imports_of,
    is_inside,
    nodes_of,
    parsed,
    source_files,
)

# Allowed imports between our packages; any other import of ours is against the arrows gateway -> txcouchbase
# -> couchbase -> couchbase.protocol <- couchnode. The ground floor, reactor, imports nothing of ours;
# everything that runs on Twisted may import it.
OURS = (*PACKAGES, "tests", "bench", "examples")
MAY_IMPORT = {
    "couchbase": ("couchbase",),
    "reactor": ("reactor",),
    "txcouchbase": ("txcouchbase", "couchbase", "reactor"),
    "gcouchbase": ("gcouchbase", "couchbase"),
    "couchnode": ("couchnode", "couchbase.protocol", "reactor"),
    "gateway": ("gateway", "txcouchbase", "couchbase", "reactor"),
}
# The one place where the service tree is built, so the one that may know the embedded node.
KNOWS_THE_NODE = "gateway.service"

# Everything by which a sans-I/O core could reach the outside or the clock without its caller.
OUTSIDE_WORLD = (
    "asyncio", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "queue", "random", "sched",
    "secrets", "select", "selectors", "shutil", "signal", "socket", "socketserver", "ssl", "subprocess",
    "tempfile", "threading", "time", "urllib.request", "http.client", "warnings",
)  # fmt: skip
REACHES_OUT_BY_NAME = ("open", "input", "print", "__import__", "eval", "exec")


def against_the_arrows(found: Import) -> bool:
    """Return whether one import points up, or sideways."""
    room = found.importer.split(".")[0]
    if found.target.split(".")[0] not in OURS:
        return False
    if found.importer == KNOWS_THE_NODE and is_inside(found.target, "couchnode"):
        return False
    return not any(is_inside(found.target, allowed) for allowed in MAY_IMPORT[room])


class ArrowTests(SynchronousTestCase):
    """Imports point one way."""

    def test_imports_point_down(self) -> None:
        """No package imports one that stands above it, and only the gateway's service names couchnode."""
        wrong = [
            str(found) for path in source_files() for found in imports_of(path) if against_the_arrows(found)
        ]
        self.assertEqual(wrong, [])

    def test_the_sdk_needs_the_standard_library_only(self) -> None:
        """``couchbase`` imports only itself and the standard library, whatever is installed.

        A type checker, which has typing_extensions always, may see that, too.
        """
        allowed = sys.stdlib_module_names | {"couchbase"}
        wrong = []
        for path in source_files("couchbase"):
            unseen = typing_only(parsed(path))
            for found in imports_of(path):
                root = found.target.split(".")[0]
                if root not in allowed and not (root == "typing_extensions" and found.line in unseen):
                    wrong.append(str(found))
        self.assertEqual(wrong, [])

    def test_the_protocol_core_does_no_io(self) -> None:
        """``couchbase.protocol`` has no way to a socket, a file, a clock, a thread, a log or to chance."""
        wrong = [
            str(found)
            for path in source_files("couchbase/protocol")
            for found in imports_of(path)
            if any(is_inside(found.target, module) for module in OUTSIDE_WORLD)
        ]
        self.assertEqual(wrong, [])

    def test_the_protocol_core_calls_nothing_that_reaches_out(self) -> None:
        """``couchbase.protocol`` opens no file and prints nothing through a builtin."""
        wrong = [
            f"{path.relative_to(ROOT)}:{node.lineno} calls {name}"
            for path in source_files("couchbase/protocol")
            for node in nodes_of(parsed(path), ast.Call)
            if (name := getattr(node.func, "id", None)) in REACHES_OUT_BY_NAME
        ]
        self.assertEqual(wrong, [])


class HttpTests(SynchronousTestCase):
    """``gateway.http`` could be published separately."""

    allowed = sys.stdlib_module_names | {
        *("twisted", "zope", "klein", "httptools", "orjson", "cramjam", "reactor")
    }

    def test_what_it_imports(self) -> None:
        """It imports the standard library, Twisted and what goes with it, the ground floor, and itself; not
        even for annotations anything else."""
        wrong = [
            str(found)
            for path in source_files("gateway/http")
            for found in imports_of(path)
            if not is_inside(found.target, "gateway.http") and found.target.split(".")[0] not in self.allowed
        ]
        self.assertEqual(wrong, [])

    def test_what_it_loads(self) -> None:
        """In a fresh interpreter it loads no other package of this project, by whatever detour."""
        asked = "import sys; from gateway.http import *; print(*sorted(sys.modules))"
        loaded = subprocess.run(
            [sys.executable, "-c", asked], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split()
        ours = [name for name in loaded if name.split(".")[0] in OURS]
        self.assertIn("gateway.http.channel", ours)
        may = ("gateway.http", "reactor")
        wrong = [name for name in ours if name != "gateway" and not any(is_inside(name, one) for one in may)]
        self.assertEqual(wrong, [])


class OnceTests(SynchronousTestCase):
    """Code that exists once is not repeated elsewhere."""

    def elsewhere(self, word: str, *homes: str) -> list[str]:
        """Return the lines of the product that have a word, outside of the modules where it belongs."""
        return [
            f"{path.relative_to(ROOT)}:{number}"
            for path in source_files()
            if str(path.relative_to(ROOT)) not in homes
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if word in line
        ]

    def test_errors_are_made_in_one_place(self) -> None:
        """Only ``couchbase.exceptions.error_of`` creates the error of a result code."""
        self.assertEqual(
            self.elsewhere("rc_to_exctype(", "couchbase/errorbase.py", "couchbase/exceptions.py"), []
        )

    def test_vbuckets_are_told_in_one_place(self) -> None:
        """Only ``couchbase.protocol.hashing`` computes a key's vbucket."""
        self.assertEqual(self.elsewhere("0x7FFF", "couchbase/protocol/hashing.py"), [])


class DriverTests(SynchronousTestCase):
    """Drivers know sockets and time, and not what bytes mean."""

    DRIVERS = ("couchbase/blocking", "txcouchbase", "gcouchbase")
    WIRE = (
        *("Opcode", "ServerOpcode", "Status", "Magic", "Feature", "Datatype", "HEADER", "FrameReader"),
        *("AnswerReader", "encode_request", "encode_response", "action_for", "complete", "head", "downgrade"),
    )

    def test_no_opcode_no_status_no_header(self) -> None:
        """A driver imports no opcode, no status and no frame format."""
        wrong = [
            str(found)
            for path in source_files(*self.DRIVERS)
            for found in imports_of(path)
            if is_inside(found.target, "couchbase.protocol") and found.target.split(".")[-1] in self.WIRE
        ]
        self.assertEqual(wrong, [])

    def test_no_number_of_the_protocol(self) -> None:
        """A driver asks no request for its opcode, nor an answer for its status."""
        wrong = [
            f"{path.relative_to(ROOT)}:{node.lineno} reads .{node.attr}"
            for path in source_files(*self.DRIVERS)
            for node in nodes_of(parsed(path), ast.Attribute)
            if node.attr in ("opcode", "specific", "magic", "opaque")
        ]
        self.assertEqual(wrong, [])


class SelfTests(SynchronousTestCase):
    """The rule finds violations, so an empty list above means something."""

    def found(self, importer: str, target: str) -> Import:
        """Return an import as ``imports_of`` would."""
        return Import(importer, ROOT / "setup.py", 1, target)

    def test_rule(self) -> None:
        """Down is right; up, sideways and past the protocol is wrong."""
        right = [
            ("gateway.resources.documents", "txcouchbase.connection.Connection"),
            ("gateway.dialect.errors", "couchbase.exceptions.NotFoundError"),
            ("gateway.service", "couchnode.service.EmbeddedNode"),
            ("couchnode.kv.commands", "couchbase.protocol.frames.Frame"),
            ("gateway.workers.fleet", "reactor.deferreds.own"),
            ("couchbase.connection", "twisted.internet.reactor"),  # the test of the standard library has it
        ]
        wrong = [
            ("gateway.cluster.pool", "couchnode.service.EmbeddedNode"),
            ("couchnode.kv.commands", "couchbase.exceptions.NotFoundError"),
            ("couchnode.kv.commands", "txcouchbase.connection"),
            ("couchbase.connection", "txcouchbase"),
            ("txcouchbase.connection", "gateway.dialect.errors"),
            ("gateway.app", "tests.gateway"),
            ("reactor.writer", "gateway.http.channel"),
            ("couchbase.connection", "reactor.clock"),
        ]
        self.assertEqual([pair for pair in right if against_the_arrows(self.found(*pair))], [])
        self.assertEqual([pair for pair in wrong if not against_the_arrows(self.found(*pair))], [])

    def test_every_room_is_walked(self) -> None:
        """Each source package has files and imports that the rules above look at."""
        for package in MAY_IMPORT:
            found = [one for path in source_files(package) for one in imports_of(path)]
            self.assertTrue(found, f"nothing found in {package}")
