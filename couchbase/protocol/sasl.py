"""SASL in Couchbase: SCRAM (RFC 5802) for both ends, and PLAIN (RFC 4616).

Mechanism names lack the second dash of the RFC's (``SCRAM-SHA512``). Key derivation takes milliseconds by
design, so drivers run it off their event loop. Only :meth:`ScramClient.step` and
:func:`derive_scram_credential` do it.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import Callable, NamedTuple
from unicodedata import category

MECHANISMS = ("SCRAM-SHA512", "SCRAM-SHA256", "SCRAM-SHA1", "PLAIN")
"""The supported mechanisms, strongest first."""

MIN_ITERATIONS = 4096
"""Minimum number of PBKDF2 iterations that a server may require (RFC 5802 section 5.1)."""

MAX_ITERATIONS = 1_000_000
"""Maximum of iterations: a hostile server must not cost minutes of processor time."""

_HASHES = {"SCRAM-SHA512": "sha512", "SCRAM-SHA256": "sha256", "SCRAM-SHA1": "sha1"}
_GS2_HEADER = "n,,"


class SaslFailure(Exception):
    """The peer does not have the right credentials (or is not who it claims to be)."""


class SaslMalformed(SaslFailure):
    """A SASL message does not follow its grammar."""


class ScramCredential(NamedTuple):
    """What a server stores for a password and one SCRAM mechanism; the password cannot be recovered from
    it."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        # With the keys, an attacker can test passwords offline.
        return f"ScramCredential(iterations={self.iterations}, ...)"


def derive_scram_credential(mechanism: str, password: str, salt: bytes, iterations: int) -> ScramCredential:
    """Derive the keys that a server stores for ``password``.

    :param mechanism: one of :data:`MECHANISMS` except PLAIN.
    :raises ValueError: another mechanism.
    """
    name = _hash_of(mechanism)
    salted = hashlib.pbkdf2_hmac(name, password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", name)
    return ScramCredential(
        salt, iterations, _digest(name, client_key), hmac.digest(salted, b"Server Key", name)
    )


class ScramClient:
    """The client's side of one SCRAM exchange.

    :param nonce: printable ASCII without a comma, fresh for every exchange.
    :raises ValueError: control characters in the user name or the password.
    """

    def __init__(self, mechanism: str, user: str, password: str, nonce: str) -> None:
        self.mechanism = mechanism
        self._hash = _hash_of(mechanism)
        self._password = password
        self._nonce = nonce
        check_sendable(user, password)
        escaped = user.replace("=", "=3D").replace(",", "=2C")
        self._first_bare = f"n={escaped},r={nonce}"
        self._server_signature = b""

    def first(self) -> bytes:
        """Return the client-first message."""
        return (_GS2_HEADER + self._first_bare).encode()

    def step(self, server_first: bytes) -> bytes:
        """Answer the server-first message; runs PBKDF2, so keep it off an event loop.

        :raises SaslMalformed: the message, its salt or its iteration count is unusable.
        :raises SaslFailure: the server's nonce does not continue ours.
        """
        fields = _fields(server_first, "rsi")
        nonce = fields["r"]
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise SaslFailure("the server's nonce does not continue ours")
        salt = _unbase64(fields["s"], "salt")
        try:
            iterations = int(fields["i"])
        except ValueError:
            raise SaslMalformed(f"iteration count {fields['i']!r} is not a number") from None
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise SaslMalformed(f"{iterations} iterations; {MIN_ITERATIONS} to {MAX_ITERATIONS} are accepted")
        without_proof = f"c={_base64(_GS2_HEADER.encode())},r={nonce}"
        auth_message = ",".join((self._first_bare, server_first.decode(), without_proof)).encode()
        name = self._hash
        salted = hashlib.pbkdf2_hmac(name, self._password.encode(), salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", name)
        signature = hmac.digest(_digest(name, client_key), auth_message, name)
        self._server_signature = hmac.digest(hmac.digest(salted, b"Server Key", name), auth_message, name)
        return f"{without_proof},p={_base64(_xor(client_key, signature))}".encode()

    def finish(self, server_final: bytes) -> None:
        """Check the server-final message, which proves that the server knows the password.

        Anything after the signature is ignored, as RFC 5802 demands for extensions.

        :raises SaslFailure: the server does not know the password.
        :raises SaslMalformed: the message does not parse.
        """
        fields = _fields(server_final, "v")
        signature = _unbase64(fields["v"], "server signature")
        if not self._server_signature or not hmac.compare_digest(signature, self._server_signature):
            raise SaslFailure("the server did not prove that it knows the password")


class ScramServer:
    """The server's side of one SCRAM exchange.

    :param lookup: user name -> credential for this mechanism, or ``None`` for an unknown user.
    :param nonce: our part of the nonce, fresh for every exchange.
    :param decoy_salt: user name -> salt shown for unknown users. It must always be the same for the same
        name, otherwise two requests would reveal which users exist.
    """

    def __init__(
        self,
        mechanism: str,
        lookup: Callable[[str], ScramCredential | None],
        nonce: str,
        decoy_salt: Callable[[str], bytes],
    ) -> None:
        self.mechanism = mechanism
        self.username = ""
        self._hash = _hash_of(mechanism)
        self._lookup = lookup
        self._nonce = nonce
        self._decoy_salt = decoy_salt
        self._credential: ScramCredential | None = None
        self._first_bare = ""
        self._server_first = ""

    def first(self, client_first: bytes) -> bytes:
        """Answer the client-first message with salt and iteration count.

        :raises SaslMalformed: the message does not parse, or asks for channel binding.
        """
        text = _text(client_first)
        if not text.startswith("n,"):
            raise SaslMalformed("the client-first message must start with 'n,' (no channel binding)")
        _, _, bare = text[2:].partition(",")
        fields = _fields(bare.encode(), "nr")
        if not fields["r"] or not fields["r"].isprintable() or not fields["r"].isascii():
            raise SaslMalformed("the client's nonce must be printable ASCII")
        self.username = _unescape(fields["n"])
        self._credential = self._lookup(self.username)
        if self._credential is None:
            salt, iterations = self._decoy_salt(self.username), MIN_ITERATIONS
        else:
            salt, iterations = self._credential.salt, self._credential.iterations
        self._first_bare = bare
        self._nonce = fields["r"] + self._nonce
        self._server_first = f"r={self._nonce},s={_base64(salt)},i={iterations}"
        return self._server_first.encode()

    def final(self, client_final: bytes) -> bytes:
        """Check the client's proof and return the server-final message.

        :raises SaslMalformed: the message does not parse, or :meth:`first` was not called.
        :raises SaslFailure: wrong password, or unknown user; the two cannot be distinguished.
        """
        if not self._server_first:
            raise SaslMalformed("the client-final message came before the client-first")
        text = _text(client_final)
        fields = _fields(client_final, "crp")
        without_proof = text[: text.rindex(",p=")]
        proof = _unbase64(fields["p"], "proof")
        binding = _unbase64(fields["c"], "channel binding")
        name = self._hash
        credential = self._credential
        # An unknown user costs as much work as a known one.
        stored_key = credential.stored_key if credential else _digest(name, b"")
        server_key = credential.server_key if credential else stored_key
        auth_message = ",".join((self._first_bare, self._server_first, without_proof)).encode()
        signature = hmac.digest(stored_key, auth_message, name)
        if len(proof) != len(signature):
            raise SaslMalformed(f"a proof has {len(signature)} bytes, not {len(proof)}")
        proven = hmac.compare_digest(_digest(name, _xor(proof, signature)), stored_key)
        same_nonce = hmac.compare_digest(fields["r"].encode(), self._nonce.encode())
        if not (proven and same_nonce and binding[:2] == b"n," and credential is not None):
            raise SaslFailure("wrong user name or password")
        return f"v={_base64(hmac.digest(server_key, auth_message, name))}".encode()


def encode_plain(user: str, password: str) -> bytes:
    """Return the PLAIN payload for a user and a password.

    :raises ValueError: control characters in either.
    """
    check_sendable(user, password)
    return b"\0".join((b"", user.encode(), password.encode()))


def parse_plain(payload: bytes) -> tuple[str, str, str]:
    """Split a PLAIN payload into authorization id, user and password.

    Couchbase Server tolerates one NUL at the end. Here it is malformed, as RFC 4616 says: otherwise a wrong
    password would be accepted.

    :raises SaslMalformed: not three parts of UTF-8.
    """
    parts = payload.split(b"\0")
    if len(parts) != 3:
        raise SaslMalformed("PLAIN takes authorization id, user and password separated by NUL")
    authzid, user, password = (_text(part) for part in parts)
    return authzid, user, password


def has_control(text: str) -> bool:
    """Return whether there is a control character in a user name or password.

    RFC 7617 and SASLprep (RFC 4013) forbid them. In SCRAM a NUL at the end would even have no effect: HMAC
    pads its keys with zeros, so the password is the same with and without it.
    """
    return any(category(character) == "Cc" for character in text)


def check_sendable(user: str, password: str) -> None:
    """Refuse a user name or a password with control characters.

    :raises ValueError: there is one; the text does not quote it.
    """
    for what, text in (("user name", user), ("password", password)):
        if has_control(text):
            raise ValueError(f"the {what} contains control characters, which SASL does not allow")


def _hash_of(mechanism: str) -> str:
    try:
        return _HASHES[mechanism]
    except KeyError:
        raise ValueError(f"{mechanism!r} is not one of {', '.join(_HASHES)}") from None


def _digest(name: str, data: bytes) -> bytes:
    return hashlib.new(name, data).digest()


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _unbase64(text: str, what: str) -> bytes:
    try:
        return b64decode(text.encode(), validate=True)
    except (Base64Error, ValueError):
        raise SaslMalformed(f"the {what} is not base64") from None


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SaslMalformed("a SASL message must be UTF-8") from None


def _fields(message: bytes, required: str) -> dict[str, str]:
    """Parse ``a=1,b=2``; each letter of ``required`` must occur exactly once."""
    fields: dict[str, str] = {}
    for part in _text(message).split(","):
        letter, equals, value = part.partition("=")
        if len(letter) != 1 or not equals or letter in fields:
            raise SaslMalformed("a SCRAM message must be a list of letter=value, with each letter once")
        fields[letter] = value
    missing = [letter for letter in required if letter not in fields]
    if missing:
        raise SaslMalformed(f"a SCRAM message lacks {', '.join(missing)}=")
    return fields


def _unescape(name: str) -> str:
    if "=" in name.replace("=2C", "").replace("=3D", ""):
        raise SaslMalformed("'=' in a user name must be written =3D")
    return name.replace("=2C", ",").replace("=3D", "=")
