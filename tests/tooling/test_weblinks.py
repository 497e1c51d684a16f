"""Addresses of other hosts: their form, how they are found, and what counts as an answer."""

from __future__ import annotations

import re
import sys
from email.message import Message
from io import StringIO
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling import weblinks
from tests.tooling.weblinks import addresses, answer, links, main

HOST = re.compile(r"([a-z0-9-]+\.)+[a-z]{2,}")


class AddressTests(SynchronousTestCase):
    """What the pages name."""

    def test_form(self) -> None:
        """Each address is https, with a host's full name, and without a password."""
        found = links()
        wrong = []
        for address, places in found.items():
            parts = urlsplit(address)
            if parts.scheme != "https" or parts.username or not HOST.fullmatch(parts.hostname or ""):
                wrong.append((address, places))
        self.assertEqual(wrong, [])
        self.assertGreater(len(found), 4)

    def test_addresses(self) -> None:
        """Brackets of an address belong to it; punctuation and marks of Markdown around it do not."""
        text = (
            "See https://a.org/x. (Or https://b.org/y_(z), <https://c.org>) [https://d.org](https://d.org/#e)!"
            " `https://f.org/g?h=1`, https://i.org/(j"
            ' <project xmlns="http://k.org/l" xmlns:m="http://n.org" xsi:schemaLocation="http://o.org p">'
        )
        self.assertEqual(
            list(addresses(text)),
            [
                "https://a.org/x",
                "https://b.org/y_(z)",
                "https://c.org",
                "https://d.org",
                "https://d.org/#e",
                "https://f.org/g?h=1",
                "https://i.org/(j",
            ],
        )

    def test_examples_are_left_alone(self) -> None:
        """Names reserved for examples, numbers, and names without a dot are not asked."""
        text = "http://db.example/ http://x.example.org http://127.0.0.1:8080 http://host/ https:// http://[::1]/"
        self.patch(weblinks, "words", lambda: [("page.md", text + " https://real.org/a")])
        self.assertEqual(links(), {"https://real.org/a": ["page.md"]})


class AnswerTests(SynchronousTestCase):
    """What a host may say."""

    def opened(self, error: Exception | None) -> str:
        """Ask a host that answers in one way."""

        def open_address(request: Any, timeout: float) -> None:
            self.assertEqual(request.full_url, "https://a.org/b")
            if error:
                raise error

        return answer("https://a.org/b#part", open_address)

    def test_answers(self) -> None:
        """A page that is gone, and a host that is not there, are wrong; a refusal of programs is not."""

        def status(code: int) -> HTTPError:
            return HTTPError("https://a.org/b", code, "", Message(), None)

        self.assertEqual([self.opened(one) for one in (None, status(403), status(500))], ["", "", ""])
        self.assertEqual([self.opened(status(404)), self.opened(status(410))], ["404", "410"])
        self.assertIn("no such host", self.opened(URLError("no such host")))

    def test_command(self) -> None:
        """The command prints each address with its answer, names the places of a broken one, and fails."""
        self.patch(weblinks, "links", lambda: {"https://b.org": ["x.md", "y.md"], "https://a.org": ["z.md"]})
        self.patch(weblinks, "answer", lambda address: "404" if "b" in address else "")
        printed = StringIO()
        self.patch(sys, "stdout", printed)
        self.assertEqual(main(), 1)
        self.assertEqual(printed.getvalue(), "ok: https://a.org\n404: https://b.org\n  x.md\n  y.md\n")
