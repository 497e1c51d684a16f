"""Sell concert tickets over HTTP with httpx.

python tickets.py [URL of a bucket]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx

ATTEMPTS = 6
"""How often a request is sent, and how often a change is tried."""


class GatewayError(Exception):
    """An answer with a status of 400 or more; programs decide by ``code`` and ``retry``."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(f"{problem['code']}: {problem['message']}")
        self.code: str = problem["code"]
        self.retry: str = problem["retry"]


class Bucket:
    """A bucket behind one client, which keeps its connections open."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=httpx.Timeout(10, connect=2))

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request; repeat it after a pause if the gateway says that nothing was changed."""
        for attempt in range(ATTEMPTS):
            response = self.client.request(method, path, **options)
            if response.is_success:
                return response
            error = GatewayError(response.json())
            if error.retry != "safe":
                break
            time.sleep(0.1 * 2**attempt)
        raise error

    def read(self, key: str) -> tuple[Any, str]:
        """Return a document and its version."""
        response = self.send("GET", document(key))
        return response.json(), response.headers["ETag"]

    def write(self, key: str, value: Any, etag: str | None = None) -> None:
        """Store a document; with ``etag`` only if it still has this version."""
        headers = {} if etag is None else {"If-Match": etag}
        self.send("PUT", document(key), json=value, headers=headers)

    def update(self, key: str, change: Callable[[Any], None]) -> Any:
        """Change a document without overwriting the changes of others; return what was stored."""
        for _ in range(ATTEMPTS):
            value, etag = self.read(key)
            change(value)
            try:
                self.write(key, value, etag)
            except GatewayError as error:
                if error.code != "CasMismatch":
                    raise
                print(f"{key}: {error.code}, reading it again")
            else:
                return value
        raise TimeoutError(f"{key} is changed too often")

    def batch(self, operations: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Run operations in one request; yield the result of each as it arrives."""
        body = "".join(json.dumps(operation) + "\n" for operation in operations)
        yield from self.lines(
            "POST", "/batch", content=body, headers={"Content-Type": "application/x-ndjson"}
        )

    def rows(self, design: str, view: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Query a view; yield its rows as they arrive. Parameters are JSON."""
        query = {name: json.dumps(value) for name, value in parameters.items()}
        path = f"/views/{design}/{view}"
        for row in self.lines("GET", path, params=query, headers={"Accept": "application/x-ndjson"}):
            if "error" in row:  # a failure after the first row
                raise GatewayError(row["error"])
            yield row

    def lines(self, method: str, path: str, **options: Any) -> Iterator[dict[str, Any]]:
        """Send a request; yield the lines of the answer."""
        with self.client.stream(method, path, **options) as response:
            if response.is_error:
                response.read()
                raise GatewayError(response.json())
            for line in response.iter_lines():
                yield json.loads(line)


def document(key: str) -> str:
    """Return the path of a document; a slash in its key is percent-encoded, too."""
    return f"/documents/{quote(key, safe='')}"


def main(url: str) -> None:
    """Print one line for each step."""
    bucket = Bucket(url)

    bucket.write("concert/berlin", {"type": "concert", "city": "Berlin", "seats": 5})
    concert, _ = bucket.read("concert/berlin")
    print(f"{concert['city']}: {concert['seats']} seats")

    def sell(concert: Any) -> None:
        concert["seats"] -= 1

    def sell_late(concert: Any) -> None:
        if concert["seats"] == 5:  # another customer buys between our read and our write
            bucket.update("concert/berlin", sell)
        sell(concert)

    concert = bucket.update("concert/berlin", sell_late)
    print(f"{concert['city']}: {concert['seats']} seats")

    try:
        bucket.read("concert/nowhere")
    except GatewayError as error:
        print(f"concert/nowhere: {error.code}, retry {error.retry}")

    bucket.write("note", {"text": "sold out soon"})
    bucket.send("POST", document("note") + "/lock", json={"lockTime": 1})
    bucket.write("note", {"text": "sold out"})  # DocumentLocked, retry "safe", until the lock expires
    print("note: stored after the lock expired")

    operations = [
        {"op": "set", "key": "concert/lisbon", "value": {"type": "concert", "city": "Lisbon", "seats": 8}},
        {"op": "set", "key": "concert/malmö", "value": {"type": "concert", "city": "Malmö", "seats": 7}},
        {"op": "add", "key": "concert/lisbon", "value": {}},
    ]
    for result in bucket.batch(operations):
        problem = result.get("error", {}).get("code", "")
        print(f"batch: {result['key']} {result['status']} {problem}".rstrip())

    map_function = "function (doc, meta) { if (doc.type == 'concert') emit(doc.city, doc.seats); }"
    bucket.send("PUT", "/designs/concerts", json={"views": {"by_city": {"map": map_function}}})
    for row in bucket.rows("concerts", "by_city", startkey="B", stale=False):
        print(f"view: {row['key']} {row['value']}")

    for _ in range(2):
        count = bucket.send("POST", document("visitors") + "/increment", json={"initial": 1}).json()
        print(f"visitors: {count}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/v1/buckets/default")
