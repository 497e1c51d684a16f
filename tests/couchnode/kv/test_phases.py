"""The phases of a key-value connection: which may follow which."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import Opcode
from couchbase.protocol.frames import encode_request
from couchnode.kv.phases import MAY_FOLLOW, Life
from tests.couchnode.kv.test_server import InMemoryCase


class TableTests(SynchronousTestCase):
    """The table itself."""

    def test_every_phase_has_a_row(self) -> None:
        """The table has every phase, and the end can be reached from each other phase."""
        self.assertEqual(set(MAY_FOLLOW), set(Life))
        for life, following in MAY_FOLLOW.items():
            self.assertEqual(Life.LOST in following, life is not Life.LOST, life)

    def test_no_way_back(self) -> None:
        """A closing session never handles a request again, and nothing follows the end."""
        self.assertEqual(MAY_FOLLOW[Life.CLOSING], {Life.LOST})
        self.assertEqual(MAY_FOLLOW[Life.LOST], frozenset())


class WalkTests(InMemoryCase):
    """A connection as it goes through them."""

    def test_quit(self) -> None:
        """Idle, handling, closing, lost: in this order, each once."""
        walked: list[Life] = []
        connection = self.connection
        enter = connection._enter

        def note(life: Life) -> None:
            enter(life)
            walked.append(life)

        connection._enter = note  # type: ignore[method-assign]
        connection.dataReceived(encode_request(Opcode.NOOP))
        self.assertEqual(walked, [Life.HANDLING, Life.IDLE])
        connection.dataReceived(encode_request(Opcode.QUIT) + encode_request(Opcode.NOOP))
        self.assertEqual(walked[2:], [Life.HANDLING, Life.CLOSING])
        connection.dataReceived(encode_request(Opcode.NOOP))
        connection.connectionLost()
        self.assertEqual(walked[4:], [Life.LOST])

    def test_forbidden(self) -> None:
        """A step that the table does not have is an error of ours, and changes nothing."""
        self.connection.connectionLost()
        self.assertRaises(AssertionError, self.connection._enter, Life.IDLE)
        self.assertIs(self.connection._life, Life.LOST)
