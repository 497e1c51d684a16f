"""A program for the official Python client: run in its own environment, against a running node.

    python official_client.py CONNECTION_STRING USER PASSWORD NODES

Each check is one line of JSON on standard output: its name, and what it returned or which exception it
raised. What it should have been is for the caller to say. Nothing of this project is imported here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from couchbase import subdocument as subdoc
from couchbase.auth import PasswordAuthenticator
from couchbase.cluster import Cluster
from couchbase.durability import (
    ClientDurability,
    DurabilityLevel,
    PersistTo,
    PersistToExtended,
    ReplicateTo,
    ServerDurability,
)
from couchbase.exceptions import CouchbaseException
from couchbase.management.buckets import BucketSettings, BucketType, CreateBucketSettings
from couchbase.management.views import DesignDocument, DesignDocumentNamespace, View
from couchbase.options import (
    ClusterOptions,
    ClusterTimeoutOptions,
    DecrementOptions,
    DeltaValue,
    GetOptions,
    IncrementOptions,
    InsertOptions,
    MutateInOptions,
    RemoveOptions,
    ReplaceOptions,
    SignedInt64,
    UpsertOptions,
    ViewOptions,
)
from couchbase.transcoder import RawBinaryTranscoder, RawStringTranscoder
from couchbase.views import ViewErrorMode, ViewOrdering

CHECKS: list[tuple[str, Callable[..., Any]]] = []
PATIENCE = 10.0


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a function to the checks, in the order of this file."""
    CHECKS.append((function.__name__, function))
    return function


def until(condition: Callable[[], bool], what: str) -> float:
    """Wait for something to become true; return after how many seconds it was."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - began


def raised(function: Callable[[], Any]) -> str | None:
    """Return the name of the exception that ``function`` raises."""
    try:
        function()
    except CouchbaseException as error:
        return type(error).__name__
    return None


class Scene:
    """The connection that all checks use."""

    def __init__(self, connection_string: str, user: str, password: str, nodes: int) -> None:
        self.nodes = nodes
        self.connection_string = connection_string
        timeouts = ClusterTimeoutOptions(
            kv_timeout=timedelta(seconds=20), bootstrap_timeout=timedelta(seconds=30)
        )
        self.options = ClusterOptions(PasswordAuthenticator(user, password), timeout_options=timeouts)
        self.cluster = Cluster.connect(connection_string, self.options)
        self.cluster.wait_until_ready(timedelta(seconds=10))
        self.bucket = self.cluster.bucket("default")
        self.docs = self.bucket.default_collection()


# ---- documents -----------------------------------------------------------------------------------


@check
def upsert_and_get(s: Scene) -> Any:
    stored = s.docs.upsert("doc", {"name": "Ada", "n": 1})
    got = s.docs.get("doc")
    return got.content_as[dict], stored.cas == got.cas, stored.cas != 0


@check
def mutation_token(s: Scene) -> Any:
    first = s.docs.upsert("token", 1).mutation_token()
    second = s.docs.upsert("token", 2).mutation_token()
    return (
        first.partition_id == second.partition_id,
        first.partition_uuid == second.partition_uuid != 0,
        second.sequence_number - first.sequence_number,
        first.bucket_name,
    )


@check
def insert(s: Scene) -> Any:
    s.docs.insert("insert", "once")
    return s.docs.get("insert").content_as[str], raised(lambda: s.docs.insert("insert", "twice"))


@check
def replace(s: Scene) -> Any:
    s.docs.upsert("replace", 1)
    s.docs.replace("replace", 2)
    return s.docs.get("replace").content_as[int], raised(lambda: s.docs.replace("no-such-document", 1))


@check
def get_missing(s: Scene) -> Any:
    return raised(lambda: s.docs.get("no-such-document"))


@check
def get_multi(s: Scene) -> Any:
    wanted = {f"multi-{i}": {"i": i} for i in range(1000)}
    stored = s.docs.upsert_multi(wanted)
    got = s.docs.get_multi(list(wanted) + ["no-such-document"])
    right = sum(
        got.results[key].content_as[dict] == value for key, value in wanted.items() if key in got.results
    )
    return stored.all_ok, got.all_ok, right, {key: type(e).__name__ for key, e in got.exceptions.items()}


@check
def all_vbuckets_of_many_keys(s: Scene) -> Any:
    keys = [f"spread-{i}" for i in range(3000)]
    s.docs.upsert_multi(dict.fromkeys(keys, True))
    nodes = {endpoint.remote for endpoint in next(iter(s.bucket.ping().endpoints.values()))}
    return s.docs.remove_multi(keys).all_ok, len(nodes) >= s.nodes


@check
def cas_mismatch(s: Scene) -> Any:
    old = s.docs.upsert("cas", 1).cas
    new = s.docs.upsert("cas", 2).cas
    return (
        raised(lambda: s.docs.replace("cas", 3, ReplaceOptions(cas=old))),
        raised(lambda: s.docs.remove("cas", RemoveOptions(cas=old))),
        raised(lambda: s.docs.replace("cas", 3, ReplaceOptions(cas=new))),
        s.docs.get("cas").content_as[int],
    )


@check
def remove(s: Scene) -> Any:
    s.docs.upsert("remove", 1)
    s.docs.remove("remove")
    return raised(lambda: s.docs.get("remove")), raised(lambda: s.docs.remove("remove"))


@check
def exists(s: Scene) -> Any:
    s.docs.upsert("exists", 1)
    there = s.docs.exists("exists").exists
    s.docs.remove("exists")
    return there, s.docs.exists("exists").exists, s.docs.exists("no-such-document").exists


@check
def formats(s: Scene) -> Any:
    text, binary = RawStringTranscoder(), RawBinaryTranscoder()
    s.docs.upsert("text", "täxt", UpsertOptions(transcoder=text))
    s.docs.upsert("bytes", b"\0\xff", UpsertOptions(transcoder=binary))
    s.docs.upsert("unicode", "🍺 ÿ")
    return (
        s.docs.get("text", GetOptions(transcoder=text)).content_as[str],
        list(s.docs.get("bytes", GetOptions(transcoder=binary)).content_as[bytes]),
        s.docs.get("unicode").content_as[str],
    )


@check
def odd_keys(s: Scene) -> Any:
    keys = ["k" * 250, "ключ", "a b/c%20", "🍺"]
    for key in keys:
        s.docs.upsert(key, key)
    return [s.docs.get(key).content_as[str] for key in keys] == keys, raised(
        lambda: s.docs.upsert("k" * 251, 1)
    )


@check
def large_values(s: Scene) -> Any:
    largest = "x" * (20 * 2**20 - 2)  # two quotes make 20 MiB of JSON
    patience = timedelta(seconds=PATIENCE)
    s.docs.upsert("large", largest, UpsertOptions(timeout=patience))
    fits = len(s.docs.get("large", GetOptions(timeout=patience)).content_as[str])
    s.docs.remove("large", RemoveOptions(timeout=patience))
    return fits, raised(lambda: s.docs.upsert("large", largest + "x", UpsertOptions(timeout=patience)))


# ---- expiry --------------------------------------------------------------------------------------


@check
def expiry(s: Scene) -> Any:
    s.docs.upsert("expiry", 1, UpsertOptions(expiry=timedelta(seconds=1)))
    found = s.docs.get("expiry", GetOptions(with_expiry=True))
    left = found.expiryTime.timestamp() - time.time()
    until(lambda: not s.docs.exists("expiry").exists, "the document vanishes")
    return found.content_as[int], -1 < left <= 1.5, raised(lambda: s.docs.get("expiry"))


@check
def no_expiry(s: Scene) -> Any:
    s.docs.upsert("lasting", 1)
    return s.docs.get("lasting", GetOptions(with_expiry=True)).expiryTime


@check
def touch(s: Scene) -> Any:
    s.docs.upsert("touch", 1)
    s.docs.touch("touch", timedelta(seconds=1))
    until(lambda: not s.docs.exists("touch").exists, "the touched document vanishes")
    return raised(lambda: s.docs.touch("no-such-document", timedelta(seconds=1)))


@check
def get_and_touch(s: Scene) -> Any:
    s.docs.upsert("gat", {"v": 1})
    value = s.docs.get_and_touch("gat", timedelta(seconds=1)).content_as[dict]
    until(lambda: not s.docs.exists("gat").exists, "the touched document vanishes")
    return value, raised(lambda: s.docs.get_and_touch("no-such-document", timedelta(seconds=1)))


@check
def touch_away_an_expiry(s: Scene) -> Any:
    s.docs.upsert("keep", 1, UpsertOptions(expiry=timedelta(seconds=60)))
    s.docs.touch("keep", timedelta(0))
    return s.docs.get("keep", GetOptions(with_expiry=True)).expiryTime


@check
def preserve_expiry(s: Scene) -> Any:
    s.docs.upsert("preserve", 1, UpsertOptions(expiry=timedelta(hours=1)))
    s.docs.upsert("preserve", 2, UpsertOptions(preserve_expiry=True))
    kept = s.docs.get("preserve", GetOptions(with_expiry=True)).expiryTime
    s.docs.upsert("preserve", 3)
    return kept is not None, s.docs.get("preserve", GetOptions(with_expiry=True)).expiryTime


# ---- locks ---------------------------------------------------------------------------------------


@check
def lock_and_unlock(s: Scene) -> Any:
    before = s.docs.upsert("lock", 1).cas
    locked = s.docs.get_and_lock("lock", timedelta(seconds=15))
    quick = timedelta(seconds=0.5)
    answers = [
        locked.content_as[int],
        locked.cas != before,
        raised(lambda: s.docs.upsert("lock", 2, UpsertOptions(timeout=quick))),
        raised(lambda: s.docs.unlock("lock", before)),
        s.docs.get("lock").content_as[int],
    ]
    s.docs.unlock("lock", locked.cas)
    s.docs.upsert("lock", 3)
    return [*answers, s.docs.get("lock").content_as[int], raised(lambda: s.docs.unlock("lock", locked.cas))]


@check
def lock_ends_with_a_store(s: Scene) -> Any:
    s.docs.upsert("lock-store", 1)
    locked = s.docs.get_and_lock("lock-store", timedelta(seconds=15))
    s.docs.replace("lock-store", 2, ReplaceOptions(cas=locked.cas))
    s.docs.upsert("lock-store", 3)
    return s.docs.get("lock-store").content_as[int]


@check
def lock_runs_out(s: Scene) -> Any:
    s.docs.upsert("lock-short", 1)
    s.docs.get_and_lock("lock-short", timedelta(seconds=1))

    def stored() -> bool:
        return (
            raised(lambda: s.docs.upsert("lock-short", 2, UpsertOptions(timeout=timedelta(seconds=0.3))))
            is None
        )

    return 0.2 < until(stored, "the lock runs out") < 5


@check
def lock_missing(s: Scene) -> Any:
    return raised(lambda: s.docs.get_and_lock("no-such-document", timedelta(seconds=1)))


# ---- append, prepend, counters -------------------------------------------------------------------


@check
def append_and_prepend(s: Scene) -> Any:
    plain = RawStringTranscoder()
    s.docs.upsert("words", "b", UpsertOptions(transcoder=plain))
    s.docs.binary().append("words", "c")
    s.docs.binary().prepend("words", "a")
    return (
        s.docs.get("words", GetOptions(transcoder=plain)).content_as[str],
        raised(lambda: s.docs.binary().append("no-such-document", "x")),
        raised(lambda: s.docs.binary().prepend("no-such-document", "x")),
    )


@check
def counters(s: Scene) -> Any:
    binary = s.docs.binary()
    first = binary.increment("counter", IncrementOptions(initial=SignedInt64(10))).content
    up = binary.increment("counter", IncrementOptions(delta=DeltaValue(5))).content
    down = binary.decrement("counter", DecrementOptions(delta=DeltaValue(3))).content
    floor = binary.decrement("counter", DecrementOptions(delta=DeltaValue(1000))).content
    return first, up, down, floor, s.docs.get("counter").content_as[int]


@check
def counter_errors(s: Scene) -> Any:
    s.docs.upsert("no-counter", {"a": 1})
    return (
        raised(lambda: s.docs.binary().increment("no-counter")),
        raised(lambda: s.docs.binary().increment("absent", IncrementOptions(initial=SignedInt64(-1)))),
    )


# ---- subdocuments --------------------------------------------------------------------------------


@check
def lookup_in(s: Scene) -> Any:
    s.docs.upsert("sub", {"a": {"b": [1, 2, 3]}, "s": "x"})
    found = s.docs.lookup_in(
        "sub",
        [
            subdoc.get("a.b[1]"),
            subdoc.exists("a.c"),
            subdoc.count("a.b"),
            subdoc.get("s"),
            subdoc.get("nope"),
        ],
    )
    return (
        found.content_as[int](0),
        found.exists(1),
        found.content_as[int](2),
        found.content_as[str](3),
        raised(lambda: found.content_as[str](4)),
        raised(lambda: s.docs.lookup_in("no-such-document", [subdoc.get("a")])),
    )


@check
def mutate_in(s: Scene) -> Any:
    s.docs.upsert("mutate", {"list": [1], "n": 1, "gone": True})
    s.docs.mutate_in(
        "mutate",
        [
            subdoc.upsert("new.deep", "v", create_parents=True),
            subdoc.array_append("list", 2),
            subdoc.increment("n", 4),
            subdoc.remove("gone"),
        ],
    )
    failed = raised(lambda: s.docs.mutate_in("mutate", [subdoc.upsert("n", 0), subdoc.replace("nope", 1)]))
    return s.docs.get("mutate").content_as[dict], failed


@check
def get_projected(s: Scene) -> Any:
    s.docs.upsert("project", {"a": 1, "b": {"c": 2, "d": 3}})
    return s.docs.get("project", GetOptions(project=["a", "b.c"])).content_as[dict]


# ---- durability and replicas ---------------------------------------------------------------------


@check
def client_durability(s: Scene) -> Any:
    # To this client PersistTo.ONE means one copy beside the active one, so a lone node needs ACTIVE.
    if s.nodes > 1:
        wanted = ClientDurability(ReplicateTo.ONE, PersistTo.ONE)
    else:
        wanted = ClientDurability(ReplicateTo.NONE, PersistToExtended.ACTIVE)
    s.docs.upsert("observed", 1, UpsertOptions(durability=wanted, timeout=timedelta(seconds=10)))
    return s.docs.get("observed").content_as[int]


@check
def durability_levels(s: Scene) -> Any:
    outcome = {}
    for level in (
        DurabilityLevel.MAJORITY,
        DurabilityLevel.MAJORITY_AND_PERSIST_TO_ACTIVE,
        DurabilityLevel.PERSIST_TO_MAJORITY,
    ):
        options = UpsertOptions(durability=ServerDurability(level), timeout=timedelta(seconds=10))
        outcome[level.name] = raised(partial(s.docs.upsert, "durable", level.name, options))
    return outcome, s.docs.get("durable").content_as[str]


@check
def durable_operations(s: Scene) -> Any:
    durable = ServerDurability(DurabilityLevel.MAJORITY)
    s.docs.insert("durable-doc", 1, InsertOptions(durability=durable))
    s.docs.replace("durable-doc", 2, ReplaceOptions(durability=durable))
    s.docs.mutate_in("sub", [subdoc.upsert("s", "durable")], MutateInOptions(durability=durable))
    s.docs.remove("durable-doc", RemoveOptions(durability=durable))
    return raised(lambda: s.docs.get("durable-doc"))


@check
def replica_reads(s: Scene) -> Any:
    s.docs.upsert("copied", {"v": 1})
    expected = 2 if s.nodes > 1 else 1

    def copies() -> list[Any]:
        return list(s.docs.get_all_replicas("copied"))

    until(lambda: len(copies()) == expected, "all copies answer")
    found = copies()
    return (
        [copy.content_as[dict] for copy in found] == [{"v": 1}] * expected,
        sorted(copy.is_replica for copy in found),
        s.docs.get_any_replica("copied").content_as[dict],
        raised(lambda: s.docs.get_any_replica("no-such-document")),
    )


@check
def subdocument_replica_reads(s: Scene) -> Any:
    s.docs.upsert("copied-sub", {"v": [1, 2]})
    found = s.docs.lookup_in_any_replica("copied-sub", [subdoc.get("v[1]")])
    return found.content_as[int](0)


# ---- sessions ------------------------------------------------------------------------------------


@check
def ping(s: Scene) -> Any:
    endpoints = s.cluster.ping().endpoints
    return {kind.value: sorted({str(one.state.value) for one in ends}) for kind, ends in endpoints.items()}


@check
def unknown_collection(s: Scene) -> Any:
    missing = s.bucket.scope("_default").collection("nope")
    return raised(lambda: missing.get("doc", GetOptions(timeout=timedelta(seconds=1))))


@check
def unknown_bucket(s: Scene) -> Any:
    return raised(lambda: s.cluster.bucket("no-such-bucket"))


@check
def wrong_password(s: Scene) -> Any:
    options = ClusterOptions(PasswordAuthenticator("Administrator", "wrong"))
    return raised(lambda: Cluster.connect(s.connection_string, options))


@check
def bucket_user(s: Scene) -> Any:
    cluster = Cluster.connect(
        s.connection_string, ClusterOptions(PasswordAuthenticator("private", "bucket-password"))
    )
    private = cluster.bucket("private").default_collection()
    private.upsert("mine", 1)
    answers = (
        private.get("mine").content_as[int],
        raised(lambda: cluster.bucket("default").default_collection().get("doc")),
    )
    cluster.close()
    return answers


# ---- management ----------------------------------------------------------------------------------


@check
def buckets(s: Scene) -> Any:
    manager = s.cluster.buckets()
    manager.create_bucket(
        CreateBucketSettings(name="made", ram_quota_mb=100, num_replicas=0, flush_enabled=True)
    )
    again = raised(lambda: manager.create_bucket(CreateBucketSettings(name="made", ram_quota_mb=100)))
    settings = manager.get_bucket("made")
    listed = sorted(one.name for one in manager.get_all_buckets())
    docs = s.cluster.bucket("made").default_collection()
    docs.upsert("doc", 1)
    manager.flush_bucket("made")
    until(lambda: not docs.exists("doc").exists, "the flush")
    manager.update_bucket(BucketSettings(name="made", ram_quota_mb=120))
    changed = manager.get_bucket("made").ram_quota_mb
    manager.drop_bucket("made")
    return (
        again,
        (settings.name, settings.flush_enabled, settings.num_replicas, settings.bucket_type.value),
        listed,
        changed,
        raised(lambda: manager.get_bucket("made")),
        raised(lambda: manager.drop_bucket("made")),
        raised(lambda: manager.flush_bucket("made")),
    )


@check
def ephemeral_bucket(s: Scene) -> Any:
    manager = s.cluster.buckets()
    manager.create_bucket(
        CreateBucketSettings(name="brief", ram_quota_mb=100, num_replicas=0, bucket_type=BucketType.EPHEMERAL)
    )
    docs = s.cluster.bucket("brief").default_collection()
    docs.upsert("doc", 1)
    to_disk = UpsertOptions(durability=ServerDurability(DurabilityLevel.PERSIST_TO_MAJORITY))
    answers = (
        manager.get_bucket("brief").bucket_type.value,
        raised(lambda: docs.upsert("doc", 2, to_disk)),
        raised(lambda: manager.flush_bucket("brief")),
    )
    manager.drop_bucket("brief")
    return answers


@check
def bad_bucket_settings(s: Scene) -> Any:
    manager = s.cluster.buckets()
    return (
        raised(lambda: manager.create_bucket(CreateBucketSettings(name="small", ram_quota_mb=99))),
        raised(lambda: manager.create_bucket(CreateBucketSettings(name="bad name", ram_quota_mb=100))),
        raised(
            lambda: manager.create_bucket(CreateBucketSettings(name="many", ram_quota_mb=100, num_replicas=4))
        ),
    )


# ---- views ---------------------------------------------------------------------------------------

PLACES = [("AT", "Wien"), ("AT", "Graz"), ("DE", "Köln"), ("DE", "Bonn"), ("DE", "Bonn"), ("FR", None)]
BY_PLACE = "function (doc, meta) { if (doc.country) { emit([doc.country, doc.city], doc.size); } }"
BY_NAME = "function (doc, meta) { if (doc.name) { emit(doc.name, null); } }"
PRODUCTION, DEVELOPMENT = DesignDocumentNamespace.PRODUCTION, DesignDocumentNamespace.DEVELOPMENT


def view_rows(s: Scene, view: str, design: str = "places", **options: Any) -> list[Any]:
    """Return what a query gives as (id, key, value)."""
    result = s.bucket.view_query(design, view, ViewOptions(**options))
    return [(row.id, row.key, row.value) for row in result.rows()]


@check
def design_documents(s: Scene) -> Any:
    manager = s.bucket.view_indexes()
    views = {
        "by_place": View(map=BY_PLACE, reduce="_count"),
        "sizes": View(map=BY_PLACE, reduce="_stats"),
        "by_name": View(map=BY_NAME),
        "longest": View(
            map=BY_NAME,
            reduce="function (keys, values, rereduce) {"
            " var lengths = rereduce ? values : keys.map(function (key) { return key[0].length; });"
            " return Math.max.apply(null, lengths); }",
        ),
    }
    manager.upsert_design_document(DesignDocument(name="places", views=views), DEVELOPMENT)
    found = manager.get_design_document("places", DEVELOPMENT)
    before = raised(lambda: manager.get_design_document("places", PRODUCTION))
    manager.publish_design_document("places")
    published = manager.get_design_document("places", PRODUCTION)
    listed = [
        sorted(one.name for one in manager.get_all_design_documents(space))
        for space in (DEVELOPMENT, PRODUCTION)
    ]
    return (
        sorted(found.views),
        found.views["by_place"].reduce,
        before,
        published.views["by_name"].map == BY_NAME,
        listed,
    )


@check
def view_query(s: Scene) -> Any:
    for number, (country, city) in enumerate(PLACES):
        s.docs.upsert(f"place-{number}", {"country": country, "city": city, "size": number})
    for name in ("b", "A", "a", "ä", "C d"):
        s.docs.upsert(f"name-{name}", {"name": name})
    everything = s.bucket.view_query("places", "by_place", ViewOptions(reduce=False))
    rows = [(row.id, row.key, row.value) for row in everything.rows()]
    return (
        rows[0],
        rows[-1],
        everything.metadata().total_rows(),
        [key for _, key, _ in view_rows(s, "by_name")],
    )


@check
def view_ranges(s: Scene) -> Any:
    def ids(**options: Any) -> list[str]:
        return [row[0] for row in view_rows(s, "by_place", reduce=False, **options)]

    return (
        ids(startkey=["DE"], endkey=["DE", {}]),
        ids(startkey=["DE", "Bonn"], endkey=["DE", "Köln"], inclusive_end=False),
        ids(key=["DE", "Bonn"]),
        ids(keys=[["FR", None], ["DE", "Bonn"], ["XX"]]),
        ids(limit=2, skip=1),
        ids(order=ViewOrdering.DESCENDING, limit=2),
        ids(startkey=["DE", "Bonn"], startkey_docid="place-4", limit=1),
    )


@check
def view_reduces(s: Scene) -> Any:
    return (
        view_rows(s, "by_place"),
        view_rows(s, "by_place", group_level=1),
        view_rows(s, "by_place", group=True, limit=2),
        view_rows(s, "sizes", startkey=["DE"]),
        view_rows(s, "longest"),
    )


@check
def view_sees_changes(s: Scene) -> Any:
    s.docs.remove("place-5")
    s.docs.upsert("place-0", {"country": "CH", "city": "Bern", "size": 1})
    return [(key, value) for _, key, value in view_rows(s, "by_place", group_level=1)]


@check
def view_development(s: Scene) -> Any:
    whole = view_rows(s, "by_place", "dev_places", full_set=True, raw={"stale": "false"})
    part = view_rows(s, "by_place", "dev_places")
    # A server takes all documents of a small bucket.
    return whole[0][2], sum(row[2] for row in part) == whole[0][2]


@check
def view_errors(s: Scene) -> Any:
    manager = s.bucket.view_indexes()

    def broken(source: str) -> DesignDocument:
        return DesignDocument(name="broken", views={"v": View(map=source)})

    return (
        raised(lambda: view_rows(s, "by_name", "no_such_design")),
        raised(lambda: view_rows(s, "no_such_view")),
        raised(lambda: view_rows(s, "by_name", group=True)),
        raised(lambda: view_rows(s, "by_place", raw={"stale": "perhaps"})),
        raised(lambda: view_rows(s, "by_name", startkey="b", endkey="a", on_error=ViewErrorMode.STOP)),
        raised(lambda: manager.upsert_design_document(broken("function ("), PRODUCTION)),
        raised(lambda: manager.get_design_document("broken", PRODUCTION)),
    )


@check
def drop_design_document(s: Scene) -> Any:
    manager = s.bucket.view_indexes()
    manager.drop_design_document("places", PRODUCTION)
    manager.drop_design_document("places", DEVELOPMENT)
    return (
        raised(lambda: view_rows(s, "by_name")),
        raised(lambda: manager.drop_design_document("places", PRODUCTION)),
        len(manager.get_all_design_documents(PRODUCTION)),
    )


@check
def collections_manifest(s: Scene) -> Any:
    return [
        (scope.name, [one.name for one in scope.collections])
        for scope in s.bucket.collections().get_all_scopes()
    ]


@check
def while_vbuckets_move(s: Scene) -> Any:
    """The caller swaps active and replica copies meanwhile, if there are several nodes."""
    keys = [f"moving-{i}" for i in range(100)]
    wrong = rounds = 0
    end = time.monotonic() + 2
    while time.monotonic() < end:
        rounds += 1
        stored = s.docs.upsert_multi(dict.fromkeys(keys, rounds))
        got = s.docs.get_multi(keys)
        wrong += not stored.all_ok or not got.all_ok
        wrong += any(got.results[key].content_as[int] != rounds for key in got.results)
    return wrong, rounds > 3


def main(connection_string: str, user: str, password: str, nodes: str) -> None:
    """Run all checks; if one fails unexpectedly, report it and continue with the next."""
    scene = Scene(connection_string, user, password, int(nodes))
    for name, function in CHECKS:
        began = time.monotonic()
        try:
            outcome = {"returned": function(scene)}
        except Exception as error:  # noqa: BLE001  # every failure is a result
            outcome = {"raised": f"{type(error).__name__}: {error}"[:500]}
        seconds = round(time.monotonic() - began, 3)
        print(json.dumps({"check": name, "seconds": seconds, **outcome}, default=str), flush=True)
    scene.cluster.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
