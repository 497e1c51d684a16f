"""Colors and protection of pages."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import gateway
from gateway.pages.shared import COLORS, POLICY, protection

SHEETS = sorted(Path(gateway.__file__).parent.glob("*/**/*.css"))


class ColorTests(SynchronousTestCase):
    """Every color has a name, and is written down once."""

    def test_once(self) -> None:
        """Only the shared sheet has colors by value; the others use names that it defines."""
        defined = set(re.findall(r"^  (--[a-z0-9-]+):", COLORS.read_text(), re.MULTILINE))
        others = [sheet for sheet in SHEETS if sheet != COLORS]
        self.assertGreater(len(others), 1)
        for sheet in others:
            text = sheet.read_text()
            self.assertEqual(re.findall(r"#[0-9a-f]{3,8}\b(?=[^{}]*;)", text), [], sheet.name)
            own = set(re.findall(r"(--[a-z0-9-]+):", text))
            self.assertEqual(set(re.findall(r"var\((--[a-z0-9-]+)", text)) - defined - own, set(), sheet.name)

    def test_all_are_used(self) -> None:
        """No name is left that no page uses."""
        used = set(re.findall(r"var\((--[a-z0-9-]+)", "".join(sheet.read_text() for sheet in SHEETS)))
        defined = set(re.findall(r"^  (--[a-z0-9-]+):", COLORS.read_text(), re.MULTILINE))
        self.assertEqual(defined - used, set())


class ProtectionTests(SynchronousTestCase):
    """The headers that protect pages."""

    def test_policy(self) -> None:
        """It permits nothing by default, and nothing inline."""
        self.assertTrue(POLICY.startswith("default-src 'none'; "))
        self.assertNotIn("unsafe", POLICY)

    def test_headers(self) -> None:
        """The policy and the page's own referrer are among them."""
        headers = dict(protection(b"no-referrer"))
        self.assertEqual(headers[b"Content-Security-Policy"], POLICY.encode())
        self.assertEqual(headers[b"Referrer-Policy"], b"no-referrer")
        self.assertEqual(headers[b"X-Frame-Options"], b"DENY")
