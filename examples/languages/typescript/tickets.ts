// Sell concert tickets over HTTP, with types made from the gateway's OpenAPI document (Node.js 20 or later).
//
//     node built/tickets.js [URL of a gateway]

import { setTimeout as pause } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./gateway.js"; // npm run types makes it

const ATTEMPTS = 6; // how often a request is sent, and how often a change is tried
const BUCKET = "default";
const DOCUMENT = "/v1/buckets/{bucket}/documents/{key}"; // the client percent-encodes a key, also its slashes

type Problem = components["schemas"]["Error"];
type Answer<T> = { data?: T; error?: Problem; response: Response };
type Concert = { type: "concert"; city: string; seats: number };

const client = createClient<paths>({
  baseUrl: process.argv[2] ?? "http://127.0.0.1:8080",
  fetch: (request) => fetch(request, { signal: AbortSignal.timeout(10_000) }),
});

/** An answer with a status of 400 or more; programs decide by `code` and `retry`. */
class GatewayError extends Error {
  readonly code: Problem["code"];
  readonly retry: Problem["retry"];

  constructor(problem: Pick<Problem, "code" | "message" | "retry">) {
    super(`${problem.code}: ${problem.message}`);
    this.code = problem.code;
    this.retry = problem.retry;
  }
}

/** Send a request; repeat it after a pause if the gateway says that nothing was changed. */
async function send<A extends Answer<unknown>>(request: () => Promise<A>): Promise<A> {
  for (let attempt = 0; ; attempt++) {
    const answer = await request();
    if (answer.error === undefined) return answer;
    if (answer.error.retry !== "safe" || attempt + 1 === ATTEMPTS) throw new GatewayError(answer.error);
    await pause(100 * 2 ** attempt);
  }
}

/** Return a document and its version. */
async function read<T>(key: string): Promise<{ value: T; etag: string }> {
  const { data, response } = await send(() => client.GET(DOCUMENT, { params: { path: { bucket: BUCKET, key } } }));
  return { value: data as T, etag: response.headers.get("ETag") ?? "" };
}

/** Store a document; with `etag` only if it still has this version. */
async function write(key: string, value: Record<string, unknown>, etag?: string): Promise<void> {
  const header = etag === undefined ? {} : { "If-Match": etag };
  await send(() => client.PUT(DOCUMENT, { params: { path: { bucket: BUCKET, key }, header }, body: value }));
}

/** Change a document without overwriting the changes of others; return what was stored. */
async function update<T extends Record<string, unknown>>(
  key: string,
  change: (value: T) => void | Promise<void>,
): Promise<T> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const { value, etag } = await read<T>(key);
    await change(value);
    try {
      await write(key, value, etag);
      return value;
    } catch (error) {
      if (!(error instanceof GatewayError) || error.code !== "CasMismatch") throw error;
      console.log(`${key}: ${error.code}, reading it again`);
    }
  }
  throw new Error(`${key} is changed too often`);
}

/** Yield the lines of an answer as they arrive, each parsed. */
async function* lines<T>(body: ReadableStream<Uint8Array>): AsyncGenerator<T> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of body) {
    const complete = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = complete.pop() ?? "";
    for (const line of complete) yield JSON.parse(line) as T;
  }
}

await write("concert/berlin", { type: "concert", city: "Berlin", seats: 5 } satisfies Concert);
const { value: concert } = await read<Concert>("concert/berlin");
console.log(`${concert.city}: ${concert.seats} seats`);

const sell = (seen: Concert): void => { seen.seats -= 1; };
const sold = await update<Concert>("concert/berlin", async (seen) => {
  // Another customer buys between our read and our write.
  if (seen.seats === 5) await update("concert/berlin", sell);
  sell(seen);
});
console.log(`${sold.city}: ${sold.seats} seats`);

try {
  await read("concert/nowhere");
} catch (error) {
  if (!(error instanceof GatewayError)) throw error;
  console.log(`concert/nowhere: ${error.code}, retry ${error.retry}`);
}

await write("note", { text: "sold out soon" });
await send(() => client.POST(`${DOCUMENT}/lock`, { params: { path: { bucket: BUCKET, key: "note" } }, body: { lockTime: 1 } }));
await write("note", { text: "sold out" }); // DocumentLocked, retry "safe", until the lock expires
console.log("note: stored after the lock expired");

type Operation = components["schemas"]["BatchOperation"];
type Result = components["schemas"]["BatchResult"];
const operations: Operation[] = [
  { op: "set", key: "concert/lisbon", value: { type: "concert", city: "Lisbon", seats: 8 } },
  { op: "set", key: "concert/malmö", value: { type: "concert", city: "Malmö", seats: 7 } },
  { op: "add", key: "concert/lisbon", value: {} },
];
const batch = await send(() => client.POST("/v1/buckets/{bucket}/batch", {
  params: { path: { bucket: BUCKET } },
  headers: { Accept: "application/x-ndjson" },
  body: operations,
  parseAs: "stream",
}));
for await (const { key, status, error } of lines<Result>(batch.data!)) {
  console.log(["batch:", key, status, ...(error ? [error.code] : [])].join(" "));
}

const map = "function (doc, meta) { if (doc.type == 'concert') emit(doc.city, doc.seats); }";
await send(() => client.PUT("/v1/buckets/{bucket}/designs/{design}", {
  params: { path: { bucket: BUCKET, design: "concerts" } },
  body: { views: { by_city: { map } } },
}));
type Row = components["schemas"]["ViewRow"] & { error?: Pick<Problem, "code" | "message" | "retry"> };
const rows = await send(() => client.GET("/v1/buckets/{bucket}/views/{design}/{view}", {
  params: {
    path: { bucket: BUCKET, design: "concerts", view: "by_city" },
    query: { startkey: JSON.stringify("B"), stale: "false" }, // keys are JSON
  },
  headers: { Accept: "application/x-ndjson" },
  parseAs: "stream",
}));
for await (const row of lines<Row>(rows.data!)) {
  if (row.error) throw new GatewayError(row.error); // a failure after the first row
  console.log(`view: ${row.key} ${row.value}`);
}

for (let visit = 0; visit < 2; visit++) {
  const count = await send(() => client.POST(`${DOCUMENT}/increment`, {
    params: { path: { bucket: BUCKET, key: "visitors" } },
    body: { initial: 1 },
  }));
  console.log(`visitors: ${count.data}`);
}
