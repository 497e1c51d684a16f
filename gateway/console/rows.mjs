// Rows as they stream in: of views and of queries.

import { h } from "./dom.mjs";
import { compact, problemOf } from "./json.mjs";

/** Rows that a page shows at most: more would make it slow. */
export const MOST_ROWS = 5000;

const SHOWN_CHARACTERS = 400;
const MOST_CHARACTERS = 100_000;

/** Return a JSON text in one line, folded up if it is long. */
export function valueCell(text) {
  const held = text.length <= MOST_CHARACTERS && problemOf(text) === null ? compact(text) : text;
  if (held.length <= SHOWN_CHARACTERS) return h("code.value", held);
  return h(
    "details",
    h("summary", h("code.value", held.slice(0, SHOWN_CHARACTERS), " …")),
    h("code.value", held.slice(SHOWN_CHARACTERS, MOST_CHARACTERS), held.length > MOST_CHARACTERS && ` … (${held.length} characters)`),
  );
}

/**
 * Run a stream of rows with buttons to start and stop it.
 *
 * @param run called with a signal; it may be aborted by `stop`, by another start, or by the page's end.
 */
export function runner(pageSignal, run) {
  let running = null;
  pageSignal.addEventListener("abort", () => running?.abort());
  return {
    async start() {
      running?.abort();
      const own = (running = new AbortController());
      try {
        await run(own.signal);
      } finally {
        if (running === own) running = null;
      }
    },
    stop: () => running?.abort(),
  };
}
