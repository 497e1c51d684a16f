// Node's http2 module: the conversation of tests.judges.test_http2; prints its results as JSON.
//
//     node client.js URL [CERTIFICATE]
"use strict";

const fs = require("fs");
const http2 = require("http2");

const BUCKET = "/v1/buckets/default";
const [url, certificate] = process.argv.slice(2);
const session = http2.connect(url, certificate ? { ca: fs.readFileSync(certificate) } : {});

function ask(method, path, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ":method": method, ":path": path, ...headers });
    const parts = [];
    let answer;
    stream.on("response", (head) => (answer = head));
    stream.on("data", (part) => parts.push(part));
    stream.on("error", reject);
    // A stream that is closed with an answer is answered, even if the body was not wanted.
    stream.on("close", () =>
      answer ? resolve({ status: answer[":status"], headers: answer, text: Buffer.concat(parts).toString() })
             : reject(new Error(`no answer to ${method} ${path}`)));
    stream.end(body);
  });
}

async function main() {
  const json = { "content-type": "application/json" };
  const found = {};
  found.stored = (await ask("PUT", `${BUCKET}/documents/node`, '{"a":1}', json)).status;
  found.read = (await ask("GET", `${BUCKET}/documents/node`)).text;
  found.versions = [session.alpnProtocol];
  const many = Array.from({ length: 80 }, () => ask("GET", `${BUCKET}/documents/node`));
  found.many = (await Promise.all(many)).map((answer) => answer.status);
  const large = await ask("PUT", `${BUCKET}/documents/large`, JSON.stringify("x".repeat(5000000)), json);
  found.large = [large.status, (await ask("GET", `${BUCKET}/documents/large`)).text.length];
  let lines = "";
  for (let n = 0; n < 5000; n++) lines += `{"op":"set","key":"b${n}","value":${n}}\n`;
  found.batch = (await ask("POST", `${BUCKET}/batch`, lines)).text.split('"status":200').length - 1;
  found.missing = JSON.parse((await ask("GET", `${BUCKET}/documents/missing`)).text).code;
  found.refused = (await ask("PUT", `${BUCKET}/documents/refused`, Buffer.alloc(30000000), json)).status;
  found.head = Number((await ask("HEAD", `${BUCKET}/documents/large`)).headers["content-length"]);
  console.log(JSON.stringify(found));
  session.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
