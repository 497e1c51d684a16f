// A document that others changed in the meantime: both versions side by side, and a choice.

import { compare, folded } from "./diff.mjs";
import { h } from "./dom.mjs";
import { pretty, problemOf } from "./json.mjs";
import { many } from "./format.mjs";
import { button } from "./ui.mjs";

const MOST_ROWS = 1000;

function linesOf(text) {
  // Only for the comparison: differences within one line of JSON are hard to see.
  const isDense = text.length < 200_000 && !text.includes("\n") && text.length > 60;
  return (isDense && problemOf(text) === null ? pretty(text) : text).split(/\r\n|\n|\r/);
}

function cell(line, kind) {
  return line === null ? h("td.missing") : h(kind ? `td.${kind}` : "td", h("code", line || " "));
}

function row({ left, right, isSame, folded: count }) {
  if (count) return h("tr", h("td.folded", { colspan: "2" }, many(count, "line that is the same", "lines that are the same")));
  return h(isSame ? "tr.same" : "tr.differs", cell(left, isSame ? "" : "removed"), cell(right, isSame ? "" : "added"));
}

/**
 * Return the comparison.
 *
 * @param options theirs and mine (texts; theirs is null if the document is gone), their and my CAS, and what to do:
 *   takeTheirs, keepMine, editMine.
 */
export function conflict({ theirs, mine, theirCas, takeTheirs, keepMine, editMine }) {
  const isGone = theirs === null;
  const rows = isGone ? [] : compare(linesOf(theirs), linesOf(mine));
  const shown = folded(rows);
  const different = rows.filter((row) => !row.isSame).length;
  const heading = h("h2", { tabindex: "-1" }, isGone ? "Removed meanwhile" : "Changed meanwhile");
  const element = h(
    "section.conflict",
    heading,
    h("p", isGone
      ? "Someone removed this document after you read it. Your version was not stored."
      : `Someone else stored another version after you read it; your version was not stored. ${different === 0 ? "Both have the same content." : `The versions differ in ${different === 1 ? "one line" : `${different} lines`}.`}`),
    !isGone && h(
      "div.table.sides",
      { tabindex: "0", role: "region", "aria-label": "Both versions" },
      h(
        "table",
        h("caption.aside", "Both versions, line by line"),
        h("thead", h("tr", h("th", { scope: "col" }, "Theirs, in the bucket now ", h("code.quiet", theirCas)), h("th", { scope: "col" }, "Yours, not stored"))),
        h("tbody", shown.slice(0, MOST_ROWS).map(row)),
      ),
      shown.length > MOST_ROWS && h("p.quiet", "More differences exist, which are not shown."),
    ),
    h(
      "div.actions",
      button(isGone ? "Leave it removed" : "Take theirs", takeTheirs),
      button(isGone ? "Store mine again" : "Replace theirs with mine", keepMine, { kind: "danger" }),
      !isGone && button("Keep editing mine", editMine),
    ),
  );
  return { element, focus: () => heading.focus() };
}
