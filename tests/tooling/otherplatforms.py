"""Makes this process look like one on Windows or macOS, as far as modules and names are missing there.

    python -m tests.tooling.otherplatforms {windows,macos} imports
    python -m tests.tooling.otherplatforms {windows,macos} COMMAND [OPTION ...]

The first imports every module of this project, and prints those that cannot be; the second runs a command,
such as ``couchgateway``. Other libraries are imported before, as they are on Linux, so
this tests the project's own code only: that it does without what is missing there. It cannot tell whether the
rest works there.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import importlib.metadata
import os
import pkgutil
import select
import signal
import socket
import sys
from types import ModuleType
from typing import Any

from tests.tooling.sources import PACKAGES

__all__ = ["MISSING", "NO_MODULES", "become", "unimportable"]

MISSING: dict[str, dict[ModuleType, tuple[str, ...]]] = {
    "windows": {
        signal: (
            *(
                "SIGHUP",
                "SIGUSR1",
                "SIGUSR2",
                "SIGPIPE",
                "SIGKILL",
                "SIGALRM",
                "SIGQUIT",
                "SIGTSTP",
            ),
        ),
        select: ("epoll", "poll"),
        socket: ("AF_UNIX", "SO_REUSEPORT", "MSG_NOSIGNAL", "MSG_DONTWAIT", "CMSG_LEN", "sethostname"),
        os: (
            *(
                "fork",
                "forkpty",
                "register_at_fork",
                "getuid",
                "geteuid",
                "getgid",
                "getegid",
                "setuid",
                "setgid",
            ),
            *(
                "getpgid",
                "getpgrp",
                "setsid",
                "killpg",
                "wait",
                "nice",
                "sysconf",
                "sched_getaffinity",
                "uname",
            ),
            *(
                "getloadavg",
                "mkfifo",
                "mknod",
                "chown",
                "fchown",
                "lchown",
                "chroot",
                "pread",
                "pwrite",
                "writev",
            ),
            *(
                "sendfile",
                "statvfs",
                "fstatvfs",
                "posix_spawn",
                "memfd_create",
                "eventfd",
                "pidfd_open",
                "sync",
            ),
            *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_SYNC", "initgroups", "getgroups"),
        ),
    },
    "macos": {
        select: ("epoll",),
        socket: ("MSG_NOSIGNAL", "SO_INCOMING_CPU", "TCP_KEEPIDLE", "TCP_QUICKACK", "TCP_DEFER_ACCEPT"),
        os: (
            *("sched_getaffinity", "sched_setaffinity", "memfd_create", "eventfd", "pidfd_open", "O_DIRECT"),
            *("posix_fadvise", "posix_fallocate", "splice", "copy_file_range", "getrandom", "fdatasync"),
        ),
    },
}
"""What modules of the standard library lack there."""

NO_MODULES = {"windows": ("fcntl", "resource", "termios", "pwd", "grp", "tty", "pty", "syslog", "readline")}
"""Modules that cannot be imported there."""

# Everything that is imported from other packages, as it is on Linux.
_LIBRARIES = (
    *("asyncio", "sqlite3", "ssl", "multiprocessing", "subprocess", "tempfile", "concurrent.futures", "mmap"),
    *(
        "twisted.internet.selectreactor",
        "twisted.internet.endpoints",
        "twisted.internet.unix",
        "twisted.web.server",
    ),
    *("twisted.internet.process", "twisted.internet.stdio", "twisted.logger", "twisted.trial.unittest"),
    *("twisted.application.app", "twisted.scripts._twistw", "twisted.plugin", "twisted.python.filepath"),
    *(
        "klein",
        "treq",
        "httptools",
        "h2.connection",
        "prometheus_client",
        "jwt",
        "OpenSSL",
        "cramjam",
    ),
    "zope.interface",
    "orjson",
)
# Only extras and other programs need them.
_MORE_LIBRARIES = (
    *("gevent.socket", "gevent.ssl", "gevent.event", "tqdm"),
    *("opentelemetry.sdk.trace.export", "opentelemetry.exporter.otlp.proto.http.trace_exporter"),
)


class _Locking(ModuleType):
    """Windows' locks of bytes, on those of POSIX."""

    LK_NBLCK = 2

    @staticmethod
    def locking(descriptor: int, mode: int, count: int) -> None:
        """Lock bytes from the position on, for this process."""
        _REAL["fcntl"].lockf(
            descriptor, _REAL["fcntl"].LOCK_EX | _REAL["fcntl"].LOCK_NB, count, 0, os.SEEK_CUR
        )


_REAL: dict[str, Any] = {}


def become(platform: str, *libraries: str) -> None:
    """Take away from this process what is missing on ``windows`` or ``macos``.

    :param libraries: imported before, besides those that the gateway needs.
    """
    from twisted.internet import posixbase, selectreactor
    from twisted.python import runtime

    # Before libraries that would choose another one.
    selectreactor.install()
    for name in (*_LIBRARIES, *libraries):
        importlib.import_module(name)

    if platform == "windows":
        # The version of twistd for Windows is chosen by this when it is imported.
        runtime.platformType = "win32"
        runtime.platform.isWindows = lambda: True  # type: ignore[method-assign]
        importlib.import_module("twisted.scripts.twistd")
        posixbase.unixEnabled = False
        _REAL["fcntl"] = sys.modules["fcntl"]
        sys.modules["msvcrt"] = _Locking("msvcrt")
        _refuse_folders()
    for name in NO_MODULES.get(platform, ()):
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in MISSING[platform].items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = {"windows": "win32", "macos": "darwin"}[platform]


def _refuse_folders() -> None:
    """Make folders impossible to open, as on Windows."""
    real_open = os.open

    def refusing(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if not dir_fd and os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    os.open = refusing


def unimportable() -> dict[str, str]:
    """Import all modules; return those that cannot be, with the reason."""
    found = {}
    for package in PACKAGES:
        names = [package, *(one.name for one in pkgutil.walk_packages([package], f"{package}."))]
        for name in names:
            try:
                importlib.import_module(name)
            except (ImportError, AttributeError, OSError, KeyError) as error:
                found[name] = f"{type(error).__name__}: {error}"
    return found


def main() -> None:
    """Do what the command line says."""
    platform, command, *options = sys.argv[1:]
    become(platform, *(_MORE_LIBRARIES if command == "imports" else ()))
    if command == "imports":
        found = unimportable()
        builtins.print(*(f"{name}: {why}" for name, why in found.items()), sep="\n")
        sys.exit(bool(found))
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=command)
    sys.argv = [command, *options]
    sys.exit(entry.load()())


if __name__ == "__main__":
    main()
