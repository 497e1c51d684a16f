"""The catalogue of the SDK's operations, with those of their options that a server has to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

import couchbase.subdocument as SD
from couchbase.admin import Admin
from couchbase.asynchronous.view import AsyncViewBase
from couchbase.exceptions import NotFoundError
from couchbase.items import Item, ItemOptionDict
from couchbase.protocol.operations import GET
from couchbase.scan import PrefixScan
from couchbase.user_constants import FMT_UTF8
from tests.servers.matrix.rows import Row, Steps
from txcouchbase.calls import DeferredCall

BLOCKING, GREENLETS, TWISTED = "couchbase", "gcouchbase", "txcouchbase"
FACES = frozenset({BLOCKING, GREENLETS, TWISTED})
ADMINISTRATOR = "admin"

OPTIONS = ("ttl", "replica", "replica_index", "cas", "persist_to", "replicate_to", "durability_level",
           "preserve_expiry", "check_removed", "master_only")  # fmt: skip
"""Arguments that change what is sent."""

LOCAL = {
    "collection": "a view of a collection, whose operations are the connection's",
    "connect": "every row begins with it",
    "defer": "a Deferred of another result",
    "errors": "what was noted by the connection",
    "lcb_version": "a constant",
    "pipeline": "not of the asynchronous faces: what is given together is sent together",
    "registerDeferred": "an event of the connection",
}
"""Public methods that send nothing -> why."""

ROWS: list[Row] = []
TTL = 3000
DESIGN = {"views": {"all": {"map": "function (doc, meta) { emit(meta.id, null); }"}}}


def row(
    name: str, option: str = "", faces: frozenset[str] = FACES, keeps_expiry: bool = False
) -> Callable[[Any], Any]:
    """Add what it decorates as the steps of a row."""

    def add(steps: Callable[[Any, str], Steps]) -> Any:
        ROWS.append(Row(name, option, steps, faces, keeps_expiry))
        return steps

    return add


def same(found: Any, wanted: Any) -> None:
    """Compare what came with what was to come."""
    assert found == wanted, f"{found!r} is not {wanted!r}"


# ---- reading -------------------------------------------------------------------------------------


@row("get")
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, {"n": 1})
    same((yield cb.get(key)).value, {"n": 1})


@row("get", "ttl")
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, 1)
    same((yield cb.get(key, ttl=TTL)).value, 1)


ATTEMPTS = 5000
"""Reads of a copy that has not reached its replica yet."""


def _from_replica(
    read: Callable[[Any, str], Any], value_of: Callable[[Any], Any] = lambda found: found.value
) -> Callable[[Any, str], Steps]:
    def steps(cb: Any, key: str) -> Steps:
        yield cb.set(key, 1)
        for attempt in range(ATTEMPTS):
            try:
                found = yield read(cb, key)
            except NotFoundError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                same(value_of(found[key] if isinstance(found, dict) else found), 1)
                return None
        return None

    return steps


row("lookup_in", "replica")(
    _from_replica(lambda cb, key: cb.lookup_in(key, SD.get_full(), replica="any"), lambda found: found[0])
)
row("lookup_in_multi", "replica")(
    _from_replica(lambda cb, key: cb.lookup_in_multi([key], SD.get_full(), replica=0), lambda found: found[0])
)
row("get", "replica")(_from_replica(lambda cb, key: cb.get(key, replica=True)))
row("rget")(_from_replica(lambda cb, key: cb.rget(key)))
row("rget", "replica_index")(_from_replica(lambda cb, key: cb.rget(key, replica_index=0)))
row("rget_multi")(_from_replica(lambda cb, key: cb.rget_multi([key])))
row("rget_multi", "replica_index")(_from_replica(lambda cb, key: cb.rget_multi([key], replica_index=0)))


def _get_multi(**options: Any) -> Any:
    def steps(cb: Any, key: str) -> Steps:
        yield cb.set(key, 1)
        same((yield cb.get_multi([key], **options))[key].value, 1)

    return steps


row("get_multi")(_get_multi())
row("get_multi", "ttl")(_get_multi(ttl=TTL))
row("get_multi", "replica")(_from_replica(lambda cb, key: cb.get_multi([key], replica=True)))


@row("get_with_expiry")
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, [1], ttl=TTL)
    found = yield cb.get_with_expiry(key)
    same(found.value, [1])
    return None if found.expiry else "its expiry is not shown"


# ---- storing -------------------------------------------------------------------------------------

COPIES = {"persist_to": 1, "replicate_to": 1, "durability_level": 1}


def _store(name: str, **options: Any) -> Any:
    before: Any = {"add": None, "set": None, "replace": 0}.get(name, "b")
    value, stored = ("c", {"append": "bc", "prepend": "cb"}[name]) if before == "b" else (7, 7)

    def steps(cb: Any, key: str) -> Steps:
        if before is not None:
            kept = yield cb.set(key, before, format=FMT_UTF8 if before == "b" else None)
        given = {"format": FMT_UTF8} if before == "b" else {}
        given |= options
        if "cas" in options:
            if before is None:
                kept = yield cb.set(key, 0)
            given["cas"] = kept.cas
        yield getattr(cb, name)(key, value, **given)
        same((yield cb.get(key)).value, stored)

    return steps


def _keep(name: str) -> Any:
    def steps(cb: Any, key: str) -> Steps:
        yield cb.set(key, 1, ttl=TTL)
        before = (yield cb.get_with_expiry(key)).expiry
        yield getattr(cb, name)(key, 2, preserve_expiry=True)
        found = yield cb.get_with_expiry(key)
        same((found.value, found.expiry), (2, before))
        return None if before else "the expiry is not kept"

    return steps


def _store_multi(name: str, **options: Any) -> Any:
    single = name.removesuffix("_multi")
    text = single in ("append", "prepend")

    def steps(cb: Any, key: str) -> Steps:
        keys = [f"{key}-{number}" for number in range(3)]
        if single in ("replace", "append", "prepend"):
            yield cb.set_multi(dict.fromkeys(keys, "b"), format=FMT_UTF8)
        given = {"format": FMT_UTF8} if text else {}
        yield getattr(cb, name)(dict.fromkeys(keys, "c"), **given, **options)
        wanted = {"append": "bc", "prepend": "cb"}.get(single, "c")
        same([result.value for result in (yield cb.get_multi(keys)).values()], [wanted] * 3)

    return steps


for _name in ("set", "add", "replace", "append", "prepend"):
    row(_name)(_store(_name))
    # An added part keeps the expiry, whatever is given.
    row(_name, "ttl")(_store(_name, ttl=0 if _name in ("append", "prepend") else TTL))
    if _name != "add":
        row(_name, "cas")(_store(_name, cas=True))
    for _option, _value in COPIES.items():
        row(_name, _option)(_store(_name, **{_option: _value}))
    if _name in ("set", "replace"):
        row(_name, "preserve_expiry", keeps_expiry=True)(_keep(_name))
    row(f"{_name}_multi")(_store_multi(f"{_name}_multi"))
    row(f"{_name}_multi", "ttl")(_store_multi(f"{_name}_multi", ttl=0 if "pend" in _name else TTL))
    for _option in ("persist_to", "replicate_to"):
        row(f"{_name}_multi", _option)(_store_multi(f"{_name}_multi", **{_option: 1}))


def _items(name: str) -> Any:
    def steps(cb: Any, key: str) -> Steps:
        items = ItemOptionDict()
        item = Item(key)
        item.value = "b"
        yield cb.set(key, "b", format=FMT_UTF8)
        items.add(item, fragment="c")
        yield getattr(cb, name)(items, format=FMT_UTF8)
        wanted = "bc" if name == "append_items" else "cb"
        same(((yield cb.get(key)).value, item.value), (wanted, wanted))

    return steps


row("append_items")(_items("append_items"))
row("prepend_items")(_items("prepend_items"))


def _delete(**options: Any) -> Any:
    def steps(cb: Any, key: str) -> Steps:
        stored = yield cb.set(key, 1)
        given = {"cas": stored.cas} if "cas" in options else options
        yield cb.delete(key, **given)
        same((yield cb.get(key, quiet=True)).success, False)

    return steps


def _delete_multi(**options: Any) -> Any:
    def steps(cb: Any, key: str) -> Steps:
        stored = yield cb.set(key, 1)
        yield cb.delete_multi({key: stored.cas} if "cas" in options else [key], **{**options, "cas": 0})
        same((yield cb.get(key, quiet=True)).success, False)

    return steps


row("delete")(_delete())
row("delete", "cas")(_delete(cas=True))
for _option, _value in COPIES.items():
    row("delete", _option)(_delete(**{_option: _value}))
row("delete_multi")(_delete_multi())
row("delete_multi", "cas")(_delete_multi(cas=True))
for _option in ("persist_to", "replicate_to"):
    row("delete_multi", _option)(_delete_multi(**{_option: 1}))


# ---- parts of documents --------------------------------------------------------------------------


@row("lookup_in")
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, {"a": 5})
    found = yield cb.lookup_in(key, SD.get("a"), SD.exists("b"))
    same(list(found), [5, False])


@row("lookup_in_multi")
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, {"a": 5})
    same((yield cb.lookup_in_multi([key], SD.get("a")))[key][0], 5)


def _mutate_in(**options: Any) -> Any:
    def steps(cb: Any, key: str) -> Steps:
        stored = yield cb.set(key, {"a": 5}, ttl=TTL)
        given = {"cas": stored.cas} if "cas" in options else options
        yield cb.mutate_in(key, SD.upsert("a", 6), **given)
        found = yield cb.get_with_expiry(key)
        same(found.value, {"a": 6})
        if "preserve_expiry" in options:
            return None if found.expiry else "the expiry is not kept"
        return None

    return steps


def _mutate_in_multi(**options: Any) -> Any:
    def steps(cb: Any, key: str) -> Steps:
        yield cb.set(key, {"a": 5})
        yield cb.mutate_in_multi([key], SD.upsert("a", 6), **options)
        same((yield cb.get(key)).value, {"a": 6})

    return steps


row("mutate_in")(_mutate_in())
row("mutate_in", "cas")(_mutate_in(cas=True))
for _option, _value in {**COPIES, "ttl": TTL, "preserve_expiry": True}.items():
    row("mutate_in", _option)(_mutate_in(**{_option: _value}))
row("mutate_in_multi")(_mutate_in_multi())
for _option, _value in {"ttl": TTL, "persist_to": 1, "replicate_to": 1}.items():
    row("mutate_in_multi", _option)(_mutate_in_multi(**{_option: _value}))


# ---- expiry, locks, counters ---------------------------------------------------------------------


@row("touch", "ttl")
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, 1)
    same((yield cb.touch(key, ttl=TTL)).success, True)


@row("touch_multi", "ttl")
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, 1)
    same((yield cb.touch_multi([key], ttl=TTL)).all_ok, True)


@row("lock", "ttl")
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, 1)
    locked = yield cb.lock(key, ttl=10)
    same(locked.value, 1)
    yield cb.set(key, 2, cas=locked.cas)


@row("lock_multi", "ttl")
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, 1)
    locked = yield cb.lock_multi([key], ttl=10)
    yield cb.set(key, 2, cas=locked[key].cas)


@row("unlock", "cas")
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, 1)
    locked = yield cb.lock(key, ttl=10)
    yield cb.unlock(key, locked.cas)
    yield cb.set(key, 2)


@row("unlock_multi")
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, 1)
    yield cb.unlock_multi((yield cb.lock_multi([key], ttl=10)))
    yield cb.set(key, 2)


def _count(name: str, **options: Any) -> Any:
    many = name.endswith("_multi")

    def steps(cb: Any, key: str) -> Steps:
        count = getattr(cb, name)
        target: Any = {key: 2} if many else key
        amount = {} if many else {"amount": 2}
        first = yield count(target, initial=5, **amount, **options)
        second = yield count(target, initial=5, **amount, **options)
        values = [(result[key] if many else result).value for result in (first, second)]
        same(values, [5, 3 if name.startswith("decr") else 7])

    return steps


for _name in ("incr", "decr", "arithmetic"):
    row(_name)(_count(_name))
    row(_name, "ttl")(_count(_name, ttl=TTL))
    if _name != "arithmetic":
        for _option, _value in COPIES.items():
            row(_name, _option)(_count(_name, **{_option: _value}))
    row(f"{_name}_multi")(_count(f"{_name}_multi"))
    row(f"{_name}_multi", "ttl")(_count(f"{_name}_multi", ttl=TTL))


# ---- copies --------------------------------------------------------------------------------------


def _observe(name: str, **options: Any) -> Any:
    def steps(cb: Any, key: str) -> Steps:
        yield cb.set(key, 1)
        found = yield getattr(cb, name)([key] if name == "observe_multi" else key, **options)
        copies = (found[key] if name == "observe_multi" else found).value
        wanted = 1 if options else 1 + cb.configured_replica_count
        same((len(copies), sum(copy.from_master for copy in copies)), (wanted, 1))

    return steps


for _name in ("observe", "observe_multi"):
    row(_name)(_observe(_name))
    row(_name, "master_only")(_observe(_name, master_only=True))


def _endure(name: str, **options: Any) -> Any:
    def steps(cb: Any, key: str) -> Steps:
        stored = yield cb.set(key, 1)
        if "check_removed" in options:
            yield cb.delete(key)
        given = {"persist_to": 0, "replicate_to": 0, **options}
        if name == "endure_multi":
            yield cb.endure_multi([key], **given)
        else:
            if "cas" in options:
                given |= {"cas": stored.cas, "persist_to": 1}
            yield cb.endure(key, **given)

    return steps


for _name in ("endure", "endure_multi"):
    row(_name, "persist_to")(_endure(_name, persist_to=1))
    row(_name, "replicate_to")(_endure(_name, replicate_to=1))
    row(_name, "check_removed")(_endure(_name, persist_to=1, check_removed=True))
row("endure", "cas")(_endure("endure", cas=True))


def _context(option: str) -> Any:
    def steps(cb: Any, key: str) -> Steps:
        wanted = {"persist_to": 0, "replicate_to": 0, option: 1}
        with cb.durability(**wanted):
            stored = cb.set(key, 1)
        yield stored
        same((yield cb.get(key)).value, 1)

    return steps


for _option in ("persist_to", "replicate_to"):
    row("durability", _option)(_context(_option))


# ---- many, statistics ----------------------------------------------------------------------------


@row("pipeline", faces=frozenset({BLOCKING}))
def _(cb: Any, key: str) -> Steps:
    pipeline = cb.pipeline()
    with pipeline:
        cb.set(key, 1)
        cb.get(key)
    same(pipeline.results[1].value, 1)
    yield None


@row("stats")
def _(cb: Any, key: str) -> Steps:
    found = yield cb.stats()
    assert len(found), "no statistics"


class Receiver:
    """The outcome of a direct call, as a Deferred."""

    def __init__(self, call: Any) -> None:
        self.told: Deferred[Any] = Deferred()
        call.receiver = self

    def succeeded(self, result: Any) -> None:
        """Fire."""
        self.told.callback(result)

    def failed(self, error: BaseException) -> None:
        """Fail."""
        self.told.errback(error)


@row("direct", faces=frozenset({TWISTED}))
def _(cb: Any, key: str) -> Steps:
    direct = cb.direct()
    yield Receiver(direct.set(key, 1)).told
    same((yield Receiver(direct.get(key)).told).value, 1)


@row("start", faces=frozenset({TWISTED}))
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, 1)
    call = DeferredCall(GET, key, key.encode())
    call.deferred = Deferred(call.cancelled)
    cb.start(call)
    yield call.deferred


# ---- views and the cluster manager ---------------------------------------------------------------


def _designed(work: Callable[[Any, str, str], Steps]) -> Callable[[Any, str], Steps]:
    """Return steps that have a design document to work with."""

    def steps(cb: Any, key: str) -> Steps:
        name = key.lower()
        yield cb.design_create(name, DESIGN, use_devmode=False)
        missing = yield from work(cb, key, name)
        return missing

    return steps


def _has(key: str, keys: list[str]) -> str | None:
    return None if key in keys else "no rows come"


@row("design_create")
@_designed
def _(cb: Any, key: str, name: str) -> Steps:
    same((yield cb.design_get(name, use_devmode=False)).value["views"], DESIGN["views"])


@row("design_get")
@_designed
def _(cb: Any, key: str, name: str) -> Steps:
    same((yield cb.design_get(name, use_devmode=False)).success, True)


@row("design_delete")
@_designed
def _(cb: Any, key: str, name: str) -> Steps:
    same((yield cb.design_delete(name, use_devmode=False)).success, True)


@row("design_publish")
def _(cb: Any, key: str) -> Steps:
    name = key.lower()
    yield cb.design_create(name, DESIGN)
    yield cb.design_publish(name)
    same((yield cb.design_get(name, use_devmode=False)).value["views"], DESIGN["views"])


@row("design_list", faces=frozenset({TWISTED}))
@_designed
def _(cb: Any, key: str, name: str) -> Steps:
    same((yield cb.design_list()).success, True)


@row("query", faces=frozenset({BLOCKING, GREENLETS}))
@_designed
def _(cb: Any, key: str, name: str) -> Steps:
    yield cb.set(key, 1)
    return _has(key, [found.key for found in cb.query(name, "all", stale=False)])


class Rows(AsyncViewBase):
    """A view that fires a Deferred with the keys of its rows."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.keys: list[Any] = []
        self.done: Deferred[list[Any]] = Deferred()

    def on_rows(self, rowiter: Any) -> None:
        """Note the keys."""
        self.keys.extend(found.key for found in rowiter)

    def on_done(self) -> None:
        """Fire."""
        self.done.callback(self.keys)

    def on_error(self, ex: BaseException) -> None:
        """Fail."""
        self.done.errback(ex)


@row("queryEx", faces=frozenset({TWISTED}))
@_designed
def _(cb: Any, key: str, name: str) -> Steps:
    yield cb.set(key, 1)
    return _has(key, (yield cb.queryEx(Rows, name, "all", stale=False).done))


@row("query", faces=frozenset({TWISTED}))
@_designed
def _(cb: Any, key: str, name: str) -> Steps:
    yield cb.set(key, 1)
    view = cb.query(name, "all", stale=False, itercls=Rows)
    view.start()
    return _has(key, (yield view.done))


@row("queryAll", faces=frozenset({TWISTED}))
@_designed
def _(cb: Any, key: str, name: str) -> Steps:
    yield cb.set(key, 1)
    rows = yield cb.queryAll(name, "all", stale=False)
    return _has(key, [found.key for found in rows])


@row("scan", faces=frozenset({BLOCKING, GREENLETS}))
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, 1)
    return _has(key, [found.key for found in cb.scan(PrefixScan(key), ids_only=True)])


@row("scan", faces=frozenset({TWISTED}))
def _(cb: Any, key: str) -> Steps:
    yield cb.set(key, 1)
    found = yield cb.scan(PrefixScan(key), ids_only=True).next_page()
    return _has(key, [row.key for row in found])


@row("management_request", faces=frozenset({TWISTED}))
def _(cb: Any, key: str) -> Steps:
    status, _, _ = yield cb.management_request("GET", "/pools/default/buckets")
    same(status, 200)


# ---- the administrator ---------------------------------------------------------------------------


@row("http_request", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    same((yield admin.http_request("/pools/default/buckets")).success, True)


@row("bucket_list", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    assert (yield admin.bucket_list()).value


@row("bucket_create", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    same((yield admin.bucket_create("made")).success, True)


@row("bucket_delete", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    yield admin.bucket_create("doomed")
    same((yield admin.bucket_delete("doomed")).success, True)


@row("scopes", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    found = yield admin.scopes(_bucket_of(admin))
    same(found.collection("_default").uid, 0)


@row("scope_create", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    bucket = _bucket_of(admin)
    same((yield admin.scope_create(bucket, "made")).success, True)
    same((yield admin.scopes(bucket)).scope("made").collections, ())


@row("scope_drop", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    bucket = _bucket_of(admin)
    yield admin.scope_create(bucket, "doomed")
    same((yield admin.scope_drop(bucket, "doomed")).success, True)
    same((yield admin.scopes(bucket)).scope("doomed"), None)


@row("collection_create", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    bucket = _bucket_of(admin)
    same((yield admin.collection_create(bucket, "made", max_ttl=90)).success, True)
    same((yield admin.scopes(bucket)).collection("made").max_ttl, 90)


@row("collection_update", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    bucket = _bucket_of(admin)
    yield admin.collection_create(bucket, "changed")
    same((yield admin.collection_update(bucket, "changed", max_ttl=60)).success, True)
    same((yield admin.scopes(bucket)).collection("changed").max_ttl, 60)


@row("collection_drop", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    bucket = _bucket_of(admin)
    yield admin.collection_create(bucket, "doomed")
    same((yield admin.collection_drop(bucket, "doomed")).success, True)
    same((yield admin.scopes(bucket)).collection("doomed"), None)


@row("users_get", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    yield admin.user_upsert("local", "listed", "s3cret-pw")
    assert "listed" in [user["id"] for user in (yield admin.users_get("local")).value]


@row("user_get", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    yield admin.user_upsert("local", "read", "s3cret-pw", ["ro_admin"])
    user = (yield admin.user_get("local", "read")).value
    same([role["role"] for role in user["roles"]], ["ro_admin"])


@row("user_upsert", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    same((yield admin.user_upsert("local", "made", "s3cret-pw", ["ro_admin"])).success, True)
    same(Admin("made", "s3cret-pw", admin._host, admin._port).timeout, 75.0)


@row("user_remove", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    yield admin.user_upsert("local", "doomed", "s3cret-pw")
    same((yield admin.user_remove("local", "doomed")).success, True)


@row("change_password", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    yield admin.user_upsert("local", "changed", "s3cret-pw", ["ro_admin"])
    own = Admin("changed", "s3cret-pw", admin._host, admin._port)
    same((yield own.change_password("n3w-secret")).success, True)


@row("roles_get", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    assert "ro_admin" in [role["role"] for role in (yield admin.roles_get()).value]


@row("groups_get", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    yield admin.group_upsert("listed", ["ro_admin"])
    assert "listed" in [group["id"] for group in (yield admin.groups_get()).value]


@row("group_get", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    yield admin.group_upsert("read", ["ro_admin"], description="all")
    same((yield admin.group_get("read")).value["description"], "all")


@row("group_upsert", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    same((yield admin.group_upsert("made", ["ro_admin"])).success, True)


@row("group_remove", faces=frozenset({ADMINISTRATOR}))
def _(admin: Any, key: str) -> Steps:
    yield admin.group_upsert("doomed", ["ro_admin"])
    same((yield admin.group_remove("doomed")).success, True)


def _bucket_of(admin: Any) -> Any:
    """Return the name of a bucket."""
    return admin.bucket_list().value[0]["name"]
