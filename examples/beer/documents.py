"""Files of documents: JSON lines, ``{"id": KEY, "doc": {...}}`` each, plain or compressed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONGEST_LINE = 2**22
LONGEST_KEY = 250


class LoadError(Exception):
    """A file of documents cannot be read; the text says where and why."""


def read_documents(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read one document after the other, as key and value; empty lines are skipped.

    :raises LoadError: the file cannot be opened, or a line is not a document.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number in range(1, 2**62):
                line = file.readline(LONGEST_LINE + 1)
                if not line:
                    return
                if line.strip():
                    yield _parse(line, f"{path}, line {number}")
    except (OSError, EOFError) as error:
        raise LoadError(f"{path} cannot be read: {error}") from error


def _parse(line: bytes, where: str) -> tuple[str, dict[str, Any]]:
    if len(line) > LONGEST_LINE:
        raise LoadError(f"{where} is longer than {LONGEST_LINE} bytes")
    try:
        entry = json.loads(line)
        key, value = entry["id"], entry["doc"]
        fits = isinstance(value, dict) and 0 < len(key.encode()) <= LONGEST_KEY
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise LoadError(f'{where} is not {{"id": a key of 1 to {LONGEST_KEY} bytes, "doc": an object}}')
    return key, value
