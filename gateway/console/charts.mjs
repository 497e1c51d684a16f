// Lines over time, drawn as SVG, with the same figures in a table.

import { h, newId, show, svg } from "./dom.mjs";

const WIDTH = 480;
const HEIGHT = 150;
const LEFT = 52;
const BOTTOM = 18;
const TOP = 8;

/** Return a round number that is not below a value: 1, 2 or 5 times a power of ten. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * (1 - 1e-9));
}

/** Return the path of a line through points; places without a value (NaN) break it. */
export function linePath(values, x, y) {
  let path = "";
  let isDown = false;
  values.forEach((value, at) => {
    if (Number.isFinite(value)) path += `${isDown ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    isDown = Number.isFinite(value);
  });
  return path;
}

/**
 * Return a chart.
 *
 * @param options title, unit (shown behind the title), format (number to text), most (points kept), colours (line's
 *   name to a number from 1; other lines have the numbers of their places).
 */
export function chart({ title, unit, format, most, colours = {} }) {
  const id = newId();
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-labelledby": id });
  const legend = h("ul.legend", { "aria-hidden": "true" });
  const body = h("tbody");
  const head = h("thead");
  const summary = h("p.aside", { id });
  const figure = h(
    "figure.chart.panel",
    h("figcaption", h("h2", title, " ", h("span.quiet", unit)), summary),
    drawing,
    legend,
    h("details", h("summary", "As a table"), h("div.table", { tabindex: "0", role: "region", "aria-label": `${title}, as a table` }, h("table", head, body))),
  );
  const times = [];
  const lines = new Map();

  /** Add the values of an instant: name -> value. */
  function add(time, values) {
    times.push(time);
    for (const [name, value] of values) {
      if (!lines.has(name)) lines.set(name, Array(times.length - 1).fill(NaN));
      lines.get(name).push(value);
    }
    for (const held of lines.values()) if (held.length < times.length) held.push(NaN);
    if (times.length > most) {
      times.shift();
      for (const held of lines.values()) held.shift();
    }
    draw();
  }

  function draw() {
    const top = ceiling(Math.max(0, ...[...lines.values()].flat().filter(Number.isFinite)));
    const x = (at) => LEFT + ((WIDTH - LEFT - 4) * (at + most - times.length)) / (most - 1);
    const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * value) / top;
    const scale = [0, top / 2, top].map((value) => [
      svg("line", { class: "grid", x1: LEFT, x2: WIDTH - 4, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)),
    ]);
    const span = times.length > 1 ? Math.round((times.at(-1) - times[0]) / 1000) : 0;
    const ends = [svg("text", { class: "tick", x: WIDTH - 4, y: HEIGHT - 4, "text-anchor": "end" }, "now"), span >= 30 && svg("text", { class: "tick", x: x(0), y: HEIGHT - 4 }, `${span} s ago`)];
    const named = [...lines].map(([name, values], at) => ({ name, values, kind: `line-${colours[name] ?? (at % 6) + 1}` }));
    show(drawing, scale, ends, named.map(({ values, kind }) => svg("path", { class: `line ${kind}`, d: linePath(values, x, y) })));
    show(legend, named.map(({ name, values, kind }) => h("li", h(`span.swatch.${kind}`), `${name} `, h("b", format(values.at(-1))))));
    summary.textContent = `${title}: ${named.length === 0 ? "no figures yet" : named.map(({ name, values }) => `${name} ${format(values.at(-1))}`).join(", ")}`;
    if (figure.querySelector("details").open) tabulate(named);
  }

  function tabulate(named) {
    show(head, h("tr", h("th", { scope: "col" }, "Time"), named.map(({ name }) => h("th.number", { scope: "col" }, name))));
    const rows = times.map((time, at) => h("tr", h("th", { scope: "row" }, new Date(time).toLocaleTimeString("en-GB")), named.map(({ values }) => h("td.number", format(values[at])))));
    show(body, rows.reverse().slice(0, 30));
  }

  figure.querySelector("details").addEventListener("toggle", draw);
  draw();
  return { element: figure, add };
}
