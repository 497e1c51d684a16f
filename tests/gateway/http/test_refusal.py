"""Explanations of failures that the application does not explain."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from gateway.http import refusal
from gateway.http.refusal import PROBLEMS, Refusal, Retry, declare, explain, no_route


class ExplainTests(SynchronousTestCase):
    """``explain``."""

    def test_kinds(self) -> None:
        """A refusal has its own code; memory, cancellation and bugs have one each; only bugs are logged."""
        for error, status, code, retry, is_bug in (
            (no_route(b"/x"), 404, "RouteNotFound", "never", False),
            (MemoryError(), 503, "Overloaded", "ambiguous", False),
            (CancelledError(), 499, "RequestCanceled", "ambiguous", False),
            (ZeroDivisionError("secret"), 500, "Internal", "never", True),
        ):
            found = explain(error)
            told = (found.problem.status, found.members["code"], found.members["retry"], found.is_bug)
            self.assertEqual(told, (status, code, retry, is_bug), error)
            self.assertNotIn("secret", str(found.members))

    def test_refusal(self) -> None:
        """Its message, resource and headers are sent; without a message, the table's."""
        headers = ((b"Allow", b"GET"),)
        found = explain(Refusal("MethodNotAllowed", "Only GET.", "/x", headers))
        self.assertEqual((found.members["message"], found.members["resource"]), ("Only GET.", "/x"))
        self.assertEqual(found.headers, headers)
        found = explain(Refusal("MethodNotAllowed"))
        self.assertEqual(found.members["message"], PROBLEMS["MethodNotAllowed"].text)
        self.assertEqual(found.members["resource"], "")

    def test_declare(self) -> None:
        """An application can add codes, and change the text of a known one; the order is kept."""
        self.patch(refusal, "PROBLEMS", dict(PROBLEMS))
        order = list(refusal.PROBLEMS)
        declare([("Internal", 500, Retry.NEVER, "Broken."), ("TeaOnly", 418, Retry.NEVER, "No coffee.")])
        self.assertEqual(list(refusal.PROBLEMS), [*order, "TeaOnly"])
        self.assertEqual(explain(Refusal("TeaOnly")).problem.status, 418)
        self.assertEqual(explain(ZeroDivisionError()).members["message"], "Broken.")
