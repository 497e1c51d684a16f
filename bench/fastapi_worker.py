"""FastAPI with uvicorn in a separate process, with or without the official client behind it.

    .venv-interop/bin/python -I bench/fastapi_worker.py [CONNECTION_STRING USER]

The password is the first line of its standard input. Prints ``{"address": ...}`` once it serves, and ends
when its standard input does. It stands for such a service at its fastest: uvloop and httptools, no access
log, no telemetry, raw bytes in and out where FastAPI would make and check JSON, one process. It imports
nothing of this checkout, whose ``couchbase`` would hide the official one.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

import uvicorn  # type: ignore[import-not-found]
import uvloop  # type: ignore[import-not-found]
from fastapi import FastAPI, Request, Response  # type: ignore[import-not-found]

BODY = b'{"text":"' + b"x" * (1024 - 11) + b'"}'
PATH = "/v1/buckets/{bucket}/documents/{key}"
QUIET: Any = {"tracing": False, "metrics": False, "logs": False}
KEEP_ALIVE_SECONDS = 600  # bench.connections leaves connections idle for longer than uvicorn's 5 seconds


def bare() -> FastAPI:
    """Return an application that does the least for the same requests."""
    app = FastAPI(telemetry=QUIET)

    @app.get(PATH)
    async def get(bucket: str, key: str) -> Response:
        return Response(BODY, media_type="application/json")

    @app.put(PATH)
    async def put(bucket: str, key: str, request: Request) -> Response:
        await request.body()
        return Response()

    return app


async def with_client(connection_string: str, user: str, password: str) -> FastAPI:
    """Return an application that stores and reads documents."""
    # The official packages of these names, not this project's.
    from acouchbase.cluster import AsyncCluster  # type: ignore[import-not-found]

    from couchbase.auth import PasswordAuthenticator  # type: ignore[import-not-found]
    from couchbase.exceptions import DocumentNotFoundException  # type: ignore[attr-defined]
    from couchbase.options import ClusterOptions  # type: ignore[import-not-found]
    from couchbase.transcoder import RawJSONTranscoder  # type: ignore[attr-defined]

    cluster = await AsyncCluster.connect(
        connection_string,
        ClusterOptions(PasswordAuthenticator(user, password), transcoder=RawJSONTranscoder()),
    )
    opened: dict[str, Any] = {}

    async def open_bucket(name: str) -> Any:
        bucket = cluster.bucket(name)
        await bucket.on_connect()
        opened[name] = bucket.default_collection()
        return opened[name]

    app = FastAPI(telemetry=QUIET)

    @app.get(PATH)
    async def get(bucket: str, key: str) -> Response:
        collection = opened.get(bucket) or await open_bucket(bucket)
        try:
            result = await collection.get(key)
        except DocumentNotFoundException:
            return Response(status_code=404)
        return Response(result.value, media_type="application/json")

    @app.put(PATH)
    async def put(bucket: str, key: str, request: Request) -> Response:
        collection = opened.get(bucket) or await open_bucket(bucket)
        await collection.upsert(key, await request.body())
        return Response()

    return app


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    pem = next((word[6:] for word in sys.argv[1:] if word.startswith("--pem=")), None)
    if sys.argv[1:] and pem is None:
        password = (await loop.run_in_executor(None, sys.stdin.readline)).rstrip("\n")
        connection_string, user = sys.argv[1:]
        app = await with_client(connection_string, user, password)
    else:
        app = bare()
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ssl_certfile=pem,
        ssl_keyfile=pem,
    )
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    scheme = "http" if pem is None else "https"
    print(json.dumps({"address": f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.should_exit = True
    server.force_exit = True
    await serving


if __name__ == "__main__":
    uvloop.run(serve())
