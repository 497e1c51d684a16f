"""How many clients the limit on open file descriptors has room for, and what is said of those it has not."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from zope.interface import implementer

from gateway.options import Settings

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["REMEDY", "PortLog", "Refusals", "descriptor_limit", "others_need", "room_for_clients", "shortage"]

REMEDY = "raise the limit (systemd: LimitNOFILE=65536; shell: ulimit -n) or lower --max-clients"

_SPARE = 64
"""Standard streams, listening sockets, pipes, files of the embedded node, what plugins open."""

_LOG_SECONDS = 60.0


def descriptor_limit() -> int | None:
    """Return how many file descriptors this process may have open; ``None`` if there is no limit."""
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def others_need(settings: Settings) -> int:
    """Return how many descriptors a process that serves needs beside those of its clients, about.

    :param settings: of this process: of a worker, its share.
    """
    nodes = settings.nodes or 1 if settings.cluster is None else 1
    # An embedded node in the same process has the other end of each connection.
    ends = 2 if settings.cluster is None and settings.workers is None else 1
    return settings.limits.max_connections * nodes * ends + _SPARE


def room_for_clients(settings: Settings, limit: int | None) -> int:
    """Return how many clients to accept: ``--max-clients``, or fewer if the limit says so.

    Never so many that nothing would be left for connections to the cluster: a gateway that has clients and
    no cluster serves nobody.

    :param limit: see :func:`descriptor_limit`.
    """
    wanted = settings.limits.max_clients
    if limit is None:
        return wanted
    return max(1, min(wanted, limit - min(others_need(settings), limit // 4)))


def shortage(settings: Settings, limit: int | None, processes: int = 1) -> str | None:
    """Return a line that names limit and remedy if the clients wanted do not fit; else ``None``.

    :param settings: of one process that serves.
    :param processes: how many of those there are.
    """
    room = room_for_clients(settings, limit)
    wanted = settings.limits.max_clients
    if room >= wanted:
        return None
    where = "" if processes == 1 else f" in each of {processes} workers"
    return (
        f"the limit of {limit} file descriptors has room for {room} clients{where}, and --max-clients asks "
        f"for {wanted * processes}: beyond that they are refused; {REMEDY}"
    )


class Refusals:
    """Counts connections that were refused, and says so once a minute.

    :ivar counts: cause -> how many: ``max_clients`` or ``descriptors``.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.counts = {"max_clients": 0, "descriptors": 0}
        self._said: dict[str, float] = {}

    def too_many(self, clients: int, wanted: int) -> None:
        """A client came when there were as many as may be.

        :param wanted: ``--max-clients``; if there are fewer, the limit on descriptors is the cause.
        """
        if clients >= wanted:
            self._refused("max_clients", f"there are {clients}, as many as --max-clients allows")
        else:
            self._refused(
                "descriptors",
                f"there are {clients}, and the limit of {descriptor_limit()} file descriptors has no room "
                f"for more; {REMEDY}",
            )

    def exhausted(self, error: str, count: int = 1) -> None:
        """No connection can be accepted: the system has no descriptor or no memory left for it.

        :param count: how many were closed; 0 if they wait for better times.
        """
        self._refused(
            "descriptors", f"{error}; the limit is {descriptor_limit()} file descriptors: {REMEDY}", count
        )

    def _refused(self, cause: str, why: str, count: int = 1) -> None:
        self.counts[cause] += count
        now = self._clock.seconds()
        said = self._said.get(cause)
        if said is None or now - said >= _LOG_SECONDS:
            self._said[cause] = now
            self.log.warn("clients are refused ({count} so far): {why}", count=self.counts[cause], why=why)


@implementer(ILogObserver)
class PortLog:
    """What one of Twisted's ports logs to: its three lines for each refused client become one a minute."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals

    def __call__(self, event: Any) -> None:
        """Take a log event."""
        text = event.get("log_format") or ""
        if text.startswith("EMFILE recovery: Closed socket"):
            self._refusals.exhausted("no file descriptor is left")
        elif text.startswith("Could not accept new connection"):
            self._refusals.exhausted(f"accept failed with {event.get('acceptError')}", 0)
        elif "EMFILE" not in text:
            globalLogPublisher(event)

    def attach(self, port: Any) -> None:
        """Have a port log here, if it is one of Twisted's own."""
        if hasattr(port, "_logger"):
            port._logger = Logger(namespace="twisted.internet.tcp.Port", observer=self)
