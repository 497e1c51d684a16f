"""Operations that nodes did not carry out: what every driver does with them."""

from __future__ import annotations

from collections import deque
from typing import Any

from couchbase.protocol.frames import Frame
from couchbase.protocol.statuses import Action, retry_delay


class Parking:
    """The part of a cluster client that repeats operations in the order of each key.

    An operation that is put off waits for a while; whatever comes later for its key waits behind it. A driver
    provides the methods below that are not carried out here.
    """

    map: Any

    def __init__(self) -> None:
        super().__init__()
        # Operations put off, by key: whatever comes later for the same key waits behind them.
        self._parked: dict[bytes, deque[Any]] = {}

    # --- what a driver provides ------------------------------------------------------------

    def submit(self, call: Any) -> None:
        """Send an operation to the node that owns its key, now or when that is possible."""
        raise NotImplementedError

    def adopt_from(self, node: Any, config: bytes) -> None:
        """Use the map that a node sent, if it is newer than the one in use."""
        raise NotImplementedError

    def _refresh(self) -> None:
        """Ask some node for its map."""
        raise NotImplementedError

    def _submit_later(self, call: Any, seconds: float) -> None:
        """Submit an operation after a pause, unless it is done by then."""
        raise NotImplementedError

    # --- putting off -----------------------------------------------------------------------

    def put_off(self, node: Any, call: Any, frame: Frame, action: Action) -> None:
        """Take an operation back that a node did not carry out."""
        call.pending = None
        call.last_status = frame.specific
        if action is Action.REMAP:
            before = self.map
            if frame.value:
                self.adopt_from(node, frame.value)
            else:
                self._refresh()
            if self.map is not before and not call.attempts and call.key_bytes not in self._parked:
                self.submit(call)
                return
        self._park(call)

    def _park(self, call: Any) -> None:
        """Repeat an operation after a pause; later ones on its key wait behind it."""
        if call.done:
            return
        attempt, call.attempts = call.attempts, call.attempts + 1
        key = call.key_bytes
        if key not in self._parked:
            self._parked[key] = deque()
        elif not attempt:
            # Another operation of this key is being repeated; this one was sent behind it.
            call.attempts = 0
            self._parked[key].append(call)
            return
        if not attempt:
            call.ended = self._release
        self._submit_later(call, retry_delay(attempt))

    def _release(self, ended: Any) -> None:
        """Let the operations go that waited behind a repeated one."""
        for call in self._parked.pop(ended.key_bytes, ()):
            if not call.done:
                self.submit(call)
