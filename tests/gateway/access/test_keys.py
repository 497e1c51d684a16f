"""API keys: the file, the command, and until when a key is valid."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime, timezone
from io import StringIO
from pathlib import Path

from hypothesis import given
from hypothesis.strategies import binary
from twisted.trial.unittest import SynchronousTestCase

from gateway.access.keycommand import main
from gateway.access.keys import ApiKeys, WrongKeys, key_line, new_key, read_keys
from tests.gateway.access.signing import fingerprint

ANY = "0" * 64


class KeyTests(SynchronousTestCase):
    """The file."""

    def read(self, text: str) -> ApiKeys:
        """Read a file."""
        path = Path(self.mktemp())
        path.write_text(text, encoding="utf-8")
        return read_keys(str(path))

    def test_found(self) -> None:
        """A key is found by itself only, and its holder has the name of its line."""
        keys = self.read(
            f"# ours\n\n  a sha256:{fingerprint('cgk_a')}  # old\nb sha256:{fingerprint('cgk_b')}\n"
        )
        self.assertEqual(len(keys), 2)
        found = keys.find(b"cgk_a", 0)
        assert found is not None
        identity, until = found
        self.assertEqual((identity.kind, identity.name, identity.facts), ("key", "a", {("key", "a")}))
        self.assertEqual(until, float("inf"))
        for wrong in (
            b"",
            b"cgk_",
            b"cgk_c",
            b"CGK_A",
            b"cgk_a ",
            b"a",
            fingerprint("cgk_a").encode(),
            b"x" * 9999,
        ):
            self.assertIsNone(keys.find(wrong, 0))

    def test_last_day(self) -> None:
        """A key is valid through its last day in UTC."""
        keys = self.read(f"a sha256:{fingerprint('cgk_a')} 2027-01-31\n")
        end = datetime(2027, 2, 1, tzinfo=timezone.utc).timestamp()
        self.assertEqual((keys.find(b"cgk_a", end - 0.1) or (None, 0))[1], end)
        self.assertIsNone(keys.find(b"cgk_a", end))

    def test_last_day_of_all(self) -> None:
        """The last day that a calendar has, which often stands for no end, is a day like others."""
        for day, end in (("9999-12-31", 253402300800.0), ("0001-01-01", -62135510400.0)):
            keys = self.read(f"a sha256:{fingerprint('cgk_a')} {day}\n")
            found = keys.find(b"cgk_a", end - 1)
            assert found is not None
            self.assertEqual(found[1], end)
            self.assertIsNone(keys.find(b"cgk_a", end))

    def test_mistakes(self) -> None:
        """Each is refused with its line."""
        good = f"a sha256:{ANY}\n"
        for text, words in (
            ("a\n", "1: expected NAME sha256:HASH"),
            (good + "b sha1:00\n", "2: expected NAME"),
            (f"a sha256:{ANY[:-1]}\n", "1: expected NAME"),
            (f"a sha256:{'G' * 64}\n", "1: expected NAME"),
            (f"two words sha256:{ANY}\n", "1: expected NAME"),
            (f"a sha256:{ANY} tomorrow\n", "1: expected NAME"),
            (f"a sha256:{ANY} 2027-02-30\n", "2027-02-30 is not a day"),
            (f"a sha256:{ANY} 0000-01-01\n", "0000-01-01 is not a day"),
            (f"a sha256:{ANY} \u0662\u0660\u0662\u0667-01-01\n", "1: expected NAME"),
            (good + f"a sha256:{'1' * 64}\n", "2: there is another key"),
            (good + f"b sha256:{ANY}\n", "2: there is another key"),
            ("cgk_secret\n", "1: expected NAME"),
        ):
            error = self.assertRaises(WrongKeys, self.read, text)
            self.assertIn(words, str(error), text)
            self.assertNotIn("cgk_secret", str(error))
        self.assertIn("none", str(self.assertRaises(WrongKeys, read_keys, "none")))

    @given(binary(max_size=300))
    def test_any_key(self, key: bytes) -> None:
        """No other bytes are a key."""
        keys = ApiKeys({})
        self.assertIsNone(keys.find(key, 0))

    def test_new_keys(self) -> None:
        """They differ, and their line finds them."""
        made = {new_key() for _ in range(100)}
        self.assertEqual(len(made), 100)
        key = made.pop()
        self.assertRegex(key, r"\Acgk_[A-Za-z0-9_-]{43}\Z")
        found = self.read(key_line("x", key, "2099-12-31")).find(key.encode(), 0)
        assert found is not None
        self.assertEqual(found[0].name, "x")


class CommandTests(SynchronousTestCase):
    """``couchgateway-key``."""

    def run_it(self, *arguments: str) -> tuple[int, str, str]:
        """Return status, output and errors."""
        output, errors = StringIO(), StringIO()
        with redirect_stdout(output), redirect_stderr(errors):
            status = main(arguments)
        return status, output.getvalue(), errors.getvalue()

    def test_made(self) -> None:
        """The line is on standard output, and the key itself only on standard error."""
        status, line, told = self.run_it("report", "--until", "2099-01-01")
        self.assertEqual(status, 0)
        key = told.split()[-1]
        self.assertEqual(line, key_line("report", key, "2099-01-01") + "\n")
        self.assertNotIn(key, line)

    def test_mistakes(self) -> None:
        """A wrong name or day ends with status 2, and no key."""
        for arguments in (
            ("two words",),
            ("a", "--until", "tomorrow"),
            ("a", "--until", "2027-02-30"),
            ("",),
        ):
            status, line, told = self.run_it(*arguments)
            self.assertEqual((status, line), (2, ""))
            self.assertIn("expected a name", told)
            self.assertNotIn("cgk_", told)
