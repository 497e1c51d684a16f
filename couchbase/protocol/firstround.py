"""The first round of waiting for the copies of one document, without a plan.

Usually the first answers decide, and a plan would cost several times as much as the questions. If they do
not, :func:`couchbase.protocol.durability.endure_plan` asks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from couchbase.protocol.call import Call
from couchbase.protocol.constants import Magic, Opcode, Status
from couchbase.protocol.dispatch import Dispatcher
from couchbase.protocol.durability import Requirement, judge
from couchbase.protocol.frames import HEADER, Frame
from couchbase.protocol.hashing import vbucket_of
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE
from couchbase.protocol.observation import (
    ENTRY_HEAD,
    ENTRY_TAIL,
    Observation,
    add_seen,
    check_refusal,
    holders,
)
from couchbase.protocol.peer import takes_all
from couchbase.protocol.request import Operation, Request
from couchbase.result import OperationResult

__all__ = ["FirstRound"]

_OBSERVE = int(Opcode.OBSERVE)
_REQUEST = int(Magic.REQUEST)
_SUCCESS = int(Status.SUCCESS)
_pack = HEADER.pack
_pack_head = ENTRY_HEAD.pack
_unpack_tail = ENTRY_TAIL.unpack_from
_TAIL_BYTES = ENTRY_TAIL.size
_new: Any = tuple.__new__


def _decode(request: Request, cas: int, data: bytes, at: int, middle: int, end: int) -> Any:
    """Return the answer about the document; the bytes of an answer with anything else."""
    entry = request.value
    if end - middle == len(entry) + _TAIL_BYTES and data.startswith(entry, middle):
        return _new(Observation, (request.key_bytes, *_unpack_tail(data, end - _TAIL_BYTES)))
    return data[middle:end]


_ASK = Operation("endure", _OBSERVE, False, OperationResult, _decode)


class _Question(Call):
    """The question to one node."""

    __slots__ = ("round", "server")

    takes_frames = True

    round: FirstRound
    server: int
    """The node's index in the map."""

    @property
    def identity(self) -> Any:
        """Itself: no operation on the document has to wait for a question."""
        return self

    def succeed(self, result: object) -> None:
        """Pass an answer to the round: what :func:`_decode` returns, a frame, or ``None``."""
        if self.done:
            return
        self.done = True
        round_ = self.round
        if type(result) is Observation:
            round_.view[self.server] = result
        elif result is not None:
            round_.others.append((self.server, result))
        round_.open -= 1
        if not round_.open:
            round_.decided()

    def fail(self, error: BaseException) -> None:
        """Go on without an answer: there was none in time, or the connection is lost."""
        self.succeed(None)

    def take(self, frame: Frame) -> None:
        """Pass an answer other than a plain success to the round."""
        self.succeed(frame.value if frame.specific == _SUCCESS else frame)


class FirstRound:
    """One question to each node that holds a document, and the verdict on their answers.

    The attributes are parameters of :func:`couchbase.protocol.durability.endure_plan`; drivers set them.
    """

    __slots__ = (
        "_active",
        "_cas",
        "_document",
        "_map",
        "check_removed",
        "deadline",
        "open",
        "others",
        "requirement",
        "view",
    )

    after_mutation = False
    requirement: Requirement
    check_removed: bool
    deadline: float
    """Time of the driver's clock at which the waiting ends; set by :meth:`ask`."""
    view: dict[int, Observation]
    """Server index -> its answer."""
    others: list[tuple[int, Any]]
    """Server index, and an answer that has to be looked at: the value of a success, or a frame."""
    open: int
    """Number of questions without an answer."""

    def decided(self) -> None:
        """Called once when the nodes have answered or cannot answer any more, after :meth:`ask` has
        returned."""
        raise NotImplementedError

    def ask(self, home: Dispatcher, document: Request, cas: int, timeout: float, patience: float) -> bool:
        """Ask every node that holds a document; return false, and ask none, unless all can be asked now.

        :param document: a request with its key and keyspace.
        :param patience: timeout of a node's answer, in seconds.
        """
        route = home.route
        if not route:
            return False
        key, keyspace = document.key_bytes, document.keyspace
        vbucket = vbucket_of(key, len(route))
        cluster: Any = home.map  # there is one if there is a route
        row = cluster.rows[vbucket]
        self._active = active = row[0]
        persist_to, replicate_to = self.requirement
        servers: Sequence[int]
        talks: Sequence[Any]
        if replicate_to or persist_to > 1:
            servers = holders(row, False)
            talks = [takes_all(home.servers[server]) for server in servers]
        else:
            # The active node only.
            servers, talks = (active,), (route[vbucket],)
        is_named, most = keyspace is not DEFAULT_KEYSPACE, home.most_pending
        for talk in talks:
            if talk is None or len(talk.pending) >= most:
                return False
            if is_named and not (keyspace.prefix and talk.prefix):
                return False
        now = home.seconds()
        until = now + patience
        self.deadline = now + timeout
        self._map = cluster
        self._document = document
        self._cas = cas
        self.view = {}
        self.others = []
        self.open = len(servers)
        for server, talk in zip(servers, talks):
            question = _Question(_ASK, document.key, key)
            question.round = self
            question.server = server
            question.deadline = until
            talk.opaque = question.opaque = opaque = (talk.opaque + 1) & 0xFFFFFFFF
            question.pending = pending = talk.pending
            pending[opaque] = question
            name = (keyspace.prefix if is_named else talk.prefix) + key
            question.value = entry = _pack_head(vbucket, len(name)) + name
            out = talk.out
            if not out:
                talk.line.schedule()
            # The key is a part of the value.
            out += _pack(_REQUEST, _OBSERVE, 0, 0, 0, 0, len(entry), opaque, 0), entry
        return True

    def verdict(self) -> int | None:
        """Return the result code, ``None`` if the answers do not decide.

        :raises CouchbaseError: an answer cannot change in further rounds.
        """
        if self.others:
            document = self._document
            key, keyspace = document.key_bytes, document.keyspace
            for server, answer in self.others:
                if type(answer) is bytes:
                    add_seen({key: self.view}, server, answer, (key,), keyspace)
                else:
                    check_refusal(self._map, server, answer, keyspace)
        return judge(
            self.view, self._active, self._cas, self.requirement, self.check_removed, self.after_mutation
        )
