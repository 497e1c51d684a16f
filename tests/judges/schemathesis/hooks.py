"""What schemathesis has to know about the gateway that no schema can say; loaded by schemathesis itself."""

from __future__ import annotations

import re
from typing import Any

import schemathesis

BEYOND_SCHEMAS = [
    # One parameter excludes or needs another one.
    "both set the expiry",
    "X-CB-DurabilityLevel cannot be combined with",
    "durabilityLevel cannot be combined with",
    "needs include_docs=true",
    "Expires needs 'initial'",
    "cannot be given together with",
    "is given twice: in the query string and in the body",
    "include_docs cannot be combined with",
    "storeSemantic",
    "X-CB-DurabilityTimeout needs",
    "X-CB-DurabilityTimeout: .* without",
    # Sizes in bytes, ranges of durations, contents of strings.
    r"the document's key has \d+ bytes",
    r"has \d+ bytes; keys have at most",
    "is not a time limit",
    "expected a duration as in",
    "the expiry is after",
    # A number such as 2.0 is whole for JSON Schema; the gateway takes digits only, like the Data API.
    "expected a whole number from",
    "with a level it may be",
    "expected a JSON value|expected a JSON array|a JSON array of one or two",
    "this is not the cursor of a listing",
    "the parameters have .* bytes in percent-encoding",
    "project: ",
    "expiry: ",
    r"Expires: ",
    "the cluster has no statistics named",
    "the path and the query",
    # What an operation on a path takes depends on the operation; the syntax of paths is the cluster's.
    r"operations\[\d+\]",
    # A statement is one of two members; named parameters are further ones.
    "one of the members 'statement' and 'prepared'",
    "is not a member of a statement|a named parameter is",
    "X-CB-Timeout sets it, too|the path names the scope",
    "expected 1 to 64 characters|: it is empty",
    # What the bucket, the node or the view engine can do.
    "the bucket has no replicas|the bucket has \\d+ replicas",
    "the cluster refused|The request is malformed:",
    # A rule of the Data API: an empty body has no type.
    "the request has no body",
    "the body is not one Snappy block|the decompressed body has",
]
"""Words of refusals (400 InvalidArgument) of requests that keep to their schemas."""

_WAITED = re.compile("did not become visible in|durability .* not reached")
"""Words of a 504 after a wait that the request itself limited."""

_BEYOND = re.compile("|".join(BEYOND_SCHEMAS))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Leave the default collection to the other requests."""
    if case.method == "DELETE" and case.path_parameters.get("collection") == "_default":
        case.path_parameters["collection"] = "beers"


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Return whether a failure is one: not if the request was refused for a reason beyond its schema, or for
    the state of the document."""
    name = type(failure).__name__
    if response.status_code == 501 and "the embedded node has only documents and views" in response.text:
        return False
    if response.status_code == 504 and _WAITED.search(response.text):
        return False
    if name in ("ContentDeserializationError", "MalformedJson"):
        # A document has the type that its writer declared; the gateway does not check its bytes.
        return not case.path.endswith(("/{key}", "/touch", "/lock"))
    if name == "MissingHeaderNotRejected":
        # As in the Data API, what is malformed is refused before the caller is asked who it is.
        return response.status_code != 400
    if name == "AcceptedNegativeData":
        # Unknown headers are to be ignored (RFC 9110 5.1), and a line of a batch fails alone.
        is_of_line = case.path.endswith("/batch") and '"status":400' in response.text
        return not is_of_line and "in header - object with unexpected properties" not in failure.message
    if name == "RejectedPositiveData":
        answer = response.json()
        return answer["code"] == "InvalidArgument" and not _BEYOND.search(answer["message"])
    return True
