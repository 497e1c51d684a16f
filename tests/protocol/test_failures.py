"""Errors of what no server reported."""

from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from couchbase.exceptions import error_of
from couchbase.protocol.clustermap import parse_cluster_map
from couchbase.protocol.failures import error_context, seed_error
from couchbase.protocol.frames import Frame

DEEP = b"[" * 100_000


class DeepTests(SynchronousTestCase):
    """A server's JSON that is nested more deeply than Python can follow."""

    def test_context(self):
        """It explains nothing."""
        frame = Frame(0x81, 0, 1, 1, 0, 0, b"", b"", b"", b'{"error":{"context":' + DEEP)
        self.assertIsNone(error_context(frame))
        frame = frame._replace(value=b'{"error":{"context":"why"}}')
        self.assertEqual(error_context(frame), "why")

    def test_map(self):
        """It is no map."""
        error = self.assertRaises(exceptions.ProtocolError, parse_cluster_map, b'{"nodes":' + DEEP, "h")
        self.assertIn("the cluster map from h cannot be used", error.message)


class SeedTests(SynchronousTestCase):
    """A seed whose two ports fail."""

    def check(self, first, second, code, message):
        """Compare the error of a seed."""
        failures = [error_of(*one) for one in (first, second) if one]
        error = seed_error(failures)
        self.assertEqual((error.rc, error.message), (code, message))

    def test_the_last_one(self):
        """The error of HTTP, with the cause on the key-value port."""
        lost = (exceptions.ETIMEDOUT, "h:1 does not answer")
        refused = (exceptions.NETWORK_ERROR, "h:2 refused")
        self.check(lost, refused, exceptions.NETWORK_ERROR, "h:2 refused; h:1 does not answer")
        self.check(lost, None, exceptions.ETIMEDOUT, "h:1 does not answer")

    def test_tls(self):
        """A failure of TLS comes first."""
        refused = (exceptions.NETWORK_ERROR, "h:2 refused")
        for code in (exceptions.SSL_ERROR, exceptions.SSL_CANTVERIFY):
            self.check((code, "h:1: no"), refused, code, "h:1: no; h:2 refused")
            self.check(refused, (code, "h:1: no"), code, "h:1: no; h:2 refused")
        both = (exceptions.SSL_ERROR, "h:1: no"), (exceptions.SSL_CANTVERIFY, "h:2: no")
        self.check(*both, exceptions.SSL_ERROR, "h:1: no; h:2: no")

    def test_the_same_words(self):
        """One cause is named once, and an error without words adds none."""
        refused = (exceptions.NETWORK_ERROR, "refused")
        self.check(refused, refused, exceptions.NETWORK_ERROR, "refused")
        self.check((exceptions.ETIMEDOUT, None), refused, exceptions.NETWORK_ERROR, "refused")

    def test_again(self):
        """Asked with one more failure each time, the message has each cause once."""
        failures = [error_of(exceptions.NETWORK_ERROR, "a")]
        seed_error(failures)
        failures.append(error_of(exceptions.NETWORK_ERROR, "b"))
        self.assertEqual(seed_error(failures).message, "b; a")
