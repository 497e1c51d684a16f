"""The service tree: the parts that twistd starts and stops."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from twisted.application.service import IService, IServiceMaker
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.plugin import getPlugins
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

import gateway.plugins
import gateway.server
from gateway.commandline import Options
from gateway.interfaces import IGatewayPlugin
from gateway.service import GatewayService, makeService
from gateway.settings import resolve

LOOPBACK = "tcp:0:interface=127.0.0.1"
# Nothing listens on the discard port of an unused loopback address.
NO_CLUSTER = "couchbase://127.0.0.1:9"


class PluginTests(TestCase):
    """Plugins found by twistd."""

    def test_twistd_finds_the_command(self) -> None:
        """``twistd couchgateway`` exists, with options and a service of ours."""
        found = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "couchgateway"]
        self.assertEqual(len(found), 1)
        verifyObject(IServiceMaker, found[0])
        self.assertIs(found[0].options, Options)
        self.assertIs(found[0].makeService, makeService)

    def test_the_command_line_alone(self) -> None:
        """Help, version and refusals do not wait for the import of the gateway."""
        code = """
import atexit, sys
from gateway.commandline import main
atexit.register(lambda: print(sorted({"gateway.service", "couchnode.embedded"} & set(sys.modules))))
main()
"""
        for option, status in (("--version", 0), ("--help", 0), ("--no-such-option", 2)):
            done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True)
            self.assertEqual((done.stdout.splitlines()[-1], done.returncode), ("[]", status), done)

    def test_drop_ins_are_found(self) -> None:
        """Metrics is a plugin like any other, and can be left out."""
        names = [plugin.name for plugin in getPlugins(IGatewayPlugin, gateway.plugins)]
        self.assertEqual(names.count("metrics"), 1)
        for arguments, there in (([], True), (["--without-plugin", "metrics"], False)):
            options = Options()
            options.parseOptions(["--ephemeral", *arguments])
            service = makeService(options)
            self.assertEqual("metrics" in [plugin.name for plugin in service.gateway.plugins], there)


class LifeTests(TestCase):
    """Start and stop."""

    def make(self, **given: Any) -> GatewayService:
        service = GatewayService(resolve({"listen": [LOOPBACK], "cluster": NO_CLUSTER, **given}, {}))
        verifyObject(IService, service)
        return service

    @inlineCallbacks
    def test_ports(self) -> Any:
        """Each endpoint is listened on, and reported with its real port; none is left after the stop."""
        service = self.make(listen=[LOOPBACK, LOOPBACK])
        service.privilegedStartService()
        service.startService()
        self.assertEqual(len(service.urls), 2)
        for url in service.urls:
            self.assertRegex(url, r"^http://127\.0\.0\.1:[1-9]\d*$")
        yield service.stopService()
        port = int(service.urls[0].rpartition(":")[2])
        again = yield TCP4ServerEndpoint(reactor, port, interface="127.0.0.1").listen(Factory())
        yield again.stopListening()

    @inlineCallbacks
    def test_port_in_use(self) -> Any:
        """The start fails with the option's name, so that twistd ends."""
        taken = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory())
        port = taken.getHost().port
        service = self.make(listen=[f"tcp:{port}:interface=127.0.0.1"])
        error = self.assertRaises(RuntimeError, service.privilegedStartService)
        self.assertIn(f"--listen: tcp:{port}", str(error))
        yield taken.stopListening()

    @inlineCallbacks
    def test_unix_socket(self) -> Any:
        """A Unix socket is an endpoint like any other."""
        path = self.mktemp()[-60:].replace("/", "_")
        service = self.make(listen=[f"unix:{path}"])
        service.privilegedStartService()
        self.assertEqual(service.urls, [f"unix:{path}"])
        service.startService()
        yield service.stopService()

    def test_starting_node(self) -> None:
        """Before the embedded node is up, documents are refused and readiness says why."""
        service = GatewayService(resolve({"listen": [LOOPBACK], "ephemeral": True}, {}))
        self.assertEqual(self.successResultOf(service._is_ready()), "the embedded node is starting")
        account = service._account
        assert account is not None
        waiting = service.pool.connection("default", account.credentials)
        failure = self.failureResultOf(waiting)
        self.assertEqual(failure.value.problem.code, "UnderlyingServiceUnavailable")

    def test_unknown_password(self) -> None:
        """An embedded node without a configured user has one whose password is different at each start."""
        services = [GatewayService(resolve({"listen": [LOOPBACK], "ephemeral": True}, {})) for _ in range(2)]
        passwords = {service._settings.password for service in services}
        self.assertEqual(len(passwords), 2)
        self.assertTrue(all(len(password) >= 20 for password in passwords))


class ForgetTests(TestCase):
    """What happens to the objects that stay, once the gateway serves."""

    def calls(self, *names: str) -> list[str]:
        """Return the calls of a garbage collector that has only these functions."""
        made: list[str] = []
        functions = {name: lambda name=name: made.append(name) for name in names}
        self.patch(gateway.server, "gc", SimpleNamespace(**functions))
        gateway.server.forget_what_stays()
        return made

    def test_frozen_after_a_collection(self) -> None:
        """Garbage is not kept forever."""
        self.assertEqual(self.calls("collect", "freeze"), ["collect", "freeze"])

    def test_pypy_cannot_freeze(self) -> None:
        """The gateway starts there all the same."""
        self.assertEqual(self.calls("collect"), ["collect"])
