// The rows of a view, by its parameters.

import { lines, request, send, text as answerText } from "./api.mjs";
import { readViews } from "./designs.mjs";
import { h, show } from "./dom.mjs";
import { many } from "./format.mjs";
import { memberMap, problemOf, stringOf } from "./json.mjs";
import { link, path } from "./keys.mjs";
import { MOST_ROWS, runner, valueCell } from "./rows.mjs";
import { Collection } from "./store.mjs";
import { button, checkBox, choice, empty, field, form, name, problem, requestBar, table } from "./ui.mjs";

const USUAL_LIMIT = "100";

export async function showView({ bucket, design, view, query, open, signal, note }) {
  const at = path("v1", "buckets", bucket, "designs", design);
  const its = readViews(await answerText(request("GET", at), signal)).find((one) => one.name === view);
  const hasReduce = Boolean(its?.reduce);
  const here = new Collection({ bucket });
  const place = open({
    title: `${view} of ${design}`,
    heading: view,
    crumbs: [["Buckets", "#/"], [bucket, link("buckets", bucket)], ["Views", link("buckets", bucket, "designs")], [design, link("buckets", bucket, "designs", design)]],
  });

  const text = (parameter, properties = {}) => h("input", { spellcheck: "false", autocomplete: "off", autocapitalize: "none", value: query.get(parameter) ?? "", ...properties });
  const which = choice(
    [["all", "all rows"], ["key", "one key"], ["keys", "some keys"], ["range", "a range of keys"]],
    query.has("key") ? "key" : query.has("keys") ? "keys" : query.has("startkey") || query.has("endkey") ? "range" : "all",
    { change: () => draw() },
  );
  const key = text("key");
  const keys = text("keys");
  const start = text("startkey");
  const end = text("endkey");
  const { box: inclusive, element: inclusiveElement } = checkBox("including the end", query.get("inclusive_end") !== "false");
  const { box: descending, element: descendingElement } = checkBox("Descending", query.get("descending") === "true");
  const { box: documents, element: documentsElement } = checkBox("With documents", query.get("include_docs") === "true");
  const limit = text("limit", { inputmode: "numeric", pattern: "[0-9]*", value: query.get("limit") ?? USUAL_LIMIT });
  const skip = text("skip", { inputmode: "numeric", pattern: "[0-9]*" });
  const level = text("group_level", { inputmode: "numeric", pattern: "[0-9]+", value: query.get("group_level") ?? "1" });
  const reduce = choice(
    [["false", "rows, not reduced"], ["all", "reduced to one row"], ["group", "one row for each key"], ["level", "one row for each group"]],
    !hasReduce || query.get("reduce") === "false" ? "false" : query.get("group") === "true" ? "group" : query.has("group_level") ? "level" : "all",
    { change: () => draw() },
  );
  const stale = choice([["", "the node's default"], ["false", "after an update of the index"], ["ok", "from the index as it is"], ["update_after", "as it is, then update"]], query.get("stale") ?? "");
  const condition = h("div.row");
  const grouping = h("div.row");
  const results = h("div");

  function draw() {
    show(condition, {
      all: () => [],
      key: () => field("Key, as JSON", key, 'strings in quotes: "a"'),
      keys: () => field("Keys, a JSON array", keys, '["a", "b"]'),
      range: () => [field("From, as JSON", start, 'strings in quotes: "a"'), field("To, as JSON", end), inclusiveElement],
    }[which.value]());
    show(grouping, hasReduce && field("Answer with", reduce), reduce.value === "level" && field("First elements of the key", level), !isReduced() && documentsElement);
  }

  const isReduced = () => hasReduce && reduce.value !== "false";

  function parameters() {
    const found = {};
    const json = [];
    const add = (parameter, box) => {
      if (box.value.trim() === "") return;
      found[parameter] = box.value.trim();
      json.push([parameter, box]);
    };
    if (which.value === "key") add("key", key);
    if (which.value === "keys") add("keys", keys);
    if (which.value === "range") {
      add("startkey", start);
      add("endkey", end);
      if (!inclusive.checked) found.inclusive_end = "false";
    }
    if (descending.checked) found.descending = "true";
    if (limit.value.trim()) found.limit = limit.value.trim();
    if (skip.value.trim()) found.skip = skip.value.trim();
    if (stale.value) found.stale = stale.value;
    if (hasReduce && reduce.value === "false") found.reduce = "false";
    if (isReduced() && reduce.value === "group") found.group = "true";
    if (isReduced() && reduce.value === "level") found.group_level = level.value.trim();
    if (!isReduced() && documents.checked) found.include_docs = "true";
    const wrong = json.find(([, box]) => problemOf(box.value) !== null);
    return { found, wrong };
  }

  const stop = button("Stop", () => running.stop());
  const run = h("button.primary", { type: "submit" }, "Run");
  const running = runner(signal, async (own) => {
    const { found, wrong } = parameters();
    if (wrong) {
      const error = problemOf(wrong[1].value);
      show(results, problem(new Error(`${wrong[0]}: column ${error.column}: ${error.message}. Strings need double quotes.`), "This is not JSON"));
      wrong[1].focus();
      return;
    }
    note(new URLSearchParams(found));
    const asked = request("GET", path("v1", "buckets", bucket, "views", design, view), { query: found, headers: { Accept: "application/x-ndjson" } });
    const columns = isReduced() ? [["Key"], ["Value"]] : [["Key"], ["Value"], ["Document"], ...(found.include_docs ? [["Content"]] : [])];
    const { element, body } = table("Rows", columns, []);
    const state = h("p.quiet", { role: "status" }, "Running …");
    const errors = h("div");
    let seen = 0;
    let total = null;
    const began = performance.now();
    show(results, state, errors, element, requestBar(asked));
    stop.disabled = false;
    try {
      const response = await send(asked, own);
      total = response.headers.get("X-CB-TotalRows");
      for await (const line of lines(response)) {
        const row = memberMap(line);
        if (row.has("error")) {
          const error = JSON.parse(row.get("error"));
          errors.append(problem(Object.assign(new Error(`${error.from ?? ""}: ${error.reason ?? error.message ?? "failed"}`), { code: error.code, retry: error.retry }), "Some rows are missing"));
        } else if (row.has("value")) {
          seen += 1;
          if (seen > MOST_ROWS) break;
          body.append(tableRow(row, here, isReduced(), found.include_docs));
        }
      }
      if (seen === 0) element.replaceWith(empty("No rows.", h("p", "The index has none that match.")));
      const parts = [seen > MOST_ROWS ? `the first ${many(MOST_ROWS, "row")}` : many(seen, "row"), total === null ? null : `of ${many(Number(total), "row")} in the index`, `${Math.round(performance.now() - began)} ms`];
      state.textContent = parts.filter(Boolean).join(", ");
    } catch (error) {
      if (own.aborted) {
        state.textContent = `Stopped after ${many(seen, "row")}.`;
      } else if (error.isAboutCredentials) {
        throw error;
      } else {
        state.textContent = "";
        errors.append(problem(error, seen ? "The rows end here" : "The view cannot be queried"));
        if (seen === 0) element.remove();
      }
    } finally {
      stop.disabled = true;
    }
  });

  stop.disabled = true;
  draw();
  show(
    place,
    form(() => running.start(), { class: "panel" },
      h("div.row.top", field("Show", which), condition, grouping),
      h("div.row", field("At most", limit, null, "small"), field("Skip", skip, null, "small"), field("Answer", stale), descendingElement),
      h("div.actions", run, stop),
    ),
    results,
  );
  await running.start();
}

function tableRow(row, here, isReduced, withDocuments) {
  const cells = [h("th", { scope: "row" }, valueCell(row.get("key"))), h("td", valueCell(row.get("value")))];
  if (!isReduced) {
    const id = stringOf(row.get("id"));
    cells.push(h("td.key", id === null ? null : h("a", { href: here.link(id) }, name(id))));
    if (withDocuments) {
      const doc = row.get("doc");
      const held = doc === undefined || doc === "null" ? null : memberMap(doc);
      cells.push(h("td", held === null ? h("span.quiet", "gone") : held.has("json") ? valueCell(held.get("json")) : h("span.quiet", "not JSON")));
    }
  }
  return h("tr", cells);
}
