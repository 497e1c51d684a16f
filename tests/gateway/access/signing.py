"""Keys and tokens for tests, signed without the library that the gateway uses."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from hashlib import sha256
from hmac import digest as hmac_digest
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

NOW = 1_800_000_000
ISSUER = "https://issuer.example"
AUDIENCE = "couchgateway"

# Numbers of keys are made once: RSA takes a while.
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
SHORT_RSA = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
EC384 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
SECRET = b"0123456789abcdef0123456789abcdef"


def b64(data: bytes | int, size: int | None = None) -> str:
    """Return base64url without padding; of a number, its bytes."""
    if isinstance(data, int):
        data = data.to_bytes(size or (data.bit_length() + 7) // 8, "big")
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def jwk(key: Any, kid: str | None = None, **members: Any) -> dict[str, Any]:
    """Return the public half of a key, or a secret, as a JSON Web Key."""
    if isinstance(key, bytes):
        row: dict[str, Any] = {"kty": "oct", "k": b64(key)}
    elif isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        row = {"kty": "RSA", "n": b64(numbers.n), "e": b64(numbers.e)}
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        size = (key.curve.key_size + 7) // 8
        row = {
            "kty": "EC",
            "crv": f"P-{key.curve.key_size}",
            "x": b64(point.x, size),
            "y": b64(point.y, size),
        }
    else:
        row = {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}
    return {**row, **({} if kid is None else {"kid": kid}), **members}


def jwks(*keys: dict[str, Any]) -> bytes:
    """Return a set of keys."""
    return json.dumps({"keys": list(keys)}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    """Return the claims of a good token; ``None`` leaves one out."""
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": NOW + 60, **changed}
    return {name: value for name, value in usual.items() if value is not None}


def signature(key: Any, algorithm: str, data: bytes) -> bytes:
    """Sign."""
    if algorithm == "none":
        return b""
    if algorithm.startswith("HS"):
        return hmac_digest(key, data, algorithm.replace("HS", "sha"))
    if algorithm.startswith("ES"):
        size = (key.curve.key_size + 7) // 8
        first, second = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return first.to_bytes(size, "big") + second.to_bytes(size, "big")
    if algorithm == "EdDSA":
        return bytes(key.sign(data))
    if algorithm == "PS256":
        return bytes(key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()))
    return bytes(key.sign(data, padding.PKCS1v15(), hashes.SHA256()))


def token(
    payload: dict[str, Any] | bytes | None = None,
    key: Any = RSA,
    algorithm: str = "RS256",
    header: dict[str, Any] | bytes | None = None,
    **changed: Any,
) -> str:
    """Return a signed token.

    :param payload: claims, or bytes in their place; ``None`` for good ones, with ``changed``.
    :param header: members in addition to ``alg``, or bytes in place of all.
    """
    if payload is None:
        payload = claims(**changed)
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    if not isinstance(header, bytes):
        header = json.dumps({"alg": algorithm, **(header or {})}).encode()
    data = f"{b64(header)}.{b64(payload)}".encode()
    return f"{data.decode()}.{b64(signature(key, algorithm, data))}"


def fingerprint(text: str) -> str:
    """Return the hash of an API key as its file has it."""
    return sha256(text.encode()).hexdigest()
