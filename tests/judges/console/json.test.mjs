// JSON as text.

import assert from "node:assert/strict";
import { test } from "node:test";
import { compact, elements, firstString, JsonError, memberMap, members, pretty, problemOf, stringOf, tokens } from "../../../gateway/console/json.mjs";

const EXACT = '{"big": 12345678901234567890, "e": 1.00E+2, "-": -0.0, "__proto__": {"a": 1}, "u": "\\u00e9\\/"}';

test("numbers, escapes and member order stay as they are written", () => {
  assert.equal(compact(EXACT), EXACT.replaceAll(": ", ":").replaceAll(", ", ","));
  assert.equal(compact(pretty(EXACT)), compact(EXACT));
  assert.equal(pretty('{"a":[1,{"b":[]}],"c":{}}'), '{\n  "a": [\n    1,\n    {\n      "b": []\n    }\n  ],\n  "c": {}\n}');
});

test("the grammar is that of JSON.parse", () => {
  const texts = [
    "", " ", "{", "}", "[", "]", "{}", "[]", "[[]", "[]]", "[,]", "[1,]", "[1,,2]", "{,}", '{"a"}', '{"a":}', '{"a":1,}', "{a:1}", "{'a':1}",
    '{"a":1 "b":2}', "[1 2]", "1 2", "01", "-01", "-", "+1", "1.", ".5", "1.5e", "1e+", "1e5", "0", "-0", "0x1", "NaN", "Infinity", "nul", "null", "nulls",
    "true", "True", "false", '"', '"a', '"\\"', '"\\x"', '"\\u12"', '"\\u12zz"', '"\\ud800"', '"\u0000"', '"\n"', '"\t"', '"\u007f"', '"\u2028"', "\ufeff1",
    "\u00a01", "[1]x", "/**/1", '[{"a":[{"b":[1,2,{"c":null}]}]}]', '{"a":{"b":{}}}', '{"":""}', "[\n1\r\n,\t2 ]", '{"a":1}}', "[}", "{]", '{"a":]', "[:]", '[1:2]', '{"a",1}',
    '{"a":1,"a":2}', "1e400", "-1E-400",
  ];
  for (const text of texts) {
    let isJson = true;
    try {
      JSON.parse(text);
    } catch {
      isJson = false;
    }
    assert.equal(problemOf(text) === null, isJson, JSON.stringify(text));
  }
});

test("every prefix of a text that is cut is invalid, and every text of JSON.stringify valid", () => {
  const text = JSON.stringify({ a: [1, "x\n\"", { b: null }], c: -1.5e-7, d: "é\u2028" });
  assert.equal(problemOf(text), null);
  for (let end = 0; end < text.length; end += 1) assert.ok(problemOf(text.slice(0, end)) instanceof JsonError, text.slice(0, end));
});

test("an error names its line and column", () => {
  const error = problemOf('{\n  "a": 1,\n  b: 2\n}');
  assert.deepEqual([error.line, error.column, error.offset], [3, 3, 14]);
  assert.match(error.message, /double quotes/);
  assert.deepEqual([problemOf("[1").line, problemOf("[1").column], [1, 3]);
  assert.match(problemOf("[1").message, /closing ] is missing/);
});

test("depth is bounded, and does not depend on the stack", () => {
  assert.equal(problemOf("[".repeat(1024) + "]".repeat(1024)), null);
  assert.match(problemOf("[".repeat(100_000)).message, /1024 levels/);
});

test("long texts are read in one go", () => {
  const long = JSON.stringify({ text: "y".repeat(5_000_000), list: Array(100_000).fill(1) });
  assert.equal(problemOf(long), null);
});

test("members and elements are slices of the text", () => {
  assert.deepEqual(members(EXACT).map(([name, value]) => `${name}=${value}`), [
    "big=12345678901234567890", "e=1.00E+2", "-=-0.0", '__proto__={"a": 1}', 'u="\\u00e9\\/"',
  ]);
  assert.equal(memberMap(EXACT).get("__proto__"), '{"a": 1}');
  assert.equal(memberMap('{"a":1,"a":[2, {}]}').get("a"), "[2, {}]");
  assert.deepEqual(elements(' [1.00, [2, 3] ,{"a":"]"}, "x" ] '), ["1.00", "[2, 3]", '{"a":"]"}', '"x"']);
  assert.deepEqual(elements("[]"), []);
  assert.deepEqual(members("{}"), []);
  assert.throws(() => members("[1]"), JsonError);
  assert.throws(() => elements('{"a":1}'), JsonError);
  assert.throws(() => members('{"a":1'), JsonError);
});

test("the first member of a long object", () => {
  assert.deepEqual(firstString('{"id":"a\\"b","doc":{'), ["id", '"a\\"b"']);
  assert.equal(firstString('{"id":1}'), null);
  assert.equal(firstString("[1]"), null);
  assert.equal(stringOf('"\\u00e9"'), "é");
  assert.equal(stringOf("1"), null);
  assert.equal(stringOf(undefined), null);
});

test("tokens know names from strings", () => {
  const kinds = [...tokens('{"a":"b","c":[1,true]}')].map(({ kind }) => kind).join(" ");
  assert.equal(kinds, "{ name : string , name : [ number , word ] }");
});
