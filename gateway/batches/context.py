"""What the batches of a gateway share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gateway.batches.forms import Forms
from gateway.cluster.credentials import LineCheck
from gateway.fairness.steps import StepRunner
from gateway.http.limits import Budget
from gateway.limits import Limits

__all__ = ["BatchContext", "CountOperation"]

CountOperation = Callable[[str, str, int], None]
"""Counts operations: takes the operation's name, "ok" or an error's code, and the number."""


class BatchContext(NamedTuple):
    """What all batches of a gateway share; only the last attribute differs."""

    clock: IReactorTime
    now: Callable[[], float]
    """Returns the Unix time in seconds."""
    limits: Limits
    budget: Budget
    """The memory of all requests."""
    steps: StepRunner
    """Processes long texts."""
    count_operation: CountOperation
    log_bug: Callable[[Failure], None]
    forms: Forms
    """The known forms of lines."""
    line_check: LineCheck | None = None
