"""The state that a cluster keeps in cluster.json between runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from couchnode.cluster.members import Bucket, restored_bucket
from couchnode.cluster.metadata import DataDirectoryError
from couchnode.cluster.users import UserStore


class Record(NamedTuple):
    """The content of cluster.json.

    :ivar epoch: the epoch of all revisions; see the cluster.
    :ivar rev: the last published revision.
    :ivar starts: number of starts of the cluster.
    :ivar was_stopped: whether all buckets were closed properly since the last start.
    :ivar name: display name of the cluster.
    :ivar users: the result of :meth:`couchnode.cluster.users.UserStore.dump`.
    """

    uuid: str
    epoch: int
    rev: int
    starts: int
    was_stopped: bool
    node_count: int
    users: object
    buckets: dict[str, Bucket]
    name: str = ""

    def dump(self) -> dict[str, Any]:
        """Return what :func:`read_record` takes."""
        return {
            "uuid": self.uuid,
            "epoch": self.epoch,
            "rev": self.rev,
            "starts": self.starts,
            "stopped": self.was_stopped,
            "nodes": self.node_count,
            "users": self.users,
            "name": self.name,
            "buckets": {name: bucket.dump() for name, bucket in self.buckets.items()},
        }


def read_record(data: dict[str, Any], users: UserStore, node_count: int, path: Path | None) -> Record:
    """Return the content of cluster.json; the users are loaded into ``users``.

    :param node_count: number of nodes in this run.
    :param path: path of the data directory, for messages.
    :raises DataDirectoryError: another number of nodes, or data of another shape.
    """
    where = "the data directory" if path is None else f"the data directory {path}"
    try:
        count = int(data["nodes"])
        if count != node_count:
            raise DataDirectoryError(
                f"{where} was made with {count} node(s), not {node_count}: start it with "
                f"--nodes {count}; documents are not moved to another number of nodes"
            )
        open_users = [name for name, part in data["buckets"].items() if part["ownsUser"] and part["isOpen"]]
        users.load(data["users"], open_users)
        return Record(
            str(data["uuid"]),
            int(data["epoch"]),
            int(data["rev"]),
            int(data.get("starts", 0)),
            bool(data.get("stopped", False)),
            count,
            data["users"],
            {name: restored_bucket(part, count) for name, part in data["buckets"].items()},
            str(data.get("name", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise DataDirectoryError(f"{where} has a damaged cluster.json: {fault!r}") from fault
