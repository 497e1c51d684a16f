"""Repetitions by the server's error map, as CouchbaseMock's own check of them wants it."""

from unittest import TestCase

from twisted.internet.defer import inlineCallbacks
from twisted.trial import unittest

from couchbase.connection import Connection
from couchbase.exceptions import TemporaryFailError
from couchbase.protocol.constants import Opcode
from gcouchbase import GConnection
from tests.gcouchbase.support import InGreenlets
from tests.judges.mock import Mock, missing
from txcouchbase.connection import Connection as TxConnection

STATUSES = {"constant": 0x7FF0, "linear": 0x7FF1, "exponential": 0x7FF2}
"""Strategy -> the status that the mock's error map wants to be repeated so, for 0.5 s."""
ENDLESS = 10_000
ATTEMPTS = 10
"""The check tolerates 10 ms, which a busy machine does not keep each time; a wrong pause fails each time."""


class Checked:
    """A mock that counts milliseconds between commands."""

    def __init__(self):
        self._mock = Mock()
        self.string = self._mock.string
        self.stop = self._mock.stop

    def begin(self, status):
        """Let every command fail, and note when each comes."""
        self._told("start_retry_verify", bucket="default", idx=0)
        self._told("opfail", code=status, count=ENDLESS)

    def end(self, status):
        """Return what was wrong with the commands' times, ``None`` if nothing was."""
        self._told("opfail", code=0, count=0)
        answer = self._mock.control(
            "check_retry_verify", bucket="default", idx=0, opcode=int(Opcode.SET), errcode=status
        )
        return None if answer["status"] == "ok" else answer["error"]

    def _told(self, command, **payload):
        answer = self._mock.control(command, **payload)
        if answer["status"] != "ok":
            raise RuntimeError(f"{command}: {answer}")


class BlockingRetryTests(TestCase):
    """The blocking client."""

    skip = missing()
    face = Connection

    def setUp(self):
        super().setUp()
        if self.skip:
            self.skipTest(self.skip)
        self.mock = Checked()
        self.addCleanup(self.mock.stop)

    def test_strategies(self):
        """A store that always fails is repeated with the pauses of each strategy, and as long as it says."""
        cb = self.face(bucket="default", connection_string=self.mock.string, timeout=30)
        self.addCleanup(cb._close)
        cb.set("k", 1)
        for strategy, status in STATUSES.items():
            for _ in range(ATTEMPTS):
                self.mock.begin(status)
                self.assertRaises(TemporaryFailError, cb.set, "k", 1)
                wrong = self.mock.end(status)
                if wrong is None:
                    break
            self.assertIsNone(wrong, strategy)


class GreenletRetryTests(InGreenlets, BlockingRetryTests):
    """The gevent client."""

    face = GConnection


class TwistedRetryTests(unittest.TestCase):
    """The Twisted client."""

    skip = missing()

    @inlineCallbacks
    def test_strategies(self):
        """The same."""
        mock = Checked()
        self.addCleanup(mock.stop)
        cb = TxConnection(bucket="default", connection_string=mock.string, timeout=30)
        self.addCleanup(cb._close)
        yield cb.connect()
        yield cb.set("k", 1)
        for strategy, status in STATUSES.items():
            for _ in range(ATTEMPTS):
                mock.begin(status)
                yield self.assertFailure(cb.set("k", 1), TemporaryFailError)
                wrong = mock.end(status)
                if wrong is None:
                    break
            self.assertIsNone(wrong, strategy)
