"""The page about the blocking SDK says what is so."""

import contextlib
import io
import re

from couchbase.connection import Connection
from tests.couchbase.support import ROOT, ConnectionTestCase


class PageTests(ConnectionTestCase):
    """docs/blocking.md."""

    options = {"nodes": 2, "replicas": 1, "disk": True}

    def samples(self):
        """Return the Python samples, made to find the node."""
        page = (ROOT / "docs" / "blocking.md").read_text(encoding="utf-8")
        found = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        place = f'host="127.0.0.1", port={self.node.rest_ports[0]}'
        return [text.replace('host="localhost"', place) for text in found]

    def test_first_sample(self):
        """It runs, and its names are what the comments say."""
        views = {"by_name": {"map": "function (doc, meta) { if (doc.name) emit(doc.name, null); }"}}
        self.cb.design_create("beer", {"views": views}, use_devmode=False, syncwait=10)
        self.cb.set("a-beer", {"name": "Dubbel"})
        self.cb.delete_multi(["a", "visits"], quiet=True)
        printed = io.StringIO()
        names = {}
        with contextlib.redirect_stdout(printed):
            exec(self.samples()[0], names)
        self.addCleanup(names["cb"]._close)
        self.assertEqual(printed.getvalue(), "Dubbel a-beer\n")
        self.assertEqual(names["cb"].get_multi(["a", "visits", "kept"])["visits"].value, 1)
        self.assertEqual(names["cb"].get("greeting").value, {"text": "hi"})

    def test_second_sample(self):
        """Its keywords are the constructor's."""
        names = re.findall(r"(\w+)=", self.samples()[1])
        self.assertGreater(len(names), 3)
        for name in names:
            self.assertIn(name, Connection.__init__.__kwdefaults__)
