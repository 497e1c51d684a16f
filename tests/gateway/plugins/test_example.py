"""The example of docs/howto/plugins.md: found as a drop-in, and what each of its parts does."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from couchbase import exceptions
from gateway.interfaces import IGatewayPlugin
from gateway.plugins.metrics import Metrics
from gateway.service import GatewayService
from tests.gateway.support import Site, error, passthrough
from tests.gateway.test_behaviour import D, GatewayTestCase
from tests.tooling.sources import ROOT

FOLDER = ROOT / "examples" / "plugin"

FIND = """
from gateway.settings import resolve
from gateway.server import plugins_for
for left_out in ([], ["sizes"]):
    print(*sorted(plugin.name for plugin in plugins_for(resolve({"without-plugin": left_out}, {}))))
"""


def example() -> Any:
    """Return a new instance of the example."""
    spec = spec_from_file_location("sizes", FOLDER / "gateway" / "plugins" / "sizes.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Sizes()


class DropInTests(SynchronousTestCase):
    """Without sockets."""

    def test_interface(self) -> None:
        """Both plugins keep what the interface promises; a hook may be left at None."""
        verifyObject(IGatewayPlugin, example())
        metrics = Metrics()
        for hook in ("on_request", "on_response"):
            self.assertIsNone(getattr(metrics, hook))
            setattr(metrics, hook, getattr(example(), hook))
        verifyObject(IGatewayPlugin, metrics)

    def test_found(self) -> None:
        """A folder on the Python path is enough to be found, and the option leaves it out."""
        path = os.pathsep.join([str(FOLDER), str(ROOT)])
        found = subprocess.run(
            [sys.executable, "-c", FIND],
            env={**os.environ, "PYTHONPATH": path},
            cwd=self.mktemp_folder(),
            capture_output=True,
            text=True,
            check=True,
        )
        all_of_them, others = (line.split() for line in found.stdout.splitlines())
        self.assertIn("sizes", all_of_them)
        self.assertEqual(sorted(others), sorted(set(all_of_them) - {"sizes"}))

    def mktemp_folder(self) -> str:
        """Return a new empty folder."""
        path = self.mktemp()
        os.makedirs(path)
        return path

    def test_errors_are_those_of_documents(self) -> None:
        """A user without access to the bucket gets the same answers as from the gateway's own resources."""
        path = "/v1/buckets/b/sizes?keys=a"
        self.assertEqual(Site(plugins=[example()]).request("GET", "/v1/buckets/b/sizes").status, 400)
        reply = Site(authorizer=passthrough(), plugins=[example()]).request("GET", path)
        self.assertEqual((reply.status, reply.json()["code"]), (401, "Unauthorized"))
        for rc, status, code in (
            (exceptions.AUTH_ERROR, 403, "InvalidAuth"),
            (exceptions.BUCKET_ENOENT, 404, "BucketNotFound"),
            (exceptions.CONNECT_ERROR, 503, "UnderlyingServiceUnavailable"),
        ):
            reply = Site({"connect": error(rc)}, plugins=[example()]).request("GET", path)
            self.assertEqual((reply.status, reply.json()["code"]), (status, code))
        reply = Site({"get_multi": error(exceptions.ETIMEDOUT)}, plugins=[example()]).request("GET", path)
        self.assertEqual((reply.status, reply.json()["code"]), (504, "DeadlineExceeded"))


class ServedTests(GatewayTestCase):
    """On a real node."""

    @inlineCallbacks
    def begin(self, settings: Any) -> Any:
        service = GatewayService(settings, [example()])
        service.privilegedStartService()
        service.startService()
        yield service.started
        return service

    @inlineCallbacks
    def test_every_part(self) -> Any:
        """A route that reads documents, a refusal, a header, counts."""
        yield self.ask("PUT", D + "hello", b'"world"')
        yield self.ask("PUT", D + "keep:it", b"1")
        sizes = yield self.ask("GET", "/v1/buckets/default/sizes?keys=hello,other")
        self.assertEqual((sizes.status, sizes.json()), (200, {"hello": 7, "other": None}))
        self.assertRegex(sizes.header("X-Served-In"), r"^\d+\.\d{6}$")
        refused = yield self.ask("DELETE", D + "keep:it")
        self.assertEqual(refused.code(), (403, "DocumentKept"))
        removed = yield self.ask("DELETE", D + "hello")
        self.assertEqual(removed.status, 200)
        counts = yield self.ask("GET", "/operations")
        self.assertEqual(counts.json(), {"set ok": 2, "get ok": 1, "delete ok": 1})
        conditional = yield self.ask("GET", "/v1/buckets/default/sizes?keys=a", If_Match="1")
        self.assertEqual(conditional.code(), (400, "InvalidArgument"))
