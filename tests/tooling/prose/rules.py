"""The rules in ``House/*.yml``, as Vale defines them: substitutions, words that exist, and counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.tooling.prose.texts import CODE

__all__ = ["FOLDER", "Finding", "Rule", "rules", "sentences"]

FOLDER = Path(__file__).parent

# A sentence may begin with code, for which texts.CODE stands.
_END = re.compile(rf"(?<=[.!?;])\s+(?=[A-Z\"({CODE}])")


class Finding(NamedTuple):
    """A place of a text that breaks a rule."""

    rule: str
    message: str
    text: str
    """What was found."""


class Rule:
    """One rule.

    :param name: that of its file.
    :param made: the file's content.
    """

    def __init__(self, name: str, made: dict[str, Any]) -> None:
        self.name = name
        self._message: str = made["message"]
        self._limit: int | None = made.get("max")
        flags = re.IGNORECASE if made.get("ignorecase") else 0
        if made["extends"] == "substitution":
            self._patterns = [(re.compile(bad, flags), good) for bad, good in made["swap"].items()]
        else:
            tokens = [made["token"]] if "token" in made else made["tokens"]
            self._patterns = [(re.compile(token, flags), "") for token in tokens]

    def find(self, text: str) -> Iterator[Finding]:
        """Yield the places of a paragraph, in which code was replaced by a mark, that break the rule."""
        if self._limit is not None:
            for sentence in sentences(text):
                if len(self._patterns[0][0].findall(sentence)) > self._limit:
                    yield Finding(self.name, self._message, sentence)
            return
        for pattern, good in self._patterns:
            for match in pattern.finditer(text):
                values = (good, match[0]) if good else (match[0],)
                yield Finding(self.name, self._message % values, match[0])


def rules() -> list[Rule]:
    """Return all rules, in the order of their names."""
    return [
        Rule(path.stem, yaml.safe_load(path.read_text(encoding="utf-8")))
        for path in sorted((FOLDER / "House").glob("*.yml"))
    ]


def sentences(text: str) -> list[str]:
    """Return the sentences of a paragraph."""
    return _END.split(text)
