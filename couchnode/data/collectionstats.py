"""The statistics of a bucket by collection and by scope, as the STAT command names them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

from couchbase.protocol.constants import Status
from couchnode.data.bucket import NodeBucket
from couchnode.data.item import StatusError
from couchnode.data.keys import DEFAULT_PREFIX
from couchnode.data.manifest import DEFAULT_NAME, Collection, Manifest, NoSuchCollection, NoSuchScope, Scope
from couchnode.data.measurement import Sizes
from couchnode.data.stats import Stats

GROUPS = (b"collections", b"collections-byid", b"scopes", b"scopes-byid")
"""The groups; each may be followed by a space and one collection or scope: its path, or its id in hex."""


def read_group(bucket: NodeBucket, group: str) -> Callable[[Sizes], Stats]:
    """Return the function that makes the statistics of a group from the collections' sizes.

    :raises StatusError: EINVAL for a malformed path or id, UNKNOWN_COLLECTION, UNKNOWN_SCOPE.
    """
    name, _, wanted = group.partition(" ")
    manifest, by_id = bucket.collections.manifest, name.endswith("-byid")
    try:
        if name.startswith("scopes"):
            return partial(_of_scopes, bucket, _scopes(manifest, by_id, wanted))
        return partial(_of_collections, bucket, _collections(manifest, by_id, wanted))
    except NoSuchScope as fault:
        raise StatusError(Status.UNKNOWN_SCOPE, str(fault)) from fault
    except NoSuchCollection as fault:
        raise StatusError(Status.UNKNOWN_COLLECTION, str(fault)) from fault
    except ValueError as fault:
        raise StatusError(Status.EINVAL, str(fault)) from fault


def _collections(manifest: Manifest, by_id: bool, wanted: str) -> list[Collection]:
    if not wanted:
        return sorted(manifest.by_id.values())
    if by_id:
        found = manifest.by_id.get(int(wanted, 16))
        if found is None:
            raise StatusError(Status.UNKNOWN_COLLECTION, f"collection {wanted} is not in the manifest")
        return [found]
    scope, dot, name = wanted.partition(".")
    if not dot or "." in name:
        raise ValueError("the path is scope.collection, with exactly one dot")
    return [manifest.collection(scope or DEFAULT_NAME, name or DEFAULT_NAME)]


def _scopes(manifest: Manifest, by_id: bool, wanted: str) -> list[Scope]:
    if not wanted:
        return sorted(manifest.scopes.values(), key=lambda scope: scope.id)
    if by_id:
        for scope in manifest.scopes.values():
            if scope.id == int(wanted, 16):
                return [scope]
        raise StatusError(Status.UNKNOWN_SCOPE, f"scope {wanted} is not in the manifest")
    return [manifest.scope(wanted.partition(".")[0] or DEFAULT_NAME)]


def _of_collections(bucket: NodeBucket, collections: list[Collection], sizes: Sizes) -> Stats:
    counts, stats = item_counts(bucket), _uid(bucket)
    for one in collections:
        limits = [("maxTTL", str(max(one.max_ttl, 0)))] if one.max_ttl else []
        figures = [*_sums(counts, sizes, [one]), ("name", one.name), ("scope_name", one.scope), *limits]
        stats += [(f"0x{one.scope_id:x}:0x{one.id:x}:{name}", text) for name, text in figures]
    return stats


def _of_scopes(bucket: NodeBucket, scopes: list[Scope], sizes: Sizes) -> Stats:
    counts, stats = item_counts(bucket), _uid(bucket)
    for scope in scopes:
        collections = list(scope.collections.values())
        figures = [*_sums(counts, sizes, collections), ("name", scope.name)]
        figures.append(("collections", str(len(collections))))
        stats += [(f"0x{scope.id:x}:{name}", text) for name, text in figures]
    return stats


def item_counts(bucket: NodeBucket) -> Counter[bytes]:
    """Return the number of documents of each collection in the active vbuckets, by key prefix."""
    counts: Counter[bytes] = Counter()
    for vbucket in bucket.vbuckets:
        if vbucket is not None and vbucket.state == "active":
            counts.update(vbucket.named)
            counts[DEFAULT_PREFIX] += vbucket.count(DEFAULT_PREFIX)
    return counts


def _uid(bucket: NodeBucket) -> Stats:
    return [("manifest_uid", f"{bucket.collections.manifest.uid:x}")]


def _sums(counts: Counter[bytes], sizes: Sizes, collections: Iterable[Collection]) -> Stats:
    prefixes = [one.prefix for one in collections]
    return [
        ("items", str(sum(counts[prefix] for prefix in prefixes))),
        ("collections_mem_used", str(sum(sizes.memory.get(prefix, 0) for prefix in prefixes))),
        ("data_size", str(sum(sizes.data.get(prefix, 0) for prefix in prefixes))),
    ]
