"""JSON over sockets: the same definition everywhere, and long texts that do not block others."""

from __future__ import annotations

import json
from time import thread_time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks

from gateway.fairness.steps import AT_ONCE_BYTES
from tests.gateway.test_behaviour import GatewayTestCase

B = "/v1/buckets/default"
JSON_TYPE = {"Content-Type": "application/json"}

ODD = {
    "half": b'{"t":"tweet","s":"ab\\ud83d"}',
    "huge": b'{"f":1e400}',
    "digits": b'{"n":' + b"1" * 5000 + b"}",
}
"""Texts that are JSON, though some parsers refuse them."""


def long(scale: int) -> dict[str, bytes]:
    """Return documents that are not looked at in one go; at the scale of 8 they have a megabyte and more."""
    return {
        "numbers": b"[" + b"1," * (scale * 2**17) + b"1]",
        "strings": b"[" + b'"a\\"]",' * (scale * 2**15) + b"1]",
        "objects": b"[" + b'{"a":[{}]},' * (scale * 2**14) + b"1]",
        "odd": b"[" + b'{"a":"\\ud83d"},' * (scale * 2**14) + b"1]",
        "members": b"{" + b",".join(b'"k%d":1' % number for number in range(scale * 25_000)) + b"}",
        "levels": b"[" + b"[" * 500 + b"]" * 500 + b",1" * (scale * 2**16) + b"]",
        "blanks": b'{"a":' + b" " * (scale * 2**18) + b'1,"b":"' + b"\\n" * (scale * 2**17) + b'"}',
    }


class Turns:
    """Measures the longest turn of the reactor in time of the processor."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._since = thread_time()
        self._call: Any = reactor.callLater(0, self._turn)  # type: ignore[attr-defined]

    def _turn(self) -> None:
        self.longest = max(self.longest, thread_time() - self._since)
        self._since = thread_time()
        self._call = reactor.callLater(0, self._turn)  # type: ignore[attr-defined]

    def stop(self) -> float:
        """Return the longest turn, in seconds."""
        self._call.cancel()
        return self.longest


class JsonEverywhereTests(GatewayTestCase):
    """One notion of JSON."""

    timeout = 120

    @inlineCallbacks
    def test_odd_texts(self) -> Any:
        """By PUT or by a batch, they are JSON to GET, ``project``, batches, views, ``include_docs``."""
        design = {"views": {"v": {"map": "function (doc, meta) { emit(meta.type, doc.length); }"}}}
        made = yield self.ask("PUT", B + "/designs/d?syncwait=20", json.dumps(design).encode())
        self.assertEqual(made.status, 201, made.body)
        for key, text in ODD.items():
            yield self.ask("PUT", f"{B}/documents/{key}", text)
            stored = yield self.ask(
                "POST", B + "/batch", b'{"op":"set","key":"b-%b","value":%b}' % (key.encode(), text)
            )
            self.assertIn(b'"status":200', stored.body)
            for name in (key, "b-" + key):
                got = yield self.ask("GET", f"{B}/documents/{name}")
                self.assertEqual((got.header("Content-Type"), got.body), ("application/json", text))
                part = yield self.ask("GET", f"{B}/documents/{name}?project=" + next(iter(json_names(text))))
                self.assertEqual(part.status, 200, part.body)
                got = yield self.ask("POST", B + "/batch", b'{"op":"get","key":"%b"}' % name.encode())
                self.assertIn(b'"value":' + text, got.body)
        rows = yield self.ask("GET", B + "/views/d/v?stale=false&include_docs=true")
        self.assertEqual(rows.body.count(b'"key":"json"'), 2 * len(ODD), rows.body[:500])
        for text in ODD.values():
            self.assertEqual(rows.body.count(b'"json":' + text), 2)


def json_names(text: bytes) -> list[str]:
    """Return the names of the members of an object."""
    return [name for name in ("t", "f", "n") if b'"%b"' % name.encode() in text]


class LongTests(GatewayTestCase):
    """Long documents."""

    timeout = 240

    @inlineCallbacks
    def store(self, documents: dict[str, bytes]) -> Any:
        """Store documents."""
        for key, text in documents.items():
            assert len(text) > AT_ONCE_BYTES
            # Without flags, so that the type is found by looking at the value.
            stored = yield self.ask("PUT", f"{B}/documents/{key}", text)
            assert stored.status == 200, stored.body

    @inlineCallbacks
    def test_same_answers(self) -> Any:
        """Parts, types and batches' values of long documents are right."""
        documents = long(2)
        yield self.store(documents)
        for key, text in documents.items():
            whole = yield self.ask("GET", f"{B}/documents/{key}")
            self.assertEqual((whole.header("Content-Type"), whole.body), ("application/json", text), key)
            got = yield self.ask("POST", B + "/batch", b'{"op":"get","key":"%b"}' % key.encode())
            self.assertEqual(got.body[got.body.index(b'"value":') + 8 : -2], text, key)
            line = b'{"op":"set","key":"copy","value":%b}' % text
            moved = b'{"value":%b,"op":"set","key":"copy"}' % text
            for operation in (line, moved):
                order = yield self.ask(
                    "POST",
                    B + "/batch",
                    operation + b'\n{"op":"get","key":"copy"}\n{"op":"delete","key":"copy"}\n',
                )
                self.assertEqual(
                    [one["status"] for one in map(json.loads, order.body.splitlines())], [200] * 3
                )
                self.assertIn(b'"value":' + text + b"}\n", order.body)
        for path, expected in (
            ("numbers?project=[-1]", b"[1]"),
            ("objects?project=[32000].a[0]", b'[{"a":[{}]}]'),
            ("members?project=k49999,k0", b'{"k49999":1,"k0":1}'),
            ("blanks?project=a", b'{"a":1}'),
        ):
            part = yield self.ask("GET", f"{B}/documents/{path}")
            self.assertEqual(part.body, expected, path)
        for body, words in (
            (b'{"op":"set","key":"a","value":[%b]]}' % (b"1," * AT_ONCE_BYTES + b"1"), "not JSON"),
            (
                b'{"op":"set","key":"a","value":"%b","op":"get"}' % (b"x" * AT_ONCE_BYTES),
                "'op' is given twice",
            ),
        ):
            refused = yield self.ask("POST", B + "/batch", body)
            told = json.loads(refused.body)
            self.assertEqual((told["status"], words in told["error"]["message"]), (400, True), told)

    @inlineCallbacks
    def test_dense(self) -> Any:
        """Texts that have thousands of parts are read in steps, too, with the same answers."""
        many = b",".join(b'"m%d":1' % number for number in range(25_000))
        paths = b",".join([b'{"operation":"DictSet","path":"a","value":1}'] * 5000)
        document = b"[%b1]" % (b"{}," * 60_000)
        turns = Turns()
        for line, status, words in (
            (b'{"value":1,%b,"m24999":2}' % many, 400, "the member 'm24999' is given twice"),
            (b'{"op":"get","key":"k",%b}' % many, 400, "unknown member 'm0'"),
            (b'{"op":"mutate_in","key":"k","operations":[%b]}' % paths, 400, "operations"),
            (b'{"value":%b,"op":"set","key":"k"}' % document, 200, ""),
        ):
            answer = yield self.ask("POST", B + "/batch", line + b'\n{"op":"get","key":"k"}\n')
            first, second = answer.body.splitlines()
            told = json.loads(first)
            self.assertEqual(told["status"], status, line[:40])
            self.assertIn(words, str(told.get("error")))
            self.assertEqual(json.loads(second)["status"], 404 if words else 200)
        self.assertIn(b'"value":%b' % document, second)
        refused = yield self.ask("POST", B + "/documents/k/mutate", b'{"operations":[%b]}' % paths)
        self.assertEqual(refused.code(), (400, "InvalidArgument"))
        # Ten times what a quiet machine needs: the first of them took ten seconds.
        self.assertLess(turns.stop(), 0.5)

    @inlineCallbacks
    def test_no_long_turns(self) -> Any:
        """While eight such requests run, no turn of the reactor takes long."""
        yield self.store(long(8))
        turns = Turns()
        yield gatherResults(
            [
                self.ask("GET", f"{B}/documents/{path}")
                for path in (
                    *("numbers?project=[-1]", "objects?project=[-1]", "odd?project=[-1]", "odd"),
                    *("levels?project=[-1]", "members?project=k199999", "blanks?project=b", "numbers"),
                )
            ]
        )
        # Time of the processor, and ten times what a quiet machine needs, so that a busy one does not fail.
        # Parsed in one go, such documents took seconds.
        longest = turns.stop()
        self.assertLess(longest, 0.5)
