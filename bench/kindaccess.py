"""Keys, tokens and rules for the kinds of requests of bench.kinds."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path

__all__ = ["API_KEY", "AUDIENCE", "ISSUER", "access_files", "new_token"]

API_KEY = "cgk_" + "k" * 43
ISSUER, AUDIENCE = "https://issuer.example", "couchgateway"

_SECRET = b"s" * 32
_HOURS_VALID = 12

_RULES = """[[rules]]
name = "all"
who = ["key:bench", "subject:bench"]
buckets = "*"
scopes = "*"
collections = "*"
allow = "*"
"""


def access_files(folder: Path) -> None:
    """Write ``rules.toml``, ``keys`` and ``jwks.json``."""
    (folder / "rules.toml").write_text(_RULES)
    digest = hashlib.sha256(API_KEY.encode()).hexdigest()
    (folder / "keys").write_text(f"bench sha256:{digest}\n")
    keys = {"keys": [{"kty": "oct", "k": _base64(_SECRET)}]}
    (folder / "jwks.json").write_text(json.dumps(keys))


def new_token() -> str:
    """Return a token (HS256) that is valid for some hours."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "bench",
        "exp": int(time.time()) + _HOURS_VALID * 3600,
        # With these the token is as long as those of usual issuers.
        "groups": [f"group-{number}" for number in range(20)],
    }
    parts = [_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signed = ".".join(parts)
    return f"{signed}.{_base64(hmac.digest(_SECRET, signed.encode(), 'sha256'))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
