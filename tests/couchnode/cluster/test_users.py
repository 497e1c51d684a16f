"""The user store: logins, passwords, and what an unknown client can find out."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import TestCase

from couchbase.protocol.sasl import MIN_ITERATIONS, SaslFailure, ScramClient, ScramServer
from couchnode.cluster import passwords
from couchnode.cluster.accounts import ALL_BUCKETS
from couchnode.cluster.passwords import SCRAM_MECHANISMS, UserError
from couchnode.cluster.users import UserStore

Steps = Generator[Deferred[Any], Any, None]


class UserStoreTests(TestCase):
    """Adding, checking, removing; permissions."""

    def setUp(self) -> None:
        self.store = UserStore()

    @inlineCallbacks
    def test_right_and_wrong_passwords(self) -> Steps:
        """Only the right password of an existing user passes, by either way of asking."""
        yield self.store.add("ann", "s3cret")
        for user, password, expected in [
            ("ann", "s3cret", True),
            ("ann", "s3cret ", False),
            ("ann", "", False),
            ("Ann", "s3cret", False),
            ("bob", "s3cret", False),
        ]:
            self.assertIs((yield self.store.verify(user, password)), expected, (user, password))
            self.assertIs(self.store.check_password(user, password), expected, (user, password))

    @inlineCallbacks
    def test_scram_handshake_of_each_mechanism(self) -> Steps:
        """A client with the password completes every mechanism; one with another is refused."""
        yield self.store.add("ann", "s3cret")
        for mechanism in SCRAM_MECHANISMS:
            for password in ("s3cret", "other"):
                client = ScramClient(mechanism, "ann", password, "clientnonce")
                server = ScramServer(
                    mechanism,
                    lambda user, mechanism=mechanism: self.store.scram_credential(mechanism, user),
                    "servernonce",
                    self.store.decoy_salt,
                )
                final = client.step(server.first(client.first()))
                if password == "s3cret":
                    client.finish(server.final(final))
                else:
                    self.assertRaises(SaslFailure, server.final, final)

    @inlineCallbacks
    def test_stranger_looks_like_a_user(self) -> Steps:
        """An unknown name has a salt like a real one, stable over restarts, and the same round count."""
        yield self.store.add("ann", "s3cret", admin=True)
        salts = {self.store.scram_credential(mechanism, "ann").salt for mechanism in SCRAM_MECHANISMS}
        self.assertEqual(len(salts), 1)
        self.assertEqual(len(salts.pop()), len(self.store.decoy_salt("bob")))
        self.assertNotEqual(self.store.decoy_salt("bob"), self.store.decoy_salt("bub"))
        self.assertEqual(self.store.scram_credential("SCRAM-SHA1", "ann").iterations, MIN_ITERATIONS)
        restarted = UserStore()
        restarted.load(json.loads(json.dumps(self.store.dump())))
        self.assertEqual(restarted.decoy_salt("bob"), self.store.decoy_salt("bob"))
        self.assertIsNone(self.store.scram_credential("SCRAM-SHA1", "bob"))

    @inlineCallbacks
    def test_strangers_before_the_first_administrator(self) -> Steps:
        """Until then an unknown name logs in with an empty password, by each mechanism, and has no
        permissions."""
        yield self.store.add("ann", "s3cret")
        self.assertTrue(self.store.hide_nothing)
        for user, password, expected in [("bob", "", True), ("bob", "x", False), ("ann", "", False)]:
            self.assertIs((yield self.store.verify(user, password)), expected, (user, password))
            self.assertIs(self.store.check_password(user, password), expected, (user, password))
        for mechanism in SCRAM_MECHANISMS:
            client = ScramClient(mechanism, "bob", "", "clientnonce")
            server = ScramServer(
                mechanism,
                lambda user, mechanism=mechanism: self.store.scram_credential(mechanism, user),
                "servernonce",
                self.store.decoy_salt,
            )
            client.finish(server.final(client.step(server.first(client.first()))))
        self.assertFalse(self.store.may_use("bob", "default"))
        self.assertFalse(self.store.is_admin("bob"))
        yield self.store.add("carl", "s3cret", admin=True)
        self.store.remove("carl")
        self.assertFalse(self.store.hide_nothing)
        self.assertIs((yield self.store.verify("bob", "")), False)
        self.assertIsNone(self.store.scram_credential("SCRAM-SHA1", "bob"))

    @inlineCallbacks
    def test_stranger_costs_the_same_work(self) -> Steps:
        """A wrong password derives one key whether or not the user exists; a known right one derives none."""
        yield self.store.add("ann", "s3cret")
        derived = []

        def counting(mechanism: str, password: str, salt: bytes, iterations: int) -> Any:
            derived.append((mechanism, iterations))
            return real(mechanism, password, salt, iterations)

        real = passwords.derive_scram_credential
        self.patch(passwords, "derive_scram_credential", counting)
        work = []
        for user, password in [("ann", "wrong"), ("bob", "wrong"), ("ann", "s3cret")]:
            derived.clear()
            yield self.store.verify(user, password)
            work.append(list(derived))
        self.assertEqual(work, [[("SCRAM-SHA512", MIN_ITERATIONS)]] * 2 + [[]])

    @inlineCallbacks
    def test_password_is_recognised_after_a_restart_only_once_checked(self) -> Steps:
        """The data on disk does not recognise a password: the first check after loading derives the keys."""
        yield self.store.add("ann", "s3cret")
        restarted = UserStore()
        restarted.load(self.store.dump())
        with mock.patch.object(passwords, "matches", wraps=passwords.matches) as matches:
            self.assertTrue((yield restarted.verify("ann", "s3cret")))
            self.assertTrue((yield restarted.verify("ann", "s3cret")))
        self.assertEqual(matches.call_count, 1)

    @inlineCallbacks
    def test_new_password_replaces_the_old(self) -> Steps:
        """After a change the old password fails at once, although it was recognised before."""
        yield self.store.add("ann", "old")
        yield self.store.verify("ann", "old")
        yield self.store.add("ann", "new")
        self.assertFalse((yield self.store.verify("ann", "old")))
        self.assertTrue((yield self.store.verify("ann", "new")))

    @inlineCallbacks
    def test_removed_while_being_checked(self) -> Steps:
        """A user removed while a thread derives is refused when the thread is done."""
        yield self.store.add("ann", "s3cret")
        restarted = UserStore()
        restarted.load(self.store.dump())
        answer = restarted.verify("ann", "s3cret")
        restarted.remove("ann")
        self.assertFalse((yield answer))
        self.assertNotIn("ann", restarted)
        self.assertFalse((yield restarted.verify("ann", "s3cret")))

    @inlineCallbacks
    def test_dump_holds_no_password(self) -> Steps:
        """Neither the password nor its fingerprint is in what goes to disk."""
        yield self.store.add("ann", "s3cret-in-plain", admin=True)
        text = json.dumps(self.store.dump())
        self.assertIn("ann", text)
        self.assertNotIn("s3cret", text)
        self.assertNotIn(self.store._recognised["ann"].hex(), text)

    @inlineCallbacks
    def test_permissions(self) -> Steps:
        """Administrators use all buckets, others those assigned to them, unknown users none."""
        yield self.store.add("root", "x", admin=True)
        yield self.store.add("beer", "y", buckets=["beer"])
        yield self.store.add("app", "z", buckets=[ALL_BUCKETS])
        allowed = {
            (user, bucket): self.store.may_use(user, bucket)
            for user in ("root", "beer", "app", "ghost", None)
            for bucket in ("beer", "wine")
        }
        self.assertEqual(
            {pair for pair, may in allowed.items() if may},
            {("root", "beer"), ("root", "wine"), ("beer", "beer"), ("app", "beer"), ("app", "wine")},
        )
        self.assertEqual(
            [self.store.is_admin(user) for user in ("root", "beer", "ghost", None)],
            [True, False, False, False],
        )

    @inlineCallbacks
    def test_rights_are_worked_out_once(self) -> Steps:
        """Until something changes, every connection of a user has the same rights object; so have all who are
        not logged in."""
        yield self.store.add("beer", "y", buckets=["beer"])
        for user in ("beer", None, "ghost"):
            for bucket in (None, "open"):
                first = self.store.rights(user, bucket)
                self.assertIs(self.store.rights(user, bucket), first)
                self.assertIs(bool(first.on_bucket("open")), bucket is not None)
        self.assertIs(self.store.rights("ghost", "open"), self.store.rights(None, "open"))
        self.assertTrue(self.store.rights("beer", "open").on_bucket("beer"))
        before = self.store.rights("beer")
        yield self.store.add("beer", "z", buckets=["wine"])
        self.assertIsNot(self.store.rights("beer"), before)
        self.assertFalse(self.store.rights("beer").on_bucket("beer"))

    @inlineCallbacks
    def test_names_and_passwords_that_are_refused(self) -> Steps:
        """Each invalid name or password is refused with the reason, and nothing is added."""
        for user, password, admin, reason in [
            ("", "x", False, "must not be empty"),
            ("u" * 129, "x", False, "at most 128 bytes"),
            ("é" * 65, "x", False, "at most 128 bytes"),
            ("a\nb", "x", False, "control characters"),
            ("\ud800", "x", False, "valid UTF-8"),
            ("ann", "x" * 1025, False, "at most 1024 bytes"),
            ("ann", "a\0b", False, "control characters"),
            ("ann", "ab\x85", False, "control characters"),
            ("ann", "", True, "needs a password"),
        ]:
            error = yield self.assertFailure(self.store.add(user, password, admin=admin), UserError)
            self.assertIn(reason, str(error))
        self.assertEqual(list(self.store), [])
        yield self.store.add("guest", "")
        self.assertTrue((yield self.store.verify("guest", "")))

    @inlineCallbacks
    def test_absurd_passwords_are_wrong_not_errors(self) -> Steps:
        """A password that could never have been set is just wrong."""
        yield self.store.add("ann", "s3cret")
        for password in ("x" * 10**6, "\0", "\ud800"):
            self.assertFalse((yield self.store.verify("ann", password)))

    @inlineCallbacks
    def test_closed_and_open(self) -> Steps:
        """After the first administrator an empty password is invalid, unless configured otherwise."""
        for store, after in [(self.store, False), (UserStore(open_buckets=True), True)]:
            yield store.add("guest", "", buckets=["guest"])
            self.assertTrue(store.are_open)
            self.assertTrue((yield store.verify("guest", "")))
            yield store.add("root", "s3cret", admin=True)
            for _ in range(2):
                self.assertIs(store.are_open, after)
                self.assertIs((yield store.verify("guest", "")), after)
                self.assertIs(store.check_password("guest", ""), after)
                self.assertIs(store.may_use("guest", "guest"), after)
                self.assertIs(store.scram_credential("SCRAM-SHA1", "guest") is not None, after)
                store.remove("root")
            self.assertTrue("guest" in store)

    @inlineCallbacks
    def test_no_secret_is_printed(self) -> Steps:
        """The record of a user shows neither keys nor salt."""
        yield self.store.add("ann", "s3cret")
        shown = repr(self.store._users["ann"])
        for keys in self.store._users["ann"].credentials.values():
            self.assertNotIn(repr(keys.stored_key), shown)
            self.assertNotIn(repr(keys.salt), shown)

    def test_load_of_something_else_changes_nothing(self) -> None:
        """Data of another shape is refused and the users are unchanged."""
        before = self.store.dump()
        for data in ({}, {"users": {"a": {}}, "decoyKey": ""}, {"users": 5, "decoyKey": ""}):
            self.assertRaises((KeyError, TypeError, ValueError, AttributeError), self.store.load, data)
        self.assertEqual(self.store.dump(), before)
