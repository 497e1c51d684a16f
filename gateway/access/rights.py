"""The rights of a caller: the rules that apply to it, and what they allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gateway.access.actions import Extent, Need
from gateway.access.rules import Names, Rule, RuleTable, filled

__all__ = ["Bound", "Denied", "Identity", "Rights"]


class Identity(NamedTuple):
    """A caller's identity, as far as the gateway itself could find it out."""

    kind: str
    """How the caller was identified: ``user``, ``token``, ``key``, ``certificate``, or ``anyone``."""
    name: str
    """The caller's name in logs; unique among callers of one kind."""
    facts: frozenset[tuple[str, str]] = frozenset()
    """Pairs of kind and value, as ``who`` in a rule names them; see :data:`gateway.access.rules.KINDS`."""
    values: Mapping[str, str] = {}  # never changed
    """Claim -> the name that replaces ``{claim}`` in the places of rules."""


class Denied(Exception):
    """No rule allows an action.

    :param rule: the rule that comes nearest to allowing it; ``None`` if none applies to the caller.
    :param action: the action of the request.
    """

    def __init__(self, rule: str | None, action: str) -> None:
        self.rule = rule
        self.action = action
        super().__init__(rule, action)


class Bound:
    """A rule applied to one caller: the caller's claims are filled into the places."""

    __slots__ = ("_buckets", "_collections", "_scopes", "account", "actions", "name")

    def __init__(self, rule: Rule, values: Mapping[str, str]) -> None:
        self.name = rule.name
        self.account = rule.account
        self.actions = rule.actions
        self._buckets = Names(filled(rule.buckets, values))
        self._scopes = Names(filled(rule.scopes, values))
        self._collections = Names(filled(rule.collections, values))

    def allows(self, actions: Iterable[str]) -> bool:
        """Return whether the rule allows one of these actions."""
        return self.actions is None or not self.actions.isdisjoint(actions)

    def has_bucket(self, bucket: str) -> bool:
        """Return whether the rule covers anything in a bucket."""
        return bucket in self._buckets

    def covers(self, extent: Extent, bucket: str, scope: str, collection: str) -> bool:
        """Return whether the rule covers a place; :class:`Extent` says which names count."""
        if extent is Extent.ANYTHING:
            return True
        scopes, collections = self._scopes, self._collections
        if extent is Extent.CLUSTER:
            return self._buckets.covers_all and scopes.covers_all and collections.covers_all
        if bucket not in self._buckets:
            return False
        if extent is Extent.PART_OF_BUCKET:
            return True
        if extent is Extent.BUCKET:
            return scopes.covers_all and collections.covers_all
        if scope not in scopes:
            return False
        if extent is Extent.PART_OF_SCOPE:
            return True
        return collections.covers_all if extent is Extent.SCOPE else collection in collections


class Rights:
    """The rules that apply to one caller.

    :param own_only: whether the caller has an account of its own, so that rules with another do not apply.
    """

    def __init__(self, table: RuleTable, identity: Identity, *, own_only: bool = False) -> None:
        facts: dict[str, set[str]] = {"anyone": {""}}
        for kind, value in identity.facts:
            facts.setdefault(kind, set()).add(value)
        self.rules = tuple(
            Bound(rule, identity.values)
            for rule in table.rules
            if rule.applies_to(facts) and not (own_only and rule.account is not None)
        )

    def rule_for(
        self, need: Need, bucket: str = "", scope: str = "_default", collection: str = "_default"
    ) -> Bound:
        """Return the first rule that allows something in a place.

        :raises Denied: there is none.
        """
        actions, extent = need
        nearest: Bound | None = None
        closest = (False, False, False)
        for rule in self.rules:
            covers, allows = rule.covers(extent, bucket, scope, collection), rule.allows(actions)
            if covers and allows:
                return rule
            close = (covers, rule.has_bucket(bucket), allows)
            if nearest is None or close > closest:
                nearest, closest = rule, close
        raise Denied(None if nearest is None else nearest.name, " or ".join(sorted(actions)))

    def is_total(self, bucket: str, account: str | None) -> bool:
        """Return whether a rule of an account allows everything in a bucket, so that nothing else is
        checked."""
        return any(
            rule.actions is None and rule.account == account and rule.covers(Extent.BUCKET, bucket, "", "")
            for rule in self.rules
        )

    def line_denied(
        self, action: str, bucket: str, place: tuple[str, str], account: str | None
    ) -> Denied | None:
        """Check one operation of a batch that runs as an account.

        :param place: scope and collection.
        :returns: ``None`` if a rule with that account allows it.
        """
        own = Rights.__new__(Rights)
        own.rules = tuple(rule for rule in self.rules if rule.account == account)
        try:
            own.rule_for(Need(frozenset((action,)), Extent.COLLECTION), bucket, *place)
        except Denied as denied:
            return denied
        return None

    def shows(self, bucket: str, scope: str | None = None, collection: str | None = None) -> bool:
        """Return whether a list may show a bucket, a scope of it, or a collection: some rule covers it, or a
        part of it."""
        extent = Extent.PART_OF_BUCKET
        if scope is not None:
            extent = Extent.PART_OF_SCOPE if collection is None else Extent.COLLECTION
        return any(rule.covers(extent, bucket, scope or "", collection or "") for rule in self.rules)
