"""Commands about the connection and the node rather than documents."""

from __future__ import annotations

from couchbase.protocol.constants import Opcode, Status
from couchnode.data.collectionstats import GROUPS, read_group
from couchnode.data.item import StatusError
from couchnode.data.stats import bucket_stats
from couchnode.kv.commands.request import Answer, CommandRequest
from couchnode.kv.commands.table import Presence, Scope, command
from couchnode.kv.session import Session


@command(Opcode.NOOP, scope=Scope.SESSION)
def noop(request: CommandRequest) -> Answer:
    """MCBP: noop."""
    return request.session.success(request.frame)


@command(Opcode.VERSION, scope=Scope.SESSION)
def version(request: CommandRequest) -> Answer:
    """MCBP: version."""
    return request.session.success(request.frame, value=request.session.node.cluster.version.encode())


@command(Opcode.QUIT, scope=Scope.SESSION, quiet_twin=Opcode.QUITQ)
def quit_connection(request: CommandRequest) -> Answer:
    """MCBP: quit: answer, then close. The quiet twin only closes."""
    request.session.closing = True
    return request.session.success(request.frame)


@command(Opcode.VERBOSITY, scope=Scope.SESSION, extras=(4,))
def verbosity(request: CommandRequest) -> Answer:
    """MCBP: verbosity. Accepted without effect: clients may not set log levels."""
    return request.session.success(request.frame)


@command(Opcode.FLUSH, scope=Scope.BUCKET, extras=(0, 4), quiet_twin=Opcode.FLUSHQ)
def flush(request: CommandRequest) -> Answer:
    """MCBP: flush, which current servers refuse: buckets are flushed through the REST interface."""
    raise StatusError(Status.NOT_SUPPORTED, "flush the bucket over REST (doFlush)")


@command(Opcode.STAT, scope=Scope.BUCKET, key=Presence.OPTIONAL, value=Presence.OPTIONAL)
def stat(request: CommandRequest) -> Answer:
    """MCBP: stat: one answer for each statistic, and an empty one at the end."""
    session, frame = request.session, request.frame
    if frame.key.partition(b" ")[0] in GROUPS:
        return _stat_collections(request)
    pairs = bucket_stats(request.bucket, frame.key)
    if pairs is None:
        raise StatusError(Status.KEY_ENOENT, "no such group of statistics")
    if not frame.key:
        pairs = pairs + _of_node(session)
    return _statistics(request, pairs)


def _stat_collections(request: CommandRequest) -> Answer:
    """Answer with statistics by collection or scope, after the measurement of what they take."""
    bucket = request.bucket
    if bucket.state != "ready":
        raise StatusError(Status.ETMPFAIL, f"bucket {bucket.name}: {bucket.state}")
    statistics = read_group(bucket, request.frame.key.decode("utf-8", "replace"))
    sizes = bucket.measurement.sizes()
    return sizes.addCallback(lambda found: _statistics(request, statistics(found)))


def _statistics(request: CommandRequest, pairs: list[tuple[str, str]]) -> bytes:
    session, frame = request.session, request.frame
    answers = [session.success(frame, key=name.encode(), value=text.encode()) for name, text in pairs]
    answers.append(session.success(frame))
    return b"".join(answers)


def _of_node(session: Session) -> list[tuple[str, str]]:
    """Return the numbers of the default group that are the node's and not the bucket's."""
    node = session.node
    return [
        ("curr_connections", str(node.open_connections)),
        ("total_connections", str(node.total_connections)),
        ("version", node.cluster.version),
    ]
