"""Writes what is generated from the options of the commands: manual pages, and an example configuration.

python -m tests.tooling.manuals
"""

from __future__ import annotations

import argparse
from pathlib import Path

from couchbase.protocol.version import VERSION
from couchnode.service import Options as NodeOptions
from gateway.access.keycommand import key_parser
from gateway.commandline import Options as GatewayOptions
from gateway.configfile import example
from gateway.loader.arguments import export_parser, load_parser
from reactor.commandline import Option, ProgramOptions, manual, options_of
from tests.tooling.sources import ROOT

_SERVICES: tuple[tuple[type[ProgramOptions], str], ...] = (
    (
        GatewayOptions,
        "It runs in the foreground until SIGTERM or SIGINT. twistd couchgateway takes the same options, and "
        "can run as a daemon.\n\nEach option can also be given in the environment, as COUCHGATEWAY_ and its "
        "name in capitals, or in a TOML file named by --config.",
    ),
    (
        NodeOptions,
        "It runs in the foreground until SIGTERM or SIGINT. twistd couchnode takes the same options, and can "
        "run as a daemon.",
    ),
)
_SUMMARIES = {
    "couchgateway": "REST gateway to Couchbase",
    "couchnode": "Couchbase-compatible node",
    "couchgateway-load": "send documents of a file to a bucket",
    "couchgateway-export": "write documents of a bucket to a file",
    "couchgateway-key": "make an API key",
}


def _of_parser(parser: argparse.ArgumentParser) -> str:
    formatter = parser._get_formatter()
    options = []
    for action in parser._actions:
        if action.option_strings:
            text = formatter._expand_help(action) if action.help else ""
            options.append(Option(action.option_strings[-1].lstrip("-"), action.nargs != 0, text))
    arguments = " ".join(
        str(one.metavar or one.dest).upper() for one in parser._actions if not one.option_strings
    )
    more = "\n\n".join(text for text in (parser.description, parser.epilog) if text)
    return manual(parser.prog, VERSION, _SUMMARIES[parser.prog], sorted(options), more, arguments=arguments)


def generated() -> dict[Path, str]:
    """Return the files and what belongs into them."""
    files = {ROOT / "deploy" / "couchgateway.toml": example()}
    for make, more in _SERVICES:
        options = make()
        page = manual(options.program, VERSION, _SUMMARIES[options.program], options_of(options), more)
        files[ROOT / "docs" / "man" / f"{options.program}.1"] = page
    for parser in (load_parser(), export_parser(), key_parser()):
        files[ROOT / "docs" / "man" / f"{parser.prog}.1"] = _of_parser(parser)
    return files


def main() -> None:
    """Write them."""
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
