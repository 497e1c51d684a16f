"""Key-value requests as prepared bytes, many of them under way, so that only the node is measured."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterable
from contextlib import AbstractContextManager

from bench.serve import PASSWORD, USER
from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.frames import Frame, FrameReader, encode_request
from couchbase.protocol.hashing import vbucket_of

VBUCKETS = 1024
REQUESTS_UNDER_WAY = 500


class RawClient(AbstractContextManager["RawClient"]):
    """One connection to the first node of a connection string; use as a context manager.

    :param bucket: the one selected.
    :param has_collections: whether keys begin with the id of their collection.
    """

    def __init__(
        self, connection_string: str, bucket: str = "default", *, has_collections: bool = False
    ) -> None:
        host, port = connection_string.split("//")[1].split(",")[0].rsplit(":", 1)
        self.connection = socket.create_connection((host, int(port)))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = FrameReader()
        features = struct.pack(">HH", 0x06, 0x12) if has_collections else struct.pack(">H", 0x06)
        self.ask([encode_request(Opcode.HELLO, key=b"bench", value=features)])
        self.ask([encode_request(Opcode.SASL_AUTH, key=b"PLAIN", value=f"\0{USER}\0{PASSWORD}".encode())])
        self.ask([encode_request(Opcode.SELECT_BUCKET, key=bucket.encode())])

    def ask(self, requests: list[bytes]) -> None:
        """Send requests, and wait for as many answers.

        :raises RuntimeError: one of them failed, or the connection is closed.
        """
        self.connection.sendall(b"".join(requests))
        frames: list[Frame] = []
        while len(frames) < len(requests):
            data = self.connection.recv(65536)
            if not data:
                raise RuntimeError("the node closed the connection")
            frames += self._reader.feed(data)
        for frame in frames:
            if frame.specific != Status.SUCCESS:
                raise RuntimeError(f"the node answered {frame}")

    def store(self, documents: Iterable[tuple[str, bytes]]) -> int:
        """Set documents, given as (id, text), and return how many they were."""
        requests = (set_request(key.encode(), value) for key, value in documents)
        count = 0
        while some := list(itertools.islice(requests, REQUESTS_UNDER_WAY)):
            self.ask(some)
            count += len(some)
        return count

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.connection.close()


def set_request(key: bytes, value: bytes, flags: bytes = bytes(4), prefix: bytes = b"") -> bytes:
    """Return a request to store a value that does not expire, under a key behind a collection's prefix."""
    vbucket = vbucket_of(key, VBUCKETS)
    return encode_request(Opcode.SET, key=prefix + key, extras=flags + bytes(4), value=value, vbucket=vbucket)
