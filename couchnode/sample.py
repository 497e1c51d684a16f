"""Samples: files of JSON lines, plain or compressed, read into a bucket when a node starts.

Most lines are documents. One whose id begins with ``_design/`` is a design document.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from couchbase.protocol import jsontext
from couchbase.protocol.constants import MAX_KEY_BYTES, MAX_VALUE_BYTES, Status
from couchbase.protocol.hashing import vbucket_of
from couchnode.cluster.cluster import Cluster
from couchnode.cluster.designs import DesignDocument, DesignError
from couchnode.cluster.layout import NO_NODE
from couchnode.cluster.members import NoSuchBucket
from couchnode.data.item import StatusError
from couchnode.data.keys import DEFAULT_PREFIX
from couchnode.data.manifest import DEFAULT_ID
from couchnode.data.storemode import StoreMode
from couchnode.views.workerclient import WorkerError

DESIGN_PREFIX = b"_design/"
"""Prefix of a design document's id; its name follows."""

PutDesign = Callable[[str, str, bytes], Deferred[DesignDocument]]
"""Stores a design document: takes bucket, name and text. Fails with DesignError if it is invalid."""

JSON_FLAGS = 0x02000000
"""Item flags of JSON documents in all current SDKs."""

_LINES_A_TURN = 200
_LONGEST_LINE = 2 * MAX_VALUE_BYTES

_log = Logger()


class SampleError(Exception):
    """The file cannot be read; the text names it and says why."""


class SampleReport(NamedTuple):
    """The outcome of loading a file.

    :ivar stored: documents new in the bucket, including design documents.
    :ivar kept: documents that already existed, and were left unchanged.
    :ivar rejected: number of invalid lines.
    """

    stored: int
    kept: int
    rejected: int


class Line(NamedTuple):
    """One line of a sample file: a document, or (``fault``) what is wrong with it."""

    number: int
    key: bytes
    value: bytes
    fault: str


def read_lines(path: Path) -> Iterator[Line]:
    """Read a sample file, one document at a time.

    Each line is ``{"id": KEY, "doc": ANY}``; empty lines are skipped. A file whose name ends in ``.gz`` is
    decompressed as it is read.

    :raises SampleError: the file cannot be read, or decompressed, to its end.
    """
    try:
        with _open(path) as file:
            for number in range(1, 2**62):
                line = file.readline(_LONGEST_LINE)
                if not line:
                    return
                if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
                    raise SampleError(f"{path}, line {number}: longer than {_LONGEST_LINE} bytes")
                if line.strip():
                    yield _parse(number, line)
    except (OSError, EOFError) as fault:
        raise SampleError(f"the sample {path} cannot be read: {fault}") from fault


@inlineCallbacks
def load_sample(
    cluster: Cluster, bucket: str, path: Path, put_design: PutDesign | None = None
) -> Generator[Deferred[Any], Any, SampleReport]:
    """Add the documents of a file to a bucket, a few hundred per reactor turn; the file is read in threads.

    Existing documents are not changed: they may be newer than the sample. Invalid lines are logged with
    their numbers and skipped.

    :param put_design: stores design documents; by default the cluster stores them without checking that their
        functions compile.
    :returns: fires with the result. Fails with :class:`SampleError`.
    """
    lines = read_lines(path)
    stored = kept = rejected = 0
    while True:
        some: list[Line] = yield deferToThread(lambda: list(islice(lines, _LINES_A_TURN)))
        if not some:
            break
        for line in some:
            fault = line.fault
            if not fault:
                try:
                    if line.key.startswith(DESIGN_PREFIX):
                        yield _add_design(cluster, bucket, line, put_design or cluster.put_design)
                    else:
                        _add(cluster, bucket, line)
                    stored += 1
                    continue
                except (DesignError, WorkerError) as impossible:
                    fault = str(impossible)
                except StatusError as refused:
                    if refused.status == Status.KEY_EEXISTS:
                        kept += 1
                        continue
                    fault = f"{refused.status.name} {refused.context}".strip()
            rejected += 1
            _log.warn("{path}, line {number}: {fault}", path=str(path), number=line.number, fault=fault)
    _log.info(
        "sample {path}: {stored} documents added to {bucket}, {kept} were there, {rejected} bad lines",
        path=str(path),
        bucket=bucket,
        stored=stored,
        kept=kept,
        rejected=rejected,
    )
    return SampleReport(stored, kept, rejected)


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return open(path, "rb")


def _parse(number: int, line: bytes) -> Line:
    text = line.strip()
    if not jsontext.is_json(text):
        return Line(number, b"", b"", "not JSON")
    # The text as written: serialized again, numbers might have different digits, or become invalid.
    entry = {}
    if text.startswith(b"{"):
        for name, start, end in jsontext.at_once(jsontext.members(text, 0)):
            entry[json.loads(name)] = text[start:end]
    if not entry.get("id", b"").startswith(b'"') or "doc" not in entry:
        return Line(number, b"", b"", 'expected {"id": "...", "doc": ...}')
    try:
        key = json.loads(entry["id"]).encode("utf-8")
    except UnicodeEncodeError:
        return Line(number, b"", b"", "the id is not valid Unicode")
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        return Line(
            number, b"", b"", f"an id has 1 to {MAX_KEY_BYTES} bytes of UTF-8, this one has {len(key)}"
        )
    value = entry["doc"]
    if len(value) > MAX_VALUE_BYTES:
        return Line(number, b"", b"", f"a document has at most {MAX_VALUE_BYTES} bytes")
    return Line(number, key, value, "")


def _add_design(cluster: Cluster, bucket: str, line: Line, put_design: PutDesign) -> Deferred[Any]:
    """Store a design document, unless there is one of its name; fails with DesignError.

    :raises StatusError: the design document exists, or the bucket is gone.
    """
    name = line.key[len(DESIGN_PREFIX) :].decode("utf-8")
    try:
        if name in cluster.bucket(bucket).designs:
            raise StatusError(Status.KEY_EEXISTS, "the design document exists")
    except NoSuchBucket:
        raise StatusError(Status.NO_BUCKET, "the bucket is gone") from None
    return put_design(bucket, name, line.value)


def _add(cluster: Cluster, bucket: str, line: Line) -> None:
    """Add one document to the node where its vbucket is active.

    :raises StatusError: it exists, there is no room, or no node has its vbucket.
    """
    rows = cluster.bucket(bucket).rows
    vbid = vbucket_of(line.key, len(rows))
    active = rows[vbid][0]
    vbucket = None if active == NO_NODE else cluster.nodes[active].buckets[bucket].vbuckets[vbid]
    if vbucket is None:
        raise StatusError(Status.NOT_MY_VBUCKET, "no node holds its vbucket")
    if DEFAULT_ID not in cluster.bucket(bucket).manifest.by_id:
        raise StatusError(Status.UNKNOWN_COLLECTION, "the bucket has no default collection any more")
    vbucket.store(StoreMode.ADD, DEFAULT_PREFIX + line.key, line.value, JSON_FLAGS)
