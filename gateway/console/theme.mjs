// The colours: light, dark, or those of the system.

import { choice } from "./ui.mjs";

const STORED = "couchgateway.theme";

function stored() {
  try {
    return localStorage.getItem(STORED) ?? "system";
  } catch {
    return "system";
  }
}

function apply(chosen) {
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
}

/** Return the choice of colours; the one of the last visit is applied. */
export function theme() {
  apply(stored());
  const list = choice([["system", "System"], ["light", "Light"], ["dark", "Dark"]], stored(), {
    "aria-label": "Colours",
    change: () => {
      apply(list.value);
      try {
        localStorage.setItem(STORED, list.value);
      } catch {
        // The choice lasts until the page is left.
      }
    },
  });
  return list;
}
