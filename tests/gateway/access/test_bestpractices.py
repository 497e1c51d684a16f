"""RFC 8725, best current practices for JSON Web Tokens: each item, and the tests that show how it is met."""

from __future__ import annotations

import json
from importlib import import_module
from zlib import compress

from twisted.trial.unittest import SynchronousTestCase

from gateway.access.jwks import WrongKeySet, parse_key_set
from tests.gateway.access.signing import EC, RSA, SECRET, b64, claims, jwk, jwks, signature, token
from tests.gateway.access.test_tokens import TokenTestCase, keys

TOKENS = "tests.gateway.access.test_tokens."
HERE = "tests.gateway.access.test_bestpractices."

ITEMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "3.1 verify the algorithm": (
        "The key has one algorithm; a token with another is refused before its signature is looked at.",
        (
            TOKENS + "ForgedTests.test_algorithm_none",
            TOKENS + "ForgedTests.test_confused_algorithms",
            TOKENS + "ForgedTests.test_other_keys",
        ),
    ),
    "3.2 use suitable algorithms": (
        "RS256, ES256, EdDSA and HS256 only; no 'none', no RSA encryption. The list is in one place.",
        (TOKENS + "AcceptedTests.test_algorithms", HERE + "PracticeTests.test_algorithms"),
    ),
    "3.3 validate all cryptographic operations": (
        "One signature, no nesting and no encryption: if it is wrong, the whole token is refused.",
        (TOKENS + "ForgedTests.test_changed_parts", HERE + "PracticeTests.test_nested"),
    ),
    "3.4 validate cryptographic inputs": (
        "Points that are not on the curve are no keys, and numbers out of range are no signatures.",
        (
            HERE + "PracticeTests.test_points",
            HERE + "PracticeTests.test_signature_numbers",
            TOKENS + "KeySetTests.test_left_out",
        ),
    ),
    "3.5 keys with enough entropy": (
        "Secrets of 32 bytes or more, RSA keys of 2048 bits or more. How random a secret is cannot be seen.",
        (TOKENS + "KeySetTests.test_left_out",),
    ),
    "3.6 no compression before encryption": (
        "Nothing is encrypted, and nothing is decompressed.",
        (HERE + "PracticeTests.test_compressed",),
    ),
    "3.7 UTF-8": (
        "Header and claims are UTF-8; other encodings are refused.",
        (HERE + "PracticeTests.test_encodings", TOKENS + "ForgedTests.test_claims"),
    ),
    "3.8 validate issuer and subject": (
        "The issuer is compared with the one that the keys belong to; there has to be a subject.",
        (TOKENS + "ForgedTests.test_claims",),
    ),
    "3.9 use and validate the audience": (
        "A token without an audience, or for others only, is refused.",
        (TOKENS + "ForgedTests.test_claims",),
    ),
    "3.10 do not trust received claims": (
        "kid is only compared with ids; jku, x5u, jwk and x5c are not followed; claims cannot widen a rule.",
        (
            TOKENS + "ForgedTests.test_ids_of_keys",
            TOKENS + "ForgedTests.test_other_keys",
            TOKENS + "ClaimTests.test_no_ambiguity",
        ),
    ),
    "3.11 explicit types": (
        "A typ other than JWT and at+jwt is refused. Without typ it is accepted: many issuers send none.",
        (TOKENS + "ForgedTests.test_headers", HERE + "PracticeTests.test_types"),
    ),
    "3.12 rules that exclude other kinds of tokens": (
        "By typ, audience and issuer, and by the required claims: logout and DPoP tokens are refused.",
        (TOKENS + "ForgedTests.test_headers", HERE + "PracticeTests.test_other_kinds"),
    ),
}
"""For each item: how it is met, and the tests for it."""


class TableTests(SynchronousTestCase):
    """The table."""

    def test_items(self) -> None:
        """Every item of section 3 has tests, and these exist."""
        self.assertEqual([item.partition(" ")[0] for item in ITEMS], [f"3.{n}" for n in range(1, 13)])
        for item, (_, tests) in ITEMS.items():
            self.assertTrue(tests, item)
            for name in tests:
                module, group, test = name.rsplit(".", 2)
                self.assertTrue(callable(getattr(getattr(import_module(module), group), test)), name)


class PracticeTests(TokenTestCase):
    """What the other tests of tokens leave open."""

    def test_algorithms(self) -> None:
        """Any other registered algorithm is refused, whoever signs."""
        for name in (
            "none", "HS384", "HS512", "RS384", "RS512", "ES384", "ES512", "ES256K", "PS256", "PS384", "PS512",
            "RSA1_5", "RSA-OAEP", "dir", "A128KW", "ECDH-ES", "Ed448",
        ):  # fmt: skip
            header = json.dumps({"alg": name, "kid": "r"}).encode()
            self.refuse(token(header=header), "algorithm is not one of")

    def test_nested(self) -> None:
        """A token within a token, and encrypted ones, are refused."""
        self.refuse(token(header={"cty": "JWT"}, payload=token().encode()), "")
        self.refuse(".".join([token(), "AAAA", "AAAA"]), "three parts")
        self.refuse(token(header={"enc": "A256GCM", "alg": "dir"}), "algorithm is not one of")

    def test_points(self) -> None:
        """Points that are not on the curve, the one at infinity, and coordinates that are out of range."""
        good = jwk(EC)
        for x, y in (
            (b64(b"\0" * 32), b64(b"\0" * 32)),
            (good["y"], good["x"]),
            (good["x"], b64(b"\xff" * 32)),
            (good["x"], b64(b"\1")),
        ):
            error = self.assertRaises(
                WrongKeySet, parse_key_set, jwks({**good, "x": x, "y": y}), secrets=False
            )
            self.assertIn("no valid key", str(error))

    def test_signature_numbers(self) -> None:
        """A signature of ES256 is two numbers from 1 to the order of the curve, of 32 bytes each."""
        head, payload, real = token(key=EC, algorithm="ES256", header={"kid": "e"}).split(".")
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        number = order.to_bytes(32, "big")
        for wrong in (bytes(64), b"\0" * 32 + number, number * 2, b"\xff" * 64, bytes(63), bytes(65), b"0"):
            self.refuse(f"{head}.{payload}.{b64(wrong)}", "signature is wrong")
        self.accept(f"{head}.{payload}.{real}")

    def test_compressed(self) -> None:
        """Compressed claims are refused, also with the header zip, which is for encrypted tokens."""
        payload = compress(json.dumps(claims()).encode())
        self.refuse(token(payload, header={"zip": "DEF"}), "")
        self.refuse(token(payload), "")

    def test_encodings(self) -> None:
        """Claims and headers in UTF-16, UTF-32, Latin-1, or UTF-8 with a byte order mark."""
        text = json.dumps(claims(sub="Zoë"), ensure_ascii=False)
        self.accept(token(text.encode("utf-8")))
        for encoding in ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig"):
            self.refuse(token(text.encode(encoding)), "")
            if encoding != "latin-1":
                header = json.dumps({"alg": "RS256", "kid": "r"}).encode(encoding)
                self.refuse(token(header=header), "")

    def test_types(self) -> None:
        """The types of access tokens are accepted in any case, and none is; other types are not."""
        for kind in ("JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"):
            self.accept(token(header={"typ": kind}))
        self.accept(token())
        for kind in ("", " JWT", "JWT ", "id+jwt", "application/jwt;x", "at+jwt+x"):
            self.refuse(token(header={"typ": kind}), "typ is not")

    def test_other_kinds(self) -> None:
        """A token of the same issuer for a client of its own, and one of another issuer with a known key."""
        self.refuse(token(aud="client-id", nonce="n"), "another audience")
        self.refuse(token(iss="https://other.example"), "another issuer")
        data = (
            f"{b64(json.dumps({'alg': 'HS256', 'kid': 's'}).encode())}.{b64(json.dumps(claims()).encode())}"
        )
        signed = f"{data}.{b64(signature(SECRET, 'HS256', data.encode()))}"
        self.accept(signed)
        self.refuse(signed, "a key that is not known", known=keys(jwk(RSA, "r")))
