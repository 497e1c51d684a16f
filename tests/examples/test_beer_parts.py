"""The parts of the beer application that do no I/O."""

from __future__ import annotations

import gzip
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from examples.beer import kinds, pages
from examples.beer.documents import LoadError, read_documents
from examples.beer.kinds import BEER, BREWERY, KINDS, Wrong
from examples.beer.store import likes_key, search_key
from tests.examples.support import sample_documents

FIELDS = {(kind.name, one.name): one for kind in KINDS.values() for one in kind.fields}


class FieldTests(SynchronousTestCase):
    """Accepted values of fields."""

    def test_what_is_stored(self) -> None:
        """Texts become what the documents hold: tidy texts, numbers, lines; nothing if empty."""
        for kind, name, typed, stored in (
            ("beer", "name", "  Old\t Ale ", "Old Ale"),
            ("beer", "abv", "4.5", 4.5),
            ("beer", "abv", "4,5", 4.5),
            ("beer", "abv", "0", 0.0),
            ("beer", "abv", "100", 100.0),
            ("beer", "abv", " ", None),
            ("beer", "ibu", "1e2", 100.0),
            ("beer", "upc", "0123456789012", 123456789012),
            ("beer", "description", "one\r\ntwo", "one\ntwo"),
            ("brewery", "address", "1 Road\r\n\r\n Town ", ["1 Road", "Town"]),
            ("brewery", "phone", "+49 (30) 555-0151", "+49 (30) 555-0151"),
            ("brewery", "website", "https://brewery.example/a?b=c", "https://brewery.example/a?b=c"),
        ):
            self.assertEqual(FIELDS[kind, name].read(typed), stored, (name, typed))

    def test_what_is_refused(self) -> None:
        """Everything else is refused with a sentence that says what to do."""
        for kind, name, typed in (
            ("beer", "name", ""),
            ("beer", "name", " \t"),
            ("beer", "name", "x" * 101),
            ("beer", "name", "a\x00b"),
            ("beer", "name", "a\x1b[2Jb"),
            ("beer", "brewery_id", ""),
            ("beer", "abv", "strong"),
            ("beer", "abv", "-1"),
            ("beer", "abv", "100.1"),
            ("beer", "abv", "nan"),
            ("beer", "abv", "inf"),
            ("beer", "abv", "1_0"),
            ("beer", "ibu", "1001"),
            ("beer", "srm", "1.2.3"),
            ("beer", "upc", "12-34"),
            ("beer", "upc", "٣"),
            ("beer", "upc", "1" * 14),
            ("beer", "description", "x" * 4001),
            ("brewery", "phone", "call me"),
            ("brewery", "phone", "()"),
            ("brewery", "website", "brewery.example"),
            ("brewery", "website", "javascript:alert(1)"),
            ("brewery", "website", "data:text/html,x"),
            ("brewery", "website", "https://"),
            ("brewery", "website", "https://[::1"),
        ):
            error = self.assertRaises(Wrong, FIELDS[kind, name].read, typed)
            self.assertRegex(str(error), r"^(Enter|Choose|The) .+[.]$", (name, typed))

    def test_the_sample_survives_a_form(self) -> None:
        """Whatever the sample has can be shown in a form and sent back, and is the same."""
        for key, document in sample_documents():
            kind = KINDS[document["type"]]
            form = kinds.read_form(kind, kinds.form_of(kind, document).texts)
            self.assertEqual(form.errors, {}, key)
            self.assertEqual(kinds.differences(kind, document, form), [], key)
            again = kinds.merged(kind, document, form, document["updated"])
            full = {name: value for name, value in document.items() if value not in ("", [], None)}
            self.assertEqual(again, full, key)

    def test_what_a_form_does_not_know_stays(self) -> None:
        """Members that no field edits are kept; emptied ones go."""
        stored = {"type": "beer", "name": "A", "style": "Porter", "geo": {"lat": 1}, "extra": [1]}
        form = kinds.read_form(BEER, {"name": "B", "brewery_id": "x"})
        self.assertEqual(
            [one.name for one in kinds.differences(BEER, stored, form)], ["name", "brewery_id", "style"]
        )
        kept = {"type": "beer", "geo": {"lat": 1}, "extra": [1]}
        now = {"name": "B", "brewery_id": "x", "updated": "now"}
        self.assertEqual(kinds.merged(BEER, stored, form, "now"), {**kept, **now})

    def test_strange_values_have_a_text(self) -> None:
        """Documents of other programs may hold anything where a text is expected."""
        for value in (None, True, 1, 1.5, 1e300, "x", [], [1, [2]], {"a": 1}, "\ud800", 10**30):
            pages.text(value).encode()
            self.assertIsInstance(kinds.form_of(BREWERY, {"city": value}).texts["city"], str)
        self.assertEqual(kinds.as_text(24.0), "24")
        self.assertEqual(kinds.as_text(123456789012), "123456789012")

    def test_only_web_addresses_become_links(self) -> None:
        """A web site stored by another program is a link only if it is a web address."""
        self.assertTrue(kinds.is_web_address("http://a.example"))
        for value in ("javascript:alert(1)", "//a.example", "", None, 5, ["http://a.example"]):
            self.assertFalse(kinds.is_web_address(value), value)


class KeyTests(SynchronousTestCase):
    """Keys, and the addresses that hold them."""

    @given(st.text(min_size=1))
    def test_any_key_is_one_segment(self, key: str) -> None:
        """A key comes back from the address, which browsers and routes leave as it is."""
        try:
            key.encode()
        except UnicodeEncodeError:
            return
        path = urlsplit(pages.address(BEER, key, "edit")).path
        parts = path.split("/")
        self.assertEqual([parts[0], parts[1], parts[3:]], ["", "beer", ["edit"]])
        segment = unquote(parts[2], errors="strict")
        self.assertNotIn("/", segment)
        self.assertFalse(segment.startswith("."))
        self.assertEqual(pages.key_of(segment), key)

    @given(st.text())
    def test_slugs_are_short_and_plain(self, name: str) -> None:
        """Letters and digits of any script, underscores, at most 100 bytes, and never nothing."""
        slug = kinds.slug(name)
        self.assertTrue(0 < len(slug.encode("utf-8")) <= 100)
        self.assertTrue(all(char.isalnum() or char == "_" for char in slug), slug)

    def test_slugs(self) -> None:
        """Like the keys of the sample."""
        self.assertEqual(kinds.slug("Amber Lock Brewpub"), "amber_lock_brewpub")
        self.assertEqual(kinds.slug("  Märzen <b>!"), "märzen_b")
        self.assertEqual(kinds.slug("Пиво №5"), "пиво_5")
        self.assertEqual(kinds.slug("<>"), "nameless")

    def test_counters_fit(self) -> None:
        """A beer's counter has its own key, even if the beer's key has the maximum length."""
        self.assertEqual(likes_key("a"), "likes-a")
        long = [likes_key("x" * 249 + char) for char in "ab"]
        self.assertEqual(len(set(long)), 2)
        self.assertTrue(all(len(key) <= 250 for key in long))

    def test_search_keys(self) -> None:
        """The search text is written like names in the view."""
        for typed, wanted in (("  IND", "ind"), ("India  PALE", "india pale"), ("(ale", "ale"), ("-- ", "")):
            self.assertEqual(search_key(typed), wanted)
        self.assertEqual(len(search_key("x" * 1000)), 60)


class DocumentFileTests(SynchronousTestCase):
    """Files to load."""

    def write(self, content: bytes, name: str = "some.jsonl") -> Path:
        """Make a file."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / name).write_bytes(content)
        return folder / name

    def test_lines(self) -> None:
        """Empty lines are ignored; compressed files are read as plain ones."""
        content = b'{"id": "a", "doc": {"x": 1}}\n\n{"id": "b", "doc": {}}'
        self.assertEqual(dict(read_documents(self.write(content))), {"a": {"x": 1}, "b": {}})
        packed = self.write(gzip.compress(content), "some.jsonl.gz")
        self.assertEqual(dict(read_documents(packed)), {"a": {"x": 1}, "b": {}})

    def test_bad_files(self) -> None:
        """The error names the file and the line."""
        good = b'{"id": "a", "doc": {}}\n'
        for line in (b"{", b"[]", b"5", b'{"id": 1, "doc": {}}', b'{"id": "", "doc": {}}', b'{"id": "a"}',
                     b'{"id": "a", "doc": []}', b'{"id": "\\ud800", "doc": {}}', b"\xff", b"[" * 100_000,
                     b'{"id": "%s", "doc": {}}' % (b"x" * 251)):  # fmt: skip
            path = self.write(good + line)
            error = self.assertRaises(LoadError, list, read_documents(path))
            self.assertIn(f"{path}, line 2", str(error))
        for path in (
            self.write(b"no gzip", "a.gz"),
            self.write(gzip.compress(good)[:-9], "b.gz"),
            Path("/no/file"),
        ):
            self.assertIn(str(path), str(self.assertRaises(LoadError, list, read_documents(path))))
