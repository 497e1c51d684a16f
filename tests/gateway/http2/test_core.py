"""The cost of a small GET over HTTP/2, h2 included, from the bytes of the request to those of the answer."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from tests import work
from tests.gateway.http2.app import MemoryTestCase

REQUESTS = 32
"""Requests that arrive together."""
TURNS = 4
"""Turns of the reactor in which all of them are answered."""
CALLS, INSTRUCTIONS = 645, 8600
"""Most for each request; instructions on CPython 3.11."""


class HotPathTests(MemoryTestCase):
    """What a change of ours, or of h2, may make slower."""

    def test_get(self) -> None:
        """A small answer takes no more calls and instructions than when this was written."""
        gc.disable()
        self.addCleanup(gc.enable)
        for unit, most in ((work.calls, CALLS), (work.instructions, INSTRUCTIONS)):
            if unit is work.instructions and sys.version_info[:2] != (3, 11):
                continue
            self.cost(unit)
            each = self.cost(unit) / REQUESTS
            self.assertLessEqual(each, most, unit.__name__)
            self.assertGreater(each, most * 0.8, unit.__name__)

    def cost(self, unit: Callable[[Callable[[], object]], int]) -> int:
        """Count what the server does to answer many requests that arrive together."""
        wire = self.wire
        numbers = [self.client.request("GET", "/size/1000") for _ in range(REQUESTS)]
        sent = wire.out.value()
        wire.out.clear()
        counted = unit(lambda: wire.server.protocol.dataReceived(sent))
        counted += unit(lambda: self.served.clock.pump([0] * TURNS))
        wire.pump()
        self.assertTrue(all(self.client.streams[number].is_complete for number in numbers))
        return counted
