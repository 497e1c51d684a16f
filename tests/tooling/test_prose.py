"""Pages, messages, docstrings and comments are written by the rules of ``tests/tooling/prose``."""

from __future__ import annotations

import ast
import functools
import inspect
import io
import tokenize
from collections.abc import Iterable, Iterator

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.prose.rules import Finding, rules
from tests.tooling.prose.texts import Text, comments, docstrings, messages, paragraphs, remarks
from tests.tooling.sources import PACKAGES, ROOT, parsed, source_files, tracked_files

ALL = {rule.name: rule for rule in rules()}

# Docstrings may have long sentences, with a list in them; pages may not.
SHORT = [rule for name, rule in ALL.items() if name != "Long"]

# These quote words in order to forbid them.
QUOTED = ("tests/tooling/prose/", "tests/tooling/test_prose.py", "tests/judges/test_prose.py")


def of_source(source: str, tree: ast.Module, *, product: bool = True) -> Iterator[Text]:
    """Yield the texts of a Python file; its messages only if it is part of the product."""
    yield from remarks(source)
    for line, text in docstrings(tree):
        for one in paragraphs(inspect.cleandoc(text)):
            yield Text(line + one.line - 1, one.text)
    if product:
        yield from messages(tree)


def found(texts: Iterable[Text], names: Iterable[str] = ALL) -> list[tuple[int, Finding]]:
    """Return what the rules of these names find in texts, with their lines."""
    chosen = [ALL[name] for name in names]
    return [(text.line, one) for text in texts for rule in chosen for one in rule.find(text.text)]


class PageTests(SynchronousTestCase):
    """The written pages."""

    def test_pages(self) -> None:
        """No page breaks a rule."""
        wrong = []
        for path in tracked_files():
            name = path.relative_to(ROOT).as_posix()
            if path.suffix == ".md" and not name.startswith(QUOTED):
                for line, one in found(paragraphs(path.read_text(encoding="utf-8"))):
                    wrong.append(f"{name}:{line}: {one.message} {one.text if one.rule == 'Long' else ''}")
        self.assertEqual(wrong, [])


class SourceTests(SynchronousTestCase):
    """Everything written in Python files."""

    def check(self, packages: Iterable[str], product: bool) -> None:
        """Look through packages."""
        names = [rule.name for rule in SHORT]
        wrong = []
        for path in source_files(*packages):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(QUOTED):
                texts = of_source(path.read_text(encoding="utf-8"), parsed(path), product=product)
                wrong += [f"{name}:{line}: {one.message}" for line, one in found(texts, names)]
        self.assertEqual(wrong, [])

    def test_product(self) -> None:
        """Docstrings, comments, messages and help texts of the product keep the rules."""
        self.check(PACKAGES, product=True)

    def test_rest(self) -> None:
        """So do docstrings and comments of tests, benchmarks and examples."""
        self.check(("twisted", "tests", "bench", "examples"), product=False)


class SelfTests(SynchronousTestCase):
    """The finders find what they look for."""

    def test_words(self) -> None:
        """A word is found in pages, docstrings, comments over several lines, and messages."""
        for bad in (
            "Of what is there.",
            "It waits for ever.",
            "Somebody waits.",
            "A value, be it empty.",
            "The client is told.",
            "What is no JSON.",
            "What became of it.",
            "It is is there.",
            "The behavior differs.",
            "The time-out is over.",
            "It is written anew, for instance.",
            "The rules in force.",
            "The same, but for one line.",
            "Those who wait.",
        ):
            lines = "# " + bad.replace(" ", "\n# ")
            for source in (f'"""{bad}"""\n', f"x = 1\n{lines}\n", f'x = "so it is. {bad}"\n'):
                with self.subTest(source):
                    self.assertTrue(found(of_source(source, ast.parse(source))))
            for page in (bad, f"- {bad}", f"| a | {bad} |", f"> {bad.replace(' ', chr(10))}"):
                with self.subTest(page):
                    self.assertTrue(found(paragraphs(page)))

    def test_comments(self) -> None:
        """Comments are found where the language has them, and not in strings of whatever quotes."""
        source = inspect.cleandoc(
            r"""
            # one
            x = "# no" + '#' + f"{x}# '" + b'\\'  # two, and "more
            if x:  # three's
                y = ''' # no ' " \''' # no
                # no
                '''  # four
                z = "\"# no" "" + '\
            # no' #five
            """
        )
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        expected = [(*token.start, token.string) for token in tokens if token.type == tokenize.COMMENT]
        self.assertEqual(comments(source), expected)
        self.assertEqual(
            [one.text for one in comments(source)],
            ["# one", '# two, and "more', "# three's", "# four", "#five"],
        )

    def test_what_is_not_meant(self) -> None:
        """Plain words pass, and so do code and links' targets."""
        for good in (
            "Of course it waits forever; the two cannot be told apart.",
            "`for ever` and ``somebody``, [a link](for%20ever.md).",
            "    for ever\n",
            "```\nsomebody for ever\n```\n",
            "The `a` `a` of it.",
        ):
            self.assertEqual(found(paragraphs(good)), [], good)

    def test_long_sentences(self) -> None:
        """Sixty words pass, one more does not; a new sentence begins after a full stop."""
        words = functools.partial(" ".join, ["word"] * 60)
        self.assertEqual(found(paragraphs(f"{words()}. {words().capitalize()}."), ["Long"]), [])
        self.assertEqual(len(found(paragraphs(f"{words()}, {words()}."), ["Long"])), 1)

    def test_places(self) -> None:
        """A finding has the line where its paragraph begins."""
        page = "# Title\n\nOne,\ntwo.\n\n| a | b |\n| --- | --- |\n| c | for ever |\n\n- x\n- for ever\n"
        self.assertEqual([line for line, _ in found(paragraphs(page))], [8, 11])
