"""The layout of vbuckets on nodes: rows of node indexes, and the rules for them.

A row is ``(active, replica 1, replica 2, ...)``: node indexes, -1 for a copy that no node holds. A layout has
one row per vbucket. Layouts are plain values: this module only computes, checks and compares them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

NO_NODE = -1
"""Stands for a copy that no node holds, in place of a node's index."""

VBUCKETS = 1024
"""vbuckets of every bucket."""

Row = tuple[int, ...]
Rows = tuple[Row, ...]
State = Literal["active", "replica", "dead"]


class LayoutError(ValueError):
    """A layout is invalid; the text names the vbucket and the fault."""


def spread(nodes: int, replicas: int, vbuckets: int = VBUCKETS) -> Rows:
    """Distribute vbuckets evenly over ``nodes``.

    The numbers of active vbuckets per node differ by at most one, and the replicas of a node's vbuckets
    rotate over all other nodes, so that all remaining nodes share the load of a lost one.

    :param replicas: copies in addition to the active one; copies for which there are too few nodes are
        :data:`NO_NODE`.
    """
    rows: list[Row] = []
    turns = [0] * nodes
    for vbucket in range(vbuckets):
        active = vbucket * nodes // vbuckets
        others = [(active + 1 + step) % nodes for step in range(nodes - 1)]
        turn = turns[active] % len(others) if others else 0
        turns[active] += 1
        copies = (others[turn:] + others[:turn])[:replicas]
        rows.append((active, *copies, *[NO_NODE] * (replicas - len(copies))))
    return tuple(rows)


def check_rows(rows: Sequence[Sequence[int]], nodes: int, replicas: int, vbuckets: int = VBUCKETS) -> Rows:
    """Return ``rows`` as a layout.

    :raises LayoutError: wrong number of rows or columns, an index without a node, or a node twice in a row.
    """
    if len(rows) != vbuckets:
        raise LayoutError(f"a layout has {vbuckets} rows, this one has {len(rows)}")
    for vbucket, row in enumerate(rows):
        if len(row) != replicas + 1:
            raise LayoutError(
                f"vbucket {vbucket}: {replicas} replicas take {replicas + 1} columns, not {len(row)}"
            )
        holders = [index for index in row if index != NO_NODE]
        for index in holders:
            if not isinstance(index, int) or not 0 <= index < nodes:
                raise LayoutError(f"vbucket {vbucket}: there is no node {index!r}")
        if len(set(holders)) != len(holders):
            raise LayoutError(f"vbucket {vbucket}: a node cannot hold two copies, as in {list(row)}")
    return tuple(tuple(row) for row in rows)


def check_move(old: Rows, new: Rows) -> None:
    """Refuse a change of layout that would serve an empty vbucket in place of one with documents.

    A node becomes active only for vbuckets that it already holds: to move a vbucket, make the new node a
    replica first. Giving up a vbucket (active -1, as after the loss of a node without replicas) is allowed.

    :raises LayoutError: the change would do that.
    """
    for vbucket, (before, after) in enumerate(zip(old, new, strict=True)):
        active = after[0]
        lost = before[0] == NO_NODE  # no node holds the vbucket: it can only start empty
        if active != NO_NODE and active not in before and not lost:
            raise LayoutError(
                f"vbucket {vbucket}: node {active} holds no copy of it; make it a replica first, then active"
            )


def states_of(rows: Rows, node: int) -> list[State]:
    """Return the state of ``node`` for each vbucket."""
    return ["active" if row[0] == node else "replica" if node in row[1:] else "dead" for row in rows]


def with_replicas(rows: Rows, nodes: int, replicas: int) -> Rows:
    """Return ``rows`` with another number of replicas: the last replicas are removed, or the least loaded
    nodes get new ones.

    Remaining replicas keep their position, so they are not copied again.
    """
    # (active node, replica node) -> number of vbuckets. If these are even, so is the total load, also after
    # the loss of a node.
    backed: Counter[tuple[int, int]] = Counter(
        (row[0], index) for row in rows for index in row[1 : replicas + 1] if index != NO_NODE
    )
    changed: list[Row] = []
    for row in rows:
        kept = list(row[: replicas + 1]) + [NO_NODE] * (replicas + 1 - len(row))
        active = kept[0]
        for column in range(1, replicas + 1):
            free = [index for index in range(nodes) if index not in kept]
            if kept[column] != NO_NODE or active == NO_NODE or not free:
                continue
            kept[column] = min(free, key=lambda index: (backed[active, index], index))
            backed[active, kept[column]] += 1
        changed.append(tuple(kept))
    return tuple(changed)
