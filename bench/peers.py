"""The HTTP servers that the tables compare, each with the paths of its documents.

All run on 127.0.0.1 at ports that were free; those that are not installed are left out, with a word on how to
install them. Started by :func:`start`, stopped when its ``ExitStack`` closes.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from bench import load
from bench.harness import HERE, OFFICIAL_PYTHON, OWN_PYTHON, START_SECONDS, Server
from bench.ports import free_port
from bench.serve import PASSWORD, USER

GATEWAY = "gateway, node in another process"
EMBEDDED = "gateway, embedded node"
WORKERS = "gateway, 2 workers, node in another process"
KLEIN = "bare Klein route"
PLAIN = "twisted.web's plain resource"
UNLOGGED = "twisted.web's plain resource, no access log"
WEBDIS = "webdis with Redis"
WEBDIS_POOL = "webdis with a pool of 20 connections"
CLIENT = "FastAPI with the official client"
FASTAPI = "FastAPI, bare"

PATH = "/v1/buckets/default/documents/bench-{n}"


class Missing(Exception):
    """A peer cannot take part; the text says why, and what to install."""


class Peer(NamedTuple):
    """A server under load."""

    name: str
    url: str
    """Without a path."""
    processes: dict[str, int]
    """Its processes, by name."""
    get: str = PATH
    put: str = PATH

    def load(self, puts: int, connections: int, seconds: int) -> load.Load:
        """Return a load on it; see :class:`bench.load.Load`."""
        return load.Load(self.url, self.get, self.put, puts, connections, seconds)

    def store(self) -> None:
        """Store every document, and see that one can be read.

        :raises RuntimeError: the server did not do that.
        """
        parts = urlsplit(self.url)
        host = str(parts.hostname)
        connection = http.client.HTTPConnection(host, parts.port, timeout=START_SECONDS)
        if parts.scheme == "https":
            context = load.any_certificate()
            connection = http.client.HTTPSConnection(host, parts.port, timeout=START_SECONDS, context=context)
        for number in range(load.KEYS):
            headers = {"Content-Type": "application/json"}
            connection.request("PUT", self.put.replace("{n}", str(number)), load.DOCUMENT, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status // 100 != 2:
                raise RuntimeError(f"{self.name} answered a PUT with {answer.status}")
        connection.request("GET", self.get.replace("{n}", "0"))
        read = connection.getresponse().read().decode()
        if read != load.DOCUMENT:
            raise RuntimeError(f"{self.name} answered a GET with {read[:100]!r}, not with the document")
        connection.close()


class Program(AbstractContextManager["Program"]):
    """A program that is not a role of bench.serve, in a separate process; use as a context manager.

    :param command: starts it, in the foreground.
    :param port: where it listens on 127.0.0.1 once it is ready.
    :param folder: for its output: webdis prints a line for each connection that ends when wrk does.
    """

    def __init__(self, command: Sequence[str], port: int, folder: Path) -> None:
        self._command = command
        self._log = folder / f"{Path(command[0]).name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=HERE.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._wait_for(port)
        except BaseException:
            self.__exit__()
            raise

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def _wait_for(self, port: int) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"{self._command[0]} ended with status {self._process.returncode}:\n"
                    f"{self._log.read_text(errors='replace')}"
                )
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except ConnectionRefusedError:
                if time.monotonic() > until:
                    raise RuntimeError(f"{self._command[0]} does not listen on port {port}") from None
                time.sleep(0.05)

    def __exit__(self, *exception: object) -> None:
        """Stop it."""
        self._process.terminate()
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start(
    stack: ExitStack,
    names: Sequence[str],
    node: Server,
    options: Sequence[str] = (),
    makers: dict[str, Callable[[ExitStack, Server, Sequence[str]], Peer]] | None = None,
) -> list[Peer]:
    """Start peers, and print a line for each that is missing.

    :param names: keys of ``makers``.
    :param node: of all that need one.
    :param options: of ``twistd couchgateway``.
    :param makers: start each; :data:`PEERS` if ``None``.
    """
    started = []
    for name in names:
        try:
            started.append((makers or PEERS)[name](stack, node, options))
        except Missing as missing:
            print(f"{name} is left out: {missing}", flush=True)
    return started


def _gateway(stack: ExitStack, node: Server, options: Sequence[str]) -> Peer:
    server = stack.enter_context(Server("gateway", node.address, *options))
    return Peer(GATEWAY, server.address, {"gateway": server.pid, "node": node.pid})


def _embedded(stack: ExitStack, node: Server, options: Sequence[str]) -> Peer:
    server = stack.enter_context(Server("gateway", *options))
    return Peer(EMBEDDED, server.address, {"gateway": server.pid})


def _workers(stack: ExitStack, node: Server, options: Sequence[str]) -> Peer:
    from gateway.options import SETTINGS

    if not any(setting.name == "workers" for setting in SETTINGS):
        raise Missing("the gateway has no --workers")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    password = folder / "password"
    password.write_text(PASSWORD + "\n")
    port = free_port()
    command = [str(Path(OWN_PYTHON).with_name("twistd")), "--nodaemon", "--pidfile=", "couchgateway"]
    command += ["--workers=2", "--auth=none"]
    command += [f"--listen=tcp:{port}:interface=127.0.0.1", f"--cluster={node.address}"]
    command += [f"--user={USER}", f"--password-file={password}", *options]
    program = stack.enter_context(Program(command, port, folder))
    return Peer(WORKERS, f"http://127.0.0.1:{port}", {"gateway, all": program.pid, "node": node.pid})


def _role(name: str, *arguments: str) -> Callable[[ExitStack, Server, Sequence[str]], Peer]:
    def make(stack: ExitStack, node: Server, options: Sequence[str]) -> Peer:
        server = stack.enter_context(Server(*arguments))
        return Peer(name, server.address, {"server": server.pid})

    return make


def _webdis(stack: ExitStack, node: Server, options: Sequence[str], **more: int) -> Peer:
    if not (shutil.which("webdis") and shutil.which("redis-server")):
        raise Missing("apt-get install webdis redis-server")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    redis_port, port = free_port(), free_port()
    command = ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"]
    redis = stack.enter_context(Program(command, redis_port, folder))
    settings = {
        "redis_host": "127.0.0.1",
        "redis_port": redis_port,
        "http_host": "127.0.0.1",
        "http_port": port,
        "threads": 1,
        "daemonize": False,
        "verbosity": 0,
        "logfile": str(folder / "requests.log"),
        **more,
    }
    (folder / "webdis.json").write_text(json.dumps(settings))
    webdis = stack.enter_context(Program(["webdis", str(folder / "webdis.json")], port, folder))
    processes = {"webdis": webdis.pid, "redis-server": redis.pid}
    name = WEBDIS_POOL if more else WEBDIS
    return Peer(name, f"http://127.0.0.1:{port}", processes, "/GET/bench-{n}.txt", "/SET/bench-{n}")


def _webdis_pool(stack: ExitStack, node: Server, options: Sequence[str]) -> Peer:
    # Its default is a few connections to Redis, which then carry more requests at once.
    return _webdis(stack, node, options, pool_size=20)


def fastapi(stack: ExitStack, *arguments: str, modules: str) -> Server:
    """Start FastAPI, in the environment of the official client.

    :raises Missing: the modules are not there.
    """
    try:
        # Run it in another folder, so that the official client is not hidden by this checkout's package.
        check = [str(OFFICIAL_PYTHON), "-c", f"import {modules}"]
        done = subprocess.run(check, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        raise Missing("make interop, then bench/requirements.txt into .venv-interop") from None
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise Missing(f"bench/requirements.txt has to be in .venv-interop: {reason}")
    command = [str(OFFICIAL_PYTHON), "-I", str(HERE / "fastapi_worker.py")]
    return stack.enter_context(Server(*arguments, command=command, first_line=PASSWORD))


def _client(stack: ExitStack, node: Server, options: Sequence[str]) -> Peer:
    server = fastapi(
        stack, node.address, USER, modules="acouchbase.cluster, fastapi, httptools, uvicorn, uvloop"
    )
    return Peer(CLIENT, server.address, {"uvicorn": server.pid, "node": node.pid})


def _bare_fastapi(stack: ExitStack, node: Server, options: Sequence[str]) -> Peer:
    server = fastapi(stack, modules="fastapi, httptools, uvicorn, uvloop")
    return Peer(FASTAPI, server.address, {"uvicorn": server.pid})


PEERS: dict[str, Callable[[ExitStack, Server, Sequence[str]], Peer]] = {
    WEBDIS: _webdis,
    WEBDIS_POOL: _webdis_pool,
    GATEWAY: _gateway,
    EMBEDDED: _embedded,
    WORKERS: _workers,
    KLEIN: _role(KLEIN, "klein"),
    PLAIN: _role(PLAIN, "resource"),
    UNLOGGED: _role(UNLOGGED, "resource", "unlogged"),
    CLIENT: _client,
    FASTAPI: _bare_fastapi,
}
"""How to start each program, in the order of the tables."""
