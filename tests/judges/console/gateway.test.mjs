// Requests, commands and documents, with stand-ins for what only browsers have.

import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.document = { baseURI: "http://127.0.0.1:8080/" };
globalThis.sessionStorage = { getItem: () => null, setItem: () => {}, removeItem: () => {} };

const { authorization, curl, quoted, request } = await import("../../../gateway/console/api.mjs");
const { collectionSizes } = await import("../../../gateway/console/bucket.mjs");
const { lineEnds, withEnds, dump } = await import("../../../gateway/console/content.mjs");
const { readViews, writeViews } = await import("../../../gateway/console/designs.mjs");
const { ceiling, linePath } = await import("../../../gateway/console/charts.mjs");
const { Collection, FLAGS, asText } = await import("../../../gateway/console/store.mjs");
const { bodyOf, errorIn, metaIn } = await import("../../../gateway/console/query.mjs");

test("words of a shell", () => {
  assert.equal(quoted("http://a/b"), "http://a/b");
  assert.equal(quoted("a b"), "'a b'");
  assert.equal(quoted("it's $HOME"), "'it'\\''s $HOME'");
  assert.equal(quoted(""), "''");
});

test("commands have no secrets", () => {
  const asked = request("PUT", "v1/x", { query: { a: "1", b: "", c: null }, headers: { "If-Match": "00" }, body: "it's" });
  assert.equal(curl(asked, { kind: "none" }), "curl -sS -X PUT -H 'If-Match: 00' --data-raw 'it'\\''s' 'http://127.0.0.1:8080/v1/x?a=1'");
  const secret = "top secret";
  assert.ok(!curl(asked, { kind: "basic", user: "me", password: secret }).includes(secret));
  assert.match(curl(asked, { kind: "basic", user: "me", password: secret }), /-u me /);
  assert.ok(!curl(asked, { kind: "bearer", token: secret }).includes(secret));
  assert.match(curl(request("PUT", "v1/x", { body: "y".repeat(5000), bodyName: "document" }), { kind: "none" }), /--data-binary @document /);
  assert.equal(authorization({ kind: "basic", user: "é", password: "p:q" }), "Basic " + Buffer.from("é:p:q").toString("base64"));
  assert.equal(authorization({ kind: "bearer", token: "t" }), "Bearer t");
  assert.equal(authorization({ kind: "browser" }), null);
});

test("documents have a path, or a line of a batch", () => {
  const here = new Collection({ bucket: "b" });
  const there = new Collection({ bucket: "b", scope: "s", collection: "c" });
  assert.equal(String(here.reading("a/b").url), "http://127.0.0.1:8080/v1/buckets/b/documents/a%2Fb");
  assert.equal(String(there.reading("k").url), "http://127.0.0.1:8080/v1/buckets/b/scopes/s/collections/c/documents/k");
  assert.equal(here.reading("..").body, '{"op":"get","key":".."}\n');
  assert.equal(there.reading({ base64: "/w==" }).body, '{"op":"get","key_base64":"/w=="}\n');
  const written = here.writing("k", { body: "1", cas: "0a", flags: FLAGS.json });
  assert.deepEqual([written.method, written.headers], ["PUT", { "Content-Type": "application/json", "If-Match": "0a" }]);
  const made = here.writing("k", { body: "1", cas: null, flags: 7, expires: "1h" });
  assert.deepEqual([made.method, made.headers], ["POST", { "Content-Type": "application/octet-stream", "X-CB-Flags": "7", Expires: "1h" }]);
  assert.equal(here.writing(".", { body: "1", cas: "0a", flags: 7 }).body, '{"op":"set","key":".","flags":7,"base64":"MQ==","cas":"0a"}\n');
  assert.equal(here.writing(".", { body: "1", cas: null, flags: 7 }).body, '{"op":"add","key":".","flags":7,"base64":"MQ=="}\n');
  assert.equal(here.removing("k", "0a").headers["If-Match"], "0a");
  assert.equal(here.link({ base64: "/w==" }), "#/buckets/b/scopes/_default/collections/_default/documents-base64/%2Fw%3D%3D");
});

test("text and bytes", () => {
  assert.equal(asText(Uint8Array.from([0xef, 0xbb, 0xbf, 0x61])), "\ufeffa");
  assert.equal(asText(Uint8Array.from([0xff])), null);
  assert.equal(asText(Uint8Array.from([0x61, 0xc3])), null);
  assert.equal(asText(Uint8Array.from([0x61, 0xc3]), true), "a");
  assert.equal(lineEnds("a\nb"), "\n");
  assert.equal(lineEnds("a\r\nb\r\n"), "\r\n");
  assert.equal(lineEnds("a\r\nb\n"), "mixed");
  assert.equal(lineEnds("a\rb"), "mixed");
  assert.equal(withEnds("a\nb", "\r\n"), "a\r\nb");
  assert.equal(dump(Uint8Array.from([0, 65, 255])), "00000000  00 41 ff" + " ".repeat(39) + "  .A.");
  assert.equal(dump(new Uint8Array(64), 2).split("\n").length, 2);
});

test("sizes of collections are sums over nodes", () => {
  const sizes = collectionSizes({ manifest_uid: { a: 1 }, "0x0:0x8:items": { a: 3, b: "4" }, "0x0:0x8:data_size": { a: 10, b: 20 }, "0x0:0x8:name": { a: "x" } });
  assert.deepEqual(sizes.get("0:8"), { items: 7, data_size: 30 });
});

test("design documents keep what the editor does not show", () => {
  const text = '{"language":"javascript","views":{"a":{"map":"m","reduce":"_count","extra":1.00},"b":{"map":"n"}},"options":{"n":12345678901234567890}}';
  const views = readViews(text);
  assert.deepEqual(views.map((view) => [view.name, view.map, view.reduce]), [["a", "m", "_count"], ["b", "n", ""]]);
  assert.equal(writeViews(text, views), text);
  views[1].reduce = "_sum";
  assert.match(writeViews(text, views), /"b":\{"map":"n","reduce":"_sum"\}/);
  assert.equal(writeViews("{}", [{ name: "__proto__", map: '"\n', reduce: "", rest: [] }]), '{"views":{"__proto__":{"map":"\\"\\n"}}}');
  assert.deepEqual(readViews("{}"), []);
});

test("scales of charts", () => {
  assert.deepEqual([0, -1, NaN, 0.3, 1, 1.1, 7, 101].map(ceiling), [1, 1, 1, 0.5, 1, 2, 10, 200]);
  const identity = (value) => value;
  assert.equal(linePath([1, NaN, 2, 3], identity, identity), "M0.0 1.0M2.0 2.0L3.0 3.0");
});

test("statements have their parameters as they are written", () => {
  assert.equal(bodyOf('SELECT "1"', "", false), '{"statement":"SELECT \\"1\\""}');
  assert.equal(bodyOf("S", "[1.00, {}]", true), '{"statement":"S","args":[1.00, {}],"read_only":true}');
  assert.equal(bodyOf("S", '{"a": 12345678901234567890, "$b": []}', false), '{"statement":"S","$a":12345678901234567890,"$b":[]}');
});

test("what the service says after the rows is no row", () => {
  assert.equal(metaIn('{"meta":{"requestID":"x","status":"success"}}').get("status"), '"success"');
  assert.equal(metaIn('{"meta":{"id":"a"}}'), null);
  assert.equal(metaIn('{"meta":{"status":"x"},"other":1}'), null);
  assert.equal(metaIn('{"a":1}'), null);
});

test("a row that looks like an error is a row", () => {
  assert.equal(errorIn('{"error":"text"}'), null);
  assert.equal(errorIn('{"error":{"code":"x"},"a":1}'), null);
  assert.deepEqual(errorIn('{"error":{"code":"x"}}'), { code: "x" });
  assert.equal(errorIn("5"), null);
});
