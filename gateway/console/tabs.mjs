// The parts of a bucket, on each of their pages.

import { h } from "./dom.mjs";
import { link } from "./keys.mjs";

const DEFAULT = ["scopes", "_default", "collections", "_default"];

/** Return the links to a bucket's parts; `here` names the one that is shown. */
export function tabs(bucket, here, place = DEFAULT) {
  const parts = [
    ["Collections", link("buckets", bucket)],
    ["Documents", link("buckets", bucket, ...place, "documents")],
    ["Views", link("buckets", bucket, "designs")],
    ["Query", link("buckets", bucket, "query")],
    ["Batch", link("buckets", bucket, ...place, "batch")],
  ];
  return h(
    "nav.tabs",
    { "aria-label": "Parts of the bucket" },
    h("ul", parts.map(([text, href]) => h("li", h("a", { href, "aria-current": text === here ? "page" : null }, text)))),
  );
}
