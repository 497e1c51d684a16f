"""The command ``couchnode``: it chooses the reactor before any module of the node is imported."""

from __future__ import annotations

import sys

from reactor.direct import install

__all__ = ["main"]


def main() -> None:
    """Run the node in the foreground, on the reactor of :mod:`reactor.direct` if there is none yet."""
    if "twisted.internet.reactor" not in sys.modules:
        install()
    # Not at the top: Klein imports the reactor, and so chooses Twisted's default one.
    from couchnode.service import main as run

    run()
