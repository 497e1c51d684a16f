"""Ports for programs that cannot choose one themselves and report it."""

from __future__ import annotations

import os
import socket
from itertools import count
from pathlib import Path

__all__ = ["free_port"]

_FIRST = 20_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_OF_A_PROCESS = 64

_taken = count()


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1 that remains free until a program binds it.

    A port that the system chose and that was closed again is among those that it gives to the next outgoing
    connection, so these are below the system's range. Processes at the same time begin at different ones.

    :raises OSError: if none is free.
    """
    end = _first_ephemeral()
    size = end - _FIRST
    for _ in range(size):
        port = _FIRST + (os.getpid() * _OF_A_PROCESS + next(_taken)) % size
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    raise OSError(f"no port from {_FIRST} to {end - 1} is free on 127.0.0.1")


def _first_ephemeral() -> int:
    """Return the first port that the system gives to outgoing connections; 32768 is Linux's default."""
    try:
        return max(int(_EPHEMERAL.read_text().split()[0]), _FIRST + _OF_A_PROCESS)
    except OSError:
        return 32_768
