"""Samples of the pages, run against a real gateway.

A fenced block marked ``console`` holds commands, each after ``$ `` (continued after a backslash), and under
each what it prints. ``python -m tests.tooling.console`` runs them all and rewrites the pages;
``test_console`` compares them, except for parts that differ from run to run (CAS, dates, request ids,
times).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.tooling.forking import Program
from tests.tooling.sources import ROOT

PAGES = [
    "README.md",
    "docs/tutorial.md",
    "docs/howto/load-documents.md",
    "docs/howto/export.md",
    "docs/howto/views.md",
    "docs/sdk.md",
    "docs/rest-api.md",
    "docs/configuration.md",
    "docs/moving/python-2.md",
    "docs/moving/sdk-4.md",
    "docs/moving/memcached.md",
    "docs/moving/data-api.md",
]
"""Pages with samples. Each runs from its top against a new gateway."""

TOLD_URL = "http://127.0.0.1:8080"
TOLD_NODE = "couchbase://127.0.0.1:11210"
TOLD_PASSWORD_FILE = "bucket-password.txt"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
START_SECONDS = 60
COMMAND_SECONDS = 60

_BLURRED = [
    (re.compile(r"\r"), ""),
    (re.compile(r"^(date|x-request-id|etag|x-cb-mutationtoken|expires): .*$", re.I | re.M), r"\1: ~"),
    (re.compile(r'"(cas|requestId)": ?"[^"]*"'), r'"\1":"~"'),
    (re.compile(r"\([\d.]+ s, \d+ documents a second\)"), "(~)"),
    (re.compile(r"[ \t]+$", re.M), ""),
]


class Sample(NamedTuple):
    """One command and what it prints."""

    command: str
    """The command as written, with its continuation lines."""
    output: str


def blurred(text: str) -> str:
    """Return ``text`` without what differs from one run to the next."""
    for pattern, replacement in _BLURRED:
        text = pattern.sub(replacement, text)
    return text.strip()


def samples(block: str) -> list[Sample]:
    """Return the commands of one block."""
    found: list[Sample] = []
    command: list[str] = []
    output: list[str] = []
    for line in block.splitlines():
        if command and command[-1].endswith("\\"):
            command.append(line)
        elif line.startswith("$ "):
            if command:
                found.append(Sample("\n".join(command), "\n".join(output)))
            command, output = [line[2:]], []
        else:
            output.append(line)
    if command:
        found.append(Sample("\n".join(command), "\n".join(output)))
    return found


class Place(NamedTuple):
    """Addresses of a gateway and its node."""

    url: str
    node: str
    """Connection string."""
    password_file: str
    """Password of the bucket's user."""


def run(command: str, place: Place, environment: dict[str, str]) -> str:
    """Run one command against a gateway; return what it prints on both outputs."""
    url = place.url
    for told, real in ((TOLD_URL, url), (TOLD_NODE, place.node), (TOLD_PASSWORD_FILE, place.password_file)):
        command = command.replace(told, real)
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=COMMAND_SECONDS,
    )
    text = done.stdout.decode("utf-8").replace("\r", "").replace(url, TOLD_URL)
    return "\n".join(line.rstrip() for line in text.rstrip("\n").split("\n")) if text else ""


def rerun(page: str, place: Place) -> str:
    """Run every sample of a page's text; return the text with their new output."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
    }

    def again(block: re.Match[str]) -> str:
        parts = []
        for sample in samples(block.group(1)):
            output = run(sample.command, place, environment)
            same = blurred(output) == blurred(sample.output)
            parts.append(f"$ {sample.command}\n")
            # A page is not touched for the sake of a new CAS alone.
            told = sample.output if same else output
            parts.append(told.rstrip("\n") + "\n" if told.strip() else "")
        return "```console\n" + "".join(parts) + "```"

    return BLOCK.sub(again, page)


@contextmanager
def gateway() -> Iterator[Place]:
    """Run ``twistd couchgateway`` with a new embedded node."""
    twistd = Path(sys.executable).with_name("twistd")
    command = [sys.executable, str(twistd), "--nodaemon", "--pidfile=", "couchgateway"]
    data = tempfile.mkdtemp()
    password_file = Path(data, TOLD_PASSWORD_FILE)
    password_file.write_text("sesame\n", encoding="utf-8")
    password_file.chmod(0o600)
    process = Program(
        [
            *(*command, "--data", str(Path(data, "documents")), "--listen", "tcp:0:interface=127.0.0.1"),
            *("--bucket-password-file", str(password_file)),
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("COUCHGATEWAY_")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    too_long = threading.Timer(START_SECONDS, process.kill)
    too_long.start()
    told = ""
    url = node = None
    try:
        for line in process.stdout:
            told += line
            url = url or re.search(r"listens on (http://\S+)", line)
            node = node or re.search(r"embedded node: (couchbase://[^,\s]+)", line)
            if url and node:
                break
        too_long.cancel()
        if not url or not node:
            raise RuntimeError(f"twistd couchgateway did not start:\n{told}")
        # Later log lines must not fill the pipe.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield Place(url.group(1), node.group(1), str(password_file))
    finally:
        too_long.cancel()
        process.terminate()
        process.wait(START_SECONDS)
        process.stdout.close()
        shutil.rmtree(data, ignore_errors=True)


def main() -> None:
    """Run all samples, and write the pages whose samples print something else now."""
    for name in PAGES:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        with gateway() as place:
            after = rerun(before, place)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{name}: updated")


if __name__ == "__main__":
    main()
