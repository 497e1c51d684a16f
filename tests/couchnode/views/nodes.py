"""A node with views, and the few requests that tests make of it."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent

from couchbase.protocol.hashing import vbucket_of
from couchnode.data.keys import DEFAULT_PREFIX
from couchnode.data.storemode import StoreMode
from couchnode.embedded import EmbeddedNode

Steps = Generator[Deferred[Any], Any, Any]
BY_NAME = "function (doc, meta) { if (doc.name !== undefined) { emit(doc.name, doc.n); } }"


class Answer:
    """A response: status, headers, body."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def ids(self) -> list[str]:
        """The ids of the rows."""
        return [row["id"] for row in self.json["rows"]]

    @property
    def keys(self) -> list[Any]:
        """The keys of the rows."""
        return [row["key"] for row in self.json["rows"]]

    @property
    def values(self) -> list[Any]:
        """The values of the rows."""
        return [row["value"] for row in self.json["rows"]]


class ViewCase(TestCase):
    """A node, or several, with an open bucket ``default`` and a closed one, ``private``."""

    timeout = 120
    nodes = 1
    replicas = 0
    limits: tuple[str, ...] = ()

    @inlineCallbacks
    def setUp(self) -> Steps:
        """Start."""
        self.folder = Path(self.mktemp())
        yield self.start()

    @inlineCallbacks
    def tearDown(self) -> Steps:
        """Stop."""
        yield self.node.stop()

    @inlineCallbacks
    def start(self) -> Steps:
        """Start the node over its folder."""
        self.node = EmbeddedNode(
            self.folder,
            nodes=self.nodes,
            replicas=self.replicas,
            users=[("Administrator", "password")],
            buckets=[("default", None), ("private", "pw")],
            quota_bytes=2**28,
            view_limits=self.limits,
        )
        yield self.node.start()

    @property
    def cluster(self) -> Any:
        """The cluster."""
        return self.node.cluster

    def part(self, key: str, bucket: str = "default") -> Any:
        """Return the active vbucket of a key."""
        vbid = vbucket_of(key.encode(), 1024)
        index = self.cluster.bucket(bucket).rows[vbid][0]
        return self.cluster.nodes[index].buckets[bucket].vbuckets[vbid]

    def store(self, key: str, value: Any, bucket: str = "default", expiry: int = 0) -> None:
        """Store a document; bytes as they are, anything else as JSON."""
        text = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
        self.part(key, bucket).store(StoreMode.SET, DEFAULT_PREFIX + key.encode(), text, expiry=expiry)

    def delete(self, key: str, bucket: str = "default") -> None:
        """Delete a document."""
        self.part(key, bucket).delete(DEFAULT_PREFIX + key.encode())

    @inlineCallbacks
    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        auth: tuple[str, str] | None = ("Administrator", "password"),
        node: int = 0,
        content_type: str = "application/json",
    ) -> Steps:
        """Make one request."""
        response = yield treq.request(
            method,
            self.node.rest_urls[node] + path,
            data=body,
            auth=auth,
            headers={"Content-Type": content_type},
            agent=Agent(reactor),
        )
        content = yield response.content()
        return Answer(response.code, response.headers, content)

    @inlineCallbacks
    def design(self, name: str, bucket: str = "default", **views: Any) -> Steps:
        """Store a design document; each view is a map function, or (map, reduce)."""
        definitions = {
            view: {"map": source} if isinstance(source, str) else {"map": source[0], "reduce": source[1]}
            for view, source in views.items()
        }
        body = json.dumps({"views": definitions}).encode()
        answer = yield self.ask(f"/{bucket}/_design/{name}", "PUT", body)
        self.assertEqual(answer.status, 201, answer.body)

    @inlineCallbacks
    def query(
        self, view: str = "v", design: str = "d", bucket: str = "default", node: int = 0, **parameters: Any
    ) -> Steps:
        """Query; keys are given as JSON text."""
        return (yield self.ask(f"/{bucket}/_design/{design}/_view/{view}?{urlencode(parameters)}", node=node))
