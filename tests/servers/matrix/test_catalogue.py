"""The catalogues leave nothing out, and docs/servers.md is made of them."""

from __future__ import annotations

import inspect
from fnmatch import fnmatchcase
from typing import Any
from unittest import TestCase

from couchbase.admin import Admin
from couchbase.commands import Commands
from couchbase.connection import Connection
from gateway.operations.table import OPERATIONS
from gateway.plugins.metrics import Metrics
from gcouchbase import GConnection
from tests.gateway.support import Site
from tests.servers.matrix import operations, resources
from tests.servers.matrix.expected import LIMITS, SERVERS, limit_of
from tests.servers.matrix.faces import rows_of
from tests.servers.matrix.table import PAGE, render
from txcouchbase.connection import Connection as TxConnection

FACES: dict[str, Any] = {
    operations.BLOCKING: Connection,
    operations.GREENLETS: GConnection,
    operations.TWISTED: TxConnection,
}
ROWS = (*operations.ROWS, *resources.ROWS)


def methods(cls: Any) -> dict[str, Any]:
    """Return the public methods of a class by name, each once: not by its name in camel case."""
    public = {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}
    found = {name: method for name, method in public.items() if callable(method)}
    plain = {id(method) for name, method in found.items() if name.islower()}
    return {name: method for name, method in found.items() if name.islower() or id(method) not in plain}


class OperationTests(TestCase):
    """The SDK's."""

    def test_every_operation(self) -> None:
        """Each public method of each face has a row, or a reason to have none."""
        for face, cls in FACES.items():
            there = set(methods(cls))
            named = {row.name for row in rows_of(face)}
            self.assertEqual(named - there, set(), face)
            self.assertEqual(there - named - set(operations.LOCAL), set(), face)

    def test_every_option(self) -> None:
        """Each argument that changes what is sent has a row, in each face that has the operation."""
        for face, cls in FACES.items():
            rows = {(row.name, row.option) for row in rows_of(face)}
            for name, method in methods(cls).items():
                taken = set(inspect.signature(method).parameters) & set(operations.OPTIONS)
                missing = {(name, option) for option in taken} - rows
                self.assertEqual(missing, set(), face)

    def test_administrator(self) -> None:
        """Each method of the administrator's session that a bucket's connection does not have."""
        own = set(methods(Admin)) - set(methods(Commands))
        self.assertEqual(own, {row.name for row in rows_of(operations.ADMINISTRATOR)})


class ResourceTests(TestCase):
    """The gateway's."""

    def setUp(self) -> None:
        """Read the routes, as docs/rest-api.md names them."""
        self.routes: dict[str, Any] = {}
        app = Site(plugins=[Metrics()]).gateway.app
        for rule in app.url_map.iter_rules():
            path = rule.rule.replace("<", "{").replace(">", "}")
            # What services answer is theirs; tests/gateway/services plays them.
            is_of_service = path.startswith("/_p/") or path.endswith("/query")
            if "v1.alpha" not in path and "{scope}" not in path and not is_of_service:
                path = path.replace("/v1/buckets/{bucket}/documents/{key}", "D")
                for method in (rule.methods or set()) - {"HEAD"}:
                    self.routes[f"{method} {path}"], _ = app.endpoints[rule.endpoint].served

    def test_every_resource(self) -> None:
        """Each route has a row, and each row a route."""
        self.assertEqual({row.name for row in resources.ROWS}, set(self.routes))

    def test_every_header(self) -> None:
        """Each header that changes what is sent has a row with each resource that takes it."""
        rows = {(row.name, row.option) for row in resources.ROWS}
        for name, declared in self.routes.items():
            taken = {header for header in resources.HEADERS if header.lower().encode() in declared.takes}
            self.assertEqual({(name, header) for header in taken} - rows, set())

    def test_every_operation_of_batches(self) -> None:
        """Each has a row; so has each durability that it takes."""
        rows = {row.option for row in resources.ROWS if row.name == f"POST {resources.BATCH}"}
        wanted = set(OPERATIONS)
        for name, kind in OPERATIONS.items():
            if name != "endure":
                taken = kind.members & {"durabilityLevel", "persistTo", "replicateTo"}
                wanted |= {f"{name} {member}" for member in taken}
        self.assertEqual(wanted - rows, set())


class TableTests(TestCase):
    """Expected outcomes, and the page."""

    def test_keys(self) -> None:
        """No two rows of a face use one key."""
        for face in (*FACES, operations.ADMINISTRATOR, resources.GATEWAY):
            keys = [row.key(face).lower() for row in rows_of(face)]
            self.assertEqual(len(set(keys)), len(keys), face)

    def test_limits(self) -> None:
        """Each pattern of each limit matches a row, and no row has two limits on a server."""
        for limit in LIMITS:
            for pattern in limit.rows:
                self.assertTrue(any(fnmatchcase(str(row), pattern) for row in ROWS), pattern)
        for server in SERVERS:
            for row in ROWS:
                limit_of(server, row)

    def test_page(self) -> None:
        """docs/servers.md is what the tests expect; ``python -m tests.servers.matrix.table`` writes it."""
        self.assertEqual(PAGE.read_text("utf-8"), render())
