"""Finds dependencies without a ready-built wheel for a platform: ``make wheels``.

    python -m tests.tooling.wheels [--again]

uv, the resolver of ``make lock``, lists all files of each version that an installation gets: the pinned ones,
and the oldest that setup.py allows. The rest is arithmetic with tags and markers, so no platform is needed to
learn what it would get. Answers are kept in ``build/wheels`` until setup.py or a lock changes; ``--again``
asks for all of them once more. The table goes into docs/dependencies.md, with the date of the oldest answer.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import Marker
from packaging.tags import compatible_tags, cpython_tags, mac_platforms
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from tests.tooling.sources import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "OLDEST",
    "PARTS",
    "PINNED",
    "PLATFORMS",
    "PYTHONS",
    "Answers",
    "Missing",
    "Platform",
    "Release",
    "missing",
    "names",
    "releases",
    "table",
    "written",
]

UV = str(Path(sys.executable).parent / "uv")
ANSWERS = ROOT / "build" / "wheels"
PAGE = ROOT / "docs" / "dependencies.md"
BEGIN = "<!-- wheels: python -m tests.tooling.wheels -->\n"
END = "<!-- end of wheels -->\n"

PYTHONS = (10, 11, 12, 13, 14)
"""Minor versions of CPython 3."""

PARTS = ("", "views", "gevent", "otel")
"""Extras of setup.py; the empty name is a plain installation."""

PINNED, OLDEST = "pinned", "oldest"


class Platform(NamedTuple):
    """A kind of machine, as installers see it."""

    name: str
    tags: tuple[str, ...]
    """Platform tags of wheels that run there."""
    markers: dict[str, str]

    def environment(self, minor: int) -> dict[str, str]:
        """Return what markers see with one CPython."""
        version = f"3.{minor}"
        python = {"python_version": version, "python_full_version": f"{version}.0"}
        python["implementation_version"] = f"{version}.0"
        names = {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
        return {**self.markers, **python, **names, "platform_release": "", "extra": ""}


def _linux(family: str, newest: int) -> tuple[str, ...]:
    """Return the tags of glibc 2.17 to 2.``newest``, or of musl 1.1 to 1.``newest``."""
    if family.startswith("musl"):
        return tuple(f"musllinux_1_{minor}_{family.removeprefix('musl-')}" for minor in range(newest, 0, -1))
    tags = [f"manylinux_2_{minor}_{family}" for minor in range(newest, 4, -1)]
    return (*tags, f"manylinux2014_{family}", f"manylinux2010_{family}", f"manylinux1_{family}")


def _platforms() -> Iterator[Platform]:
    for machine in ("x86_64", "aarch64"):
        markers = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
        markers |= {"platform_machine": machine, "platform_version": "#1 SMP PREEMPT_DYNAMIC"}
        yield Platform(f"Linux, glibc, {machine}", _linux(machine, 28), markers)
        yield Platform(f"Linux, musl, {machine}", _linux(f"musl-{machine}", 2), markers)
    for release in (13, 14, 15):
        for machine in ("x86_64", "arm64"):
            # Darwin's number is macOS's and nine.
            version = f"Darwin Kernel Version {release + 9}.6.0: root:xnu-1/RELEASE_{machine.upper()}"
            markers = {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"}
            markers |= {"platform_machine": machine, "platform_version": version}
            yield Platform(
                f"macOS {release}, {machine}", tuple(mac_platforms((release, 0), machine)), markers
            )
    for machine, tag in (("AMD64", "win_amd64"), ("ARM64", "win_arm64")):
        markers = {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"}
        markers |= {"platform_machine": machine, "platform_version": "10.0.22631"}
        yield Platform(f"Windows, {machine}", (tag,), markers)


PLATFORMS = tuple(_platforms())


class Release(NamedTuple):
    """A version of a package in a lock."""

    name: str
    version: str
    marker: Marker | None
    wheels: tuple[str, ...]
    """File names."""
    sdist: bool


def releases(answer: str) -> list[Release]:
    """Read a lock in the form of pylock.toml.

    :raises ValueError: it has another form.
    """
    locked = tomllib.loads(answer)
    if locked.get("lock-version") != "1.0":
        raise ValueError(f"a lock of version 1.0 is expected, not of {locked.get('lock-version')!r}")
    return [_release(package) for package in locked["packages"] if "directory" not in package]


def _release(package: dict[str, Any]) -> Release:
    marker = package.get("marker")
    wheels = tuple(str(wheel["url"]).rpartition("/")[2] for wheel in package.get("wheels", ()))
    return Release(package["name"], package["version"], marker and Marker(marker), wheels, "sdist" in package)


class Missing(NamedTuple):
    """A package that has no wheel for some place."""

    name: str
    buildable: bool
    """It has an sdist."""

    def __str__(self) -> str:
        return self.name if self.buildable else f"{self.name} (no sdist)"


def missing(locked: Sequence[Release], platform: Platform, minor: int) -> list[Missing]:
    """Return what a place needs and has no wheel for."""
    tags = set(cpython_tags((3, minor), [f"cp3{minor}"], platform.tags))
    tags |= set(compatible_tags((3, minor), f"cp3{minor}", platform.tags))
    environment = platform.environment(minor)
    return [
        Missing(one.name, one.sdist)
        for one in locked
        if (one.marker is None or one.marker.evaluate(environment))
        and not any(tags & _tags_of(wheel) for wheel in one.wheels)
    ]


def _tags_of(wheel: str) -> frozenset[Any]:
    try:
        return parse_wheel_filename(wheel)[3]
    except InvalidWheelFilename:
        return frozenset()


def names(found: dict[int, list[Missing]]) -> str:
    """Return what is missing in words, with the versions of Python if it is not missing on all.

    :param found: what is missing, by minor version.
    """
    places: dict[Missing, list[int]] = {}
    for minor, packages in found.items():
        for one in packages:
            places.setdefault(one, []).append(minor)
    words = [
        str(one) if minors == list(found) else f"{one}: {', '.join(f'3.{minor}' for minor in minors)}"
        for one, minors in sorted(places.items())
    ]
    return "; ".join(words) or "none"


Answers = dict[tuple[str, str], list[Release]]
"""The releases of a part, by :data:`PINNED` or :data:`OLDEST` and part."""


def table(answers: Answers) -> str:
    """Return a table of Markdown: what has no wheel, in a plain installation, and what others add to that."""

    def lacks(platform: Platform, which: str, part: str) -> dict[int, list[Missing]]:
        return {minor: missing(answers[which, part], platform, minor) for minor in PYTHONS}

    rows = ["| platform | plain installation | more with the extras | more with the oldest versions |",
            "| --- | --- | --- | --- |"]  # fmt: skip
    for platform in PLATFORMS:
        plain = lacks(platform, PINNED, "")
        extras = _more(plain, *(lacks(platform, PINNED, part) for part in PARTS[1:]))
        known = {one.name for found in (plain, extras) for packages in found.values() for one in packages}
        oldest = _more(plain, *(lacks(platform, OLDEST, part) for part in PARTS))
        # Another version of what was named is no news.
        oldest = {minor: [one for one in found if one.name not in known] for minor, found in oldest.items()}
        rows.append(f"| {platform.name} | {names(plain)} | {names(extras)} | {names(oldest)} |")
    return "\n".join(rows) + "\n"


def _more(known: dict[int, list[Missing]], *others: dict[int, list[Missing]]) -> dict[int, list[Missing]]:
    """Return what is missing in some of the others and not known."""
    return {
        minor: sorted({one for other in others for one in other[minor]} - set(packages))
        for minor, packages in known.items()
    }


def written(page: str, text: str) -> str:
    """Return the page with a text in its place.

    :raises ValueError: the page has no such place.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place between {BEGIN!r} and {END!r}")
    return f"{before}{begin}{text}{end}{after}"


def _ask(which: str, part: str, again: bool) -> Path:
    """Return the file with uv's answer; uv is asked only if the answer is absent or old."""
    path = ANSWERS / f"pylock.{which}-{part or 'plain'}.toml"
    sources = (ROOT / "setup.py", ROOT / "requirements" / "lock.txt")
    if not again and path.exists() and path.stat().st_mtime > max(one.stat().st_mtime for one in sources):
        return path
    new = path.with_name(f"pylock.new-{which}-{part or 'plain'}.toml")
    command = [UV, "pip", "compile", "--quiet", "--universal", "--python-version", f"3.{PYTHONS[0]}"]
    command += ["--format", "pylock.toml", "--output-file", str(new)]
    command += ["--constraints", "requirements/lock.txt"] if which == PINNED else []
    command += ["--resolution", "lowest-direct"] if which == OLDEST else []
    command += ["--extra", part] if part else []
    done = subprocess.run(
        [*command, "setup.py"], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return new.replace(path)


def main() -> int:
    """Write the table, and print it; return 1 if a plain installation is impossible somewhere."""
    parser = argparse.ArgumentParser(prog="python -m tests.tooling.wheels", description=__doc__)
    parser.add_argument("--again", action="store_true", help="Ask the registry again for everything.")
    again = parser.parse_args().again
    ANSWERS.mkdir(parents=True, exist_ok=True)
    wanted = [(which, part) for which in (PINNED, OLDEST) for part in PARTS]
    with ThreadPoolExecutor(4) as pool:
        files = dict(zip(wanted, pool.map(lambda one: _ask(*one, again), wanted), strict=True))
    answers = {key: releases(path.read_text("utf-8")) for key, path in files.items()}
    asked = datetime.fromtimestamp(min(path.stat().st_mtime for path in files.values()), timezone.utc)
    text = table(answers)
    page = PAGE.read_text("utf-8")
    PAGE.write_text(written(page, f"As of {asked:%Y-%m-%d}:\n\n{text}"), "utf-8")
    print(text, end="")
    impossible = {
        f"{one} for CPython 3.{minor} on {platform.name}"
        for platform in PLATFORMS
        for minor in PYTHONS
        for one in missing(answers[PINNED, ""], platform, minor)
        if not one.buildable
    }
    print(*sorted(f"impossible: {one}" for one in impossible), sep="\n", end="")
    return 1 if impossible else 0


if __name__ == "__main__":
    sys.exit(main())
