"""Runs the steps of deploy/Containerfile in folders with Debian in them, where no container engine is.

Each stage begins as a copy of the same base; ``RUN`` is executed by chroot, and the variables of ``ENV`` are
those of later steps and of the program. That is not a container: the processes see this machine's processes
and network.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

__all__ = ["Image", "build", "instructions"]


class Image(NamedTuple):
    """What a program of the last stage starts with."""

    root: Path
    environment: dict[str, str]
    folder: str
    user: str
    command: list[str]
    health: list[str]


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Containerfile with their arguments."""
    found = []
    for line in text.replace("\\\n", "").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            found.append((name.upper(), rest.strip()))
    return found


def build(containerfile: Path, context: Path, base: Path, work: Path) -> Image:
    """Run all stages.

    :param base: a folder with Debian in it, which is copied.
    :param work: gets a folder for each stage.
    :raises subprocess.CalledProcessError: a step failed.
    """
    stages: dict[str, Path] = {}
    root, folder, user, environment = work, "/", "0:0", {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    entry: list[str] = []
    default: list[str] = []
    health: list[str] = []
    for name, rest in instructions(containerfile.read_text("utf-8")):
        if name == "FROM":
            stage = rest.partition(" AS ")[2] or "final"
            root, folder, environment = work / stage, "/", {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
            subprocess.run(["cp", "--archive", base, root], check=True)
            stages[stage] = root
        elif name == "WORKDIR":
            folder = rest
            (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "ENV":
            for word in shlex.split(rest):
                variable, _, value = word.partition("=")
                environment[variable] = value
        elif name == "COPY":
            words = shlex.split(rest)
            origin = context
            if words[0].startswith("--from="):
                origin = stages[words.pop(0).removeprefix("--from=")]
            source, target = (
                origin / words[0].lstrip("/"),
                root / (Path(folder) / words[1]).as_posix().lstrip("/"),
            )
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        elif name == "RUN":
            shell = ["chroot", root, "/bin/sh", "-c", f"cd {shlex.quote(folder)} && {rest}"]
            subprocess.run(shell, env=environment, check=True, stdin=subprocess.DEVNULL)
        elif name == "USER":
            user = rest
        elif name == "ENTRYPOINT":
            entry = json.loads(rest)
        elif name == "CMD":
            default = json.loads(rest)
        elif name == "HEALTHCHECK":
            health = json.loads(rest.partition(" CMD ")[2])
    return Image(root, environment, folder, user, [*entry, *default], health)
