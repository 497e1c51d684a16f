"""A client of HTTP/2 for tests, over real sockets or in memory."""

from __future__ import annotations

import json
import struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from hpack import Decoder
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.gateway.support import HalfClosing


def frame(kind: int, stream: int = 0, content: bytes = b"", flags: int = 0) -> bytes:
    """Return a frame."""
    return struct.pack(">HBBBL", len(content) >> 8, len(content) & 255, kind, flags, stream) + content


Fields = list[tuple[bytes, bytes]]


class Received:
    """What a client has received on a stream."""

    def __init__(self) -> None:
        self.informed: list[int] = []
        self.fields: Fields = []
        self.body = b""
        self.is_complete = False
        self.error: ErrorCodes | None = None
        """The code with which the stream was reset."""

    @property
    def status(self) -> int:
        return int(dict(self.fields)[b":status"]) if self.fields else 0

    @property
    def is_over(self) -> bool:
        return self.is_complete or self.error is not None

    def header(self, name: bytes) -> bytes | None:
        return dict(self.fields).get(name)

    def json(self) -> Any:
        return json.loads(self.body)


class Client(Protocol):
    """A client; it reads everything at once, unless ``acknowledges`` is false."""

    def __init__(self, settings: dict[int, int] | None = None, *, acknowledges: bool = True) -> None:
        # A test may have to send what is wrong.
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=True,
            )
        )
        if settings:
            self.h2.local_settings.update(settings)
            self.h2.local_settings.acknowledge()
        self.acknowledges = acknowledges
        self.events: list[Any] = []
        self.streams: dict[int, Received] = {}
        self.ended: ConnectionTerminated | None = None
        """The GOAWAY that ended the connection."""
        self.notices: list[ConnectionTerminated] = []
        """Every GOAWAY."""
        self.lost: Deferred[None] = Deferred()
        self.is_lost = False
        self._waiting: list[tuple[Any, Deferred[None]]] = []
        self._next = 1
        self._buffer = b""

    # ---- what tests ask for ----------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what h2 has to send."""
        data = self.h2.data_to_send()
        if data:
            self.transport.write(data)  # type: ignore[union-attr]

    def send(self, *frames: bytes) -> None:
        """Send frames past h2."""
        self.flush()
        self.transport.write(b"".join(frames))  # type: ignore[union-attr]

    def begin(
        self, method: str, path: str, /, headers: Any = (), *, ends: bool = False, **pseudo: Any
    ) -> int:
        """Send a head; returns the stream's number.

        :param pseudo: replaces pseudo-header fields; ``None`` leaves one out.
        """
        fields: dict[str, Any] = {
            "method": method.encode(), "scheme": b"http", "authority": b"localhost", "path": path.encode(),
            **pseudo,
        }  # fmt: skip
        number, self._next = self._next, self._next + 2
        self.streams[number] = Received()
        head = [(b":" + name.encode(), value) for name, value in fields.items() if value is not None]
        self.h2.send_headers(number, head + list(headers), end_stream=ends)
        self.flush()
        return number

    def request(self, method: str, path: str, /, body: bytes = b"", headers: Any = (), **pseudo: Any) -> int:
        """Send a request with a body that fits the windows; returns the stream's number."""
        if body:
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        number = self.begin(method, path, headers, ends=not body, **pseudo)
        for start in range(0, len(body), 16384):
            part = body[start : start + 16384]
            self.h2.send_data(number, part, end_stream=start + 16384 >= len(body))
        self.flush()
        return number

    def data(self, number: int, data: bytes, *, ends: bool = False) -> None:
        """Send a part of a body that fits the windows."""
        self.h2.send_data(number, data, end_stream=ends)
        self.flush()

    def until(self, condition: Any) -> Deferred[None]:
        """Fire when a condition holds, which is tried with everything that arrives."""
        found: Deferred[None] = Deferred()
        self._waiting.append((condition, found))
        self._look()
        return found

    def answered(self, *numbers: int) -> Deferred[None]:
        """Fire when streams are over."""
        return self.until(lambda: all(self.streams[number].is_over for number in numbers))

    # ---- Protocol --------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        for event in self.h2.receive_data(self._without_goaway(data)):
            self._take(event)
        self.flush()
        self._look()

    def _without_goaway(self, data: bytes) -> bytes:
        """Note each GOAWAY, after which h2 would take nothing more."""
        self._buffer += data
        kept = b""
        while len(self._buffer) >= 9:
            end = 9 + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < end:
                break
            frame, self._buffer = self._buffer[:end], self._buffer[end:]
            if frame[3] != 7:
                kept += frame
                continue
            self.ended = ConnectionTerminated()
            self.ended.last_stream_id = int.from_bytes(frame[9:13], "big")
            self.ended.error_code = ErrorCodes(int.from_bytes(frame[13:17], "big"))
            self.ended.additional_data = frame[17:]
            self.notices.append(self.ended)
        return kept

    def _take(self, event: Any) -> None:
        self.events.append(event)
        stream = self.streams.get(getattr(event, "stream_id", 0))
        if stream is None:
            return
        if isinstance(event, InformationalResponseReceived):
            stream.informed.append(int(dict(event.headers)[b":status"]))
        elif isinstance(event, (ResponseReceived, TrailersReceived)):
            stream.fields += event.headers
        elif isinstance(event, DataReceived):
            stream.body += event.data
            if self.acknowledges:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            stream.is_complete = True
        elif isinstance(event, StreamReset):
            stream.error = event.error_code

    def _look(self) -> None:
        waiting, self._waiting = self._waiting, []
        for condition, found in waiting:
            if condition():
                found.callback(None)
            else:
                self._waiting.append((condition, found))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self.lost.callback(None)
        self._look()

    @property
    def opened(self) -> dict[int, int]:
        """For each stream (0: the connection), how far the server has opened its window again."""
        found: dict[int, int] = {}
        for event in self.events:
            if isinstance(event, WindowUpdated):
                found[event.stream_id] = found.get(event.stream_id, 0) + event.delta
        return found


class Attacker(Client):
    """A client that sends frames past h2, and so reads without it."""

    def __init__(self, settings: dict[int, int] | None = None) -> None:
        super().__init__(settings)
        self._decoder = Decoder()

    def dataReceived(self, data: bytes) -> None:
        kept = self._without_goaway(data)
        while kept:
            end = 9 + int.from_bytes(kept[:3], "big")
            kind, number, content = kept[3], int.from_bytes(kept[5:9], "big"), kept[9:end]
            self.events.append(kind)
            stream = self.streams.setdefault(number, Received())
            if kind == 1:
                stream.fields += self._decoder.decode(content, raw=True)
            elif kind == 0:
                stream.body += content
            elif kind == 3:
                stream.error = ErrorCodes(int.from_bytes(content, "big"))
            if kind in (0, 1) and kept[4] & 1:
                stream.is_complete = True
            kept = kept[end:]


class Silent(Protocol):
    """A client that sends some bytes, and then reads only."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.received = b""
        self.lost: Deferred[None] = Deferred()
        self.is_lost = False

    def connectionMade(self) -> None:
        self.transport.write(self._data)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self.lost.callback(None)


class Wire:
    """A client in memory, at a server's factory.

    :param clock: the server's.
    """

    def __init__(self, factory: Any, clock: Any, client: Client | None = None) -> None:
        self.clock = clock
        self.server = HalfClosing()
        self.server.protocol = factory.buildProtocol(None)
        self.server.protocol.makeConnection(self.server)
        self.client = client or Client()
        self.out = StringTransport()
        self.frames: list[tuple[int, int, int]] = []
        """Frames of the server: kind, stream, and the first number of the content."""
        self.client.makeConnection(self.out)
        self.pump()

    @property
    def connection(self) -> Any:
        """The server's end."""
        return self.server.protocol

    def pump(self) -> None:
        """Carry bytes in both directions until there are none."""
        for _ in range(10000):
            self.clock.advance(0)
            sent, received = self.out.value(), self.server.value()
            self.out.clear()
            self.server.clear()
            if sent and self.server.protocol is not None:
                self.server.protocol.dataReceived(sent)
            if received:
                self._note(received)
                self.client.dataReceived(received)
            if not sent and not received:
                break
        if not self.server.connected and not self.client.is_lost:
            self.client.connectionLost()

    def _note(self, data: bytes) -> None:
        while data:
            end = 9 + int.from_bytes(data[:3], "big")
            number = int.from_bytes(data[9:13], "big") if end >= 13 else 0
            self.frames.append((data[3], int.from_bytes(data[5:9], "big"), number))
            data = data[end:]

    def ask(self, method: str, path: str, /, body: bytes = b"", headers: Any = (), **pseudo: Any) -> Received:
        """Return what was received for a request, as far as it is answered."""
        number = self.client.request(method, path, body, headers, **pseudo)
        self.pump()
        return self.client.streams[number]


__all__ = ["Attacker", "Client", "Fields", "Received", "Silent", "Wire"]
