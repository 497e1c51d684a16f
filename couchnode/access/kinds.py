"""The table of roles and their permissions. The permissions of a role are written once, as patterns. The
privileges of the key-value protocol follow from it (:mod:`couchnode.access.rights`), like every right of the
REST interface.

Roles of services that this node does not have (query, search, analytics, eventing) are accepted, listed, and
allow what they allow on the data.
"""

from __future__ import annotations

from typing import NamedTuple

from couchnode.access.permissions import ANY, Pattern, Vertex, parse_path

NOTHING, BUCKET, SCOPE, COLLECTION = 0, 1, 2, 3
"""How many of bucket, scope and collection a role names."""

_EVERY_BUCKET = "buckets.*"


class RoleKind(NamedTuple):
    """A row of the table.

    :ivar title: the name for people.
    :ivar parameters: how many of bucket, scope and collection it names: 0 to 3.
    :ivar description: one sentence on its purpose.
    :ivar patterns: what it allows, in order. In their paths ``{0}``, ``{1}`` and ``{2}`` stand for the
        parameters.
    """

    title: str
    parameters: int
    description: str
    patterns: tuple[Pattern, ...]


def _kind(title: str, parameters: int, description: str, text: str) -> RoleKind:
    """Make a row. Each part of ``text`` is ``object: operations``; the operations are names, ``all`` or
    ``none``. ``bucket``, ``scope`` and ``collection`` at the start of an object have the role's parameters,
    ``buckets.`` means every bucket."""
    patterns = []
    for part in text.split(";"):
        path, _, operations = part.strip().rpartition(":")
        words = operations.split()
        allowed = None if words == ["all"] else frozenset(() if words == ["none"] else words)
        patterns.append(Pattern(_path(path.strip()), allowed))
    return RoleKind(title, parameters, description, tuple(patterns))


def _path(text: str) -> tuple[Vertex, ...]:
    if not text:
        return ()
    if text == _EVERY_BUCKET:
        return parse_path("bucket[.]", ANY)
    first, dot, rest = text.partition(".")
    vertices = {
        "bucket": "bucket[{0}]",
        "scope": "collection[{0}:{1}:.]",
        "collection": "collection[{0}:{1}:{2}]",
        "buckets": "bucket[.]",
    }
    # The permission cluster.buckets!create has the vertex "buckets" alone.
    if first in vertices and (first != "buckets" or dot):
        text = vertices[first] + dot + rest
    return parse_path(text, ANY)


# What every role that may not see data has in common, and what the web console of a server would need.
_NO_SERVICES = "eventing: none; analytics: none; backup: none"
_NO_DATA = (
    "buckets.data: none; buckets.views: none; buckets.n1ql: none; buckets.fts: none; buckets.analytics: none"
)
_USER_ADMIN = (
    "admin.security.admin: none; admin.security: read; {users}admin.users: read; admin.logs: none;"
    "admin.event: none; admin.metakv: none; admin.internal: none; admin.stats_export: none;"
    f"{_NO_DATA}; buckets.settings: read; buckets.stats: read; buckets.collections: read; buckets.xdcr: none;"
    f"{_NO_SERVICES}; xdcr: none; settings.metrics: none; : read list"
)
_QUERY = "bucket.settings: read; ui: read; pools: read"
_FUNCTIONS = "ui: read; pools: read"

ROLES: dict[str, RoleKind] = {
    "admin": _kind(
        "Full Admin",
        NOTHING,
        # Tests of official clients find the role by these words.
        "Manages all cluster features, may use the web console, and may read and write all data.",
        ": all",
    ),
    "ro_admin": _kind(
        "Read-Only Admin",
        NOTHING,
        "Sees settings and statistics of the whole cluster; no data, no users.",
        "buckets.data: none; buckets.fts: none; buckets.analytics: none; admin.stats_export: read;"
        "admin.settings: read; admin.logs: read; admin: none; eventing: none; analytics: none; backup: read;"
        ": read list",
    ),
    "security_admin": _kind(
        "Security Admin",
        NOTHING,
        "Manages security settings and sees users; no data.",
        "admin.security.admin: none; admin.security: all; admin.users: read; admin.logs: none;"
        "admin.event: none; admin.metakv: none; admin.internal: none;"
        f"{_NO_DATA}; buckets.settings: read; buckets.stats: read; buckets.collections: read;"
        f"buckets.xdcr: none; {_NO_SERVICES}; xdcr: none; settings.metrics: none; : read list",
    ),
    "user_admin_local": _kind(
        "Local User Admin",
        NOTHING,
        "Manages local users and groups, except those with rights on security; no data.",
        _USER_ADMIN.format(users="admin.users.external: read; admin.users: read write;"),
    ),
    "user_admin_external": _kind(
        "External User Admin",
        NOTHING,
        "Manages external users and groups, except those with rights on security; no data.",
        _USER_ADMIN.format(users="admin.users.local: read; admin.users: read write;"),
    ),
    "cluster_admin": _kind(
        "Cluster Admin",
        NOTHING,
        "Manages the cluster, its buckets and collections; no users, no data.",
        "admin.internal: none; admin.security: none; admin.users: none; admin.diag: read; admin.event: none;"
        f"admin.metakv: none; admin.settings.metrics: none; {_NO_DATA}; n1ql.curl: none; {_NO_SERVICES};"
        ": all",
    ),
    "eventing_admin": _kind(
        "Eventing Full Admin",
        NOTHING,
        "Manages eventing functions, which use all data.",
        "admin: none; xdcr: none; buckets.xdcr: none; buckets.*: all; n1ql: all; eventing: all;"
        "analytics: all; buckets: all; settings.metrics: none; : read",
    ),
    "backup_admin": _kind(
        "Backup Full Admin",
        NOTHING,
        "Backs up and restores everything.",
        "admin: none; settings.metrics: none; : all",
    ),
    "bucket_admin": _kind(
        "Bucket Admin",
        BUCKET,
        "Manages a bucket: its settings, its collections, flush and deletion; no data.",
        "bucket.xdcr: read execute; bucket.data: none; bucket.views: none; bucket.n1ql: none;"
        "bucket.fts: none; buckets.analytics: none; bucket: all; buckets.settings: read; buckets.*: none;"
        f"xdcr: none; admin: none; {_NO_SERVICES}; settings.metrics: none; n1ql.meta: none; : read",
    ),
    "scope_admin": _kind(
        "Manage Scopes",
        SCOPE,
        "Creates and drops a scope and its collections.",
        "scope.collections: all",
    ),
    "bucket_full_access": _kind(
        "Application Access",
        BUCKET,
        "Uses all data of a bucket, its views and flush; for applications.",
        "bucket.data.docs: read insert delete upsert range_scan sread; bucket.data: all; bucket.views: all;"
        "bucket.n1ql.index: all; bucket.n1ql: execute; bucket: read flush; bucket.settings: read;"
        "pools: read",
    ),
    "views_admin": _kind(
        "Views Admin",
        BUCKET,
        "Manages the views of a bucket and reads its data.",
        "bucket.views: all; bucket.data.docs: read sread; bucket.data: read; bucket.stats: read;"
        "buckets.settings: read; bucket.n1ql: execute; buckets.*: none; xdcr: none; admin: none;"
        f"{_NO_SERVICES}; settings.metrics: none; : read",
    ),
    "views_reader": _kind(
        "Views Reader",
        BUCKET,
        "Queries the views of a bucket and reads its documents.",
        "bucket.views: read; bucket.data.docs: read sread; pools: read",
    ),
    "replication_admin": _kind(
        "XDCR Admin",
        NOTHING,
        "Manages replications to other clusters, which read all data.",
        "buckets.xdcr: all; buckets.data.docs: read sread; buckets.data: read; buckets.settings: read;"
        "buckets.stats: read; buckets.collections: read; buckets.*: none; xdcr.developer: read; xdcr: all;"
        f"admin: none; {_NO_SERVICES}; settings.metrics: none; : read",
    ),
    "replication_target": _kind(
        "XDCR Inbound",
        BUCKET,
        "Receives replications into a bucket.",
        "collection[{0}:_system:_mobile].data.docs: read upsert sread swrite; bucket.data.docs: read sread;"
        "bucket.data.meta: write; bucket.data.sxattr: read write; bucket.stats: read;"
        "bucket.collections: read; bucket.settings: read; pools: read",
    ),
    "data_reader": _kind(
        "Data Reader",
        COLLECTION,
        "Reads the documents of a bucket, scope or collection.",
        "collection.data.docs: read range_scan sread; bucket.settings: read; pools: read",
    ),
    "data_writer": _kind(
        "Data Writer",
        COLLECTION,
        "Writes documents of a bucket, scope or collection, without reading them.",
        "collection.data.docs: insert upsert delete; bucket.settings: read; pools: read",
    ),
    "data_dcp_reader": _kind(
        "Data DCP Reader",
        COLLECTION,
        "Streams the changes of a bucket, scope or collection.",
        "collection.data.docs: read sread; collection.data.dcpstream: read; collection.data.sxattr: read;"
        "collection.collections: read; bucket.data.dcp: read; bucket.data.docs: sread; bucket.settings: read;"
        "admin.memcached.idle: write; pools: read",
    ),
    "data_backup": _kind(
        "Data Backup & Restore",
        BUCKET,
        "Backs up and restores the data of a bucket.",
        "bucket.collections: all; bucket.data: all; bucket.views: read write; bucket.fts: read write manage;"
        "bucket.stats: read; bucket.settings: read; bucket.n1ql.index: create list build;"
        "bucket.n1ql.meta: backup; bucket.analytics: manage select; analytics: select backup; pools: read",
    ),
    "data_monitoring": _kind(
        "Data Monitor",
        COLLECTION,
        "Reads statistics of a bucket, scope or collection.",
        "collection.stats: read; collection.collections: read; bucket.settings: read; tasks: read;"
        "pools: read",
    ),
    "fts_admin": _kind(
        "Search Admin",
        BUCKET,
        "Manages search indexes of a bucket and reads its data.",
        "bucket.fts: read write manage; bucket.collections: read; bucket.data.docs: read sread;"
        f"settings.fts: read write manage; {_QUERY}",
    ),
    "fts_searcher": _kind(
        "Search Reader",
        COLLECTION,
        "Queries the search indexes of a bucket, scope or collection.",
        f"collection.fts: read; settings.fts: read; {_QUERY}",
    ),
    "query_select": _kind(
        "Query Select",
        COLLECTION,
        "Reads data with SELECT.",
        f"collection.n1ql.select: execute; collection.data.docs: read sread; {_QUERY}",
    ),
    "query_update": _kind(
        "Query Update",
        COLLECTION,
        "Changes data with UPDATE.",
        f"collection.n1ql.update: execute; collection.data.docs: upsert range_scan; {_QUERY}",
    ),
    "query_insert": _kind(
        "Query Insert",
        COLLECTION,
        "Adds data with INSERT.",
        f"collection.n1ql.insert: execute; collection.data.docs: insert; {_QUERY}",
    ),
    "query_delete": _kind(
        "Query Delete",
        COLLECTION,
        "Deletes data with DELETE.",
        f"collection.n1ql.delete: execute; collection.data.docs: delete range_scan; {_QUERY}",
    ),
    "query_manage_index": _kind(
        "Query Manage Index",
        COLLECTION,
        "Manages the query indexes of a bucket, scope or collection.",
        "collection.n1ql.index: all; collection.collections: read; bucket.stats: read;"
        f"settings.indexes: read; {_QUERY}",
    ),
    "query_use_sequential_scans": _kind(
        "Query Use Sequential Scans",
        COLLECTION,
        "Queries without an index.",
        "collection.n1ql.sequential_scan: execute; collection.data.docs: range_scan",
    ),
    "query_system_catalog": _kind(
        "Query System Catalog",
        NOTHING,
        "Reads the catalog of the query service.",
        "buckets.n1ql.index: list; buckets.settings: read; n1ql.meta: read; settings.indexes: read;"
        f"{_FUNCTIONS}",
    ),
    "query_manage_system_catalog": _kind(
        "Query Manage System Catalog",
        NOTHING,
        "Changes the catalog of the query service.",
        f"n1ql.meta: manage; {_FUNCTIONS}",
    ),
    "query_external_access": _kind(
        "Query CURL Access",
        NOTHING,
        "Reaches other servers from a query.",
        f"n1ql.curl: execute; buckets.settings: read; {_FUNCTIONS}",
    ),
    "query_manage_global_functions": _kind(
        "Manage Global Functions", NOTHING, "Manages global functions.", f"n1ql.udf: manage; {_FUNCTIONS}"
    ),
    "query_execute_global_functions": _kind(
        "Execute Global Functions", NOTHING, "Calls global functions.", f"n1ql.udf: execute; {_FUNCTIONS}"
    ),
    "query_manage_functions": _kind(
        "Manage Scope Functions",
        SCOPE,
        "Manages the functions of a scope.",
        f"scope.n1ql.udf: manage; scope.collections: read; {_FUNCTIONS}",
    ),
    "query_execute_functions": _kind(
        "Execute Scope Functions",
        SCOPE,
        "Calls the functions of a scope.",
        f"scope.n1ql.udf: execute; {_FUNCTIONS}",
    ),
    "query_manage_global_external_functions": _kind(
        "Manage Global External Functions",
        NOTHING,
        "Manages global functions in other languages.",
        f"n1ql.udf_external: manage; {_FUNCTIONS}",
    ),
    "query_execute_global_external_functions": _kind(
        "Execute Global External Functions",
        NOTHING,
        "Calls global functions in other languages.",
        f"n1ql.udf_external: execute; {_FUNCTIONS}",
    ),
    "query_manage_external_functions": _kind(
        "Manage Scope External Functions",
        SCOPE,
        "Manages a scope's functions in other languages.",
        f"scope.n1ql.udf_external: manage; scope.collections: read; {_FUNCTIONS}",
    ),
    "query_execute_external_functions": _kind(
        "Execute Scope External Functions",
        SCOPE,
        "Calls a scope's functions in other languages.",
        f"scope.n1ql.udf_external: execute; {_FUNCTIONS}",
    ),
    "query_manage_sequences": _kind(
        "Manage Sequences",
        SCOPE,
        "Manages the sequences of a scope.",
        f"scope.n1ql.sequences: manage; scope.collections: read; {_FUNCTIONS}",
    ),
    "query_use_sequences": _kind(
        "Use Sequences",
        SCOPE,
        "Uses the sequences of a scope.",
        f"scope.n1ql.sequences: execute; scope.collections: read; {_FUNCTIONS}",
    ),
    "analytics_admin": _kind(
        "Analytics Admin",
        NOTHING,
        "Manages analytics.",
        f"analytics: manage; buckets.analytics: manage; {_FUNCTIONS}",
    ),
    "analytics_manager": _kind(
        "Analytics Manager",
        BUCKET,
        "Manages the analytics of a bucket.",
        f"bucket.analytics: manage select; {_FUNCTIONS}",
    ),
    "analytics_reader": _kind(
        "Analytics Reader",
        NOTHING,
        "Queries analytics.",
        f"analytics: select; buckets.analytics: select; {_FUNCTIONS}",
    ),
    "analytics_select": _kind(
        "Analytics Select",
        COLLECTION,
        "Queries the analytics of a bucket, scope or collection.",
        f"collection.analytics: select; {_FUNCTIONS}",
    ),
    "eventing_manage_functions": _kind(
        "Manage Scope Functions (Eventing)",
        SCOPE,
        "Manages the eventing functions of a scope.",
        f"scope.eventing.function: manage; scope.collections: read; bucket.stats: read; {_FUNCTIONS}",
    ),
    "mobile_sync_gateway": _kind(
        "Sync Gateway",
        BUCKET,
        "Uses a bucket as Sync Gateway does.",
        "collection[{0}:_system:_mobile].data: all;"
        "bucket.data.docs: read insert delete upsert range_scan sread; bucket.data: all; bucket.views: all;"
        "bucket.n1ql.index: all; bucket.n1ql: execute; bucket: read flush; bucket.settings: read;"
        "admin.memcached.idle: write; settings.autocompaction: read; pools: read",
    ),
    "sync_gateway_configurator": _kind(
        "Sync Gateway Architect",
        COLLECTION,
        "Manages databases and users of Sync Gateway.",
        "buckets.sgw.appdata: none; buckets.sgw.principal_appdata: none; buckets.sgw.replications: none;"
        "collection.sgw: all; admin.stats_export: read",
    ),
    "sync_gateway_app": _kind(
        "Sync Gateway Application",
        COLLECTION,
        "Uses data through Sync Gateway, and manages its users.",
        "collection.sgw.auth: configure; collection.sgw.principal: read write;"
        "collection.sgw.appdata: read write; collection.sgw.principal_appdata: read",
    ),
    "sync_gateway_app_ro": _kind(
        "Sync Gateway Application Read Only",
        COLLECTION,
        "Reads data and users of Sync Gateway.",
        "collection.sgw.appdata: read; collection.sgw.principal: read;collection.sgw.principal_appdata: read",
    ),
    "sync_gateway_replicator": _kind(
        "Sync Gateway Replicator",
        COLLECTION,
        "Manages replications between Sync Gateways.",
        "collection.sgw.replications: all",
    ),
    "sync_gateway_dev_ops": _kind(
        "Sync Gateway Dev Ops",
        NOTHING,
        "Manages the nodes of Sync Gateway.",
        "sgw.dev_ops: all; admin.stats_export: read",
    ),
    "external_stats_reader": _kind(
        "External Stats Reader",
        NOTHING,
        "Reads statistics for a monitoring system.",
        "admin.stats_export: read",
    ),
}
"""Name of a role -> its row."""

ALIASES = {
    "security_admin_local": "user_admin_local",
    "security_admin_external": "user_admin_external",
}
"""Names of releases before 8.0 -> today's."""
