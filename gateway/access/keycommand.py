"""The command ``couchgateway-key``, which makes an API key."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from couchbase.protocol.version import VERSION
from gateway.access.keys import WrongKeys, key_line, new_key
from reactor.console import console

__all__ = ["key_parser", "main"]


def key_parser() -> argparse.ArgumentParser:
    """Return the parser of ``couchgateway-key``."""
    parser = argparse.ArgumentParser(
        prog="couchgateway-key",
        description="Make an API key. Its line for the file of --api-keys goes to standard output, the key "
        "itself, which is stored nowhere, to standard error.",
        epilog="Exit status: 0, or 2 if the name or the day is invalid.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {VERSION}", help="print the version and exit"
    )
    parser.add_argument("name", metavar="NAME", help="name of the key in rules and logs")
    parser.add_argument(
        "--until", metavar="DAY", default="", help="last day on which the key is valid: YYYY-MM-DD, in UTC"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a new key to standard error and its line for the file to standard output.

    :returns: exit status: 0, or 2 if the name or the day is invalid.
    """
    with console():
        return _make(key_parser(), arguments)


def _make(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    given = parser.parse_args(arguments)
    key = new_key()
    try:
        line = key_line(given.name, key, given.until)
    except WrongKeys:
        sys.stderr.write(
            f"{parser.prog}: expected a name of 1 to 64 letters, digits, and _ . @ -, and a day as in "
            "2027-01-31\n"
        )
        return 2
    sys.stderr.write(f"key (shown once): {key}\n")
    sys.stdout.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
