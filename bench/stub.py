"""A key-value server that costs far less than any client: GET has one answer, and SET keeps nothing.

It knows the handshake just well enough for this project's clients, reads only the opcode, length and number
of a request, and writes the answers to one chunk at once. So the client is measured.
"""

from __future__ import annotations

import json
from struct import Struct
from typing import Any

from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol

from couchbase.protocol.constants import HEADER_BYTES, Opcode
from couchbase.protocol.frames import FrameReader, encode_response

VBUCKETS = 1024
CAS = 0x1783_0000_0001_0000
# The value that bench/client_worker.py stores, as JSON.
VALUE = json.dumps({"text": "x" * 85, "number": 7}, separators=(",", ":")).encode()
TOKEN = bytes(range(16))

# magic, opcode, ..., body length, opaque as bytes
_HEAD = Struct(">xBxxxxxxI4s")
_OPAQUE_AT = 12


def _entry(text: bytes) -> bytes:
    """Return one part of the answer to a lookup of several paths."""
    return bytes(2) + len(text).to_bytes(4, "big") + text


def _around(answer: bytes) -> tuple[bytes, bytes]:
    """Return the parts of an answer before and after its opaque number."""
    return answer[:_OPAQUE_AT], answer[_OPAQUE_AT + 4 :]


ANSWERS = {
    int(opcode): _around(encode_response(opcode, cas=CAS, extras=extras, value=value))
    for opcode, extras, value in (
        (Opcode.GET, bytes(4), VALUE),
        (Opcode.SUBDOC_MULTI_LOOKUP, b"", _entry(b"0") + _entry(b"0") + _entry(VALUE)),
        (Opcode.SET, TOKEN, b""),
    )
}


class Stub(Protocol):
    """One client's connection."""

    def __init__(self) -> None:
        self._rest = b""

    def connectionMade(self) -> None:
        """Answers leave at once."""
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Answer every request that is complete."""
        if self._rest:
            data = self._rest + data
        out: list[bytes] = []
        add, unpack, answers = out.append, _HEAD.unpack_from, ANSWERS
        at, size = 0, len(data)
        while size - at >= HEADER_BYTES:
            opcode, body, opaque = unpack(data, at)
            end = at + HEADER_BYTES + body
            if end > size:
                break
            if opcode in answers:
                before, behind = answers[opcode]
                add(before)
                add(opaque)
                add(behind)
            else:
                add(self._greeting(data[at:end]))
            at = end
        self._rest = data[at:]
        self.transport.write(b"".join(out))  # type: ignore[union-attr]

    def _greeting(self, request: bytes) -> bytes:
        """Answer a step of the handshake."""
        (frame,) = FrameReader().feed(request)
        value = b""
        if frame.opcode == Opcode.HELLO:
            value = frame.value  # every feature that the client asks for
        elif frame.opcode == Opcode.SASL_LIST_MECHS:
            value = b"PLAIN"
        elif frame.opcode == Opcode.GET_CLUSTER_CONFIG:
            value = self._config()
        return encode_response(frame.opcode, opaque=frame.opaque, value=value)

    def _config(self) -> bytes:
        """Return the map of a cluster of this one node."""
        transport: Any = self.transport
        port = transport.getHost().port
        service = "kvSSL" if ISSLTransport.providedBy(transport) else "kv"
        return json.dumps(
            {
                "rev": 1,
                "name": "default",
                "nodesExt": [{"hostname": "127.0.0.1", "services": {service: port}}],
                "vBucketServerMap": {
                    "numReplicas": 0,
                    "serverList": [f"127.0.0.1:{port}"],
                    "vBucketMap": [[0]] * VBUCKETS,
                },
            }
        ).encode()
