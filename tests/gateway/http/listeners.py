"""A gateway that listens by TCP, by TLS and on a Unix socket."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from gateway.service import GatewayService, Options
from tests.certificates import self_signed


class Listeners:
    """The gateway of a test, on an embedded node, until the test ends.

    :param case: the test; also names the files.
    """

    def __init__(self, case: TestCase) -> None:
        self._case = case
        self.certificate = self_signed()
        """Certificate and key, in PEM."""
        self.unix = case.mktemp()[-60:].replace("/", "_")
        """Path of the Unix socket."""
        self.ports: list[int] = []
        """Those of TCP and TLS, on 127.0.0.1."""

    @inlineCallbacks
    def start(self, *options_given: str) -> Any:
        """Start it; fires with the service when documents can be served.

        :param options_given: further ones.
        """
        path = self._case.mktemp()
        with open(path, "wb") as file:
            file.write(self.certificate)
        arguments = ["--ephemeral", *options_given]
        for listen in (
            "tcp:0:interface=127.0.0.1",
            f"ssl:0:interface=127.0.0.1:privateKey={path}:certKey={path}",
            f"unix:{self.unix}",
        ):
            arguments += ["--listen", listen]
        options = Options()
        options.parseOptions(arguments)
        service = GatewayService(options.settings, [])
        service.privilegedStartService()
        service.startService()
        self._case.addCleanup(service.stopService)
        yield service.started
        self.ports = [int(url.rpartition(":")[2]) for url in service.urls[:2]]
        return service
