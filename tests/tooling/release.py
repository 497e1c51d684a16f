"""Makes what a release consists of, in ``dist``: ``make dist``.

    python -m tests.tooling.release [--trial] [KEY]

It refuses a HEAD whose CHANGELOG.md does not begin with its version. A version without a date is not released
yet: it is built to try the packages, and is signed only with ``--trial`` (``make dist TRIAL=1``).

A release is the sdist and the wheel of HEAD, checked by twine; an SBOM of the wheel and the pinned packages
that it runs with; SHA256SUMS; and, if KEY names a private key in PEM, the signed provenance of the build by
in-toto: the hashes of all sources before it, and of the packages after it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from tests.tooling.sources import ROOT

__all__ = ["SECTION", "make", "obstacle", "version_of"]

TOOLS = ROOT / ".venv-dist" / "bin"
"""Where ``make dist`` installs the tools of requirements/dist.txt."""

SECTION = re.compile(r"(\d+)\.(\d+)\.(\d+) - (unreleased|\d{4}-\d{2}-\d{2})")
"""The heading of a version in CHANGELOG.md."""

_VERSION = Path("couchbase", "protocol", "version.py")


def version_of(sources: Path) -> str:
    """Return the version that sources have."""
    namespace: dict[str, str] = {}
    exec((sources / _VERSION).read_text("utf-8"), namespace)
    return namespace["VERSION"]


def obstacle(changelog: str, version: str, *, trial: bool = False) -> str | None:
    """Return why sources cannot be released, and what to do; ``None`` if they can.

    :param changelog: text of CHANGELOG.md.
    :param version: the one that the sources have.
    :param trial: whether it is only tried, so that the version need not be released.
    """
    heading = next((line[3:].strip() for line in changelog.splitlines() if line.startswith("## ")), "")
    section = SECTION.fullmatch(heading)
    if section is None:
        return f"CHANGELOG.md begins with {heading!r}; expected as in '{version} - 2027-01-31'"
    newest, date = heading.split(" - ")
    if newest != version:
        return f"CHANGELOG.md begins with version {newest}, but {_VERSION} has {version}; make them equal"
    if date == "unreleased" and not trial:
        return (
            f"CHANGELOG.md says that {version} is unreleased; write the date of the release in its place and "
            "commit it, or sign packages to try with `make dist TRIAL=1`"
        )
    return None


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


def make(dist: Path, key: Path | None = None, *, trial: bool = False) -> list[Path]:
    """Make a release in a folder, of which the content is deleted.

    :param key: signs the provenance; without one there is none.
    :param trial: see :func:`obstacle`.
    :raises SystemExit: HEAD cannot be released, or a step failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch) / "sources"
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            # Filters came with Python 3.10.12 and 3.11.4; later versions warn if none is chosen.
            if hasattr(tarfile, "data_filter"):
                tar.extraction_filter = tarfile.data_filter
            tar.extractall(sources)
        version = version_of(sources)
        changelog = (sources / "CHANGELOG.md").read_text("utf-8")
        reason = obstacle(changelog, version, trial=trial)
        if reason is not None:
            raise SystemExit(f"HEAD cannot be released: {reason}")
        unpublished = obstacle(changelog, version)
        if unpublished is not None:
            print(f"do not publish these files: {unpublished}")
        shutil.rmtree(dist, ignore_errors=True)
        dist.mkdir()
        _build(sources, key)
        for made in (sources.parent / "packages").iterdir():
            shutil.move(made, dist)
        packages = sorted(dist.glob("couchgateway-*"))
        _run([TOOLS / "twine", "check", "--strict", *packages])
        (wheel,) = dist.glob("*.whl")
        _describe(wheel, Path(scratch) / "environment", dist / f"couchgateway-{version}.cdx.json")
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
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    _run([*pip, "-r", ROOT / "requirements" / "run.txt"])
    _run([*pip, "--no-deps", wheel])
    _run([environment / "bin" / "couchgateway", "--version"])
    _run(
        [TOOLS / "cyclonedx-py", "environment", "--output-reproducible", "--output-file", file, python],
        cwd=file.parent,
    )


def main() -> None:
    """Make a release in ``dist``, and list its files."""
    parser = argparse.ArgumentParser("make dist", description="Make a release in dist.")
    parser.add_argument("--trial", action="store_true", help="sign a version that is not released, to try it")
    parser.add_argument("key", nargs="?", type=Path, help="private key in PEM, to sign the provenance")
    given = parser.parse_args()
    # The signature is what makes packages a release.
    for path in make(ROOT / "dist", given.key, trial=given.trial or given.key is None):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size:,} bytes")
    if given.key is None:
        print("not signed: make dist KEY=FILE signs the provenance with a private key in PEM")


if __name__ == "__main__":
    main()
