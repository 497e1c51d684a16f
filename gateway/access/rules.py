"""The table of rules: a TOML file that says which callers may do what, and as which cluster account.

Rules only allow. A request is allowed if one of the rules that apply to its caller allows its action in its
place; the first such rule also names the cluster account. So an additional rule never takes a right away, and
never grants more than it says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.access.actions import ACTIONS
from gateway.access.files import ReadFile, read_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "KINDS",
    "Account",
    "Names",
    "Rule",
    "RuleTable",
    "Wildcard",
    "WrongRules",
    "filled",
    "read_rules",
]

KINDS = {
    "user": "name of HTTP Basic",
    "subject": "claim sub of a token",
    "group": "a member of the claim groups of a token",
    "claim": "PATH=VALUE, any claim of a token, such as claim:realm.roles=admin",
    "key": "name of an API key",
    "certificate": "subject or alternative name of a client certificate, such as CN=app or DNS:app.example",
    "anyone": "every caller",
}
"""Kind at the start of an entry of ``who`` -> what follows the kind."""

# These limits bound the time for a new caller: each rule is compared with each fact about the caller.
_MAX_RULES = 500
# More accounts than rules have no use, and the file of each one is looked at every two seconds.
_MAX_ACCOUNTS = 500
_MAX_ENTRIES = 200
_MAX_WILDCARDS = 500
_LARGEST_FILE = 2**23
_LARGEST_PASSWORD_FILE = 2**16
_RULE_MEMBERS = frozenset({"name", "who", "buckets", "scopes", "collections", "allow", "account"})
_ACCOUNT_MEMBERS = frozenset({"user", "password-file"})
_RULE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PLACE = re.compile(r"(?:[A-Za-z0-9_.%*-]|\{[A-Za-z0-9_.:/-]{1,100}\}){1,251}")
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
# A claim's value may replace a name only if it is a valid name: it must not become a pattern.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.%-]{1,251}")


class WrongRules(ValueError):
    """A table of rules is invalid; the text says where and why."""


class Wildcard:
    """A text in which ``*`` stands for any characters, or for none.

    Matching takes linear time; a regular expression with several ``.*`` could block the reactor.
    """

    __slots__ = ("_first", "_last", "_middle", "is_exact")

    def __init__(self, text: str) -> None:
        self.is_exact = "*" not in text
        """Whether the text has no ``*``."""
        parts = text.split("*")
        self._first = parts[0]
        self._last = parts[-1] if len(parts) > 1 else None
        self._middle = parts[1:-1]

    def is_among(self, texts: Collection[str]) -> bool:
        """Return whether it matches one of several texts."""
        return self._first in texts if self.is_exact else any(map(self.matches, texts))

    def matches(self, text: str) -> bool:
        """Return whether it matches a text."""
        last = self._last
        if last is None:
            return text == self._first
        at, end = len(self._first), len(text) - len(last)
        if at > end or not (text.startswith(self._first) and text.endswith(last)):
            return False
        for part in self._middle:
            found = text.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


class Names:
    """The names of buckets, scopes or collections that a rule lists.

    :param patterns: names in which ``*`` stands for any characters.
    """

    __slots__ = ("_exact", "_patterns", "covers_all")

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = list(patterns)
        self.covers_all = "*" in patterns
        """Whether every name matches."""
        self._exact = frozenset(one for one in patterns if "*" not in one)
        self._patterns = [Wildcard(one) for one in patterns if "*" in one]

    def __contains__(self, name: str) -> bool:
        """Return whether a name matches one of the patterns."""
        return (
            self.covers_all or name in self._exact or any(pattern.matches(name) for pattern in self._patterns)
        )


@dataclass(frozen=True)
class Account:
    """A user of the cluster."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Rule:
    """One rule, as written."""

    name: str
    who: tuple[tuple[str, Wildcard], ...]
    """Kinds of facts about a caller, each with a pattern for its value; one of them must match."""
    buckets: tuple[str, ...]
    scopes: tuple[str, ...]
    collections: tuple[str, ...]
    actions: frozenset[str] | None
    """The allowed actions; ``None``: all."""
    account: str | None
    """Name of an account; ``None``: the caller's own, or the service account."""

    def applies_to(self, facts: Mapping[str, Collection[str]]) -> bool:
        """Return whether the rule applies to a caller with these facts: kind -> values."""
        return any(pattern.is_among(facts.get(kind, ())) for kind, pattern in self.who)


@dataclass(frozen=True)
class RuleTable:
    """The content of a rules file."""

    rules: tuple[Rule, ...]
    accounts: Mapping[str, Account]


def filled(patterns: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """Return patterns with placeholders replaced by a caller's values; those without a value are left out."""
    found = []
    for pattern in patterns:
        names = _PLACEHOLDER.findall(pattern)
        if all(_PLAIN_NAME.fullmatch(values.get(name, "")) for name in names):
            found.append(_PLACEHOLDER.sub(lambda match: values[match[1]], pattern))
    return found


# ---- reading -------------------------------------------------------------------------------------


def read_rules(path: str, read: ReadFile = read_file) -> RuleTable:
    """Read a table of rules, and the passwords of its accounts.

    :param read: returns the content of a file.
    :raises WrongRules: the table cannot be read, or is invalid.
    """
    try:
        table = tomllib.loads(read(path, _LARGEST_FILE).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise WrongRules(f"{path}: {error}") from None
    try:
        return _table(table, Path(path).parent, read)
    except WrongRules as wrong:
        raise WrongRules(f"{path}: {wrong}") from None


def _table(table: Mapping[str, Any], folder: Path, read: ReadFile) -> RuleTable:
    unknown = sorted(table.keys() - {"rules", "accounts"})
    if unknown:
        raise WrongRules(f"unknown table {unknown[0]!r}; expected [[rules]] and [accounts.NAME]")
    given = table.get("accounts", {})
    if not isinstance(given, dict):
        raise WrongRules("accounts: expected tables [accounts.NAME]")
    if len(given) > _MAX_ACCOUNTS:
        raise WrongRules(f"accounts: there are {len(given)} accounts; at most {_MAX_ACCOUNTS} are allowed")
    accounts = {name: _account(f"accounts.{name}", row, folder, read) for name, row in given.items()}
    rows = table.get("rules", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise WrongRules("rules: expected tables [[rules]]")
    if len(rows) > _MAX_RULES:
        raise WrongRules(f"rules: there are {len(rows)} rules; at most {_MAX_RULES} are allowed")
    rules = tuple(_rule(row, number, accounts) for number, row in enumerate(rows, 1))
    wildcards = sum(not pattern.is_exact for rule in rules for _, pattern in rule.who)
    if wildcards > _MAX_WILDCARDS:
        raise WrongRules(f"who: {wildcards} entries have a *; at most {_MAX_WILDCARDS} are allowed")
    names = [rule.name for rule in rules]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise WrongRules(f"two rules have the name {twice!r}; a refusal could not say which")
    return RuleTable(rules, accounts)


def _account(where: str, row: Any, folder: Path, read: ReadFile) -> Account:
    if not isinstance(row, dict) or row.keys() != _ACCOUNT_MEMBERS:
        raise WrongRules(f"{where}: expected user and password-file")
    user, file = row["user"], row["password-file"]
    if not isinstance(user, str) or not user or not user.isprintable() or not isinstance(file, str):
        raise WrongRules(f"{where}: expected a user name and the path of a file")
    path = folder / file
    try:
        text = read(path, _LARGEST_PASSWORD_FILE).decode("utf-8-sig")
    except ValueError as error:
        raise WrongRules(f"{where}: password-file: {error}") from None
    password = text.partition("\n")[0].removesuffix("\r")
    if not password or not password.isprintable():
        raise WrongRules(
            f"{where}: the first line of {path} must be the password, without control characters"
        )
    return Account(user, password)


def _rule(row: Mapping[str, Any], number: int, accounts: Mapping[str, Account]) -> Rule:
    name = row.get("name")
    if not isinstance(name, str) or not _RULE_NAME.fullmatch(name):
        raise WrongRules(f"rule {number}: name: expected 1 to 64 letters, digits, and _ . -, found {name!r}")
    where = f"rule {name!r}"
    unknown = sorted(row.keys() - _RULE_MEMBERS)
    if unknown:
        raise WrongRules(
            f"{where}: unknown member {unknown[0]!r}; expected {', '.join(sorted(_RULE_MEMBERS))}"
        )
    who = tuple(_who(entry, where) for entry in _texts(row, "who", where))
    allow = _texts(row, "allow", where)
    wrong = sorted(set(allow) - ACTIONS.keys() - {"*"})
    if wrong:
        raise WrongRules(f"{where}: allow: {wrong[0]!r} is not one of {', '.join(ACTIONS)}, *")
    account = row.get("account")
    if account is not None:
        if not isinstance(account, str) or account not in accounts:
            raise WrongRules(f"{where}: account: there is no [accounts.{account}]")
        if any(kind == "user" for kind, _ in who):
            raise WrongRules(
                f"{where}: account: a caller of user:... sends a password, which the cluster checks for that "
                "user; leave account out"
            )
    return Rule(
        name,
        who,
        _places(row, "buckets", where, None),
        _places(row, "scopes", where, ("*",)),
        _places(row, "collections", where, ("*",)),
        None if "*" in allow else frozenset(allow),
        account,
    )


def _texts(row: Mapping[str, Any], member: str, where: str) -> tuple[str, ...]:
    value = row.get(member)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) and one for one in texts):
        raise WrongRules(f"{where}: {member}: expected a list of strings, with at least one")
    if len(texts) > _MAX_ENTRIES:
        raise WrongRules(f"{where}: {member}: at most {_MAX_ENTRIES} entries are allowed")
    return tuple(texts)


def _places(
    row: Mapping[str, Any], member: str, where: str, default: tuple[str, ...] | None
) -> tuple[str, ...]:
    if member not in row and default is not None:
        return default
    places = _texts(row, member, where)
    for place in places:
        if not _PLACE.fullmatch(place):
            raise WrongRules(
                f"{where}: {member}: {place!r} is not a name; expected letters, digits, _ . % -, with * for "
                "any characters and {claim} for the value of a claim"
            )
    return places


def _who(entry: str, where: str) -> tuple[str, Wildcard]:
    if entry == "anyone":
        return "anyone", Wildcard("*")
    kind, colon, value = entry.partition(":")
    if not colon or kind not in KINDS or kind == "anyone" or not value:
        known = ", ".join(f"{known}:..." for known in KINDS if known != "anyone")
        raise WrongRules(f"{where}: who: {entry!r} is not one of {known}, anyone")
    if kind == "claim" and not re.fullmatch(r"[^=*]+=.+", value, re.DOTALL):
        raise WrongRules(f"{where}: who: {entry!r}: expected claim:PATH=VALUE")
    return kind, Wildcard(value)
