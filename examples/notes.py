"""Notes over HTTP: another Klein app on the gateway's HTTP server.

    python examples/notes.py --port 8081

    curl -i -X PUT --data-binary 'buy milk' http://127.0.0.1:8081/notes/today
    curl -i http://127.0.0.1:8081/notes/today
    curl -i http://127.0.0.1:8081/notes
    curl -i http://127.0.0.1:8081/hello/7

Nothing here has to do with documents or Couchbase. Handlers with ``@endpoint`` take a ``Request`` and return
a ``Response``, or a Deferred of one; they are found and called without Klein. The last route is Klein's own,
as in any site of twisted.web. The server sees to bodies, slow clients, deadlines and the errors of HTTP.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from klein import Klein
from twisted.internet import reactor as installed
from twisted.internet.endpoints import TCP4ServerEndpoint

from gateway.http import (
    Application,
    ChannelFactory,
    Gate,
    Limits,
    Refusal,
    Request,
    Response,
    declare,
    endpoint,
    json_response,
    mount,
    no_route,
)
from gateway.http.refusal import Retry

MAX_NOTES = 1000

declare(
    [
        ("NoteNotFound", 404, Retry.NEVER, "There is no such note."),
        ("TooManyNotes", 409, Retry.NEVER, f"There are {MAX_NOTES} notes already; delete one."),
    ]
)


class AllNotes:
    """The body of an answer that is made while it is sent: a note a line.

    :param notes: their names and texts.
    """

    def __init__(self, notes: Iterator[tuple[str, bytes]]) -> None:
        self._notes = notes
        self._is_paused = False
        self._sink: Any = None

    def start(self, sink: Any) -> None:
        """Begin to write."""
        self._sink = sink
        self._go_on()

    def pause(self) -> None:
        """The client reads more slowly than this writes."""
        self._is_paused = True

    def resume(self) -> None:
        """The client has caught up."""
        self._is_paused = False
        self._go_on()

    def cancel(self) -> None:
        """The client is gone."""
        self._sink = None

    def _go_on(self) -> None:
        while self._sink is not None and not self._is_paused:
            note = next(self._notes, None)
            if note is None:
                sink, self._sink = self._sink, None
                sink.finish()
            else:
                self._sink.write(b"%b: %b\n" % (note[0].encode(), note[1]))


class Notes:
    """Short texts under names, in memory."""

    def __init__(self) -> None:
        self._notes: dict[str, bytes] = {}

    @endpoint("list_notes", "GET", "/notes")
    def list_notes(self, request: Request) -> Response:
        """Send all notes."""
        return Response(200, [(b"Content-Type", b"text/plain")], AllNotes(iter(sorted(self._notes.items()))))

    @endpoint("get_note", "GET", "/notes/<name>")
    def get_note(self, request: Request) -> Response:
        """Send one note."""
        return Response(200, [(b"Content-Type", b"text/plain")], self._notes[self._existing(request)])

    @endpoint("put_note", "PUT", "/notes/<name>")
    def put_note(self, request: Request) -> Response:
        """Keep a note."""
        name = request.parameters["name"].decode()
        if name not in self._notes and len(self._notes) >= MAX_NOTES:
            raise Refusal("TooManyNotes")
        self._notes[name] = request.body()
        return json_response({"name": name, "bytes": len(self._notes[name])})

    @endpoint("delete_note", "DELETE", "/notes/<name>")
    def delete_note(self, request: Request) -> Response:
        """Forget a note."""
        del self._notes[self._existing(request)]
        return Response(204)

    def _existing(self, request: Request) -> str:
        name = request.parameters["name"].decode()
        if name not in self._notes:
            raise Refusal("NoteNotFound", resource=f"/notes/{name}")
        return name


def make_factory(reactor: Any, limits: Limits | None = None) -> ChannelFactory:
    """Return what makes the connections of the app."""
    app = Klein()

    @app.route("/hello/<int:number>")
    def hello(request: Any, number: int) -> bytes:
        request.setHeader("Content-Type", "text/plain")
        return b"hello, number %d\n" % number

    application = Application(app, reactor, limits=limits or Limits(max_body=10_000, max_buffered=10_000_000))
    application.missing_route = no_route
    mount(app, Notes(), application.run_under_klein)
    application.routes_are_complete()
    return ChannelFactory(application, reactor, Gate(reactor))


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Notes over HTTP.")
    parser.add_argument(
        "--port", type=int, default=8081, help="TCP port on 127.0.0.1; 0 takes any (default 8081)"
    )
    port = parser.parse_args().port
    reactor: Any = installed
    factory = make_factory(reactor)
    listening = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1").listen(factory)
    listening.addCallback(lambda it: print(f"http://127.0.0.1:{it.getHost().port}/notes", flush=True))
    # Running requests finish first.
    reactor.addSystemEventTrigger("before", "shutdown", factory.stop)
    reactor.run()


if __name__ == "__main__":
    main()
