"""Prometheus and Grafana read our metrics, rules, alerts and dashboard."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from twisted.trial.unittest import SynchronousTestCase

from tests.judges.programs import (
    ROOT,
    START_SECONDS,
    Process,
    environment,
    free_port,
    missing,
    program,
    twistd,
)

DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "couchgateway.json"
UNFINISHED = b"PUT /v1/buckets/default/documents/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
GRAFANA = ROOT / "build" / "judges" / "grafana"
"""Where ``make judges`` puts Grafana's library of dashboard types."""


class PromtoolTests(SynchronousTestCase):
    """``promtool check metrics``."""

    skip = missing("promtool")

    def check(self, *arguments: str) -> str:
        """Return the metrics of a gateway, which promtool has nothing to say against."""
        port = free_port()
        gateway = twistd(
            "couchgateway", "--ephemeral", "--listen", f"tcp:{port}:interface=127.0.0.1", *arguments
        )
        self.addCleanup(gateway.stop)
        gateway.until_answers(port, "/ready")
        text = b""
        until = time.monotonic() + START_SECONDS
        names = (b"worker-1", b"worker-2") if arguments else (b"couchgateway_build_info",)
        while not all(name in text for name in names):
            # One worker may be ready before the other.
            self.assertLess(time.monotonic(), until, text.decode() + gateway.log)
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                text = answer.read()
        checked = subprocess.run(
            [program("promtool") or "", "check", "metrics"],
            input=text,
            capture_output=True,
            env=environment(),
            timeout=60,
            check=False,
        )
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, b""))
        return str(text, "utf-8")

    def test_one_process(self) -> None:
        """With the process's own figures, as of any program."""
        text = self.check()
        self.assertIn("\nprocess_resident_memory_bytes ", text)
        self.assertIn("\ncouchgateway_build_info{", text)

    def test_workers(self) -> None:
        """With those of each process."""
        text = self.check("--workers", "2")
        for process in ("supervisor", "worker-1", "worker-2"):
            self.assertIn(f'\nprocess_open_fds{{process="{process}"}} ', text)


def promtool(*arguments: str) -> tuple[int, str]:
    """Run it beside the rules; returns its status and what it says."""
    done = subprocess.run(
        [program("promtool") or "", *arguments],
        cwd=DEPLOY / "prometheus",
        capture_output=True,
        env=environment(),
        timeout=60,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


class RuleTests(SynchronousTestCase):
    """``promtool`` and the files of deploy/prometheus."""

    skip = missing("promtool")

    def test_configuration(self) -> None:
        """The example of a configuration, and the rules that it names, are valid."""
        status, text = promtool("check", "config", "prometheus.yml")
        self.assertEqual(status, 0, text)
        self.assertEqual(len(re.findall("SUCCESS: [0-9]+ rules found", text)), 2, text)

    def test_examples(self) -> None:
        """Each alert fires in its example, and only there."""
        status, text = promtool("test", "rules", "alerts_test.yml")
        self.assertEqual(status, 0, text)


class LiveTests(SynchronousTestCase):
    """Prometheus scrapes a gateway, evaluates the rules, and answers every panel."""

    skip = missing("prometheus")

    def start(self) -> int:
        """Return the port of a gateway that has served requests of many kinds."""
        port = free_port()
        gateway = twistd(
            "couchgateway", "--ephemeral", "--listen", f"tcp:{port}:interface=127.0.0.1",
            "--workers", "2", "--metrics-callers", "5",
        )  # fmt: skip
        self.addCleanup(gateway.stop)
        gateway.until_answers(port, "/ready")
        self.gateway = port
        self.load()
        return port

    def load(self) -> None:
        """Send requests, one of which is cut off by its client."""
        url = f"http://127.0.0.1:{self.gateway}/v1/buckets/default/documents/k"
        headers = {"Content-Type": "application/json"}
        urlopen(Request(url, b"{}", headers, method="PUT"), timeout=30).close()
        urlopen(url, timeout=30).close()
        with self.assertRaises(OSError):
            urlopen(url + "-none", timeout=30)
        with socket.create_connection(("127.0.0.1", self.gateway)) as client:
            client.sendall(UNFINISHED)

    def prometheus(self) -> int:
        """Return the port of a Prometheus that scrapes it each second, with our rules."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        text = (DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8")
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{self.start()}").replace("15s", "1s")
        for name in ("rules.yml", "alerts.yml"):
            text = text.replace(f"- {name}", f"- {DEPLOY / 'prometheus' / name}")
        (folder / "prometheus.yml").write_text(text, "utf-8")
        port = free_port()
        running = Process(
            [
                program("prometheus") or "", f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
            ]
        )  # fmt: skip
        self.addCleanup(running.stop)
        running.until_answers(port, "/-/ready")
        return port

    def ask(self, port: int, path: str, **parameters: str) -> Any:
        """Return an answer of Prometheus."""
        url = f"http://127.0.0.1:{port}/api/v1/{path}?{urlencode(parameters)}"
        with urlopen(url, timeout=30) as answer:
            found = json.load(answer)
        self.assertEqual(found["status"], "success", url)
        return found["data"]

    def until(self, port: int, query: str) -> None:
        """Wait until a query has rows."""
        until = time.monotonic() + START_SECONDS
        while not self.ask(port, "query", query=query)["result"]:
            self.assertLess(time.monotonic(), until, query)
            self.load()
            time.sleep(0.2)

    def test_all(self) -> None:
        """All rules are evaluated without an error, none fires, and each panel has something to show."""
        port = self.prometheus()
        # Two scrapes after the first requests, and a rule that is evaluated after another one.
        self.until(port, "job_instance_route:couchgateway_request_seconds:p99_rate5m > 0")
        self.until(port, 'couchgateway_requests_cut_total{by="client"}')
        self.until(port, "rate(couchgateway_requests_cut_total[1m]) > 0")
        groups = self.ask(port, "rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        self.assertGreater(len(rules), 15)
        wrong = [rule["name"] for rule in rules if rule["health"] != "ok" or rule.get("lastError")]
        self.assertEqual(wrong, [])
        # Everything else needs more time, or more requests, than this test has.
        alerts = self.ask(port, "alerts")["alerts"]
        self.assertEqual([one["labels"] for one in alerts if one["state"] == "firing"], [])
        dashboard = json.loads(DASHBOARD.read_text("utf-8"))
        asked = 0
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                query = target["expr"].replace("$__rate_interval", "1m")
                query = re.sub(r"\$[a-z]+", ".*", query)
                rows = self.ask(port, "query", query=query)["result"]
                self.assertNotEqual(rows, [], f"{panel['title']}: {query}")
                # Callers have no names here, and Prometheus drops empty labels.
                for label in set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) - {"caller"}:
                    self.assertTrue(all(label in row["metric"] for row in rows), (panel["title"], rows))
                asked += 1
        self.assertGreater(asked, 25)


class GrafanaTests(SynchronousTestCase):
    """Grafana's own types of dashboards."""

    if not GRAFANA.exists():
        skip = "not installed: grafana-foundation-sdk (make judges fetches it)"

    def test_types(self) -> None:
        """The dashboard has nothing that Grafana's types do not know: read and written, it is equal."""
        code = (
            "import json, sys\n"
            "from grafana_foundation_sdk.cog.encoder import JSONEncoder\n"
            "from grafana_foundation_sdk.cog.plugins import register_default_plugins\n"
            "from grafana_foundation_sdk.models.dashboard import Dashboard\n"
            "register_default_plugins()\n"
            "print(JSONEncoder().encode(Dashboard.from_json(json.load(sys.stdin))))\n"
        )
        text = DASHBOARD.read_text("utf-8")
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=text,
            capture_output=True,
            env={**environment(), "PYTHONPATH": str(GRAFANA)},
            timeout=120,
            check=False,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(lost(json.loads(text), json.loads(done.stdout)), [])


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """Return the paths of what differs, or is missing, afterwards; defaults that were added do not count."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = [f"{path}/{name}" for name in before.keys() - after.keys()]
        for name in before.keys() & after.keys():
            found += lost(before[name], after[name], f"{path}/{name}")
        return sorted(found)
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            one
            for number, pair in enumerate(zip(before, after, strict=True))
            for one in lost(*pair, f"{path}[{number}]")
        ]
    return [] if before == after else [path]
