"""Addresses elsewhere that the repository's words name: ``python -m tests.tooling.weblinks`` asks for each.

A test checks their form only; this command is the one that needs the network. An address is broken if its
host cannot be reached, or answers "not found" or "gone"; other refusals are meant for programs like this one.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tests.tooling.sources import ROOT, source_files, tracked_files

ADDRESS = re.compile(r"https?://(?:(?!\]\()[^\s<>\"'`|\\])+")
# The name of an XML vocabulary looks like an address, and is none.
NAMESPACE = re.compile(r"\b(?:xmlns(?::\w+)?|xsi:schemaLocation)=\"[^\"]*\"")
EXAMPLE = re.compile(
    r"(^|\.)(example(\.(org|com|net))?|localhost|local|internal|invalid|test|svc)$|^[\d.]+$|^\[|[{}$*]|^[^.]+$"
)
"""Hosts that nobody should ask: names reserved for examples, addresses of a network, names without a dot."""
SECONDS = 20
GONE = (404, 410)


def addresses(text: str) -> Iterator[str]:
    """Yield the addresses in a text, without the punctuation of its sentences."""
    for found in ADDRESS.findall(NAMESPACE.sub("", text)):
        while found and (found[-1] in ".,;:!?*_" or (found[-1] in ")]" and not balanced(found))):
            found = found[:-1]
        yield found


def balanced(address: str) -> bool:
    """Return whether each bracket that is closed in an address is opened there."""
    return address.count("(") >= address.count(")") and address.count("[") >= address.count("]")


def words() -> Iterator[tuple[str, str]]:
    """Yield the pages and the docstrings of the product, each with where it stands."""
    for path in tracked_files():
        if path.suffix == ".md":
            yield str(path.relative_to(ROOT)), path.read_text("utf-8")
    for path in source_files():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                docstring = ast.get_docstring(node)
                if docstring:
                    yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", docstring


def links() -> dict[str, list[str]]:
    """Return each address of another host that a reader could follow, with the places that name it."""
    found: dict[str, list[str]] = {}
    for place, text in words():
        for address in addresses(text):
            host = urlsplit(address).hostname
            if host and not EXAMPLE.search(host):
                found.setdefault(address, []).append(place)
    return found


def answer(address: str, open_address: Callable[..., object] = urlopen) -> str:
    """Ask for one address; return what is wrong, or an empty text."""
    request = Request(address.partition("#")[0], headers={"User-Agent": "couchgateway-links"})
    try:
        open_address(request, timeout=SECONDS)
    except HTTPError as error:
        return str(error.code) if error.code in GONE else ""
    except (URLError, OSError) as error:
        return str(error)
    return ""


def main() -> int:
    """Ask for all; print each with its answer, and the places of those that lead nowhere."""
    found = links()
    status = 0
    with ThreadPoolExecutor(8) as threads:
        answers = dict(zip(found, threads.map(answer, found), strict=True))
        for address, places in sorted(found.items()):
            wrong = answers[address]
            print(f"{wrong or 'ok'}: {address}")
            if wrong:
                status = 1
                print("  " + "\n  ".join(places))
    return status


if __name__ == "__main__":
    sys.exit(main())
