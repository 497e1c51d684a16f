// An editor for text, with colours for JSON: a text area whose own text is invisible over a painted copy.

import { h, newId, show } from "./dom.mjs";
import { JsonError, tokens } from "./json.mjs";

const PAINTED_CHARACTERS = 100_000;
const PAINTED = new Set(["name", "string", "number", "word"]);

/** Return the text in pieces of colour; text after an error stays plain. */
export function painted(text) {
  const parts = [];
  let at = 0;
  try {
    for (const { kind, start, end } of tokens(text)) {
      if (!PAINTED.has(kind)) continue;
      if (start > at) parts.push(text.slice(at, start));
      parts.push(h(`span.json-${kind}`, text.slice(start, end)));
      at = end;
    }
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
  }
  if (at < text.length) parts.push(text.slice(at));
  return parts;
}

/** Return JSON that cannot be changed, in colours. */
export function jsonBlock(text, label = "JSON") {
  return h("pre.json", { tabindex: "0", role: "group", "aria-label": label }, h("code", text.length <= PAINTED_CHARACTERS ? painted(text) : text));
}

/**
 * Return an editor.
 *
 * @param options label, text, changed (called after each change), isJson (a function: whether to paint), rows.
 */
export function editor({ label, text, changed = () => {}, isJson = () => true, rows = 12, describedBy = null }) {
  const paint = h("pre.paint", { "aria-hidden": "true" });
  const area = h("textarea", {
    id: newId(),
    "aria-label": label,
    "aria-describedby": describedBy,
    spellcheck: "false",
    autocapitalize: "none",
    autocomplete: "off",
    rows: String(rows),
    input: () => (draw(), changed()),
  });
  const element = h("div.editor", paint, area);

  function draw() {
    const held = area.value;
    const isPainted = isJson() && held.length <= PAINTED_CHARACTERS;
    element.classList.toggle("plain", !isPainted);
    if (isPainted) show(paint, painted(held), "\n");
    else paint.replaceChildren();
  }

  area.value = text;
  draw();
  return {
    element,
    area,
    get text() {
      return area.value;
    },
    set text(given) {
      area.value = given;
      draw();
    },
    /** Replace the whole text as typing does, so that undo restores the old text. */
    replace(given) {
      area.focus();
      area.select();
      if (!document.execCommand("insertText", false, given)) area.value = given;
      draw();
      changed();
    },
    /** Move the cursor to a position. */
    goTo(offset) {
      area.focus();
      area.setSelectionRange(offset, offset);
    },
    redraw: draw,
  };
}
