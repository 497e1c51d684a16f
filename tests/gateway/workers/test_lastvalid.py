"""The copies of files of rules and keys, for workers that start while one of them is invalid."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from gateway.access.files import Copies
from gateway.access.keys import read_keys
from gateway.access.rules import read_rules
from gateway.access.watched import LOOK_SECONDS
from gateway.settings import Settings
from gateway.workers.handover import read_settings
from gateway.workers.lastvalid import LastValid
from tests.gateway.access.signing import SECRET, jwk, jwks

RULES = """
[accounts.a]
user = "u"
password-file = "secret"

[[rules]]
name = "{}"
who = "anyone"
buckets = "*"
allow = "*"
account = "a"
"""
KEYS = f"app sha256:{'0' * 64}\n"
LARGEST = 2**20


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class LastValidTests(SynchronousTestCase):
    """Files on disk, on a clock."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.rules, self.secret = folder / "rules.toml", folder / "secret"
        self.keys, self.jwks = folder / "keys", folder / "jwks.json"
        self.rules.write_text(RULES.format("first"))
        self.secret.write_text("geheim\xe9\n", "utf-8")
        self.keys.write_text(KEYS)
        self.jwks.write_bytes(jwks(jwk(SECRET, "k")))
        self.settings: Settings = replace(
            read_settings({}), access=str(self.rules), api_keys=str(self.keys), jwt_keys=str(self.jwks)
        )
        self.clock = Clock()
        self.waiting: list[Callable[[], Any]] = []
        self.holds = False
        self.kept = LastValid(self.clock, self.run_in_thread)
        self.addCleanup(self.kept.close)

    def run_in_thread(self, read: Callable[[], Any]) -> Deferred[Any]:
        if not self.holds:
            return execute(read)
        done: Deferred[Any] = Deferred()
        self.waiting.append(lambda: execute(read).chainDeferred(done))
        return done

    def copies(self) -> Copies:
        """Return what a worker that is started now gets."""
        found = Copies()
        for descriptor in self.kept.descriptors:
            # Another worker may read the same file before.
            Copies.of(os.dup(descriptor))
            found.add(Copies.of(os.dup(descriptor)))
        return found

    def names(self) -> tuple[str, str]:
        """Return the name of the rule in the copies, and the password of its account."""
        table = read_rules(str(self.rules), self.copies().read)
        return table.rules[0].name, table.accounts["a"].password

    def test_last_valid(self) -> None:
        """A valid change is copied with the files that it names; an invalid one, or a lost file, is not."""
        self.kept.keep(self.settings)
        self.assertEqual(self.names(), ("first", "geheim\xe9"))
        self.rules.write_text(RULES.format("second"))
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.names(), ("second", "geheim\xe9"))
        with capturedLogs() as events:
            self.rules.write_text(RULES.format("third") + "[")
            self.clock.advance(LOOK_SECONDS)
            self.assertEqual(self.names()[0], "second")
            self.secret.unlink()
            self.rules.write_text(RULES.format("fourth"))
            self.keys.unlink()
            self.jwks.write_bytes(b"{}")
            self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.names(), ("second", "geheim\xe9"))
        self.assertEqual(len(read_keys(str(self.keys), self.copies().read)), 1)
        self.assertIn(b'"kid"', self.copies().read(self.jwks, LARGEST))
        self.assertEqual(events, [])

    def test_password_changes(self) -> None:
        """A new password is copied by itself, unless its file is invalid."""
        self.kept.keep(self.settings)
        for content, expected in (("new\n", "new"), ("\n", "new"), ("newest\n", "newest")):
            self.secret.write_text(content)
            self.clock.advance(LOOK_SECONDS)
            self.assertEqual(self.names(), ("first", expected))
        self.secret.unlink()
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.names(), ("first", "newest"))

    def test_settings_change(self) -> None:
        """During a replacement there are the files of the old and of the new settings, later the new ones;
        no descriptor is left."""
        other = self.rules.with_name("other.toml")
        other.write_text(RULES.format("other"))
        self.kept.keep(self.settings)
        first = self.kept.descriptors
        wanted = replace(self.settings, access=str(other), jwt_keys="https://issuer.example/keys")
        self.kept.keep(wanted)
        for path in (self.rules, other, self.keys, self.jwks):
            self.assertTrue(self.copies().read(path, LARGEST))
        self.kept.keep_only(wanted)
        for path in (self.rules, self.jwks):
            self.assertRaises(ValueError, self.copies().read, path, LARGEST)
        self.assertEqual(len(self.kept.descriptors), 2)
        left = {*first, *self.kept.descriptors}
        self.kept.close()
        self.assertEqual([one for one in left if is_open(one)], [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_during_a_read(self) -> None:
        """A file that is still being read then is not kept."""
        self.kept.keep(self.settings)
        self.holds = True
        self.rules.write_text(RULES.format("second"))
        self.clock.advance(LOOK_SECONDS)
        self.kept.close()
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        (go_on,) = self.waiting
        go_on()
        self.assertEqual(self.kept.descriptors, [])
        if before:
            self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_invalid_at_the_start(self) -> None:
        """A file that is invalid already has no copy, and the others have one."""
        self.keys.write_text("nonsense")
        self.kept.keep(self.settings)
        self.assertEqual(len(self.kept.descriptors), 2)
        self.assertRaises(ValueError, self.copies().read, self.keys, LARGEST)

    def test_no_room(self) -> None:
        """Where no copy can be written, the log says what follows."""

        def fail(copies: Copies) -> int:
            raise OSError("no space left")

        self.kept.keep(self.settings)
        self.patch(Copies, "write", fail)
        self.rules.write_text(RULES.format("second"))
        with capturedLogs() as events:
            self.clock.advance(LOOK_SECONDS)
        (event,) = events
        self.assertEqual((event["path"], str(event["error"])), (str(self.rules), "no space left"))
        self.assertEqual(self.names()[0], "first")
        other = LastValid(self.clock, self.run_in_thread)
        self.addCleanup(other.close)
        with capturedLogs() as events:
            other.keep(self.settings)
        self.assertEqual((len(events), other.descriptors), (3, []))
