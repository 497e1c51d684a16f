"""Layouts: the distribution of vbuckets, and the refused layouts and changes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchnode.cluster.layout import (
    NO_NODE,
    VBUCKETS,
    LayoutError,
    check_move,
    check_rows,
    spread,
    states_of,
    with_replicas,
)

NODES = st.integers(1, 9)
REPLICAS = st.integers(0, 3)


class SpreadTests(SynchronousTestCase):
    """A computed layout."""

    @given(NODES, REPLICAS)
    def test_is_a_valid_even_layout(self, nodes: int, replicas: int) -> None:
        """All rules hold; actives differ by at most one, replicas by few; nodes bound the copies."""
        rows = check_rows(spread(nodes, replicas), nodes, replicas)
        actives = Counter(row[0] for row in rows)
        self.assertEqual(set(actives), set(range(nodes)))
        self.assertLessEqual(max(actives.values()) - min(actives.values()), 1)
        copies = min(replicas, nodes - 1)
        self.assertEqual({sum(index != NO_NODE for index in row[1:]) for row in rows}, {copies})
        held = Counter(index for row in rows for index in row[1:] if index != NO_NODE)
        if copies:
            self.assertLessEqual(max(held.values()) - min(held.values()), 2 * nodes)

    def test_replicas_of_one_node_are_on_all_others(self) -> None:
        """The vbuckets that are active on one of four nodes have their replicas on the three others in equal
        parts."""
        behind = Counter(row[1] for row in spread(4, 1) if row[0] == 2)
        self.assertEqual(set(behind), {0, 1, 3})
        self.assertLessEqual(max(behind.values()) - min(behind.values()), 1)

    def test_states(self) -> None:
        """Each node knows of each vbucket whether it leads it, backs it or has nothing of it."""
        rows = ((0, 1), (1, 2), (2, NO_NODE))
        self.assertEqual(states_of(rows, 1), ["replica", "active", "dead"])
        self.assertEqual(states_of(rows, 2), ["dead", "replica", "active"])


class CheckTests(SynchronousTestCase):
    """Layouts that come from outside."""

    def test_faults_are_named(self) -> None:
        """The wrong size, a missing node, a node given twice: each is refused with its position."""
        good = spread(3, 1)
        for vbucket, row, reason in [
            (7, (0,), "vbucket 7: 1 replicas take 2 columns, not 1"),
            (8, (3, 0), "vbucket 8: there is no node 3"),
            (9, (-2, 0), "vbucket 9: there is no node -2"),
            (10, ("0", 1), "vbucket 10: there is no node '0'"),
            (11, (1, 1), "vbucket 11: a node cannot hold two copies"),
        ]:
            rows = [*good[:vbucket], row, *good[vbucket + 1 :]]
            error = self.assertRaises(LayoutError, check_rows, rows, 3, 1)
            self.assertIn(reason, str(error))
        error = self.assertRaises(LayoutError, check_rows, good[1:], 3, 1)
        self.assertIn(f"has {VBUCKETS} rows, this one has {VBUCKETS - 1}", str(error))

    def test_nodes_lead_only_what_they_hold(self) -> None:
        """A replica may be promoted and a vbucket given up; a node without a copy cannot lead."""
        check_move(((0, 1),), ((1, 0),))
        check_move(((0, 1),), ((1, NO_NODE),))
        check_move(((0, NO_NODE),), ((NO_NODE, NO_NODE),))
        check_move(((NO_NODE, NO_NODE),), ((2, NO_NODE),))
        error = self.assertRaises(LayoutError, check_move, ((0, 1),), ((2, 0),))
        self.assertIn("vbucket 0: node 2 holds no copy", str(error))


class ReplicaNumberTests(SynchronousTestCase):
    """Another number of replicas for an existing layout."""

    @given(NODES, REPLICAS, REPLICAS)
    def test_copies_that_stay_do_not_move(self, nodes: int, before: int, after: int) -> None:
        """Leaders and remaining replicas keep their columns; there are as many replicas as nodes allow."""
        old = spread(nodes, before)
        new = check_rows(with_replicas(old, nodes, after), nodes, after)
        check_move(old, new)
        kept = min(before, after) + 1
        self.assertEqual(
            [[i for i in row[:kept] if i != NO_NODE] for row in old],
            [
                [i for i in row[:kept] if i != NO_NODE][: len([j for j in o[:kept] if j != NO_NODE])]
                for row, o in zip(new, old, strict=True)
            ],
        )
        copies = min(after, nodes - 1)
        self.assertEqual({sum(index != NO_NODE for index in row[1:]) for row in new}, {copies})

    def test_new_replicas_are_spread(self) -> None:
        """Replicas added to a layout without any fall on all nodes alike."""
        held = Counter(row[1] for row in with_replicas(spread(3, 0), 3, 1))
        self.assertLessEqual(max(held.values()) - min(held.values()), 2)
