"""Running a catalogue by each face against one server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import inlineCallbacks

from couchbase.admin import Admin
from couchbase.connection import Connection
from gcouchbase import GConnection
from tests.gateway.test_behaviour import GatewayTestCase
from tests.servers.matrix import operations, resources
from tests.servers.matrix.rows import Found, Row, Watch, run_blocking, run_deferred
from txcouchbase.connection import Connection as TxConnection

PATIENT_SECONDS = 30
"""Time limit of operations: nothing waits for it, a busy machine may need some of it."""

_BLOCKING: dict[str, Any] = {operations.BLOCKING: Connection, operations.GREENLETS: GConnection}


def rows_of(face: str) -> list[Row]:
    """Return the rows of a face, in the order of their catalogue."""
    return [row for row in (*operations.ROWS, *resources.ROWS) if face in row.faces]


def run_operations(face: str, arguments: dict[str, Any], watched: Sequence[Any] = ()) -> dict[Row, Found]:
    """Return the outcomes of a blocking driver's rows.

    :param arguments: of its connection.
    :param watched: nodes of ours.
    """
    connection = _BLOCKING[face](timeout=PATIENT_SECONDS, **arguments)
    try:
        watch = Watch(watched)
        return {row: run_blocking(row, face, connection, watch) for row in rows_of(face)}
    finally:
        connection._close()


@inlineCallbacks
def run_twisted(arguments: dict[str, Any], watched: Sequence[Any] = ()) -> Any:
    """Return a Deferred with the outcomes of the Twisted driver's rows."""
    connection = TxConnection(timeout=PATIENT_SECONDS, **arguments)
    try:
        yield connection.connect()
        watch = Watch(watched)
        found = {}
        for row in rows_of(operations.TWISTED):
            found[row] = yield run_deferred(row, operations.TWISTED, connection, watch)
        return found
    finally:
        connection._close()


def run_administration(arguments: dict[str, Any], user: str, password: str) -> dict[Row, Found]:
    """Return the outcomes of the rows of an administrator's session.

    :param arguments: of a connection to the cluster, whose map says where its manager is.
    """
    connection = Connection(timeout=PATIENT_SECONDS, **arguments)
    port = int(connection.server_nodes[0].rpartition(":")[2])
    connection._close()
    admin = Admin(user, password, host="127.0.0.1", port=port)
    face = operations.ADMINISTRATOR
    return {row: run_blocking(row, face, admin, Watch()) for row in rows_of(face)}


class GatewayRuns(GatewayTestCase):
    """A gateway that is started in front of one server after the other.

    ``credentials`` are the server's.
    """

    def setUp(self) -> None:
        """Nothing runs before a test chooses its server."""

    def tearDown(self) -> None:
        """Each was stopped when it was done with."""

    @inlineCallbacks
    def run_resources(self, string: str, bucket: str, watched: Sequence[Any] = ()) -> Any:
        """Return a Deferred with the outcomes of the gateway's rows in front of a cluster."""
        self.options = {"cluster": string}
        yield GatewayTestCase.setUp(self)
        try:
            asking = resources.Asking(self.ask, bucket)
            watch = Watch(watched)
            found = {}
            for row in rows_of(resources.GATEWAY):
                found[row] = yield run_deferred(row, resources.GATEWAY, asking, watch)
            return found
        finally:
            yield GatewayTestCase.tearDown(self)
