"""A process that has imported the programs under test, and forks for each start of one.

:mod:`tests.tooling.forking` starts it, with the descriptor of a socket, and sends requests over that. A fork
runs what the request says as a new interpreter would: with its arguments, environment, working directory,
descriptors and limits; the reactor and ``sys.path`` are new. It becomes a child of the process that
asked, which has set itself up to adopt it, so signals, statuses and ``wait`` are those of any child.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import importlib.util
import io
import json
import os
import resource
import runpy
import socket
import sys
import time
from collections.abc import Collection
from types import ModuleType
from typing import Any

from tests.tooling.forking import (
    MAX_DESCRIPTORS,
    MAX_MESSAGE_BYTES,
    SANDBOX,
    VIEW_WORKER,
    WORKER,
    ForkServer,
    adopt_orphans,
    fork_views,
)

PRELOADED = (
    "twisted.scripts.twistd",
    "twisted.web.client",
    "gateway.service",
    "gateway.workers.worker",
    "gateway.loader.command",
    "gateway.loader.exportcommand",
    "couchnode.service",
    VIEW_WORKER,
    SANDBOX,
    "klein",
)
"""Modules of the programs. Not ``twisted.plugins``: what it finds depends on the path of each program."""

_ENGINE = "py_mini_racer"
"""The library of V8, which is optional. Importing it starts nothing yet."""

_ABOVE_ALL = MAX_DESCRIPTORS
"""Descriptors from this number on are not those of programs."""

Request = dict[str, Any]


def main() -> None:
    """Import the programs, and serve; returns in each fork when its program has ended."""
    path = _preload()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        _run(request, path)


def _preload() -> list[str]:
    """Import the modules, and return the part of ``sys.path`` that no environment decides."""
    path = sys.path[1:]
    for name in PRELOADED:
        importlib.import_module(name)
    if importlib.util.find_spec(_ENGINE) is not None:
        importlib.import_module(_ENGINE)
    # Its descriptors would be shared by all forks; each makes its own.
    reactor: Any = sys.modules["twisted.internet.reactor"]
    reactor.waker.connectionLost(None)
    reactor._poller.close()
    reactor.__dict__.clear()
    gc.collect()
    gc.freeze()
    return path


def _serve(channel: socket.socket) -> Request | None:
    """Fork for each request, and return it in the fork; ``None`` here, at the end of the channel."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS)
        if not message:
            return None
        between = os.fork()
        if between == 0:
            own = os.getpid()
            pid = os.fork()
            if pid == 0:
                while os.getppid() == own:
                    time.sleep(0.001)  # until the other has ended, and this process is adopted
                channel.close()
                return _prepared(json.loads(message), descriptors)
            channel.send(str(pid).encode())
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        # The program is an orphan from here on, and is adopted at once.
        os.waitpid(between, 0)
        channel.send(b"adopted")


def _prepared(request: Request, descriptors: list[int]) -> Request | None:
    """Take over the limits and descriptors of a program, and fork a server for its children, if any."""
    for number, limits in request["limits"]:
        resource.setrlimit(number, limits)
    if request["has_children"]:
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine, its = (end.detach() for end in ends)
        if os.fork() == 0:
            _close_all_but([its])
            return _serve(socket.socket(fileno=its))
        request["server"] = fcntl.fcntl(mine, fcntl.F_DUPFD_CLOEXEC, _ABOVE_ALL)
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE_ALL) for descriptor in descriptors]
    for descriptor, number in zip(moved, request["descriptors"], strict=True):
        os.dup2(descriptor, number)
    _close_all_but([*request["descriptors"], request.get("server")])
    return request


def _close_all_but(kept: Collection[int | None]) -> None:
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in kept:
            try:
                os.close(descriptor)
            except OSError:
                pass  # the one of the listing


def _run(request: Request, path: list[str]) -> None:
    """Be the interpreter that was asked for."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    first, *arguments = request["arguments"]
    head = {"-c": "", "-m": os.getcwd()}.get(first, os.path.dirname(os.path.abspath(first)))
    given = map(os.path.abspath, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    sys.path[:] = [head, *dict.fromkeys([*given, *path])]
    importlib.invalidate_caches()
    # Its own path comes from sys.path.
    importlib.reload(importlib.import_module("gateway.plugins"))
    reactor: Any = sys.modules["twisted.internet.reactor"]
    reactor.__init__()
    _open_streams()
    if "server" in request:
        adopt_orphans()
        server = ForkServer(socket.socket(fileno=request["server"]))
        if request["arguments"][:2] == ["-m", VIEW_WORKER]:
            fork_views(server)
        else:
            _fork_workers(server, type(reactor).__module__)
    if first == "-c":
        program = sys.modules["__main__"] = ModuleType("__main__")
        sys.argv[:] = ["-c", *arguments[1:]]
        exec(compile(arguments[0], "<string>", "exec"), program.__dict__)
    elif first == "-m":
        sys.argv[:] = arguments
        if arguments[0] == WORKER:
            chosen: Any = sys.modules[arguments[1]]
            chosen.install = lambda: None  # the reactor is there
        sys.modules.pop(arguments[0], None)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = [first, *arguments]
        runpy.run_path(first, run_name="__main__")


def _open_streams() -> None:
    """Open the standard streams again: they remember properties of what was at their descriptors before."""
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before: Any = getattr(sys, name)
        file = io.FileIO(number, "w" if number else "r", closefd=False)
        stream = io.TextIOWrapper(
            io.BufferedWriter(file) if number else io.BufferedReader(file),
            encoding=before.encoding,
            errors=before.errors,
            line_buffering=name == "stderr" or os.isatty(number),
            write_through=unbuffered and number > 0,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _fork_workers(server: ForkServer, reactor_module: str) -> None:
    """Start workers that use this reactor as forks, too."""
    from twisted.internet.process import Process

    process: Any = Process
    really_fork = process._fork

    def fork(self: Any, path: Any, uid: Any, gid: Any, name: Any, args: Any, env: Any, **more: Any) -> None:
        if list(map(os.fsdecode, args[1:4])) != ["-m", WORKER, reactor_module]:
            really_fork(self, path, uid, gid, name, args, env, **more)
            return
        self.status = -1
        self.pid = server.start(args[1:], env, path, more["fdmap"])

    process._fork = fork


if __name__ == "__main__":
    main()
