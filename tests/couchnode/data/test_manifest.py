"""Scopes and collections as one value, and its changes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from couchnode.data.manifest import (
    MAX_COLLECTIONS,
    MAX_SCOPES,
    MAX_TTL_SECONDS,
    Manifest,
    ManifestError,
    NoSuchCollection,
    NoSuchScope,
    WantedCollection,
    check_total,
    restored_manifest,
)

DEFAULT = "_default"
NAMES = st.sampled_from(["a", "b", "C-%_", DEFAULT])
TTLS = st.sampled_from([-1, 0, 1, MAX_TTL_SECONDS])


class ManifestTests(SynchronousTestCase):
    """Single changes."""

    def refused(self, text: str, change: Any, *arguments: Any, **keywords: Any) -> None:
        """Check that a change is refused with this text."""
        fault = self.assertRaises(ManifestError, change, *arguments, **keywords)
        self.assertEqual("; ".join(fault.errors.values()), text)

    def test_the_first(self) -> None:
        """A new bucket has the default scope and collection, both of id 0."""
        manifest = Manifest()
        collection = {"name": DEFAULT, "uid": "0"}
        self.assertEqual(
            manifest.kv_document(),
            {"uid": "0", "scopes": [{"name": DEFAULT, "uid": "0", "collections": [collection]}]},
        )
        self.assertEqual(
            manifest.document()["scopes"][0]["collections"], [{**collection, "maxTTL": 0, "history": False}]
        )

    def test_ids_and_uids(self) -> None:
        """Ids begin at 8, scopes and collections apart, and every change counts the manifest up; in documents
        they are hexadecimal, the newest first."""
        manifest = Manifest().with_scope("app")
        for name in ("users", "b", "c"):
            manifest = manifest.with_collection("app", name)
        self.assertEqual((manifest.uid, manifest.scope("app").id), (4, 8))
        app = manifest.document()["scopes"][0]
        self.assertEqual(app["name"], "app")
        self.assertEqual([(one["name"], one["uid"]) for one in app["collections"]],
                         [("c", "a"), ("b", "9"), ("users", "8")])  # fmt: skip
        self.assertEqual(manifest.document()["scopes"][-1]["name"], DEFAULT)

    def test_ids_are_never_used_again(self) -> None:
        """A collection of the name of a dropped one has another id, and so has a scope."""
        first = Manifest().with_scope("s").with_collection("s", "c")
        again = first.without_scope("s").with_scope("s").with_collection("s", "c")
        self.assertEqual((again.scope("s").id, again.collection("s", "c").id), (9, 9))
        restored = restored_manifest(json.loads(json.dumps(again.without_scope("s").dump())))
        self.assertEqual(restored.with_collection(DEFAULT, "c").collection(DEFAULT, "c").id, 10)

    def test_names(self) -> None:
        """1 to 251 characters of a few, the first of fewer."""
        length = "Length ({}) must be in the range from 1 to 251 (inclusive)"
        characters = "Can only contain characters A-Z, a-z, 0-9 and the following symbols _ - %"
        start = "First character must not be _ or %"
        for change in (Manifest().with_scope, lambda name: Manifest().with_collection(DEFAULT, name)):
            for name in ("a", "A", "9", "-", "x" * 251, "a_b%c-d"):
                change(name)
            self.refused(length.format(0), change, "")
            self.refused(length.format(252), change, "x" * 252)
            for name in ("_x", "%x", DEFAULT, "_system"):
                self.refused(start, change, name)
            for name in ("a.b", "a b", "é", "a\n", "a/b", "a:b"):
                self.refused(characters, change, name)

    def test_refusals(self) -> None:
        """The texts by which clients tell what is missing and what exists."""
        manifest = Manifest().with_scope("s").with_collection("s", "c")
        self.refused('Scope with name "s" already exists', manifest.with_scope, "s")
        self.refused(
            'Collection with name "c" in scope "s" already exists', manifest.with_collection, "s", "c"
        )
        self.refused("Deleting _default scope is not allowed", manifest.without_scope, DEFAULT)
        for change in (
            lambda: manifest.without_scope("x"),
            lambda: manifest.with_collection("x", "c"),
            lambda: manifest.without_collection("x", "c"),
            lambda: manifest.with_settings("x", "c", 1),
        ):
            self.assertRaises(NoSuchScope, change)
            self.refused('Scope with name "x" is not found', change)
        for change in (
            lambda: manifest.without_collection("s", "x"),
            lambda: manifest.with_settings("s", "x", 1),
            lambda: manifest.collection("s", "x"),
        ):
            self.assertRaises(NoSuchCollection, change)
            self.refused('Collection with name "x" in scope "s" is not found', change)

    def test_longest_lives(self) -> None:
        """-1 to 2**31 - 1; the key-value form leaves out what the bucket decides and says 0 for never."""
        for wrong in (-2, 2**31):
            for change in (
                lambda ttl: Manifest().with_collection(DEFAULT, "c", ttl),
                lambda ttl: Manifest().with_settings(DEFAULT, DEFAULT, ttl),
            ):
                self.refused("The value must be in range from -1 to 2147483647", change, wrong)
        for ttl, form in ((-1, {"maxTTL": 0}), (0, {}), (7, {"maxTTL": 7})):
            manifest = Manifest().with_collection(DEFAULT, "c", ttl)
            self.assertEqual(
                manifest.kv_document()["scopes"][0]["collections"][0], {"name": "c", "uid": "8", **form}
            )
            self.assertEqual(manifest.document()["scopes"][0]["collections"][0]["maxTTL"], ttl)
            self.assertIs(manifest.with_settings(DEFAULT, "c", ttl), manifest)
        changed = Manifest().with_collection(DEFAULT, "c").with_settings(DEFAULT, "c", 5)
        self.assertEqual((changed.uid, changed.collection(DEFAULT, "c").id), (2, 8))

    def test_history(self) -> None:
        """The wish for history is kept, also on the disk, until it is changed."""
        manifest = Manifest().with_collection(DEFAULT, "c", history=True)
        for one in (manifest, restored_manifest(manifest.dump()), manifest.with_settings(DEFAULT, "c", 5)):
            self.assertTrue(one.collection(DEFAULT, "c").history)
            self.assertTrue(one.document()["scopes"][0]["collections"][0]["history"])
        changed = manifest.with_settings(DEFAULT, "c", history=False)
        self.assertEqual((changed.uid, changed.collection(DEFAULT, "c").history), (2, False))
        wanted = {DEFAULT: [WantedCollection("c"), WantedCollection("d", history=True)]}
        self.assertTrue(all(one.history for one in manifest.replaced(wanted).by_id.values()))

    def test_the_default_collection(self) -> None:
        """It can be dropped, and is then gone for good."""
        manifest = Manifest().without_collection(DEFAULT, DEFAULT)
        self.assertEqual(manifest.by_id, {})
        text = 'Cannot create _default collection in scope "_default". '
        text += "Creation of _default collection is not allowed."
        self.refused(text, manifest.replaced, {DEFAULT: [WantedCollection(DEFAULT)]})

    def test_replaced(self) -> None:
        """What is listed is kept or created, the rest is dropped, in one change; the kept keep their ids."""
        manifest = Manifest().with_scope("s").with_collection("s", "c", 5).with_collection("s", "d")
        same = {DEFAULT: [WantedCollection(DEFAULT)], "s": [WantedCollection("d"), WantedCollection("c")]}
        self.assertIs(manifest.replaced(same), manifest)
        changed = manifest.replaced(
            {"t": [WantedCollection("c", 9)], DEFAULT: [], "s": [WantedCollection("c", 6)]}
        )
        self.assertEqual(changed.uid, manifest.uid + 1)
        self.assertEqual(set(changed.scopes), {DEFAULT, "s", "t"})
        self.assertEqual({one.id: (one.scope, one.name, one.max_ttl) for one in changed.by_id.values()},
                         {8: ("s", "c", 6), 10: ("t", "c", 9)})  # fmt: skip
        self.refused("Deleting _default scope is not allowed", manifest.replaced, {"s": []})
        self.refused("Contains duplicate name", manifest.replaced, {DEFAULT: [WantedCollection("x")] * 2})

    def test_limits(self) -> None:
        """1200 scopes and 1200 collections in all buckets together."""
        many = Manifest()
        for number in range(MAX_SCOPES - 2):
            many = many.with_scope(f"s{number}")
        check_total([many, Manifest()])
        self.refused(
            "Maximum number of scopes has been reached", check_total, [many.with_scope("s"), Manifest()]
        )
        many = Manifest()
        for number in range(MAX_COLLECTIONS - 2):
            many = many.with_collection(DEFAULT, f"c{number}")
        check_total([many, Manifest()])
        self.refused("Maximum number of collections has been reached", check_total,
                     [many, Manifest().with_collection(DEFAULT, "c")])  # fmt: skip

    @given(st.text(max_size=300))
    def test_any_name(self, name: str) -> None:
        """Every text is either a name that works everywhere or is refused with a reason."""
        try:
            manifest = Manifest().with_scope(name).with_collection(name, name)
        except ManifestError as fault:
            self.assertEqual(list(fault.errors), ["name"])
        else:
            self.assertEqual(manifest.collection(name, name).scope, name)


class Changes(RuleBasedStateMachine):
    """Any changes, next to a plain model: the set of (scope, collection), and what was ever given an id."""

    def __init__(self) -> None:
        super().__init__()
        self.manifest = Manifest()
        self.model: dict[str, dict[str, int]] = {DEFAULT: {DEFAULT: 0}}
        self.given: set[tuple[str, int]] = {("collection", 0), ("scope", 0)}

    def change(self, change: Any, works: bool) -> None:
        before = self.manifest
        known = json.dumps(before.dump())
        try:
            self.manifest = change()
        except ManifestError:
            assert not works
        else:
            assert works
            assert self.manifest is before or self.manifest.uid == before.uid + 1
        assert json.dumps(before.dump()) == known
        old = {("collection", one) for one in before.by_id} | {
            ("scope", one.id) for one in before.scopes.values()
        }
        new = {("collection", one) for one in self.manifest.by_id}
        new |= {("scope", one.id) for one in self.manifest.scopes.values()}
        assert not (new - old) & self.given
        self.given |= new

    @rule(name=NAMES)
    def with_scope(self, name: str) -> None:
        works = name not in self.model
        self.change(lambda: self.manifest.with_scope(name), works)
        self.model.setdefault(name, {})

    @rule(name=NAMES)
    def without_scope(self, name: str) -> None:
        works = name in self.model and name != DEFAULT
        self.change(lambda: self.manifest.without_scope(name), works)
        if works:
            del self.model[name]

    @rule(scope=NAMES, name=NAMES, ttl=TTLS)
    def with_collection(self, scope: str, name: str, ttl: int) -> None:
        works = scope in self.model and name not in self.model[scope] and name != DEFAULT
        self.change(lambda: self.manifest.with_collection(scope, name, ttl), works)
        if works:
            self.model[scope][name] = ttl

    @rule(scope=NAMES, name=NAMES)
    def without_collection(self, scope: str, name: str) -> None:
        works = name in self.model.get(scope, {})
        self.change(lambda: self.manifest.without_collection(scope, name), works)
        if works:
            del self.model[scope][name]

    @rule(scope=NAMES, name=NAMES, ttl=TTLS)
    def with_settings(self, scope: str, name: str, ttl: int) -> None:
        works = name in self.model.get(scope, {})
        self.change(lambda: self.manifest.with_settings(scope, name, ttl), works)
        if works:
            self.model[scope][name] = ttl

    @rule(wanted=st.dictionaries(NAMES, st.dictionaries(NAMES, TTLS)))
    def replaced(self, wanted: dict[str, dict[str, int]]) -> None:
        revived = DEFAULT in wanted.get(DEFAULT, {}) and DEFAULT not in self.model[DEFAULT]
        strange = any(
            DEFAULT in names and DEFAULT not in self.model.get(scope, {}) for scope, names in wanted.items()
        )
        works = DEFAULT in wanted and not revived and not strange
        lists = {
            scope: [WantedCollection(*pair) for pair in names.items()] for scope, names in wanted.items()
        }
        self.change(lambda: self.manifest.replaced(lists), works)
        if works:
            self.model = {scope: dict(names) for scope, names in wanted.items()}

    @invariant()
    def is_the_model(self) -> None:
        found = {
            name: {one.name: one.max_ttl for one in scope.collections.values()}
            for name, scope in self.manifest.scopes.items()
        }
        assert found == self.model
        assert all(one.scope_id == self.manifest.scopes[one.scope].id for one in self.manifest.by_id.values())
        again = restored_manifest(json.loads(json.dumps(self.manifest.dump())))
        assert (again.dump(), again.document()) == (self.manifest.dump(), self.manifest.document())


class AnyChanges(SynchronousTestCase):
    """Many changes in a row."""

    def test_against_a_model(self) -> None:
        """Whatever is changed in whatever order, the manifest is the model's, an id is given once, refused
        changes change nothing, and the same comes back from what is kept on the disk."""
        run_state_machine_as_test(Changes)
