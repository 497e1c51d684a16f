"""Starts Python programs as forks of a process that has imported them: in milliseconds, not in a second.

The gateway spends nearly all of its start on imports, and tests start it hundreds of times. Tests that are
about the start itself start an interpreter. So do all tests where forks cannot be adopted, which is
everywhere but on Linux, and with ``REAL_STARTS=1`` in the environment.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from threading import Lock
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.process import Process
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.tooling.sources import ROOT

__all__ = [
    "MAX_DESCRIPTORS",
    "MAX_MESSAGE_BYTES",
    "SANDBOX",
    "VIEW_WORKER",
    "WORKER",
    "ForkServer",
    "Program",
    "adopt_orphans",
    "fork_server",
    "fork_views",
    "output_of",
    "spawn",
]

MAX_MESSAGE_BYTES = 2**17
MAX_DESCRIPTORS = 64
WORKER = "gateway.workers.process"
VIEW_WORKER, SANDBOX = "couchnode.views.worker", "couchnode.views.sandbox"

_reactor: Any = installed
_ADOPT = 36
"""``PR_SET_CHILD_SUBREAPER`` of prctl(2)."""
_LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_FSIZE)
_PIPES = {0: "w", 1: "r", 2: "r"}


class ForkServer:
    """The asking end of :mod:`tests.tooling.forkserver`.

    :param channel: leads to it.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._one_by_one = Lock()

    def start(
        self,
        arguments: Sequence[str | bytes],
        environment: Mapping[Any, Any] | None,
        folder: str | bytes | None,
        descriptors: Mapping[int, int],
    ) -> int:
        """Start a program, and return its process, a child of this one.

        :param arguments: of the interpreter, without its name: ``-c``, ``-m`` or a file, and what follows.
        :param environment: ``None`` for that of this process.
        :param folder: its working directory; ``None`` for that of this process.
        :param descriptors: the program's numbers -> descriptors of this process.
        """
        words = [os.fsdecode(one) for one in arguments]
        given = os.environ if environment is None else environment
        request = {
            "arguments": words,
            "environment": {os.fsdecode(name): os.fsdecode(value) for name, value in given.items()},
            "folder": os.getcwd() if folder is None else os.fsdecode(folder),
            "descriptors": list(descriptors),
            "limits": [(number, resource.getrlimit(number)) for number in _LIMITS],
            "has_children": "--workers" in words or words[:2] == ["-m", VIEW_WORKER],
        }
        with self._one_by_one:
            socket.send_fds(self._channel, [json.dumps(request).encode()], list(descriptors.values()))
            pid, adopted = (self._channel.recv(MAX_MESSAGE_BYTES) for _ in range(2))
        if not adopted:
            raise RuntimeError("the fork server has ended")
        return int(pid)


class _Fork(Process):
    """A program that the fork server has started."""

    def _fork(
        self, path: Any, uid: Any, gid: Any, executable: Any, args: Any, environment: Any, **more: Any
    ) -> None:
        server = fork_server()
        assert server is not None
        self.status = -1
        self.pid = server.start(args[1:], environment, path, more["fdmap"])


def spawn(
    protocol: ProcessProtocol,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
    descriptors: Mapping[int, Any] | None = None,
) -> Any:
    """Start Python, and return its transport, as ``reactor.spawnProcess`` does.

    :param arguments: without the interpreter's name: ``-c``, ``-m`` or a file, and what follows.
    :param environment: ``None`` for that of this process.
    :param folder: the working directory; ``None`` for that of this process.
    :param descriptors: those of ``childFDs``.
    """
    command = [sys.executable, *arguments]
    given = dict(os.environ if environment is None else environment)
    pipes = dict(_PIPES if descriptors is None else descriptors)
    if fork_server() is None:
        return _reactor.spawnProcess(protocol, command[0], command, given, folder, childFDs=pipes)
    return _Fork(_reactor, command[0], command, given, folder, protocol, childFDs=pipes)


def output_of(*arguments: str) -> Deferred[tuple[bytes, bytes, int]]:
    """Run Python to its end; fires with what it has written to both outputs, and its status."""
    collected = _Output()
    spawn(collected, arguments)
    return collected.ended


class _Output(ProcessProtocol):
    def __init__(self) -> None:
        self.ended: Deferred[tuple[bytes, bytes, int]] = Deferred()
        self._output = {1: b"", 2: b""}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Twisted: it wrote something."""
        self._output[childFD] += data

    def processEnded(self, reason: Failure) -> None:
        """Twisted: it has ended."""
        how: Any = reason.value
        status = how.exitCode if how.signal is None else -how.signal
        self.ended.callback((self._output[1], self._output[2], status))


class Program(subprocess.Popen[Any]):
    """``Popen`` of Python: the command's first word is its name."""

    def _execute_child(
        self, args: Any, executable: Any, preexec: Any, close: Any, kept: Any, cwd: Any, env: Any, *more: Any
    ) -> None:
        server = fork_server()
        if server is None:
            ours: Any = super()
            ours._execute_child(args, executable, preexec, close, kept, cwd, env, *more)
            return
        _start_child(server, self, args, cwd, env, more)


def _start_child(
    server: ForkServer, popen: subprocess.Popen[Any], args: Any, cwd: Any, env: Any, more: Any
) -> None:
    """Do what ``Popen._execute_child`` does."""
    pipes = more[3:9]
    ends = (pipes[0], pipes[3], pipes[5])
    descriptors = {number: number if end == -1 else end for number, end in enumerate(ends)}
    mine: Any = popen
    mine.pid = server.start(args[1:], env, cwd, descriptors)
    mine._child_created = True
    mine._close_pipe_fds(*pipes)


def fork_views(server: ForkServer | None = None) -> None:
    """Start the processes of views as forks from now on, wherever this process starts some.

    Those with another import path than this process has now are started as interpreters.

    :param server: forks them; ``None`` for that of this process, which starts with the first of them.
    """
    interpreter, here = sys.executable, _folders(os.pathsep.join(sys.path))
    process: Any = Process
    popen: Any = subprocess.Popen
    spawn_really, execute_really = process._fork, popen._execute_child

    def server_for(args: Any, environment: Any) -> ForkServer | None:
        words = list(map(os.fsdecode, args[:3])) if isinstance(args, (list, tuple)) else []
        if words not in ([interpreter, "-m", VIEW_WORKER], [interpreter, "-m", SANDBOX]):
            return None
        given = {os.fsdecode(name): os.fsdecode(value) for name, value in (environment or os.environ).items()}
        if _folders(given.get("PYTHONPATH", "")) != here:
            return None
        return server or fork_server()

    def spawn(
        self: Any, path: Any, uid: Any, gid: Any, executable: Any, args: Any, environment: Any, **more: Any
    ) -> None:
        chosen = server_for(args, environment)
        if chosen is None:
            spawn_really(self, path, uid, gid, executable, args, environment, **more)
            return
        self.status = -1
        self.pid = chosen.start(args[1:], environment, path, more["fdmap"])

    def execute(
        self: Any,
        args: Any,
        executable: Any,
        preexec: Any,
        close: Any,
        kept: Any,
        cwd: Any,
        env: Any,
        *more: Any,
    ) -> None:
        chosen = server_for(args, env)
        if chosen is None:
            execute_really(self, args, executable, preexec, close, kept, cwd, env, *more)
        else:
            _start_child(chosen, self, args, cwd, env, more)

    process._fork, popen._execute_child = spawn, execute


def _folders(path: str) -> set[str]:
    return {os.path.abspath(one) for one in path.split(os.pathsep) if one}


def adopt_orphans() -> bool:
    """Make orphans among the descendants of this process its children; return whether that is possible."""
    return sys.platform == "linux" and ctypes.CDLL(None).prctl(_ADOPT, 1, 0, 0, 0) == 0


@cache
def fork_server() -> ForkServer | None:
    """Return the fork server of this process, or ``None`` where programs cannot be forked."""
    if os.environ.get("REAL_STARTS") or not adopt_orphans():
        return None
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # What it would add to the path is not what the programs' own environments do.
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.tooling.forkserver", str(its.fileno())],
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env=given,
        )
    _kept.append(process)
    return ForkServer(mine)


_kept: list[subprocess.Popen[bytes]] = []
"""The fork server. It ends with this process, which closes the channel."""
