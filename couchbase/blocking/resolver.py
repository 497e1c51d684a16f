"""Looks up a cluster's SRV records, over UDP and, if necessary, TCP."""

from __future__ import annotations

import random
import secrets
import socket
from collections.abc import Sequence
from time import monotonic
from types import ModuleType

from couchbase.protocol.connstr import Address, Seed
from couchbase.protocol.srv import (
    Answer,
    DnsError,
    decode_answer,
    encode_query,
    nameserver,
    nameservers,
    seeds_of,
    service_name,
)

LOOKUP_SECONDS = 1.0
"""Timeout of a lookup in seconds; without an answer the name is used as a node's host name."""
_RESOLV_CONF = "/etc/resolv.conf"


class Srv:
    """The nodes behind a name, looked up again when the answer has expired.

    :param servers: name servers as ``(host, port)``; ``None`` for the servers in ``/etc/resolv.conf``.
    :param sockets: the module of the sockets to use.
    """

    def __init__(
        self, name: str, tls: bool, servers: Sequence[tuple[str, int]] | None, sockets: ModuleType = socket
    ) -> None:
        self.name = name
        self._tls = tls
        self._servers = servers
        self._sockets = sockets
        self._until = 0.0

    def seeds(self) -> tuple[Seed, ...] | None:
        """Return the nodes to use as seeds, ``None`` if the last answer is still valid or there are no
        records.

        Blocks for up to a second.
        """
        if monotonic() < self._until:
            return None
        answer = lookup(self.name, self._known_servers(), LOOKUP_SECONDS, self._sockets)
        self._until = monotonic() + answer.ttl
        return seeds_of(answer.records, self._tls, random.random) or None

    def _known_servers(self) -> Sequence[tuple[str, int]]:
        if self._servers is not None:
            return self._servers
        try:
            with open(_RESOLV_CONF, encoding="utf-8", errors="replace") as file:
                return nameservers(file.read(65536))
        except OSError:
            return ()


def srv_of(address: Address, sockets: ModuleType = socket) -> Srv | None:
    """Return a resolver for a connection string's name; ``None`` if it cannot be the name of a cluster.

    :raises CouchbaseError: InvalidError, its option ``nameserver`` is malformed.
    """
    given = address.options.get("nameserver")
    servers = None if given is None else [nameserver(given)]
    if len(address.seeds) != 1 or not address.has_default_port:
        return None
    name = service_name(address.seeds[0].host, address.tls)
    return None if name is None else Srv(name, address.tls, servers, sockets)


def lookup(
    name: str, servers: Sequence[tuple[str, int]], timeout: float, sockets: ModuleType = socket
) -> Answer:
    """Ask name servers, one after the other, for SRV records; empty if none returns records in time."""
    deadline = monotonic() + timeout
    for index, server in enumerate(servers):
        left = deadline - monotonic()
        if left <= 0:
            break
        try:
            return _ask(name, server, monotonic() + left / (len(servers) - index), sockets)
        except (OSError, DnsError):
            continue
    return Answer((), 0)


def _ask(name: str, server: tuple[str, int], deadline: float, sockets: ModuleType) -> Answer:
    number = secrets.randbelow(65536)
    query = encode_query(number, name)
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with sockets.socket(family, socket.SOCK_DGRAM) as sock:
        # A connected socket receives only from this peer. The system chooses a random port.
        sock.connect(server)
        sock.send(query)
        while True:
            sock.settimeout(max(0.001, deadline - monotonic()))
            answer = decode_answer(number, name, sock.recv(65535))
            if answer is not None:
                break
            if monotonic() >= deadline:
                raise TimeoutError("no answer in time")
    return _ask_by_tcp(number, name, query, server, deadline, sockets) if answer.truncated else answer


def _ask_by_tcp(
    number: int, name: str, query: bytes, server: tuple[str, int], deadline: float, sockets: ModuleType
) -> Answer:
    with sockets.create_connection(server, max(0.001, deadline - monotonic())) as sock:
        sock.sendall(len(query).to_bytes(2, "big") + query)
        data = b""
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
            sock.settimeout(max(0.001, deadline - monotonic()))
            more = sock.recv(65536)
            if not more or monotonic() >= deadline:
                raise DnsError("the name server closed the connection")
            data += more
    answer = decode_answer(number, name, data[2:])
    if answer is None or answer.truncated:
        raise DnsError("the name server's answer does not match the question")
    return answer
