"""The last cluster map, kept in a file so that short programs need not ask for it."""

from __future__ import annotations

import json
import os
from typing import Any

MAX_BYTES = 20 * 2**20
_FORM = 1


def load(path: str) -> tuple[bytes, str] | None:
    """Return ``(configuration, host it came from)``, ``None`` if the file holds none."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
        kept: Any = json.loads(text)
        if kept["form"] != _FORM or not isinstance(kept["host"], str):
            return None
        return json.dumps(kept["config"]).encode(), kept["host"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(path: str, config: bytes, host: str) -> None:
    """Keep a configuration; a file that cannot be written is none of the program's worries."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        kept = {"form": _FORM, "host": host, "config": json.loads(config)}
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(kept, file)
        # In one step, so that another process reads the old map or the new one.
        os.replace(temporary, path)
    except (OSError, ValueError):
        try:
            os.unlink(temporary)
        except OSError:
            pass
