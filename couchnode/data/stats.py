"""The statistics of a bucket, by group, as the STAT command names them."""

from __future__ import annotations

from collections.abc import Callable

from couchnode.data.bucket import NodeBucket
from couchnode.data.vbucket import VBucket

Stats = list[tuple[str, str]]


def bucket_stats(bucket: NodeBucket, group: bytes = b"") -> Stats | None:
    """Return the statistics of a group; ``None`` for a group that does not exist.

    ``vbucket-details`` and ``vbucket`` take a vbucket id after a space.
    """
    name, _, argument = group.partition(b" ")
    if argument:
        if name not in (b"vbucket", b"vbucket-details") or not argument.isdigit():
            return None
        vbid = int(argument) if len(argument) < 6 else len(bucket.vbuckets)
        hosted = bucket.vbuckets[vbid] if vbid < len(bucket.vbuckets) else None
        if hosted is None:
            return None
        return _details(hosted) if name == b"vbucket-details" else _state(hosted)
    maker = _GROUPS.get(group)
    return None if maker is None else maker(bucket)


def items_by_state(bucket: NodeBucket) -> dict[str, list[int]]:
    """Return the number of documents in each vbucket of the node, by the state of the vbucket."""
    items: dict[str, list[int]] = {"active": [], "replica": []}
    for vb in bucket.vbuckets:
        if vb is not None:
            items.setdefault(vb.state, []).append(len(vb.items))
    return items


def default_counters(bucket: NodeBucket) -> dict[str, int | str]:
    """Return the statistics of the default group, numbers as numbers."""
    items = items_by_state(bucket)
    active, replica = sum(items["active"]), sum(items["replica"])
    ledger, flusher = bucket.ledger, bucket.flusher
    return {
        "bucket": bucket.name,
        "uuid": bucket.uuid,
        "time": int(bucket.unix_time()),
        "curr_items": active,
        "curr_items_tot": sum(map(sum, items.values())),
        "vb_active_num": len(items["active"]),
        "vb_active_curr_items": active,
        "vb_replica_num": len(items["replica"]),
        "vb_replica_curr_items": replica,
        "cmd_get": bucket.gets,
        "get_hits": bucket.gets - bucket.misses,
        "get_misses": bucket.misses,
        "cmd_set": bucket.stores,
        "ep_bucket_type": "persistent" if bucket.persistent else "ephemeral",
        "ep_degraded_mode": int(bucket.state != "ready"),
        "ep_expired_pager": bucket.pager.expired,
        "ep_queue_size": ledger.queued_items,
        "ep_diskqueue_items": ledger.queued_items,
        "ep_diskqueue_memory": ledger.queued_bytes,
        "ep_total_persisted": flusher.written,
        "ep_flusher_batches": flusher.batches,
        "ep_item_commit_failed": flusher.failures,
        "ep_data_write_failed": flusher.failures,
        "ep_write_error": flusher.write_error or "",
        "ep_db_file_size": bucket.disk_bytes,
        **_memory_counters(bucket),
    }


def _default(bucket: NodeBucket) -> Stats:
    return _text(default_counters(bucket))


def _memory_counters(bucket: NodeBucket) -> dict[str, int]:
    ledger = bucket.ledger
    return {"mem_used": ledger.memory_bytes, "ep_max_size": ledger.quota_bytes, "bytes": ledger.memory_bytes}


def _memory(bucket: NodeBucket) -> Stats:
    return _text(_memory_counters(bucket))


def _warmup(bucket: NodeBucket) -> Stats:
    loaded, estimated = bucket.warmup.progress
    done = bucket.state == "ready"
    return _text(
        {
            "ep_warmup": "enabled",
            "ep_warmup_thread": "complete" if done else "running",
            "ep_warmup_state": "done" if done else "loading data",
            "ep_warmup_key_count": loaded,
            "ep_warmup_value_count": loaded,
            "ep_warmup_estimated_key_count": estimated,
            "ep_warmup_estimated_value_count": estimated,
            "ep_warmup_time": int(bucket.warmup.seconds * 1e6),
        }
    )


def _vbuckets(bucket: NodeBucket) -> Stats:
    return [pair for vb in _hosted(bucket) for pair in _state(vb)]


def _vbucket_details(bucket: NodeBucket) -> Stats:
    return [pair for vb in _hosted(bucket) for pair in _details(vb)]


def _vbucket_seqno(bucket: NodeBucket) -> Stats:
    stats: Stats = []
    for vb in _hosted(bucket):
        stats += _prefixed(
            vb,
            {
                "high_seqno": vb.high_seqno,
                "last_persisted_seqno": vb.persisted_seqno,
                "purge_seqno": vb.purge_seqno,
                "uuid": vb.uuid,
            },
        )
    return stats


def _items(bucket: NodeBucket) -> Stats:
    hosted = _hosted(bucket)
    return _text(
        {
            "curr_items": bucket.item_count,
            "curr_items_tot": sum(len(vb.items) for vb in hosted),
            "ep_tombstones": sum(len(vb.tombstones) + len(vb.lasting) for vb in hosted),
            "ep_pending_sync_writes": sum(len(vb.pending) for vb in hosted),
        }
    )


def _state(vb: VBucket) -> Stats:
    return [(f"vb_{vb.id}", vb.state)]


def _details(vb: VBucket) -> Stats:
    return _state(vb) + _prefixed(
        vb,
        {
            "num_items": len(vb.items),
            "num_tombstones": len(vb.tombstones) + len(vb.lasting),
            "num_pending_sync_writes": len(vb.pending),
            "queue_size": len(vb.dirty),
            "high_seqno": vb.high_seqno,
            "persisted_seqno": vb.persisted_seqno,
            "purge_seqno": vb.purge_seqno,
            "max_cas": vb.max_cas,
            "max_deleted_revid": vb.max_deleted_revid,
            "uuid": vb.uuid,
        },
    )


def _hosted(bucket: NodeBucket) -> list[VBucket]:
    return [vb for vb in bucket.vbuckets if vb is not None]


def _prefixed(vb: VBucket, numbers: dict[str, int]) -> Stats:
    return [(f"vb_{vb.id}:{name}", str(value)) for name, value in numbers.items()]


def _text(numbers: dict[str, int | str] | dict[str, int]) -> Stats:
    return [(name, str(value)) for name, value in numbers.items()]


_GROUPS: dict[bytes, Callable[[NodeBucket], Stats]] = {
    b"": _default,
    b"memory": _memory,
    b"warmup": _warmup,
    b"vbucket": _vbuckets,
    b"vbucket-details": _vbucket_details,
    b"vbucket-seqno": _vbucket_seqno,
    b"items": _items,
}
