"""View queries: three forms of answers, and how a caller chooses one."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.response import Response
from gateway.resources.views import ViewAnswer, _LineRelay, _Relay
from gateway.views.forms import EventForm, JsonForm, LineForm
from tests import tries
from tests.gateway.views.support import (
    EVENTS,
    LINES,
    Stream,
    ViewSite,
    chunks,
    reply_of,
    row,
)


class JsonTests(SynchronousTestCase):
    """The default form."""

    def test_whole_answer(self) -> None:
        """Total, rows, debug_info; labelled, and with the total in a header."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].answer(row("a", 1), row("b", [2], {"x": 1}), debug_info={"local": {}})
        reply = reply_of(client)
        self.assertEqual(
            reply.json(),
            {
                "total_rows": 7,
                "rows": [row("a", 1), row("b", [2], {"x": 1})],
                "debug_info": {"local": {}},
            },
        )
        self.assertEqual((reply.status, reply.header("Content-Type")), (200, "application/json"))
        self.assertEqual(reply.header("X-CB-TotalRows"), "7")
        self.assertEqual((site.designs, site.streams[0].told), ([("d", "v")], []))

    def test_no_rows(self) -> None:
        """An empty list is an answer."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].answer(total=3)
        self.assertEqual(reply_of(client).json(), {"total_rows": 3, "rows": []})

    def test_reduced(self) -> None:
        """Reduced rows have no total."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].answer({"key": None, "value": 1411}, total=None)
        reply = reply_of(client)
        self.assertEqual(reply.json(), {"rows": [{"key": None, "value": 1411}]})
        self.assertIsNone(reply.header("X-CB-TotalRows"))

    def test_total_after_the_rows(self) -> None:
        """The total may come after the rows."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].answer(row("a"), total=None, total_rows=9)
        self.assertEqual(reply_of(client).json(), {"rows": [row("a")], "total_rows": 9})

    def test_bytes_pass_unread(self) -> None:
        """Digits, blanks and escapes of a row are those of the node."""
        site = ViewSite()
        client = site.ask()
        raw = b'{"id":"a", "key":1.000e1,"value":"\\u00e9 123456789012345678901234567890"}'
        site.streams[0].send(b'{"total_rows":2,"rows":[\r\n' + raw + b",\r\n" + raw + b"\r\n]\r\n}\n")
        site.streams[0].finish()
        body = reply_of(client).body
        self.assertEqual(body.count(raw), 2)
        self.assertEqual(len(json.loads(body)["rows"]), 2)

    def test_first_row_leaves_before_the_last_is_there(self) -> None:
        """And what is sent is whole rows only."""
        site = ViewSite()
        client = site.ask()
        self.assertEqual(client.value(), b"")
        site.streams[0].send(b'{"total_rows":2,"rows":[\r\n{"id":"a","key":1,"value":null},\r\n{"id":"b","k')
        body, complete = chunks(client)
        self.assertEqual(body, b'{"total_rows":2,"rows":[\n{"id":"a","key":1,"value":null}')
        self.assertFalse(complete)
        site.streams[0].send(b'ey":2,"value":null}\r\n]\r\n}\r\n')
        site.streams[0].finish()
        self.assertEqual(len(reply_of(client).json()["rows"]), 2)

    def test_errors_of_nodes(self) -> None:
        """Errors inside of a node's complete answer are members of a complete answer here."""
        errors = [{"from": "http://n2:8092/_view_merge/", "reason": "timeout"}]
        for query in ("", "?on_error=continue", "?on_error=stop"):
            for rows in ((row("a"),), ()):
                site = ViewSite()
                client = site.ask(query)
                site.streams[0].answer(*rows, errors=errors)
                reply = reply_of(client)
                self.assertEqual(reply.status, 200)
                self.assertEqual(reply.json(), {"total_rows": 7, "rows": list(rows), "errors": errors})
                self.assertIsNotNone(client.protocol)

    def test_head(self) -> None:
        """HEAD has the headers, and the query is stopped."""
        site = ViewSite()
        client = site.ask(method="HEAD")
        site.streams[0].send(b'{"total_rows":2,"rows":[\r\n{"id":"a"},\r\n')
        self.assertTrue(client.value().endswith(b"\r\n\r\n"))
        self.assertIn(b"X-CB-TotalRows: 2\r\n", client.value())
        self.assertEqual(site.streams[0].told, ["stop"])


class LineTests(SynchronousTestCase):
    """application/x-ndjson."""

    def test_rows(self) -> None:
        """A row a line and nothing else; the total is in the header."""
        site = ViewSite()
        client = site.ask(Accept=LINES)
        site.streams[0].answer(row("a", "\n"), row("b"))
        reply = reply_of(client)
        self.assertEqual([json.loads(line) for line in reply.body.splitlines()], [row("a", "\n"), row("b")])
        self.assertEqual((reply.header("Content-Type"), reply.header("X-CB-TotalRows")), (LINES, "7"))

    def test_row_broken_into_lines(self) -> None:
        """Line ends inside of a row become blanks: JSON allows them there, lines do not."""
        for form in (LINES, EVENTS):
            site = ViewSite()
            client = site.ask(Accept=form)
            site.streams[0].send(b'{"rows":[{\n"id":\r\n"a"\n},{"id":"b"}\n]}')
            site.streams[0].finish()
            body = reply_of(client).body
            lines = [line.removeprefix(b"data: ") for line in body.splitlines() if b'"id"' in line]
            self.assertEqual([json.loads(line) for line in lines], [{"id": "a"}, {"id": "b"}], form)

    def test_no_rows(self) -> None:
        """No rows, no lines."""
        site = ViewSite()
        client = site.ask(Accept=LINES)
        site.streams[0].answer()
        self.assertEqual(reply_of(client).body, b"")

    def test_errors_and_debug(self) -> None:
        """Lines other than rows are labelled."""
        site = ViewSite()
        client = site.ask(Accept=LINES)
        site.streams[0].answer(row("a"), errors=[{"from": "local", "reason": "r"}], debug_info={"x": 1})
        lines = [json.loads(line) for line in reply_of(client).body.splitlines()]
        self.assertEqual(
            lines, [row("a"), {"error": {"from": "local", "reason": "r"}}, {"debug_info": {"x": 1}}]
        )


class EventTests(SynchronousTestCase):
    """text/event-stream."""

    def test_events(self) -> None:
        """Rows, errors, and the end with its figures, in the framing of server-sent events."""
        site = ViewSite()
        client = site.ask(Accept=EVENTS)
        site.streams[0].answer(row("a"), row("b"), errors=[{"from": "local", "reason": "r"}])
        reply = reply_of(client)
        events = [event.split(b"\n") for event in reply.body.split(b"\n\n")[:-1]]
        self.assertTrue(reply.body.endswith(b"\n\n"))
        self.assertEqual(
            [(name, json.loads(data.removeprefix(b"data: "))) for name, data in events],
            [
                (b"event: row", row("a")),
                (b"event: row", row("b")),
                (b"event: error", {"from": "local", "reason": "r"}),
                (b"event: done", {"rows": 2, "total_rows": 7}),
            ],
        )
        self.assertEqual(reply.header("Content-Type"), EVENTS)
        self.assertIn("no-cache", reply.header("Cache-Control") or "")


class AcceptTests(SynchronousTestCase):
    """Which form is chosen."""

    def test_choice(self) -> None:
        """The form that weighs most; JSON if none is named."""
        for accept, form in (
            ("*/*", "application/json"),
            ("text/html", "application/json"),
            (f"{LINES}, application/json", LINES),
            (f"{LINES};q=0.5, application/json;q=0.6", "application/json"),
            (f"application/json;q=0, {EVENTS}", EVENTS),
            (f"{LINES};q=0", "application/json"),
            (f"Application/X-NDJSON; charset=utf-8 ; q=0.001, {EVENTS};q=0", LINES),
            ("", "application/json"),
        ):
            site = ViewSite()
            client = site.ask(Accept=accept)
            site.streams[0].answer()
            self.assertEqual(reply_of(client).header("Content-Type"), form, accept)

    def test_broken(self) -> None:
        """A weight that is none is refused."""
        for quality in ("2", "x", "-1", "1.01", ""):
            site = ViewSite()
            reply = reply_of(site.ask(Accept=f"{LINES};q={quality}"))
            self.assertEqual((reply.status, reply.json()["code"]), (400, "InvalidArgument"))
            self.assertIn("Accept", reply.json()["message"])


class Sink:
    """Takes a body."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.end = ""

    def write(self, data: bytes) -> None:
        assert data and not self.end
        self.parts.append(data)

    def finish(self) -> None:
        self.end = "finish"

    def abort(self) -> None:
        self.end = "abort"


class Parent:
    """A connection, as far as a view uses one."""

    def _start_view(self, view: Any) -> Stream:
        return Stream(view)


class FormTests(SynchronousTestCase):
    """Whatever rows there are, however they are printed and cut into pieces."""

    @settings(max_examples=tries(150), deadline=None)
    @given(data=st.data())
    def test_rows_survive(self, data: st.DataObject) -> None:
        """Each form gives back the same rows, in order, and each line or event is whole."""
        values = st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=6,
        )
        rows = data.draw(st.lists(st.fixed_dictionaries({"id": st.text(), "key": values, "value": values})))
        indent = data.draw(st.sampled_from([None, 0, 1]))
        text = json.dumps(
            {"total_rows": 9, "rows": rows}, indent=indent, ensure_ascii=data.draw(st.booleans())
        )
        whole = text.encode("utf-8", "surrogatepass")
        end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
        whole = whole.replace(b"\n", end)
        cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=6)) | {0, len(whole)})
        for form in (JsonForm(), LineForm(), EventForm()):
            sink = Sink()
            begun: Deferred[Response] = Deferred()
            begun.addCallback(lambda response, sink=sink: response.body.start(sink))
            ended: list[str | None] = []
            answer = ViewAnswer(form, begun, None, ended.append, self.fail)
            view = (_LineRelay if answer.by_lines else _Relay)(Parent(), "d", "v").start()
            answer.follow(view)
            stream = view._handle
            for begin, stop in itertools.pairwise(cuts):
                stream.send(whole[begin:stop])
            stream.finish()
            self.assertEqual((sink.end, ended), ("finish", ["ok"]))
            body = b"".join(sink.parts)
            if isinstance(form, JsonForm):
                got = json.loads(body)["rows"]
            elif isinstance(form, LineForm):
                got = [json.loads(line) for line in body.split(b"\n")[:-1]]
            else:
                events = body.split(b"\n\n")[:-1]
                self.assertTrue(events.pop().startswith(b"event: done\ndata: {"))
                got = [json.loads(event.removeprefix(b"event: row\ndata: ")) for event in events]
                self.assertNotIn(b"\r", body)
            self.assertEqual(got, rows)
