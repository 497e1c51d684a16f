"""mypy on the SDK's sample programs, as a user of the SDK runs it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.typing.checking import Findings, missing_mypy, mypy_findings
from tests.typing.test_programs import ProgramChecks


class MypyTests(ProgramChecks, SynchronousTestCase):
    """``mypy --strict``."""

    skip = missing_mypy()
    checker = "mypy"

    def findings(self) -> Findings:
        """Return what mypy says."""
        return mypy_findings()
