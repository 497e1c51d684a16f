"""The file side of ``couchgateway-load``: lines as documents, and the note of a load's progress."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from couchbase.protocol.jsontext import NotJson, TooDeep, at_once, check
from gateway.dialect.jsontools import BYTE_ORDER_MARK, fast_loads
from gateway.dialect.projection import object_members

__all__ = ["Line", "LineError", "LoadError", "Progress", "Source", "read_line"]

# A document has at most 20 MiB; the rest is room for escapes and the key.
LINE_BYTES = 32 * 2**20


class LoadError(Exception):
    """The load cannot continue; the message says why. Running the command again resumes it."""


class LineError(ValueError):
    """One line cannot be a document; the message says what it lacks."""


class Line(NamedTuple):
    """One document to send."""

    number: int
    key: str
    operation: bytes
    """Its line of the batch, without the newline."""
    place: str = ""
    """The scope and the collection that the line names, as JSON; empty if it names none."""

    @property
    def document(self) -> tuple[str, str]:
        """What tells its document from all others of the file."""
        return self.place, self.key


def _members(data: bytes) -> dict[str, bytes]:
    """Return the members of a JSON object: name -> value, as written.

    :raises LineError: ``data`` is not one JSON object, or names a member twice.
    """
    try:
        fast_loads(data)
    except ValueError:
        try:
            for _ in check(data):
                pass
        except TooDeep:
            raise LineError("nested too deep") from None
        except NotJson as error:
            raise LineError(f"not JSON: {error}") from None
    if not data.lstrip(b" \t\r\n").startswith(b"{"):
        raise LineError("not a JSON object")
    found: dict[str, bytes] = {}
    for written, start, end in at_once(object_members(data)):
        name = json.loads(written)
        if name in found:
            raise LineError(f"the member {name[:80]!r} is given twice")
        found[name] = data[start:end]
    return found


def read_line(number: int, data: bytes, key_field: str = "id", value_field: str = "doc") -> Line:
    """Return the document of one line of the file.

    :param number: counts from 1.
    :param data: one JSON object in UTF-8, with a string under ``key_field`` and any JSON under
        ``value_field``; strings under ``scope`` and ``collection`` name where the document goes.
    :raises LineError: it has another form.
    """
    if len(data) > LINE_BYTES:
        raise LineError(f"longer than {LINE_BYTES} bytes")
    members = _members(data)
    for field in (key_field, value_field):
        if field not in members:
            raise LineError(f"no member {field!r}")
    key = json.loads(members[key_field])
    if not isinstance(key, str):
        raise LineError(f"{key_field!r} is not a string")
    place = b"".join(
        b'"%b":%b,' % (field.encode(), _name(field, members[field]))
        for field in ("scope", "collection")
        if field in members and field not in (key_field, value_field)
    )
    operation = b'{"op":"set",%b"key":%b,"value":%b}' % (place, members[key_field], members[value_field])
    return Line(number, key, operation, place.decode())


def _name(field: str, written: bytes) -> bytes:
    """Return the name of a scope or a collection as JSON.

    :raises LineError: it is not a string.
    """
    name = json.loads(written)
    if not isinstance(name, str):
        raise LineError(f"{field!r} is not a string")
    return json.dumps(name).encode()


class Source:
    """The lines of a file, plain or compressed by gzip (told apart by content, not by name).

    :raises LoadError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._raw: IO[bytes] = open(path, "rb")  # noqa: SIM115  # closed by close()
            self.size_bytes = os.fstat(self._raw.fileno()).st_size
            compressed = self._raw.read(2) == b"\x1f\x8b"
            self._raw.seek(0)
        except OSError as error:
            raise LoadError(f"cannot read {path}: {error.strerror}") from None
        self._file: IO[bytes] = gzip.GzipFile(fileobj=self._raw) if compressed else self._raw  # type: ignore[assignment]

    def position_bytes(self) -> int:
        """Return how many bytes of the file on disk have been read."""
        return self._raw.tell()

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield (number from 1, content) of each line that is not blank; only the beginning of an overlong
        one.

        :raises LoadError: the file cannot be read to its end.
        """
        number = 0
        try:
            while data := self._file.readline(LINE_BYTES + 2):
                number += 1
                if number == 1:
                    data = data.removeprefix(BYTE_ORDER_MARK)
                rest = data
                while len(rest) > LINE_BYTES and not rest.endswith(b"\n"):
                    rest = self._file.readline(LINE_BYTES + 2)
                if data.strip():
                    yield number, data.rstrip(b"\r\n")
        except (OSError, EOFError, zlib.error) as error:
            raise LoadError(f"cannot read {self.path} after line {number}: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()


class Progress:
    """The number of lines done of a file, kept in a small file beside it.

    :param path: of the small file; ``None`` to keep nothing.
    :param identity: properties that a note must match to be used: the file's size, the bucket, ...
    """

    def __init__(self, path: Path | None, identity: dict[str, Any]) -> None:
        self._path = path
        self._identity = identity

    def load(self) -> int:
        """Return the number of the last line done, 0 to start from the beginning.

        :raises LoadError: the note is about another file or bucket.
        """
        if self._path is None or not self._path.exists():
            return 0
        try:
            noted = json.loads(self._path.read_text(encoding="utf-8"))
            identity, done = noted["of"], noted["lines_done"]
        except (OSError, ValueError, KeyError, TypeError):
            raise LoadError(f"{self._path} is not a progress file; --restart ignores it") from None
        if identity != self._identity or not isinstance(done, int):
            raise LoadError(f"{self._path} is about another file or bucket; --restart ignores it")
        return done

    def save(self, lines_done: int) -> None:
        """Save it; a crash leaves either the old note or the new one.

        :raises LoadError: the folder cannot be written to.
        """
        if self._path is None:
            return
        scratch = self._path.with_name(self._path.name + ".tmp")
        try:
            scratch.write_text(json.dumps({"of": self._identity, "lines_done": lines_done}), encoding="utf-8")
            os.replace(scratch, self._path)
        except OSError as error:
            raise LoadError(f"cannot note the progress in {self._path}: {error.strerror}") from None

    def forget(self) -> None:
        """Remove the note: everything is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
