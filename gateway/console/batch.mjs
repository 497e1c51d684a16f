// Many operations in one request.

import { lines, request, send } from "./api.mjs";
import { h, show } from "./dom.mjs";
import { editor } from "./editor.mjs";
import { count, many } from "./format.mjs";
import { memberMap, problemOf, stringOf } from "./json.mjs";
import { link } from "./keys.mjs";
import { runner, valueCell } from "./rows.mjs";
import { Collection } from "./store.mjs";
import { tabs } from "./tabs.mjs";
import { button, form, name, problem, requestBar, table } from "./ui.mjs";

const EXAMPLES = {
  get: '{"op":"get","key":"a"}',
  set: '{"op":"set","key":"a","value":{"n":1}}',
  add: '{"op":"add","key":"b","value":"text","expires":"1h"}',
  incr: '{"op":"incr","key":"visits","delta":1,"initial":1}',
  lookup_in: '{"op":"lookup_in","key":"a","operations":[{"operation":"Get","path":"n"}]}',
  delete: '{"op":"delete","key":"a"}',
};
const MOST_SHOWN = 1000;

export async function showBatch({ bucket, scope, collection, open, signal, guard }) {
  const here = new Collection({ bucket, scope, collection });
  const place = open({
    title: `Batch in ${here.title}`,
    heading: "Batch",
    crumbs: [["Buckets", "#/"], [bucket, link("buckets", bucket)]],
    tabs: tabs(bucket, "Batch", ["scopes", scope, "collections", collection]),
  });
  const area = editor({ label: "Operations, one per line", text: "", changed: () => judge(), isJson: () => false, rows: 10 });
  const state = h("p.state", { role: "status" });
  const results = h("div");
  const run = h("button.primary", { type: "submit" }, "Run");
  const stop = button("Stop", () => running.stop());
  stop.disabled = true;
  guard(() => false);

  function judge() {
    const found = area.text.split("\n");
    const wrong = found.findIndex((line) => line.trim() !== "" && problemOf(line) !== null);
    const held = found.filter((line) => line.trim() !== "").length;
    state.classList.toggle("bad", wrong >= 0);
    state.textContent = wrong >= 0 ? `Line ${wrong + 1}: ${problemOf(found[wrong]).message}` : many(held, "operation");
    run.disabled = held === 0;
  }

  const running = runner(signal, async (own) => {
    const asked = request("POST", `${here.base}/batch`, {
      headers: { "Content-Type": "application/x-ndjson", Accept: "application/x-ndjson" },
      body: area.text,
      bodyName: "batch.jsonl",
    });
    const { element, body } = table("Answers", [["#", "number"], ["Key"], ["Status", "number"], ["Answer"]], []);
    const told = h("p.quiet", { role: "status" }, "Running …");
    const errors = h("div");
    let seen = 0;
    let failed = 0;
    show(results, told, errors, element, requestBar(asked));
    stop.disabled = false;
    try {
      for await (const line of lines(await send(asked, own))) {
        const answer = memberMap(line);
        seen += 1;
        if (Number(answer.get("status")) >= 400) failed += 1;
        if (seen <= MOST_SHOWN) body.append(answerRow(answer, here));
      }
      told.textContent = `${many(seen, "answer")}, ${count(failed)} failed${seen > MOST_SHOWN ? `; the first ${count(MOST_SHOWN)} are shown` : ""}`;
    } catch (error) {
      told.textContent = own.aborted ? `Stopped after ${many(seen, "answer")}; operations already sent may have been carried out.` : "";
      if (own.aborted) return;
      if (error.isAboutCredentials) throw error;
      errors.append(problem(error, "The batch failed"));
      if (seen === 0) element.remove();
    } finally {
      stop.disabled = true;
    }
  });

  show(
    place,
    form(() => running.start(), { class: "panel" },
      h("div.toolbar", h("span.quiet", "Add a line:"), Object.entries(EXAMPLES).map(([op, line]) => button(op, () => {
        const held = area.text;
        area.replace(held + (held === "" || held.endsWith("\n") ? "" : "\n") + line);
      })), state),
      area.element,
      h("div.actions", run, stop),
    ),
    results,
  );
  judge();
}

function answerRow(answer, here) {
  const status = Number(answer.get("status"));
  const key = stringOf(answer.get("key"));
  const base64 = stringOf(answer.get("key_base64"));
  const shown = key !== null ? h("a", { href: here.link(key) }, name(key)) : base64 !== null ? h("a", { href: here.link({ base64 }) }, h("code", base64)) : h("span.quiet", "–");
  let outcome;
  if (answer.has("error")) {
    const error = JSON.parse(answer.get("error"));
    outcome = h("span", h("code", error.code), " ", error.message);
  } else {
    const rest = [...answer].filter(([member]) => !["index", "key", "key_base64", "status"].includes(member));
    outcome = valueCell(`{${rest.map(([member, text]) => `${JSON.stringify(member)}:${text}`).join(",")}}`);
  }
  return h(status >= 400 ? "tr.failed" : "tr", h("td.number", answer.get("index")), h("td.key", shown), h("td.number", String(status)), h("td", outcome));
}
