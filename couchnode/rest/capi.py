"""The view interface over HTTP: ``/<bucket>/_design/<name>`` and ``.../_view/<view>`` (CAPI).

Paths, statuses and texts are those of Couchbase Server (views-and-rest reference, sections 1, 5 to 10). It
shares the listener of the REST interface.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from couchnode.cluster.cluster import Cluster
from couchnode.cluster.config import encode
from couchnode.cluster.designs import DesignDocument, DesignError, NoSuchDesign
from couchnode.cluster.members import Node, NoSuchBucket
from couchnode.cluster.metadata import DataDirectoryError
from couchnode.rest.access import Access, HTTPError, Leaf, not_found
from couchnode.views.errors import QueryError
from couchnode.views.parameters import ParameterError
from couchnode.views.service import Views
from couchnode.views.workerclient import WorkerConnection, WorkerError
from reactor.sparselog import SparseLog

# A design document's name follows `_design/` or, encoded into the same segment, `_design%2F`.
_PATH = re.compile(rb"/([^/]+)/_design(?:/|%2[Ff])([^/]+)(?:/_view/([^/]+))?\Z")

_DESIGN_METHODS = "DELETE,GET,HEAD,PUT"
_VIEW_METHODS = "GET,POST"


@implementer(IResource)
class ViewSite(Leaf):
    """Serves the paths of the view interface, and hands every other request to ``rest``."""

    def __init__(self, cluster: Cluster, node: Node, views: Views, rest: IResource) -> None:
        self._interface = _ViewInterface(cluster, node, views)
        self._rest = rest

    def render(self, request: Request) -> Any:
        """Answer a request."""
        match = _PATH.match(request.path)
        return self._rest.render(request) if match is None else self._interface.render(request, match)


class _ViewInterface:
    def __init__(self, cluster: Cluster, node: Node, views: Views) -> None:
        self._node = node
        self._cluster = cluster
        self._views = views
        self._access = Access(cluster)
        self._log = SparseLog(Logger(namespace=__name__), cluster.clock.seconds)

    def render(self, request: Request, match: re.Match[bytes]) -> Any:
        # An earlier check has ensured that the path is UTF-8.
        bucket, design, view = [
            None if part is None else unquote(part.decode("ascii"), errors="strict")
            for part in match.groups()
        ]
        assert bucket is not None and design is not None
        name, _, uuid = bucket.partition("+")
        if view is not None:
            work = self._query(request, name, uuid, design, view)
        else:
            handler = self._design_handler(request.method)
            work = self._design(request, name, uuid, design, handler)
        running = Deferred.fromCoroutine(work)
        gone = request.notifyFinish()
        gone.addErrback(lambda _: running.cancel())
        running.addErrback(self._failed, request)
        return NOT_DONE_YET

    # ---- design documents ------------------------------------------------------------------------

    def _design_handler(self, method: bytes) -> Callable[[Request, str, str], Awaitable[None]]:
        handlers = {
            b"GET": self._get_design,
            b"HEAD": self._get_design,
            b"PUT": self._put_design,
            b"DELETE": self._delete_design,
        }
        return handlers.get(method, self._no_such_method)

    async def _design(
        self,
        request: Request,
        bucket: str,
        uuid: str,
        name: str,
        handler: Callable[[Request, str, str], Awaitable[None]],
    ) -> None:
        reads = request.method in (b"GET", b"HEAD")
        await self._admit(request, bucket, uuid, "views!read" if reads else "views!write")
        await handler(request, bucket, name)

    async def _get_design(self, request: Request, bucket: str, name: str) -> None:
        design = self._cluster.bucket(bucket).designs.get(name)
        if design is None:
            raise NoSuchDesign(name)
        _set_meta(request, design)
        self._answer(request, 200, design.text)

    async def _put_design(self, request: Request, bucket: str, name: str) -> None:
        _check_content_type(request)
        assert request.content is not None
        design = await self._views.put_design(bucket, name, request.content.read())
        path = f"/{quote(bucket, safe='')}/_design/{quote(name, safe='')}"
        request.setHeader(b"location", path.encode("ascii"))
        _set_meta(request, design)
        self._answer(request, 201, _line({"ok": True, "id": f"_design/{name}"}))

    async def _delete_design(self, request: Request, bucket: str, name: str) -> None:
        await self._views.delete_design(bucket, name)
        self._answer(request, 200, _line({"ok": True, "id": f"_design/{name}"}))

    async def _no_such_method(self, request: Request, bucket: str, name: str) -> None:
        raise _wrong_method(_DESIGN_METHODS)

    # ---- queries ---------------------------------------------------------------------------------

    async def _query(self, request: Request, bucket: str, uuid: str, design: str, view: str) -> None:
        await self._admit(request, bucket, uuid, "views!read")
        if request.method not in (b"GET", b"POST"):
            raise _wrong_method(_VIEW_METHODS)
        body = None
        if request.method == b"POST":
            _check_content_type(request)
            assert request.content is not None
            body = request.content.read()
        _, _, text = request.uri.partition(b"?")
        # Request lines with other bytes are refused earlier.
        connection = await self._views.query(
            self._node, bucket, design, view, text.decode("ascii", "replace"), body
        )
        request.setResponseCode(200)
        _set_common_headers(request)
        await _RowStream(request, connection).start()

    # ---- inside ----------------------------------------------------------------------------------

    async def _admit(self, request: Request, bucket: str, uuid: str, permission: str) -> None:
        await self._access.bucket(request, bucket, permission)
        found = self._cluster.bucket(bucket)
        if uuid and uuid != found.uuid:
            raise HTTPError(404, b"Bucket uuid does not match the requested.")
        if not found.definition.may_have_views:
            raise _error(400, "bad_request", "ephemeral buckets, and those of magma, have no views")

    def _answer(self, request: Request, status: int, body: bytes) -> None:
        request.setResponseCode(status)
        _set_common_headers(request)
        request.setHeader(b"content-length", b"%d" % len(body))
        request.write(body)
        request.finish()

    def _finish_with(self, request: Request, refusal: HTTPError) -> Any:
        request.setResponseCode(refusal.status)
        _set_common_headers(request)
        request.setHeader(b"content-type", refusal.content_type)
        for name, value in refusal.headers:
            request.setHeader(name, value)
        request.setHeader(b"content-length", b"%d" % len(refusal.body))
        request.write(refusal.body)
        request.finish()
        return NOT_DONE_YET

    def _failed(self, failure: Failure, request: Request) -> None:
        if failure.check(CancelledError) or request._disconnected or request.finished:
            return
        self._finish_with(request, self._refusal(failure, request))

    def _refusal(self, failure: Failure, request: Request) -> HTTPError:
        fault: Any = failure.value
        if isinstance(fault, HTTPError):
            return fault
        if isinstance(fault, NoSuchBucket):
            return not_found()
        if isinstance(fault, NoSuchDesign):
            return _error(404, "not_found", "missing")
        if isinstance(fault, (DesignError, ParameterError)):
            return _error(400, fault.error, fault.reason)
        if isinstance(fault, QueryError):
            refusal = _error(fault.status, fault.error, fault.reason)
            if fault.status == 503:
                refusal.headers = ((b"retry-after", b"1"),)
            return refusal
        if isinstance(fault, WorkerError):
            return _error(500, "error", str(fault))
        if isinstance(fault, DataDirectoryError):
            self._log.error("{method} {uri}: {error}", method=request.method, uri=request.uri, error=fault)
            return _error(500, "internal", "the disk cannot be written")
        self._log.failure("{method} {uri} failed", failure, method=request.method, uri=request.uri)
        return _error(500, "internal", "unexpected server error")


@implementer(IPushProducer)
class _RowStream:
    """Passes the bytes of an answer from the worker to the client, at the client's pace."""

    def __init__(self, request: Request, connection: WorkerConnection) -> None:
        self._request = request
        self._connection = connection
        self._done: Deferred[None] = Deferred(self._cancelled)

    def start(self) -> Deferred[None]:
        """Begin; fires when the answer is complete or was cut off. Cancel it when the client disconnects."""
        self._request.registerProducer(self, True)
        self._connection.receive(self._take)
        return self._done

    def pauseProducing(self) -> None:
        """Pause the worker: the client reads too slowly."""
        self._connection.pause()

    def resumeProducing(self) -> None:
        """Resume the worker: the client has caught up."""
        self._connection.resume()

    def stopProducing(self) -> None:
        """The client is gone."""
        self._connection.close()

    def _take(self, data: bytes | None) -> None:
        request = self._request
        if data:
            request.write(data)
            return
        request.unregisterProducer()
        if data is None:
            # Without the last chunk the client notices that the answer is incomplete.
            channel: Any = request.channel
            channel.transport.abortConnection()
        else:
            self._connection.finish()
            request.finish()
        self._done.callback(None)

    def _cancelled(self, _: Deferred[None]) -> None:
        self._connection.close()


def _error(status: int, error: str, reason: str) -> HTTPError:
    return HTTPError(status, _line({"error": error, "reason": reason}), b"application/json")


def _wrong_method(allowed: str) -> HTTPError:
    refusal = _error(405, "method_not_allowed", f"Only {allowed} allowed")
    refusal.headers = ((b"allow", allowed.encode("ascii")),)
    return refusal


def _line(document: dict[str, Any]) -> bytes:
    return encode(document) + b"\n"


def _check_content_type(request: Request) -> None:
    given = request.getHeader(b"content-type") or b""
    if given.partition(b";")[0].strip().lower() != b"application/json":
        raise _error(415, "bad_content_type", "Content-Type must be application/json")


def _set_meta(request: Request, design: DesignDocument) -> None:
    request.setHeader(b"x-couchbase-meta", json.dumps(design.meta, separators=(",", ":")).encode("ascii"))


def _set_common_headers(request: Request) -> None:
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"cache-control", b"must-revalidate")
