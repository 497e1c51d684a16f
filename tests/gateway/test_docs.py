"""The reference pages name every route, header, parameter, option and error code, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import gateway.dialect.conditions
import gateway.resources.copies
import gateway.resources.documents
import gateway.resources.headers
import gateway.resources.locks
import gateway.views.parameters
from couchbase import exceptions
from gateway.dialect.errors import PROBLEMS, describe
from gateway.openapi.paths import template_of
from gateway.operations.table import OPERATIONS
from gateway.options import ENVIRONMENT_PREFIX, SETTINGS
from tests.gateway.openapi.support import own_plugins
from tests.gateway.support import Site, error

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))


def page(name: str) -> str:
    """Return a page of the documentation."""
    return (ROOT / "docs" / name).read_text("utf-8")


def rows(text: str, first: str) -> list[list[str]]:
    """Return the cells of the table whose first heading is ``first``."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            break
    next(lines)
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


class RestTests(SynchronousTestCase):
    """docs/rest-api.md."""

    def test_routes(self) -> None:
        """The page has every method of every route, and only those."""
        documented = set()
        for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) ([D/][^ `]*)`", page("rest-api.md")):
            full = re.sub(r"\bD\b", "/v1/buckets/{bucket}/documents/{key}", path, count=1)
            documented.add((method, full))
        there = set()
        for rule in Site(plugins=own_plugins()).gateway.app.url_map.iter_rules():
            if "v1.alpha" not in rule.rule and "<collection>/documents" not in rule.rule:
                path = template_of(rule.rule)
                there |= {(method, path) for method in (rule.methods or set()) - {"HEAD"}}
        self.assertEqual(documented, there)

    def test_headers(self) -> None:
        """Every header that a handler reads is in the table of request headers."""
        read = set()
        looked_up = re.compile(r'\b(?:text_header|header|header_values)\(b"([A-Za-z-]+)"\)')
        for source in SOURCES:
            read |= set(looked_up.findall(source.read_text("utf-8")))
        read |= {name.decode() for _, name in gateway.resources.headers._ATTRIBUTES.values()}
        read |= set(gateway.dialect.conditions.PARTS)  # refused by every resource
        documented = {cells[0].strip("`") for cells in rows(page("rest-api.md"), "header")}
        self.assertEqual(read, documented)

    def test_query_and_body(self) -> None:
        """Parameters and members by name."""
        text = page("rest-api.md")
        documented = {cells[0].strip("`") for cells in rows(text, "parameter")}
        self.assertEqual(documented, gateway.resources.documents._GET_QUERY)
        bodies = {cells[0]: cells[1] for cells in rows(text[text.index("### JSON bodies") :], "request")}
        for name, members in (
            ("`touch`", OPERATIONS["touch"].body),
            ("`lock`", OPERATIONS["lock"].body),
            ("`endure`", OPERATIONS["endure"].body),
        ):
            for member in members:
                self.assertIn(f"`{member}`", bodies[name])

    def test_view_parameters(self) -> None:
        """Each once, with its other name."""
        documented = {
            cells[0].strip("`"): cells[1].strip("`") for cells in rows(page("rest-api.md"), "view parameter")
        }
        others = {name: other for other, name in gateway.views.parameters.ALIASES.items()}
        there = {name: others.get(name, "") for name in gateway.views.parameters.PARAMETERS}
        self.assertEqual(documented, there)

    def test_batch_operations(self) -> None:
        """Every operation, with its members."""
        text = page("rest-api.md")
        documented: dict[str, str] = {}
        for cells in rows(text, "`op`"):
            for name in re.findall(r"`(\w+)`", cells[0]):
                documented[name] = cells[1]
        self.assertEqual(set(documented), set(OPERATIONS))
        common = {"op", "scope", "collection", "key", "key_base64"}
        phrases = {
            "the value": {"value", "text", "base64"},
            "durability": {"durabilityLevel", "persistTo", "replicateTo", "durabilityTimeout"},
            "as `set`": OPERATIONS["set"].members - common,
        }
        for name, kind in OPERATIONS.items():
            members = set(re.findall(r"`(\w+)`", documented[name])) - {"set"}
            for phrase, meant in phrases.items():
                if phrase in documented[name]:
                    members |= meant
            # Every operation takes it, so the page says it once.
            members.add("timeout")
            self.assertEqual(members, kind.members - common, name)


class ErrorTests(SynchronousTestCase):
    """docs/errors.md."""

    def test_codes(self) -> None:
        """Each once, with its status and whether to retry."""
        documented = [tuple(cells[:3]) for cells in rows(page("errors.md"), "code")]
        there = [(f"`{p.code}`", str(p.status), p.retry.value) for p in PROBLEMS.values()]
        self.assertEqual(documented, there)

    def test_codes_named_elsewhere_exist(self) -> None:
        """The reference of the routes names no other codes."""
        for status, codes in re.findall(
            r"\b([45]\d\d) ((?:[A-Z][a-z]+[A-Z]\w+(?:, )?)+)", page("rest-api.md")
        ):
            for code in codes.rstrip(", ").split(", "):
                self.assertEqual(PROBLEMS[code].status, int(status), code)


class ConfigurationTests(SynchronousTestCase):
    """docs/configuration.md."""

    def test_options(self) -> None:
        """Each once, with its variable and text, in the order of the table."""
        documented = [(cells[0], cells[1], cells[4]) for cells in rows(page("configuration.md"), "option")]
        there = [
            (f"`--{setting.name}`", f"`{ENVIRONMENT_PREFIX}{setting.attribute.upper()}`", setting.text)
            for setting in SETTINGS
        ]
        self.assertEqual(documented, there)

    def test_defaults(self) -> None:
        """A default shown is what the option's parser makes its default of."""
        shown = {
            cells[0].strip("`-"): cells[3].strip("`") for cells in rows(page("configuration.md"), "option")
        }
        for setting in SETTINGS:
            if setting.parse is None:
                self.assertEqual((shown[setting.name], setting.default), ("off", False))
            elif setting.default not in (None, []):
                parsed = setting.parse(shown[setting.name])
                self.assertEqual([parsed] if setting.repeatable else parsed, setting.default, setting.name)


class ResultCodeTests(SynchronousTestCase):
    """docs/errors.md: from the SDK's result codes to HTTP."""

    def test_table(self) -> None:
        """The table names each code once, with the class to catch, status and code."""
        told = []
        for exception, codes, http in rows(page("errors.md"), "exception"):
            told += [(int(rc, 16), exception.strip("`"), http) for rc in codes.split(", ")]
        expected = []
        for rc in sorted(set(exceptions.RESULT_CODES) - {0}):
            fault = describe(error(rc), "get")
            http = f"{fault.problem.status} `{fault.problem.code}`"
            expected.append((rc, str(fault.exception), http))
        self.assertEqual(sorted(told), expected)

    def test_arguments_of_operations(self) -> None:
        """An argument that the SDK refuses is the caller's error: 400, with the reason."""
        for rc in (exceptions.EINVAL, exceptions.ERANGE, exceptions.EMPTY_KEY, exceptions.OPTIONS_CONFLICT):
            for operation in ("get", "set", "incr", "endure", "open"):
                fault = describe(error(rc), operation)
                self.assertEqual((fault.problem.code, fault.rc), ("InvalidArgument", rc))
                self.assertIn(exceptions.describe(rc), fault.message)
