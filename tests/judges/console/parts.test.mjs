// Numbers, differences, figures, designs, commands: everything that needs no page.

import assert from "node:assert/strict";
import { test } from "node:test";
import { compare, folded } from "../../../gateway/console/diff.mjs";
import { bytes, count, flags, fromNow, many, seconds, short } from "../../../gateway/console/format.mjs";
import { quantile, rates, readMetrics, sum, sumBy } from "../../../gateway/console/metrics.mjs";

test("sizes and numbers", () => {
  const sizes = { 0: "0 bytes", 1: "1 byte", 999: "999 bytes", 1000: "1 kB", 1500: "1.5 kB", 100_000: "100 kB", 103_000_000: "103 MB", 200_000_000: "200 MB", 20_971_520: "21 MB", 999_499: "999 kB", 999_600: "1 MB" };
  for (const [given, text] of Object.entries(sizes)) assert.equal(bytes(Number(given)), text);
  assert.equal(bytes(null), "–");
  assert.equal(count(1234567), "1,234,567");
  assert.equal(many(1, "row"), "1 row");
  assert.equal(many(0, "row"), "0 rows");
  assert.deepEqual([0, 0.5, 12.34, 100, 1000, 20000, 3e6, NaN].map(short), ["0", "0.5", "12.3", "100", "1000", "20 k", "3 M", "–"]);
  assert.deepEqual([0.0005, 0.25, 2].map(seconds), ["0.5 ms", "250 ms", "2 s"]);
  assert.equal(fromNow(90_000, 0), "in 2 minutes");
  assert.equal(fromNow(0, 3_600_000), "1 hour ago");
  assert.deepEqual([0x2000000, 0x4000000, 0x3000000, 0, 7].map(flags), ["JSON", "text", "binary", "none", "unknown to SDKs"]);
});

function check(left, right) {
  const rows = compare(left, right);
  assert.deepEqual(rows.map((row) => row.left).filter((line) => line !== null), left);
  assert.deepEqual(rows.map((row) => row.right).filter((line) => line !== null), right);
  for (const row of rows) assert.equal(row.isSame, row.left === row.right && row.left !== null);
  return rows.filter((row) => !row.isSame).length;
}

test("a comparison has every line of both sides, in order", () => {
  const lines = (text) => [...text];
  assert.equal(check([], []), 0);
  assert.equal(check(lines("abc"), lines("abc")), 0);
  assert.equal(check(lines("abc"), lines("axc")), 1);
  assert.equal(check(lines("abc"), []), 3);
  assert.equal(check(lines("abcabba"), lines("cbabac")) > 0, true);
  let seed = 7;
  const next = (most) => (seed = (seed * 48271) % 2147483647) % most;
  for (let round = 0; round < 400; round += 1) {
    const make = () => Array.from({ length: next(12) }, () => "abcd"[next(4)]);
    check(make(), make());
  }
});

test("an insertion marks its own lines only", () => {
  assert.equal(check([..."abcdefgh"], [..."abcXYdefgh"]), 2);
});

test("lines that are the same are folded up, except three around each difference", () => {
  const left = Array.from({ length: 30 }, (_, at) => String(at));
  const right = left.with(15, "x");
  const rows = folded(compare(left, right));
  assert.deepEqual(rows.map((row) => row.folded ?? row.left), [12, "12", "13", "14", "15", "16", "17", "18", 11]);
  assert.deepEqual(folded(compare(left, left)), [{ folded: 30 }]);
  assert.deepEqual(folded([]), []);
  assert.equal(folded(compare(left.slice(0, 9), left.slice(0, 9).with(4, "x"))).length, 9);
});

test("large texts that have nothing in common end soon", () => {
  const left = Array.from({ length: 20_000 }, (_, at) => `left ${at}`);
  const right = Array.from({ length: 20_000 }, (_, at) => `right ${at}`);
  check(left, right);
});

const TEXT = `# HELP a x
a_total{route="get \\"x\\"",status="200"} 3.0
a_total{route="put",status="500"} 4
up 1
h_bucket{le="0.1"} 5
h_bucket{le="+Inf"} 9
broken line
`;

test("Prometheus' text format", () => {
  const found = readMetrics(TEXT);
  assert.equal(sum(found, "a_total"), 7);
  assert.equal(found.get("a_total")[0].labels.route, 'get "x"');
  assert.equal(sum(found, "a_total", ({ status }) => status === "200"), 3);
  assert.equal(sum(found, "nothing"), 0);
  assert.deepEqual([...sumBy(found, "a_total", ({ status }) => status[0])], [["2", 3], ["5", 4]]);
  assert.equal(sum(found, "up"), 1);
});

test("rates and quantiles between two readings", () => {
  assert.deepEqual([...rates(new Map([["a", 10], ["b", 5]]), new Map([["a", 20], ["b", 1], ["c", 4]]), 2)], [["a", 5], ["b", 0.5], ["c", 2]]);
  const before = new Map([["0.1", 0], ["0.2", 0], ["+Inf", 0]]);
  assert.ok(Number.isNaN(quantile(0.5, before, before)));
  const after = new Map([["+Inf", 10], ["0.2", 10], ["0.1", 5]]);
  assert.equal(quantile(0.5, before, after), 0.1);
  assert.equal(quantile(1, before, after), 0.2);
  assert.equal(quantile(0.99, before, new Map([["0.1", 0], ["0.2", 0], ["+Inf", 3]])), 0.2);
});
