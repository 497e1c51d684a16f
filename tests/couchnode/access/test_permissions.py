"""Permissions: their texts, and how the patterns of a role decide about them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchnode.access.permissions import (
    ALL,
    ANY,
    Pattern,
    Permission,
    PermissionSyntaxError,
    below,
    is_allowed,
    parse_path,
    parse_permission,
)

NAMES = st.text(st.characters(blacklist_characters="[]:", codec="utf-8"), min_size=1, max_size=8)
WORDS = st.sampled_from(["data", "docs", "settings", "views", "pools", "admin"])


def pattern(text: str, *operations: str) -> Pattern:
    """Return a pattern; all operations if none is named."""
    return Pattern(parse_path(text, ANY) if text else (), frozenset(operations) if operations else None)


class TextTests(SynchronousTestCase):
    """The texts of permissions."""

    def test_forms(self) -> None:
        """A bucket, a scope and a collection are one kind of vertex; what a bucket lacks is all of it."""
        for text, expected in {
            "cluster!all": Permission((), "all"),
            "cluster.pools!read": Permission((("pools", ()),), "read"),
            "cluster.bucket[b]!flush": Permission((("collection", ("b", ALL, ALL)),), "flush"),
            "cluster.bucket[a.b-%c].data.docs!read": Permission(
                (("collection", ("a.b-%c", ALL, ALL)), ("data", ()), ("docs", ())), "read"
            ),
            "cluster.scope[b:s].collections!write": Permission(
                (("collection", ("b", "s", ALL)), ("collections", ())), "write"
            ),
            "cluster.collection[b:s:c].data!read": Permission(
                (("collection", ("b", "s", "c")), ("data", ())), "read"
            ),
            "cluster.bucket[.].settings!read": Permission(
                (("collection", (ANY, ALL, ALL)), ("settings", ())), "read"
            ),
        }.items():
            self.assertEqual(parse_permission(text), expected, text)

    def test_malformed(self) -> None:
        """Anything else is refused, with the text."""
        for text in (
            "",
            "cluster",
            "pools!read",
            "cluster.!read",
            "cluster.pools",
            "cluster.pools!",
            "cluster.pools!re ad",
            "cluster.pools[x]!read",
            "cluster.bucket!read",
            "cluster.bucket[]!read",
            "cluster.bucket[a:b]!read",
            "cluster.scope[b]!read",
            "cluster.collection[b:s]!read",
            "cluster.collection[b::c]!read",
            "cluster.bucket[b!read",
            "cluster.bucket[b]x!read",
            "cluster..pools!read",
            "cluster." + "a" * 3000 + "!read",
        ):
            error = self.assertRaises(PermissionSyntaxError, parse_permission, text)
            self.assertIsInstance(error, ValueError)

    @given(st.text(max_size=60) | st.text("clusterbket[].:!*ad", max_size=40).map("cluster.{}".format))
    def test_any_text(self, text: str) -> None:
        """Every text is a permission or refused; nothing else happens."""
        try:
            parse_permission(text)
        except PermissionSyntaxError:
            pass

    @given(NAMES, NAMES, NAMES, WORDS)
    def test_below(self, bucket: str, scope: str, collection: str, word: str) -> None:
        """A permission built from names equals the parsed one, if the names can be written."""
        made = below(f"{word}!read", bucket, scope, collection)
        self.assertEqual(
            made, parse_permission(f"cluster.collection[{bucket}:{scope}:{collection}].{word}!read")
        )

    def test_below_takes_any_name(self) -> None:
        """A bucket's name from a path may hold what no text of a permission can."""
        self.assertFalse(is_allowed(below("!flush", "a]:["), (pattern("bucket[b]"),)))
        self.assertTrue(is_allowed(below("!flush", "a]:["), (pattern("bucket[.]"),)))


class DecisionTests(SynchronousTestCase):
    """Which pattern decides."""

    def test_first_pattern_decides(self) -> None:
        """A pattern covers its object and everything below; the first that covers decides."""
        patterns = (pattern("bucket[b].data", "none"), pattern("bucket[b]"), pattern("", "read"))
        for text, expected in {
            "cluster.bucket[b].settings!write": True,
            "cluster.bucket[b].data.docs!read": False,
            "cluster.bucket[b].data.docs!none": True,
            "cluster.collection[b:s:c].data!read": False,
            "cluster.bucket[other].data.docs!read": True,
            "cluster.bucket[other].data.docs!write": False,
            "cluster.pools!read": True,
            "cluster!read": True,
            "cluster!write": False,
        }.items():
            self.assertIs(is_allowed(parse_permission(text), patterns), expected, text)
        self.assertFalse(is_allowed(parse_permission("cluster.pools!read"), ()))

    def test_any_and_all(self) -> None:
        """To have a right on any bucket, one is enough; on all buckets, only a pattern for each will do."""
        one, each = (pattern("bucket[b].data", "read"),), (pattern("bucket[.].data", "read"),)
        for text, of_one, of_each in [
            ("cluster.bucket[b].data!read", True, True),
            ("cluster.bucket[c].data!read", False, True),
            ("cluster.bucket[.].data!read", True, True),
            ("cluster.bucket[*].data!read", False, True),
        ]:
            permission = parse_permission(text)
            self.assertEqual((is_allowed(permission, one), is_allowed(permission, each)), (of_one, of_each))

    def test_parts_of_a_bucket(self) -> None:
        """A right on a bucket is one on its parts; a right on a part is none on the bucket."""
        whole, part = (pattern("bucket[b].data", "read"),), (pattern("collection[b:s:c].data", "read"),)
        for text, of_whole, of_part in [
            ("cluster.bucket[b].data!read", True, False),
            ("cluster.scope[b:s].data!read", True, False),
            ("cluster.collection[b:s:c].data!read", True, True),
            ("cluster.collection[b:s:d].data!read", True, False),
            ("cluster.collection[b:.:.].data!read", True, True),
        ]:
            permission = parse_permission(text)
            self.assertEqual(
                (is_allowed(permission, whole), is_allowed(permission, part)), (of_whole, of_part)
            )

    def test_any_operation(self) -> None:
        """``any`` asks for any operation."""
        asked = parse_permission("cluster.pools!any")
        self.assertTrue(is_allowed(asked, (pattern("pools", "read"),)))
        self.assertFalse(is_allowed(asked, (Pattern(parse_path("pools", ANY), frozenset()),)))
