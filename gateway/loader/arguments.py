"""The command lines of ``couchgateway-load`` and ``couchgateway-export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from couchbase.protocol.version import VERSION
from gateway.loader.errors import LoadError

__all__ = [
    "export_parser",
    "given_place",
    "load_parser",
    "note_path",
    "parse_export",
    "parse_load",
    "password_of",
]

_RESUMES = " 130 interrupted. After the last two, the same command resumes."


def parse_load(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of ``couchgateway-load``; an invalid option ends the process with status 2."""
    return _parsed(load_parser(), argv)


def parse_export(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of ``couchgateway-export``; an invalid option ends the process with status 2."""
    return _parsed(export_parser(), argv)


def load_parser() -> argparse.ArgumentParser:
    """Return the parser of ``couchgateway-load``."""
    parser = argparse.ArgumentParser(
        prog="couchgateway-load",
        description="Send the documents of a JSON-lines file to a bucket, through a gateway.",
        epilog="Exit status: 0 all stored, 1 some lines failed (each is reported by its number),"
        " 2 the load stopped," + _RESUMES,
    )
    parser.add_argument("file", type=Path, help="file of JSON lines, plain or compressed by gzip")
    parser.add_argument("--bucket", required=True, help="bucket to store the documents in")
    parser.add_argument("--scope", help="scope of all documents (default: the line's scope, else _default)")
    parser.add_argument(
        "--collection", help="collection of all documents (default: the line's collection, else _default)"
    )
    _add_gateway(parser)
    parser.add_argument("--key-field", default="id", metavar="NAME", help="member with the key (default: id)")
    parser.add_argument(
        "--value-field", default="doc", metavar="NAME", help="member with the document (default: doc)"
    )
    _add_progress(parser, "start at the first line")
    return parser


def export_parser() -> argparse.ArgumentParser:
    """Return the parser of ``couchgateway-export``."""
    parser = argparse.ArgumentParser(
        prog="couchgateway-export",
        description="Write the documents of a bucket to a file of JSON lines, through a gateway.",
        epilog="Exit status: 0 everything written, 2 the export stopped," + _RESUMES,
    )
    parser.add_argument(
        "file", type=Path, help="the file to write; compressed by gzip if its name ends in .gz"
    )
    parser.add_argument("--bucket", required=True, help="bucket to read the documents from")
    parser.add_argument("--scope", help="only this scope (default: all)")
    parser.add_argument(
        "--collection", help="only this collection, of --scope or else of _default (default: all)"
    )
    parser.add_argument("--designs", action="store_true", help="write the bucket's design documents, too")
    _add_gateway(parser)
    _add_progress(parser, "start again and replace the file")
    return parser


def _add_gateway(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the gateway (default: %(default)s)")
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {VERSION}", help="print the version and exit"
    )
    parser.add_argument("--user", help="name for HTTP Basic; needs --password-file")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="file with the password in line 1")


def _add_progress(parser: argparse.ArgumentParser, restarting: str) -> None:
    parser.add_argument(
        "--resume", type=Path, metavar="STATEFILE", help="file for the progress (default: FILE.progress)"
    )
    parser.add_argument("--restart", action="store_true", help=f"ignore recorded progress and {restarting}")


def _parsed(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    options = parser.parse_args(argv)
    parts = urlsplit(options.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        parser.error(f"--url: {options.url!r} is not of the form http://host:port")
    if (options.user is None) != (options.password_file is None):
        parser.error("--user and --password-file must be given together")
    for name in ("bucket", "scope", "collection"):
        if getattr(options, name) == "":
            parser.error(f"--{name}: the name is empty")
    return options


def note_path(options: argparse.Namespace) -> Path:
    """Return the path of the progress file."""
    path: Path = options.resume or options.file.with_name(options.file.name + ".progress")
    return path


def password_of(path: Path | None) -> str:
    """Return the first line of the password file.

    :raises LoadError: it cannot be read.
    """
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"--password-file: cannot read {path}: {error}") from None


def given_place(options: argparse.Namespace) -> dict[str, str]:
    """Return the names of scope and collection, as far as they are given."""
    names = ((name, getattr(options, name)) for name in ("scope", "collection"))
    return {name: given for name, given in names if given is not None}
