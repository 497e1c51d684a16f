"""The tests of the blocking connection, on the one for gevent: they behave alike.

Where the two differ, the test is another one here.
"""

import json
from unittest import mock

import gevent

from couchbase.exceptions import ObjectThreadError, PipelineError, ViewEngineError
from couchbase.protocol.constants import Status
from couchbase.user_constants import LOCKMODE_NONE, LOCKMODE_WAIT
from gcouchbase import GView
from gcouchbase.admin import Admin
from tests.couchbase import test_admin as administration
from tests.couchbase import test_connection_collections as collections
from tests.couchbase import test_connection_copies as copies
from tests.couchbase import test_connection_faults as faults
from tests.couchbase import test_connection_items as items
from tests.couchbase import test_connection_members as members
from tests.couchbase import test_connection_multi as multi
from tests.couchbase import test_connection_operations as operations
from tests.couchbase import test_connection_subdocuments as subdocuments
from tests.couchbase import test_connection_views as views
from tests.gcouchbase.support import InGreenlets


def _no_pipeline(test):
    for _ in range(2):
        with test.assertRaises(PipelineError), test.cb.pipeline():
            test.fail("entered")
        test.assertTrue(test.cb.set(test.key(), 1).success)


def _no_lock(test):
    cb = test.connect(lockmode=LOCKMODE_WAIT, unlock_gil=True)
    test.assertEqual((cb.lockmode, cb.unlock_gil), (LOCKMODE_NONE, 0))
    test.assertRaises(ObjectThreadError, cb._thr_lockop, 0)


class KeyValueTests(InGreenlets, operations.KeyValueTests):
    """Operations of one key."""


class CollectionKeyValueTests(InGreenlets, collections.KeyValueTests):
    """The same in a collection."""


class CollectionMultiTests(InGreenlets, collections.MultiTests):
    """Operations of many keys in a collection."""


class CollectionCopyTests(InGreenlets, collections.CopyTests):
    """Copies of documents in a collection."""


class CollectionViewTests(InGreenlets, collections.ViewTests):
    """Views of collections."""

    test_pipeline = _no_pipeline


class MissingCollectionTests(InGreenlets, collections.MissingTests):
    """Collections that are missing, come and go."""


class AdminTests(InGreenlets, administration.AdminTests):
    """An administrator's session."""

    def run(self, result=None):
        """Run with this session in place of the blocking one."""
        with mock.patch.object(administration, "Admin", Admin):
            return super().run(result)

    def test_members(self):
        """Its name is its own."""
        self.assertTrue(repr(self.admin).startswith("<gcouchbase.admin.Admin nodes="))

    def test_other_greenlets_run(self):
        """While a request waits, another greenlet runs."""
        ran = []
        other = gevent.spawn(ran.append, 1)
        self.admin.bucket_list()
        self.assertEqual(ran, [1])
        other.join()


class LookupTests(InGreenlets, subdocuments.LookupTests):
    """Reading parts of documents."""


class MutationTests(InGreenlets, subdocuments.MutationTests):
    """Changing parts of documents."""


class AttributeTests(InGreenlets, subdocuments.AttributeTests):
    """Extended attributes."""


class FormatTests(InGreenlets, operations.FormatTests):
    """Formats and transcoders."""


class MultiTests(InGreenlets, multi.MultiTests):
    """Operations of many keys."""


class ItemTests(InGreenlets, items.ItemTests):
    """Items."""

    def test_pipeline(self):
        """There is none."""
        _no_pipeline(self)


class GoneTests(InGreenlets, copies.GoneTests):
    """A bucket that is deleted while a client is connected."""


class CopyTests(InGreenlets, copies.CopyTests):
    """Durability, observe, replicas."""


class MemberTests(InGreenlets, members.MemberTests):
    """Other members."""

    def test_fork_while_busy(self):
        """There is no lock that could be held."""
        _no_lock(self)


class ControlTests(InGreenlets, members.ControlTests):
    """Settings by number."""


class ViewTests(InGreenlets, views.ViewTests):
    """Views."""

    def test_rows(self):
        """All rows, in order, and what the view then knows; it always streams."""
        for streaming in (False, True):
            view = self.query(streaming=streaming)
            self.assertIs(type(view), GView)
            self.assertTrue(view.streaming)
            rows = list(view)
            self.assertEqual([(row.key, row.value) for row in rows], [(n, n * 2) for n in range(views.COUNT)])
            self.assertEqual((view.indexed_rows, view.rows_returned), (views.COUNT, views.COUNT))
            self.assertEqual((view.raw.http_status, view.raw.done, view.raw.value["rows"]), (200, True, []))
            self.assertEqual(
                repr(view),
                f"GView<Design=tests, View=numbers, Query={view.query!r}, Rows Fetched={views.COUNT}>",
            )

    def test_lock(self):
        """There is none."""
        _no_lock(self)

    def test_pipeline(self):
        """There is none."""
        _no_pipeline(self)


class DesignTests(InGreenlets, views.DesignTests):
    """Design documents."""


class RefusalTests(InGreenlets, faults.RefusalTests):
    """Nodes that refuse."""

    def test_temporary_failures_are_repeated(self):
        """Until one attempt succeeds; what other greenlets do with the key waits behind, in order."""
        failures = [Status.ETMPFAIL, Status.EBUSY]

        def busy(peer, frame):
            peer.answer(frame, failures.pop() if failures else 0, cas=1)

        self.first.script = busy
        greenlets = [gevent.spawn(self.cb.set, "k", value) for value in (1, 2)]
        gevent.joinall(greenlets, raise_error=True)
        self.assertEqual([frame.value for frame in self.first.seen], [b"1", b"2", b"1", b"2"])
        self.assertEqual(self.cb._cluster._parked, {})


class SilenceTests(InGreenlets, faults.SilenceTests):
    """Nodes that do not answer, or go."""


class ReplicaTests(InGreenlets, faults.ReplicaTests):
    """Replicas out of reach."""


class HttpBootstrapTests(InGreenlets, faults.HttpBootstrapTests):
    """Maps over HTTP."""


class TlsTests(InGreenlets, faults.TlsTests):
    """TLS."""


class ScriptedViewTests(InGreenlets, views.ScriptedViewTests):
    """Answers that no healthy view engine gives."""

    def test_errors_inside(self):
        """After the rows that came before them."""
        errors = [{"from": "node", "reason": "broken"}]
        rows = [{"id": "a", "key": 1, "value": 2}]
        self.answer = json.dumps({"total_rows": 1, "rows": rows, "errors": errors}).encode()
        view = self.cb.query("d", "v")
        got = iter(view)
        self.assertEqual(next(got).docid, "a")
        with self.assertRaises(ViewEngineError) as caught:
            next(got)
        self.assertEqual((caught.exception.objextra, view.errors), (errors, errors))
