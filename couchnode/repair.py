"""``python -m couchnode.repair DIRECTORY``: repair a data directory with damaged or lost documents.

A node does not start on documents that are missing, older than its cluster.json, or damaged: it would serve
wrong answers. The first remedy is a copy of the data directory. Without a copy, this program makes the
directory usable again, and reports the losses:

- a missing or empty file is created again, without documents;
- a file older than cluster.json is accepted unchanged;
- changes that were only in a lost log are dropped;
- damaged documents are moved to the table ``damaged`` of their file;
- damaged or missing records of vbuckets are created again from the documents.

Indexes of views are removed; they are rebuilt. A file that SQLite cannot read is left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from os.path import isdir
from shutil import rmtree
from typing import Any

from couchnode.cluster.metadata import DataDirectory, DataDirectoryError
from couchnode.data.keys import described
from couchnode.data.storeerrors import StoreDamagedError, StoreError
from couchnode.data.storefile import StoreFile
from couchnode.data.storerepair import renew_records, set_damaged_aside

USAGE = "usage: python -m couchnode.repair DIRECTORY   (a data directory of couchnode or couchgateway)"


def main(arguments: Sequence[str]) -> int:
    """Repair the given directory; return the exit status: 2 if something stays broken."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write(f"{USAGE}\n")
        return 0 if arguments in (["-h"], ["--help"]) else 1
    if not isdir(arguments[0]):
        sys.stderr.write(f"{arguments[0]}: there is no such directory\n")
        return 1
    try:
        directory = DataDirectory(arguments[0])
    except DataDirectoryError as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    try:
        broken = 0
        for line, is_well in repaired(directory):
            print(line, flush=True)
            broken += not is_well
        return 2 if broken else 0
    except DataDirectoryError as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    finally:
        directory.close()


def repaired(directory: DataDirectory) -> Iterator[tuple[str, bool]]:
    """Repair every store of a directory.

    :returns: for each store a line about the repair, and whether a node can start with it now.
    :raises DataDirectoryError: cluster.json is missing, damaged, or cannot be written.
    """
    data = directory.load()
    if data is None:
        raise DataDirectoryError(f"{directory.path} has no cluster.json: it is not a data directory")
    starts = int(data.get("starts", 0))
    # Clients with tokens of lost changes must learn that history has branched, as after a crash. Done first,
    # because an interrupted repair leaves files that were not closed.
    directory.save({**data, "stopped": False})
    for name, part in data["buckets"].items():
        if part["definition"]["type"] != "couchbase":
            continue
        for index in range(int(data["nodes"])):
            node = f"node{index}"
            path = directory.store_path(node, name, make=True)
            yield _repair(StoreFile(path), name, str(part["uuid"]), starts)
            rmtree(directory.views_directory(node, name), ignore_errors=True)


def _repair(file: StoreFile, bucket: str, uuid: str, starts: int) -> tuple[str, bool]:
    path = file.path
    done: list[str] = []
    if not path.exists() or not path.stat().st_size:
        done.append("was missing or empty: recreated without documents")
    try:
        file.check_log()
    except StoreError:
        file.forget_log()
        done.append("the last changes before a crash are given up, with the log that had them")

    def work() -> Any:
        opened = file.open(bucket, uuid, None, starts, repairing=True)
        try:
            damaged = set_damaged_aside(file)
            return opened, damaged, renew_records(file, opened.records)
        finally:
            file.close(False)

    try:
        opened, damaged, renewed = file.translated(work)
    except StoreDamagedError as fault:
        return (
            f"{fault}; it can only be moved away, and this be run again: the bucket is then empty here",
            False,
        )
    except StoreError as fault:
        return str(fault), False
    done += [f"vbucket {vb!r} key {described(key):.300}: moved to the table `damaged`" for vb, key in damaged]
    if renewed:
        done.append(f"records of {renewed} vbucket(s) recreated")
    kept = f"{opened.documents - len(damaged)} documents"
    return f"{path}: {kept}" + "".join(f"\n    {text}" for text in done), True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
