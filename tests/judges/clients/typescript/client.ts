// Uses a gateway by the types of its OpenAPI document: node client.js URL. It prints one line of JSON for each answer;
// the compiler has checked the names, the bodies and the answers.

import createClient from "openapi-fetch";
import type { components, paths } from "./gateway.js";

const baseUrl = process.argv[2] as string;
const client = createClient<paths>({ baseUrl });

const D = "/v1/buckets/{bucket}/documents/{key}";
const path = { bucket: "default", key: "amber/ale ü" };

function show(name: string, status: number, value: unknown): void {
  console.log(JSON.stringify({ name, status, value: value ?? null }));
}

const put = await client.PUT(D, { params: { path }, body: { name: "Amber Ale", sold: 1 } });
show("put", put.response.status, put.error);

const read = await client.GET(D, { params: { path } });
show("get", read.response.status, read.data);

const missing = await client.GET(D, { params: { path: { bucket: "default", key: "nobody" } } });
const error: components["schemas"]["Error"] | undefined = missing.error;
show("missing", missing.response.status, error?.code);

const stale = await client.PUT(D, {
  params: { path, header: { "If-Match": "1", "X-CB-DurabilityLevel": "None" } },
  body: {},
});
show("stale", stale.response.status, stale.error?.code);

const counted = await client.POST(`${D}/increment`, {
  params: { path: { bucket: "default", key: "visits" } },
  body: { initial: 7 },
});
const number: number | undefined = counted.data;
show("count", counted.response.status, number);

const parts = await client.POST(`${D}/lookup`, {
  params: { path },
  body: { operations: [{ operation: "Get", path: "name" }, { operation: "Exists", path: "none" }] },
});
show("lookup", parts.response.status, parts.data?.map(part => part.value));

const batch = await client.POST("/v1/buckets/{bucket}/batch", {
  params: { path: { bucket: "default" } },
  body: [
    { op: "set", key: "a", value: { n: 1 } },
    { op: "get", key: "nobody" },
  ],
});
show("batch", batch.response.status, Array.isArray(batch.data) ? batch.data.map(line => line.status) : null);

const scopes = await client.GET("/v1/buckets/{bucket}/scopes", { params: { path: { bucket: "default" } } });
show("scopes", scopes.response.status, scopes.data?.scopes.map(scope => scope.name));

const rows = await client.GET("/v1/buckets/{bucket}/documents", {
  params: { path: { bucket: "default" }, query: { prefix: "visits", limit: 5 } },
});
show("list", rows.response.status, typeof rows.data === "object" ? rows.data.rows.map(row => row.id) : null);

// @ts-expect-error There is no such operation.
const wrong: paths["/v1/buckets/{bucket}/documents/{key}"]["patch"]["responses"] | undefined = undefined;
show("end", 0, wrong);
