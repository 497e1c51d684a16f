"""A batch runs the operations on one key in order, whatever their durability."""

from __future__ import annotations

import json
import random
from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.gateway.test_behaviour import GatewayTestCase

BATCH = "/v1/buckets/default/batch"

DURABILITIES: list[dict[str, Any]] = [
    {},
    {"durabilityLevel": "Majority"},
    {"durabilityLevel": "None"},
    {"replicateTo": 1},
    {"replicateTo": -1},
]
"""Options of a line; only the first one is written so that it takes the fast path."""


class Model:
    """The answers of a bucket of texts, one operation after the other."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def answer(self, operation: dict[str, Any]) -> tuple[int, str | None]:
        """Carry out an operation; returns status and the text read."""
        name, key, text = operation["op"], operation["key"], operation.get("text", "")
        there = self.texts.get(key)
        if name == "add":
            if there is not None:
                return 409, None
        elif name != "set" and there is None:
            return 404, None
        if name == "get":
            return 200, there
        if name == "delete":
            del self.texts[key]
            return 200, None
        joined = {"append": (there or "") + text, "prepend": text + (there or "")}
        self.texts[key] = joined.get(name, text)
        return 200, None


class OrderTests(GatewayTestCase):
    """Three nodes, one replica: until a durable write is answered, reads see the former version."""

    options = {"ephemeral": True, "nodes": "3", "replicas": "1"}

    @inlineCallbacks
    def run_batch(self, operations: list[dict[str, Any]]) -> Any:
        """Send a batch; returns status and text of each answer."""
        body = "\n".join(json.dumps(operation) for operation in operations).encode()
        reply = yield self.ask("POST", BATCH, body)
        answers = [json.loads(line) for line in reply.body.splitlines()]
        return [(answer["status"], answer.get("text")) for answer in answers]

    @inlineCallbacks
    def test_after_a_durable_write(self) -> Any:
        """Whatever follows sees it: reads, writes and counters, by the direct way and by the other."""
        durable = {"durabilityLevel": "Majority"}
        for number, (lines, told) in enumerate(
            (
                ([{"op": "set", "value": 1, **durable}, {"op": "get"}], [200, 200]),
                ([{"op": "set", "value": 1, **durable}, {"op": "get", "ttl": 60}], [200, 200]),
                ([{"op": "set", "value": 1, **durable}, {"op": "add", "value": 2}], [200, 409]),
                ([{"op": "set", "value": 1, **durable}, {"op": "replace", "value": 2}], [200, 200]),
                ([{"op": "set", "value": 1}, {"op": "delete", **durable}, {"op": "get"}], [200, 200, 404]),
                ([{"op": "set", "text": "a", **durable}, {"op": "append", "text": "b"}], [200, 200]),
                (
                    [{"op": "incr", "initial": 1, **durable}, {"op": "incr"}, {"op": "touch", "ttl": 9}],
                    [200] * 3,
                ),
            )
        ):
            answers = yield self.run_batch([{"key": f"k{number}", **line} for line in lines])
            self.assertEqual([status for status, _ in answers], told, lines)

    @inlineCallbacks
    def test_any_sequence(self) -> Any:
        """Hundreds of operations on a few keys have the same answers as one after the other."""
        for seed in (1, 2):
            chance = random.Random(seed)
            model = Model()
            operations: list[dict[str, Any]] = []
            for number in range(300):
                operation: dict[str, Any] = {
                    "op": chance.choice(["get", "set", "add", "replace", "append", "prepend", "delete"]),
                    "key": f"{seed}-{chance.randrange(4)}",
                }
                if operation["op"] not in ("get", "delete"):
                    operation["text"] = f"{number} "
                if operation["op"] != "get":
                    operation.update(chance.choice(DURABILITIES))
                operations.append(operation)
            answers = yield self.run_batch(operations)
            expected = [model.answer(operation) for operation in operations]
            for operation, got, wanted in zip(operations, answers, expected, strict=True):
                # The copies of a version that was replaced at once need not be seen any more.
                if "replicateTo" in operation and wanted[0] == 200:
                    continue
                self.assertEqual(got, wanted, operation)
