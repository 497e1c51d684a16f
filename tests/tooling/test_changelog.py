"""CHANGELOG.md: one section a version in the form of Keep a Changelog, the first of them for this version."""

from __future__ import annotations

import datetime

from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.version import VERSION
from tests.tooling.release import SECTION
from tests.tooling.sources import ROOT

KINDS = ["Upgrade notes", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
"""Headings of a version, in their order; a version has those that it needs."""


def mistakes(text: str, version: str) -> list[str]:
    """Return what is wrong with a changelog.

    :param version: the one that the sources have.
    """
    wrong: list[str] = []
    found: list[tuple[int, ...]] = []
    kinds: list[str] = []
    heading = ""
    empty = False
    for line in [*text.splitlines(), "## end"]:
        if not line.startswith(("## ", "### ")):
            empty = empty and not line.startswith("- ")
            continue
        if empty:
            wrong.append(f"{heading}: nothing under it")
        level, heading = line.split(" ", 1)
        if level == "###":
            empty = True
            kinds.append(heading)
            continue
        empty = False
        if found and "Upgrade notes" not in kinds:
            wrong.append(f"{found[-1]}: no upgrade notes")
        if kinds != [kind for kind in KINDS if kind in kinds]:
            wrong.append(f"{found[-1]}: {kinds}, expected some of {KINDS}, in this order")
        kinds = []
        section = SECTION.fullmatch(heading)
        if section:
            numbers = tuple(int(part) for part in section.groups()[:3])
            if found and numbers >= found[-1]:
                wrong.append(f"{heading}: not older than the one above")
            if section[4] == "unreleased" and found:
                wrong.append(f"{heading}: only the newest version can be unreleased")
            if section[4] != "unreleased" and not _is_date(section[4]):
                wrong.append(f"{heading}: no date")
            found.append(numbers)
        elif heading != "end":
            wrong.append(f"{heading}: expected as in '0.2.0 - 2027-01-31' or '0.2.0 - unreleased'")
    if not found or ".".join(map(str, found[0])) != version:
        wrong.append(f"the newest section is not that of {version}, the version of the sources")
    return wrong


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


class ChangelogTests(SynchronousTestCase):
    """The file, and the rules."""

    GOOD = (
        "# Changelog\n\n## 0.2.0 - unreleased\n\n### Upgrade notes\n\n- a\n\n### Fixed\n\n"
        "#### Node\n\n- b\n\n"
        "## 0.1.0 - 2026-12-01\n\n### Upgrade notes\n\n- c\n"
    )

    def test_file(self) -> None:
        """The changelog keeps the form, and begins with the version of the sources."""
        self.assertEqual(mistakes((ROOT / "CHANGELOG.md").read_text("utf-8"), VERSION), [])

    def test_rules(self) -> None:
        """Each mistake is found by itself."""
        self.assertEqual(mistakes(self.GOOD, "0.2.0"), [])
        cases = {
            ("0.2.0 -", "0.1.0 -"): "0.1.0 - 2026-12-01: not older than the one above",
            ("0.2.0 - unreleased", "Unreleased"): "Unreleased: expected as in",
            ("2026-12-01", "unreleased"): "0.1.0 - unreleased: only the newest",
            ("2026-12-01", "2026-13-01"): "0.1.0 - 2026-13-01: no date",
            ("### Fixed", "### Repaired"): "(0, 2, 0): ['Upgrade notes', 'Repaired'], expected",
            ("### Upgrade notes\n\n- c", "### Added\n\n- c"): "(0, 1, 0): no upgrade notes",
            ("- b", "b"): "Fixed: nothing under it",
            ("- c", ""): "Upgrade notes: nothing under it",
        }
        for (good, bad), told in cases.items():
            found = mistakes(self.GOOD.replace(good, bad), "0.2.0")
            self.assertTrue(any(line.startswith(told) for line in found), f"{bad}: {found}")
        self.assertEqual(
            mistakes(self.GOOD, "0.3.0"),
            ["the newest section is not that of 0.3.0, the version of the sources"],
        )
