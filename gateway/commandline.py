"""The command line of ``twistd couchgateway`` and ``couchgateway``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from twisted.python.usage import UsageError

from couchbase.protocol.version import VERSION
from gateway.configfile import effective, example
from gateway.jsonlog import JsonObserver
from gateway.logs import LogFile, LogObserver, observer_for
from gateway.options import SETTINGS, Setting
from gateway.settings import Settings, check_tracing, merge, resolve
from reactor.commandline import ProgramOptions, run_service

__all__ = ["Options", "main"]


class Options(ProgramOptions):
    """Command line of the gateway; :func:`gateway.settings.resolve` adds the other sources."""

    program = "couchgateway"
    version = VERSION
    synopsis = "[options]"
    longdesc = "Documents of a Couchbase cluster, or of an embedded node, over HTTP."
    optFlags = [[setting.name, None, setting.text] for setting in SETTINGS if setting.parse is None]
    optParameters = [
        [setting.name, None, None, setting.help]
        for setting in SETTINGS
        if setting.parse is not None and not setting.repeatable
    ]

    def __init__(self) -> None:
        super().__init__()
        self.repeated: dict[str, list[str]] = {}
        self.settings: Settings | None = None
        self._print_config = False
        self.log_file: LogFile | None = None
        self.log_observer: LogObserver | JsonObserver | None = None
        """The log observer; ``None`` leaves the log to twistd."""

    def opt_print_config(self) -> None:
        """Print all settings and where each was given, as a file for --config, and exit."""
        self._print_config = True

    def opt_example_config(self) -> None:
        """Print a file for --config in which every setting is explained, and exit."""
        print(example(), end="")
        sys.exit(0)

    def parseArgs(self, *words: str) -> None:
        """Refuse arguments that are not options."""
        if words:
            raise UsageError(f"{words[0]!r}: couchgateway takes options only, each of which begins with --")

    def postOptions(self) -> None:
        """Check everything, so that mistakes are reported before anything starts."""
        self.settings = resolve(self.given(), os.environ)
        if self._print_config:
            print(effective(*merge(self.given(), os.environ)), end="")
            sys.exit(0)
        if self.settings.tracing:
            check_tracing(os.environ)
        self._choose_log(self.settings.log_file, self.settings.log_format)
        if self.settings.access_log_file is not None:
            # Each process that serves requests opens it again.
            _open("access-log-file", self.settings.access_log_file).close()

    def _choose_log(self, path: str | None, form: str) -> None:
        """Open the log file, and choose the log observer."""
        others = self.other_logs
        if path is not None:
            if others:
                raise UsageError(f"--log-file: it excludes twistd's --{others[0]}")
            self.log_file = _open("log-file", path)
        elif form == "json" and not self.logs_to_output:
            why = f"it excludes twistd's --{others[0]}" if others else "a daemon has no standard output"
            raise UsageError(f"--log-format json: it needs --log-file here, as {why}")
        if self.log_file is not None or self.logs_to_output:
            # A daemon has no standard output, and logs to twistd.log.
            self.log_observer = observer_for(self.log_file, os.environ, form)

    def given(self) -> dict[str, Any]:
        """Return the values of the command line; see :func:`gateway.settings.resolve`."""
        given = {name: value for name, value in self.items() if value not in (None, 0, False)}
        given.update(self.repeated)
        return given


def _open(option: str, path: str) -> LogFile:
    try:
        return LogFile(path)
    except OSError as error:
        raise UsageError(f"--{option}: {path}: {error.strerror}") from None


def _adder(setting: Setting) -> Callable[[Options, str], None]:
    def add(options: Options, value: str) -> None:
        options.repeated.setdefault(setting.name, []).append(value)

    add.__doc__ = f"{setting.help} May be repeated."
    return add


for _setting in SETTINGS:
    if _setting.repeatable:
        # The attributes that twisted.python.usage looks for.
        setattr(Options, f"opt_{_setting.attribute}", _adder(_setting))


def main() -> None:
    """Run ``couchgateway``: the gateway in the foreground."""
    run_service(Options, sys.argv[1:])
