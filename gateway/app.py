"""The gateway without a transport: its resources, plugins, and the explanation of errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.batches.context import BatchContext
from gateway.batches.forms import Forms
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.dialect.conditions import check_taken, select
from gateway.dialect.encodings import choose, parse_accept_encoding
from gateway.dialect.errors import Refusal, describe
from gateway.dialect.fixedrefusals import fields_of
from gateway.dialect.jsontools import dumps
from gateway.dialect.paths import missing_route
from gateway.fairness.steps import StepRunner
from gateway.http.application import Application, EndHook, Guard
from gateway.http.compression import LEAST_BYTES, SNAPPY, compressed
from gateway.http.outlet import SLICED_BYTES
from gateway.http.refusal import Explanation
from gateway.http.request import Handler, Request
from gateway.http.response import Response
from gateway.http.routing import mount
from gateway.interfaces import IGatewayPlugin
from gateway.limits import Limits
from gateway.operations.renderer import Renderer
from gateway.resources.base import Admission, asked_of
from gateway.resources.batches import Batches
from gateway.resources.buckets import Buckets
from gateway.resources.copies import DurabilityChecks
from gateway.resources.counters import Counters
from gateway.resources.designs import Designs
from gateway.resources.documents import Documents
from gateway.resources.health import CheckReady, Health
from gateway.resources.index import Index, links
from gateway.resources.listing import Listings
from gateway.resources.locks import Locks
from gateway.resources.scopes import Scopes
from gateway.resources.services import Services
from gateway.resources.statements import Statements
from gateway.resources.subdocuments import Subdocuments
from gateway.resources.views import Views
from gateway.services.kinds import Policy
from gateway.services.upstream import DEFAULT_TIMEOUT_SECONDS, Upstream

__all__ = ["Gateway"]

# Endpoint -> number of segments of /buckets/b/scopes/s/collections/c/documents/k in an error's resource.
_RESOURCE_SEGMENTS = {
    "BucketNotFound": 1,
    "DurabilityImpossible": 1,
    "ScopeNotFound": 2,
    "CollectionNotFound": 3,
    "NoReadAccess": 3,
    "NoWriteAccess": 3,
    "DocumentNotFound": 4,
    "DocumentExists": 4,
    "CasMismatch": 4,
    "PreconditionFailed": 4,
    "DocumentLocked": 4,
    "DocumentNotLocked": 4,
    "DocumentNotNumeric": 4,
    "DocumentNotJson": 4,
    "DocumentTooDeep": 4,
    "PathNotFound": 4,
    "PathExists": 4,
    "PathMismatch": 4,
    "ValueTooLarge": 4,
    "DurableWriteInProgress": 4,
}
_DOCUMENT = b"/buckets/%b/scopes/_default/collections/_default/documents/%b"
_OF_DOCUMENTS = frozenset(code for code, segments in _RESOURCE_SEGMENTS.items() if segments == 4)

# The same for /buckets/b/designs/d/views/v.
_VIEW_SEGMENTS = {"DesignDocumentNotFound": 2, "InvalidDesignDocument": 2, "ViewNotFound": 3, "ViewFailed": 3}


# The resource of their errors includes the path.
_OF_PATH = frozenset({"PathNotFound", "PathExists", "PathMismatch"})

# Endpoints whose answers may be compressed.
_DOCUMENTS = frozenset({"get_document", "touch_document", "lock_document"})
_STREAMS = frozenset(
    {"post_batch", "get_view", "post_view", "list_documents", "post_query", "post_scope_query"}
)

_NOT_BELIEVED = frozenset({"Unauthorized", "InvalidAuth"})


def resource_of(request: Request, code: str) -> str:
    """Return the resource of an error in the Data API's notation; ``""`` if there is none."""
    parameters = request.parameters
    if len(parameters) == 2 and "key" in parameters and code in _OF_DOCUMENTS:
        # The usual case.
        document = (_DOCUMENT % (parameters["bucket"], parameters["key"])).decode()
        return document + _part_of(request, code)
    segments = _RESOURCE_SEGMENTS.get(code)
    if code in _VIEW_SEGMENTS:
        segments = _VIEW_SEGMENTS[code]
        named = [(f"{kind}s", parameters.get(kind)) for kind in ("bucket", "design", "view")]
        return _joined(named[:segments])
    if segments is None or "bucket" not in parameters:
        return ""
    named = [
        ("buckets", parameters["bucket"]),
        ("scopes", parameters.get("scope", b"_default")),
        ("collections", parameters.get("collection", b"_default")),
        ("documents", parameters.get("key")),
    ]
    return _joined(named[:segments]) + _part_of(request, code)


def _part_of(request: Request, code: str) -> str:
    """Return the end of the resource of an error that concerns a part of a document."""
    path = request.failed_part
    return "" if path is None or code not in _OF_PATH else "/content/{" + path + "}"


def _document_json(request: Request) -> bytes:
    """Return the resource of an error that concerns a document, as JSON."""
    parameters = request.parameters
    if len(parameters) != 2 or "key" not in parameters:
        return dumps(resource_of(request, "DocumentNotFound"))
    return dumps((_DOCUMENT % (parameters["bucket"], parameters["key"])).decode())


def _part_json(request: Request) -> bytes:
    """Return the resource of an error that concerns a part of a document, as JSON."""
    return dumps(resource_of(request, "PathNotFound"))


def _joined(named: list[tuple[str, bytes | None]]) -> str:
    return "".join(f"/{kind}/{name.decode('utf-8')}" for kind, name in named if name is not None)


def _is_text(response: Response) -> bool:
    """Return whether compression may shorten an answer: bytes of unknown type may be compressed already."""
    return any(
        name == b"Content-Type" and value != b"application/octet-stream" for name, value in response.headers
    )


class Gateway(Application):
    """Serves documents, views and all other resources.

    :param now: gives the Unix time in seconds.
    :param is_ready: reports whether documents can be served, and the reason if not; see :class:`Health`.
    :param services: the requests that callers may send to the cluster's other services; by default none.
    :param services_timeout: how long one of these services may neither send nor read anything, in seconds.
    :param quoted_etags: whether ``ETag`` has quotes, as RFC 9110 requires; the Data API sends it without.
    """

    log = Logger()
    limits: Limits
    missing_route = staticmethod(missing_route)
    check_headers = staticmethod(check_taken)
    unconfirmed = frozenset({"open"})
    select = staticmethod(select)

    # Many parameters: they connect the gateway's parts; keywords.
    def __init__(
        self,
        authorizer: Authorizer,
        pool: ConnectionPool,
        clock: IReactorTime,
        *,
        now: Callable[[], float],
        limits: Limits,
        is_ready: CheckReady,
        plugins: Iterable[IGatewayPlugin] = (),
        end_hooks: Iterable[EndHook] = (),
        quoted_etags: bool = False,
        guard: Guard | None = None,
        services: Policy | None = None,
        services_timeout: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> None:
        plugins = list(plugins)
        super().__init__(
            Klein(), clock, now=now, limits=limits, plugins=plugins, end_hooks=end_hooks, guard=guard
        )
        self.pool = pool
        self.security_schemes = authorizer.schemes
        self._admission = Admission(authorizer, pool)
        self.index = Index()
        steps = StepRunner(clock)
        renderer = Renderer(steps, quoted=quoted_etags)
        documents = Documents(authorizer, pool, renderer, now)
        self.note_large = documents.was_large
        self.upstream = Upstream(clock, services_timeout, limits.max_service_requests)
        """Handles requests to the cluster's other services."""
        policy = services or Policy()
        self.resources = resources = [
            documents,
            Counters(authorizer, pool, renderer, now),
            Locks(authorizer, pool, renderer, now),
            Subdocuments(authorizer, pool, renderer, now, steps, documents.large),
            DurabilityChecks(authorizer, pool, renderer, now),
            Buckets(authorizer, pool),
            Batches(
                authorizer,
                pool,
                BatchContext(
                    clock, now, limits, self.budget, steps, self.count_operation, self._log_bug, Forms(now)
                ),
            ),
            Views(authorizer, pool, self.budget, steps, self.count_operation, self._log_bug),
            Listings(authorizer, pool, steps, self.count_operation, self._log_bug),
            Designs(authorizer, pool),
            Scopes(authorizer, pool),
            Services(authorizer, pool, self.upstream, policy),
            Statements(
                authorizer,
                pool,
                self.upstream,
                policy,
                self.budget,
                limits.max_line,
                self.count_operation,
                self._log_bug,
            ),
            Health(is_ready),
            self.index,
        ]
        for resource in resources:
            mount(self.app, resource, self.run_under_klein)
        for plugin in plugins:
            plugin.attach(self)
            plugin.routes(self.app)
        self.index.links = links(self.app)
        self.routes_are_complete()

    def connection(self, request: Request, bucket: str) -> Deferred[GatewayConnection]:
        """Return a connection to a bucket as the caller of a request, for handlers of plugins.

        :param bucket: its name.
        :returns: Deferred of a ``txcouchbase`` connection whose keys and values are bytes. It fails with
            exceptions that the handler should let pass: a :class:`gateway.dialect.errors.Refusal` (no
            credentials, no such bucket, no room) or the SDK's exception. Cancelling it is safe. Other
            requests share the connection: do not close it, and do not keep it after the request.
        """
        return self._admission.open(request, bucket)

    def explain(self, error: BaseException, request: Request) -> Explanation:
        """Return the answer to a failure, by the one table of :mod:`gateway.dialect.errors`."""
        headers: tuple[tuple[bytes, bytes], ...] = ()
        resource = None
        further: Mapping[str, object] = {}
        is_bug = False
        if isinstance(error, Refusal):
            problem, headers, resource, further = error.problem, error.headers, error.resource, error.further
            members = self.members_of(error)
        else:
            asked = asked_of(request)
            fault = describe(error, request.operation, cas_given=asked.cas_given, durable=asked.durable)
            problem, is_bug = fault.problem, fault.is_bug
            members = fault.fields()
        code = problem.code
        if request.operation in self.unconfirmed or code in _NOT_BELIEVED:
            # The cluster has not confirmed the caller's name, so the log must not contain it.
            request.caller = None
        if resource is None:
            request.failed_part = getattr(error, "path", None)
            resource = resource_of(request, code)
        members["resource"] = resource
        if further:
            members.update(further)
        return Explanation(problem, members, headers, is_bug)

    def members_of(self, refusal: Refusal) -> dict[str, object]:
        """Return the members of the answer to a refusal, without ``resource`` and the request's id."""
        return fields_of(refusal)

    def resource_json(self, code: str) -> Callable[[Request], bytes]:
        """Return a function that returns the resource of errors with a code, as JSON."""
        if code in _OF_DOCUMENTS:
            return _part_json if code in _OF_PATH else _document_json
        return lambda request: dumps(resource_of(request, code))

    def encoded(self, response: Response, request: Request) -> Response:
        """Return a document, or a stream of rows or answers, in the coding that the caller prefers."""
        endpoint = request.endpoint
        name = "" if endpoint is None else endpoint.name
        is_document = name in _DOCUMENTS
        if response.status != 200 or not (is_document or name in _STREAMS):
            return response
        given: Any = request.headers[b"accept-encoding"]
        accepted = parse_accept_encoding(given if given.__class__ is bytes else b",".join(given))
        body = response.body
        size = len(body) if isinstance(body, bytes) else None
        if (size is not None and size < LEAST_BYTES and accepted.identity > 0) or request.method == "HEAD":
            # Most documents are too short to gain from compression.
            return response
        encoding = choose(accepted, size, is_document=is_document)
        if encoding is None or (encoding != SNAPPY and not _is_text(response)):
            if size is not None and size >= LEAST_BYTES:
                response.headers = [*response.headers, (b"Vary", b"Accept-Encoding")]
            return response
        if size is not None and size >= SLICED_BYTES:
            self.note_large(request, size)
        return compressed(response, encoding, self.clock)

    def admission_of(self, request: Request) -> Handler | None:
        """Return the handler that checks the caller of a request whose own handler has not done so yet."""
        return None if request.caller is not None else self._admission.admit

    def _log_bug(self, failure: Failure) -> None:
        self.log.failure("an operation failed after its answer was started", failure=failure)
