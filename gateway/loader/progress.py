"""Progress of a load or an export, kept in a small file next to the documents."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gateway.loader.errors import LoadError

__all__ = ["Note", "Progress"]


class Note:
    """The recorded progress of work on a file.

    :param path: path of the progress file; ``None`` to record nothing.
    :param identity: properties that must match for the progress to be used: the file's size, the bucket, ...
    """

    def __init__(self, path: Path | None, identity: dict[str, Any]) -> None:
        self._path = path
        self._identity = identity

    def read(self) -> dict[str, Any] | None:
        """Return the recorded progress, ``None`` if there is none.

        :raises LoadError: the progress file is about another file or bucket.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            noted = json.loads(self._path.read_text(encoding="utf-8"))
            identity = noted.pop("of")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise LoadError(f"{self._path} is not a progress file; --restart ignores it") from None
        if identity != self._identity:
            raise LoadError(f"{self._path} is about another file or bucket; --restart ignores it")
        return dict(noted)

    def write(self, noted: dict[str, Any]) -> None:
        """Record the progress; a crash leaves either the old record or the new one.

        :param noted: values for JSON, under any names but ``of``.
        :raises LoadError: the folder cannot be written to.
        """
        if self._path is None:
            return
        scratch = self._path.with_name(self._path.name + ".tmp")
        try:
            scratch.write_text(json.dumps({"of": self._identity, **noted}), encoding="utf-8")
            os.replace(scratch, self._path)
        except OSError as error:
            raise LoadError(f"cannot record the progress in {self._path}: {error.strerror}") from None

    def forget(self) -> None:
        """Remove the progress file: everything is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class Progress(Note):
    """The number of finished lines of a file."""

    def load(self) -> int:
        """Return the number of the last finished line, 0 to start from the beginning.

        :raises LoadError: the progress file is about another file or bucket.
        """
        noted = self.read()
        if noted is None:
            return 0
        done = noted.get("lines_done")
        if type(done) is not int:
            raise LoadError(f"{self._path} is not a progress file; --restart ignores it")
        return done

    def save(self, lines_done: int) -> None:
        """Save the number of the last finished line.

        :raises LoadError: the folder cannot be written to.
        """
        self.write({"lines_done": lines_done})
