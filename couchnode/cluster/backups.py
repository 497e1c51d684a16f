"""Backups of a running cluster: data folders of their own, from which a node can start.

A backup contains every write that was acknowledged before the request for it, and some of the writes made
meanwhile. A node that starts from a backup treats it like the data after a crash: history branches, so
clients with tokens of later changes are notified.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from couchnode.cluster.members import Node
from couchnode.cluster.metadata import DataDirectory, DataDirectoryError, save_record
from couchnode.data.storeerrors import StoreError
from reactor.files import sync_folder

__all__ = ["FOLDER", "Backup", "BackupError", "Backups", "NoSuchBackup"]

FOLDER = "backups"
"""Subdirectory of the data directory for backups."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_PARTIAL = ".partial"

Steps = Generator[Deferred[Any], Any, Any]


class BackupError(Exception):
    """A backup cannot be made; the text has the reason."""


class NoSuchBackup(BackupError):
    """There is no backup with that name."""


class Backup(NamedTuple):
    """A complete backup."""

    name: str
    path: Path
    bytes: int
    """Total size of its files, in bytes."""
    made: float
    """Time of its completion, as a Unix time."""


class Backups:
    """The backups of one cluster.

    :param directory: the data directory; ``None`` for a cluster that keeps nothing.
    :param change: runs a change of the cluster after earlier ones, and before later ones: while a backup is
        made, buckets, collections, users and maps stay as they are.
    :param record: returns the content of cluster.json.
    """

    _log = Logger()

    def __init__(
        self,
        nodes: Sequence[Node],
        directory: DataDirectory | None,
        change: Callable[..., Deferred[Any]],
        record: Callable[[], dict[str, Any]],
    ) -> None:
        self._nodes = nodes
        self._directory = directory
        self._change = change
        self._record = record
        self._is_running = False
        self.is_closed = False
        """Whether the cluster is stopping."""

    # ---- existing backups ------------------------------------------------------------------------

    def all(self) -> Deferred[list[Backup]]:
        """Return the backups, the oldest first."""
        return deferToThread(self._found)

    def remove(self, name: str) -> Deferred[None]:
        """Delete a backup.

        :returns: fires when its files are gone. Fails with :class:`NoSuchBackup`.
        """
        return deferToThread(self._remove, name)

    # ---- making one ------------------------------------------------------------------------------

    def make(self, name: str | None = None, keep: int | None = None) -> Deferred[Backup]:
        """Make a backup.

        :param name: letters, digits, ``.``, ``_`` and ``-``; by default the time, as in
            ``2026-11-28T17-30-00Z``.
        :param keep: number of backups to keep; afterwards the oldest ones beyond it are deleted.
        :returns: fires with the backup when it is on disk. Fails with :class:`BackupError`, or with
            :class:`StoreError` if it cannot be written; nothing is left of it then.
        :raises BackupError: the cluster keeps nothing, the name cannot be used, or another backup is being
            made.
        """
        if self._directory is None:
            raise BackupError("an ephemeral node keeps nothing on disk, so there is nothing to copy")
        if name is None:
            name = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
        if not _NAME.fullmatch(name) or name.endswith(_PARTIAL):
            raise BackupError(
                f"the name of a backup is 1 to 100 letters, digits, '.', '_' and '-', does not begin with "
                f"'.' or '-' and does not end in {_PARTIAL!r}; not {name!r:.200}"
            )
        if keep is not None and keep < 1:
            raise BackupError(f"at least the new backup is kept, so keep is 1 or more, not {keep}")
        if self._is_running:
            raise BackupError("another backup is being made")
        self._is_running = True
        made = self._change(self._make, name, keep)

        def ended(result: Any) -> Any:
            self._is_running = False
            return result

        return made.addBoth(ended)

    def stop(self) -> None:
        """Abort a running backup because the cluster stops; its files are deleted."""
        self.is_closed = True
        for node in self._nodes:
            for part in node.buckets.values():
                part.stop_copying()

    @inlineCallbacks
    def _make(self, name: str, keep: int | None) -> Steps:
        partial, path = self._folder / f"{name}{_PARTIAL}", self._folder / name
        try:
            yield deferToThread(self._prepare, partial, path)
            for node in self._nodes:
                for bucket, part in sorted(node.buckets.items()):
                    if self.is_closed:
                        raise BackupError("the node is stopping")
                    if part.is_persistent:
                        yield part.backup(partial / node.name / f"{bucket}.sqlite")
            yield deferToThread(self._complete, partial, path, {**self._record(), "stopped": False})
        except BaseException as error:
            yield deferToThread(rmtree, partial, ignore_errors=True)
            if isinstance(error, OSError):
                where = f"{error.filename}: " if error.filename else ""
                raise BackupError(f"{path} cannot be made: {where}{error.strerror}") from error
            if isinstance(error, (StoreError, DataDirectoryError)):
                raise BackupError(f"{path} cannot be made: {error}") from error
            raise
        found: list[Backup] = yield self.all()
        for old in found[: -keep if keep is not None else 0]:
            yield self.remove(old.name)
        backup = next(one for one in found if one.name == name)
        self._log.info("backup {path}: {bytes} bytes", path=path, bytes=backup.bytes)
        return backup

    # ---- in a thread -----------------------------------------------------------------------------

    @property
    def _folder(self) -> Path:
        assert self._directory is not None
        return self._directory.path / FOLDER

    def _prepare(self, partial: Path, path: Path) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        # Left by a process that was killed: only one backup is made at a time.
        for stale in self._folder.glob(f"*{_PARTIAL}"):
            rmtree(stale)
        if path.exists():
            raise BackupError(f"the backup {path.name!r} exists already")
        partial.mkdir(mode=0o700)
        for node in self._nodes:
            (partial / node.name).mkdir(mode=0o700)

    def _complete(self, partial: Path, path: Path, record: dict[str, Any]) -> None:
        save_record(partial, record)
        for node in self._nodes:
            sync_folder(partial / node.name)
        # A backup counts only once it has its final name.
        partial.rename(path)
        sync_folder(self._folder)

    def _found(self) -> list[Backup]:
        if self._directory is None or not self._folder.is_dir():
            return []
        found = []
        for path in self._folder.iterdir():
            if path.is_dir() and _NAME.fullmatch(path.name) and not path.name.endswith(_PARTIAL):
                files = [file.stat() for file in path.rglob("*") if file.is_file()]
                size = sum(file.st_size for file in files)
                found.append(Backup(path.name, path, size, path.stat().st_mtime))
        return sorted(found, key=lambda one: (one.made, one.name))

    def _remove(self, name: str) -> None:
        if name not in {one.name for one in self._found()}:
            raise NoSuchBackup(f"there is no backup {name!r:.200}")
        # Renamed first, so that a partly deleted backup does not look complete.
        path = self._folder / name
        partial = self._folder / f"{name}{_PARTIAL}"
        path.rename(partial)
        rmtree(partial)
