"""Answers to operations: split from the byte stream and decoded in one pass.

Nearly everything that a client receives is a success that answers one of its operations. Those are decoded
directly from the received chunk; a :class:`couchbase.protocol.frames.Frame` is built only for other frames.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, NamedTuple

from couchbase.protocol.constants import (
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    RESPONSE_MAGICS,
    Datatype,
    Magic,
    Opcode,
    Status,
)
from couchbase.protocol.failures import failed_result
from couchbase.protocol.frames import HEADER, Frame, FrameError, FrameReader
from couchbase.protocol.refused import REFUSALS, STATUSES, refusals
from couchbase.protocol.request import Request
from couchbase.protocol.statuses import result_code
from couchbase.protocol.subdocument import LOOKUP_IN, MUTATE_IN

# magic to status as one number, body length, opaque, CAS
_unpack = Struct(">QIIQ").unpack_from
# What that number consists of: magic, (opcode), key length, extras length, datatype, status
_fields_of = Struct(">BxHBBH").unpack
_unpack_all = HEADER.unpack_from
_RESPONSE = int(Magic.RESPONSE)
_MAX_BODY = MAX_FRAME_BYTES - HEADER_BYTES
# Faster than the class: a scan has four such answers, an error one.
_new_frame: Any = tuple.__new__
# The JSON bit leaves a value unchanged; higher bits do not.
_JSON = int(Datatype.JSON)
_MISSING = int(Status.KEY_ENOENT)
_EXISTS = int(Status.KEY_EEXISTS)
_PATHS_FAILED = int(Status.SUBDOC_MULTI_PATH_FAILURE)
_SHORT = STATUSES | {_PATHS_FAILED}
_OF_PATHS = (LOOKUP_IN, MUTATE_IN)
_ADD = int(Opcode.ADD)


MOST_HEADS = 4096
"""Largest number of different beginnings of headers that are remembered; servers send a few dozen."""
# Above the length of any body.
_UNUSUAL = 1 << 32
ABSENT = _UNUSUAL + 1
"""What :class:`Heads` has for a plain answer that the state of a document, or one of its paths, prevents an
operation."""


class Heads(dict[int, int]):
    """The first eight bytes of a header, as a number -> the length of the extras of a plain success.

    For all others, a number above the length of any body. One look-up replaces the comparison of five fields.
    """

    def __missing__(self, head: int) -> int:
        magic, key_length, kind, datatype, status = _fields_of(head.to_bytes(8, "big"))
        if magic != _RESPONSE or key_length:
            kind = _UNUSUAL
        elif status:
            is_known = status in _SHORT and not (status == _PATHS_FAILED and datatype > _JSON)
            kind = ABSENT if is_known and not kind else _UNUSUAL
        elif datatype > _JSON:
            kind = _UNUSUAL
        if len(self) < MOST_HEADS:
            self[head] = kind
        return int(kind)


_HEADS = Heads()


class Undecodable(NamedTuple):
    """A success whose value could not be decoded: the answer was malformed, or a transcoder failed."""

    call: Any
    error: Exception


class AnswerReader:
    """Splits received bytes, in pieces of any size, into answers.

    Holds at most one incomplete frame, whose size :class:`couchbase.protocol.frames.FrameReader` limits.
    """

    __slots__ = ("_chunks", "_frames", "_have", "need")

    def __init__(self) -> None:
        # For frames other than plain successes; empty between any two of them.
        self._frames = FrameReader(magics=RESPONSE_MAGICS)
        self._chunks: list[bytes] = []
        self._have = 0
        self.need = HEADER_BYTES
        """Expected size of the incomplete frame in bytes, as far as it is known. As in FrameReader, a large
        value in small pieces is joined once, not for each piece."""

    @property
    def violation(self) -> FrameError | None:
        """Why the stream cannot continue, or ``None``; see :attr:`FrameReader.violation`."""
        return self._frames.violation

    def joined(self, data: bytes) -> bytes | None:
        """Take one chunk; if it completes the held frame, return the argument for :meth:`feed`.

        Joining and decoding a large frame both take time, so a driver may do other work in between.
        """
        self._chunks.append(data)
        self._have += len(data)
        if self._have < self.need:
            return None
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._have, self.need = 0, HEADER_BYTES
        return data

    def feed(self, data: bytes, pending: dict[int, Any]) -> list[Any]:
        """Take one chunk of any size; return the completed answers, oldest first.

        :param pending: operations that wait for answers, by opaque number. Those that succeed are removed,
            as are those whose refusals are results.
        :returns: flat pairs ``call, result``. If ``call`` is ``None`` the result needs more handling: it is
            a ``Frame`` (a failure, an answer to an unknown request, or a request of the server; its
            operation is still in ``pending``) or an :class:`Undecodable`. Empty after a violation.
        """
        if self._have:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self.need:
                return []
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._have, self.need = 0, HEADER_BYTES
        done: list[Any] = []
        add, take, unpack, heads = done.append, pending.pop, _unpack, _HEADS
        at, size = 0, len(data)
        last = size - HEADER_BYTES
        need = HEADER_BYTES
        while at <= last:
            head, body, opaque, cas = unpack(data, at)
            begin = at + HEADER_BYTES
            end = begin + body
            extras_length = heads[head]
            if extras_length > body or end > size:
                call = None
            else:
                call = take(opaque, None)
            if call is None:
                if extras_length == ABSENT and end <= size:
                    call = pending.get(opaque)
                    status = head & 0xFFFF
                    if call is None:
                        pass
                    elif status == _PATHS_FAILED:
                        # A lookup of which some paths are missing: the result says so. A mutation of which
                        # one path failed: its failure has been decoded.
                        if call.operation in _OF_PATHS:
                            del pending[opaque]
                            try:
                                result = call.operation.decode(call, cas, data, begin, begin, end)
                            except Exception as error:  # noqa: BLE001  # as below
                                done += None, Undecodable(call, error)
                            else:
                                done += call, result
                            at = end
                            continue
                    elif call.quiet == REFUSALS:
                        del pending[opaque]
                        done += call, refusals[call.operation.name, status]
                        at = end
                        continue
                    elif call.quiet and status == (_EXISTS if call.operation.opcode == _ADD else _MISSING):
                        # A missing document, and to an add an existing one, is a result, too, if the caller
                        # asked for that.
                        del pending[opaque]
                        done += call, failed_result(call, result_code(call.operation.name, status))
                        at = end
                        continue
                frame = self._other(data, at, end)
                if frame is None:
                    need = end - at
                    break
                add(None)
                add(frame)
            else:
                try:
                    result = call.operation.decode(call, cas, data, begin, begin + extras_length, end)
                except Exception as error:  # noqa: BLE001  # the caller handles a transcoder's failure
                    add(None)
                    add(Undecodable(call, error))
                else:
                    # One instruction instead of two calls of append().
                    done += call, result
            at = end
        if at < size and self._frames.violation is None:
            if data[at] not in RESPONSE_MAGICS:
                # Do not wait for the rest of the header: a peer of another protocol may never send it.
                self._frames.feed(data[at:])
                return done
            # data[at:] copies, so the (perhaps much larger) chunk can be freed.
            self._chunks.append(data[at:] if at else data)
            self._have = size - at
            self.need = need
        return done

    def single(self, data: bytes, call: Request, pending: dict[int, Any]) -> Any:
        """Decode a chunk that is probably the whole answer to one operation.

        :returns: the result, and the operation is no longer in ``pending``; or ``None``, and nothing has
            happened: the chunk is something else than a plain success of this operation, or it does not begin
            with a frame. It is an argument of :meth:`feed` then.
        :raises Exception: the value could not be decoded; the operation is no longer in ``pending``.
        """
        size = len(data)
        if size < HEADER_BYTES or self._have:
            return None
        head, body, opaque, cas = _unpack(data)
        extras_length = _HEADS[head]
        if extras_length > body or HEADER_BYTES + body != size or pending.get(opaque) is not call:
            return None
        del pending[opaque]
        return call.operation.decode(call, cas, data, HEADER_BYTES, HEADER_BYTES + extras_length, size)

    def _other(self, data: bytes, at: int, end: int) -> Any:
        """Return the frame that begins at ``at``; ``None`` if it is incomplete, or a violation."""
        reader = self._frames
        if reader.violation is not None:
            return None
        if end > len(data):
            # The header's errors must be reported without waiting for the body.
            if not reader.feed(data[at : at + HEADER_BYTES]) and reader.violation is None:
                self._frames = FrameReader(magics=RESPONSE_MAGICS)
            return None
        magic, opcode, key_length, extras_length, datatype, status, body, opaque, cas = _unpack_all(data, at)
        begin = at + HEADER_BYTES
        key_at = begin + extras_length
        value_at = key_at + key_length
        if magic == _RESPONSE and value_at <= end and body <= _MAX_BODY:
            parts = (b"", data[begin:key_at], data[key_at:value_at], data[value_at:end])
            return _new_frame(Frame, (magic, opcode, status, datatype, opaque, cas, *parts))
        found = reader.feed(data[at:end])
        return found[0] if found else None
