"""What tests of a module share: it is made by the first that needs it, and given up after the last one."""

from __future__ import annotations

import atexit
import unittest
from collections.abc import Callable

__all__ = ["after_module"]


def after_module(give_up: Callable[[], object]) -> None:
    """Call this once more tests of the module cannot come: :mod:`tests.tooling.suite` when it has run the
    module, others when the process ends."""
    is_done = False

    def once() -> None:
        nonlocal is_done
        if not is_done:
            is_done = True
            give_up()

    unittest.addModuleCleanup(once)
    atexit.register(once)
