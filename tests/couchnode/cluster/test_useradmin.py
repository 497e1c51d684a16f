"""Management of users on a disk: acknowledged changes survive a crash, and refused ones never existed."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import fail, inlineCallbacks

from couchnode.cluster import useradmin
from couchnode.cluster.metadata import DataDirectoryError
from couchnode.cluster.useradmin import FieldErrors, UserKey
from couchnode.cluster.users import UserStore
from tests.couchnode.cluster.test_cluster import ClusterCase, Steps, definition

JANE = UserKey("local", "jane")
PASSWORD = "s3cret-pw"


class DiskTests(ClusterCase):
    """A cluster with a data directory."""

    @inlineCallbacks
    def test_acknowledged_is_written(self) -> Steps:
        """Users, groups, roles and the policy are in the file when a change is done, as after a kill."""
        cluster = yield self.open()
        yield cluster.create_bucket(definition("beer"))
        admin = cluster.user_admin
        yield admin.put_group("devs", {"roles": "data_writer[beer]"}, security=True)
        form = {"password": PASSWORD, "roles": "data_reader[beer:_default],ro_admin", "groups": "devs"}
        yield admin.put_user(JANE, {**form, "name": "Jane"}, security=True)
        yield admin.put_user(UserKey("external", "x"), {"roles": "ro_admin"}, security=True)
        yield admin.put_policy({"minLength": "8"})
        before = cluster.users.dump()
        _, directory = self.opened[-1]
        restored = self.fresh_store(directory.load()["users"])
        self.assertEqual(restored.dump(), before)
        self.assertTrue((yield restored.verify("jane", PASSWORD)))
        self.assertEqual(
            [role.text for role in restored.rights("jane").roles],
            ["data_reader[beer:_default]", "ro_admin", "data_writer[beer]"],
        )
        self.assertNotIn(PASSWORD, json.dumps(before))
        yield admin.delete_user(JANE, security=True)
        restored = self.fresh_store(directory.load()["users"])
        self.assertNotIn("jane", restored)
        reopened = yield self.reopen()
        self.assertEqual(reopened.users.policy.min_length, 8)
        self.assertEqual(list(reopened.users.groups), ["devs"])

    def fresh_store(self, data: Any) -> UserStore:
        """Return a store with what the file holds."""
        store = UserStore()
        store.load(data)
        return store

    @inlineCallbacks
    def test_a_disk_that_refuses(self) -> Steps:
        """A change that cannot be written fails and is undone: users, passwords, groups and policy."""
        cluster = yield self.open()
        admin = cluster.user_admin
        yield admin.put_group("devs", {"roles": "ro_admin"}, security=True)
        yield admin.put_user(JANE, {"password": PASSWORD, "groups": "devs"}, security=True)
        before = cluster.users.dump()
        seen = []
        cluster.users.on_change.append(lambda: seen.append(cluster.users.rights("jane").roles))
        self.patch(admin, "_save", lambda: fail(DataDirectoryError("full")))
        for change in (
            lambda: admin.put_user(JANE, {"roles": "admin"}, security=True),
            lambda: admin.put_user(UserKey("local", "new"), {"password": PASSWORD}, security=True),
            lambda: admin.put_user(UserKey("external", "x"), {}, security=True),
            lambda: admin.patch_user("jane", {"password": "n3w-secret"}, security=True),
            lambda: admin.change_password("jane", {"password": "n3w-secret"}),
            lambda: admin.delete_user(JANE, security=True),
            lambda: admin.put_group("devs", {"roles": ""}, security=True),
            lambda: admin.delete_group("devs", security=True),
            lambda: admin.put_policy({"minLength": "9"}),
        ):
            yield self.assertFailure(change(), DataDirectoryError)
            self.assertEqual(cluster.users.dump(), before)
            self.assertTrue((yield cluster.users.verify("jane", PASSWORD)))
            self.assertFalse((yield cluster.users.verify("jane", "n3w-secret")))
            self.assertEqual([role.text for role in cluster.users.rights("jane").roles], ["ro_admin"])
        self.assertEqual([role.text for role in seen[-1]], ["ro_admin"])

    @inlineCallbacks
    def test_changes_wait_for_each_other(self) -> Steps:
        """Two changes at a time are both made, in their order."""
        cluster = yield self.open()
        admin = cluster.user_admin
        first = admin.put_user(JANE, {"password": PASSWORD, "roles": "ro_admin"}, security=True)
        second = admin.put_user(JANE, {"roles": "cluster_admin"}, security=True)
        yield first
        yield second
        self.assertEqual([role.name for role in cluster.users.rights("jane").roles], ["cluster_admin"])

    @inlineCallbacks
    def test_too_many(self) -> Steps:
        """One more user or group than fit is refused; those that are there can be changed."""
        cluster = yield self.open(persistent=False)
        admin = cluster.user_admin
        self.patch(useradmin, "MAX_USERS", 2)
        for name in ("a", "b"):
            yield admin.put_user(UserKey("external", name), {}, security=True)
            yield admin.put_group(name, {"roles": ""}, security=True)
        for change in (
            lambda: admin.put_user(JANE, {"password": PASSWORD}, security=True),
            lambda: admin.put_user(UserKey("external", "c"), {}, security=True),
            lambda: admin.put_group("c", {"roles": ""}, security=True),
        ):
            error = yield self.assertFailure(change(), FieldErrors)
            self.assertIn("Cannot create more than 2", error.errors["_"])
        yield admin.put_user(UserKey("external", "a"), {"name": "A"}, security=True)
        yield admin.put_group("a", {"roles": "ro_admin"}, security=True)

    @inlineCallbacks
    def test_a_file_without_roles(self) -> Steps:
        """A directory of a version without roles is read: a bucket's user has the full use of it."""
        cluster = yield self.open()
        yield cluster.create_bucket(definition("beer"), "pale")
        yield cluster.users.add("root", "s3cret", admin=True)
        yield cluster.user_admin.put_policy({"minLength": "6"})
        data = cluster.users.dump()
        old = {
            "decoyKey": data["decoyKey"],
            "users": {
                name: {"admin": user["admin"], "buckets": buckets, "credentials": user["credentials"]}
                for (name, user), buckets in zip(data["users"].items(), [["beer"], []], strict=True)
            },
        }
        restored = self.fresh_store(old)
        self.assertTrue((yield restored.verify("beer", "pale")))
        self.assertEqual([role.text for role in restored.rights("beer").roles], ["bucket_full_access[beer]"])
        self.assertTrue(restored.is_administrator("root"))
        error = yield self.assertFailure(
            cluster.user_admin.put_user(UserKey("local", "root"), {}, security=True), FieldErrors
        )
        self.assertIn("administrator", error.errors["_"])
