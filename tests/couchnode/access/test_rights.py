"""The privileges of each role in the key-value protocol, by the reference's table."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchnode.access.kinds import ROLES
from couchnode.access.rights import (
    ALL_RIGHTS,
    DCP_PRODUCER,
    EVERYTHING,
    IMPERSONATE,
    MAX_REMEMBERED,
    NAMES,
    NO_RIGHTS,
    READ,
    SYSTEM_COLLECTION_MUTATION,
    UPSERT,
    Rights,
)
from couchnode.access.roles import Role, parse_roles
from tests.couchnode.access.test_roles import EXISTS, roles

SHORT = {
    "R": "Read",
    "I": "Insert",
    "U": "Upsert",
    "D": "Delete",
    "RS": "RangeScan",
    "MW": "MetaWrite",
    "XR": "SystemXattrRead",
    "XW": "SystemXattrWrite",
    "ST": "SimpleStats",
    "DS": "DcpStream",
    "DP": "DcpProducer",
    "DC": "DcpConsumer",
    "SL": "SystemCollectionLookup",
    "SM": "SystemCollectionMutation",
}
ALL = " ".join(SHORT)

# Role for the bucket b -> privileges on it, and those of no bucket.
TABLE = {
    "admin": (ALL, "Administrator IdleConnection Impersonate Stats SystemSettings"),
    "ro_admin": ("ST", "Stats SystemSettings"),
    "cluster_admin": ("ST", "Administrator IdleConnection Stats SystemSettings"),
    "security_admin": ("ST", "Stats SystemSettings"),
    "user_admin_local": ("ST", "Stats SystemSettings"),
    "bucket_admin": ("ST", "Stats SystemSettings"),
    "bucket_full_access": ("R I U D RS MW XR XW ST DS DP DC SL", "SystemSettings"),
    "data_reader": ("R RS SL", "SystemSettings"),
    "data_writer": ("I U D", "SystemSettings"),
    "data_dcp_reader": ("R XR DS SL DP", "IdleConnection SystemSettings"),
    "data_backup": (ALL, "SystemSettings"),
    "data_monitoring": ("ST", "SystemSettings"),
    "scope_admin": ("", ""),
    "views_admin": ("R XR DS DP ST SL", "Stats SystemSettings"),
    "views_reader": ("R SL", "SystemSettings"),
    "query_select": ("R SL", "SystemSettings"),
    "query_insert": ("I", "SystemSettings"),
    "query_update": ("U RS", "SystemSettings"),
    "query_delete": ("D RS", "SystemSettings"),
    "query_manage_index": ("ST", "SystemSettings"),
    "fts_admin": ("R SL", "SystemSettings"),
    "fts_searcher": ("", "SystemSettings"),
    "replication_admin": ("R XR DS DP ST SL", "Stats SystemSettings"),
    "replication_target": ("R MW XR XW ST SL", "SystemSettings"),
    "mobile_sync_gateway": ("R I U D RS MW XR XW ST DS DP DC SL", "IdleConnection SystemSettings"),
    "eventing_admin": (ALL, "Stats SystemSettings"),
    "backup_admin": (ALL, "Stats SystemSettings"),
    "external_stats_reader": ("", ""),
}

# Role for the bucket b -> permissions that it has, and some that it has not.
REST = {
    "ro_admin": (
        "cluster.bucket[b].settings!read cluster.bucket[b].stats!read cluster.nodes!read cluster.tasks!read"
        " cluster.bucket[b].collections!read cluster.admin.stats_export!read cluster.settings!read",
        "cluster.admin.users!read cluster.bucket[b].data.docs!read cluster.pools!write"
        " cluster.bucket[b].settings!write",
    ),
    "cluster_admin": (
        "cluster.buckets!create cluster.bucket[b]!delete cluster.bucket[b].settings!write cluster.pools!write"
        " cluster.bucket[b].collections!write",
        "cluster.admin.users!read cluster.bucket[b].views!read cluster.bucket[b].data.docs!read"
        " cluster.admin.security!read cluster.admin.internal!all",
    ),
    "bucket_admin": (
        "cluster.bucket[b].settings!write cluster.bucket[b]!delete cluster.bucket[b]!flush"
        " cluster.bucket[b].collections!write cluster.bucket[c].settings!read cluster.nodes!read",
        "cluster.bucket[c].settings!write cluster.bucket[b].data.docs!read cluster.buckets!create"
        " cluster.bucket[b].views!read cluster.pools!write",
    ),
    "bucket_full_access": (
        "cluster.bucket[b].settings!read cluster.bucket[b]!flush cluster.bucket[b].views!write"
        " cluster.bucket[b].stats!read cluster.bucket[b].collections!read cluster.pools!read",
        "cluster.bucket[b].settings!write cluster.bucket[b]!delete cluster.bucket[c].settings!read"
        " cluster.nodes!read cluster.bucket[b].collections!write",
    ),
    "data_reader": (
        "cluster.bucket[b].settings!read cluster.pools!read",
        "cluster.bucket[b].views!read cluster.bucket[b].stats!read cluster.nodes!read"
        " cluster.bucket[b].collections!read",
    ),
    "scope_admin": ("cluster.scope[b:s].collections!write", "cluster.pools!read"),
    "views_reader": (
        "cluster.bucket[b].views!read cluster.pools!read",
        "cluster.bucket[b].views!write cluster.bucket[b].settings!read",
    ),
    "views_admin": (
        "cluster.bucket[b].views!write cluster.bucket[b].stats!read cluster.tasks!read",
        "cluster.bucket[b].settings!write cluster.bucket[c].views!read",
    ),
    "user_admin_local": (
        "cluster.admin.users!read cluster.admin.users!write cluster.admin.users.local!write",
        "cluster.admin.security!write cluster.admin.users.external!write cluster.bucket[b].data.docs!read",
    ),
    "security_admin": ("cluster.admin.security!write cluster.admin.users!read", "cluster.admin.users!write"),
    "external_stats_reader": ("cluster.admin.stats_export!read", "cluster.pools!read"),
}


def of(name: str, *more: str) -> Rights:
    """Return the rights of a role for the bucket b, or for a part of it."""
    return Rights([Role(name, ("b", *more, "*", "*")[: ROLES[name].parameters])])


def names(mask: int) -> set[str]:
    """Return the names of privileges."""
    return {name for privilege, name in NAMES.items() if mask & privilege}


class TableTests(SynchronousTestCase):
    """One role."""

    def test_privileges(self) -> None:
        """Every role has the privileges that the reference lists, on its bucket and on no other."""
        for role, (on_bucket, general) in TABLE.items():
            rights = of(role)
            self.assertEqual(
                names(rights.on_bucket("b").mask), {SHORT[one] for one in on_bucket.split()}, role
            )
            self.assertEqual(names(rights.global_privileges), set(general.split()), role)
            if ROLES[role].parameters:
                # Statistics of all buckets come with some roles for one.
                self.assertEqual(rights.on_bucket("c").mask & ~rights.on_bucket("b").mask, 0, role)
                self.assertFalse(names(rights.on_bucket("c").anywhere()) & {"Read", "Upsert", "Delete"}, role)

    def test_permissions(self) -> None:
        """Every role opens exactly the intended parts of the REST interface."""
        for role, (allowed, refused) in REST.items():
            rights = of(role)
            for text in allowed.split():
                self.assertTrue(rights.allow(text), (role, text))
            for text in refused.split():
                self.assertFalse(rights.allow(text), (role, text))

    def test_nothing_and_everything(self) -> None:
        """An unknown user has no right, an administrator every right, for any name."""
        for name in ("b", "nope", "a]:["):
            self.assertFalse(NO_RIGHTS.on_bucket(name))
            self.assertEqual(ALL_RIGHTS.on_bucket(name).mask | ALL_RIGHTS.global_privileges, EVERYTHING, name)
        self.assertTrue(ALL_RIGHTS.global_privileges & IMPERSONATE)
        self.assertTrue(ALL_RIGHTS.allow("cluster.anything!at_all"))
        self.assertFalse(NO_RIGHTS.allow("cluster.pools!read"))

    def test_memory(self) -> None:
        """Asking about many buckets takes no more memory than asking about a few."""
        rights = of("data_reader")
        for number in range(3 * MAX_REMEMBERED):
            rights.on_bucket(f"b{number}")
            self.assertLessEqual(len(rights._buckets), MAX_REMEMBERED)

    def test_only_administrators_impersonate(self) -> None:
        """No other role may act for another user."""
        self.assertEqual({name for name in ROLES if of(name).global_privileges & IMPERSONATE}, {"admin"})


class PartTests(SynchronousTestCase):
    """Roles for scopes and collections."""

    def test_levels(self) -> None:
        """Rights on a bucket, a scope and a collection add up, and hold for that part alone."""
        rights = Rights(parse_roles("data_reader[b:s:c],data_writer[b:s],data_monitoring[b]", EXISTS))
        bucket = rights.on_bucket("b")
        self.assertEqual(names(bucket.mask), {"SimpleStats"})
        self.assertEqual(names(bucket.on("_default", "_default")), {"SimpleStats"})
        self.assertEqual(names(bucket.on("s", "d")), {"SimpleStats", "Insert", "Upsert", "Delete"})
        self.assertEqual(
            names(bucket.on("s", "c")),
            {"SimpleStats", "Insert", "Upsert", "Delete", "Read", "RangeScan", "SystemCollectionLookup"},
        )
        self.assertEqual(bucket.on("s", "c"), bucket.on_scope("s"))
        self.assertEqual(bucket.on("s", "c"), bucket.anywhere())

    def test_streams_of_a_collection(self) -> None:
        """A reader of a collection's changes opens the stream on the bucket."""
        bucket = of("data_dcp_reader", "s", "c").on_bucket("b")
        self.assertTrue(bucket.mask & DCP_PRODUCER)
        self.assertFalse(bucket.mask & READ)
        self.assertTrue(bucket.on("s", "c") & READ)

    def test_system_collection_of_one_role(self) -> None:
        """Roles that name a system collection themselves have their privileges there."""
        for role in ("mobile_sync_gateway", "replication_target"):
            bucket = of(role).on_bucket("b")
            self.assertTrue(bucket.on("_system", "_mobile") & SYSTEM_COLLECTION_MUTATION, role)
            self.assertTrue(bucket.on("_system", "_mobile") & UPSERT, role)
            self.assertFalse(bucket.on("_system", "_query") & SYSTEM_COLLECTION_MUTATION, role)

    @given(st.lists(roles(), max_size=5))
    def test_a_right_of_the_user_is_one_of_a_role(self, given_roles: list[Role]) -> None:
        """Two roles together allow exactly what either allows."""
        together = Rights(given_roles)
        alone = [Rights([role]) for role in given_roles]
        for bucket in ("b", "nope"):
            for place in (("_default", "_default"), ("s", "c"), ("s", "d")):
                mask = 0
                for rights in alone:
                    mask |= rights.on_bucket(bucket).on(*place)
                self.assertEqual(together.on_bucket(bucket).on(*place), mask)
        mask = 0
        for rights in alone:
            mask |= rights.global_privileges
        self.assertEqual(together.global_privileges, mask)
        for text in ("cluster.pools!read", "cluster.bucket[b].settings!write", "cluster.admin.users!write"):
            self.assertIs(together.allow(text), any(rights.allow(text) for rights in alone))

    @given(roles())
    def test_narrower_is_never_more(self, role: Role) -> None:
        """A role for a part allows nothing that the same role for the whole does not."""
        whole = Rights([Role(role.name, ("*",) * len(role.parameters))]).on_bucket("b")
        part = Rights([role]).on_bucket("b")
        for place in (("_default", "_default"), ("s", "c"), ("s", "d")):
            self.assertEqual(part.on(*place) & ~whole.on(*place), 0)
