"""Limits the number of clients by the limit on open file descriptors, and logs refused clients."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from gateway.settings import Settings
from reactor.descriptors import descriptor_limit

__all__ = [
    "REMEDY",
    "RefusedConnections",
    "others_need",
    "room_for_clients",
    "shortage",
]

REMEDY = "raise the limit (systemd: LimitNOFILE=65536; shell: ulimit -n) or lower --max-clients"

_SPARE = 64
"""Number of descriptors for standard streams, listening sockets, pipes, files of the embedded node, and
plugins."""

_LOG_SECONDS = 60.0


def others_need(settings: Settings) -> int:
    """Estimate how many descriptors a serving process needs in addition to those of its clients.

    :param settings: of this process; in a worker, the worker's share.
    """
    nodes = settings.nodes or 1 if settings.cluster is None else 1
    # With an embedded node, this process has both ends of each connection.
    ends = 2 if settings.cluster is None and settings.workers is None else 1
    # The embedded node has no services but documents and views.
    services = 0 if settings.cluster is None else settings.limits.max_service_requests
    return settings.limits.max_connections * nodes * ends + services + _SPARE


def room_for_clients(settings: Settings, limit: int | None) -> int:
    """Return how many clients to accept: ``--max-clients``, or fewer if the descriptor limit is lower.

    Some descriptors are always reserved for connections to the cluster: without them the gateway cannot serve
    its clients.

    :param limit: see :func:`descriptor_limit`.
    """
    wanted = settings.limits.max_clients
    if limit is None:
        return wanted
    return max(1, min(wanted, limit - min(others_need(settings), limit // 4)))


def shortage(settings: Settings, limit: int | None, processes: int = 1) -> str | None:
    """Return a line that names the limit and the remedy if ``--max-clients`` exceeds the limit; else
    ``None``.

    :param settings: of one serving process.
    :param processes: number of serving processes.
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


class RefusedConnections:
    """Counts refused connections, and logs them at most once a minute.

    :ivar counts: cause (``max_clients`` or ``descriptors``) -> number of refusals.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.counts = {"max_clients": 0, "descriptors": 0}
        self._said: dict[str, float] = {}

    def too_many(self, clients: int, wanted: int) -> None:
        """Count a client that was refused because the maximum was reached.

        :param wanted: ``--max-clients``; with fewer clients than that, the descriptor limit is the cause.
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
        """Count connections that could not be accepted because the system has no descriptor or memory left.

        :param count: number of closed connections; 0 if they stay in the backlog.
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
