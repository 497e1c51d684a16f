"""Users, groups and roles over REST: forms, statuses and texts that clients know, and permissions."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import inlineCallbacks

from couchnode.access.kinds import ROLES
from couchnode.rest.api import RestApi
from tests.couchnode.rest.test_api import ADMIN, BUCKETS, RestCase, Steps

USERS = "/settings/rbac/users/local"
GROUPS = "/settings/rbac/groups"
PASSWORD = "s3cret-pw"
JANE = ("jane", PASSWORD)
UNKNOWN_ROLES = (
    "Cannot assign roles to {} because the following roles are unknown, malformed or role parameters are "
    "undefined: [{}]"
)
BAD_NAME = (
    'Username must not contain spaces, control or any of ()<>,;:\\"/[]?={} characters and must be valid utf8'
)


class UserCase(RestCase):
    """A node with an administrator, two buckets, and helpers for users."""

    @inlineCallbacks
    def put(self, user: str, auth: tuple[str, str] | None = ADMIN, **form: str) -> Steps:
        """Put a local user; return the answer."""
        return (yield self.ask(f"{USERS}/{user}", "PUT", auth, form))

    @inlineCallbacks
    def make(self, user: str, roles: str = "", **form: str) -> Steps:
        """Make a local user, and return name and password."""
        answer = yield self.put(user, password=PASSWORD, roles=roles, **form)
        self.assertEqual((answer.status, answer.body), (200, b'""'), answer.body)
        return user, PASSWORD


class UserTests(UserCase):
    """Single users."""

    @inlineCallbacks
    def test_life_of_a_user(self) -> Steps:
        """A user is made, read, listed, changed and deleted; every answer has the form that clients know."""
        form = {"name": "Jane Doe", "password": PASSWORD, "roles": "data_reader[default],ro_admin"}
        answer = yield self.put("jane", **form)
        self.assertEqual((answer.status, answer.body), (200, b'""'))
        answer = yield self.ask(f"{USERS}/jane/")
        self.assertEqual(answer.status, 200)
        user = answer.json
        self.assertRegex(user.pop("uuid"), r"\A[0-9a-f]{32}\Z")
        self.assertRegex(user.pop("password_change_date"), r"\A20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z\Z")
        origins = [{"type": "user"}]
        reader = {"bucket_name": "default", "scope_name": "*", "collection_name": "*"}
        self.assertEqual(
            user,
            {
                "id": "jane",
                "domain": "local",
                "name": "Jane Doe",
                "roles": [
                    {"role": "data_reader", **reader, "origins": origins},
                    {"role": "ro_admin", "origins": origins},
                ],
                "groups": [],
                "external_groups": [],
                "locked": False,
            },
        )
        answer = yield self.put("jane")
        self.assertEqual((answer.status, answer.body), (200, b'""'))
        changed = (yield self.ask(f"{USERS}/jane")).json
        self.assertEqual((changed["roles"], changed.get("name")), ([], None))
        self.assertTrue((yield self.cluster.users.verify(*JANE)), "the password stays")
        for path in (USERS, "/settings/rbac/users", "/settings/rbac/users/"):
            listed = (yield self.ask(path)).json
            self.assertEqual([user["id"] for user in listed], ["jane", "private"], path)
        answer = yield self.ask(f"{USERS}/jane", "DELETE")
        self.assertEqual((answer.status, answer.body), (200, b'""'))
        for method in ("GET", "DELETE", "PATCH"):
            answer = yield self.ask(f"{USERS}/jane", method)
            self.assertEqual((answer.status, answer.json), (404, "Unknown user."), method)

    @inlineCallbacks
    def test_refusals(self) -> Steps:
        """Each wrong field is named in the words that clients look for, all at once, and nothing is
        created."""
        some = {"password": PASSWORD}
        for name, form, errors in [
            ("jane", {}, {"password": "Password is required for new user."}),
            ("jane", {"password": "short"}, {"password": "The password must be at least 6 characters long."}),
            ("jane", {**some, "x": "1"}, {"x": "Unsupported key"}),
            ("jane", {**some, "groups": "g1, g2"}, {"groups": "Groups do not exist: g1,g2"}),
            (
                "jane",
                {**some, "locked": "maybe"},
                {"locked": "The value must be one of the following: [true,false]"},
            ),
            ("@jane", some, {"_": "Username cannot start with '@'"}),
            ("j" * 129, some, {"_": "Username may not exceed 128 characters"}),
            *[
                ("jane", {**some, "roles": roles}, {"roles": UNKNOWN_ROLES.format("user", roles)})
                for roles in (
                    "data_reader",
                    "nothing",
                    "data_reader[x]",
                    "admin[default]",
                    "data_reader[default:s]",
                )
            ],
            *[
                (
                    name,
                    some,
                    {"_": BAD_NAME},
                )
                for name in ("a%20b", "a%3Ab", "a%5Bb", "a%3Fb", "a%0Ab", "a%22")
            ],
            (
                "jane",
                {"x": "1", "roles": "y", "password": "z"},
                {
                    "x": "Unsupported key",
                    "roles": UNKNOWN_ROLES.format("user", "y"),
                    "password": "The password must be at least 6 characters long.",
                },
            ),
        ]:
            answer = yield self.put(name, **form)
            self.assertEqual((answer.status, answer.json), (400, {"errors": errors}), (name, form))
        self.assertEqual([one["id"] for one in (yield self.ask(USERS)).json], ["private"])
        answer = yield self.put("Administrator", password=PASSWORD)
        self.assertEqual(answer.status, 400)
        self.assertTrue((yield self.cluster.users.verify(*ADMIN)))
        for domain in ("nowhere", "admin"):
            for method in ("GET", "PUT", "DELETE"):
                answer = yield self.ask(f"/settings/rbac/users/{domain}/jane", method, form=some)
                self.assertEqual(
                    (answer.status, answer.json), (404, "Unknown user domain."), (domain, method)
                )
        answer = yield self.ask("/settings/rbac/users/nowhere")
        self.assertEqual((answer.status, answer.json), (404, "Unknown user domain."))

    @inlineCallbacks
    def test_forms_of_roles(self) -> Steps:
        """Roles may be escaped in every way that clients do, and parts of a bucket may be named."""
        for roles, expected in {
            "data_reader%5B%2A%5D": ["*", "*", "*"],
            "data_reader[%2A]": ["*", "*", "*"],
            "data_reader[default:_default]": ["default", "_default", "*"],
            "data_reader%5Bdefault%3A_default%3A_default%5D": ["default", "_default", "_default"],
            "data_reader[default:*:*]": ["default", "*", "*"],
        }.items():
            form = f"password={PASSWORD}&roles={roles}".encode()
            answer = yield self.ask(f"{USERS}/jane", "PUT", form=form)
            self.assertEqual(answer.status, 200, roles)
            (role,) = (yield self.ask(f"{USERS}/jane")).json["roles"]
            given = [role["bucket_name"], role["scope_name"], role["collection_name"]]
            self.assertEqual(given, expected, roles)

    @inlineCallbacks
    def test_password_and_lock_alone(self) -> Steps:
        """PATCH changes the password, or locks and unlocks; other fields are kept; a locked user is
        refused."""
        yield self.make("jane", "ro_admin", name="Jane")
        answer = yield self.ask(f"{USERS}/jane", "PATCH", form={"password": "n3w-secret"})
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual((yield self.ask("/pools", auth=JANE)).status, 401)
        new = ("jane", "n3w-secret")
        self.assertEqual((yield self.ask("/pools/default", auth=new)).status, 200)
        user = (yield self.ask(f"{USERS}/jane")).json
        self.assertEqual((user["name"], user["roles"][0]["role"]), ("Jane", "ro_admin"))
        for locked, status in (("true", 401), ("false", 200)):
            yield self.ask(f"{USERS}/jane", "PATCH", form={"locked": locked})
            self.assertEqual((yield self.ask("/pools/default", auth=new)).status, status, locked)
        yield self.put("jane", locked="true", roles="ro_admin")
        self.assertEqual((yield self.ask("/pools/default", auth=new)).status, 401)
        yield self.put("jane", roles="ro_admin")
        self.assertEqual((yield self.ask("/pools/default", auth=new)).status, 200, "PUT without it unlocks")
        answer = yield self.ask(f"{USERS}/jane", "PATCH", form={"roles": "admin"})
        self.assertEqual((answer.status, answer.json), (400, {"errors": {"roles": "Unsupported key"}}))
        answer = yield self.ask("/settings/rbac/users/external/jane", "PATCH")
        self.assertEqual((answer.status, answer.json), (404, "Unknown user domain."))

    @inlineCallbacks
    def test_external_users(self) -> Steps:
        """Users of another domain are stored and listed, have no password, and never log in."""
        path = "/settings/rbac/users/external"
        answer = yield self.ask(f"{path}/jane", "PUT", form={"roles": "ro_admin", "name": "J"})
        self.assertEqual((answer.status, answer.body), (200, b'""'))
        answer = yield self.ask("/settings/rbac/users/old", "PUT", form={"roles": "admin"})
        self.assertEqual(answer.status, 200)
        listed = (yield self.ask(path)).json
        self.assertEqual(
            [(one["id"], one["domain"]) for one in listed], [("jane", "external"), ("old", "external")]
        )
        answer = yield self.ask(f"{path}/jane", "PUT", form={"password": PASSWORD})
        self.assertEqual(answer.json, {"errors": {"password": "The value must not be supplied"}})
        self.assertEqual((yield self.ask("/whoami", auth=("jane", ""))).status, 401)
        self.assertEqual((yield self.ask(f"{USERS}/jane")).status, 404)
        self.assertEqual((yield self.ask(f"{path}/jane", "DELETE")).status, 200)
        self.assertEqual((yield self.ask("/settings/rbac/users/old", "DELETE")).status, 200)
        self.assertEqual((yield self.ask(path)).json, [])

    @inlineCallbacks
    def test_pages(self) -> Steps:
        """A list comes in pages, in either order, filtered by text; links lead from page to page."""
        for number in range(7):
            yield self.make(f"u{number}", name=f"N{9 - number}")
        path = f"{USERS}?pageSize=3&substr=U"
        seen: list[str] = []
        while path:
            page = (yield self.ask(path)).json
            self.assertEqual((page["total"], page["skipped"]), (7, len(seen)))
            seen += [user["id"] for user in page["users"]]
            path = page["links"].get("next")
        self.assertEqual(seen, [f"u{number}" for number in range(7)])
        for query, expected in {
            "sortBy=name": ["private", "u6"],
            "order=desc": ["u6", "u5"],
            "startFrom=u3&startFromDomain=local": ["u3", "u4"],
            "substr=n7": ["u2"],
            "permission=cluster.pools!read": ["private"],
        }.items():
            page = (yield self.ask(f"{USERS}?pageSize=2&{query}")).json
            self.assertEqual([user["id"] for user in page["users"]], expected, query)
        for query, field in [
            ("pageSize=1", "pageSize"),
            ("pageSize=101", "pageSize"),
            ("pageSize=x", "pageSize"),
            ("pageSize=2&sortBy=x", "sortBy"),
            ("pageSize=2&order=up", "order"),
            ("permission=x", "permission"),
        ]:
            answer = yield self.ask(f"{USERS}?{query}")
            self.assertEqual((answer.status, list(answer.json["errors"])), (400, [field]), query)

    @inlineCallbacks
    def test_users_by_permission(self) -> Steps:
        """A list can be limited to users who have a permission, also by a group."""
        yield self.make("reader", "data_reader[default]")
        yield self.make("writer", "data_writer[default]")
        yield self.ask(f"{GROUPS}/devs", "PUT", form={"roles": "data_reader[*]"})
        yield self.make("member", groups="devs")
        path = f"{USERS}?permission=cluster.bucket[default].data.docs!read"
        self.assertEqual([one["id"] for one in (yield self.ask(path)).json], ["member", "reader"])

    @inlineCallbacks
    def test_the_user_of_a_bucket(self) -> Steps:
        """The user that comes with a bucket is one like others, and goes with it unless it got more."""
        (own,) = (yield self.ask(USERS)).json
        self.assertEqual((own["id"], own["roles"][0]["role"]), ("private", "bucket_full_access"))
        yield self.put("private", roles="data_reader[private]")
        self.assertEqual((yield self.ask(f"{BUCKETS}/private", auth=("private", "pw"))).status, 200)
        answer = yield self.ask(f"{BUCKETS}/private/stats", auth=("private", "pw"))
        self.assertEqual(answer.status, 403)
        yield self.ask(f"{BUCKETS}/private", "DELETE")
        self.assertEqual((yield self.ask(f"{USERS}/private")).json["roles"], [])

    @inlineCallbacks
    def test_a_new_bucket_of_an_old_name(self) -> Steps:
        """Roles for a bucket are deleted with it: a new bucket of its name gives no one access."""
        jane = yield self.make("jane", "data_reader[private],ro_admin,data_reader[*]")
        yield self.ask(f"{GROUPS}/devs", "PUT", form={"roles": "data_writer[private]"})
        yield self.ask(f"{BUCKETS}/private", "DELETE")
        form = {"name": "private", "ramQuotaMB": "100", "replicaNumber": "0"}
        self.assertEqual((yield self.ask(BUCKETS, "POST", form=form)).status, 202)
        user = (yield self.ask(f"{USERS}/jane")).json
        self.assertEqual([role["role"] for role in user["roles"]], ["ro_admin", "data_reader"])
        self.assertEqual(user["roles"][1]["bucket_name"], "*")
        self.assertEqual((yield self.ask(f"{GROUPS}/devs")).json["roles"], [])
        self.assertEqual((yield self.ask("/whoami", auth=jane)).status, 200)


class GroupTests(UserCase):
    """Groups."""

    @inlineCallbacks
    def test_life_of_a_group(self) -> Steps:
        """A group is created, read, listed, changed and deleted; its users have its roles while it exists."""
        form = {"roles": "data_reader[default],ro_admin", "description": "all", "ldap_group_ref": "cn=x"}
        answer = yield self.ask(f"{GROUPS}/devs", "PUT", form=form)
        self.assertEqual((answer.status, answer.body), (200, b'""'))
        everywhere = {"scope_name": "*", "collection_name": "*"}
        roles = [{"role": "data_reader", "bucket_name": "default", **everywhere}, {"role": "ro_admin"}]
        group = {"id": "devs", "roles": roles, "description": "all", "ldap_group_ref": "cn=x"}
        self.assertEqual((yield self.ask(f"{GROUPS}/devs")).json, group)
        self.assertEqual((yield self.ask(GROUPS)).json, [group])
        jane = yield self.make("jane", "ro_admin", groups="devs")
        user = (yield self.ask(f"{USERS}/jane")).json
        by_group = {"type": "group", "name": "devs"}
        self.assertEqual(
            [(role["role"], role["origins"]) for role in user["roles"]],
            [("ro_admin", [{"type": "user"}, by_group]), ("data_reader", [by_group])],
        )
        self.assertEqual(user["groups"], ["devs"])
        path = f"{BUCKETS}/default/localRandomKey"
        self.assertEqual((yield self.ask(path, auth=jane)).status, 404)
        yield self.ask(f"{GROUPS}/devs", "PUT", form={"roles": ""})
        self.assertEqual((yield self.ask(path, auth=jane)).status, 403)
        yield self.ask(f"{GROUPS}/devs", "PUT", form={"roles": "data_reader[default]"})
        self.assertEqual((yield self.ask(path, auth=jane)).status, 404)
        answer = yield self.ask(f"{GROUPS}/devs", "DELETE")
        self.assertEqual((answer.status, answer.body), (200, b'""'))
        self.assertEqual((yield self.ask(path, auth=jane)).status, 403)
        self.assertEqual((yield self.ask(f"{USERS}/jane")).json["groups"], [])
        answer = yield self.ask(f"{GROUPS}/devs")
        self.assertEqual((answer.status, answer.json), (404, "Unknown group."))
        answer = yield self.ask(f"{GROUPS}/devs", "DELETE")
        self.assertEqual((answer.status, answer.json), (404, "Group was not found."))

    @inlineCallbacks
    def test_refusals(self) -> Steps:
        """Each wrong field of a group is named."""
        for name, form, errors in [
            ("g", {}, {"roles": "The value must be supplied"}),
            ("g", {"roles": "", "name": "x"}, {"name": "Unsupported key"}),
            ("g", {"roles": "data_reader[x]"}, {"roles": UNKNOWN_ROLES.format("group", "data_reader[x]")}),
            ("@g", {"roles": ""}, {"_": "Group name cannot start with '@'"}),
            (
                "g",
                {"roles": "", "description": "d" * 1001},
                {"description": "Length (1001) must be in the range from 0 to 1000"},
            ),
        ]:
            answer = yield self.ask(f"{GROUPS}/{name}", "PUT", form=form)
            self.assertEqual((answer.status, answer.json), (400, {"errors": errors}), form)
        self.assertEqual((yield self.ask(GROUPS)).json, [])


class CallerTests(UserCase):
    """What callers can read and change about themselves."""

    @inlineCallbacks
    def test_whoami(self) -> Steps:
        """Everybody learns who they are; wrong credentials are 401, none are not."""
        yield self.ask(f"{GROUPS}/devs", "PUT", form={"roles": "ro_admin"})
        jane = yield self.make("jane", "data_reader[default]", groups="devs", name="Jane")
        nobody = yield self.make("nobody")
        who = (yield self.ask("/whoami", auth=jane)).json
        self.assertRegex(who.pop("uuid"), r"\A[0-9a-f]{32}\Z")
        reader = {"bucket_name": "default", "scope_name": "*", "collection_name": "*"}
        self.assertEqual(
            who,
            {
                "id": "jane",
                "domain": "local",
                "name": "Jane",
                "roles": [{"role": "data_reader", **reader}, {"role": "ro_admin"}],
            },
        )
        who = (yield self.ask("/whoami", auth=ADMIN)).json
        self.assertEqual(who, {"id": ADMIN[0], "domain": "admin", "roles": [{"role": "admin"}]})
        answer = yield self.ask("/whoami", auth=None)
        self.assertEqual((answer.status, answer.json), (200, {"id": "", "domain": "anonymous", "roles": []}))
        self.assertEqual((yield self.ask("/whoami", auth=nobody)).json["roles"], [])
        for auth in (("jane", "wrong"), ("ghost", "x"), ("jane", "")):
            self.assertEqual((yield self.ask("/whoami", auth=auth)).status, 401, auth)

    @inlineCallbacks
    def test_permissions_of_the_caller(self) -> Steps:
        """A list of permissions is answered one by one; no role is needed to ask."""
        jane = yield self.make("jane", "data_reader[default]")
        texts = ["cluster.bucket[default].data.docs!read", "cluster.pools!write", "cluster.pools!read"]
        path = "/pools/default/checkPermissions"
        answer = yield self.ask(path, "POST", jane, ",".join(texts).encode())
        self.assertEqual(
            (answer.status, answer.json), (200, dict(zip(texts, (True, False, True), strict=True)))
        )
        answer = yield self.ask(path, "POST", jane, b"cluster.pools!read,x,y!z")
        self.assertEqual((answer.status, answer.json), (400, "Malformed permissions: [x,y!z]."))
        answer = yield self.ask(path, "POST", jane, b"")
        self.assertEqual((answer.status, answer.json), (400, "Request body should not be empty."))
        before = (yield self.ask("/pools/default", auth=jane)).json["checkPermissionsURI"]
        answer = yield self.ask(before, "POST", jane, b"cluster.pools!read")
        self.assertEqual(answer.json, {"cluster.pools!read": True})
        nobody = yield self.make("nobody")
        after = (yield self.ask("/pools/default", auth=jane)).json["checkPermissionsURI"]
        self.assertNotEqual(before, after)
        answer = yield self.ask(path, "POST", nobody, b"cluster.pools!read")
        self.assertEqual((answer.status, answer.json), (200, {"cluster.pools!read": False}))

    @inlineCallbacks
    def test_own_password(self) -> Steps:
        """Every user can change their own password, and nothing else; the old one fails at once."""
        jane = yield self.make("jane", "data_reader[default]")
        for form, errors in [
            ({}, {"password": "The value must be supplied"}),
            ({"password": "short"}, {"password": "The password must be at least 6 characters long."}),
            ({"password": PASSWORD}, {"password": "Password has already been used."}),
            ({"password": "n3w-secret", "roles": "admin"}, {"roles": "Unsupported key"}),
        ]:
            answer = yield self.ask("/controller/changePassword", "POST", jane, form)
            self.assertEqual((answer.status, answer.json), (400, {"errors": errors}), form)
        answer = yield self.ask("/controller/changePassword", "POST", jane, {"password": "n3w-secret"})
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual((yield self.ask("/whoami", auth=jane)).status, 401)
        who = (yield self.ask("/whoami", auth=("jane", "n3w-secret"))).json
        self.assertEqual([role["role"] for role in who["roles"]], ["data_reader"])
        answer = yield self.ask("/controller/changePassword", "POST", ADMIN, {"password": "other-one"})
        self.assertEqual(answer.status, 200)
        who = (yield self.ask("/whoami", auth=(ADMIN[0], "other-one"))).json
        self.assertEqual(who["domain"], "admin")

    @inlineCallbacks
    def test_policy(self) -> Steps:
        """The policy is read and set, and applies to every later password."""
        path = "/settings/passwordPolicy"
        first = {
            "minLength": 6,
            "enforceUppercase": False,
            "enforceLowercase": False,
            "enforceDigits": False,
            "enforceSpecialChars": False,
        }
        self.assertEqual((yield self.ask(path)).json, first)
        form = {"minLength": "4", "enforceUppercase": "true", "enforceDigits": "true"}
        self.assertEqual((yield self.ask(path, "POST", form=form)).status, 200)
        self.assertEqual((yield self.ask(path)).json["minLength"], 4)
        for password, status in [("abcd", 400), ("Abcd", 400), ("abc1", 400), ("Ab1", 400), ("Abc1", 200)]:
            self.assertEqual((yield self.put("jane", password=password)).status, status, password)
        for form, field in [
            ({"minLength": "101"}, "minLength"),
            ({"minLength": "x"}, "minLength"),
            ({"enforceDigits": "yes"}, "enforceDigits"),
            ({"x": "1"}, "x"),
            ({}, "_"),
        ]:
            answer = yield self.ask(path, "POST", form=form)
            self.assertEqual((answer.status, list(answer.json["errors"])), (400, [field]), form)


class RoleListTests(UserCase):
    """The list of roles."""

    @inlineCallbacks
    def test_roles(self) -> Steps:
        """Every role is listed once for all buckets and once for each, with title and description."""
        listed = (yield self.ask("/settings/rbac/roles")).json
        self.assertEqual({role["role"] for role in listed}, set(ROLES))
        for role in listed:
            self.assertTrue(role["name"] and role["desc"], role)
        readers = [role["bucket_name"] for role in listed if role["role"] == "data_reader"]
        self.assertEqual(readers, ["*", "default", "private"])
        (admin,) = [role for role in listed if role["role"] == "admin"]
        # The Python client's tests find the role by these words.
        self.assertRegex(admin["desc"], "all cluster features.*web console.*read and write all data")
        path = "/settings/rbac/roles?permission=cluster.bucket[private].data.docs!upsert"
        found = {(role["role"], role.get("bucket_name")) for role in (yield self.ask(path)).json}
        self.assertIn(("data_writer", "private"), found)
        self.assertIn(("admin", None), found)
        self.assertNotIn(("data_writer", "default"), found)
        self.assertNotIn(("data_reader", "private"), found)


# Method and path -> the permission that it needs; None where every caller with valid credentials is
# answered. All paths of the interface: the test below fails for one that is not here.
B = "cluster.bucket[default]."
S = "cluster.collection[default:x:*]."
PERMISSIONS: dict[tuple[str, str], str | None] = {
    ("GET", "/"): None,
    ("GET", "/pools"): None,
    ("GET", "/whoami"): None,
    ("POST", "/pools/default/checkPermissions"): None,
    ("POST", "/controller/changePassword"): None,
    ("GET", "/pools/default/certificate"): None,
    ("GET", "/settings/clientCertAuth"): "cluster.admin.security!read",
    ("POST", "/settings/clientCertAuth"): "cluster.admin.security!write",
    ("POST", "/pools/default"): "cluster.pools!write",
    ("GET", "/pools/default"): "cluster.pools!read",
    ("GET", "/pools/nodes"): "cluster.pools!read",
    ("GET", "/poolsStreaming/default"): "cluster.pools!read",
    ("GET", "/pools/default/nodeServices"): "cluster.pools!read",
    ("GET", "/pools/default/nodeServicesStreaming"): "cluster.pools!read",
    ("GET", "/pools/default/terseClusterInfo"): "cluster.pools!read",
    ("GET", BUCKETS): "cluster.pools!read",
    ("GET", "/couchnode/backups"): "cluster.admin.internal!all",
    ("POST", "/couchnode/backups"): "cluster.admin.internal!all",
    ("DELETE", "/couchnode/backups/<name>"): "cluster.admin.internal!all",
    ("GET", "/nodeStatuses"): "cluster.nodes!read",
    ("GET", "/nodes/<name>"): "cluster.nodes!read",
    ("GET", "/pools/default/tasks"): "cluster.tasks!read",
    ("GET", "/pools/default/rebalanceProgress"): "cluster.tasks!read",
    ("GET", "/settings/viewUpdateDaemon"): "cluster.settings.indexes!read",
    ("POST", "/settings/viewUpdateDaemon"): "cluster.settings.indexes!write",
    ("GET", "/pools/default/b/<bucket>"): f"{B}settings!read",
    ("GET", "/pools/default/bs/<bucket>"): f"{B}settings!read",
    ("GET", f"{BUCKETS}/<bucket>"): f"{B}settings!read",
    ("GET", "/pools/default/bucketsStreaming/<bucket>"): f"{B}settings!read",
    ("GET", f"{BUCKETS}/<bucket>/nodes"): f"{B}settings!read",
    ("GET", f"{BUCKETS}/<bucket>/stats"): f"{B}stats!read",
    ("GET", f"{BUCKETS}/<bucket>/localRandomKey"): f"{B}data.docs!read",
    ("GET", f"{BUCKETS}/<bucket>/ddocs"): f"{B}views!read",
    ("GET", f"{BUCKETS}/<bucket>/scopes"): "cluster.collection[default:.:.].collections!read",
    ("POST", f"{BUCKETS}/<bucket>/scopes"): f"{B}collections!write",
    ("PUT", f"{BUCKETS}/<bucket>/scopes"): f"{B}collections!write",
    ("POST", f"{BUCKETS}/<bucket>/scopes/@ensureManifest/<uid>"): f"{B}collections!read",
    ("POST", f"{BUCKETS}/<bucket>/scopes/@ensureManifest"): f"{B}collections!read",
    ("DELETE", f"{BUCKETS}/<bucket>/scopes/<scope>"): f"{S}collections!write",
    ("POST", f"{BUCKETS}/<bucket>/scopes/<scope>/collections"): f"{S}collections!write",
    ("PATCH", f"{BUCKETS}/<bucket>/scopes/<scope>/collections/<collection>"): f"{S}collections!write",
    ("DELETE", f"{BUCKETS}/<bucket>/scopes/<scope>/collections/<collection>"): f"{S}collections!write",
    (
        "GET",
        f"{BUCKETS}/<bucket>/scopes/<scope>/collections/<collection>/localRandomKey",
    ): "cluster.collection[default:x:x].data.docs!read",
    ("POST", BUCKETS): "cluster.buckets!create",
    ("POST", f"{BUCKETS}/<bucket>"): f"{B}settings!write",
    ("DELETE", f"{BUCKETS}/<bucket>"): "cluster.bucket[default]!delete",
    ("POST", f"{BUCKETS}/<bucket>/controller/doFlush"): "cluster.bucket[default]!flush",
    ("GET", "/settings/passwordPolicy"): "cluster.admin.security!read",
    ("POST", "/settings/passwordPolicy"): "cluster.admin.security!write",
    ("GET", "/settings/rbac/roles"): "cluster.admin.users!read",
    ("GET", "/settings/rbac/users"): "cluster.admin.users!read",
    ("GET", "/settings/rbac/users/<domain>"): "cluster.admin.users!read",
    ("GET", "/settings/rbac/users/<domain>/<name>"): "cluster.admin.users!read",
    ("PUT", "/settings/rbac/users/<domain>/<name>"): "cluster.admin.users.local!write",
    ("PATCH", "/settings/rbac/users/<domain>/<name>"): "cluster.admin.users.local!write",
    ("DELETE", "/settings/rbac/users/<domain>/<name>"): "cluster.admin.users.local!write",
    ("PUT", "/settings/rbac/users/<name>"): "cluster.admin.users.external!write",
    ("DELETE", "/settings/rbac/users/<name>"): "cluster.admin.users.external!write",
    ("GET", GROUPS): "cluster.admin.users!read",
    ("GET", f"{GROUPS}/<name>"): "cluster.admin.users!read",
    ("PUT", f"{GROUPS}/<name>"): "cluster.admin.users!write",
    ("DELETE", f"{GROUPS}/<name>"): "cluster.admin.users!write",
    ("POST", "/_cbauth"): None,
    ("GET", "/_cbauth/checkPermission"): "cluster.admin.internal!all",
    ("GET", "/_cbauth/getUserUuid"): "cluster.admin.internal!all",
    ("GET", "/_cbauth/getUserBuckets"): "cluster.admin.internal!all",
    ("GET", "/<bucket>/_design/d"): f"{B}views!read",
    ("PUT", "/<bucket>/_design/d"): f"{B}views!write",
    ("DELETE", "/<bucket>/_design/d"): f"{B}views!write",
    ("GET", "/<bucket>/_design/d/_view/v"): f"{B}views!read",
    ("POST", "/<bucket>/_design/d/_view/v"): f"{B}views!read",
}


class EnforcementTests(UserCase):
    """Permissions of users."""

    def path(self, rule: str) -> str:
        """Fill in a path."""
        for name, value in (("bucket", "default"), ("domain", "local"), ("name", "self"), ("uid", "0")):
            rule = rule.replace(f"<{name}>", value)
        return rule.replace("<scope>", "x").replace("<collection>", "x")

    def test_every_path_is_listed(self) -> None:
        """No path of the interface is without its row above."""
        rules = {
            (method, rule.rule)
            for rule in RestApi.app.url_map.iter_rules()
            for method in rule.methods or ()
            if method not in ("HEAD", "OPTIONS")
        }
        self.assertEqual(rules - PERMISSIONS.keys(), set())

    @inlineCallbacks
    def test_without_the_permission(self) -> Steps:
        """A user who lacks the permission gets 403 with its name, one without any role 401."""
        guest = yield self.make("guest", "external_stats_reader")
        nobody = yield self.make("nobody")
        before = json.dumps(self.cluster.users.dump(), sort_keys=True)
        for (method, rule), permission in PERMISSIONS.items():
            if permission is None:
                continue
            path = self.path(rule)
            answer = yield self.ask(path, method, guest, headers="Content-Type: application/json")
            self.assertEqual(answer.status, 403, (method, path))
            self.assertEqual(
                answer.json,
                {"message": "Forbidden. User needs the following permissions", "permissions": [permission]},
            )
            answer = yield self.ask(path, method, nobody, headers="Content-Type: application/json")
            self.assertEqual((answer.status, answer.body), (401, b""), (method, path))
        self.assertEqual(json.dumps(self.cluster.users.dump(), sort_keys=True), before)
        self.assertEqual(sorted(self.cluster.buckets), ["default", "private"])

    @inlineCallbacks
    def test_with_the_permission(self) -> Steps:
        """A role with the permission opens the path: no answer is 401 or 403."""
        holders = {}
        for role in (
            "ro_admin",
            "cluster_admin",
            "user_admin_local",
            "user_admin_external",
            "security_admin",
        ):
            holders[role] = yield self.make(role, role)
        for role in ("bucket_full_access", "data_reader", "views_admin", "bucket_admin"):
            holders[role] = yield self.make(role, f"{role}[default]")
        holders["boss"] = yield self.make("boss", "admin")
        rows = [row for row in PERMISSIONS.items() if row[1] is not None and "reaming" not in row[0][1]]
        for (method, rule), permission in rows:
            if method == "DELETE" and rule == f"{BUCKETS}/<bucket>" or "/bs/" in rule:
                continue
            allowed = [
                auth
                for role, auth in holders.items()
                if self.cluster.users.rights(role).allow(str(permission))
            ]
            self.assertNotEqual(allowed, [], permission)
            answer = yield self.ask(
                self.path(rule), method, allowed[0], headers="Content-Type: application/json"
            )
            self.assertNotIn(answer.status, (401, 403), (method, rule, allowed[0]))

    @inlineCallbacks
    def test_existence_is_not_revealed(self) -> Steps:
        """The answer for a bucket that a user may not see does not depend on whether it exists."""
        guest = yield self.make("guest", "data_reader[default]")
        for path in ("/pools/default/b/{}", BUCKETS + "/{}", "/{}/_design/d", BUCKETS + "/{}/stats"):
            seen = []
            for name in ("private", "nope"):
                answer = yield self.ask(path.format(name), auth=guest)
                seen.append((answer.status, answer.body.replace(name.encode(), b"")))
            self.assertEqual(seen[0], seen[1], path)
            self.assertEqual(seen[0][0], 403)
        listed = (yield self.ask(BUCKETS, auth=guest)).json
        self.assertEqual([bucket["name"] for bucket in listed], ["default"])
        pool = (yield self.ask("/pools/default", auth=guest)).json
        self.assertEqual([bucket["bucketName"] for bucket in pool["bucketNames"]], ["default"])

    @inlineCallbacks
    def test_nobody_gives_more_than_they_may(self) -> Steps:
        """An administrator of users cannot make a full one, nor touch one, nor lift itself."""
        admin = yield self.make("boss", "user_admin_local")
        yield self.make("root", "admin")
        yield self.ask(f"{GROUPS}/roots", "PUT", form={"roles": "admin"})
        self.assertEqual((yield self.put("jane", admin, password=PASSWORD, roles="ro_admin")).status, 200)
        for path, method, form in [
            (f"{USERS}/jane", "PUT", {"roles": "admin"}),
            (f"{USERS}/boss", "PUT", {"roles": "admin"}),
            (f"{USERS}/boss", "PUT", {"roles": "user_admin_local,ro_admin"}),
            (f"{USERS}/jane", "PUT", {"roles": "security_admin"}),
            (f"{USERS}/root", "PATCH", {"password": "n3w-secret"}),
            (f"{USERS}/root", "PUT", {"password": "n3w-secret"}),
            (f"{USERS}/root", "DELETE", {}),
            (f"{USERS}/jane", "PUT", {"groups": "roots"}),
            (f"{GROUPS}/roots", "DELETE", {}),
            (f"{GROUPS}/roots", "PUT", {"roles": ""}),
            (f"{GROUPS}/new", "PUT", {"roles": "admin"}),
        ]:
            answer = yield self.ask(path, method, admin, form)
            self.assertEqual(answer.status, 403, (path, method, form))
            self.assertEqual(answer.json["permissions"], ["cluster.admin.security!write"])
        roles = {role["role"] for role in (yield self.ask("/settings/rbac/roles", auth=admin)).json}
        self.assertEqual(set(ROLES) - roles, set())
        answer = yield self.ask("/settings/rbac/users/external/x", "PUT", admin)
        self.assertEqual(answer.status, 403)

    @inlineCallbacks
    def test_role_of_an_administrator(self) -> Steps:
        """A user with the role admin does everything that the administrator does."""
        root = yield self.make("root", "admin")
        self.assertTrue((yield self.ask("/pools", auth=root)).json["isAdminCreds"])
        self.assertEqual((yield self.put("other", root, password=PASSWORD, roles="admin")).status, 200)
        self.assertEqual((yield self.ask(f"{BUCKETS}/private", "DELETE", root)).status, 200)
        self.assertEqual((yield self.ask("/whoami", auth=root)).json["domain"], "local")


class AgreementTests(UserCase):
    """Several nodes."""

    nodes = 2

    @inlineCallbacks
    def test_all_nodes_agree(self) -> Steps:
        """A change on one node applies to all at once."""
        form: dict[str, Any] = {"password": PASSWORD, "roles": "ro_admin"}
        yield self.ask(f"{USERS}/jane", "PUT", form=form, node=1)
        for node in (0, 1):
            self.assertEqual((yield self.ask("/whoami", auth=JANE, node=node)).json["id"], "jane")
        yield self.ask(f"{USERS}/jane", "DELETE", node=0)
        for node in (0, 1):
            self.assertEqual((yield self.ask("/whoami", auth=JANE, node=node)).status, 401)
