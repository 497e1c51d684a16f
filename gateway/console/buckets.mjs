// The first page: buckets with their sizes.

import { curl, request, value } from "./api.mjs";
import { h, show } from "./dom.mjs";
import { bytes, count } from "./format.mjs";
import { link } from "./keys.mjs";
import { empty, name, requestBar, table } from "./ui.mjs";

export async function showBuckets({ open, signal }) {
  const asked = request("GET", "v1/buckets");
  const { buckets } = await value(asked, signal);
  const place = open({ title: "Buckets" });
  if (buckets.length === 0) {
    show(place, empty("You have access to no bucket.", h("p", "Ask the cluster's administrator for a role on one.")), requestBar(asked));
    return;
  }
  const rows = buckets.map((one) => h(
    "tr",
    h("th", { scope: "row" }, h("a", { href: link("buckets", one.name) }, name(one.name))),
    h("td.number", count(one.items)),
    h("td.number", bytes(one.memoryBytes)),
    h("td", quota(one)),
    h("td.number", count(one.replicas)),
    h("td", one.type ?? "–"),
  ));
  show(
    place,
    table("Buckets", [["Name"], ["Documents", "number"], ["Memory", "number"], ["of its quota"], ["Replicas", "number"], ["Type"]], rows).element,
    requestBar(asked),
    fromPrograms(buckets[0].name),
  );
}

/** Show how programs store and read a document: with the same requests as this page. */
function fromPrograms(bucket) {
  const at = `v1/buckets/${encodeURIComponent(bucket)}/documents/hello`;
  const put = request("PUT", at, { headers: { "Content-Type": "application/json" }, body: '{"greeting": "hello"}' });
  return h(
    "section.panel",
    h("h2", "From a program"),
    h("p.quiet", "The gateway speaks HTTP and JSON. Store a document, and read it:"),
    h("div.command", h("pre", { tabindex: "0", role: "group", "aria-label": "Commands that store and read a document" }, h("code", `${curl(put)}\n${curl(request("GET", at))}`))),
  );
}

function quota({ memoryBytes, quotaBytes, name: its }) {
  if (!quotaBytes) return "–";
  const share = Math.min(1, (memoryBytes ?? 0) / quotaBytes);
  return h(
    "span.quota",
    h("meter", { min: "0", max: "1", high: "0.85", value: String(share), "aria-label": `Memory of ${its}` }),
    ` ${share > 0 && share < 0.01 ? "under 1" : Math.round(share * 100)} % of ${bytes(quotaBytes)}`,
  );
}
