"""The same scripts over this TLS and Twisted's: the same bytes and events, at both ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

from hypothesis import given, settings
from hypothesis.strategies import binary, integers, just, lists, one_of, sampled_from, tuples
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests import tries
from tests.reactor.tls.wire import (
    Files,
    Side,
    Wire,
    own_client,
    own_server,
    twisted_client,
    twisted_server,
)

# A party (0: the client, 1: the server), what it does, and with what.
STEPS = one_of(
    tuples(integers(0, 1), just("write"), binary(max_size=50)),
    tuples(integers(0, 1), just("write"), sampled_from([20_000, 150_000])),
    tuples(integers(0, 1), just("writeSequence"), lists(binary(max_size=9), max_size=3)),
    tuples(integers(0, 1), just("loseConnection"), just(None)),
    tuples(integers(0, 1), just("abortConnection"), just(None)),
    tuples(integers(0, 1), just("cut"), just(None)),
    tuples(just(0), just("settle"), sampled_from([None, 1000, 7])),
)


def seen(event: Any) -> Any:
    """Return an event as it is compared, and printed."""
    if isinstance(event, bytes) and len(event) > 100:
        return len(event), crc32(event)
    # Twisted's TLS says ConnectionLost to who aborts; its TCP, and ours, what the interface says.
    return ConnectionLost if event is ConnectionAborted else event


class TwistedTests(SynchronousTestCase):
    """Each end is ours, with Twisted's at the other; and Twisted's at both."""

    def setUp(self) -> None:
        self.files = Files.make(self.mktemp())

    def pairs(self, names: list[bytes] | None = None) -> dict[str, Wire]:
        """Return a stream for each pair of implementations, by name."""
        servers: dict[str, Callable[..., Side]] = {"ours": own_server, "Twisted's": twisted_server}
        clients: dict[str, Callable[..., Side]] = {"ours": own_client, "Twisted's": twisted_client}
        found = {}
        for server_name, server in servers.items():
            for client_name, client in clients.items():
                clock = Clock()
                parties = client(clock, self.files.pem, names), server(clock, self.files, names)
                wire = Wire(clock, *(party.below for party in parties))
                wire.sides = parties  # type: ignore[attr-defined]
                found[f"client {client_name}, server {server_name}"] = wire
        return found

    def run_script(self, wire: Any, steps: list[Any]) -> list[list[Any]]:
        """Carry out steps; return the events of both ends."""
        for who, what, argument in steps:
            if what == "settle":
                wire.settle(argument)
            elif wire.ends[who].is_lost:
                # Twisted's fails then, where ours does nothing.
                continue
            elif what == "cut":
                wire.cut(who)
            else:
                if isinstance(argument, int):
                    argument = bytes(range(250)) * (argument // 250)
                transport = wire.sides[who].below
                getattr(transport, what)(*(() if argument is None else (argument,)))
        wire.settle()
        return [[seen(event) for event in party.above.events] for party in wire.sides]

    def check(self, steps: list[Any]) -> None:
        found = {name: self.run_script(wire, steps) for name, wire in self.pairs().items()}
        expected = found["client Twisted's, server Twisted's"]
        for name, events in found.items():
            self.assertEqual(events, expected, f"{name}: {steps}")

    @settings(max_examples=tries(80), deadline=None)
    @given(steps=lists(STEPS, max_size=8))
    def test_any_script(self, steps: list[Any]) -> None:
        """Writes, ends and cuts in any order, carried in pieces of any size."""
        self.check(steps)

    @settings(max_examples=tries(80), deadline=None)
    @given(steps=lists(STEPS, max_size=8))
    def test_any_script_after_the_handshake(self, steps: list[Any]) -> None:
        """The same on an open connection."""
        self.check([(0, "settle", None), *steps])
