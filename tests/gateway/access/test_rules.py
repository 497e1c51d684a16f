"""The table of rules: what it may say, and what it allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis.strategies import (
    SearchStrategy,
    booleans,
    builds,
    dictionaries,
    frozensets,
    just,
    lists,
    none,
    one_of,
    sampled_from,
    text,
    tuples,
)
from twisted.trial.unittest import SynchronousTestCase

from gateway.access.actions import ACTIONS, ENDPOINTS, OPERATION_ACTIONS, PUBLIC, Extent, Need
from gateway.access.rights import Denied, Identity, Rights
from gateway.access.rules import Names, Rule, RuleTable, Wildcard, WrongRules, read_rules
from gateway.app import Gateway
from gateway.http.endpoints import Endpoint
from gateway.operations.table import OPERATIONS
from gateway.server import plugins_for
from gateway.settings import resolve
from tests.gateway.support import Site

TABLE = """
[accounts.app]
user = "app"
password-file = "app.password"

[[rules]]
name = "orders"
who = ["group:sales", "key:report"]
buckets = ["shop"]
scopes = ["sales"]
collections = ["orders", "order-*"]
allow = ["read", "list"]
account = "app"

[[rules]]
name = "own"
who = "subject:*"
buckets = "shop"
scopes = "users"
collections = "user-{sub}"
allow = "*"
"""


class FileTests(SynchronousTestCase):
    """Reading the file."""

    def read(self, text_of_it: str, password: str = "secret\n") -> RuleTable:
        """Read a table with a file of a password beside it."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "app.password").write_text(password, encoding="utf-8")
        path = folder / "rules.toml"
        path.write_text(text_of_it, encoding="utf-8")
        return read_rules(str(path))

    def test_everything(self) -> None:
        """Members have their values and defaults; the password is nowhere shown."""
        table = self.read(TABLE)
        orders, own = table.rules
        self.assertEqual((orders.name, orders.account, orders.actions), ("orders", "app", {"read", "list"}))
        self.assertEqual((own.actions, own.account, own.collections), (None, None, ("user-{sub}",)))
        self.assertEqual((table.accounts["app"].user, table.accounts["app"].password), ("app", "secret"))
        self.assertNotIn("secret", repr(table))
        self.assertEqual(self.read("").rules, ())
        self.assertEqual(self.read("\ufeff" + TABLE).accounts, table.accounts)

    def test_mistakes(self) -> None:
        """Each is refused with the rule, the member and what was expected."""
        start = '[[rules]]\nname = "r"\n'
        good = start + 'who = "anyone"\nbuckets = "b"\nallow = "read"\n'
        self.assertEqual(len(self.read(good).rules), 1)
        for wrong, words in (
            ("[[rules]", "rules.toml"),
            ("[rules]", "expected tables [[rules]]"),
            ("[other]", "unknown table 'other'"),
            ("rules = [1]", "expected tables [[rules]]"),
            ("accounts = 1", "expected tables [accounts.NAME]"),
            (
                "".join(f"[accounts.a{n}]\nuser = 'a'\npassword-file = 'app.password'\n" for n in range(501)),
                "accounts: there are 501 accounts; at most 500 are allowed",
            ),
            ("[[rules]]\nwho = 'anyone'", "rule 1: name"),
            ("[[rules]]\nname = 'two words'", "rule 1: name"),
            (start + "buckets = 'b'\nallow = 'read'", "rule 'r': who: expected a list"),
            (good + "deny = 'write'", "unknown member 'deny'"),
            (good.replace('"anyone"', "[]"), "who: expected a list of strings, with at least one"),
            (good.replace('"anyone"', '["group"]'), "who: 'group' is not one of"),
            (good.replace('"anyone"', '"role:x"'), "who: 'role:x' is not one of"),
            (good.replace('"anyone"', '"anyone:x"'), "who: 'anyone:x' is not one of"),
            (good.replace('"anyone"', '"subject:"'), "who: 'subject:' is not one of"),
            (good.replace('"anyone"', '"claim:role"'), "expected claim:PATH=VALUE"),
            (good.replace('"anyone"', '"claim:*=x"'), "expected claim:PATH=VALUE"),
            (good.replace('"read"', '"READ"'), "allow: 'READ' is not one of read, write"),
            (good.replace('"read"', "[]"), "allow: expected a list"),
            (good.replace('buckets = "b"\n', ""), "buckets: expected a list"),
            (good.replace('"b"', '"a/b"'), "buckets: 'a/b' is not a name"),
            (good.replace('"b"', '"{a"'), "buckets: '{a' is not a name"),
            (good + "scopes = []", "scopes: expected a list"),
            (good + "collections = ''", "collections: expected a list"),
            (good + "account = 'x'", "there is no [accounts.x]"),
            (good + "account = []", "there is no [accounts.[]]"),
            (good + "account = {}", "there is no [accounts.{}]"),
            ("[accounts.x]\nuser = 'x'\npassword-file = \"\\u0000\"", "accounts.x: password-file"),
            ("[accounts.x]\nuser = 'x'\npassword-file = '.'", "accounts.x: password-file"),
            (good + good, "two rules have the name 'r'"),
            ("[accounts.x]\nuser = 'x'", "accounts.x: expected user and password-file"),
            ("[accounts.x]\nuser = 'x'\npassword-file = 'none'", "accounts.x: password-file"),
            (
                TABLE.replace('"key:report"', '"user:ann"'),
                "rule 'orders': account: a caller of user:... sends a password",
            ),
        ):
            error = self.assertRaises(WrongRules, self.read, wrong)
            self.assertIn(words, str(error), wrong)
        for password in ("", "\nsecret", "a\tb"):
            self.assertIn(
                "must be the password", str(self.assertRaises(WrongRules, self.read, TABLE, password))
            )


def wildcards() -> SearchStrategy[str]:
    """Return patterns and names over a small alphabet."""
    return text(alphabet="ab*", max_size=8)


class NameTests(SynchronousTestCase):
    """Patterns of names."""

    @given(wildcards(), text(alphabet="ab", max_size=8))
    def test_wildcards(self, pattern: str, name: str) -> None:
        """As a search that tries all ways of cutting the name."""

        def matches(rest: str, left: str) -> bool:
            if not rest:
                return not left
            if rest[0] == "*":
                return any(matches(rest[1:], left[at:]) for at in range(len(left) + 1))
            return left[:1] == rest[0] and matches(rest[1:], left[1:])

        self.assertEqual(Wildcard(pattern).matches(name), matches(pattern, name))
        if "*" not in name:
            self.assertEqual(name in Names([pattern]), matches(pattern, name))

    def test_long_text(self) -> None:
        """Many wildcards on a long text take no time that anyone could notice: one pass for each."""
        self.assertFalse(Wildcard("*a" * 60 + "*b").matches("a" * 100_000))


# ---- what rules allow ----------------------------------------------------------------------------

NAMES = ("a", "b", "ab", "*", "a*", "{sub}", "x{sub}", "{none}", "_default")
SUBJECTS = ("a", "b", "*", "a*", "", "../a", "a\n", "{sub}")
PLACES = ("a", "b", "ab", "xa", "_default", "*", "")


def rules() -> SearchStrategy[Rule]:
    """Return rules over few names."""
    places = lists(sampled_from(NAMES), min_size=1, max_size=2).map(tuple)
    kinds = (("anyone", "*"), ("subject", "a"), ("subject", "*"), ("group", "g"), ("key", "a"))
    entries = sampled_from([(kind, Wildcard(value)) for kind, value in kinds])
    who = lists(entries, min_size=1, max_size=2).map(tuple)
    return builds(
        Rule,
        name=text(alphabet="rst", min_size=1, max_size=3),
        who=who,
        buckets=places,
        scopes=places,
        collections=places,
        actions=one_of(none(), frozensets(sampled_from(["read", "write", "lock"]), min_size=1)),
        account=sampled_from([None, "x"]),
    )


def identities() -> SearchStrategy[Identity]:
    """Return callers whose claims are hostile."""
    return builds(
        lambda subject, in_group: Identity(
            "token",
            subject,
            frozenset({("subject", subject), *([("group", "g")] if in_group else [])}),
            {"sub": subject, "name": subject},
        ),
        sampled_from(SUBJECTS),
        booleans(),
    )


needs = builds(
    Need,
    frozensets(sampled_from(["read", "write", "lock", "other"]), min_size=1, max_size=2),
    sampled_from(Extent),
)
places = tuples(*[sampled_from(PLACES)] * 3)


def allowed(table: list[Rule], identity: Identity, need: Need, place: tuple[str, str, str]) -> bool:
    """Return whether a table allows something."""
    try:
        Rights(RuleTable(tuple(table), {}), identity).rule_for(need, *place)
    except Denied:
        return False
    return True


class RightsTests(SynchronousTestCase):
    """What the rules together allow."""

    @given(lists(rules(), max_size=3), rules(), identities(), needs, places)
    def test_a_further_rule(
        self, table: list[Rule], further: Rule, identity: Identity, need: Need, place: tuple[str, str, str]
    ) -> None:
        """It takes nothing away, and gives exactly what it alone would allow, wherever it stands."""
        before = allowed(table, identity, need, place)
        alone = allowed([further], identity, need, place)
        for at in range(len(table) + 1):
            after = allowed([*table[:at], further, *table[at:]], identity, need, place)
            self.assertEqual(after, before or alone)

    @given(rules(), identities(), needs, places)
    def test_wider_extents(
        self, rule: Rule, identity: Identity, need: Need, place: tuple[str, str, str]
    ) -> None:
        """Whoever may do something with all of a bucket may do it with each collection, and so on down."""
        order = (Extent.CLUSTER, Extent.BUCKET, Extent.SCOPE, Extent.COLLECTION, Extent.PART_OF_SCOPE,
                 Extent.PART_OF_BUCKET, Extent.ANYTHING)  # fmt: skip
        seen = [allowed([rule], identity, need._replace(extent=extent), place) for extent in order]
        self.assertEqual(seen, sorted(seen), (rule, identity, place))

    @given(rules(), identities(), needs, places)
    def test_claims_are_no_patterns(
        self, rule: Rule, identity: Identity, need: Need, place: tuple[str, str, str]
    ) -> None:
        """A claim stands for itself only: a rule with it allows no more than the rule with the plain name."""
        subject = identity.values["sub"]
        plain = rule
        for member in ("buckets", "scopes", "collections"):
            names = [name.replace("{sub}", subject) for name in getattr(rule, member) if "{none}" not in name]
            plain = plain.__class__(**{**vars(plain), member: tuple(names)})
        if subject in ("a", "b"):
            expected = allowed([plain], identity, need, place)
            self.assertEqual(allowed([rule], identity, need, place), expected)
            return
        without = {
            member: tuple(name for name in getattr(rule, member) if "{" not in name)
            for member in ("buckets", "scopes", "collections")
        }
        expected = allowed([Rule(**{**vars(rule), **without})], identity, need, place)
        self.assertEqual(allowed([rule], identity, need, place), expected)

    @given(dictionaries(just("sub"), text(max_size=5)), text(max_size=5))
    def test_any_claim(self, values: dict[str, str], name: str) -> None:
        """Whatever a claim says, the rule covers at most the name that is equal to it."""
        rule = Rule("r", (("anyone", Wildcard("*")),), ("{sub}",), ("*",), ("*",), None, None)
        identity = Identity("token", "x", frozenset(), values)
        if allowed([rule], identity, Need(frozenset({"read"}), Extent.COLLECTION), (name, "s", "c")):
            self.assertEqual(values.get("sub"), name)

    def test_refusals(self) -> None:
        """They name the rule that comes nearest, and none that does not apply to the caller."""
        everyone = (("anyone", Wildcard("*")),)
        table = [
            Rule("other", (("key", Wildcard("k")),), ("b",), ("*",), ("*",), None, None),
            Rule("elsewhere", everyone, ("a",), ("*",), ("*",), None, None),
            Rule("bucket", everyone, ("b",), ("s",), ("*",), None, None),
            Rule("place", everyone, ("b",), ("t",), ("c",), frozenset({"read"}), None),
        ]
        identity = Identity("token", "x")
        for place, action, expected in (
            (("c", "s", "c"), "read", "elsewhere"),
            (("b", "u", "c"), "read", "bucket"),
            (("b", "t", "c"), "write", "place"),
        ):
            rights = Rights(RuleTable(tuple(table), {}), identity)
            need = Need(frozenset({action}), Extent.COLLECTION)
            denied = self.assertRaises(Denied, rights.rule_for, need, *place)
            self.assertEqual((denied.rule, denied.action), (expected, action))
        stranger = Rights(RuleTable((table[0],), {}), identity)
        need = Need(frozenset({"read"}), Extent.COLLECTION)
        self.assertIsNone(self.assertRaises(Denied, stranger.rule_for, need, "b", "s", "c").rule)

    def test_first_account(self) -> None:
        """The first rule that allows names the account; a batch keeps to rules of its account."""
        everyone = (("anyone", Wildcard("*")),)
        reads = Rule("reads", everyone, ("b",), ("*",), ("*",), frozenset({"read"}), "reader")
        writes = Rule("writes", everyone, ("b",), ("*",), ("*",), frozenset({"write"}), "writer")
        for order, account in (((reads, writes), "reader"), ((writes, reads), "writer")):
            rights = Rights(RuleTable(order, {}), Identity("token", "x"))
            need = Need(frozenset({"read", "write", "lock"}), Extent.PART_OF_BUCKET)
            self.assertEqual(rights.rule_for(need, "b").account, account)
            actions = {"reader": ("read", "write"), "writer": ("write", "read")}[account]
            self.assertIsNone(rights.line_denied(actions[0], "b", ("s", "c"), account))
            self.assertIsInstance(rights.line_denied(actions[1], "b", ("s", "c"), account), Denied)


class ClassTests(SynchronousTestCase):
    """Everything that a client can ask for has its class."""

    def endpoints(self) -> set[Endpoint]:
        """Return all endpoints of a gateway with all plugins that come with it."""
        plugins = plugins_for(resolve({"ephemeral": True}, {}))
        site = Site(plugins=plugins)
        assert isinstance(site.gateway, Gateway)
        served: list[Any] = [getattr(view, "served", None) for view in site.gateway.app.endpoints.values()]
        return {one[0] for one in served if one is not None}

    def test_endpoints(self) -> None:
        """Each is in exactly one table: a new one needs a decision about who may use it."""
        names = {one.name for one in self.endpoints()}
        self.assertEqual(names - ENDPOINTS.keys() - PUBLIC, set(), "add these to gateway/access/actions.py")
        self.assertEqual(ENDPOINTS.keys() & PUBLIC, set())
        self.assertEqual((ENDPOINTS.keys() | PUBLIC) - names, set(), "these do not exist")

    def test_extents(self) -> None:
        """Whoever names a bucket is checked for it; nothing smaller is checked than the path names."""
        for one in self.endpoints():
            if one.name in PUBLIC:
                continue
            need = ENDPOINTS[one.name]
            has_bucket = all("<bucket>" in path for path in one.paths)
            self.assertEqual(has_bucket, need.extent not in (Extent.ANYTHING, Extent.CLUSTER), one.name)
            if need.extent is Extent.COLLECTION and any("<scope>" in path for path in one.paths):
                self.assertTrue(all("<collection>" in path for path in one.paths if "<scope>" in path))

    def test_operations(self) -> None:
        """Each operation of a batch has an action, and each action a meaning."""
        self.assertEqual(OPERATION_ACTIONS.keys(), OPERATIONS.keys())
        self.assertLessEqual(set(OPERATION_ACTIONS.values()), ACTIONS.keys())
        used = {action for need in ENDPOINTS.values() for action in need.actions}
        of_services = {"query", "search", "analytics", "admin"}
        self.assertLessEqual(ACTIONS.keys() - of_services, used | set(OPERATION_ACTIONS.values()))

    def test_reads_change_nothing(self) -> None:
        """What a batch counts as reading, and only that, has the action ``read``, ``lock`` aside."""
        for name, kind in OPERATIONS.items():
            if kind.has_value or name in ("delete", "touch", "incr", "decr", "mutate_in"):
                self.assertEqual(OPERATION_ACTIONS[name], "write", name)
