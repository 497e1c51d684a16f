"""An authorizer with rules, without files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from gateway.access.gatekeeper import Charge, Gatekeeper
from gateway.access.rules import RuleTable
from gateway.access.ways import Anyone, BasicWords, Way
from gateway.cluster.credentials import CallerCredentials, Passthrough
from tests.gateway.support import SECRET


def ruled(
    table: RuleTable,
    ways: Iterable[Way] = (),
    *,
    basic: bool = False,
    charge: Charge | None = None,
    now: Callable[[], float] = lambda: 0.0,
    confirm: Callable[[CallerCredentials], Deferred[Any]] = succeed,
) -> Gatekeeper:
    """Return it; without ways, everyone is recognised as nobody in particular."""
    ways = [*ways, *([BasicWords()] if basic else [])] or [Anyone()]
    return Gatekeeper(
        ways,
        table=lambda: table,
        service=CallerCredentials("service", "secret", SECRET),
        basic=Passthrough(SECRET) if basic else None,
        confirm=confirm,
        charge=charge,
        secret=SECRET,
        now=now,
    )
