"""Who may call, and as whom: the authorizer that the settings describe, with what it needs."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

from twisted.web.client import Agent, BrowserLikePolicyForHTTPS

from gateway.access.files import Copies
from gateway.access.gatekeeper import Confirm, Gatekeeper
from gateway.access.jwks import read_key_set
from gateway.access.keys import read_keys
from gateway.access.keysource import FETCH_SECONDS, FetchedKeys, FileKeys, KeySource, fetch_with
from gateway.access.options import is_url
from gateway.access.ratelimits import Buckets, Budgeted, Policy, RateLimits
from gateway.access.rules import read_rules
from gateway.access.tokens import TokenTerms
from gateway.access.watched import WatchedFile, Watcher
from gateway.access.ways import Anyone, BasicWords, ByCertificate, ByKey, ByToken, Way
from gateway.clients.address import client_address
from gateway.clients.proxies import TrustedProxies
from gateway.cluster.credentials import Authorizer, Passthrough, ServiceAccount
from gateway.listeners import CannotStartError
from gateway.settings import Settings
from reactor.kinds import IReactor

__all__ = ["Access"]


class Access:
    """How callers are recognised, with everything that has to be kept current for it.

    :param account: the service account; ``None``: there is none.
    :param secret: 16 to 64 random bytes, new in each process.
    :param copies: the last valid content of the files of rules and keys, for those that are invalid now.
    :raises CannotStartError: a file of rules or keys has become invalid since the options were checked, and
        there is no copy of its content before.
    """

    def __init__(
        self,
        settings: Settings,
        account: ServiceAccount | None,
        *,
        secret: bytes,
        reactor: IReactor,
        now: Callable[[], float],
        confirm: Confirm,
        copies: Copies | None = None,
    ) -> None:
        self._settings = settings
        self._copies = copies or Copies()
        self._reactor = reactor
        self._now = now
        self._watcher = Watcher(reactor)
        self._keys: KeySource | None = None
        self.limits = _limits(settings, reactor.seconds)
        """The limits on requests; ``None`` if there are none."""
        charge = None if self.limits is None else self.limits.charge
        ways = settings.auth.split(",")
        basic = Passthrough(secret) if "passthrough" in ways else None
        self.authorizer: Authorizer
        """Identifies callers."""
        if settings.access is None:
            # settings.auth names one of these only.
            if basic is None:
                assert account is not None
                self.authorizer = account
            else:
                self.authorizer = basic
            if charge is not None:
                self.authorizer = Budgeted(self.authorizer, charge)
            return
        rules = self._watched("access", settings.access, read_rules)
        gatekeeper = self.authorizer = Gatekeeper(
            [self._way(way) for way in ways],
            table=lambda: rules.value,
            service=None if account is None else account.credentials,
            basic=basic,
            confirm=confirm,
            charge=charge,
            secret=secret,
            now=now,
        )
        for file in self._watcher.files:
            file.on_change = gatekeeper.forget
        if self._keys is not None:
            self._keys.on_change = gatekeeper.forget

    @property
    def files(self) -> list[WatchedFile[Any]]:
        """The files that are watched for changes."""
        return self._watcher.files

    def start(self) -> None:
        """Begin to look at files, and to fetch keys."""
        self._watcher.start()
        if self._keys is not None:
            self._keys.start()

    def stop(self) -> None:
        """End that."""
        self._watcher.stop()
        if self._keys is not None:
            self._keys.stop()

    def _watched(self, option: str, path: str, read: Callable[..., Any]) -> WatchedFile[Any]:
        try:
            file = WatchedFile(path, read, lambda path: read(path, self._copies.read))
        except ValueError as error:
            # The options were checked with a valid file: this is a worker that starts later.
            raise CannotStartError(f"--{option}: {error}") from None
        self._watcher.files.append(file)
        return file

    def _way(self, name: str) -> Way:
        settings = self._settings
        if name == "jwt":
            assert settings.jwt_keys is not None and settings.jwt_issuer is not None
            self._keys = self._key_source(settings.jwt_keys)
            terms = TokenTerms(settings.jwt_issuer, tuple(settings.jwt_audience), settings.jwt_skew)
            return ByToken(self._keys, terms, self._now)
        if name == "keys":
            assert settings.api_keys is not None
            keys = self._watched("api-keys", settings.api_keys, read_keys)
            return ByKey(lambda: keys.value, self._now)
        if name == "certificate":
            return ByCertificate()
        return BasicWords() if name == "passthrough" else Anyone()

    def _key_source(self, named: str) -> KeySource:
        if not is_url(named):
            return FileKeys(self._watched("jwt-keys", named, read_key_set))
        agent = Agent(self._reactor, BrowserLikePolicyForHTTPS(), connectTimeout=FETCH_SECONDS)
        return FetchedKeys(fetch_with(agent, named), self._reactor, named)


def _limits(settings: Settings, seconds: Callable[[], float]) -> RateLimits | None:
    def buckets(name: str, rate: float | None) -> Buckets | None:
        if rate is None:
            return None
        burst = settings.rate_burst or max(1, ceil(2 * rate))
        return Buckets(Policy(name, rate, burst), seconds)

    caller = buckets("caller", settings.rate_limit)
    address = buckets("address", settings.rate_limit_address)
    if caller is None and address is None:
        return None
    trusted = TrustedProxies(settings.trusted_proxies)
    return RateLimits(caller, address, lambda request: client_address(request, trusted))
