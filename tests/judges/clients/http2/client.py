"""httpx over HTTP/2: the conversation of tests.judges.test_http2; prints its results as JSON.

client.py URL [CERTIFICATE]
"""

from __future__ import annotations

import asyncio
import json
import sys

import httpx

JSON = {"Content-Type": "application/json"}
BUCKET = "/v1/buckets/default"


async def parts(size: int):  # type: ignore[no-untyped-def]
    """Yield a body in parts, without a length."""
    yield b'"'
    for _ in range(size // 10000):
        yield b"x" * 10000
    yield b'"'


async def main() -> None:
    """Talk to the gateway."""
    url, *certificate = sys.argv[1:]
    verify = certificate[0] if certificate else True
    found = {}
    async with httpx.AsyncClient(http1=False, http2=True, base_url=url, verify=verify, timeout=60) as client:
        stored = await client.put(f"{BUCKET}/documents/httpx", json={"a": 1})
        read = await client.get(f"{BUCKET}/documents/httpx")
        found["versions"] = [stored.http_version, read.http_version]
        found["stored"], found["read"] = stored.status_code, read.text
        many = await asyncio.gather(*[client.get(f"{BUCKET}/documents/httpx") for _ in range(80)])
        found["many"] = [answer.status_code for answer in many]
        large = await client.put(f"{BUCKET}/documents/large", content=parts(5000000), headers=JSON)
        found["large"] = [large.status_code, len((await client.get(f"{BUCKET}/documents/large")).content)]
        lines = b"".join(b'{"op":"set","key":"b%d","value":%d}\n' % (n, n) for n in range(5000))
        batch = await client.post(f"{BUCKET}/batch", content=lines)
        found["batch"] = batch.text.count('"status":200')
        found["missing"] = (await client.get(f"{BUCKET}/documents/missing")).json()["code"]
        refused = await client.put(f"{BUCKET}/documents/refused", content=parts(30000000), headers=JSON)
        found["refused"] = refused.status_code
        found["head"] = int((await client.head(f"{BUCKET}/documents/large")).headers["content-length"])
    print(json.dumps(found))


asyncio.run(main())
