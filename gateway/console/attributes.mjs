// The extended attributes of a document: read, set and remove them.

import { h, show } from "./dom.mjs";
import { editor, jsonBlock } from "./editor.mjs";
import { elements, memberMap, pretty, problemOf, stringOf } from "./json.mjs";
import { announce, button, confirm, field, form, name, problem, requestBar } from "./ui.mjs";

const MOST_PATHS = 16;

/**
 * Show a document's attributes in a place.
 *
 * @param options here (the Collection), key, held (with its CAS), signal, place, and `known`, called with the
 *   server's metadata of the document (a Map of JSON texts).
 */
export async function attributes({ here, key, held, signal, place, known = () => {} }) {
  let names;
  let values = [];
  const first = ["$document", "$XTOC"];
  try {
    const [document_, contents] = await here.attributes(key, first, signal);
    if (document_ !== null) known(memberMap(document_));
    names = contents === null ? [] : elements(contents).map(stringOf);
    const own = names.slice(0, MOST_PATHS);
    if (own.length) values = await here.attributes(key, own, signal);
  } catch (error) {
    if (signal.aborted) return;
    show(place, h("h2", "Attributes"), h("p.quiet", error.message));
    return;
  }
  draw();

  async function change(name_, value, done) {
    try {
      held.cas = await here.carryOut(key, here.settingAttribute(key, name_, value, held.cas), signal);
      for (const shown of document.querySelectorAll(".cas")) shown.textContent = held.cas;
      announce(done);
      await attributes({ here, key, held, signal, place, known });
    } catch (error) {
      if (!signal.aborted) place.prepend(problem(error, "The attribute was not changed"));
    }
  }

  function draw() {
    const list = names.map((its, at) => {
      const value = values[at] ?? null;
      const isOwn = !its.startsWith("_");
      return h("li",
        h("details",
          h("summary", name(its)),
          value === null ? h("p.quiet", "not read") : jsonBlock(pretty(value), `Attribute ${its}`),
          isOwn && value !== null && h("div.actions",
            button("Edit", () => edit(its, pretty(value)), { kind: "quiet" }),
            button("Remove", async () => {
              if (await confirm({ title: `Remove the attribute ${its}?`, action: "Remove" })) await change(its, null, "The attribute is removed.");
            }, { kind: "quiet" }),
          ),
        ),
      );
    });
    show(
      place,
      h("h2", "Attributes"),
      names.length === 0 ? h("p.quiet", "none") : h("ul.plain", list),
      button("Add an attribute", () => edit("", "null"), { kind: "quiet" }),
      requestBar(here.lookup(key, [...first, ...names.slice(0, MOST_PATHS - 2)]), "Read"),
    );
  }

  function edit(its, text) {
    const box = h("input", { value: its, required: true, readonly: its !== "", maxlength: "16", spellcheck: "false", autocomplete: "off" });
    const wrong = h("p.bad", { role: "status" });
    const area = editor({ label: "Value, as JSON", text, rows: 4 });
    const submit = () => {
      const found = problemOf(area.text);
      if (found === null) change(box.value, area.text, "The attribute is stored.");
      else wrong.textContent = `Line ${found.line}, column ${found.column}: ${found.message}`;
    };
    show(place, h("h2", "Attributes"), form(submit, {},
      field("Name", box, "up to 16 bytes; names that begin with _ belong to the server"),
      area.element,
      wrong,
      h("div.actions", h("button.primary", { type: "submit" }, "Store"), button("Cancel", draw)),
    ));
    (its === "" ? box : area.area).focus();
  }
}
