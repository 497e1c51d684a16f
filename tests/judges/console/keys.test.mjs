// Names in addresses and on the screen.

import assert from "node:assert/strict";
import { test } from "node:test";
import { byteLength, fromBase64, isWellFormed, link, path, plain, readLink, segment, shown, toBase64 } from "../../../gateway/console/keys.mjs";

const HOSTILE = ["a/b", "100%", "%2F", "<script>", "__proto__", "constructor", "..", ".", "a?b#c", "a b", "é/你", "\u0000", "\n", "🍺", "'\"`", "x".repeat(250), "\u202e"];

test("every name comes back from an address of the console", () => {
  for (const name of HOSTILE) {
    const address = link("buckets", name, "documents", name);
    const found = readLink(address);
    assert.deepEqual(found.names, ["buckets", name, "documents", name]);
    assert.equal([...found.query].length, 0);
    assert.deepEqual(readLink(address + "?x=%2F&y=1").query.get("x"), "/");
  }
  assert.deepEqual(readLink("").names, []);
  assert.deepEqual(readLink("#/").names, []);
  assert.equal(readLink("#/%ff"), null);
  assert.equal(readLink("#/%"), null);
});

test("a segment of a path reaches the gateway as it is, or is refused", () => {
  for (const name of HOSTILE) {
    const encoded = segment(name);
    if (name === "." || name === "..") {
      assert.equal(encoded, null);
      assert.throws(() => path("v1", name), /Browsers cannot request/);
      continue;
    }
    const { pathname } = new URL(path("v1", "buckets", "b", "documents", name), "http://127.0.0.1:1/");
    const segments = pathname.split("/");
    assert.equal(segments.length, 6, name);
    assert.equal(decodeURIComponent(segments[5]), name);
  }
});

test("characters that cannot be seen are shown by their numbers", () => {
  assert.deepEqual(shown("abc"), [{ text: "abc", isHidden: false }]);
  assert.deepEqual(shown(""), []);
  assert.equal(plain("a\u202eb"), "a‹U+202E›b");
  assert.equal(plain("\u0000\t\n"), "‹U+0000›‹U+0009›‹U+000A›");
  assert.equal(plain(" a  b "), "‹U+0020›a  b‹U+0020›");
  assert.equal(plain("   "), "‹U+0020›‹U+0020›‹U+0020›");
  assert.equal(plain("\ud800x\udc00"), "‹U+D800›x‹U+DC00›");
  assert.equal(plain("🍺é你"), "🍺é你");
  assert.equal(plain("\u{e0041}"), "‹U+E0041›");
  for (const hidden of ["\u200b", "\u200d", "\ufeff", "\u00a0", "\u2066", "\u2028", "\u3164"]) assert.ok(shown(hidden)[0].isHidden, hidden.codePointAt(0).toString(16));
});

test("bytes", () => {
  assert.equal(byteLength("é你🍺"), 9);
  assert.ok(isWellFormed("🍺"));
  assert.ok(!isWellFormed("\ud83c"));
  const all = Uint8Array.from({ length: 100_000 }, (_, at) => at % 256);
  assert.deepEqual(fromBase64(toBase64(all)), all);
  assert.deepEqual(fromBase64(toBase64(new Uint8Array())), new Uint8Array());
});
