"""Tokens of an issuer that runs on another library: jose, in Node."""

from __future__ import annotations

import json
import shutil
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.judges.programs import ROOT, START_SECONDS, Process, free_port, twistd

JOSE = ROOT / "build" / "judges" / "jose"
ISSUER = Path(__file__).parent / "clients" / "jose" / "issuer.mjs"
NODE = shutil.which("node")
DOCUMENT = "/v1/buckets/default/documents/k"
RULES = """
[[rules]]
name = "staff"
who = ["group:staff", "claim:realm.roles=admin"]
buckets = "default"
allow = ["read", "write"]
"""


class IssuerTests(SynchronousTestCase):
    """A gateway that fetches the issuer's keys."""

    if NODE is None or not (JOSE / "node_modules" / "jose").is_dir():
        skip = "not installed: node with jose (make judges fetches it)"

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        (folder / "rules.toml").write_text(RULES, encoding="utf-8")
        self.issuer, self.port = free_port(), free_port()
        assert NODE is not None
        issuer = Process([NODE, str(ISSUER), str(self.issuer)], {"JOSE": str(JOSE)})
        self.addCleanup(issuer.stop)
        issuer.until_answers(self.issuer, "/jwks")
        gateway = twistd(
            "couchgateway", "--ephemeral", "--listen", f"tcp:{self.port}:interface=127.0.0.1",
            "--auth", "jwt", "--access", str(folder / "rules.toml"),
            "--jwt-keys", f"http://127.0.0.1:{self.issuer}/jwks", "--jwt-issuer", "https://issuer.example",
            "--jwt-audience", "couchgateway", "--jwt-skew", "0.5",
        )  # fmt: skip
        self.addCleanup(gateway.stop)
        gateway.until_answers(self.port, "/ready")

    def ask(self, port: int, method: str, path: str, body: object = None, token: str | None = None) -> Any:
        """Send a request; return status, headers and JSON."""
        connection = HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, answer.headers, json.loads(content) if content else None
        finally:
            connection.close()

    def token(self, alg: str, **claims: Any) -> str:
        """Return a token of the issuer."""
        status, _, found = self.ask(self.issuer, "POST", "/token", {"alg": alg, "claims": claims})
        self.assertEqual(status, 200, found)
        return str(found["token"])

    def test_tokens(self) -> None:
        """Each algorithm is accepted, with rights by claims; what nobody should accept is not; new keys are
        known soon after they are in use."""
        for alg in ("RS256", "ES256", "EdDSA"):
            for claims, status in (
                ({"groups": ["staff", "x"]}, 200),
                ({"realm": {"roles": ["admin"]}}, 200),
                ({"groups": ["other"]}, 403),
                ({}, 403),
            ):
                found = self.ask(self.port, "PUT", DOCUMENT, {"n": 1}, self.token(alg, **claims))
                self.assertEqual(found[0], status, (alg, claims, found))
        status, _, odd = self.ask(self.issuer, "POST", "/odd")
        self.assertEqual(status, 200, odd)
        for name, token in odd.items():
            status, headers, answer = self.ask(self.port, "GET", DOCUMENT, token=token)
            self.assertEqual((status, answer["code"]), (401, "Unauthorized"), (name, answer))
            self.assertIn('error="invalid_token"', headers["WWW-Authenticate"], name)
        old = self.token("ES256", groups=["staff"])
        self.ask(self.issuer, "POST", "/rotate")
        new = self.token("ES256", groups=["staff"])
        # Unknown keys are looked for at most once in ten seconds.
        end = time.monotonic() + START_SECONDS
        while self.ask(self.port, "GET", DOCUMENT, token=new)[0] != 200 and time.monotonic() < end:
            time.sleep(0.2)
        self.assertEqual(self.ask(self.port, "GET", DOCUMENT, token=new)[0], 200)
        self.assertEqual(self.ask(self.port, "GET", DOCUMENT, token=old)[0], 401)
