"""Steps of a plan: the requests of a flow of several steps to its driver.

A plan is a generator. It yields one of the steps below and is sent the result; the exception of a failed step
is thrown into the plan. So each flow (handshake, store-then-wait-for-durability) is written once, and every
driver runs it in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple


class RoundTrip(NamedTuple):
    """Send these encoded requests on this connection, in one write; answered with their frames.

    Each of ``requests`` is ``(opcode, keywords)`` for
    :func:`couchbase.protocol.frames.encode_request`; the driver chooses the opaques. The step
    yields one response frame for each, in order, whatever their statuses.
    """

    requests: Sequence[tuple[int, dict[str, Any]]]


class Ask(NamedTuple):
    """Send one request to each of several nodes; answered with a list as long.

    ``questions`` are ``(server index, opcode, keywords)``. An answer is the response
    :class:`couchbase.protocol.frames.Frame`, or ``None`` where the node could not be asked or
    did not answer: one lost node must not spoil the round.
    """

    questions: Sequence[tuple[int, int, dict[str, Any]]]
    connect: bool = False
    """Whether to wait for a connection that is not up, within the time for an answer."""


class Compute(NamedTuple):
    """Call a function that costs milliseconds, off the event loop; answered with its result."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Pause(NamedTuple):
    """Wait this long; answered with ``None``."""

    seconds: float
