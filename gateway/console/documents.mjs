// The documents of a collection: browse and search their keys.

import { lines, send } from "./api.mjs";
import { h, show } from "./dom.mjs";
import { bytes, fromNow, instant, many } from "./format.mjs";
import { firstString, memberMap, stringOf } from "./json.mjs";
import { byteLength, fromBase64, link } from "./keys.mjs";
import { asText, Collection } from "./store.mjs";
import { tabs } from "./tabs.mjs";
import { button, buttonLink, checkBox, empty, field, form, name, notice, problem, requestBar, table } from "./ui.mjs";

const PAGE_ROWS = 100;
const PAGE_DOCUMENTS = 25;
const PREVIEW_CHARACTERS = 160;
const LARGE_CHARACTERS = 300_000;

export async function showDocuments({ bucket, scope, collection, query, open, signal, note, go }) {
  const here = new Collection({ bucket, scope, collection });
  const crumbs = [["Buckets", "#/"], [bucket, link("buckets", bucket)]];
  const place = open({
    title: here.isDefault ? `Documents of ${bucket}` : `Documents of ${here.title}`,
    heading: here.isDefault ? "Documents" : `${scope}.${collection}`,
    crumbs,
    tabs: tabs(bucket, "Documents", ["scopes", scope, "collections", collection]),
    actions: buttonLink("New document", link(...here.names, "new"), "primary"),
  });

  const prefix = h("input", { type: "search", spellcheck: "false", autocomplete: "off", autocapitalize: "none", value: query.get("prefix") ?? "" });
  const start = h("input", { spellcheck: "false", autocomplete: "off", autocapitalize: "none", value: query.get("start") ?? "" });
  const end = h("input", { spellcheck: "false", autocomplete: "off", autocapitalize: "none", value: query.get("end") ?? "" });
  const { box: previews, element: previewsElement } = checkBox("Show contents", query.get("contents") === "1", () => search());
  const key = h("input", { spellcheck: "false", autocomplete: "off", autocapitalize: "none", required: true });
  const results = h("div", { id: "results" });

  function search() {
    const wanted = new URLSearchParams();
    for (const [its, box] of [["prefix", prefix], ["start", start], ["end", end]]) if (box.value !== "") wanted.set(its, box.value);
    if (previews.checked) wanted.set("contents", "1");
    note(wanted);
    list();
  }

  show(
    place,
    h(
      "div.filters",
      form(search, { class: "row", role: "search" },
        field("Keys that begin with", prefix),
        h("details.range", { open: start.value !== "" || end.value !== "" },
          h("summary", "Range"),
          h("div.row", field("From", start), field("To", end)),
        ),
        h("button.primary", { type: "submit" }, "Search"),
        previewsElement,
      ),
      form(() => go(here.link(key.value)), { class: "row" }, field("Open a key", key), h("button", { type: "submit" }, "Open")),
    ),
    results,
  );

  let asking = new AbortController();
  signal.addEventListener("abort", () => asking.abort());

  async function list() {
    asking.abort();
    asking = new AbortController();
    const own = asking.signal;
    const isDetailed = previews.checked;
    const columns = isDetailed ? [["Key"], ["Size", "number"], ["Expires"], ["Content"]] : [["Key"]];
    const { element, body } = table("Documents", columns, []);
    const more = h("div.more");
    const state = h("p.quiet", { role: "status" }, "Loading …");
    let found = 0;
    let cursor = null;

    async function load() {
      more.replaceChildren();
      const asked = here.listing({
        prefix: prefix.value,
        start: start.value,
        end: end.value,
        limit: isDetailed ? PAGE_DOCUMENTS : PAGE_ROWS,
        include_docs: isDetailed ? "true" : null,
        cursor,
      });
      cursor = null;
      try {
        for await (const line of lines(await send(asked, own))) {
          // Only the key of a large document is read.
          const row = line.length > LARGE_CHARACTERS ? new Map([firstString(line)]) : memberMap(line);
          if (line.length > LARGE_CHARACTERS) row.set("length", line.length);
          if (row.has("cursor")) {
            cursor = stringOf(row.get("cursor"));
          } else if (row.has("error")) {
            throw Object.assign(new Error(), JSON.parse(row.get("error")));
          } else {
            body.append(isDetailed ? detailed(here, row) : brief(here, row));
            found += 1;
          }
        }
      } catch (error) {
        if (own.aborted) return;
        if (error.isAboutCredentials) throw error;
        show(more, problem(error, "The list cannot be read"));
        return;
      }
      if (found === 0) {
        const isFiltered = prefix.value || start.value || end.value;
        show(results, isFiltered
          ? empty("No key matches.", h("p", "Keys are compared byte by byte: capitals matter."))
          : empty("This collection has no documents.", h("p", buttonLink("Create the first one", link(...here.names, "new")))), requestBar(asked));
        return;
      }
      show(state, cursor === null ? `${many(found, "document")}, all that match` : `${many(found, "document")} so far`);
      show(more, cursor !== null && button("Load more", load), requestBar(asked));
    }

    show(results, state, element, more);
    await load();
  }

  await list();
}

function keyOf(row) {
  const id = stringOf(row.get("id"));
  return id === null ? { base64: stringOf(row.get("id_base64")) } : id;
}

function keyCell(here, key) {
  const text = typeof key === "string" ? name(key) : h("span", h("code", key.base64), h("span.quiet", " (base64 of bytes that are not UTF-8)"));
  return h("th.key", { scope: "row" }, h("a", { href: here.link(key) }, text));
}

function brief(here, row) {
  return h("tr", keyCell(here, keyOf(row)));
}

function detailed(here, row) {
  const cells = [keyCell(here, keyOf(row))];
  if (row.has("length")) return h("tr", cells, h("td.number", `about ${bytes(row.get("length"))}`), h("td"), h("td.quiet", "too large to be shown here"));
  const doc = row.get("doc");
  if (doc === undefined || doc === "null") {
    return h("tr", cells, h("td"), h("td"), h("td.quiet", "gone meanwhile"));
  }
  const parts = memberMap(doc);
  const meta = memberMap(parts.get("meta") ?? "{}");
  const expiry = Number(meta.get("expiry") ?? 0) * 1000;
  let size;
  let content;
  if (parts.has("json")) {
    content = h("code.preview", cut(parts.get("json")));
    size = byteLength(parts.get("json"));
  } else {
    const held = fromBase64(stringOf(parts.get("base64") ?? '""'));
    size = held.length;
    const text = asText(held);
    content = text === null ? h("span.quiet", "not text") : h("span.preview", cut(text));
  }
  return h(
    "tr",
    cells,
    h("td.number", bytes(size)),
    h("td", expiry ? h("time", { datetime: new Date(expiry).toISOString(), title: instant(expiry) }, fromNow(expiry, Date.now())) : h("span.quiet", "never")),
    h("td", content),
  );
}

function cut(text) {
  return text.length > PREVIEW_CHARACTERS ? text.slice(0, PREVIEW_CHARACTERS) + " …" : text;
}
