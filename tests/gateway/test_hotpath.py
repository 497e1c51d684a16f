"""The cost of a GET and a PUT in the gateway, from the bytes of the request to those of the answer.

Counted in calls and bytecode, so a busy machine changes nothing; the limits are a little above what was
counted when they were written. A count over its limit means that a change has slowed down every request;
lower the limit with every improvement.
"""

from __future__ import annotations

from pathlib import Path

from gateway.access.jwks import KeySet, parse_key_set
from gateway.access.keys import key_line, new_key, read_keys
from gateway.access.keysource import FileKeys
from gateway.access.rules import Rule, RuleTable, Wildcard
from gateway.access.tokens import TokenTerms
from gateway.access.ways import ByKey, ByToken
from tests.gateway.access.ruled import ruled
from tests.gateway.access.signing import AUDIENCE, ISSUER, NOW, RSA, jwk, jwks, token
from tests.gateway.hotpath import CLIENT, HotPathCase
from tests.gateway.support import basic, passthrough, raw_request
from tests.txcouchbase import memory
from tests.txcouchbase.memory import STORED

PATH = "/v1/buckets/b/documents/key-17"
COLLECTED = "/v1/buckets/b/scopes/s/collections/c/documents/key-17"
JSON = {"Content-Type": "application/json"}

# Request -> calls, then bytecode instructions on CPython 3.11.
LIMITS = {
    "GET": (72, 1415),
    # At most three in a hundred above those of a document without one.
    "GET with an expiry": (72, 1425),
    "GET with credentials": (83, 1540),
    # At most a tenth above those of a password.
    "GET with a token": (84, 1570),
    "GET with an API key": (84, 1585),
    "GET of a known version": (79, 1520),
    "PUT": (82, 1610),
    "PUT with an expiry": (80, 1615),
    "mutate": (117, 2020),
    # At most a tenth above those of the default collection.
    "GET in a collection": (77, 1490),
    "PUT in a collection": (88, 1685),
}


class Keys(FileKeys):
    """The key of the tests' tokens."""

    def __init__(self) -> None:
        self._keys = parse_key_set(jwks(jwk(RSA)), secrets=False)

    def current(self) -> KeySet:
        """Return it."""
        return self._keys


class HotPathTests(HotPathCase):
    """The whole way of the most frequent requests."""

    limits = LIMITS

    def test_get(self) -> None:
        """A document read."""
        self.patch(memory, "LOOKUP", memory.LOOKUP.replace(b"\x0a1700000000", b"\x010"))
        self.check("GET", raw_request("GET", PATH, headers=CLIENT))

    def test_get_with_an_expiry(self) -> None:
        """A document with an expiry, as in all other tests, costs little more."""
        self.check("GET with an expiry", raw_request("GET", PATH, headers=CLIENT))

    def test_get_with_credentials(self) -> None:
        """A document read by a caller who proves himself."""
        headers = {**CLIENT, **basic("user", "password")}
        self.check("GET with credentials", raw_request("GET", PATH, headers=headers), passthrough())

    def test_get_with_a_token(self) -> None:
        """A document read by a caller with a token, which was verified before, as a rule allows."""
        way = ByToken(Keys(), TokenTerms(ISSUER, (AUDIENCE,)), lambda: NOW)
        reads = Rule("r", (("subject", Wildcard("ann")),), ("b",), ("*",), ("*",), frozenset({"read"}), None)
        authorizer = ruled(RuleTable((reads,), {}), [way], now=lambda: NOW)
        headers = {**CLIENT, "Authorization": "Bearer " + token()}
        self.check("GET with a token", raw_request("GET", PATH, headers=headers), authorizer)

    def test_get_with_an_api_key(self) -> None:
        """A document read by a caller with an API key, as a rule allows."""
        key = new_key()
        path = self.mktemp()
        Path(path).write_text(key_line("ann", key) + "\n", encoding="utf-8")
        keys = read_keys(path)
        reads = Rule("r", (("key", Wildcard("ann")),), ("b",), ("*",), ("*",), frozenset({"read"}), None)
        authorizer = ruled(RuleTable((reads,), {}), [ByKey(lambda: keys, lambda: NOW)], now=lambda: NOW)
        headers = {**CLIENT, "X-API-Key": key}
        self.check("GET with an API key", raw_request("GET", PATH, headers=headers), authorizer)

    def test_put(self) -> None:
        """A document stored."""
        self.check("PUT", raw_request("PUT", PATH, STORED, {**CLIENT, **JSON}))

    def test_get_of_a_known_version(self) -> None:
        """A client that has this version already."""
        headers = {**CLIENT, "If-None-Match": "*"}
        self.check("GET of a known version", raw_request("GET", PATH, headers=headers), status=304)

    def test_put_with_an_expiry(self) -> None:
        """A document stored for a time."""
        headers = {**CLIENT, **JSON, "Expires": "1h"}
        self.check("PUT with an expiry", raw_request("PUT", PATH, STORED, headers))

    def test_mutate(self) -> None:
        """One path of a document changed: little more than storing all of it."""
        body = b'{"operations":[{"operation":"DictSet","path":"a.b","value":42}]}'
        self.check("mutate", raw_request("POST", PATH + "/mutate", body, {**CLIENT, **JSON}))

    def test_collections(self) -> None:
        """The same in a named collection."""
        self.check("GET in a collection", raw_request("GET", COLLECTED, headers=CLIENT))
        self.check("PUT in a collection", raw_request("PUT", COLLECTED, STORED, {**CLIENT, **JSON}))
