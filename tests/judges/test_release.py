"""What ``make dist`` makes, checked with the tools of its recipients."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.request import Request, urlopen

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from bench.ports import free_port
from couchbase.protocol.version import VERSION
from tests.judges.programs import Process
from tests.tooling import release

_KEY = ["openssl", "genpkey", "-algorithm", "ed25519", "-out"]


class ReleaseTests(SynchronousTestCase):
    """One release for all tests."""

    dist: Path | None = None

    def setUp(self) -> None:
        if not (release.TOOLS / "twine").exists() or shutil.which("openssl") is None:
            raise SkipTest("the tools of make dist are not installed (make judges installs them)")
        if type(self).dist is None:
            folder = Path(self.mktemp()).absolute()
            folder.mkdir()
            subprocess.run([*_KEY, str(folder / "key.pem")], check=True, capture_output=True)
            release.make(folder / "dist", folder / "key.pem", trial=True)
            type(self).dist = folder / "dist"

    def test_provenance(self) -> None:
        """in-toto accepts the signature with the public key; the provenance names sources and packages."""
        assert self.dist is not None
        (link,) = self.dist.glob("build.*.link")
        key = self.dist.parent / "key.pem"
        public = self.dist.parent / "public.pem"
        subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
        verify = [release.TOOLS / "in-toto-sign", "--verify", "-f", link, "--key"]
        subprocess.run([*verify, public], check=True, capture_output=True)
        signed = json.loads(link.read_text())["signed"]
        self.assertIn("gateway/app.py", signed["materials"])
        self.assertEqual(
            set(signed["products"]),
            {f"couchgateway-{VERSION}-py3-none-any.whl", f"couchgateway-{VERSION}.tar.gz"},
        )
        self.assertNotIn(str(Path.home()), " ".join(signed["command"]))
        link.write_text(link.read_text().replace("gateway/app.py", "gateway/apq.py"))
        self.addCleanup(lambda: link.write_text(link.read_text().replace("gateway/apq.py", "gateway/app.py")))
        self.assertNotEqual(subprocess.run([*verify, public], capture_output=True).returncode, 0)

    def test_sums(self) -> None:
        """sha256sum agrees with the list."""
        subprocess.run(
            ["sha256sum", "--check", "--strict", "SHA256SUMS"],
            cwd=self.dist,
            check=True,
            capture_output=True,
        )

    def test_components(self) -> None:
        """The SBOM has couchgateway, and each package that is pinned for this platform, with its version."""
        assert self.dist is not None
        bom = json.loads((self.dist / f"couchgateway-{VERSION}.cdx.json").read_text())
        found = {f"{one['name'].lower()}=={one['version']}" for one in bom["components"]}
        self.assertIn(f"couchgateway=={VERSION}", found)
        self.assertIn("klein==", " ".join(found))
        pins = (release.ROOT / "requirements" / "run.txt").read_text().splitlines()
        for pin in pins:
            if "==" in pin and ";" not in pin and not pin.startswith(("setuptools", "pip")):
                self.assertIn(pin.lower(), {name.replace("_", "-") for name in found})

    def test_sdist(self) -> None:
        """The sdist alone builds the same wheel."""
        assert self.dist is not None
        (sdist,) = self.dist.glob("*.tar.gz")
        (wheel,) = self.dist.glob("*.whl")
        folder = self.dist.parent / "from-sdist"
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, sdist]
        subprocess.run(pip, check=True, capture_output=True)
        with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(folder / wheel.name) as other:
            self.assertEqual(
                {name: other.read(name) for name in other.namelist()},
                {name: one.read(name) for name in one.namelist()},
            )

    def test_installation(self) -> None:
        """The wheel in a clean environment with the newest requirements: commands, documents, manual."""
        assert self.dist is not None
        environment = self.dist.parent / "environment"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        python = environment / "bin" / "python"
        (wheel,) = self.dist.glob("*.whl")
        subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True, capture_output=True)
        subprocess.run([python, "-m", "pip", "check"], check=True, capture_output=True)
        self.assertTrue((environment / "share" / "man" / "man1" / "couchgateway.1").exists())
        program = str(environment / "bin" / "couchgateway")
        version = subprocess.run([program, "--version"], capture_output=True, text=True)
        self.assertEqual(version.stdout, f"couchgateway {VERSION}\n")
        port = free_port()
        listen = f"tcp:{port}:interface=127.0.0.1"
        command = [program, "--ephemeral", "--listen", listen]
        gateway = Process(command, {"PATH": "/usr/bin:/bin", "HOME": str(self.dist.parent)})
        self.addCleanup(gateway.stop)
        gateway.until_answers(port, "/ready")
        url = f"http://127.0.0.1:{port}/v1/buckets/default/documents/k"
        urlopen(Request(url, data=b'{"a":1}', method="PUT"), timeout=30).close()
        with urlopen(url, timeout=30) as answer:
            self.assertEqual(answer.read(), b'{"a":1}')
