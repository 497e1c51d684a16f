"""Commands about the connection and the node rather than documents."""

from __future__ import annotations

from couchbase.protocol.constants import Opcode, Status
from couchnode.data.item import Refused
from couchnode.data.stats import bucket_stats
from couchnode.kv.commands.table import Answer, Call, Presence, Scope, command
from couchnode.kv.session import Session


@command(Opcode.NOOP, scope=Scope.SESSION)
def noop(call: Call) -> Answer:
    """MCBP: noop."""
    return call.session.success(call.frame)


@command(Opcode.VERSION, scope=Scope.SESSION)
def version(call: Call) -> Answer:
    """MCBP: version."""
    return call.session.success(call.frame, value=call.session.node.cluster.version.encode())


@command(Opcode.QUIT, scope=Scope.SESSION, quiet_twin=Opcode.QUITQ)
def quit_connection(call: Call) -> Answer:
    """MCBP: quit: answer, then close. The quiet twin only closes."""
    call.session.closing = True
    return call.session.success(call.frame)


@command(Opcode.VERBOSITY, scope=Scope.SESSION, extras=(4,))
def verbosity(call: Call) -> Answer:
    """MCBP: verbosity. Accepted without effect: clients may not set log levels."""
    return call.session.success(call.frame)


@command(Opcode.FLUSH, scope=Scope.BUCKET, extras=(0, 4), quiet_twin=Opcode.FLUSHQ)
def flush(call: Call) -> Answer:
    """MCBP: flush, which current servers refuse: buckets are flushed through the REST interface."""
    raise Refused(Status.NOT_SUPPORTED, "flush the bucket over REST (doFlush)")


@command(Opcode.STAT, scope=Scope.BUCKET, key=Presence.OPTIONAL, value=Presence.OPTIONAL)
def stat(call: Call) -> Answer:
    """MCBP: stat: one answer for each statistic, and an empty one at the end."""
    session, frame = call.session, call.frame
    pairs = bucket_stats(call.bucket, frame.key)
    if pairs is None:
        raise Refused(Status.KEY_ENOENT, "no such group of statistics")
    if not frame.key:
        pairs = pairs + _of_node(session)
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
