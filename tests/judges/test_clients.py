"""The official Python, Node.js, Go and Java clients against one and against three of our nodes.

Every class runs one program once; each test looks at one check.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from couchnode.service import EmbeddedNode
from couchnode.tls import NodeTls
from tests.certificates import self_signed
from tests.judges.clients import EXPECTED, ONE_COPY, OVER_TLS, PROGRAMS
from tests.judges.lost import leave_a_commit

Steps = Generator[Deferred[Any], Any, Any]
_SECONDS = 150.0


class _Run(ProcessProtocol):
    """Collects the lines of a program."""

    def __init__(self) -> None:
        self.done: Deferred[dict[str, Any]] = Deferred()
        self._lines = b""
        self._errors = b""

    def outReceived(self, data: bytes) -> None:
        """Take in what it printed."""
        self._lines += data

    def errReceived(self, data: bytes) -> None:
        """Keep the end of its standard error."""
        self._errors = (self._errors + data)[-4000:]

    def processEnded(self, reason: Failure) -> None:
        """Fire with the results, also those before a crash."""
        results = {}
        for line in self._lines.splitlines():
            if line.startswith(b"{"):
                found = json.loads(line)
                results[found["check"]] = found
        if not reason.check(ProcessDone):
            results["process"] = {"raised": f"{reason.value} {self._errors.decode('utf-8', 'replace')}"}
        self.done.callback(results)


class ClientChecks:
    """One run of a program for all tests of a class."""

    program = ""
    nodes = 1
    expected = ONE_COPY
    timeout = _SECONDS + 20
    results: dict[str, Any] | None = None
    with_tls = False

    @inlineCallbacks
    def setUp(self) -> Steps:
        """Run the program once; skip all tests where it is not installed."""
        missing = PROGRAMS[self.program].missing()
        if missing:
            raise SkipTest(missing)
        if type(self).results is None:
            type(self).results = {}  # one try for all tests
            type(self).results = yield self._run_program()

    @inlineCallbacks
    def _run_program(self) -> Steps:
        folder = Path(self.mktemp()).absolute()  # type: ignore[attr-defined]
        folder.mkdir()
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        pem = self_signed()
        at = pem.index(b"-----BEGIN PRIVATE KEY")
        certificate.write_bytes(pem[:at])
        key.write_bytes(pem[at:])
        node = EmbeddedNode(
            folder / "data",
            nodes=self.nodes,
            replicas=int(self.nodes > 1),
            users=[("Administrator", "password")],
            tls=NodeTls(certificate, key),
        )
        yield node.start()
        ports = [int(port) for port in re.findall(r":(\d+)", node.connection_string)]
        yield leave_a_commit([("127.0.0.1", port) for port in ports], "Administrator", "password")
        program = PROGRAMS[self.program]
        run = _Run()
        replicas = str(int(self.nodes > 1))
        arguments = [
            *program.command,
            node.tls_connection_string if self.with_tls else node.connection_string,
            "Administrator",
            "password",
            "default",
            replicas,
            *(OVER_TLS if self.with_tls else ()),
        ]
        env = {"PATH": os.environ["PATH"], **program.env}
        if self.with_tls:
            env["TLS_CA"] = str(certificate)
        process = reactor.spawnProcess(run, arguments[0], arguments, env=env)
        limit = reactor.callLater(_SECONDS, process.signalProcess, "KILL")
        results = yield run.done
        if limit.active():
            limit.cancel()
        yield node.stop()
        return results

    def test_every_check_ran(self: Any) -> None:
        """The program came to its end, and every check that it made is looked at by a test."""
        self.assertEqual(set(self.results), set(self.expected))


def _test_of(name: str) -> Any:
    def test(self: Any) -> None:
        self.assertEqual(
            self.results.get(name, "did not run"), {"check": name, "result": self.expected[name]}
        )

    test.__doc__ = f"The official client finds as expected: {name}."
    return test


class AllChecks(ClientChecks):
    """Every check."""


class TlsChecks(ClientChecks):
    """Some of them over TLS."""

    with_tls = True
    expected = {name: EXPECTED[name] for name in OVER_TLS}


for _class, _names in ((AllChecks, tuple(EXPECTED)), (TlsChecks, OVER_TLS)):
    for _name in _names:
        setattr(_class, f"test_{_name}", _test_of(_name))


def _case(base: type[ClientChecks], name: str, words: str, **attributes: Any) -> type[TestCase]:
    """Return a test case of this module."""
    made = type(name, (base, TestCase), {"__module__": __name__, "__doc__": words, **attributes})
    globals()[name] = made
    return made


for _language, _program in (("Python", "python"), ("Node", "node"), ("Go", "go"), ("Java", "java")):
    _case(AllChecks, f"{_language}Tests", f"{_language} on one node without replicas.", program=_program)
    _case(
        AllChecks,
        f"{_language}ThreeTests",
        f"{_language} on three nodes with one replica.",
        program=_program,
        nodes=3,
        expected=EXPECTED,
    )
    _case(TlsChecks, f"{_language}TlsTests", f"{_language} over TLS.", program=_program)
