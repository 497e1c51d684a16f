// Statements for the cluster's query service.

import { lines, request, send } from "./api.mjs";
import { h, show } from "./dom.mjs";
import { editor } from "./editor.mjs";
import { many } from "./format.mjs";
import { JsonError, memberMap, members, problemOf, stringOf } from "./json.mjs";
import { link, path } from "./keys.mjs";
import { MOST_ROWS, runner, valueCell } from "./rows.mjs";
import { tabs } from "./tabs.mjs";
import { button, checkBox, empty, form, notice, problem, requestBar, table } from "./ui.mjs";

const MOST_COLUMNS = 12;

export async function showQuery({ bucket, query, open, signal, note }) {
  const place = open({ title: `Query ${bucket}`, heading: "Query", crumbs: [["Buckets", "#/"], [bucket, link("buckets", bucket)]], tabs: tabs(bucket, "Query") });
  const statement = editor({ label: "Statement", text: query.get("statement") ?? `SELECT META(d).id, d.* FROM \`${bucket}\` AS d LIMIT 10`, isJson: () => false, rows: 4 });
  const args = editor({ label: "Parameters, as JSON", text: query.get("args") ?? "", rows: 2 });
  const { box: readOnly, element: readOnlyElement } = checkBox("Read only", query.get("write") !== "1");
  const results = h("div");
  const stop = button("Stop", () => running.stop());
  stop.disabled = true;

  const running = runner(signal, async (own) => {
    const given = args.text.trim();
    const wrong = given === "" ? null : wrongIn(given);
    if (wrong) {
      show(results, problem(new Error(`Parameters: line ${wrong.line}, column ${wrong.column}: ${wrong.message}`), "This is not JSON"));
      args.goTo(wrong.offset);
      return;
    }
    const noted = new URLSearchParams({ statement: statement.text });
    if (given) noted.set("args", given);
    if (!readOnly.checked) noted.set("write", "1");
    note(noted);
    const asked = request("POST", path("v1", "buckets", bucket, "query"), {
      headers: { "Content-Type": "application/json", Accept: "application/x-ndjson" },
      body: bodyOf(statement.text, given, readOnly.checked),
    });
    const state = h("p.quiet", { role: "status" }, "Running …");
    const errors = h("div");
    const shown = h("div");
    let rows = null;
    let seen = 0;
    let meta = null;
    const began = performance.now();
    show(results, state, errors, shown, requestBar(asked));
    stop.disabled = false;
    try {
      for await (const line of lines(await send(asked, own))) {
        const error = errorIn(line);
        if (error !== null) {
          errors.append(problem(Object.assign(new Error(error.message ?? error.reason ?? "The query failed."), { code: error.code, retry: error.retry }), "The query failed"));
          continue;
        }
        const found = metaIn(line);
        if (found !== null) {
          meta = found;
          continue;
        }
        seen += 1;
        if (seen > MOST_ROWS) break;
        rows ??= rowTable(line, shown);
        rows(line);
      }
      errors.append(...reported(meta));
      if (seen === 0 && !errors.hasChildNodes()) show(shown, empty("No rows."));
      state.textContent = `${seen > MOST_ROWS ? `the first ${many(MOST_ROWS, "row")}` : many(seen, "row")}, ${Math.round(performance.now() - began)} ms${metricsOf(meta)}`;
    } catch (error) {
      state.textContent = own.aborted ? `Stopped after ${many(seen, "row")}.` : "";
      if (own.aborted) return;
      if (error.isAboutCredentials) throw error;
      errors.append(error.status === 501 || error.code === "RouteNotFound" ? absent(error) : problem(error, "The query failed"));
    } finally {
      stop.disabled = true;
    }
  });

  for (const one of [statement, args]) {
    one.element.addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
        event.preventDefault();
        running.start();
      }
    });
  }
  show(
    place,
    form(() => running.start(), { class: "panel" },
      h("span.label", "Statement"),
      statement.element,
      h("span.label", "Parameters: a JSON array for $1, $2; an object for $name"),
      args.element,
      h("div.actions", h("button.primary", { type: "submit" }, "Run"), stop, readOnlyElement),
    ),
    results,
  );
}

/** Return the body of a request for a statement; its parameters stay as they are written. */
export function bodyOf(statement, given, isReadOnly) {
  const parts = [`"statement":${JSON.stringify(statement)}`];
  if (given.startsWith("[")) parts.push(`"args":${given}`);
  if (given.startsWith("{")) {
    for (const [its, text] of members(given)) parts.push(`${JSON.stringify(its.startsWith("$") ? its : "$" + its)}:${text}`);
  }
  if (isReadOnly) parts.push('"read_only":true');
  return `{${parts.join(",")}}`;
}

function wrongIn(given) {
  const found = problemOf(given);
  return found ?? (/^[[{]/.test(given) ? null : new JsonError("expected an array or an object", given, 0));
}

/** Return the metadata that the service sends after the rows; null if a line is a row. */
export function metaIn(line) {
  if (!line.startsWith('{"meta":{')) return null;
  const held = memberMap(line);
  const found = held.size === 1 ? memberMap(held.get("meta")) : new Map();
  return found.has("requestID") || found.has("status") ? found : null;
}

function metricsOf(meta) {
  const metrics = meta?.has("metrics") ? memberMap(meta.get("metrics")) : new Map();
  const took = stringOf(metrics.get("executionTime"));
  return took === null ? "" : `; ${took} in the service`;
}

/** Return the errors and warnings of an answer that is complete. */
function reported(meta) {
  return ["errors", "warnings"].flatMap((kind) => (meta?.has(kind) ? JSON.parse(meta.get(kind)) : []).map((one) => (
    notice(kind === "errors" ? "bad" : "", h("p", h("code", String(one.code ?? kind)), " ", one.msg ?? one.message ?? JSON.stringify(one)))
  )));
}

/** A cluster without the service is not a failure. */
function absent(error) {
  return notice("", h("h2", "No query service here"), h("p", error.message), h("p.quiet", "Every cluster has views: see the Views tab."));
}

/** Return the error that a line reports; null for a row. */
export function errorIn(line) {
  if (!line.startsWith('{"error":')) return null;
  const held = memberMap(line);
  return held.size === 1 && held.get("error").startsWith("{") ? JSON.parse(held.get("error")) : null;
}

/** Make a table for rows like the first one; returns what adds a row. */
function rowTable(first, place) {
  const names = first.startsWith("{") ? [...memberMap(first).keys()] : [];
  if (names.length === 0 || names.length > MOST_COLUMNS) {
    const { element, body } = table("Rows", [["Row"]], []);
    place.append(element);
    return (line) => body.append(h("tr", h("td", valueCell(line))));
  }
  const { element, body } = table("Rows", names.map((one) => [one]), []);
  place.append(element);
  return (line) => {
    const held = line.startsWith("{") ? memberMap(line) : new Map();
    // A row of another shape takes a line of its own.
    if (held.size === 0 || [...held.keys()].some((one) => !names.includes(one))) {
      body.append(h("tr", h("td", { colspan: String(names.length) }, valueCell(line))));
    } else {
      body.append(h("tr", names.map((one) => h("td", held.has(one) ? valueCell(held.get(one)) : h("span.quiet", "–")))));
    }
  };
}
