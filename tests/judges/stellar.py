"""Couchbase's Data API gateway, if ``STELLAR_GATEWAY`` names the program, and questions to it and to ours."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import ssl
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.judges.dataapi import Case, Step
from tests.judges.programs import Process, free_port, twistd

PROGRAM = os.environ.get("STELLAR_GATEWAY")
USERS = {
    "reader": "data_reader[default]",
    "writer": "data_writer[default]",
    "stranger": "data_reader[other]",
}
_DOCUMENTS = "/v1/buckets/default/scopes/_default/collections/_default/documents"
_COMPARED = ("content-type", "x-cb-flags", "content-encoding")
_PRESENT = ("etag", "x-cb-mutationtoken", "expires")


def missing() -> str | None:
    """Return why the peer cannot be started, ``None`` if it can."""
    if not PROGRAM:
        return "STELLAR_GATEWAY names no program: build Couchbase's stellar-gateway from its sources"
    return None if shutil.which(PROGRAM) else f"STELLAR_GATEWAY names {PROGRAM!r}, which cannot be executed"


class Node:
    """A node of ours as a process, with the buckets ``default`` and ``other`` and the users in ``USERS``."""

    def __init__(self, nodes: int = 1) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="judge"))
        password = self._folder / "password"
        password.write_text("password\n")
        options = [
            "--data",
            str(self._folder / "data"),
            "--user",
            "Administrator",
            "--password-file",
            str(password),
        ]
        ports = ["--kv-port", "0", "--rest-port", "0"]
        copies = ["--nodes", str(nodes), "--replicas", str(int(nodes > 1))]
        self.process = twistd(
            "couchnode", *options, *ports, *copies, "--bucket", "default", "--bucket", "other"
        )
        self.process.until_says("ready: ")
        found = re.search(
            r"key-value on (couchbase://[^\s,]+(?:,[^\s,]+)*), REST on http://([^\s,]+)", self.process.log
        )
        assert found is not None, self.process.log
        self.string, self.rest = found[1], found[2]
        for name, role in USERS.items():
            request = Request(
                f"http://{self.rest}/settings/rbac/users/local/{name}",
                data=f"password=secret-1&roles={role}".encode(),
                headers={"Authorization": _basic("Administrator:password")},
                method="PUT",
            )
            urlopen(request).close()

    def stop(self) -> None:
        """End it."""
        self.process.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


class Gateway:
    """A running gateway.

    :ivar answers_of: asks all the questions of a case.
    """

    def __init__(self, process: Process, port: int, context: ssl.SSLContext | None) -> None:
        self.process = process
        self._port = port
        self._context = context

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        return http.client.HTTPSConnection("127.0.0.1", self._port, timeout=20, context=self._context)

    def answers_of(self, case: Case, key: str) -> list[dict[str, Any]]:
        """Return what it answers to each step, in a form that two gateways can have in common."""
        tag, found = "", []
        connection = self._connect()
        for step in case:
            answer, tag = _ask(connection, step, key, tag)
            found.append(answer)
        connection.close()
        return found

    def stop(self) -> None:
        """End it."""
        self.process.stop()


def start_peer(node: Node, *options: str) -> Gateway:
    """Start Couchbase's gateway."""
    assert PROGRAM
    port, web = free_port(), free_port()
    fixed = ["--bind-address", "127.0.0.1", "--data-port", "-1", "--alpha-endpoints", "--self-sign"]
    ports = ["--dapi-port", str(port), "--web-port", str(web), "--cb-host", node.rest]
    process = Process([PROGRAM, *fixed, *ports, *options], dict(os.environ))
    process.until_answers(web, "/health")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return Gateway(process, port, context)


def start_ours(node: Node, *options: str) -> Gateway:
    """Start our gateway for the same node."""
    passthrough = ["--auth", "passthrough", "--cluster", node.string]
    process = twistd("couchgateway", "--listen", "tcp:0:interface=127.0.0.1", *passthrough, *options)
    process.until_says("Ready: ")
    found = re.search(r"Ready: http://127\.0\.0\.1:(\d+)", process.log)
    assert found is not None, process.log
    return Gateway(process, int(found[1]), None)


def _basic(user: str) -> str:
    return "Basic " + b64encode(user.encode()).decode()


def _ask(
    connection: http.client.HTTPConnection, step: Step, key: str, tag: str
) -> tuple[dict[str, Any], str]:
    path = step.path.replace("/K", f"/{key}", 1)
    if path[:2] in ("D/", "A/"):
        base = _DOCUMENTS if path[0] == "D" else _DOCUMENTS.replace("/v1/", "/v1.alpha/", 1)
        path = base + path[1:]
    headers = {name: tag if value == "@" else value for name, value in step.headers.items()}
    if step.user is not None:
        headers["Authorization"] = _basic(step.user)
    connection.putrequest(step.method or "GET", path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if step.body is not None or step.method in ("PUT", "POST"):
        connection.putheader("Content-Length", str(len(step.body or b"")))
    try:
        connection.endheaders(step.body or None)
    except (BrokenPipeError, ConnectionResetError):
        pass  # It answered before it read everything.
    response = connection.getresponse()
    body = response.read()
    given = {name.lower(): value for name, value in response.getheaders()}
    answer: dict[str, Any] = {"status": response.status}
    if response.status >= 400:
        try:
            members = json.loads(body)
        except ValueError:
            members = {}
        answer["code"] = members.get("code") or None
        answer["resource"] = (members.get("resource") or "").replace(key, "KEY") or None
    else:
        answer["body"] = body if step.path.split("?")[0].endswith("/K") else _value(body)
        for name in _COMPARED:
            answer[name] = given.get(name) or None
        for name in _PRESENT:
            answer[name] = bool(given.get(name))
    return answer, given.get("etag", "")


def _value(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return body
