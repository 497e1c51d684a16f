"""View queries with the documents of their rows."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from couchbase.result import MultiResult, ValueResult
from tests.gateway.support import Transport, error, read_reply
from tests.gateway.views.support import (
    EVENTS,
    LINES,
    ViewSite,
    chunks,
    hang_up,
    reply_of,
    row,
)


def found(**documents: tuple[bytes, int] | int) -> MultiResult:
    """Return what get_multi gives: content and flags, or a result code."""
    results = MultiResult()
    for name, what in documents.items():
        result = ValueResult()
        if isinstance(what, int):
            result._rc = what
            results.all_ok = 0
        else:
            result._value, result._flags = what
            result._cas = 0x1234
        results[name.encode()] = result
    return results


class DocumentTests(SynchronousTestCase):
    """include_docs."""

    def docs(self, answers: Any, *rows: Any, form: str = "application/json", **kwargs: Any) -> Transport:
        """Run a query with documents."""
        site = ViewSite({"get_multi": answers})
        client = site.ask("?include_docs=true", Accept=form)
        self.site = site
        site.streams[0].answer(*rows, **kwargs)
        return client

    def test_forms_of_documents(self) -> None:
        """JSON as it is stored, other content in base64, gone ones marked with the reason."""
        answers = found(
            j=(b'{"n": 1.00}', 0x02000000),
            s=(b'{\n"a":\r\n1}', 0),
            b=(b"\xff\0", 0x03000000),
            x=(b"no json{", 0x02000000),
            t=(b"text", 0x04000000),
            g=exceptions.KEY_ENOENT,
        )
        rows = [row(name) for name in "jsbxtg"]
        for form in ("application/json", LINES, EVENTS):
            body = chunks(self.docs(answers, *rows, form=form))[0]
            if form == "application/json":
                got = json.loads(body)["rows"]
            else:
                got = [
                    json.loads(line.removeprefix(b"data: ")) for line in body.splitlines() if b'"id"' in line
                ]
            self.assertIn(b'"json":{"n": 1.00}', body)
            self.assertEqual([one["id"] for one in got], list("jsbxtg"))
            self.assertEqual(
                [one["doc"] for one in got[:3]],
                [
                    {"meta": {"id": "j", "cas": "00001234", "flags": 0x02000000}, "json": {"n": 1.0}},
                    {"meta": {"id": "s", "cas": "00001234", "flags": 0}, "json": {"a": 1}},
                    {"meta": {"id": "b", "cas": "00001234", "flags": 0x03000000}, "base64": "/wA="},
                ],
            )
            self.assertEqual([one["doc"]["base64"] for one in got[3:5]], ["bm8ganNvbns=", "dGV4dA=="])
            self.assertIsNone(got[5]["doc"])
            self.assertEqual(got[5]["doc_error"]["code"], "DocumentNotFound")

    def test_some_fail(self) -> None:
        """A document that cannot be read for another reason has an error; the others have their document."""
        failure = error(exceptions.ETIMEDOUT)
        failure.all_results = found(a=(b"1", 0), b=exceptions.ETIMEDOUT, c=exceptions.KEY_ENOENT)
        got = reply_of(self.docs(failure, row("a"), row("b"), row("c"), row("d"))).json()["rows"]
        self.assertEqual(got[0]["doc"]["json"], 1)
        self.assertEqual(
            [one.get("doc_error", {}).get("code") for one in got],
            [None, "DeadlineExceeded", "DocumentNotFound", "DeadlineExceeded"],
        )

    def test_batches(self) -> None:
        """In order; small at first, never above a hundred; an id once a batch."""
        asked: list[list[bytes]] = []

        def get_multi(ids: list[bytes], quiet: bool) -> Any:
            self.assertTrue(quiet)
            asked.append(ids)
            return succeed(found(**{docid.decode(): (b'"%b"' % docid, 0) for docid in ids}))

        rows = [row(f"k{number // 2}") for number in range(600)]
        got = reply_of(self.docs(get_multi, *rows)).json()["rows"]
        self.assertEqual([one["doc"]["json"] for one in got], [one["id"] for one in rows])
        self.assertEqual([len(ids) for ids in asked], [4, 8, 16, 32, 50, 50, 50, 50, 40])

    def test_large_documents_are_fetched_few_at_a_time(self) -> None:
        """Batches shrink to what fits; and with the gateway's memory used up, to one."""
        sizes: list[int] = []

        def get_multi(ids: list[bytes], quiet: bool) -> Any:
            sizes.append(len(ids))
            return succeed(found(**{docid.decode(): (b'"%b"' % (b"x" * 2**21), 0) for docid in ids}))

        self.docs(get_multi, *(row(f"k{number}") for number in range(16)))
        # Long documents are rendered in steps.
        self.site.clock.pump([0] * 2_000)
        self.assertEqual(sizes, [8, 3, 3, 2])
        self.assertEqual(self.site.gateway.budget.used, 0)
        sizes.clear()
        site = ViewSite({"get_multi": get_multi})
        site.gateway.budget.adjust(site.gateway.budget.limit)
        site.ask("?include_docs=true")
        site.streams[0].answer(row("a"), row("b"))
        site.clock.pump([0] * 1_000)
        self.assertEqual(sizes, [1, 1])

    def test_slow_client_stops_the_fetching(self) -> None:
        """No further batch is fetched while the client does not read."""
        sizes: list[int] = []

        def get_multi(ids: list[bytes], quiet: bool) -> Any:
            sizes.append(len(ids))
            if len(sizes) == 1:
                client.protocol.pauseProducing()
            return succeed(found(**{docid.decode(): (b"1", 0) for docid in ids}))

        site = ViewSite({"get_multi": get_multi})
        client = site.ask("?include_docs=true")
        body = json.dumps({"rows": [row(f"k{number}") for number in range(20)]}).encode()
        waiting = site.streams[0].send(body)
        self.assertEqual((sizes, waiting.called), ([8], False))
        client.protocol.resumeProducing()
        self.assertEqual((sizes, waiting.called), ([8, 12], True))
        site.streams[0].finish()
        self.assertEqual(len(reply_of(client).json()["rows"]), 20)

    def test_hang_up_while_fetching(self) -> None:
        """Only requests that were sent still count, until their answers have arrived, which are dropped."""
        for pause_first in (False, True):
            pending: Deferred[Any] = Deferred()
            answers = iter([succeed(found(k0=(b"1", 0))), pending] if pause_first else [pending])
            site = ViewSite({"get_multi": lambda ids, quiet, answers=answers: next(answers)})
            client = site.ask("?include_docs=true")
            body = json.dumps({"rows": [row(f"k{number}") for number in range(20)]}).encode()
            site.streams[0].send(body)
            bulk = site.connections[0].bulk
            assert bulk is not None
            window = bulk.window
            hang_up(client)
            self.assertEqual(site.streams[0].told[-1], "stop")
            self.assertEqual((site.gateway.budget.used, site.pool._leases), (0, {}))
            self.assertGreater(window.used, 0)
            pending.errback(error(exceptions.ETIMEDOUT)) if pause_first else pending.callback(
                found(k0=(b"1", 0))
            )
            self.assertEqual(window.used, 0)

    def test_reads_under_way_are_bounded(self) -> None:
        """Documents come by the lane of large ones: while their size is unknown, 32 reads at a time for all
        queries of a user, which wait in line; who hangs up makes no room before the answers are in."""
        under_way: list[Deferred[Any]] = []

        def get_multi(ids: list[bytes], quiet: bool) -> Deferred[Any]:
            answer: Deferred[Any] = Deferred()
            under_way.extend(answer for _ in ids)
            return answer

        site = ViewSite({"get_multi": get_multi})
        body = json.dumps({"rows": [row(f"k{number}") for number in range(8)]}).encode()
        clients = []
        for number in range(7):
            clients.append(site.ask("?include_docs=true"))
            site.streams[number].send(body)
            # None by the way of everybody else's operations.
            self.patch(site.connections[0], "get_multi", None)
        self.assertEqual(len(under_way), 32)
        hang_up(clients[0])
        hang_up(clients[4])  # It was next in line.
        self.assertEqual(len(under_way), 32)
        first = under_way[0]
        first.callback(found(k0=(b"1", 0)))
        self.assertEqual((len(under_way), under_way.count(first)), (40, 8))
        # The documents turn out to be small: the others have room, too.
        under_way[8].callback(found(**{f"k{number}": (b"1", 0) for number in range(8)}))
        self.assertEqual(len(under_way), 48)
        self.assertIn(b'"json":1', chunks(clients[1])[0])

    def test_head_with_documents(self) -> None:
        """The query is stopped from within the very step that has its first rows."""
        pending: Deferred[Any] = Deferred()
        site = ViewSite({"get_multi": lambda ids, quiet: pending})
        client = site.ask("?include_docs=true", method="HEAD")
        waiting = site.streams[0].send(json.dumps({"rows": [row(f"k{n}") for n in range(20)]}).encode())
        pending.callback(found(k0=(b"1", 0)))
        self.assertEqual(reply_status(client), 200)
        self.assertEqual((site.streams[0].told, waiting.called), (["stop"], True))
        self.assertEqual((site.gateway.budget.used, site.pool._leases), (0, {}))

    def test_reduced_rows(self) -> None:
        """A view that reduces without being asked to is refused with the remedy."""
        told = reply_of(self.docs(MultiResult(), {"key": None, "value": 3}, total=None)).json()
        self.assertEqual(told["code"], "InvalidArgument")
        self.assertIn("reduce=false", told["message"])

    def test_keys_beyond_the_fast_parser(self) -> None:
        """Half a surrogate pair in a key does not hide the id."""
        site = ViewSite({"get_multi": found(a=(b"1", 0))})
        client = site.ask("?include_docs=true")
        site.streams[0].send(b'{"rows":[{"id":"a","key":"\\ud800","value":null}]}')
        site.streams[0].finish()
        self.assertIn(b'"json":1', chunks(client)[0])

    def test_bug_while_fetching(self) -> None:
        """A fault of the gateway before the first row is a 500, logged."""
        client = self.docs(ZeroDivisionError("no"), row("a"))
        self.assertEqual(reply_of(client).json()["code"], "Internal")
        self.flushLoggedErrors(ZeroDivisionError)

    def test_cancelled_error_is_no_bug(self) -> None:
        """An operation cancelled by the driver has its own code."""
        client = self.docs(lambda ids, quiet: _failed(CancelledError()), row("a"))
        self.assertEqual(read_reply(client.value())[0].json()["code"], "RequestCanceled")


def reply_status(client: Transport) -> int:
    """Return the status of an answer without a body."""
    return read_reply(client.value(), "HEAD")[0].status


def _failed(failure: Exception) -> Deferred[Any]:
    result: Deferred[Any] = Deferred()
    result.errback(failure)
    return result
