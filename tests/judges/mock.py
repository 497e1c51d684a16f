"""CouchbaseMock, a stand-in for a cluster in Java, as tests start it."""

import atexit
import json
import os
import shutil
import socket
import subprocess
from base64 import b64encode
from pathlib import Path
from urllib.request import Request, urlopen

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 60

_shared = {}


def jar():
    """Return the program's file: ``COUCHBASE_MOCK_JAR``, or what ``make judges`` brought, or ``None``."""
    named = os.environ.get("COUCHBASE_MOCK_JAR")
    found = [Path(named)] if named else sorted((ROOT / "build" / "judges").glob("CouchbaseMock-*.jar"))
    return found[-1] if found and found[-1].exists() else None


def missing():
    """Return why the program cannot be started, ``None`` if it can."""
    if shutil.which("java") is None:
        return "CouchbaseMock needs java, which is not installed"
    return None if jar() else "no CouchbaseMock: run make judges, or name its jar in COUCHBASE_MOCK_JAR"


class Mock:
    """A running CouchbaseMock with the bucket ``default``, which needs no password.

    :param nodes: how many nodes it plays.
    """

    def __init__(self, nodes=1, replicas=0, buckets="default:"):
        # It ends when this connection does.
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(START_SECONDS)
        monitor = f"127.0.0.1:{listening.getsockname()[1]}"
        arguments = f"--port 0 --nodes {nodes} --replicas {replicas} --vbuckets 64 --cccp"
        self._process = subprocess.Popen(
            [
                "java",
                "-jar",
                str(jar()),
                *arguments.split(),
                "--buckets",
                buckets,
                "--harakiri-monitor",
                monitor,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._control, _ = listening.accept()
            text = b""
            while not text.endswith(b"\0"):
                received = self._control.recv(64)
                if not received:
                    raise RuntimeError("CouchbaseMock ended while it started")
                text += received
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            listening.close()
        self.rest_port = int(text[:-1])

    def kv_ports(self, bucket="default"):
        """Return the ports of the nodes' key-value service."""
        address = f"http://127.0.0.1:{self.rest_port}/pools/default/buckets/{bucket}"
        administrator = b64encode(b"Administrator:password").decode()
        request = Request(address, headers={"Authorization": f"Basic {administrator}"})
        with urlopen(request, timeout=30) as answer:
            nodes = json.load(answer)["nodes"]
        return [node["ports"]["direct"] for node in nodes]

    @property
    def string(self):
        """The connection string for the bucket ``default``."""
        return self.string_of("default")

    def string_of(self, bucket):
        """Return the connection string for a bucket: each bucket has its own nodes."""
        return f"couchbase://127.0.0.1:{self.kv_ports(bucket)[0]}"

    def control(self, command, **payload):
        """Give it a command of its README; returns the answer, whose ``status`` is ``ok`` or not."""
        self._control.sendall(json.dumps({"command": command, "payload": payload}).encode() + b"\n")
        text = b""
        while not text.endswith(b"\n"):
            received = self._control.recv(4096)
            if not received:
                raise RuntimeError(f"CouchbaseMock ended at {command}")
            text += received
        return json.loads(text)

    @property
    def pid(self):
        """Number of its process."""
        return self._process.pid

    def stop(self):
        """End it."""
        self._control.close()
        self._process.terminate()
        self._process.wait(30)


def shared(nodes, replicas):
    """Return a running mock that tests share until the process ends, as they leave it.

    It has the buckets ``default``, ``cache`` (of memcached) and ``protected``, whose password is ``secret``.
    """
    found = _shared.get((nodes, replicas))
    if found is None:
        found = _shared[nodes, replicas] = Mock(nodes, replicas, "default:,cache::memcache,protected:secret")
        # trial calls no tearDownModule.
        atexit.register(found.stop)
    return found
