"""The REST interface of one node: the bootstrap of clients, and the administration of buckets."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Request

from couchnode.cluster import config
from couchnode.cluster.bucketforms import read_changes, read_new_bucket
from couchnode.cluster.cluster import Cluster
from couchnode.cluster.definition import DefinitionError
from couchnode.cluster.members import FlushDisabled, Node, NoSuchBucket
from couchnode.cluster.metadata import DataDirectoryError
from couchnode.data.keys import document_key
from couchnode.data.randomitem import random_item
from couchnode.rest.access import Access, Gate, HTTPError, not_found
from couchnode.rest.answers import json_answer, plain_answer, read_form
from couchnode.rest.backups import BackupResources
from couchnode.rest.capi import ViewSite
from couchnode.rest.cbauth import CredentialChecks, Services
from couchnode.rest.edge import RestSite
from couchnode.rest.membership import POOL
from couchnode.rest.scopes import Scopes
from couchnode.rest.streams import DocumentStream
from couchnode.rest.users import UserManagement
from couchnode.tls import NodeTls
from couchnode.views.service import UpdateSettings, Views
from reactor.clock import unix_time_of
from reactor.sparselog import SparseLog

BUCKETS = f"{POOL}/buckets"

_NO_ERRORS: dict[str, Any] = {"errors": {}, "summaries": {}}
_UPDATE_FIELDS = ("updateInterval", "updateMinChanges", "replicaUpdateMinChanges")


class RestApi(Scopes, UserManagement, CredentialChecks, BackupResources):
    """The resources of one node, and its open streams.

    :param views: the view engine; without one the node has no view interface.
    """

    app = Scopes.app

    def __init__(self, cluster: Cluster, node: Node, views: Views | None = None) -> None:
        super().__init__(cluster, node, Access(cluster))
        self._views = views
        self._streams: dict[DocumentStream, str | None] = {}
        self._services: list[Services] = []
        self._shared: dict[Hashable, bytes] | None = None
        self._log = SparseLog(Logger(namespace=__name__), cluster.clock.seconds)
        self._cluster.on_config_change.append(self._changed)

    def site(self, tls: NodeTls | None = None) -> RestSite:
        """Return a factory that serves these resources.

        :param tls: finds the user of a client's certificate.
        """
        self.tls = tls
        resource: IResource = self.app.resource()
        if self._views is not None:
            resource = ViewSite(self._cluster, self._node, self._views, resource)
        services = Services(self._cluster, self._node, resource)
        self._services.append(services)
        return RestSite(Gate(self._cluster, services, tls), self._cluster.clock)

    def close(self) -> None:
        """End all streams."""
        self._cluster.on_config_change.remove(self._changed)
        for stream in list(self._streams):
            stream.end()
        for services in self._services:
            services.close()

    # ---- the cluster -----------------------------------------------------------------------------

    @app.route("/", methods=["GET"])
    async def root(self, request: Request) -> bytes:
        """Answer clients that only check whether the node responds."""
        await self._access.caller(request)
        return json_answer(request, {"implementationVersion": self._cluster.version, "pools": "/pools"})

    @app.route("/pools", methods=["GET"])
    async def pools(self, request: Request) -> bytes:
        """Give the node's version, and whether the caller may administer the node."""
        user = await self._access.caller(request)
        admin = self._cluster.users.is_admin(user)
        return json_answer(request, config.pools(self._cluster.uuid, self._cluster.version, admin))

    @app.route(POOL, methods=["GET"])
    @app.route("/pools/nodes", methods=["GET"])
    async def pool(self, request: Request) -> bytes:
        """Give an overview of the cluster."""
        user = await self._access.member(request)
        return plain_answer(request, self._pool(request, user))

    @app.route("/poolsStreaming/default", methods=["GET"])
    async def pool_stream(self, request: Request) -> None:
        """Give an overview of the cluster, again after every change."""
        user = await self._access.member(request)
        host = request.getHost().host
        await self._stream(request, None, ("pool", user, host), lambda: self._pool(request, user))

    @app.route(f"{POOL}/nodeServices", methods=["GET"])
    async def node_services(self, request: Request) -> bytes:
        """Give the cluster-level configuration."""
        await self._access.member(request)
        return plain_answer(request, self._cluster.config_bytes(None, self._node))

    @app.route(f"{POOL}/nodeServicesStreaming", methods=["GET"])
    async def node_services_stream(self, request: Request) -> None:
        """Give the cluster-level configuration, again after every change."""
        await self._access.member(request)
        await self._stream(request, None, "nodes", lambda: self._cluster.config_bytes(None, self._node))

    @app.route("/settings/viewUpdateDaemon", methods=["GET"])
    async def view_update_daemon(self, request: Request) -> bytes:
        """Give the settings of automatic view updates."""
        await self._access.permit(request, "cluster.settings.indexes!read")
        settings = self._views.settings if self._views is not None else UpdateSettings()
        return json_answer(request, dict(zip(_UPDATE_FIELDS, settings, strict=True)))

    @app.route("/settings/viewUpdateDaemon", methods=["POST"])
    async def set_view_update_daemon(self, request: Request) -> bytes:
        """Change the settings of automatic view updates; the change lasts until the node stops."""
        await self._access.permit(request, "cluster.settings.indexes!write")
        views = self._views
        if views is None:
            raise not_found()
        current = dict(zip(_UPDATE_FIELDS, views.settings, strict=True))
        for name, text in read_form(request).items():
            least = 100 if name == "updateInterval" else 0
            if name not in current:
                raise DefinitionError({name: f"is none of {', '.join(_UPDATE_FIELDS)}"})
            if not text.isascii() or not text.isdigit() or not least <= int(text[:10]) < 2**31:
                raise DefinitionError({name: f"must be an integer of at least {least}"})
            current[name] = int(text)
        views.set_update_settings(UpdateSettings(*current.values()))
        return json_answer(request, current)

    # ---- configurations of a bucket --------------------------------------------------------------

    @app.route(f"{POOL}/b/<bucket>", methods=["GET"])
    async def terse(self, request: Request, bucket: str) -> bytes:
        """Give the terse configuration."""
        await self._access.bucket(request, bucket)
        return plain_answer(request, self._cluster.config_bytes(bucket, self._node))

    @app.route(f"{POOL}/bs/<bucket>", methods=["GET"])
    async def terse_stream(self, request: Request, bucket: str) -> None:
        """Give the terse configuration, again after every change."""
        await self._access.bucket(request, bucket)
        key = "terse", bucket
        await self._stream(request, bucket, key, lambda: self._cluster.config_bytes(bucket, self._node))

    @app.route(f"{BUCKETS}/<bucket>", methods=["GET"])
    async def verbose(self, request: Request, bucket: str) -> bytes:
        """Give the bucket object."""
        await self._access.bucket(request, bucket)
        return json_answer(request, self._verbose(request, bucket))

    @app.route(f"{POOL}/bucketsStreaming/<bucket>", methods=["GET"])
    async def verbose_stream(self, request: Request, bucket: str) -> None:
        """Give the bucket object, again after every change."""
        await self._access.bucket(request, bucket)
        key = "verbose", bucket, request.getHost().host
        await self._stream(request, bucket, key, lambda: config.encode(self._verbose(request, bucket)))

    @app.route(BUCKETS, methods=["GET"])
    async def list_buckets(self, request: Request) -> bytes:
        """Give the objects of all buckets that the caller may use."""
        user = await self._access.member(request)
        names = [name for name in sorted(self._cluster.buckets) if self._access.may(user, name)]
        return json_answer(request, [self._verbose(request, name) for name in names])

    @app.route(f"{BUCKETS}/<bucket>/nodes", methods=["GET"])
    async def bucket_nodes(self, request: Request, bucket: str) -> bytes:
        """List the nodes that serve the bucket."""
        await self._access.bucket(request, bucket)
        stats = f"{config.bucket_path(bucket)}/stats"
        hosts = [report.address.rest for report in self._reports(request, bucket)]
        return json_answer(
            request, {"servers": [{"hostname": host, "stats": {"uri": stats}} for host in hosts]}
        )

    @app.route(f"{BUCKETS}/<bucket>/stats", methods=["GET"])
    async def bucket_stats(self, request: Request, bucket: str) -> bytes:
        """Give the present statistics of the bucket: one sample, since no history is kept."""
        await self._access.bucket(request, bucket, "stats!read")
        return json_answer(request, {"op": self._samples(bucket), "hot_keys": []})

    @app.route(f"{BUCKETS}/<bucket>/localRandomKey", methods=["GET"])
    async def random_key(self, request: Request, bucket: str) -> bytes:
        """Give the key of some document on this node."""
        await self._access.bucket(request, bucket, "data.docs!read")
        found = random_item(self._node.buckets[bucket])
        if found is None:
            raise HTTPError.of_json(404, {"ok": False, "error": "fallback_to_all_docs"})
        return json_answer(request, {"ok": True, "key": document_key(found.key).decode("utf-8", "replace")})

    @app.route(f"{BUCKETS}/<bucket>/ddocs", methods=["GET"])
    async def designs(self, request: Request, bucket: str) -> bytes:
        """List the design documents of the bucket."""
        await self._access.bucket(request, bucket, "views!read")
        rows = [
            {"doc": {"meta": design.meta, "json": json.loads(design.text)}, "controllers": {}}
            for _, design in sorted(self._cluster.bucket(bucket).designs.items())
        ]
        return json_answer(request, {"rows": rows})

    # ---- administration --------------------------------------------------------------------------

    @app.route(BUCKETS, methods=["POST"])
    async def create_bucket(self, request: Request) -> bytes:
        """Create a bucket; the answer comes when the bucket accepts documents."""
        await self._access.permit(request, "cluster.buckets!create")
        definition, password = read_new_bucket(read_form(request), len(self._cluster.nodes))
        if _is_trial(request):
            return json_answer(request, _NO_ERRORS)
        request.setHeader(b"location", config.bucket_path(definition.name).encode())
        await self._cluster.create_bucket(definition, password)
        return plain_answer(request, b"", status=202)

    @app.route(f"{BUCKETS}/<bucket>", methods=["POST"])
    async def edit_bucket(self, request: Request, bucket: str) -> bytes:
        """Change settings of a bucket."""
        await self._access.bucket(request, bucket, "settings!write")
        form = read_form(request)
        known = bucket in self._cluster.buckets
        if known and form.get("bucketType") == self._cluster.bucket_state(bucket).bucket_type:
            # Clients send back the value that they read, which is different on a node without a disk.
            del form["bucketType"]
        nodes = len(self._cluster.nodes)
        if _is_trial(request):
            read_changes(form, self._cluster.bucket(bucket).definition, nodes)
            return json_answer(request, _NO_ERRORS)
        await self._cluster.edit_bucket(bucket, lambda current: read_changes(form, current, nodes))
        return plain_answer(request, b"")

    @app.route(f"{BUCKETS}/<bucket>", methods=["DELETE"])
    async def delete_bucket(self, request: Request, bucket: str) -> bytes:
        """Delete a bucket with its documents."""
        await self._access.bucket(request, bucket, "!delete")
        await self._cluster.delete_bucket(bucket)
        return plain_answer(request, b"")

    @app.route(f"{BUCKETS}/<bucket>/controller/doFlush", methods=["POST"])
    async def flush_bucket(self, request: Request, bucket: str) -> bytes:
        """Remove all documents of a bucket."""
        await self._access.bucket(request, bucket, "!flush")
        await self._cluster.flush_bucket(bucket)
        return plain_answer(request, b"")

    # ---- errors ----------------------------------------------------------------------------------

    @app.handle_errors(HTTPError)
    def refused(self, request: IRequest, failure: Failure) -> bytes:
        """Answer a handler's refusal."""
        refusal = failure.value
        assert isinstance(refusal, HTTPError)
        for name, value in refusal.headers:
            request.setHeader(name, value)
        return plain_answer(request, refusal.body, refusal.content_type, refusal.status)

    @app.handle_errors(NoSuchBucket)
    def no_such_bucket(self, request: IRequest, failure: Failure) -> bytes:
        """Answer that the bucket does not exist, or no longer exists."""
        return self.refused(request, Failure(not_found()))

    @app.handle_errors(FlushDisabled)
    def flush_disabled(self, request: IRequest, failure: Failure) -> bytes:
        """Answer that the bucket may not be flushed."""
        return self.refused(
            request, Failure(HTTPError.of_json(400, {"_": "Flush is disabled for the bucket"}))
        )

    @app.handle_errors(DefinitionError)
    def bad_fields(self, request: IRequest, failure: Failure) -> bytes:
        """Name every field that is wrong."""
        assert isinstance(failure.value, DefinitionError)
        refusal = HTTPError.of_json(400, {"errors": failure.value.errors, "summaries": {}})
        return self.refused(request, Failure(refusal))

    @app.handle_errors(Exception)
    def anything_else(self, request: IRequest, failure: Failure) -> Any:
        """Answer a refusal of the router, or an unexpected failure."""
        if getattr(failure.value, "code", None) is not None:
            return ensureDeferred(self._not_routed(request, failure.value))
        if failure.check(DataDirectoryError):
            self._log.error("{method} {uri}: {error}", method=request.method, uri=request.uri,
                            error=failure.value)  # fmt: skip
            text = "the disk cannot be written"
        else:
            self._log.failure("{method} {uri} failed", failure, method=request.method, uri=request.uri)
            text = "unexpected server error"
        return self.refused(request, Failure(HTTPError.of_json(500, [f"Internal server error: {text}"])))

    async def _not_routed(self, request: Any, error: Any) -> bytes:
        """Answer a request that matches no route; wrong credentials are refused first, as everywhere."""
        try:
            await self._access.caller(request)
        except HTTPError as refusal:
            return self.refused(request, Failure(refusal))
        if error.code != 405:
            return self.refused(request, Failure(not_found()))
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        header = (b"allow", allowed.encode("ascii"))
        return self.refused(request, Failure(HTTPError(405, b"Method Not Allowed", headers=(header,))))

    # ---- inside ----------------------------------------------------------------------------------

    def _reports(self, request: Request, bucket: str | None = None) -> list[config.NodeReport]:
        return self._cluster.reports.nodes(bucket, placeholder=request.getHost().host)

    def _pool(self, request: Request, user: str | None) -> bytes:
        cluster = self._cluster
        quota = sum(bucket.definition.quota_bytes for bucket in cluster.buckets.values()) * len(cluster.nodes)
        used = sum(part.memory_bytes for node in cluster.nodes for part in node.buckets.values())
        stored = sum(part.disk_bytes for node in cluster.nodes for part in node.buckets.values())
        document = config.pool(
            cluster.uuid,
            self._reports(request),
            self._node.index,
            quota,
            used,
            cluster.reports.disk(),
            stored,
        )
        document["clusterName"] = cluster.naming.name
        # Clients that cache permissions ask again when the number changes.
        document["checkPermissionsURI"] = f"{POOL}/checkPermissions?v={cluster.users.version}"
        document["bucketNames"] = [
            {"bucketName": name, "uuid": cluster.buckets[name].uuid}
            for name in sorted(cluster.buckets)
            if self._access.may(user, name)
        ]
        return config.encode(document)

    def _verbose(self, request: Request, bucket: str) -> dict[str, Any]:
        return config.verbose_bucket(
            self._cluster.bucket_state(bucket),
            self._reports(request, bucket),
            self._node.index,
            self._cluster.reports.basic_stats(bucket),
        )

    def _samples(self, bucket: str) -> dict[str, Any]:
        now = unix_time_of(self._cluster.clock)()
        samples = self._cluster.reports.bucket_samples(bucket)
        return {
            "samples": {"timestamp": [int(now * 1000)], **samples},
            "samplesCount": 1,
            "isPersistent": self._cluster.bucket_state(bucket).bucket_type == "membase",
            "lastTStamp": int(now * 1000),
            "interval": 1000,
        }

    def _stream(
        self, request: Request, bucket: str | None, key: Hashable, document: Callable[[], bytes]
    ) -> Deferred[None]:
        """Stream a document that depends on one bucket (``None``: on anything).

        :param key: equal for streams that send equal documents.
        """

        def current() -> bytes | None:
            if bucket is not None and bucket not in self._cluster.buckets:
                return None
            shared = self._shared
            if shared is None:
                return document()
            if key not in shared:
                shared[key] = document()
            return shared[key]

        stream = DocumentStream(request, current, self._cluster.clock, self._forget)
        self._streams[stream] = bucket
        return stream.start()

    def _forget(self, stream: DocumentStream) -> None:
        self._streams.pop(stream, None)

    def _changed(self, bucket: str) -> None:
        # A verbose document counts the items of every vbucket, so it is made once per change, not per stream.
        self._shared = {}
        try:
            for stream, followed in list(self._streams.items()):
                if followed is None or followed == bucket:
                    stream.refresh()
        finally:
            self._shared = None


def _is_trial(request: Request) -> bool:
    """Return whether the request is only to be validated, not carried out."""
    return request.args.get(b"just_validate") == [b"1"]
