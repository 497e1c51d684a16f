"""Statements as callers send them, and the errors of the query service."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gateway.dialect.errors import Refusal
from gateway.services.statementerrors import refusal_of
from gateway.services.statements import MEMBERS, read_statement
from tests.gateway.test_docs import page, rows


def read(body: bytes, **changes: Any) -> Any:
    """Read a statement, with usual settings unless they are given."""
    usual: dict[str, Any] = {"context": None, "request_id": "id-1", "must_be_read": False}
    return read_statement(body, **{**usual, **changes})


class StatementTests(SynchronousTestCase):
    """:func:`read_statement`."""

    def sent(self, body: bytes, **changes: Any) -> Any:
        """Return what the service is sent, as JSON."""
        return json.loads(read(body, **changes).body)

    def test_usual(self) -> None:
        """A statement is sent with the request's id, without blanks between rows, and with metrics."""
        self.assertEqual(
            self.sent(b'{"statement": "SELECT 1"}'),
            {"statement": "SELECT 1", "client_context_id": "id-1", "pretty": False, "metrics": True},
        )
        statement = read(b'{"statement": "SELECT 1"}')
        self.assertEqual((statement.is_read, statement.seconds), (False, None))

    def test_values_stay(self) -> None:
        """Parameters are sent on byte for byte, numbers of any size included."""
        args = b'[9223372036854775807, 1.0e400, 123456789012345678901234567890, "\\u00e9"]'
        body = b'{"statement":"x", "args" : ' + args + b',"$name_1":{"a": 1.50}}'
        text = read(body).body
        self.assertIn(b'"args":' + args, text)
        self.assertIn(b'"$name_1":{"a": 1.50}', text)

    def test_members(self) -> None:
        """Each member is taken in each of its types, and in no other."""
        samples = {str: "10s", bool: True, int: 3, float: 1.5, list: [1], dict: {"a": 1}}
        words = {"scan_consistency": "request_plus", "profile": "timings"}
        for name, (types, _) in MEMBERS.items():
            for kind, sample in samples.items():
                base = {} if name in ("statement", "prepared") else {"statement": "x"}
                body = json.dumps({**base, name: words.get(name, sample) if kind is str else sample}).encode()
                if kind in types:
                    read(body)
                else:
                    refusal = self.assertRaises(Refusal, read, body)
                    self.assertIn(name, refusal.message)

    def test_read_only(self) -> None:
        """``read_only`` becomes the service's ``readonly``; where it must be set it may not be unset."""
        for body, must, is_read in (
            (b'{"statement":"x","read_only":true}', False, True),
            (b'{"statement":"x","read_only":false}', False, False),
            (b'{"statement":"x"}', True, True),
        ):
            self.assertEqual(self.sent(body, must_be_read=must).get("readonly", False), is_read)
            self.assertEqual(read(body, must_be_read=must).is_read, is_read)
            self.assertNotIn("read_only", self.sent(body, must_be_read=must))
        refusal = self.assertRaises(Refusal, read, b'{"statement":"x","read_only":false}', must_be_read=True)
        self.assertEqual(refusal.problem.code, "ServiceForbidden")

    def test_time(self) -> None:
        """A time limit is a duration or a number of seconds, from the body or from a header."""
        for text, expected in (
            (b'"1m30s"', "90000ms"),
            (b"2", "2000ms"),
            (b"0.25", "250ms"),
            (b'"1h"', "3600000ms"),
        ):
            self.assertEqual(self.sent(b'{"statement":"x","timeout":' + text + b"}")["timeout"], expected)
        self.assertEqual(self.sent(b'{"statement":"x"}', seconds=1.5)["timeout"], "1500ms")
        for text in (b'"2h"', b"0", b"-1", b'"soon"', b"1e9", b"true", b"null"):
            self.assertRaises(Refusal, read, b'{"statement":"x","timeout":' + text + b"}")
        self.assertRaises(Refusal, read, b'{"statement":"x","timeout":1}', seconds=1.5)

    def test_context(self) -> None:
        """The path of a scope sets the query context; elsewhere the body may."""
        scope = "default:`b`.`s`"
        self.assertEqual(self.sent(b'{"statement":"x"}', context=scope)["query_context"], scope)
        self.assertEqual(self.sent(b'{"statement":"x","query_context":"b.s"}')["query_context"], "b.s")
        self.assertRaises(Refusal, read, b'{"statement":"x","query_context":"b.s"}', context=scope)

    def test_wrong(self) -> None:
        """Other bodies and members are refused, and the message names the member."""
        for body, word in (
            (b"", "JSON object"),
            (b"[]", "JSON object"),
            (b"SELECT 1", "JSON object"),
            (b"{}", "'statement' and 'prepared'"),
            (b'{"statement":"x","prepared":"y"}', "'statement' and 'prepared'"),
            (b'{"statement":" "}', "statement: it is empty"),
            (b'{"statement":"x","statement":"y"}', "twice"),
            (b'{"statement":"x","readonly":true}', "'readonly'"),
            (b'{"statement":"x","creds":[]}', "'creds'"),
            (b'{"statement":"x","txid":"1"}', "tximplicit"),
            (b'{"statement":"x","$":1}', "$: a named parameter"),
            (b'{"statement":"x","$a-b":1}', "$a-b: a named parameter"),
            (b'{"statement":"x","scan_consistency":"strong"}', "scan_consistency: 'strong' is not one of"),
            (b'{"statement":"x","client_context_id":"a\\"b"}', "client_context_id"),
            (b'{"statement":"x","client_context_id":""}', "client_context_id"),
        ):
            refusal = self.assertRaises(Refusal, read, body)
            self.assertEqual(refusal.problem.status, 400)
            self.assertIn(word, refusal.message)


class PageTests(SynchronousTestCase):
    """docs/howto/query.md and the reference."""

    def test_samples(self) -> None:
        """Every statement of the how-to is one that the gateway takes."""
        samples = re.findall(r"/query -d '(.*)'$", page("howto/query.md"), re.MULTILINE)
        self.assertGreater(len(samples), 4)
        for sample in samples:
            read(sample.encode())

    def test_members(self) -> None:
        """The table of the reference has every member, and no other."""
        cells = [row[0] for row in rows(page("rest-api.md"), "statement member")]
        names = {name for cell in cells for name in re.findall(r"`([\w$]+)`", cell)}
        self.assertEqual(names, {*MEMBERS, "$name"})


class ErrorTests(SynchronousTestCase):
    """:func:`refusal_of`."""

    def test_codes(self) -> None:
        """The service's codes become codes of the dialect, with the service's words and number."""
        for number, code, status in (
            (1000, "ServiceForbidden", 403),
            (1065, "InvalidStatement", 400),
            (1080, "DeadlineExceeded", 504),
            (1180, "TemporarilyUnavailable", 503),
            (1191, "TemporarilyUnavailable", 503),
            (1201, "TemporarilyUnavailable", 503),
            (3000, "InvalidStatement", 400),
            (4000, "IndexNotFound", 404),
            (4040, "InvalidStatement", 400),
            (4120, "IndexNotFound", 404),
            (4300, "InvalidStatement", 400),
            (5000, "StatementFailed", 500),
            (5010, "StatementFailed", 500),
            (10000, "InvalidAuth", 403),
            (12003, "CollectionNotFound", 404),
            (12016, "IndexNotFound", 404),
            (12020, "BucketNotFound", 404),
            (12021, "ScopeNotFound", 404),
            (12033, "CasMismatch", 409),
            (13014, "NoReadAccess", 403),
            (17012, "DocumentExists", 409),
            (99999, "StatementFailed", 500),
        ):
            found = refusal_of([{"code": number, "msg": "what happened"}], 200, is_read=True)
            self.assertEqual((found.problem.code, found.problem.status), (code, status), number)
            self.assertEqual(found.message, f"what happened (error {number} of the query service)")

    def test_rights(self) -> None:
        """Missing rights to read and to write differ in the message of the service only."""
        text = "User does not have credentials to run INSERT queries on b. Add role query_insert on b."
        found = refusal_of([{"code": 13014, "msg": text}], 401, is_read=False)
        self.assertEqual(found.problem.code, "NoWriteAccess")
        text = "User does not have credentials to run SELECT queries on b. Add role query_select on b."
        found = refusal_of([{"code": 13014, "msg": text}], 401, is_read=False)
        self.assertEqual(found.problem.code, "NoReadAccess")

    def test_retry(self) -> None:
        """What may have changed something is ambiguous; what has not is safe, or fails again."""
        for number, is_read, retry in (
            (1080, True, "safe"),
            (1080, False, "ambiguous"),
            (5000, False, "ambiguous"),
            (5000, True, "never"),
            (3000, False, "never"),
            (1201, False, "safe"),
        ):
            found = refusal_of([{"code": number, "msg": "x"}], 200, is_read=is_read)
            self.assertEqual(found.problem.retry.value, retry, (number, is_read))

    def test_odd_errors(self) -> None:
        """Errors of any form, or none, make an error; the status of HTTP decides where nothing else does."""
        for errors, status, code in (
            ([], 401, "InvalidAuth"),
            ([], 403, "NoReadAccess"),
            ([], 503, "TemporarilyUnavailable"),
            ([], 500, "StatementFailed"),
            ([], 200, "StatementFailed"),
            (["text"], 200, "StatementFailed"),
            ([{"code": "3000"}], 200, "StatementFailed"),
            ([{"code": True, "msg": None}], 200, "StatementFailed"),
            ([None, 1], 400, "StatementFailed"),
        ):
            self.assertEqual(refusal_of(errors, status, is_read=True).problem.code, code)
        many = refusal_of([{"code": 5000, "msg": "x" * 10_000}] * 100, 200, is_read=True)
        self.assertEqual(len(many.errors), 16)
        self.assertLess(len(many.message), 2100)
