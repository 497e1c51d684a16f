"""``--print-config`` and ``--example-config``."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis.strategies import (
    fixed_dictionaries,
    floats,
    integers,
    just,
    lists,
    sampled_from,
)
from hypothesis.strategies import text as texts
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from gateway.commandline import Options
from gateway.configfile import effective
from gateway.options import SETTINGS
from gateway.settings import merge

NAMES = texts("abc \"'\\#=[]é\x7f\n", min_size=1, max_size=6).map(lambda text: f"u{text}")


def printed(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """Return what the command prints before it exits."""
    output = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"HOME": os.getcwd(), **(environment or {})}, clear=True),
        redirect_stdout(output),
    ):
        try:
            Options().parseOptions(arguments)
        except SystemExit as exit_:
            assert not exit_.code
        else:
            raise AssertionError("it did not exit")
    return output.getvalue()


class EffectiveTests(SynchronousTestCase):
    """The settings in effect."""

    def test_sources(self) -> None:
        """Each line has the source of its value; a setting without a value is a comment."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write('max-body = "5M"\n')
        found = printed(
            "--print-config", "--config", path, "--bucket", "b", environment={"COUCHGATEWAY_TIMEOUT": "3"}
        )
        lines = found.splitlines()
        self.assertIn('bucket = "b"  # --bucket', lines)
        self.assertIn("timeout = 3.0  # COUCHGATEWAY_TIMEOUT", lines)
        self.assertIn(f'max-body = "5M"  # {os.path.abspath(path)}: max-body', lines)
        self.assertIn("#cluster =", lines)
        self.assertIn("ephemeral = false", lines)
        self.assertEqual(len(lines), len(SETTINGS) - 1)

    @given(
        fixed_dictionaries(
            {},
            optional={
                "user": NAMES.filter(str.isprintable),
                "timeout": floats(0.1, 1e6).map(str),
                "max-body": integers(1024, 2**40).map(str),
                "workers": integers(1, 64).map(str),
                "access-log": just(True),
                "without-plugin": lists(NAMES, min_size=1, max_size=3),
                "trusted-proxies": lists(sampled_from(["unix", "10.0.0.0/8", "::1"]), min_size=1, max_size=2),
                "listen": lists(sampled_from(["tcp:1", "unix:/run/a b", "tcp6:2"]), min_size=1),
            },
        )
    )
    def test_round_trip(self, settings: dict[str, Any]) -> None:
        """What is printed gives the same values again as a file."""
        values, labels = merge(settings, {})
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(effective(values, labels))
        again, _ = merge({"config": path}, {})
        self.assertEqual({**values, "config": None}, {**again, "config": None})

    def test_faults_first(self) -> None:
        """A wrong setting is refused instead of printed."""
        with self.assertRaises(UsageError):
            Options().parseOptions(["--print-config", "--timeout", "soon"])

    def test_example(self) -> None:
        """Every setting is in the example, after its explanation."""
        example = printed("--example-config")
        for setting in SETTINGS:
            if setting.name != "config":
                self.assertIn(f"\n#{setting.name} =", example)
                self.assertIn(setting.text[:40], example)
