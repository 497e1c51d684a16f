"""The dashboard, rules and alerts under deploy/ ask for metrics, labels and values that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are in another distribution
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from gateway.dialect.errors import PROBLEMS
from gateway.http.routing import endpoints_of
from gateway.limits import Limits
from gateway.metricvalues import MetricValues
from gateway.plugins.metrics import Metrics, _response
from gateway.processes import add_process
from tests.gateway.support import Answer, Site

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "couchgateway.json"
RULES = ("rules.yml", "alerts.yml")

# Labels that Prometheus adds, and the metric that it makes for each target.
ADDED = frozenset({"job", "instance"})
OF_PROMETHEUS = {"up": ADDED}


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every expression of rules, alerts and panels, with where it is."""
    for name in RULES:
        for group in yaml.safe_load((DEPLOY / "prometheus" / name).read_text("utf-8"))["groups"]:
            for rule in group["rules"]:
                yield f"{name}: {rule.get('record') or rule['alert']}", rule["expr"]
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for one in dashboard["annotations"]["list"]:
        yield f"annotation {one['name']}", one["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]


def metrics() -> dict[str, frozenset[str]]:
    """Return the labels of each sample of ``/metrics``, with and without workers."""
    site = Site({"get_with_expiry": Answer(b"{}")}, plugins=[Metrics()], limits=Limits(metrics_callers=5))
    client = site.client()
    site.send(client, b"GET /v1/buckets/b/documents/k HTTP/1.1\r\nHost: localhost\r\n\r\n")
    site.send(client, b"GET /v1/buckets/b/docu")
    client.loseConnection()
    site.gateway.count_refused = lambda: {"max_clients": 0}
    texts = [site.request("GET", "/metrics").body.decode()]
    total = MetricValues()
    total.counters["worker_restarts",] = [0]
    total.counters["requests_cut", "get_view", "gateway"] = [1]
    total.gauges["workers",] = [2]
    add_process(total, "supervisor")
    body = _response(total).body
    assert isinstance(body, bytes)
    texts.append(body.decode())
    found: dict[str, set[str]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return {name: frozenset(labels) | ADDED for name, labels in found.items()} | OF_PROMETHEUS


class ExpressionTests(SynchronousTestCase):
    """Everything that is asked of Prometheus."""

    def setUp(self) -> None:
        self.metrics = metrics()
        for name in RULES:
            for group in yaml.safe_load((DEPLOY / "prometheus" / name).read_text("utf-8"))["groups"]:
                for rule in group["rules"]:
                    if "record" in rule:
                        # The levels of the name are the labels that it has.
                        levels = set(rule["record"].split(":")[0].split("_"))
                        self.metrics[rule["record"]] = frozenset(levels)

    def test_metrics_exist(self) -> None:
        """Each name is that of a metric, with labels that it has; each metric is shown somewhere."""
        asked: set[str] = set()
        for place, expression in expressions():
            plain = re.sub(r'"[^"]*"', '""', expression)
            for name, matchers in re.findall(r"([A-Za-z_:][A-Za-z0-9_:]*)(\{[^}]*\})?", plain):
                if not name.startswith(("couchgateway", "process_", "up", "job")) or name in ADDED | {
                    "process"
                }:
                    continue
                self.assertIn(name, self.metrics, place)
                asked.add(name)
                labels = set(re.findall(r"([a-z_]+) ?(?:=~|!~|!=|=)", matchers))
                self.assertEqual(labels - self.metrics[name], set(), f"{place}: {name}")
        of_ours = {name for name in self.metrics if name.startswith("couchgateway")}
        of_ours = {name for name in of_ours if not name.endswith(("_sum", "_count", "_created"))}
        self.assertEqual(of_ours - asked, set(), "shown nowhere")

    def test_labels_exist(self) -> None:
        """Groups and legends are by labels that the metrics of the expression have."""
        for place, expression in expressions():
            names = re.findall(
                r"(?:couchgateway|process|job|up)[a-z0-9_:]*", re.sub(r'"[^"]*"', '""', expression)
            )
            had = set().union(*(self.metrics.get(name, frozenset()) for name in names))
            for group in re.findall(r"(?:by|on) \(([^)]*)\)", expression):
                self.assertEqual({label.strip() for label in group.split(",")} - had, set(), place)
        for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
            for target in panel.get("targets", []):
                groups = re.findall(r"by \(([^)]*)\)", target["expr"])
                had = {label.strip() for group in groups for label in group.split(",")} or ADDED | {"process"}
                for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                    self.assertIn(label, had, panel["title"])

    def test_values_exist(self) -> None:
        """Routes, outcomes and causes that expressions select can occur."""
        site = Site(plugins=[Metrics()])
        routes = {
            declared.name for resource in site.gateway.resources for declared, _ in endpoints_of(resource)
        }
        possible = {
            "route": routes,
            "outcome": {"ok"} | {problem.code for problem in PROBLEMS.values()},
            "by": {"client", "gateway"},
            "cause": {"max_clients", "descriptors"},
            "kind": {"user", "anyone", "none", "other"},
            "status": {"499", "500", "503", "5.."},
            "job": {"couchgateway"},
        }
        for place, expression in expressions():
            for label, value in re.findall(r'([a-z_]+)(?:=~|!=|=)"([^"$]+)"', expression):
                self.assertLessEqual(set(value.split("|")), possible[label], place)

    def test_alerts_have_examples(self) -> None:
        """Each alert has an example in which it fires, a severity, and a text."""
        folder = DEPLOY / "prometheus"
        fired = {
            one["alertname"]
            for test in yaml.safe_load((folder / "alerts_test.yml").read_text("utf-8"))["tests"]
            for one in test.get("alert_rule_test", [])
            if one.get("exp_alerts")
        }
        (group,) = yaml.safe_load((folder / "alerts.yml").read_text("utf-8"))["groups"]
        self.assertEqual({rule["alert"] for rule in group["rules"]}, fired)
        for rule in group["rules"]:
            self.assertIn(rule["labels"]["severity"], ("page", "ticket"))
            self.assertEqual(set(rule["annotations"]), {"summary", "description"})

    def test_alerts_are_documented(self) -> None:
        """The page for operators has a row for each, with its severity."""
        page = (DEPLOY.parent / "docs" / "howto" / "operations.md").read_text("utf-8")
        (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"]
        self.assertEqual(
            sorted(re.findall(r"(?m)^\| `(Couchgateway\w+)` \| (page|ticket) \|", page)),
            sorted((rule["alert"], rule["labels"]["severity"]) for rule in group["rules"]),
        )


class DashboardTests(SynchronousTestCase):
    """The dashboard as Grafana reads it."""

    def setUp(self) -> None:
        self.dashboard: Any = json.loads(DASHBOARD.read_text("utf-8"))

    def test_panels(self) -> None:
        """Ids are unique, panels do not overlap and fit the page, and each has a title and a unit."""
        panels = self.dashboard["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (place["x"] + right, place["y"] + down)
                for right in range(place["w"])
                for down in range(place["h"])
            }
            self.assertEqual(cells & taken, set(), panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            taken |= cells
            self.assertTrue(panel["title"])
            if panel["type"] in ("timeseries", "stat"):
                self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])

    def test_variables(self) -> None:
        """Every variable in use is declared, and every declared one is in use."""
        declared = {variable["name"] for variable in self.dashboard["templating"]["list"]}
        used = set(re.findall(r"\$\{?([a-z]+)\}?", json.dumps(self.dashboard["panels"])))
        self.assertEqual(declared, used)

    def test_data_source(self) -> None:
        """All queries go to the data source that the reader chose."""
        for panel in self.dashboard["panels"]:
            for target in panel.get("targets", []):
                self.assertEqual(target["datasource"], {"type": "prometheus", "uid": "${datasource}"})
            references = [target["refId"] for target in panel.get("targets", [])]
            self.assertEqual(len(set(references)), len(references))


class RunbookTests(SynchronousTestCase):
    """docs/howto/runbook.md knows what can happen."""

    def setUp(self) -> None:
        text = (DEPLOY.parent / "docs" / "howto" / "runbook.md").read_text("utf-8")
        sections = re.split(r"^## ", text, flags=re.MULTILINE)
        self.named = {
            section.split("\n")[0]: re.findall(
                r"`([A-Za-z]+)`", "".join(re.findall(r"^\| (`[^|]+)\|", section, re.M))
            )
            for section in sections
        }

    def test_alerts(self) -> None:
        """It has a row for each alert, in their order or not, and no other."""
        groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"]
        alerts = sorted(rule["alert"] for group in groups for rule in group["rules"])
        self.assertEqual(sorted(self.named["Alerts"]), alerts)

    def test_codes(self) -> None:
        """It has a row for every code from 500 on that is not the caller's own doing; all its codes exist."""
        callers = {"ViewFailed", "StatementFailed"}
        severe = {code for code, problem in PROBLEMS.items() if problem.status >= 500} - callers
        named = set(self.named["Errors for the operator"])
        self.assertEqual((severe - named, named - PROBLEMS.keys()), (set(), set()))
