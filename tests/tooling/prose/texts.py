"""The texts of the repository that people read: pages, docstrings, comments, messages."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.tooling.sources import nodes_of

__all__ = ["Comment", "Text", "comments", "docstrings", "messages", "paragraphs", "remarks"]

CODE = "\N{MIDDLE DOT}"
"""What stands for a piece of code, so that words before and after it do not become neighbours."""

_COMMENT_OR_STRING = re.compile(
    r"""(\#[^\n]*)|\"\"\"(?:[^"\\]|\\.|"(?!""))*\"\"\"|'''(?:[^'\\]|\\.|'(?!''))*'''"""
    r"""|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""",
    re.DOTALL,
)
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_SPAN = re.compile(r"``[^`]+``|`[^`]+`")
_ROLE = re.compile(r":[a-z]+:" + CODE)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_START = re.compile(r"^\s*(?:[-*+] |\d+\. |#+ |> |:\w+(?: [\w*]+)?: )")
_WORDS = re.compile(r"[A-Za-z]{2,}[ ,;:.]+[A-Za-z]{2,}[ ,;:.]+[A-Za-z]{2,}")


class Comment(NamedTuple):
    """A comment and its place."""

    line: int
    column: int
    text: str


class Text(NamedTuple):
    """A paragraph, and the line where it begins; code in it is a mark."""

    line: int
    text: str


def paragraphs(page: str) -> Iterator[Text]:
    """Yield the paragraphs of Markdown or of a docstring: items of lists and cells of tables are some, too.

    Fenced and indented code is left out.
    """
    first, held, is_fenced = 0, "", False

    def ended() -> Iterator[Text]:
        if held.strip():
            yield Text(first, held.strip())

    for number, line in enumerate(page.splitlines(), 1):
        if _FENCE.match(line):
            is_fenced = not is_fenced
            line = ""
        if is_fenced or (not held and line.startswith("    ")) or not line.strip():
            yield from ended()
            held = ""
            continue
        line = _plain(line)
        if line.lstrip().startswith("|"):
            yield from ended()
            held = ""
            for cell in line.strip().strip("|").split("|"):
                if cell.strip(" -:"):
                    yield Text(number, cell.strip())
            continue
        if _START.match(line):
            yield from ended()
            held = ""
            line = _START.sub("", line)
        if not held:
            first = number
        held = f"{held} {line.strip()}"
    yield from ended()


def _plain(line: str) -> str:
    line = _LINK.sub(r"\1", _SPAN.sub(CODE, line))
    return _ROLE.sub(CODE, line).replace("**", "")


@functools.cache
def comments(source: str) -> list[Comment]:
    """Return the comments of a source text, as :mod:`tokenize` does more slowly.

    The text must parse, and not nest strings of the same quotes, which Python 3.12 allows in f-strings.
    """
    found = []
    line, start, counted = 1, 0, 0
    for match in _COMMENT_OR_STRING.finditer(source):
        if match[1] is not None:
            here = match.start()
            line += source.count("\n", counted, here)
            counted = here
            start = source.rfind("\n", 0, here) + 1
            found.append(Comment(line, here - start, match[1]))
    return found


def remarks(source: str) -> Iterator[Text]:
    """Yield the comments of a source text, those of neighbouring lines as one paragraph."""
    held: list[str] = []
    first = last = 0
    for comment in comments(source):
        if comment.line != last + 1 and held:
            yield Text(first, _plain(" ".join(held)))
            held = []
        if not held:
            first = comment.line
        held.append(comment.text.lstrip("# "))
        last = comment.line
    if held:
        yield Text(first, _plain(" ".join(held)))


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring, those of attributes and constants included."""
    for one in nodes_of(tree, ast.Expr):
        if isinstance(one.value, ast.Constant) and isinstance(one.value.value, str):
            yield one.lineno, one.value.value


def messages(tree: ast.Module) -> Iterator[Text]:
    """Yield the other strings of a file that are texts for people: of three words and more."""
    shown = {id(one.value) for one in nodes_of(tree, ast.Expr)}
    for node in nodes_of(tree, ast.Constant):
        if not isinstance(node.value, str) or id(node) in shown:
            continue
        if _WORDS.search(node.value):
            yield Text(node.lineno, _plain(" ".join(node.value.split())))
