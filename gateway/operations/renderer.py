"""Documents and mutations as HTTP answers, with the configured form of ETag."""

from __future__ import annotations

from functools import lru_cache

from twisted.internet.defer import Deferred

from couchbase.protocol.constants import Status
from couchbase.protocol.refused import Refused
from couchbase.result import ExpiryResult, OperationResult, ValueResult, unpack_token
from gateway.dialect.conditions import EXCLUDED
from gateway.dialect.contenttypes import JSON, content_type, format_of, sniffing
from gateway.dialect.errors import Refusal
from gateway.dialect.fixedrefusals import refusal_of
from gateway.dialect.headers import etag, token_header
from gateway.dialect.projection import Path, project, projecting
from gateway.fairness.steps import AT_ONCE_BYTES, StepRunner
from gateway.http.encoding import http_date
from gateway.http.request import Request
from gateway.http.response import RenderedResponse, Response, header_block

__all__ = ["REVALIDATE", "Renderer"]

# A cache may keep a document, but must revalidate it each time: "Expires" is the document's expiry, not the
# end of its freshness.
REVALIDATE = (b"Cache-Control", b"private, no-cache")

_KNOWN_BLOCKS = 256

_NO_TOKEN = (0, 0, 0)


# Documents that expire within an hour have at most 3,600 different expiries.
@lru_cache(maxsize=4096)
def _expires(expiry: int) -> bytes:
    return b"Expires: %b\r\n" % http_date(expiry)


class Renderer:
    """Renders the answers that have an ``ETag``.

    A method that has to process a long value returns a Deferred of the answer.

    :param steps: processes long values.
    :param quoted: whether ``ETag`` has quotes, as RFC 9110 requires; the Data API sends it without.
    """

    def __init__(self, steps: StepRunner, *, quoted: bool = False) -> None:
        self._steps = steps
        quote = b'"' if quoted else b""
        self._quote = quote
        # Flags -> the bytes around the CAS; programs use few different flags.
        self._blocks: dict[int, tuple[bytes, bytes]] = {}
        # The result of mutation_headers(), as sent.
        self._mutation_with_json = (
            b"Content-Type: %b\r\nETag: %b%%08x%b\r\nX-CB-MutationToken: %%b:%%d:%%08x:%%d\r\n"
            % (JSON, quote, quote)
        )
        self._version = b"ETag: %b%%08x%b\r\n" % (quote, quote)
        self._version_with_json = b"Content-Type: %b\r\n%b" % (JSON, self._version)
        self._unmodified = self._version + header_block([REVALIDATE])
        self._mutation = b"ETag: %b%%08x%b\r\nX-CB-MutationToken: %%b:%%d:%%08x:%%d\r\n" % (quote, quote)

    def etag(self, cas: int) -> bytes:
        """Return a CAS as the value of ``ETag``."""
        return b"%b%b%b" % (self._quote, etag(cas), self._quote)

    def etag_header(self, result: OperationResult) -> list[tuple[bytes, bytes]]:
        """Return the ``ETag`` header of an answer; none if the result has no CAS."""
        return [(b"ETag", self.etag(result.cas))] if result.cas else []

    def mutation_headers(self, result: OperationResult, bucket: bytes) -> list[tuple[bytes, bytes]]:
        """Return ``ETag`` and ``X-CB-MutationToken`` of a mutation, if the cluster sent them."""
        headers = self.etag_header(result)
        token = result.mutation_token
        if token is not None:
            headers.append((b"X-CB-MutationToken", token_header(bucket.decode(), token)))
        return headers

    def whole(
        self, result: ExpiryResult, request: Request
    ) -> RenderedResponse | Deferred[Response] | Refusal:
        """Return a document as it is stored, with its expiry.

        :param result: an ExpiryResult whose value is bytes, or the result for a missing document.
        """
        # Slots are read directly here and below: each property of the result would take as long as a call.
        if result._rc:
            return refusal_of(result, request)
        try:
            before, behind = self._blocks[result._flags]
        except KeyError:
            return self._unknown(result, result.expiry)
        # The CAS in the format of gateway.dialect.headers.etag.
        block = b"%b%08x%b" % (before, result._cas, behind)
        expiry = result._expiry
        if expiry:
            block += _expires(expiry)
        return RenderedResponse(200, block, result._value)

    def document(self, result: ValueResult, request: Request) -> Response | Deferred[Response] | Refusal:
        """Return a document as it is stored.

        :param result: a ValueResult whose value is bytes, or the result for a missing document.
        """
        if result.rc:
            return refusal_of(result, request)
        try:
            before, behind = self._blocks[result.flags]
        except KeyError:
            return self._unknown(result, 0)
        return RenderedResponse(200, b"%b%08x%b" % (before, result.cas, behind), result.value)

    def parts(
        self, result: ValueResult, paths: list[tuple[str, Path]], expiry: int
    ) -> Response | Deferred[Response]:
        """Return parts of a document, or fail as :func:`gateway.dialect.projection.project` does.

        :param expiry: of the document; 0 if it has none.
        """
        value = result.value
        if len(value) <= AT_ONCE_BYTES:
            return self._shown(result, JSON, project(value, paths), expiry)
        cut = self._steps.run(projecting(value, paths))
        return cut.addCallback(lambda body: self._shown(result, JSON, body, expiry))

    def _unknown(self, result: ValueResult, expiry: int) -> RenderedResponse | Deferred[Response]:
        """Return a document whose type may depend on its value."""
        value = result.value
        if len(value) <= AT_ONCE_BYTES or format_of(result.flags) is not None:
            return self._shown(result, content_type(result.flags, value), value, expiry)
        sniffed = self._steps.run(sniffing(value))
        return sniffed.addCallback(lambda kind: self._shown(result, kind, value, expiry))

    def _shown(self, result: ValueResult, kind: bytes, body: bytes, expiry: int) -> RenderedResponse:
        flags = result.flags
        block = (
            b"Content-Type: %b\r\nETag: %b" % (kind, self._quote),
            b"%b\r\nX-CB-Flags: %d\r\nCache-Control: %b\r\n" % (self._quote, flags, REVALIDATE[1]),
        )
        # If flags declare no format, the type depends on the value.
        if format_of(flags) == kind and len(self._blocks) < _KNOWN_BLOCKS:
            self._blocks[flags] = block
        shown = b"%b%08x%b" % (block[0], result.cas, block[1])
        if expiry:
            shown += _expires(expiry)
        return RenderedResponse(200, shown, body)

    def not_modified(self, cas: int) -> Response:
        """Return the answer to a reader that has this version."""
        return RenderedResponse(304, self._unmodified % cas)

    def changed(self, result: OperationResult, request: Request, body: bytes) -> Response:
        """Return the answer to a mutation of an existing document, with JSON in its body."""
        token = result._token
        bucket = request.parameters["bucket"]
        if token is None:
            headers = [(b"Content-Type", JSON), *self.mutation_headers(result, bucket)]
            return Response(200, headers, body)
        vbucket, packed = token
        block = self._mutation_with_json % (result._cas, bucket, vbucket, *unpack_token(packed))
        return RenderedResponse(200, block, body)

    def counted(self, result: ValueResult, request: Request) -> Response | Refusal:
        """Return the new number of a counter, as JSON."""
        if result.rc:
            return refusal_of(result, request)
        return self.changed(result, request, b"%d" % result.value)

    def read(self, result: OperationResult, request: Request, body: bytes) -> Response:
        """Return the answer to a read of parts, with JSON in its body."""
        if not result.cas:
            return Response(200, [(b"Content-Type", JSON)], body)
        return RenderedResponse(200, self._version_with_json % result.cas, body)

    def touched(self, result: OperationResult, request: Request) -> Response | Refusal:
        """Return an answer that has only the version, if there is one."""
        if result.rc:
            return refusal_of(result, request)
        return RenderedResponse(204, self._version % result.cas if result.cas else b"")

    def unlocked(self, result: OperationResult, request: Request) -> Response | Refusal:
        """Return the answer to a mutation, without an ETag."""
        if result.rc:
            return refusal_of(result, request)
        bucket = request.parameters["bucket"]
        # As in the Data API: an unlock is not a mutation, and its token consists of zeros.
        token = result.mutation_token or _NO_TOKEN
        return RenderedResponse(200, b"X-CB-MutationToken: %b:%d:%08x:%d\r\n" % (bucket, *token))

    def created(self, result: OperationResult, request: Request) -> Response | Refusal:
        """Return the answer to a mutation with the condition that the document does not exist."""
        if isinstance(result, Refused) and result.kind.status == Status.KEY_EEXISTS:
            return EXCLUDED
        return self.stored(result, request)

    def stored(self, result: OperationResult, request: Request) -> Response | Refusal:
        """Return the answer to a mutation, which the node may have refused."""
        if result._rc:
            return refusal_of(result, request)
        token = result._token
        bucket = request.parameters["bucket"]
        if token is None:
            return Response(200, self.mutation_headers(result, bucket))
        vbucket, packed = token
        block = self._mutation % (result._cas, bucket, vbucket, *unpack_token(packed))
        return RenderedResponse(200, block)
