"""Makes what a release consists of, in ``dist``: ``make dist``.

    python -m tests.tooling.release [KEY]

The sdist and the wheel of HEAD, checked by twine; an SBOM of the wheel and the pinned packages that it runs
with; SHA256SUMS; and, if KEY names a private key in PEM, the signed provenance of the build by in-toto: the
hashes of all sources before it, and of the packages after it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from couchbase.protocol.version import VERSION
from tests.tooling.sources import ROOT

__all__ = ["make"]

TOOLS = ROOT / ".venv-dist" / "bin"
"""Where ``make dist`` installs the tools of requirements/dist.txt."""


def _run(command: Sequence[str | Path], cwd: Path = ROOT, **environment: str) -> str:
    """Run a command; return its standard output."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def make(dist: Path, key: Path | None = None) -> list[Path]:
    """Make a release in an empty folder.

    :param key: signs the provenance; without one there is none.
    :raises SystemExit: a step failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch) / "sources"
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(sources, filter="data")
        _build(sources, key)
        for made in (sources.parent / "packages").iterdir():
            shutil.move(made, dist)
        packages = sorted(dist.glob("couchgateway-*"))
        _run([TOOLS / "twine", "check", "--strict", *packages])
        (wheel,) = dist.glob("*.whl")
        _describe(wheel, Path(scratch) / "environment", dist / f"couchgateway-{VERSION}.cdx.json")
    files = sorted(dist.iterdir())
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (dist / "SHA256SUMS").write_text(sums)
    return [*files, dist / "SHA256SUMS"]


def _build(sources: Path, key: Path | None) -> None:
    """Build sdist and wheel in the folder ``packages`` beside the sources."""
    # Names without folders: what is recorded tells nothing about this machine.
    command = ["python", "-m", "build", "--outdir", "packages", sources.name]
    if key is not None:
        signer = [
            "in-toto-run",
            "--run-timeout",
            "600",
            "--step-name",
            "build",
            "--signing-key",
            str(key.absolute()),
        ]
        paths = ["--materials", sources.name, "--products", "packages", "--metadata-directory", "packages"]
        command = [*signer, *paths, "--lstrip-paths", f"{sources.name}/", "packages/", "--", *command]
    _run(
        command,
        sources.parent,
        PATH=os.pathsep.join((str(TOOLS), os.environ["PATH"])),
        # The wheel then does not depend on when it is built.
        SOURCE_DATE_EPOCH=_run(["git", "log", "-1", "--format=%ct"]).strip(),
    )


def _describe(wheel: Path, environment: Path, file: Path) -> None:
    """Install the wheel with the pinned packages, and write the SBOM of that."""
    _run([sys.executable, "-m", "venv", environment])
    python = environment / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    _run([*pip, "-r", ROOT / "requirements" / "run.txt"])
    _run([*pip, "--no-deps", wheel])
    _run([environment / "bin" / "couchgateway", "--version"])
    _run(
        [TOOLS / "cyclonedx-py", "environment", "--output-reproducible", "--output-file", file, python],
        cwd=file.parent,
    )


def main() -> None:
    """Make a release in ``dist``, and list its files."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    key = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    for path in make(dist, key):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size:,} bytes")
    if key is None:
        print("not signed: make dist KEY=FILE signs the provenance with a private key in PEM")


if __name__ == "__main__":
    main()
