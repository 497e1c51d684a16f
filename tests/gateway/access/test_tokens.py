"""Tokens: which are accepted, and what an attacker may try."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis.strategies import (
    binary,
    booleans,
    dictionaries,
    floats,
    integers,
    lists,
    none,
    recursive,
    text,
)
from twisted.trial.unittest import SynchronousTestCase

from gateway.access.jwks import KeySet, WrongKeySet, parse_key_set
from gateway.access.rights import Identity
from gateway.access.tokens import (
    LONGEST_TOKEN,
    TokenRefused,
    TokenTerms,
    UnknownKey,
    Verified,
    identity_of,
    verify,
)
from tests.gateway.access.signing import (
    AUDIENCE,
    EC,
    EC384,
    ED,
    ISSUER,
    NOW,
    OTHER_RSA,
    RSA,
    SECRET,
    SHORT_RSA,
    b64,
    claims,
    jwk,
    jwks,
    signature,
    token,
)

TERMS = TokenTerms(ISSUER, (AUDIENCE, "second"))


def keys(*rows: dict[str, Any], secrets: bool = True) -> KeySet:
    """Return a set of these keys; without any, of one for each algorithm."""
    rows = rows or (jwk(RSA, "r"), jwk(EC, "e"), jwk(ED, "d"), jwk(SECRET, "s"))
    return parse_key_set(jwks(*rows), secrets=secrets)


class TokenTestCase(SynchronousTestCase):
    """Checks tokens."""

    known = keys()

    def accept(
        self, given_token: str, known: KeySet | None = None, now: float = NOW, **terms: Any
    ) -> Verified:
        """Return what is known of a token that is accepted."""
        return verify(given_token.encode(), known or self.known, TERMS._replace(**terms), now)

    def refuse(
        self, given_token: str | bytes, why: str, known: KeySet | None = None, now: float = NOW, **terms: Any
    ) -> TokenRefused:
        """Check that a token is refused for a reason."""
        data = given_token if isinstance(given_token, bytes) else given_token.encode()
        refused = self.assertRaises(
            TokenRefused, verify, data, known or self.known, TERMS._replace(**terms), now
        )
        self.assertIn(why, str(refused), data[:200])
        # It goes into a header.
        self.assertRegex(str(refused), r"\A[ !#-\[\]-~]{1,200}\Z")
        return refused


class AcceptedTests(TokenTestCase):
    """Good tokens."""

    def test_algorithms(self) -> None:
        """Each algorithm, with and without the key's id where it is not needed."""
        for key, kid, algorithm in (
            (RSA, "r", "RS256"),
            (EC, "e", "ES256"),
            (ED, "d", "EdDSA"),
            (SECRET, "s", "HS256"),
        ):
            for header in ({"kid": kid}, {}, {"kid": kid, "typ": "JWT"}, {"typ": "at+jwt"}):
                verified = self.accept(token(key=key, algorithm=algorithm, header=header))
                self.assertEqual((verified.claims["sub"], verified.until), ("ann", NOW + 60))

    def test_claims(self) -> None:
        """Several audiences, times with fractions, and any further claims."""
        for changed in (
            {"aud": ["x", "second"]},
            {"exp": NOW + 0.5},
            {"nbf": NOW, "iat": NOW - 5},
            {"roles": ["a"], "realm": {"x": None}},
        ):
            self.accept(token(**changed))
        self.accept(token(exp=NOW - 4, nbf=NOW + 4, iat=NOW + 4), skew_seconds=5)


class ForgedTests(TokenTestCase):
    """What attackers try."""

    def test_algorithm_none(self) -> None:
        """No signature is no token, however it is written."""
        for name in ("none", "None", "NONE", "nOnE", ""):
            self.refuse(token(algorithm="none", header={"alg": name}), "three parts")
            forged = token(algorithm="none", header={"alg": name}) + b64(b"x")
            self.refuse(forged, "algorithm is not one of")
            good = token().rpartition(".")[0]
            self.refuse(good + ".", "three parts")
            self.refuse(good, "three parts")

    def test_confused_algorithms(self) -> None:
        """A public key is no secret, in whatever form it is taken for one."""
        public = RSA.public_key()
        numbers = public.public_numbers()
        only_rsa = keys(jwk(RSA, "r"))
        for secret in (
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
            json.dumps(jwk(RSA, "r")).encode(),
            numbers.n.to_bytes(256, "big"),
            b"",
        ):
            for header in ({"kid": "r"}, {}):
                for known in (only_rsa, self.known):
                    self.refuse(token(key=secret, algorithm="HS256", header=header), "", known)
        self.refuse(
            token(key=SECRET, algorithm="HS256", header={"kid": "r"}), "no key for the token's algorithm"
        )
        for algorithm in (
            "RS384",
            "RS512",
            "PS256",
            "ES384",
            "HS384",
            "HS512",
            "Ed25519",
            "rs256",
            "dir",
            None,
            1,
            [],
        ):
            name = algorithm if isinstance(algorithm, str) and algorithm.startswith(("HS", "PS")) else "RS256"
            key = SECRET if name.startswith("HS") else RSA
            self.refuse(token(key=key, algorithm=name, header={"alg": algorithm}), "algorithm is not one of")

    def test_other_keys(self) -> None:
        """A key signs for its own algorithm and id only, and keys in the token do not count."""
        foreign = jwk(OTHER_RSA, "r")
        for header in (
            {"kid": "r"},
            {"kid": "r", "jwk": foreign},
            {"kid": "r", "jku": "https://evil.example/keys"},
            {"kid": "r", "x5u": "https://evil.example/cert", "x5c": ["MII"]},
            {"jwk": foreign},
        ):
            self.refuse(token(key=OTHER_RSA, header=header), "signature is wrong")
        self.refuse(token(key=EC, algorithm="ES256", header={"kid": "r"}), "no key for the token's algorithm")
        self.refuse(token(header={"kid": "e"}), "no key for the token's algorithm")
        self.refuse(token(), "no key for the token's algorithm", keys(jwk(RSA, "r"), jwk(OTHER_RSA, "q")))
        self.accept(token(header={"kid": "q"}, key=OTHER_RSA), keys(jwk(RSA, "r"), jwk(OTHER_RSA, "q")))

    def test_ids_of_keys(self) -> None:
        """They are only compared: a path, a statement or a long text finds nothing, and does nothing."""
        for kid in (
            "../../../../dev/null",
            "/dev/null",
            "r' OR '1'='1",
            "r\0",
            "R",
            "",
            "r ",
            "*",
            "x" * 256,
        ):
            refused = self.refuse(token(header={"kid": kid}), "a key that is not known")
            self.assertIsInstance(refused, UnknownKey)
        for kid in ("x" * 257, 1, ["r"], {"r": 1}, True, None):
            self.refuse(token(header={"kid": kid}), "kid must be a short string")

    def test_changed_parts(self) -> None:
        """Any change of any part, and any part of another token."""
        header, payload, signed = token(header={"kid": "r"}).split(".")
        other = token(header={"kid": "r"}, sub="eve").split(".")
        for changed in (
            (header, other[1], signed),
            (header, payload, other[2]),
            (header, payload, signed[:-4]),
            (header, payload, b64(b"\0" * 256)),
            (header, payload, b64(b"")),
            (b64(b'{"alg":"RS256","kid":"r" }'), payload, signed),
        ):
            self.refuse(".".join(changed), "")
        es = token(key=EC, algorithm="ES256", header={"kid": "e"}).rpartition(".")[0]
        for forged in (b"\0" * 64, b"\0" * 63 + b"\1", b"\xff" * 64, b"", b"\0" * 63):
            self.refuse(f"{es}.{b64(forged)}", "")

    def test_shapes(self) -> None:
        """Texts that are not tokens; tokens that are too long, nested deep, or ambiguous."""
        good = token()
        for wrong in (
            "", ".", "..", "...", "a.b", good + ".x", " " + good, good + "\n", good.replace(".", ".."),
            good + "=", good.replace(".", ".+", 1), good[:-2] + "/" + good[-1], good + "\u00e9",
        ):  # fmt: skip
            self.refuse(wrong, "")
        self.refuse(b"\xff.\xff.\xff", "three parts")
        self.refuse(token(padding="x" * LONGEST_TOKEN), "at most 8192")
        for nested in (b"[" * 4000, b'{"a":' * 900, b'{"alg":"RS256","a":' + b"[" * 900 + b"]" * 900 + b"}"):
            self.refuse(token(header=nested), "")
            self.refuse(token(nested), "")
        for odd in (
            b"",
            b"1",
            b"[]",
            b"null",
            b'"RS256"',
            b"{",
            b"\xff",
            b'{"alg":NaN}',
            b'{"alg":"RS256",}',
        ):
            self.refuse(token(header=odd), "")
            self.refuse(token(odd), "")
        self.refuse(token(header=b'{"alg":"none","alg":"RS256"}'), "distinct names")
        self.refuse(token(header=b'{"alg":"RS256","alg":"none"}'), "distinct names")
        text_of_it = json.dumps(claims())[:-1]
        for repeated in ('"sub":"eve"', '"exp":99999999999', '"x":{"a":1,"a":2}', '"\\u0073ub":"eve"'):
            self.refuse(token(f"{text_of_it},{repeated}}}".encode()), "distinct names")

    def test_headers(self) -> None:
        """Extensions that must be understood, and tokens made for something else."""
        self.refuse(token(header={"crit": ["exp"], "exp": NOW}), "crit")
        self.refuse(token(header={"crit": ["b64"], "b64": False}), "crit")
        self.refuse(token(header={"crit": None}), "crit")
        for kind in ("logout+jwt", "dpop+jwt", "secevent+jwt", "JWE", 1, ["JWT"]):
            self.refuse(token(header={"typ": kind}), "typ is not")

    def test_claims(self) -> None:
        """Issuer, audience and subject have to be there, and right."""
        for changed, why in (
            ({"iss": None}, "lacks the claim iss"),
            ({"iss": ISSUER + "/"}, "another issuer"),
            ({"iss": [ISSUER]}, ""),
            ({"aud": None}, "lacks the claim aud"),
            ({"aud": "other"}, "another audience"),
            ({"aud": []}, ""),
            ({"aud": [1, AUDIENCE]}, ""),
            ({"aud": {"couchgateway": 1}}, ""),
            ({"aud": AUDIENCE[:4]}, "another audience"),
            ({"sub": None}, "lacks the claim sub"),
            ({"sub": ""}, ""),
            ({"sub": 5}, ""),
            ({"sub": "x" * 2000}, "short string"),
            ({"sub": "a\ud800b"}, "surrogate"),
            ({"sub": "\udc00"}, "surrogate"),
            ({"exp": None}, "lacks the claim exp"),
        ):
            self.refuse(token(**changed), why)

    def test_times(self) -> None:
        """Expired by a second, or not valid yet, by the clock that is passed in; odd times are no times."""
        for changed, why in (
            ({"exp": NOW}, "has expired"),
            ({"exp": NOW - 1}, "has expired"),
            ({"exp": 0}, "has expired"),
            ({"nbf": NOW + 1}, "not valid yet"),
            ({"iat": NOW + 1}, "not valid yet"),
            *(({"exp": odd}, "") for odd in (-1, "9" * 12, True, 1e300, [NOW], {}, 10**20)),
            *(({"nbf": odd}, "") for odd in ("0", False, -1, [0])),
            *(({"iat": odd}, "") for odd in ("0", False, -5, [0])),
        ):
            self.refuse(token(**changed), why)
        for infinite in (b"Infinity", b"NaN", b"1e999", b"-1e999"):
            payload = json.dumps(claims()).encode().replace(str(NOW + 60).encode(), infinite)
            self.refuse(token(payload), "")
        self.refuse(token(exp=NOW - 5), "has expired", skew_seconds=5)
        self.refuse(token(nbf=NOW + 6), "not valid yet", skew_seconds=5)
        good = token()
        self.accept(good, now=NOW + 59.9)
        self.refuse(good, "has expired", now=NOW + 60)

    @given(binary(max_size=60), binary(max_size=60), binary(max_size=20))
    def test_any_bytes(self, header: bytes, payload: bytes, signed: bytes) -> None:
        """Nothing but a refusal comes of arbitrary bytes, signed or not."""
        for parts in (
            header + b"." + payload + b"." + signed,
            ".".join(map(b64, (header, payload, signed))).encode(),
        ):
            self.assertRaises(TokenRefused, verify, parts, self.known, TERMS, NOW)
        data = f"{b64(header)}.{b64(payload)}"
        self.refuse(f"{data}.{b64(signature(RSA, 'RS256', data.encode()))}", "")


class KeySetTests(SynchronousTestCase):
    """Which keys count."""

    def test_left_out(self) -> None:
        """Keys for other purposes, weak ones, and secrets that come from a URL."""
        for row, secrets in (
            (jwk(SHORT_RSA, "k"), True),
            (jwk(EC384, "k"), True),
            (jwk(RSA, "k", alg="RS512"), True),
            (jwk(RSA, "k", alg="HS256"), True),
            (jwk(EC, "k", alg="RS256"), True),
            (jwk(RSA, "k", use="enc"), True),
            (jwk(RSA, "k", key_ops=["sign"]), True),
            *((jwk(RSA, "k", key_ops=odd), True) for odd in (5, True, "verify", {"verify": 1}, [["verify"]])),
            (jwk(RSA, "x" * 257), True),
            ({**jwk(RSA), "kid": 5}, True),
            (jwk(SECRET, "k"), False),
            (jwk(SECRET[:31], "k"), True),
            ({"kty": "RSA", "n": "AQAB", "e": "AQAB"}, True),
            ({"kty": "RSA", "n": 5, "e": []}, True),
            ({"kty": "EC", "crv": "P-256", "x": b64(b"\1" * 32), "y": b64(b"\2" * 32)}, True),
            ({"kty": ["RSA"]}, True),
            ({"kty": "oct", "k": None}, True),
            ({}, True),
        ):
            error = self.assertRaises(WrongKeySet, parse_key_set, jwks(row), secrets=secrets)
            self.assertIn("no valid key", str(error), row)
            both = parse_key_set(jwks(row, jwk(RSA, "good")), secrets=secrets)
            self.assertEqual((len(both), both.knows("good")), (1, True))

    def test_sets(self) -> None:
        """Texts that are not sets, and sets that are too large."""
        for content, why in (
            (b"", "not JSON"),
            (b"[" * 100_000, "not JSON"),
            (b"[]", "expected a JSON Web Key Set"),
            (b"{}", "expected a JSON Web Key Set"),
            (b'{"keys":{}}', "expected a JSON Web Key Set"),
            (b'{"keys":[1]}', "expected a JSON Web Key Set"),
            (jwks(*[jwk(ED, str(number)) for number in range(101)]), "at most 100"),
            (b" " * (2**18 + 1), "at most 262144"),
        ):
            self.assertIn(why, str(self.assertRaises(WrongKeySet, parse_key_set, content, secrets=True)))

    def test_private_halves(self) -> None:
        """A private key that was published by mistake is kept without its private half."""
        secret = ED.private_bytes_raw()
        row = {**jwk(ED, "d"), "d": b64(secret)}
        found = parse_key_set(jwks(row), secrets=False).find("d", "EdDSA")
        assert found is not None
        self.assertFalse(hasattr(found.key, "sign"))

    def test_private_numbers(self) -> None:
        """The private numbers of a key are not looked at: without its primes, they would be computed, which
        takes seconds; and wrong ones say nothing about the public half."""
        for row in (
            {**jwk(RSA, "k"), "d": b64(2**2047 + 1)},
            {**jwk(RSA, "k"), "d": 5, "p": [], "q": None, "dp": "", "dq": "!", "qi": {}, "oth": 1},
            {**jwk(EC, "k"), "d": b64(b"\0" * 32)},
            {**jwk(ED, "k"), "d": "AA"},
        ):
            self.assertTrue(parse_key_set(jwks(row), secrets=False).knows("k"), row)


JSON_VALUES = recursive(
    none() | booleans() | integers() | floats(allow_nan=False) | text(max_size=5),
    lambda inner: lists(inner, max_size=3) | dictionaries(text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


class ClaimTests(SynchronousTestCase):
    """Claims as facts for rules."""

    def test_facts(self) -> None:
        """Nested claims by their path, lists by their members, numbers and truth values by their text."""
        identity = identity_of(
            {
                "sub": "ann",
                "groups": ["a", "b"],
                "realm": {"roles": ["x"], "level": 3},
                "staff": True,
                "none": None,
            }
        )
        self.assertEqual(
            identity.facts,
            {
                ("subject", "ann"),
                *(("group", name) for name in "ab"),
                *(
                    ("claim", fact)
                    for fact in (
                        "sub=ann",
                        "groups=a",
                        "groups=b",
                        "realm.roles=x",
                        "realm.level=3",
                        "staff=true",
                    )
                ),
            },
        )
        self.assertEqual(identity.name, "ann")
        # A list has no single value.
        self.assertEqual((identity.values["groups"], identity.values["realm.roles"]), ("", "x"))

    def test_a_single_group(self) -> None:
        """``groups`` may be a string."""
        self.assertIn(("group", "a b"), identity_of({"sub": "ann", "groups": "a b"}).facts)

    def test_no_ambiguity(self) -> None:
        """The name of a claim cannot make it look like another claim."""
        facts = identity_of({"sub": "ann", "role=admin": "x", "ro*": "admin", "subject": "root"}).facts
        self.assertEqual(facts, {("subject", "ann"), ("claim", "sub=ann"), ("claim", "subject=root")})

    def test_many(self) -> None:
        """A token with hundreds of values is refused."""
        values = [str(number) for number in range(250)]
        self.assertRaises(TokenRefused, identity_of, {"sub": "ann", "groups": values})

    @given(dictionaries(text(max_size=5), JSON_VALUES, max_size=4))
    def test_any_claims(self, found: dict[str, Any]) -> None:
        """Whatever claims there are: a caller whose subject is the claim sub."""
        identity = identity_of({**found, "sub": "ann"})
        self.assertIsInstance(identity, Identity)
        self.assertEqual({value for kind, value in identity.facts if kind == "subject"}, {"ann"})
