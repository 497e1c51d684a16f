"""Clusters of two scripted nodes, an active and a replica, with a cluster manager and simple views."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from couchbase.protocol.constants import Feature, Opcode, Status
from tests.servers.versions import BOTH, FEATURES, KNOWS_NOT_LOCKED, VATTRS, VersionedNode, reads_replica

_BUCKETS = "/pools/default/buckets"
_OF_COPIES = frozenset({Opcode.OBSERVE, Opcode.STAT})


class Member(VersionedNode):
    """One of the two nodes.

    :param active: holds the active copy; its replica gets what it has at once.
    """

    web = 0
    """Port of the cluster manager and the views."""

    def __init__(self, version: str, active: Member | None = None) -> None:
        super().__init__(FEATURES[version], VATTRS.get(version, BOTH))
        if version in KNOWS_NOT_LOCKED:
            self.not_locked = Status.NOT_LOCKED
        self.rows = [[0, 1]]
        self._is_active = active is None
        if active is not None:
            self.documents, self.cluster, self.web = active.documents, active.cluster, active.web
            self.cluster.append(self)

    def config(self) -> bytes:
        """Return the map, with the ports of the cluster manager and the views."""
        config = json.loads(super().config())
        for node in config["nodesExt"]:
            node["services"] |= {"mgmt": self.web, "capi": self.web}
        return json.dumps(config).encode()

    def script(self, peer: Any, frame: Any) -> None:
        """Carry an operation out if it is for this copy."""
        if frame.opcode == Opcode.STAT:
            group = bytes(frame.key)
            for name, value in ((b"pid", b"1"), (b"group", group or b"default")):
                peer.answer(frame, key=name, value=value)
            peer.answer(frame)
        elif frame.opcode not in _OF_COPIES and reads_replica(frame) == self._is_active:
            peer.answer(frame, Status.NOT_MY_VBUCKET, value=self.config())
        elif frame.opcode == Opcode.GET_REPLICA:
            document = self._find(frame)
            if document is None:
                peer.answer(frame, Status.KEY_ENOENT)
            else:
                flags = document.flags.to_bytes(4, "big")
                peer.answer(frame, extras=flags, value=document.value, cas=document.cas)
        else:
            super().script(peer, frame)


class Cluster:
    """Both nodes, and the HTTP server of both.

    :param version: the version that they imitate.
    """

    def __init__(self, version: str) -> None:
        self.active = Member(version)
        self.designs: dict[str, Any] = {}
        self.buckets = ["b"]
        self.principals: dict[str, dict[str, Any]] = {}
        """Users and groups, by kind and name."""
        self.scopes: dict[str, dict[str, int]] | None = None
        """Scope -> collection -> longest time to live, where the version has collections."""
        if Feature.COLLECTIONS in FEATURES[version]:
            self.scopes = {"_default": {"_default": 0}}
        self._web = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._web.daemon_threads = True
        self.port = self.active.web = self._web.server_address[1]
        self.replica = Member(version, self.active)
        self._thread = threading.Thread(target=self._web.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def string(self) -> str:
        """Its connection string."""
        return self.active.string

    @property
    def nodes(self) -> tuple[Member, Member]:
        """Both."""
        return self.active, self.replica

    @property
    def violations(self) -> list[str]:
        """Requests that should not have been sent."""
        return [wrong for node in self.nodes for wrong in node.violations]

    def stop(self) -> None:
        """Stop all of it."""
        self._web.shutdown()
        self._thread.join(10)
        self._web.server_close()
        for node in self.nodes:
            node.stop()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Answer a request: status and JSON."""
        if path.startswith("/settings/rbac/"):
            return self._rbac(method, path.split("/")[3:], parse_qs(body.decode()))
        if path == "/controller/changePassword":
            return 200, ""
        bucket, _, rest = path[1:].partition("/")
        if bucket == "b" and rest.startswith("_design/"):
            return self._design(method, rest) if method != "PUT" else self._put(rest, body)
        if path == _BUCKETS and method == "POST":
            self.buckets.append(parse_qs(body.decode())["name"][0])
            return 202, ""
        if path == _BUCKETS:
            return 200, [{"name": name, "bucketType": "membase"} for name in self.buckets]
        if path == f"{_BUCKETS}/b/ddocs":
            documents = [
                {"doc": {"meta": {"id": f"_design/{name}", "rev": "1-0"}, "json": design}}
                for name, design in self.designs.items()
            ]
            return 200, {"rows": documents}
        if path.startswith(f"{_BUCKETS}/b/scopes") and self.scopes is not None:
            return self._scopes(method, path.split("/")[6:], parse_qs(body.decode()))
        if path == f"{_BUCKETS}/b":
            return 200, {"name": "b"}
        name = path.removeprefix(f"{_BUCKETS}/")
        if method == "DELETE" and name in self.buckets:
            self.buckets.remove(name)
            return 200, ""
        return 404, "Requested resource not found."

    def _rbac(self, method: str, parts: list[str], form: dict[str, list[str]]) -> tuple[int, Any]:
        """Answer a request for roles, users or groups; below the latter two, one of them."""
        kind, *names = parts
        if kind == "roles":
            return 200, [{"role": "ro_admin", "name": "Read-Only Admin", "desc": ""}]
        held = self.principals.setdefault(kind, {})
        name = names[-1] if names and names != ["local"] else None
        if name is None:
            return 200, list(held.values())
        if method == "PUT":
            roles = [{"role": role} for role in form.get("roles", [""])[0].split(",") if role]
            held[name] = {"id": name, "roles": roles, "description": form.get("description", [""])[0]}
            return 200, ""
        if name not in held:
            return 404, "Unknown user."
        return 200, held.pop(name) and "" if method == "DELETE" else held[name]

    def _scopes(self, method: str, parts: list[str], form: dict[str, list[str]]) -> tuple[int, Any]:
        """Answer a request for scopes: below them ``scope``, ``collections``, ``collection``."""
        scopes = self.scopes
        assert scopes is not None
        ttl = int(form.get("maxTTL", ["0"])[0])
        if method == "GET":
            listed = [
                {"name": scope, "uid": "0", "collections": [
                    {"name": name, "uid": "0", "maxTTL": limit} for name, limit in collections.items()
                ]}
                for scope, collections in scopes.items()
            ]  # fmt: skip
            return 200, {"uid": "1", "scopes": listed}
        if parts[:1] == ["@ensureManifest"]:
            return 200, ""
        if not parts:
            scopes[form["name"][0]] = {}
        elif len(parts) == 1:
            del scopes[parts[0]]
        elif len(parts) == 2:
            scopes[parts[0]][form["name"][0]] = ttl
        elif method == "PATCH":
            scopes[parts[0]][parts[2]] = ttl
        else:
            del scopes[parts[0]][parts[2]]
        return 200, {"uid": "1"}

    def _put(self, rest: str, body: bytes) -> tuple[int, Any]:
        name = rest.removeprefix("_design/")
        self.designs[name] = json.loads(body)
        return 201, {"ok": True, "id": rest}

    def _design(self, method: str, rest: str) -> tuple[int, Any]:
        name, _, view = rest.removeprefix("_design/").partition("/_view/")
        design = self.designs.get(name)
        if design is None or (view and view not in design["views"]):
            return 404, {"error": "not_found", "reason": "missing"}
        if view:
            keys = sorted(key.decode() for key in self.active.documents)
            rows = [{"id": key, "key": key, "value": None} for key in keys]
            return 200, {"total_rows": len(rows), "rows": rows}
        if method == "DELETE":
            del self.designs[name]
            return 200, {"ok": True, "id": rest}
        return 200, design


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, value = cluster.answer(self.command, unquote(urlsplit(self.path).path), body)
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("X-Couchbase-Meta", json.dumps({"id": self.path, "rev": "1-0"}))
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
