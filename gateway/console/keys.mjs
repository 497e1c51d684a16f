// Names in addresses and on the screen: document keys may hold any character.

const encoder = new TextEncoder();

/** Return the number of bytes of a text in UTF-8. */
export function byteLength(text) {
  return encoder.encode(text).length;
}

/** Return whether a text can be sent as UTF-8: it has no lone surrogate. */
export function isWellFormed(text) {
  try {
    encodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

/**
 * Return a name as one segment of a path.
 *
 * Returns null for "." and "..": browsers resolve them, percent-encoded or not.
 */
export function segment(name) {
  return name === "." || name === ".." ? null : encodeURIComponent(name);
}

/** Return a path of the gateway, relative to it. Throws an error for people if a name cannot be a segment of one. */
export function path(...names) {
  return names.map((name) => {
    const found = segment(name);
    if (found === null) throw Object.assign(new Error(`Browsers cannot request the name ${name}: they treat it as a step in the path.`), { code: "" });
    return found;
  }).join("/");
}

/** Return an address within the console, for a link. */
export function link(...names) {
  return "#/" + names.map(encodeURIComponent).join("/");
}

/** Return the names of an address within the console, and its parameters; null if it is malformed. */
export function readLink(hash) {
  const [names, query = ""] = cut(hash.replace(/^#?\/?/, ""), "?");
  try {
    return {
      names: names === "" ? [] : names.split("/").map(decodeURIComponent),
      query: new URLSearchParams(query),
    };
  } catch {
    return null;
  }
}

function cut(text, at) {
  const found = text.indexOf(at);
  return found < 0 ? [text] : [text.slice(0, found), text.slice(found + 1)];
}

// Control characters, blanks that look like others, characters without width, and those that change the
// direction of the following text: each is shown by its number.
const INVISIBLE =
  /[\u0000-\u001f\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\udb40[\udc00-\udfff]/g;

/**
 * Return a name in parts that can be shown: [{text, isHidden}]. Hidden parts have a character's number in place of
 * the character; so have blanks at the ends.
 */
export function shown(name) {
  const parts = [];
  const add = (text, isHidden) => {
    if (text === "") return;
    if (parts.length && parts.at(-1).isHidden === isHidden && !isHidden) parts.at(-1).text += text;
    else parts.push({ text, isHidden });
  };
  const number = (character) => "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  const [, start, middle, end] = /^( *)(.*?)( *)$/su.exec(name);
  for (const character of start) add(number(character), true);
  let from = 0;
  for (const found of middle.matchAll(INVISIBLE)) {
    add(middle.slice(from, found.index), false);
    add(number(found[0]), true);
    from = found.index + found[0].length;
  }
  add(middle.slice(from), false);
  for (const character of end) add(number(character), true);
  return parts;
}

/** Return a name for titles and labels: as `shown`, in one text. */
export function plain(name) {
  return shown(name)
    .map(({ text, isHidden }) => (isHidden ? `‹${text}›` : text))
    .join("");
}

/** Return base64 as bytes. */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Return bytes as base64. */
export function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}
