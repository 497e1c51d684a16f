"""Uses a gateway by a package that openapi-python-client made of its OpenAPI document: generated.py URL.

It prints one line of JSON for each answer.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from couchgateway_client import Client
from couchgateway_client.api.batches import post_batch
from couchgateway_client.api.collections import list_documents, list_scopes
from couchgateway_client.api.counters import increment_document
from couchgateway_client.api.documents import get_document, put_document
from couchgateway_client.api.sub_documents import lookup_document
from couchgateway_client.models import (
    BatchGet,
    BatchSet,
    CounterBody,
    DurabilityLevel,
    Error,
    LookupBody,
)

KEY = "amber/ale \u00fc"


def show(name: str, answer: Any, value: Any) -> None:
    """Print a line."""
    print(json.dumps({"name": name, "status": int(answer.status_code), "value": value}))


def code_of(answer: Any) -> str | None:
    """Return the code of an error."""
    return answer.parsed.code if isinstance(answer.parsed, Error) else None


def main(url: str) -> None:
    """Do what the TypeScript client does."""
    client = Client(base_url=url)
    stored = put_document.sync_detailed("default", KEY, client=client, body={"name": "Amber Ale", "sold": 1})
    show("put", stored, code_of(stored))
    read = get_document.sync_detailed("default", KEY, client=client)
    show("get", read, json.loads(read.content))
    missing = get_document.sync_detailed("default", "nobody", client=client)
    show("missing", missing, code_of(missing))
    stale = put_document.sync_detailed(
        "default", KEY, client=client, body={}, if_match="1", x_cb_durability_level=DurabilityLevel.NONE
    )
    show("stale", stale, code_of(stale))
    counted = increment_document.sync_detailed(
        "default", "visits", client=client, body=CounterBody(initial=7)
    )
    show("count", counted, counted.parsed)
    wanted = {"operations": [{"operation": "Get", "path": "name"}, {"operation": "Exists", "path": "none"}]}
    parts = lookup_document.sync_detailed("default", KEY, client=client, body=LookupBody.from_dict(wanted))
    show("lookup", parts, [part.value for part in parts.parsed])
    lines = [
        BatchSet.from_dict({"op": "set", "key": "a", "value": {"n": 1}}),
        BatchGet.from_dict({"op": "get", "key": "nobody"}),
    ]
    batch = post_batch.sync_detailed("default", client=client, body=lines)
    show("batch", batch, [line.status for line in batch.parsed])
    scopes = list_scopes.sync_detailed("default", client=client)
    show("scopes", scopes, [scope.name for scope in scopes.parsed.scopes])
    rows = list_documents.sync_detailed("default", client=client, prefix="visits", limit=5)
    show("list", rows, [row.id for row in rows.parsed.rows])


main(sys.argv[1])
