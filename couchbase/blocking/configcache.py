"""The last cluster map, cached in a file so that short-lived programs need not request it."""

from __future__ import annotations

import json
import os
from typing import Any

MAX_BYTES = 20 * 2**20
_FORM = 1


def load(path: str) -> tuple[bytes, str] | None:
    """Return ``(configuration, host that sent it)``, ``None`` if the file has none."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
        kept: Any = json.loads(text)
        if kept["form"] != _FORM or not isinstance(kept["host"], str):
            return None
        return json.dumps(kept["config"]).encode(), kept["host"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def save(path: str, config: bytes, host: str) -> None:
    """Save a configuration; errors of the file are ignored, as it is only a cache."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        kept = {"form": _FORM, "host": host, "config": json.loads(config)}
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(kept, file)
        # Replaced in one step, so that another process reads either the old map or the new one.
        os.replace(temporary, path)
    except (OSError, ValueError):
        try:
            os.unlink(temporary)
        except OSError:
            pass
