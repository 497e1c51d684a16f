"""One style of writing in all source files: section rules, predicates, return values, suppressions."""

from __future__ import annotations

import ast
import re

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.prose.texts import comments, docstrings
from tests.tooling.sources import PACKAGES, ROOT, parsed, source_files

FOLDERS = (*PACKAGES, "twisted", "tests", "bench", "examples")

# A rule between the sections of a module or a class: this wide, its indentation included.
SECTION_WIDTH = 100
LOOKS_LIKE_A_SECTION = re.compile(r"# ?(?:-{2,}|={2,}|~{2,}|\*{2,}) ?")
SECTION = re.compile(r"# ---- \S(?:.*\S)? -+")

# A comment that suppresses a check names its codes; the reason is a separate comment.
SUPPRESSION = re.compile(r"# noqa: [A-Z]+[0-9]+(?:, [A-Z]+[0-9]+)*(?P<reason>  # \S.*)?")
LOOKS_LIKE_A_SUPPRESSION = re.compile(r"# *noqa.*", re.IGNORECASE)

PREDICATE = re.compile(r"(?:Say|Tell|Check|Answer|Decide|Know|Report|Returns) whether |Returns? True if ")


def bad_sections(source: str) -> list[int]:
    """Return the lines with a section rule of another form than ``# ---- title ----``."""
    return [
        comment.line
        for comment in comments(source)
        if LOOKS_LIKE_A_SECTION.match(comment.text)
        and not (SECTION.fullmatch(comment.text) and comment.column + len(comment.text) == SECTION_WIDTH)
    ]


def bad_suppressions(source: str) -> list[int]:
    """Return the lines that switch a check off without a code, or without a reason."""
    found = []
    for comment in comments(source):
        start = LOOKS_LIKE_A_SUPPRESSION.search(comment.text)
        if start is not None:
            match = SUPPRESSION.fullmatch(start[0])
            if match is None or match["reason"] is None:
                found.append(comment.line)
    return found


def bad_docstrings(tree: ast.Module) -> list[int]:
    """Return the lines of docstrings with another form for predicates or return values."""
    return [line for line, text in docstrings(tree) if PREDICATE.match(text) or ":return:" in text]


class StyleTests(SynchronousTestCase):
    """Every Python file is written in the one style."""

    def everywhere(self, find: object, *folders: str) -> list[str]:
        """Return the places that a finder of the module reports."""
        places = []
        for path in source_files(*(folders or FOLDERS)):
            subject = parsed(path) if find is bad_docstrings else path.read_text(encoding="utf-8")
            places += [f"{path.relative_to(ROOT)}:{line}" for line in find(subject)]  # type: ignore[operator]
        return places

    def test_sections(self) -> None:
        """A section begins with ``# ---- title ----``, filled up to 100 columns."""
        self.assertEqual(self.everywhere(bad_sections), [])

    def test_suppressions(self) -> None:
        """A suppression of the linter is ``# noqa: CODE  # why``."""
        self.assertEqual(self.everywhere(bad_suppressions), [])

    def test_docstrings(self) -> None:
        """A predicate's docstring begins "Return whether", and a return value's field is ``:returns:``."""
        self.assertEqual(self.everywhere(bad_docstrings), [])


class SelfTests(SynchronousTestCase):
    """The finders find what they look for."""

    def test_sections(self) -> None:
        """The one form passes; a short rule, no rule, other characters and other widths do not."""
        good = "    # ---- life "
        self.assertEqual(bad_sections(f"if 1:\n{good}{'-' * (SECTION_WIDTH - len(good))}\n    pass\n"), [])
        for bad in (
            "# -- life",
            "# --- life ---",
            "# ---- life -----",
            "# ==== life ====",
            "#------ life",
            "# ---",
        ):
            with self.subTest(bad):
                self.assertEqual(bad_sections(bad + "\n"), [1])

    def test_suppressions(self) -> None:
        """A code and a reason pass; without either, or joined by other signs, they do not."""
        self.assertEqual(bad_suppressions("x = 1  # noqa: E731  # short\n"), [])
        self.assertEqual(bad_suppressions("x = 1  # type: ignore[misc]  # noqa: E731, B008  # short\n"), [])
        for bad in (
            "# noqa",
            "# noqa: E731",
            "# noqa: E731 - short",
            "# noqa: E731 (short)",
            "#NOQA:E731  # short",
        ):
            with self.subTest(bad):
                self.assertEqual(bad_suppressions(f"x = 1  {bad}\n"), [1])

    def test_docstrings(self) -> None:
        """Docstrings of modules, classes, functions and attributes are looked at."""
        for bad in (
            "Say whether it is.",
            "Tell whether it is.",
            "Return True if it is.",
            "It.\n\n:return: it",
        ):
            for form in (
                '"""{}"""',
                'def f():\n    """{}"""',
                'class C:\n    """{}"""',
                'class C:\n    x = 1\n    """{}"""',
            ):
                with self.subTest(f"{bad} in {form}"):
                    self.assertEqual(len(bad_docstrings(ast.parse(form.format(bad)))), 1)
        self.assertEqual(bad_docstrings(ast.parse('"""Return whether it is.\n\n:returns: it"""')), [])
