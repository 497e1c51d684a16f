"""What a client leaves that was killed after it had decided to commit: some other client has to finish it.

A transaction is nothing but attributes of documents, so they are written here as such.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from struct import pack
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from couchbase.protocol.constants import Feature, Opcode
from couchbase.protocol.hashing import vbucket_of
from tests.couchnode.kv.subdocs import ADD, UPSERT, C, D, K, M, P, X, change
from tests.couchnode.nodes import Client

_ATTEMPT, _RECORD = "11111111-2222-4333-8444-555555555555", "_txn:atr-0-#14"
_CAS, _CRC = b'"${Mutation.CAS}"', b'"${Mutation.value_crc32c}"'
_DELETED_OK = (0, 0xCD)


def _staged(kind: str, content: Any = None) -> bytes:
    """Return the attribute that a transaction leaves at a document until it is over."""
    ids = {"txn": "99999999-2222-4333-8444-555555555555", "atmpt": _ATTEMPT, "op": _ATTEMPT}
    record = {"id": _RECORD, "bkt": "default", "scp": "_default", "coll": "_default"}
    operation = {"type": kind} if content is None else {"type": kind, "stgd": content}
    return json.dumps({"id": ids, "atr": record, "op": operation}).encode()


def _entry(**documents: str) -> bytes:
    """Return a transaction's entry in its record: committed, and past its time in a moment."""
    entry: dict[str, Any] = {"tid": _ATTEMPT, "st": "COMMITTED", "exp": 1, "d": "n", "p": 0}
    for kind, key in documents.items():
        entry[kind] = [{"bkt": "default", "scp": "_default", "col": "_default", "id": key}]
    return json.dumps(entry).encode()


@inlineCallbacks
def leave_a_commit(
    addresses: list[tuple[str, int]], user: str, password: str
) -> Generator[Deferred[Any], Any, None]:
    """Leave a committed transaction unfinished: it has inserted ``late-new``, replaced ``late-old`` and
    removed ``late-gone``.

    :param addresses: the key-value ports of all nodes; each request goes to the one that has its document.
    """
    clients: list[Client] = []
    for host, port in addresses:
        client = yield connectProtocol(TCP4ClientEndpoint(reactor, host, port), Client())
        yield client.hello(Feature.XERROR, Feature.XATTR, Feature.JSON, Feature.SELECT_BUCKET)
        yield client.plain(user, password)
        yield client.ask(Opcode.SELECT_BUCKET, key=b"default")
        clients.append(client)

    @inlineCallbacks
    def ask(opcode: int, key: str, **parts: Any) -> Generator[Deferred[Any], Any, None]:
        statuses = []
        for client in clients:
            answer = yield client.ask(
                opcode, key=key.encode(), vbucket=vbucket_of(key.encode(), 1024), **parts
            )
            if answer.specific in _DELETED_OK:
                return
            statuses.append(answer.specific)
        raise AssertionError(f"{key}: {statuses}")

    crc = change(UPSERT, b"txn.op.crc32", _CRC, X | M)
    for key in ("late-old", "late-gone"):
        yield ask(Opcode.SET, key, extras=bytes(8), value=b'{"v":1}')
    new = change(ADD, b"txn", _staged("insert", {"v": "late"}), X) + crc
    yield ask(Opcode.SUBDOC_MULTI_MUTATION, "late-new", extras=bytes((K | D | C,)), value=new)
    old = change(UPSERT, b"txn", _staged("replace", {"v": 2}), X) + crc
    yield ask(Opcode.SUBDOC_MULTI_MUTATION, "late-old", value=old)
    gone = change(UPSERT, b"txn", _staged("remove"), X) + crc
    yield ask(Opcode.SUBDOC_MULTI_MUTATION, "late-gone", value=gone)
    path = f"attempts.{_ATTEMPT}".encode()
    record = (
        change(UPSERT, path, _entry(ins="late-new", rep="late-old", rem="late-gone"), X | P)
        + change(UPSERT, path + b".tst", _CAS, X | M)
        + change(UPSERT, path + b".tsc", _CAS, X | M)
        + change(Opcode.SET, b"", b"\0")
    )
    yield ask(Opcode.SUBDOC_MULTI_MUTATION, _RECORD, extras=pack(">B", K), value=record)
    for client in clients:
        client.transport.loseConnection()  # type: ignore[union-attr]
        yield client.lost
