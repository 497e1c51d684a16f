// A bucket: its scopes and collections with their sizes; create and drop them.

import { request, send, value } from "./api.mjs";
import { h, show } from "./dom.mjs";
import { bytes, count } from "./format.mjs";
import { link, path } from "./keys.mjs";
import { announce, button, confirm, field, form, name, notice, problem, requestBar, table } from "./ui.mjs";
import { tabs } from "./tabs.mjs";

/** Return the sum of a statistic over the nodes, by collection id ("0x0:0x8") and statistic ("items"). */
export function collectionSizes(stats) {
  const sizes = new Map();
  for (const [key, nodes] of Object.entries(stats)) {
    const [scope, collection, what] = key.split(":");
    if (what !== "items" && what !== "data_size") continue;
    const id = `${scope.replace("0x", "")}:${collection.replace("0x", "")}`;
    const held = sizes.get(id) ?? {};
    held[what] = Object.values(nodes).reduce((sum, one) => sum + Number(one), 0);
    sizes.set(id, held);
  }
  return sizes;
}

export async function showBucket({ bucket, open, signal, refresh }) {
  const base = path("v1", "buckets", bucket);
  const asked = request("GET", `${base}/scopes`);
  const statistics = request("GET", `${base}/stats`, { query: { group: "collections" } });
  const { scopes } = await value(asked, signal);
  // Older servers have no such statistics.
  const { stats } = await value(statistics, signal).catch(() => ({ stats: {} }));
  const sizes = collectionSizes(stats);
  const place = open({ title: bucket, crumbs: [["Buckets", "#/"]], tabs: tabs(bucket, "Collections") });
  const again = () => (refresh(), showBucket({ bucket, open, signal, refresh }));

  async function change(described, done, button_) {
    if (button_) button_.disabled = true;
    try {
      await send(described, signal);
      announce(done);
      await again();
    } catch (error) {
      if (error.name !== "AbortError") place.prepend(problem(error));
      if (button_) button_.disabled = false;
    }
  }

  const drop = async (what, names, content) => {
    const isMeant = await confirm({
      title: `Drop the ${what} ${names.at(-1)}?`,
      content: [h("p", content), h("p", "This cannot be undone.")],
      action: `Drop the ${what}`,
    });
    if (isMeant) await change(request("DELETE", path("v1", "buckets", bucket, ...names)), `The ${what} is dropped.`);
  };

  const rows = scopes.flatMap((scope) => [
    ...scope.collections.map((collection, at) => {
      const size = sizes.get(`${scope.uid}:${collection.uid}`) ?? {};
      return h(
        "tr",
        h("td", at === 0 ? name(scope.name) : h("span.aside", scope.name)),
        h("th", { scope: "row" }, h("a", { href: link("buckets", bucket, "scopes", scope.name, "collections", collection.name, "documents") }, name(collection.name))),
        h("td.number", count(size.items)),
        h("td.number", bytes(size.data_size)),
        h("td", ttl(collection.maxTTL)),
        h("td.right", collection.name === "_default" ? null : button("Drop", () => drop("collection", ["scopes", scope.name, "collections", collection.name], "All its documents are removed."), { kind: "quiet", "aria-label": `Drop ${scope.name}.${collection.name}` })),
      );
    }),
    scope.collections.length === 0 && h("tr", h("td", name(scope.name)), h("td.quiet", { colspan: "5" }, "no collections")),
  ]);

  const droppable = scopes.filter((one) => !one.name.startsWith("_"));
  const scopeBox = h("input", { required: true, list: "scopes", autocomplete: "off", spellcheck: "false", value: "_default" });
  const collectionBox = h("input", { autocomplete: "off", spellcheck: "false" });
  const ttlBox = h("input", { inputmode: "numeric", pattern: "-?[0-9]*", autocomplete: "off" });
  const create = async () => {
    const scope = scopeBox.value.trim();
    const collection = collectionBox.value.trim();
    const scopePath = path("v1", "buckets", bucket, "scopes", scope);
    if (!scopes.some((one) => one.name === scope)) {
      await change(request("PUT", scopePath), collection ? "The scope is created." : `The scope ${scope} is created.`);
    }
    if (collection) {
      const options = ttlBox.value.trim() ? { headers: { "Content-Type": "application/json" }, body: `{"maxTTL":${ttlBox.value.trim()}}` } : {};
      await change(request("PUT", `${scopePath}/collections/${encodeURIComponent(collection)}`, options), `The collection ${collection} is created.`);
    }
  };

  show(
    place,
    table("Scopes and collections", [["Scope"], ["Collection"], ["Documents", "number"], ["Size", "number"], ["Maximum expiry"], [h("span.aside", "Actions")]], rows).element,
    requestBar(asked),
    requestBar(statistics, "Sizes"),
    h(
      "details.panel",
      h("summary", "Create a scope or a collection"),
      form(create, { class: "row" },
        field("Scope", scopeBox, "an existing one, or a new name"),
        h("datalist", { id: "scopes" }, scopes.map((one) => h("option", { value: one.name }))),
        field("Collection", collectionBox, "leave it empty to create only the scope"),
        field("Maximum expiry of documents", ttlBox, "in seconds; empty: as in the bucket; -1: no limit"),
        h("button.primary", { type: "submit" }, "Create"),
      ),
    ),
    droppable.length > 0 && h(
      "details.panel",
      h("summary", "Drop a scope"),
      h("ul.plain", droppable.map((one) => h("li", button(h("span", "Drop ", name(one.name)), () => drop("scope", ["scopes", one.name], "Its collections and all their documents are removed."), { kind: "danger" })))),
    ),
  );
}

function ttl(seconds) {
  if (seconds === 0) return "the bucket's";
  return seconds === -1 ? "no limit" : `${count(seconds)} s`;
}
