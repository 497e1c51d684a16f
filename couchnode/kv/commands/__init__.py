"""The key-value server's commands, by opcode.

:mod:`~couchnode.kv.commands.table` checks a request against its declared form and calls the
handler; the other modules register handlers, by theme.
"""

from couchnode.kv.commands import (
    collections,
    documents,
    handshake,
    information,
    rangescans,
    status,
    subdocument,
    withmeta,
)
from couchnode.kv.commands.table import dispatch

__all__ = [
    "collections",
    "dispatch",
    "documents",
    "handshake",
    "information",
    "rangescans",
    "status",
    "subdocument",
    "withmeta",
]
