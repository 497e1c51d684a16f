"""What the key-value server does for each opcode.

:mod:`~couchnode.kv.commands.table` checks a request against its declared form and calls the
handler; the other modules register handlers, by theme.
"""

from couchnode.kv.commands import documents, handshake, information, status, subdocument
from couchnode.kv.commands.table import dispatch

__all__ = ["dispatch", "documents", "handshake", "information", "status", "subdocument"]
