"""The data directory: one owner at a time, and cluster.json, which is always complete.

Everything here blocks, so it runs in threads once a reactor does (see :mod:`couchnode.cluster.cluster`).
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from reactor.files import BINARY, lock, sync_folder

FILE_NAME = "cluster.json"
LOCK_NAME = "lock"
FORMAT = 1
"""Format version of cluster.json; later versions are refused."""


class DataDirectoryError(Exception):
    """The data directory cannot be used; the text names the directory and the remedy."""


class DataDirectory:
    """A directory that only this process uses, from construction to :meth:`close`.

    :param path: created if it does not exist; its parent must exist.
    :raises DataDirectoryError: the directory cannot be created or written, or another process uses it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        try:
            # Private: it holds documents and keys that check passwords.
            self.path.mkdir(mode=0o700, exist_ok=True)
            self._lock = open(self.path / LOCK_NAME, "a+", encoding="ascii")  # noqa: SIM115  # held until close
        except OSError as fault:
            raise DataDirectoryError(
                f"the data directory {self.path} cannot be used: {fault.strerror}"
            ) from fault
        try:
            lock(self._lock)
        except OSError:
            holder = self._holder()
            self._lock.close()
            raise DataDirectoryError(
                f"the data directory {self.path} is in use by another process{holder}: stop that one, "
                "or choose another directory with --data (make run ARGS='--data FOLDER')"
            ) from None
        # Information for a process that finds the lock; skipped on a full disk. The kernel releases the lock
        # itself, however this process ends.
        with suppress(OSError):
            self._lock.truncate(0)
            os.write(self._lock.fileno(), b"%d\n" % os.getpid())

    def _holder(self) -> str:
        try:
            self._lock.seek(0)
            pid = self._lock.read(20).strip()
        except OSError:
            return ""
        return f" (process {pid})" if pid.isdigit() else ""

    def close(self) -> None:
        """Release the directory; calling again does nothing."""
        self._lock.close()

    def store_path(self, name: str, bucket: str, *, make: bool = False) -> Path:
        """Return the file of one bucket on one node.

        :param make: create its folder if necessary.
        :raises DataDirectoryError: the folder cannot be created.
        """
        path = self.path / name
        if make:
            try:
                path.mkdir(mode=0o700, exist_ok=True)
            except OSError as fault:
                raise DataDirectoryError(f"{path} cannot be made: {fault.strerror}") from fault
        return path / f"{bucket}.sqlite"

    def views_directory(self, name: str, bucket: str) -> Path:
        """Return the directory of the view indexes of one bucket on one node; it may not exist."""
        return self.path / name / f"{bucket}.views"

    def load(self) -> dict[str, Any] | None:
        """Return the data last written by :meth:`save`, ``None`` in an unused directory.

        :raises DataDirectoryError: the file is unreadable, of another version, or missing while bucket files
            exist (a new start would lose documents).
        """
        file = self.path / FILE_NAME
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            stray = next(self.path.glob("*/*.sqlite"), None)
            if stray is not None:
                raise DataDirectoryError(
                    f"the data directory {self.path} holds documents ({stray.relative_to(self.path)}) but no "
                    f"{FILE_NAME}: restore that file, or name another directory"
                ) from None
            return None
        except OSError as fault:
            raise DataDirectoryError(f"{file} cannot be read: {fault.strerror}") from fault
        try:
            data = json.loads(text)
        except ValueError as fault:
            raise DataDirectoryError(f"{file} is damaged: {fault}: restore it from a copy") from fault
        version = data.get("format") if isinstance(data, dict) else None
        if version != FORMAT:
            raise DataDirectoryError(
                f"{file} has format {version!r}; this version of couchnode reads {FORMAT}"
            )
        # Files from versions without start numbers have no checksum.
        known = data.pop("checksum", None)
        if known != checksum(data) and ("starts" in data or known is not None):
            raise DataDirectoryError(f"{file} is damaged (wrong checksum): restore it from a copy")
        return dict(data)

    def save(self, data: dict[str, Any]) -> None:
        """Replace cluster.json: after a crash at any point, either the old or the new file is complete.

        :raises DataDirectoryError: the file could not be written; the old one is unchanged.
        """
        save_record(self.path, data)


def save_record(folder: Path, data: dict[str, Any]) -> None:
    """Write cluster.json into a folder, as :meth:`DataDirectory.save` does."""
    file = folder / FILE_NAME
    new = folder / f"{FILE_NAME}.new"
    data = {"format": FORMAT, **data}
    text = json.dumps({**data, "checksum": checksum(data)}, separators=(",", ":")).encode("ascii")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o600)
        with open(descriptor, "wb") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(new, file)
        # A rename is on disk once the directory is.
        sync_folder(folder)
    except OSError as fault:
        raise DataDirectoryError(f"{file} cannot be written: {fault.strerror}") from fault


def checksum(data: dict[str, Any]) -> int:
    """Return the CRC-32 of the members of cluster.json, in their order, without this one."""
    return crc32(json.dumps(data, separators=(",", ":")).encode("ascii"))
