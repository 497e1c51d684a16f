"""The command line of ``couchgateway-load``."""

from __future__ import annotations

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from couchbase.protocol.keyspace import DEFAULT_NAME
from gateway.loader.file import LoadError

__all__ = ["parse_arguments", "password_of", "place_of"]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of the command; a wrong one ends the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="couchgateway-load",
        description="Send the documents of a JSON-lines file to a bucket, through a gateway.",
        epilog="Exit status: 0 all stored, 1 some lines failed (each is reported by its number),"
        " 2 the load stopped, 130 interrupted. After the last two, the same command resumes.",
    )
    parser.add_argument("file", type=Path, help="JSON lines, plain or compressed by gzip")
    parser.add_argument("--bucket", required=True, help="where the documents go")
    parser.add_argument(
        "--scope", default=DEFAULT_NAME, help="scope of lines without one (default: _default)"
    )
    parser.add_argument(
        "--collection", default=DEFAULT_NAME, help="collection of lines without one (default: _default)"
    )
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the gateway (default: %(default)s)")
    parser.add_argument("--user", help="name for HTTP Basic; needs --password-file")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="its first line is the password")
    parser.add_argument("--key-field", default="id", metavar="NAME", help="member with the key (default: id)")
    parser.add_argument(
        "--value-field", default="doc", metavar="NAME", help="member with the document (default: doc)"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="STATEFILE", help="where progress is noted (default: FILE.progress)"
    )
    parser.add_argument(
        "--restart", action="store_true", help="ignore noted progress and start at the first line"
    )
    options = parser.parse_args(argv)
    parts = urlsplit(options.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        parser.error(f"--url: {options.url!r} is not of the form http://host:port")
    if (options.user is None) != (options.password_file is None):
        parser.error("--user and --password-file need each other")
    for name in ("bucket", "scope", "collection"):
        if not getattr(options, name):
            parser.error(f"--{name}: the name is empty")
    return options


def password_of(path: Path | None) -> str:
    """Return the first line of the password's file.

    :raises LoadError: it cannot be read.
    """
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"--password-file: cannot read {path}: {error}") from None


def place_of(options: argparse.Namespace) -> dict[str, str]:
    """Return the names of scope and collection; none of them for the default collection."""
    if (options.scope, options.collection) == (DEFAULT_NAME, DEFAULT_NAME):
        return {}
    return {"scope": options.scope, "collection": options.collection}
