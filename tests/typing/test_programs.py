"""The programs of this folder, for type checkers: what they must find in them.

:mod:`tests.judges.test_mypy` asks mypy, :mod:`tests.judges.test_pyright` asks pyright.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.typing.checking import FACES, FOLDER, Findings, marked, programs


class ProgramChecks:
    """Expected messages about the programs, for every type checker."""

    checker: str
    maxDiff = None

    def findings(self) -> Findings:
        """Return what it says."""
        raise NotImplementedError

    def test_programs(self) -> None:
        """It finds nothing in right programs, and each mistake in the wrong ones, by its code and line."""
        findings = self.findings()
        expected = {path.name: marked(path, self.checker) for path in programs()}
        found = {name: findings.get(name, {}) for name in expected}
        for name in expected:
            self.assertEqual(found[name], expected[name], name)  # type: ignore[attr-defined]
        self.assertEqual(set(findings) - set(expected), set())  # type: ignore[attr-defined]


class MarkTests(SynchronousTestCase):
    """The marks in the programs."""

    def test_each_face_has_mistakes(self) -> None:
        """Each face has at least twenty mistakes to be found, for both checkers."""
        for face in FACES:
            for checker in ("mypy", "pyright"):
                self.assertGreaterEqual(len(marked(FOLDER / f"{face}_mistakes.py", checker)), 20)

    def test_a_mark_that_is_not_understood(self) -> None:
        """It is refused, not overlooked."""
        path = Path(self.mktemp())
        path.write_text("x = 1  # wrong: arg-type\n", encoding="utf-8")
        self.assertIn("1: a mark", str(self.assertRaises(ValueError, marked, path, "mypy")))
