"""The form of an answer in HTTP/1.1: status line, headers, and a body with its length, or in chunks."""

from __future__ import annotations

from gateway.http.exchange import NO_BODY, SLICED_BYTES, Exchange
from gateway.http.kleinfallback import WebChannel
from gateway.http.outlet import Outlet, Slices
from gateway.http.phases import AnswerPhase
from gateway.http.response import REASONS, BodyProducer, Response

__all__ = ["HTTP1Exchange", "status_line"]

_STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in REASONS.items()}

OPEN, COMPLETE = AnswerPhase.OPEN, AnswerPhase.COMPLETE


def status_line(status: int) -> bytes:
    """Return the first line of an answer."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


class HTTP1Exchange(Exchange):
    """A request on an HTTP/1.1 or HTTP/1.0 connection.

    Nothing is written to the channel before the answers to earlier requests are complete, as a channel has
    one exchange at a time.
    """

    web_channel = WebChannel

    @property
    def http_version(self) -> bytes:  # type: ignore[override]
        """The version that the client speaks."""
        return b"1.1" if self.is_1_1 else b"1.0"

    def respond(self, response: Response) -> None:
        """Write the answer."""
        body = response.body
        channel = self._channel
        factory = channel.factory
        if (
            type(body) is bytes
            and self.phase is OPEN
            and self.keep_alive
            and self.incoming is None
            and (size := len(body)) < SLICED_BYTES
            and not factory.stopping
        ):
            # The usual case. Headers and body are joined here once, without an intermediate copy.
            self.under_way = None
            self.phase = COMPLETE
            status = response.status
            if self.given_id is None and status not in NO_BODY and self.method != "HEAD":
                self.sent_bytes = size
                channel.write(
                    b"%b%x\r\n%bContent-Length: %d\r\n\r\n%b"
                    % (factory.beginnings[status], self.number, response.block(), size, body)
                )
            else:
                self._write_whole(status, response.block(), body)
            if self._reserved:
                self._release()
            if channel.is_stalled:
                self._status = status
                channel.unsent_exchange = self
            else:
                # The exchange is finished, so _is_over is not read any more.
                application = self.application
                seconds = application.seconds() - self.started
                for hook in application.end_hooks:
                    try:
                        hook(self, status, seconds)
                    except Exception:  # noqa: BLE001  # a plugin's fault must not cost the answer
                        self._log.failure("a plugin's on_end failed for request {id}", id=self.id)
            channel.done(self)
            return
        super().respond(response)

    def _write_whole(self, status: int, block: bytes, body: bytes) -> None:
        """Write a complete answer, of any status and to any method."""
        channel = self._channel
        if status in NO_BODY and self.given_id is None:
            channel.write(b"%b%x\r\n%b\r\n" % (channel.factory.beginnings[status], self.number, block))
            return
        head = channel.factory.head(status)
        name = self.given_id or b"%b-%x" % (self.application.id_prefix, self.number)
        if status in NO_BODY:
            channel.write(b"%b%b\r\n%b\r\n" % (head, name, block))
            return
        size = len(body)
        if self.method == "HEAD":
            body = b""
        else:
            self.sent_bytes = size
        channel.write(b"%b%b\r\n%bContent-Length: %d\r\n\r\n%b" % (head, name, block, size, body))

    def make_head(self, response: Response) -> bytes:
        """Return status line and headers."""
        status, body = response.status, response.body
        head = [self._channel.factory.head(status), self.id_bytes, b"\r\n", response.block()]
        if status in NO_BODY:
            # Neither header may be sent (RFC 9110 8.6, RFC 9112 6.1), and nothing after the head.
            pass
        elif isinstance(body, bytes):
            head.append(b"Content-Length: %d\r\n" % len(body))
        elif self.is_1_1:
            head.append(b"Transfer-Encoding: chunked\r\n")
        else:
            self.keep_alive = False
        if not self.keep_alive:
            head.append(b"Connection: close\r\n")
        head.append(b"\r\n")
        return b"".join(head)

    def begin(self, head: bytes, body: bytes = b"") -> None:
        """Send a head, with the whole body or without any of it."""
        self._channel.write(head + body if body else head)

    def outlet(self, producer: BodyProducer) -> Outlet:
        """Return the outlet for a produced body; slices of a body with a given length are not sent as
        chunks."""
        is_of_known_length = isinstance(producer, Slices)
        return Outlet(self, self._channel.write, producer, chunked=self.is_1_1 and not is_of_known_length)

    def invite_body(self) -> None:
        """Ask for a body that is wanted, if the client waits to be asked."""
        if self.waits_to_be_asked:
            self._channel.write(b"HTTP/1.1 100 Continue\r\n\r\n")
