"""The official Python client against a cluster of ours: one line of JSON for each check.

``client.py CONNECTION-STRING USER PASSWORD BUCKET REPLICAS [CHECK ...]``; it runs in ``.venv-interop``, whose
``couchbase`` is the official one.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta

from couchbase import subdocument as sd
from couchbase.auth import PasswordAuthenticator
from couchbase.cluster import Cluster
from couchbase.diagnostics import ServiceType
from couchbase.durability import DurabilityLevel, ServerDurability
from couchbase.exceptions import CouchbaseException
from couchbase.kv_range_scan import PrefixScan, RangeScan, SamplingScan, ScanTerm
from couchbase.management.buckets import BucketType, CreateBucketSettings
from couchbase.management.collections import CreateCollectionSettings
from couchbase.management.users import Group, Role, User
from couchbase.management.views import DesignDocument, DesignDocumentNamespace, View
from couchbase.options import (
    ClusterOptions,
    DecrementOptions,
    DeltaValue,
    GetOptions,
    IncrementOptions,
    MutateInOptions,
    ReplaceOptions,
    ScanOptions,
    SignedInt64,
    TransactionConfig,
    TransactionOptions,
    UpsertOptions,
    ViewOptions,
    WaitUntilReadyOptions,
)
from couchbase.transcoder import RawBinaryTranscoder
from couchbase.views import ViewScanConsistency

LATER = timedelta(seconds=100)


class Checks:
    """A method for each check."""

    def __init__(self, connection, user, password, bucket, replicas):
        self.connection = connection
        self.bucket_name = bucket
        self.durable = replicas != "0"
        self.cluster = self.connect(user, password)
        self.bucket = self.cluster.bucket(bucket)
        self.collection = self.bucket.default_collection()

    def connect(self, user, password):
        authority = os.environ.get("TLS_CA")
        trust = {"trust_store_path": authority} if authority else {}
        often = TransactionConfig(cleanup_window=timedelta(seconds=4))
        options = ClusterOptions(PasswordAuthenticator(user, password), transaction_config=often, **trust)
        cluster = Cluster(self.connection, options)
        cluster.wait_until_ready(timedelta(seconds=20))
        return cluster

    def documents(self):
        c = self.collection
        stored = c.upsert("documents", {"name": "Ada", "n": 1})
        read = c.get("documents")
        refused(lambda: c.insert("documents", {}), "DocumentExists")
        refused(lambda: c.replace("missing", {}), "DocumentNotFound")
        refused(lambda: c.get("missing"), "DocumentNotFound")
        c.replace("documents", {"n": 2}, ReplaceOptions(cas=read.cas))
        refused(lambda: c.replace("documents", {}, ReplaceOptions(cas=read.cas)), "CasMismatch")
        there = c.exists("documents").exists
        c.remove("documents")
        return [read.content_as[dict], stored.cas == read.cas, there, c.exists("documents").exists]

    def expires(self):
        return self.collection.get("expiry", GetOptions(with_expiry=True)).expiry_time is not None

    def expiry(self):
        c = self.collection
        change = [sd.upsert("v", 3)]
        c.upsert("expiry", {"v": 1}, UpsertOptions(expiry=LATER))
        first = self.expires()
        c.upsert("expiry", {"v": 2}, UpsertOptions(preserve_expiry=True))
        kept = self.expires()
        c.touch("expiry", LATER)
        c.get_and_touch("expiry", timedelta(0))
        cleared = not self.expires()
        c.mutate_in("expiry", change, MutateInOptions(expiry=LATER))
        c.mutate_in("expiry", change, MutateInOptions(preserve_expiry=True))
        preserved = self.expires()
        c.mutate_in("expiry", change)
        return [first, kept, cleared, preserved, not self.expires()]

    def locks(self):
        c = self.collection
        c.upsert("locks", 1)
        locked = c.get_and_lock("locks", timedelta(seconds=10))
        soon = UpsertOptions(timeout=timedelta(milliseconds=500))
        refused(
            lambda: c.upsert("locks", 2, soon), "DocumentLocked", "UnAmbiguousTimeout", "AmbiguousTimeout"
        )
        c.unlock("locks", locked.cas)
        c.upsert("locks", 3)
        return c.get("locks").content_as[int]

    def binary(self):
        c, raw = self.collection, RawBinaryTranscoder()
        c.upsert("binary", b"b", UpsertOptions(transcoder=raw))
        c.binary().append("binary", b"c")
        c.binary().prepend("binary", b"a")
        up = (
            c.binary()
            .increment("counter", IncrementOptions(delta=DeltaValue(5), initial=SignedInt64(10)))
            .content
        )
        more = c.binary().increment("counter", IncrementOptions(delta=DeltaValue(5))).content
        down = c.binary().decrement("counter", DecrementOptions(delta=DeltaValue(7))).content
        return [c.get("binary", GetOptions(transcoder=raw)).value.decode(), up, more, down]

    def subdocuments(self):
        c, key = self.collection, "subdocuments"
        c.upsert(key, {"n": 1, "list": [1, 3], "old": True, "gone": 1})
        c.mutate_in(
            key,
            [
                sd.insert("new.deep", "v", create_parents=True),
                sd.upsert("s", "x"),
                sd.replace("old", False),
                sd.remove("gone"),
                sd.array_append("list", 4),
                sd.array_prepend("list", 0),
                sd.array_insert("list[2]", 2),
                sd.array_insert("list.[3]", 2.5),
                sd.array_addunique("unique", "u", create_parents=True),
                sd.increment("n", 4),
                sd.decrement("n", 2),
            ],
        )
        paths = ["n", "gone", "list", "", "missing", "list[-1]"]
        found = c.lookup_in(
            key,
            [
                sd.get("n"),
                sd.exists("gone"),
                sd.count("list"),
                sd.get_full(),
                sd.get("missing"),
                sd.get("list[-1]"),
            ],
        )
        values = []
        for at in range(len(paths)):
            if at == 1:
                values.append(found.exists(1))
            elif at == 4:
                values.append(refused(lambda: found.content_as[dict](4), "PathNotFound"))
            else:
                values.append(found.content_as[lambda value: value](at))
        refused(lambda: c.mutate_in(key, [sd.insert("s", 1)]), "PathExists")
        refused(lambda: c.mutate_in(key, [sd.replace("no.path", 1)]), "PathNotFound")
        refused(lambda: c.mutate_in(key, [sd.array_append("s", 1)]), "PathMismatch")
        refused(lambda: c.mutate_in("subdocuments-missing", [sd.upsert("a", 1)]), "DocumentNotFound")
        made = MutateInOptions(store_semantics=sd.StoreSemantics.UPSERT)
        c.mutate_in("subdocuments-made", [sd.upsert("a", 1)], made)
        return [values, c.get("subdocuments-made").content_as[dict]]

    def attributes(self):
        c, key = self.collection, "attributes"
        c.upsert(key, {"body": 1})
        made = {"xattr": True, "create_parents": True}
        changed = c.mutate_in(
            key,
            [
                sd.upsert("app.level", 5, **made),
                sd.upsert("_sys.cas", sd.MutationMacro.cas(), **made),
                sd.upsert("app.seqno", sd.MutationMacro.seq_no(), **made),
                sd.upsert("app.crc", sd.MutationMacro.value_crc32c(), **made),
                sd.upsert("body", 2),
            ],
        )
        paths = [
            "app.level",
            "_sys.cas",
            "$document.CAS",
            "$document.exptime",
            "app.crc",
            "$document.value_crc32c",
        ]
        specs = [sd.get(path, xattr=True) for path in paths]
        found = c.lookup_in(key, [*specs, sd.exists("app.none", xattr=True), sd.get("body")])
        level, macro, cas, expiry, crc, now = [found.content_as[lambda value: value](at) for at in range(6)]
        # The macro's text is the CAS with its bytes reversed.
        swapped = int.from_bytes(bytes.fromhex(macro[2:]), "little")
        same = swapped == int(cas, 0) == changed.cas
        c.upsert(key, {"body": 3})
        kept = c.lookup_in(key, [sd.get("app.level", xattr=True)]).content_as[int](0)
        return [level, same, expiry, found.exists(6), crc == now, found.content_as[int](7), kept]

    def collections(self):
        manager = self.bucket.collections()
        manager.create_scope("py_scope")
        refused(lambda: manager.create_scope("py_scope"), "ScopeAlreadyExists")
        limit = CreateCollectionSettings(max_expiry=timedelta(seconds=1000))
        manager.create_collection("py_scope", "books", limit)
        manager.create_collection("py_scope", "gone")
        refused(lambda: manager.create_collection("py_scope", "books"), "CollectionAlreadyExists")
        refused(lambda: manager.create_collection("nowhere", "books"), "ScopeNotFound")
        scope = self.bucket.scope("py_scope")
        books, gone = scope.collection("books"), scope.collection("gone")
        settled(lambda: books.upsert("one", {"v": 1}))
        settled(lambda: gone.upsert("one", {"v": 2}))
        limited = books.get("one", GetOptions(with_expiry=True)).expiry_time is not None
        refused(lambda: self.collection.get("one"), "DocumentNotFound")
        manager.drop_collection("py_scope", "gone")
        refused(lambda: manager.drop_collection("py_scope", "gone"), "CollectionNotFound")
        soon = GetOptions(timeout=timedelta(seconds=1))
        refused(lambda: gone.get("one", soon), "UnAmbiguousTimeout", "CollectionNotFound")
        manager.create_collection("py_scope", "gone")
        fresh = scope.collection("gone")
        settled(lambda: fresh.upsert("two", 1))
        refused(lambda: fresh.get("one"), "DocumentNotFound")
        (found,) = [each for each in manager.get_all_scopes() if each.name == "py_scope"]
        names = sorted(
            [each.name, each.max_expiry.seconds if each.max_expiry else 0] for each in found.collections
        )
        manager.drop_scope("py_scope")
        still = any(each.name == "py_scope" for each in manager.get_all_scopes())
        return [self.collection.exists("one").exists, limited, names, still]

    # Before buckets are dropped: the client goes on to ask for them.
    def health(self):
        management = WaitUntilReadyOptions(service_types=[ServiceType.Management])
        self.cluster.wait_until_ready(timedelta(seconds=10), management)
        reports = [each for found in self.bucket.ping().endpoints.values() for each in found]
        fine = all(each.state.value == "ok" for each in reports)
        return [bool(reports), fine, bool(self.cluster.diagnostics().id)]

    def buckets(self):
        manager = self.cluster.buckets()
        settings = CreateBucketSettings(name="py-made", ram_quota_mb=100, bucket_type=BucketType.COUCHBASE)
        manager.create_bucket(settings)
        refused(lambda: manager.create_bucket(settings), "BucketAlreadyExists")
        made = settled(lambda: self.cluster.bucket("py-made").default_collection())
        settled(lambda: made.upsert("x", 1))
        listed = any(each.name == "py-made" for each in manager.get_all_buckets())
        changed = manager.get_bucket("py-made")
        changed.update(ram_quota_mb=128, flush_enabled=True, max_expiry=timedelta(seconds=500))
        manager.update_bucket(changed)
        changed = manager.get_bucket("py-made")
        manager.flush_bucket("py-made")
        flushed = settled(lambda: made.exists("x").exists)
        manager.drop_bucket("py-made")
        refused(lambda: manager.get_bucket("py-made"), "BucketDoesNotExist")
        return [
            listed,
            changed.ram_quota_mb,
            changed.flush_enabled,
            changed.max_expiry.total_seconds(),
            flushed,
        ]

    def users(self):
        manager = self.cluster.users()
        self.collection.upsert("users", {"v": 1})
        manager.upsert_group(
            Group(name="py_group", description="g", roles={Role("data_reader", self.bucket_name)})
        )
        manager.upsert_user(
            User("py_user", display_name="N", password="secret-1", groups={"py_group"}, roles=set())
        )
        found = manager.get_user("py_user")
        listed = any(each.user.username == "py_user" for each in manager.get_all_users())
        reader = self.connect("py_user", "secret-1")
        theirs = reader.bucket(self.bucket_name).default_collection()
        read = settled(lambda: theirs.get("users").content_as[dict])
        soon = UpsertOptions(timeout=timedelta(milliseconds=1500))
        refused(
            lambda: theirs.upsert("users", 2, soon),
            "Authentication",
            "UnAmbiguousTimeout",
            "AmbiguousTimeout",
        )
        full = {Role("bucket_full_access", self.bucket_name)}
        manager.upsert_user(User("py_user", display_name="N", roles=full))
        settled(lambda: theirs.upsert("users", {"v": 2}))
        reader.close()
        manager.drop_user("py_user")
        manager.drop_group("py_group")
        refused(lambda: manager.get_user("py_user"), "UserNotFound")
        refused(lambda: manager.get_group("py_group"), "GroupNotFound")
        known = any(each.role.name == "data_reader" for each in manager.get_roles())
        names = [each.role.name for each in found.effective_roles]
        return [len(found.user.groups), names, listed, read, known]

    def views(self):
        manager = self.bucket.view_indexes()
        for n in (1, 2, 3):
            self.collection.upsert(f"view-{n}", {"view": "python", "n": n})
        text = "function (doc, meta) { if (doc.view === 'python') emit(doc.n, null) }"
        design = DesignDocument("python", {"numbers": View(map=text, reduce="_count")})
        manager.upsert_design_document(design, DesignDocumentNamespace.PRODUCTION)
        fresh = ViewOptions(reduce=False, scan_consistency=ViewScanConsistency.REQUEST_PLUS)
        keys = settled(lambda: [row.key for row in self.bucket.view_query("python", "numbers", fresh)])
        reduced = [row.value for row in self.bucket.view_query("python", "numbers", ViewOptions(reduce=True))]
        manager.drop_design_document("python", DesignDocumentNamespace.PRODUCTION)
        return [keys, reduced[0]]

    def durability(self):
        if not self.durable:
            return "one copy"
        c, level = self.collection, ServerDurability(DurabilityLevel.MAJORITY)
        c.upsert("durable", {"v": 1}, UpsertOptions(durability=level))
        c.mutate_in("durable", [sd.upsert("v", 2)], MutateInOptions(durability=level))

        def current():
            value = c.get_any_replica("durable").content_as[dict]
            if value != {"v": 2}:
                raise CouchbaseException(f"a copy still has {value}")
            return value

        # As on a server, a replica learns that a write is committed after its writer does.
        one = settled(current)
        count = len(list(c.get_all_replicas("durable")))
        c.remove("durable", durability=level)
        return [one, count > 1, c.exists("durable").exists]

    def transactions(self):
        c, run = self.collection, self.cluster.transactions.run
        c.upsert("tx-old", {"v": 1})
        c.upsert("tx-gone", {"v": 1})

        def good(attempt):
            attempt.insert(c, "tx-new", {"v": "new"})
            attempt.replace(attempt.get(c, "tx-old"), {"v": 2})
            attempt.remove(attempt.get(c, "tx-gone"))
            attempt.get(c, "tx-new")

        def bad(attempt):
            attempt.insert(c, "tx-never", {"v": 1})
            attempt.replace(attempt.get(c, "tx-old"), {"v": 3})
            raise RuntimeError("on purpose")

        def add(attempt):
            found = attempt.get(c, "tx-count")
            attempt.replace(found, {"n": found.content_as[dict]["n"] + 1})

        def add_once():
            # This client leaves it to the program to try again after a conflict.
            while True:
                try:
                    return run(add)
                except CouchbaseException as error:
                    if name_of(error) != "TransactionFailed":
                        raise

        done = run(good)
        refused(lambda: run(bad), "TransactionFailed")
        c.upsert("tx-count", {"n": 0})
        threads = [threading.Thread(target=add_once) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        values = [c.get("tx-new").content_as[dict], c.get("tx-old").content_as[dict]]
        there = [c.exists("tx-gone").exists, c.exists("tx-never").exists]
        count = c.get("tx-count").content_as[dict]["n"]
        c.remove("tx-new")
        return [done.unstaging_complete, *values, *there, count]

    def abandon(self):
        """Die in the middle of a transaction; not a check, but what ``cleanup`` starts."""
        c = self.collection

        def die(attempt):
            attempt.insert(c, "lost-new", {"v": 2})
            attempt.replace(attempt.get(c, "lost-old"), {"v": 2})
            attempt.remove(attempt.get(c, "lost-gone"))
            os.kill(os.getpid(), signal.SIGKILL)

        self.cluster.transactions.run(die, TransactionOptions(timeout=timedelta(seconds=2)))

    def cleanup(self):
        c = self.collection
        c.upsert("lost-old", {"v": 1})
        c.upsert("lost-gone", {"v": 1})
        died = subprocess.run([sys.executable, *sys.argv[:6], "abandon"], check=False).returncode

        def is_staged(key):
            return c.lookup_in(key, [sd.exists("txn", xattr=True)]).exists(0)

        staged = [is_staged(key) for key in ("lost-old", "lost-gone")]
        # The first transaction starts the search for those of others.
        self.cluster.transactions.run(lambda attempt: attempt.insert(c, "lost-mine", {}))
        until = time.monotonic() + 40
        while (is_staged("lost-old") or is_staged("lost-gone") or c.exists("late-gone").exists) and (
            time.monotonic() < until
        ):
            time.sleep(0.2)
        settled(lambda: c.get("late-new"))
        back = [c.get("lost-old").content_as[dict], c.exists("lost-gone").exists, c.exists("lost-new").exists]
        done = [
            c.get("late-old").content_as[dict],
            c.get("late-new").content_as[dict],
            c.exists("late-gone").exists,
        ]
        self.cluster.transactions.run(lambda attempt: attempt.insert(c, "lost-new", {"v": 3}))
        return [died == -signal.SIGKILL, staged, back, done, c.get("lost-new").content_as[dict]]

    def scans(self):
        c = self.collection
        for n in range(20):
            c.upsert(f"scan-{n:02}", {"n": n})
        numbers = sorted(each.content_as[dict]["n"] for each in c.scan(PrefixScan("scan-")))
        ids = ScanOptions(ids_only=True)
        found = sorted(each.id for each in c.scan(RangeScan(ScanTerm("scan-05"), ScanTerm("scan-10")), ids))
        return [numbers, found, len(list(c.scan(SamplingScan(5, 42), ids)))]

    def large(self):
        text = "compressible " * 20000
        self.collection.upsert("large", {"text": text})
        return self.collection.get("large").content_as[dict]["text"] == text


def name_of(error):
    return type(error).__name__.removesuffix("Exception")


def refused(act, *names):
    try:
        act()
    except CouchbaseException as error:
        if name_of(error) not in names:
            raise AssertionError(f"expected {' or '.join(names)}, got {error!r}") from error
        return name_of(error)
    raise AssertionError(f"expected {' or '.join(names)}, got a success")


def settled(act):
    """Retry for a while: new objects may take time to be visible everywhere."""
    for _ in range(20):
        try:
            return act()
        except CouchbaseException:
            time.sleep(0.25)
    return act()


def main():
    checks = Checks(*sys.argv[1:6])
    names = [name for name in vars(Checks) if not name.startswith("_") and name not in ("connect", "expires")]
    for name in names:
        if name not in (sys.argv[6:] or set(names) - {"abandon"}):
            continue
        try:
            line = {"check": name, "result": getattr(checks, name)()}
        except Exception as error:  # noqa: BLE001  # it is the check's outcome
            line = {"check": name, "raised": f"{name_of(error)}: {error}"}
        print(json.dumps(line), flush=True)
    checks.cluster.close()


if __name__ == "__main__":
    main()
