"""Rate limits by caller and by address: token buckets, off unless configured.

A bucket holds up to ``burst`` tokens and gets ``rate`` of them a second; a request takes one. Each operation
of a batch takes one when it is answered, and may leave a debt: the batch is not interrupted, but further
requests are refused until the debt is paid.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from zope.interface import implementer

from gateway.cluster.credentials import Authorizer, CallerCredentials
from gateway.http.refusal import Refusal
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.interfaces import Gateway, IGatewayPlugin

if TYPE_CHECKING:
    from klein import Klein

__all__ = ["DEBT_SECONDS", "MOST_BUCKETS", "Budgeted", "Buckets", "Policy", "RateLimits"]

MOST_BUCKETS = 2**16
"""Largest number of buckets; beyond it, the least recently used one is dropped."""

DEBT_SECONDS = 60.0
"""Largest debt, as the number of seconds in which it is paid."""

_PROBES = frozenset({"live", "health", "ready", "metrics"})
_PREFIX_BITS = 64


class Policy(NamedTuple):
    """One limit."""

    name: str
    rate: float
    """Requests per second."""
    burst: int
    """Size of a burst, in requests."""

    @property
    def header(self) -> tuple[bytes, bytes]:
        """The header that describes the policy."""
        window = ceil(self.burst / self.rate)
        return b"RateLimit-Policy", f'"{self.name}";q={self.burst};w={window}'.encode("ascii")


class Buckets:
    """The buckets of one policy.

    :param seconds: returns the time in seconds.
    """

    def __init__(self, policy: Policy, seconds: Callable[[], float], most: int = MOST_BUCKETS) -> None:
        self.policy = policy
        self._seconds = seconds
        self._most = most
        # Identity of a caller -> its tokens, and the time at which they were counted.
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of buckets."""
        return len(self._levels)

    def take(self, mark: str) -> float:
        """Take a token; return how many are left, or a negative number if there was none to take."""
        level = self._level(mark)
        if level < 1:
            return level - 1
        self._set(mark, level - 1)
        return level - 1

    def spend(self, mark: str, count: int) -> None:
        """Take tokens even if the bucket does not have them, which leaves a debt."""
        self._set(mark, max(self._level(mark) - count, -self.policy.rate * DEBT_SECONDS))

    def _level(self, mark: str) -> float:
        known = self._levels.get(mark)
        burst = self.policy.burst
        if known is None:
            return float(burst)
        level, at = known
        return min(burst, level + (self._seconds() - at) * self.policy.rate)

    def _set(self, mark: str, level: float) -> None:
        self._levels[mark] = (level, self._seconds())
        self._levels.move_to_end(mark)
        while len(self._levels) > self._most:
            self._levels.popitem(last=False)


@implementer(IGatewayPlugin)
class RateLimits:
    """Applies the limits, through the hooks of a plugin.

    :param address_of: returns the address of a request's client.
    """

    name = "ratelimits"
    on_operation = on_end = None

    def __init__(
        self, caller: Buckets | None, address: Buckets | None, address_of: Callable[[Request], str]
    ) -> None:
        self._caller = caller
        self._address = address
        self._address_of = address_of
        self.on_request: Callable[[Request], Response | None] | None
        self.on_request = None if address is None else self._count_address

    def attach(self, gateway: Gateway) -> None:
        """Do nothing: this plugin needs nothing of the gateway."""

    def routes(self, app: Klein) -> None:
        """Declare no routes."""

    @property
    def charge(self) -> Callable[[Request, str], None] | None:
        """See :data:`gateway.access.gatekeeper.Charge`; ``None`` if callers are not limited."""
        return None if self._caller is None else self._count_caller

    def _count_address(self, request: Request) -> None:
        endpoint = request.endpoint
        if endpoint is None or endpoint.name not in _PROBES:
            assert self._address is not None
            _count(request, self._address, _network(self._address_of(request)))

    def _count_caller(self, request: Request, mark: str) -> None:
        assert self._caller is not None
        _count(request, self._caller, mark)

    def on_response(self, request: Request, response: Response, seconds: float) -> None:
        """Add the headers about limits to an answer."""
        if request.limit_headers:
            response.headers = [*response.headers, *request.limit_headers]


def _count(request: Request, buckets: Buckets, mark: str) -> None:
    policy = buckets.policy
    left = buckets.take(mark)
    request.limit_headers = (*request.limit_headers, policy.header, _state(policy, max(left, 0.0)))
    if left < 0:
        wait = ceil(-left / policy.rate)
        raise Refusal(
            "TooManyRequests",
            f"More than {policy.rate:g} requests a second (and {policy.burst} at once) of one {policy.name}.",
            resource="",
            headers=((b"Retry-After", b"%d" % max(wait, 1)),),
        )
    request.spending = (*request.spending, lambda count: buckets.spend(mark, count))


def _state(policy: Policy, left: float) -> tuple[bytes, bytes]:
    full = ceil((policy.burst - left) / policy.rate)
    return b"RateLimit", f'"{policy.name}";r={int(left)};t={full}'.encode("ascii")


def _network(address: str) -> str:
    """Return an IPv4 address, or the network of an IPv6 address: a client can use all of it."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(ip_network((found, _PREFIX_BITS), strict=False))
    return address


class Budgeted:
    """An authorizer that counts the requests of each caller, for a gateway without rules."""

    def __init__(self, authorizer: Authorizer, charge: Callable[[Request, str], object]) -> None:
        self._authorizer = authorizer
        self._charge = charge
        self.schemes = authorizer.schemes

    def identify(self, request: Request) -> CallerCredentials:
        """Return the caller's credentials; also raises Refusal (429)."""
        caller = self._authorizer.identify(request)
        if request.caller is None:
            # The key includes the password: wrong passwords must not use up the user's limit.
            self._charge(request, caller.digest.hex())
        return caller

    def follow(self, changed: Callable[[], object]) -> Callable[[], object]:
        """See :class:`gateway.cluster.credentials.Authorizer`."""
        return self._authorizer.follow(changed)
