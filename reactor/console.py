"""Standard output and error of commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

__all__ = ["EXIT_PIPE", "console"]

EXIT_PIPE = 141
"""Exit status if the reader has closed the pipe: that of a program which SIGPIPE ends, in shells."""


@contextmanager
def console() -> Iterator[None]:
    """Print like a Unix program inside: if the reader of a pipe is gone (``| head``), exit quietly.

    Characters that the encoding of the terminal lacks are printed as escapes.

    :raises SystemExit: status :data:`EXIT_PIPE`; the reader is gone.
    """
    # None in programs without a console on Windows.
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            for stream in streams:
                stream.flush()
    except BrokenPipeError:
        for stream in streams:
            _give_up(stream)
        sys.exit(EXIT_PIPE)


def _give_up(stream: TextIO) -> None:
    """Drop a stream's unwritten text, about which the interpreter would complain at exit."""
    try:
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        with suppress(OSError):
            stream.flush()
