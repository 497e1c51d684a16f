// Elements without markup: text is always shown as text, whatever it contains.

const SVG = "http://www.w3.org/2000/svg";

/** Add children: elements, texts, numbers, lists of these; null, undefined and false add nothing. */
function fill(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

function configure(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  return element;
}

/**
 * Return an element.
 *
 * @param name as in "section", or "section.class.other".
 * @param properties attributes; functions listen to the event of their name. May be left out.
 */
export function h(name, properties, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  if (properties === null || typeof properties !== "object" || Array.isArray(properties) || properties instanceof Node) {
    return fill(element, [properties, ...children]);
  }
  return fill(configure(element, properties), children);
}

/** Return an element of a drawing. */
export function svg(tag, properties = {}, ...children) {
  return fill(configure(document.createElementNS(SVG, tag), properties), children);
}

/** Replace the content of an element. */
export function show(element, ...children) {
  element.replaceChildren();
  return fill(element, children);
}

let last = 0;

/** Return a new id. */
export function newId() {
  last += 1;
  return `id-${last}`;
}
