"""Settings as the TOML file that ``--config`` reads: those in effect, or an example that explains each."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.options import SETTINGS, Setting

__all__ = ["effective", "example"]

_WIDTH = 100


def effective(values: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Return settings with the source of each; the file gives the same settings again.

    :param values: attribute -> parsed value, or ``None``.
    :param labels: option name -> where its value was given; the others have their default.
    """
    lines = []
    for setting in _in_files():
        value = values[setting.attribute]
        source = f"  # {labels[setting.name]}" if setting.name in labels else ""
        lines.append(f"{_assignment(setting, value)}{source}")
    return "\n".join(lines) + "\n"


def example() -> str:
    """Return all settings, each with its explanation and default, and switched off."""
    lines = [
        "# Settings of couchgateway, for --config FILE. The command line and the environment (COUCHGATEWAY_",
        "# and the name in capitals) take precedence. Remove the # before a setting to change it.",
    ]
    for setting in _in_files():
        lines += ["", *textwrap.wrap(setting.text, _WIDTH, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"#{_assignment(setting, setting.default).removeprefix('#')}")
    return "\n".join(lines) + "\n"


def _in_files() -> Sequence[Setting]:
    return [setting for setting in SETTINGS if setting.name != "config"]


def _assignment(setting: Setting, value: Any) -> str:
    if value is None:
        return f"#{setting.name} ="
    if setting.repeatable:
        return f"{setting.name} = [{', '.join(_literal(str(one)) for one in value)}]"
    return f"{setting.name} = {_literal(setting.written(value))}"


def _literal(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    # JSON's strings are TOML's, except for a character that TOML requires escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
