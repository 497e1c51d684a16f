"""pyright on the SDK's sample programs, as :mod:`tests.judges.test_mypy` has mypy on them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.typing.checking import Findings, missing_pyright, pyright_findings
from tests.typing.test_programs import ProgramChecks


class PyrightTests(ProgramChecks, SynchronousTestCase):
    """pyright in its strict mode."""

    skip = missing_pyright()
    checker = "pyright"

    def findings(self) -> Findings:
        """Return what pyright says."""
        return pyright_findings()
