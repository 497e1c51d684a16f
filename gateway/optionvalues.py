"""Values of options: each function parses a value as given, and names the accepted values in its error."""

from __future__ import annotations

import re
from collections.abc import Callable
from os.path import isfile
from pathlib import Path

from twisted.internet.endpoints import serverFromString

from couchbase.arguments import check_options
from couchbase.exceptions import ArgumentError, InvalidError
from couchbase.protocol.connstr import parse_connection_string
from gateway.access.options import WAYS, is_url
from gateway.clients.cors import METHODS
from gateway.clients.origins import origin_of
from gateway.clients.proxies import check_proxy
from gateway.cluster.credentials import has_controls
from gateway.endpoints import listen_address
from gateway.logs import check_folder
from gateway.services.kinds import KINDS, Access
from reactor.tls.strings import EndpointError, tls_endpoint

__all__ = [
    "DEFAULT_LISTEN",
    "UNITS",
    "Wrong",
    "auth",
    "bucket",
    "cluster",
    "cors_method",
    "cors_origin",
    "count",
    "endpoint",
    "existing_file",
    "header_name",
    "host",
    "key_set",
    "log_file",
    "number",
    "one_of",
    "proxied_service",
    "proxy",
    "rate",
    "seconds",
    "seconds_or_none",
    "size",
    "text",
    "user",
]

DEFAULT_LISTEN = "tcp:8080:interface=127.0.0.1"
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


_ACCESS = [access.value for access in Access]


class Wrong(ValueError):
    """A value that an option does not accept; the message names the accepted ones."""


def text(value: str) -> str:
    """Parse any text that is not empty."""
    if not value:
        raise Wrong("expected some text")
    return value


def user(value: str) -> str:
    """Parse a user name."""
    if not value or has_controls(value):
        raise Wrong(f"{value!r} is not a user name: text without control characters")
    return value


def size(value: str) -> int:
    """Parse a size in bytes, with an optional suffix K, M or G (1024 each)."""
    match = re.fullmatch(r"(\d{1,15})([KMG]?)(?:iB|B)?", value)
    if match is None or not int(match[1]):
        raise Wrong(f"{value!r} is not a size such as 20M, 512K or 1048576")
    return int(match[1]) * UNITS[match[2]]


def count(value: str) -> int:
    """Parse a whole number above 0."""
    if not re.fullmatch(r"\d{1,9}", value) or not int(value):
        raise Wrong(f"{value!r} is not a whole number above 0")
    return int(value)


def number(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from ``low`` to ``high``."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"\d{1,9}", value) or not low <= int(value) <= high:
            raise Wrong(f"{value!r} is not a whole number from {low} to {high}")
        return int(value)

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """Return a parser of one of several words."""

    def parse(value: str) -> str:
        if value not in words:
            raise Wrong(f"{value!r} is not one of {', '.join(words)}")
        return value

    return parse


def rate(value: str) -> float:
    """Parse a number of requests a second above 0."""
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value) or not float(value):
        raise Wrong(f"{value!r} is not a number of requests a second above 0, such as 100 or 0.5")
    return float(value)


def seconds(value: str) -> float:
    """Parse a number of seconds above 0."""
    if not re.fullmatch(r"\d{1,9}(\.\d+)?", value) or not float(value):
        raise Wrong(f"{value!r} is not a number of seconds above 0")
    return float(value)


def seconds_or_none(value: str) -> float:
    """Parse a number of seconds, 0 included."""
    if not re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        raise Wrong(f"{value!r} is not a number of seconds, 0 or more")
    return float(value)


def auth(value: str) -> str:
    """Parse the authentication methods; returned in the order in which they are tried."""
    ways = ["passthrough" if way == "basic" else way for way in value.split(",")]
    known = (*WAYS, "none")
    if not all(way in known for way in ways) or len(set(ways)) < len(ways):
        raise Wrong(
            f"{value!r} is not a list, separated by commas, of {', '.join(WAYS)} (each once), and not none"
        )
    if "none" in ways and len(ways) > 1:
        raise Wrong(f"{value!r}: none admits anyone, so it excludes all others")
    return ",".join(ways)


def cluster(value: str) -> str:
    """Parse a connection string."""
    if not re.fullmatch(r"(couchbase|http)s?://[^\s/?]+(/[^\s?]*)?(\?\S*)?", value):
        raise Wrong(
            f"{value!r} is not a connection string such as couchbase://host1,host2 (couchbases:// for TLS),"
            " or http://host:8091 of cluster managers (https:// for TLS)"
        )
    try:
        check_options(parse_connection_string(value).options)
    except (InvalidError, ArgumentError) as error:
        raise Wrong(f"{value!r}: {error.message}") from None
    return value


def host(value: str) -> str:
    """Parse a host name, or ``*``."""
    if value != "*" and not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", value):
        raise Wrong(f"{value!r} is not a host name such as gateway.example (without scheme and port), or *")
    return value


def cors_origin(value: str) -> str:
    """Parse an origin, ``*`` or ``none``."""
    if value not in ("*", "none") and origin_of(value) is None:
        raise Wrong(
            f"{value!r} is not an origin such as https://app.example or http://localhost:3000 "
            "(ports are 1 to 65535), * or none"
        )
    return value


def cors_method(value: str) -> str:
    """Parse a method that pages may send."""
    if value not in METHODS:
        raise Wrong(f"{value!r} is not one of the methods {', '.join(METHODS)}")
    return value


def header_name(value: str) -> str:
    """Parse the name of a header."""
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", value) or value == "*":
        raise Wrong(f"{value!r} is not the name of a header such as X-CB-Flags")
    return value


def bucket(value: str) -> str:
    """Parse a bucket's name."""
    if not re.fullmatch(r"[A-Za-z0-9_.%-]{1,100}", value):
        raise Wrong(f"{value!r} is not a bucket name: letters, digits, and _ . % -")
    return value


_OF_PARSERS = (
    (re.compile(r"invalid literal for int\(\) with base 10: (.*)"), r"\1 is not a whole number"),
    (re.compile(r".* missing \d+ required positional arguments?: (.*)"), r"\1 is missing"),
    (re.compile(r".* unexpected keyword argument ('[^']*').*"), r"it has no parameter \1"),
    (re.compile(r".* multiple values for (?:keyword )?argument ('[^']*')"), r"\1 is given twice"),
)
"""What Twisted's parsers of endpoints raise about the calls of their functions, and words for it."""


def _plainly(error: Exception) -> str:
    text = str(error)
    for pattern, words in _OF_PARSERS:
        match = pattern.fullmatch(text)
        if match is not None:
            return match.expand(words)
    return text


def endpoint(value: str) -> str:
    """Parse a Twisted endpoint string."""
    from twisted.internet import reactor

    try:
        if tls_endpoint(reactor, value) is None:
            serverFromString(reactor, value)
    except EndpointError as error:
        raise Wrong(f"{value!r}: {error}") from None
    except Exception as error:  # noqa: BLE001  # endpoint parsers raise exceptions of any kind
        raise Wrong(f"{value!r} is not an endpoint such as {DEFAULT_LISTEN}: {_plainly(error)}") from None
    port = listen_address(value).port
    if port is not None and not 0 <= port <= 65535:
        raise Wrong(f"{value!r}: there is no port {port}; ports are 0 (any free one) to 65535")
    return value


def log_file(value: str) -> str:
    """Parse the path of a log file, whose folder must exist."""
    try:
        return check_folder(value)
    except ValueError:
        raise Wrong(f"{value!r} is not a file in an existing folder") from None


def proxied_service(value: str) -> str:
    """Parse a service to proxy; returned as ``NAME=ACCESS``."""
    name, _, how = value.partition("=")
    if name not in KINDS or (how or "on") not in _ACCESS or value.endswith("="):
        raise Wrong(
            f"{value!r} is not a service: {', '.join(KINDS)}, or one of them with =on, =read-only or =off"
        )
    return f"{name}={how or 'on'}"


def proxy(value: str) -> str:
    """Parse the address or network of a proxy, or ``unix``."""
    try:
        return check_proxy(value)
    except ValueError:
        raise Wrong(f"{value!r} is not an address, a network such as 10.0.0.0/8, or the word unix") from None


def key_set(value: str) -> str:
    """Parse the location of a key set: an existing file, or a URL."""
    return value if is_url(value) else existing_file(value)


def existing_file(value: str) -> str:
    """Parse the path of an existing file; returned as an absolute path."""
    # Not Path.is_file(), which raises an error for a name that is too long.
    if not isfile(value):
        raise Wrong(f"there is no file {value!r}")
    # The file is read again on SIGHUP, and twistd may have changed its working directory by then.
    return str(Path(value).absolute())
