"""User names and passwords: which ones are refused before anything is sent, and that none is printed."""

from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.admin import Admin
from couchbase.connection import Connection
from couchbase.exceptions import ArgumentError
from couchbase.protocol.handshake import Credentials
from couchbase.protocol.sasl import ScramClient, derive_scram_credential, encode_plain, has_control

try:
    from txcouchbase.connection import Connection as TxConnection
except ImportError:
    # These tests also run with nothing but the requirements of the blocking SDK.
    TxConnection = None

CONTROLS = ["\0", "\0\0\0", "\x01", "\t", "\n", "\r\n", "\x1b", "\x7f", "\x85", "\x9f"]


def faces(username, password):
    """Return ways to pass credentials to the SDK; none of them opens a socket."""
    target = {"bucket": "b", "host": "127.0.0.1:1", "username": username, "password": password}
    connections = [Connection] if TxConnection is None else [Connection, TxConnection]
    return [
        *(partial(connection, **target) for connection in connections),
        lambda: Admin(username, password, host="127.0.0.1", port=1),
    ]


class ControlCharacterTests(SynchronousTestCase):
    """Control characters, which RFC 7617 and SASLprep forbid."""

    def test_connections_refuse_them(self):
        """Each face of the SDK refuses them with an error that names the argument, not its value."""
        for control in CONTROLS:
            for username, password, named in [
                ("ann", "s3cret" + control, "password"),
                ("ann", control + "s3cret", "password"),
                ("ann" + control, "s3cret", "username"),
            ]:
                for connect in faces(username, password):
                    error = self.assertRaises(ArgumentError, connect)
                    self.assertIn(f"{named} contains control characters", str(error))
                    self.assertNotIn("s3cret", f"{error} {error!r}")

    def test_mechanisms_refuse_them(self):
        """No message with them is ever built: no PLAIN message, no SCRAM proof."""
        for control in CONTROLS:
            self.assertRaises(ValueError, encode_plain, "ann", "s3cret" + control)
            self.assertRaises(ValueError, ScramClient, "SCRAM-SHA1", "ann", "s3cret" + control, "n")
            self.assertRaises(ValueError, ScramClient, "SCRAM-SHA1", "ann" + control, "s3cret", "n")

    @given(st.text())
    def test_other_text_passes(self, text):
        """Only code points below 32 and from 127 to 159 are control characters."""
        expected = any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text)
        self.assertEqual(has_control(text), expected)


class SecrecyTests(SynchronousTestCase):
    """No password in what is printed."""

    def test_reprs(self):
        """Credentials show the user alone; SCRAM keys, which stand for the password, are not shown."""
        shown = repr(Credentials("ann", "s3cret"))
        self.assertIn("ann", shown)
        self.assertNotIn("s3cret", shown)
        keys = derive_scram_credential("SCRAM-SHA1", "s3cret", b"saltsalt", 4096)
        for key in (keys.stored_key, keys.server_key):
            self.assertNotIn(repr(key), repr(keys))

    def test_a_password_of_another_type(self):
        """A password that is no text is refused by its type, and not quoted."""
        for connect in faces("ann", b"s3cret"):
            error = self.assertRaises(ArgumentError, connect)
            self.assertIn("password must be a str, not bytes", str(error))
            self.assertNotIn("s3cret", f"{error} {error!r}")
