// Sell concert tickets over HTTP with the fetch of Node.js (20 or later), which keeps its connections open.
//
//     node tickets.mjs [URL of a bucket]

import { setTimeout as pause } from "node:timers/promises";

const ATTEMPTS = 6; // how often a request is sent, and how often a change is tried
const bucket = process.argv[2] ?? "http://127.0.0.1:8080/v1/buckets/default";

/** An answer with a status of 400 or more; programs decide by `code` and `retry`. */
class GatewayError extends Error {
  constructor({ code, message, retry }) {
    super(`${code}: ${message}`);
    this.code = code;
    this.retry = retry;
  }
}

/** Send a request; repeat it after a pause if the gateway says that nothing was changed. */
async function send(method, path, { json, ...options } = {}) {
  const headers = { ...options.headers };
  if (json !== undefined) {
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(json);
  }
  for (let attempt = 0; ; attempt++) {
    const signal = AbortSignal.timeout(10_000);
    const response = await fetch(bucket + path, { ...options, method, headers, signal });
    if (response.ok) return response;
    const error = new GatewayError(await response.json());
    if (error.retry !== "safe" || attempt + 1 === ATTEMPTS) throw error;
    await pause(100 * 2 ** attempt);
  }
}

/** Return the path of a document; a slash in its key is percent-encoded, too. */
const document = (key) => `/documents/${encodeURIComponent(key)}`;

/** Return a document and its version. */
async function read(key) {
  const response = await send("GET", document(key));
  return { value: await response.json(), etag: response.headers.get("ETag") };
}

/** Store a document; with `etag` only if it still has this version. */
async function write(key, value, etag) {
  await send("PUT", document(key), { json: value, headers: etag ? { "If-Match": etag } : {} });
}

/** Change a document without overwriting the changes of others; return what was stored. */
async function update(key, change) {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const { value, etag } = await read(key);
    await change(value);
    try {
      await write(key, value, etag);
      return value;
    } catch (error) {
      if (error.code !== "CasMismatch") throw error;
      console.log(`${key}: ${error.code}, reading it again`);
    }
  }
  throw new Error(`${key} is changed too often`);
}

/** Yield the lines of an answer as they arrive, each parsed. */
async function* lines(response) {
  let rest = "";
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const complete = (rest + text).split("\n");
    rest = complete.pop();
    for (const line of complete) yield JSON.parse(line);
  }
}

/** Run operations in one request; yield the result of each. */
async function* batch(operations) {
  const body = operations.map((operation) => JSON.stringify(operation) + "\n").join("");
  yield* lines(await send("POST", "/batch", { body, headers: { "Content-Type": "application/x-ndjson" } }));
}

/** Query a view; yield its rows. Parameters are JSON. */
async function* rows(design, view, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) query.set(name, JSON.stringify(value));
  const path = `/views/${design}/${view}?${query}`;
  for await (const row of lines(await send("GET", path, { headers: { Accept: "application/x-ndjson" } }))) {
    if (row.error) throw new GatewayError(row.error); // a failure after the first row
    yield row;
  }
}

await write("concert/berlin", { type: "concert", city: "Berlin", seats: 5 });
const { value: concert } = await read("concert/berlin");
console.log(`${concert.city}: ${concert.seats} seats`);

const sell = (concert) => { concert.seats -= 1; };
const sold = await update("concert/berlin", async (concert) => {
  // Another customer buys between our read and our write.
  if (concert.seats === 5) await update("concert/berlin", sell);
  sell(concert);
});
console.log(`${sold.city}: ${sold.seats} seats`);

try {
  await read("concert/nowhere");
} catch (error) {
  if (!(error instanceof GatewayError)) throw error;
  console.log(`concert/nowhere: ${error.code}, retry ${error.retry}`);
}

await write("note", { text: "sold out soon" });
await send("POST", `${document("note")}/lock`, { json: { lockTime: 1 } });
await write("note", { text: "sold out" }); // DocumentLocked, retry "safe", until the lock expires
console.log("note: stored after the lock expired");

const operations = [
  { op: "set", key: "concert/lisbon", value: { type: "concert", city: "Lisbon", seats: 8 } },
  { op: "set", key: "concert/malmö", value: { type: "concert", city: "Malmö", seats: 7 } },
  { op: "add", key: "concert/lisbon", value: {} },
];
for await (const { key, status, error } of batch(operations)) {
  console.log(["batch:", key, status, ...(error ? [error.code] : [])].join(" "));
}

const map = "function (doc, meta) { if (doc.type == 'concert') emit(doc.city, doc.seats); }";
await send("PUT", "/designs/concerts", { json: { views: { by_city: { map } } } });
for await (const row of rows("concerts", "by_city", { startkey: "B", stale: false })) {
  console.log(`view: ${row.key} ${row.value}`);
}

for (let visit = 0; visit < 2; visit++) {
  const count = await (await send("POST", `${document("visitors")}/increment`, { json: { initial: 1 } })).json();
  console.log(`visitors: ${count}`);
}
