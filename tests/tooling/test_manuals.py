"""Files that are generated from the options match the current options."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from unittest import mock

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from couchbase.protocol.version import VERSION
from gateway.access.keycommand import key_parser
from gateway.commandline import Options
from gateway.loader.arguments import export_parser, load_parser
from tests.tooling.manuals import generated
from tests.tooling.sources import ROOT


class GeneratedTests(SynchronousTestCase):
    """Manual pages and the example configuration."""

    def test_of_today(self) -> None:
        """Each file is what ``python -m tests.tooling.manuals`` writes."""
        for path, text in generated().items():
            self.assertEqual(path.read_text("utf-8"), text, path.relative_to(ROOT))

    def test_versions(self) -> None:
        """Every command prints its name and the version, whatever else is missing."""
        for parser in (load_parser(), export_parser(), key_parser()):
            printed = StringIO()
            with redirect_stdout(printed):
                ended = self.assertRaises(SystemExit, parser.parse_args, ["--version"])
            self.assertEqual((printed.getvalue(), ended.code), (f"{parser.prog} {VERSION}\n", 0))

    def test_manuals_are_well_formed(self) -> None:
        """groff has no warning about a page, and shows each option."""
        groff = shutil.which("groff")
        if groff is None:
            raise SkipTest("groff is not installed")
        for path, text in generated().items():
            if path.suffix == ".1":
                done = subprocess.run(
                    [groff, "-man", "-Tascii", "-ww", "-rLL=200n"],
                    input=text.encode(),
                    capture_output=True,
                    check=True,
                )
                self.assertEqual(done.stderr, b"", path.name)
                self.assertGreaterEqual(done.stdout.count(b"--"), text.count(".TP"), path.name)

    def test_example_is_accepted(self) -> None:
        """The gateway takes the example, as it is and with the defaults switched on."""
        text = (ROOT / "deploy" / "couchgateway.toml").read_text("utf-8")
        lines = text.splitlines()
        switched_on = [re.sub(r"^#(?=[a-z-]+ = )", "", line) for line in lines]
        self.assertGreater(sum(" = " in line and not line.startswith("#") for line in switched_on), 30)
        for content in (text, "\n".join(switched_on)):
            path = self.mktemp()
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
            options = Options()
            with mock.patch.dict(os.environ, {"HOME": os.getcwd()}, clear=True):
                options.parseOptions(["--config", path])
            assert options.settings is not None
            self.assertEqual(options.settings.listen, ["tcp:8080:interface=127.0.0.1"])
