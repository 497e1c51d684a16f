"""The options about access: what they need, and which mistakes are found at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from gateway.settings import Settings, resolve
from gateway.workers.handover import read_settings, settings_for_worker
from tests.gateway.access.signing import RSA, fingerprint, jwk, jwks

RULES = '[[rules]]\nname = "r"\nwho = "anyone"\nbuckets = "b"\nallow = "read"\n'
HTTPS = "https://issuer.example/keys"


class OptionTests(SynchronousTestCase):
    """Combinations of options."""

    def setUp(self) -> None:
        folder = self.folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        for name, content in {
            "rules": RULES,
            "wrong-rules": RULES + "x = 1\n",
            "user-rules": RULES.replace("anyone", "user:ann"),
            "keys": f"k sha256:{fingerprint('cgk_k')}\n",
            "wrong": "nonsense\n",
            "jwks": jwks(jwk(RSA)).decode(),
            "password": "secret",
        }.items():
            (folder / name).write_text(content, encoding="utf-8")

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.folder / name)

    def jwt(self, **changed: Any) -> dict[str, Any]:
        """Return options for tokens; ``None`` leaves one out."""
        options = {
            "auth": "jwt",
            "access": self.path("rules"),
            "jwt-keys": self.path("jwks"),
            "jwt-issuer": "i",
            "jwt-audience": ["a"],
            **{name.replace("_", "-"): value for name, value in changed.items()},
        }
        return {name: value for name, value in options.items() if value is not None}

    def accept(self, given: dict[str, Any]) -> Settings:
        """Return settings, which workers receive unchanged."""
        settings = resolve(given, {})
        told = read_settings(settings_for_worker(settings))
        for name in ("auth", "access", "jwt_keys", "jwt_audience", "api_keys", "rate_limit", "rate_burst"):
            self.assertEqual(getattr(told, name), getattr(settings, name))
        return settings

    def test_accepted(self) -> None:
        """Ways alone and together, in the order given."""
        basic = {"user": "u", "password-file": self.path("password")}
        keys = {"auth": "keys", "access": self.path("rules"), "api-keys": self.path("keys")}
        for given, auth in (
            (self.jwt(), "jwt"),
            (self.jwt(jwt_keys=HTTPS, jwt_skew="30"), "jwt"),
            (self.jwt(jwt_keys="http://127.0.0.1:9/keys"), "jwt"),
            (self.jwt(jwt_keys="http://[::1]/keys"), "jwt"),
            (self.jwt(jwt_keys="http://localhost/keys"), "jwt"),
            (keys, "keys"),
            ({**self.jwt(), **keys, **basic, "auth": "basic,keys,jwt"}, "passthrough,keys,jwt"),
            ({**basic, "auth": "basic"}, "passthrough"),
            ({**basic, "auth": "passthrough", "access": self.path("rules")}, "passthrough"),
            ({"auth": "none", "access": self.path("rules")}, "none"),
            ({"rate-limit": "0.5", "rate-limit-address": "100", "rate-burst": "7"}, "none"),
            (
                {"cluster": "couchbase://h", "auth": "basic", "access": self.path("rules")},
                "passthrough",
            ),
            ({"cluster": "couchbase://h", **basic, **keys}, "keys"),
        ):
            self.assertEqual(
                self.accept({"ephemeral": True, **given} if "cluster" not in given else given).auth, auth
            )

    def test_mistakes(self) -> None:
        """Each is named with its option, and what it takes."""
        far = "http://issuer.example/keys"
        for given, words in (
            ({"auth": "basics"}, "--auth: 'basics' is not a list"),
            ({"auth": ""}, "--auth: '' is not a list"),
            ({"auth": "jwt,"}, "is not a list"),
            ({"auth": "jwt, keys"}, "is not a list"),
            ({"auth": "jwt,jwt"}, "(each once)"),
            ({"auth": "basic,passthrough"}, "(each once)"),
            ({"auth": "none,keys"}, "none admits anyone, so it excludes all others"),
            (self.jwt(jwt_keys=None), "--auth: jwt needs --jwt-keys"),
            (self.jwt(jwt_issuer=None), "--auth: jwt needs --jwt-issuer"),
            (self.jwt(jwt_audience=None), "--auth: jwt needs --jwt-audience"),
            (self.jwt(access=None), "--auth: jwt needs --access"),
            (self.jwt(auth="none"), "--jwt-keys: it needs jwt in --auth"),
            (self.jwt(api_keys=self.path("keys")), "--api-keys: it needs keys in --auth"),
            ({"auth": "keys", "access": self.path("rules")}, "--auth: keys needs --api-keys"),
            ({"auth": "certificate", "access": self.path("rules")}, "--auth: certificate needs --client-ca"),
            (
                {"auth": "certificate", "access": self.path("rules"), "client-ca": self.path("wrong")},
                "certificate needs a --listen with TLS",
            ),
            (self.jwt(access=self.path("wrong-rules")), "rule 'r': unknown member 'x'"),
            (self.jwt(access="/nonexistent"), "--access: there is no file"),
            (self.jwt(jwt_keys=self.path("wrong")), "--jwt-keys:"),
            (self.jwt(jwt_keys="/nonexistent"), "--jwt-keys: there is no file"),
            (self.jwt(jwt_keys=far), "expected https://"),
            (self.jwt(jwt_keys="http://127.0.0.1.evil.example/keys"), "expected https://"),
            (self.jwt(jwt_keys="https://user@issuer.example/keys"), "neither a file nor an https:// URL"),
            (self.jwt(jwt_keys="https:///keys"), "neither a file nor an https:// URL"),
            (self.jwt(jwt_keys="file:///etc/passwd"), "neither a file nor an https:// URL"),
            (self.jwt(jwt_keys="https://x:99999/"), "neither a file nor an https:// URL"),
            (self.jwt(jwt_skew="-1"), "--jwt-skew"),
            (
                {"auth": "keys", "access": self.path("rules"), "api-keys": self.path("wrong")},
                "1: expected NAME sha256:HASH",
            ),
            (
                {
                    "cluster": "couchbase://h",
                    "auth": "keys",
                    "access": self.path("rules"),
                    "api-keys": self.path("keys"),
                },
                "--access: the rule 'r' names no account",
            ),
            ({"rate-limit": "0"}, "--rate-limit: '0' is not a number of requests a second above 0"),
            ({"rate-limit": "1/s"}, "--rate-limit"),
            ({"rate-burst": "5"}, "--rate-burst: it needs --rate-limit"),
        ):
            error = self.assertRaises(UsageError, resolve, given, {})
            self.assertIn(words, str(error), given)
