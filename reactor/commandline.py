"""Commands for services of twistd: options, the start in the foreground, shell completion and man pages.

``twistd NAME`` and ``NAME`` take the same options; the latter is ``twistd --nodaemon --pidfile= NAME`` with
messages of one line.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.python import usage
from twisted.python.runtime import platform
from twisted.scripts import twistd

from reactor.console import console

__all__ = ["COMPLETIONS", "Option", "ProgramOptions", "manual", "options_of", "run_service"]

EXIT_USAGE = 2


class Option(NamedTuple):
    """One option, as completions and manuals show it."""

    name: str
    """Without the dashes."""
    takes_value: bool
    text: str


class ProgramOptions(usage.Options):
    """The command line of a service that is also a command."""

    program = ""
    """Name of the command, and of twistd's subcommand."""
    version = ""
    """Version that ``--version`` prints."""

    @property
    def other_logs(self) -> list[str]:
        """Options of twistd that were given, and send the log elsewhere than to standard output."""
        given = {} if self.parent is None else self.parent
        return [name for name in ("logfile", "syslog", "logger") if given.get(name) not in (None, 0, "-")]

    @property
    def logs_to_output(self) -> bool:
        """Whether twistd would write the log to standard output, which a daemon does not have."""
        return not self.other_logs and self.parent is not None and bool(self.parent.get("nodaemon"))

    def getSynopsis(self) -> str:
        """Return the line of ``--help`` that begins with ``Usage:``."""
        if isinstance(self.parent, _Foreground):
            return f"Usage: {self.program} [options]"
        return str(super().getSynopsis())

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"{self.program} {self.version}")
        sys.exit(0)

    def opt_completion(self, shell: str) -> None:
        """Print the completion of the command for a shell (bash, fish or zsh) and exit."""
        complete = COMPLETIONS.get(shell)
        if complete is None:
            raise usage.UsageError(f"--completion {shell}: expected {', '.join(COMPLETIONS)}")
        print(complete(self.program, options_of(self)), end="")
        sys.exit(0)


class _Foreground(twistd.ServerOptions):
    """The options of twistd where the command is one service."""


def run_service(options: type[ProgramOptions], arguments: Sequence[str]) -> None:
    """Run a service of twistd in the foreground, until a signal ends it.

    :param options: options of the service, which name its subcommand.
    :param arguments: the options given.
    :raises SystemExit: status 2 if they cannot be used; the message is one line.
    """
    parsed = _Foreground()
    # On Windows twistd never becomes a daemon, and has no option for the file.
    own = ["--nodaemon"] if platform.isWindows() else ["--nodaemon", "--pidfile="]
    with console():
        try:
            parsed.parseOptions([*own, options.program, *arguments])
        except usage.UsageError as error:
            print(f"{options.program}: {error}", file=sys.stderr)
            print(f"{options.program} --help lists the options.", file=sys.stderr)
            sys.exit(EXIT_USAGE)
    twistd.runApp(parsed)


def options_of(options: usage.Options) -> list[Option]:
    """Return all options of a command line, sorted by name."""
    found = []
    for entry in options.longOpt:
        name = entry.rstrip("=")
        found.append(Option(name, entry.endswith("="), " ".join(options.docs[name].split())))
    return sorted(found)


def _bash(program: str, options: Sequence[Option]) -> str:
    words = textwrap.fill(
        " ".join(f"--{option.name}" for option in options),
        100,
        initial_indent=" " * 8,
        subsequent_indent=" " * 8,
        break_on_hyphens=False,
    )
    function = f"_{program.replace('-', '_')}"
    return f"""\
{function}() {{
    local word=${{COMP_WORDS[COMP_CWORD]}}
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "
{words}
        " -- "$word"))
    fi
}}
complete -o default -F {function} {program}
"""


def _fish(program: str, options: Sequence[Option]) -> str:
    lines = []
    for option in options:
        text = option.text.replace("\\", "\\\\").replace("'", "\\'")
        required = " -r" if option.takes_value else ""
        lines.append(f"complete -c {program} -l {option.name}{required} -d '{text}'\n")
    return "".join(lines)


def _zsh(program: str, options: Sequence[Option]) -> str:
    lines = [f"#compdef {program}\n", "_arguments \\\n"]
    for option in options:
        text = option.text
        for special in "\\[]:":
            text = text.replace(special, f"\\{special}")
        quoted = text.replace("'", "'\\''")
        value = ":value:_files" if option.takes_value else ""
        lines.append(f"    '*--{option.name}[{quoted}]{value}' \\\n")
    lines[-1] = lines[-1].replace(" \\\n", "\n")
    return "".join(lines)


COMPLETIONS: dict[str, Callable[[str, Sequence[Option]], str]] = {"bash": _bash, "fish": _fish, "zsh": _zsh}
"""Shell -> function of (program, its options) that returns the completion's source."""


def manual(
    program: str, version: str, summary: str, options: Sequence[Option], more: str = "", arguments: str = ""
) -> str:
    """Return the page of a command for section 1 of the manual, in the macros of man(7).

    :param summary: what the command is, without a full stop.
    :param more: paragraphs after the summary, separated by empty lines.
    :param arguments: the text after the options.
    """
    lines = [
        f'.TH {program.upper()} 1 "" "{program} {version}"',
        ".SH NAME",
        f"{_roff(program)} \\- {_roff(summary)}",
        ".SH SYNOPSIS",
        f".B {_roff(program)}",
        f"[options] {arguments}".rstrip(),
        ".SH DESCRIPTION",
    ]
    for paragraph in more.split("\n\n"):
        lines += [".PP", _roff(" ".join(paragraph.split()))]
    lines.append(".SH OPTIONS")
    for option in options:
        value = " \\fIvalue\\fR" if option.takes_value else ""
        lines += [".TP", f"\\fB\\-\\-{_roff(option.name)}\\fR{value}", _roff(option.text)]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    # A line that begins with one of these would be a request.
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
