// A document's stored content: text with its line ends, or bytes.

import { h } from "./dom.mjs";

const LINE_BYTES = 16;

/**
 * How a text's lines end: "\n", "\r\n" if all of them do, or "mixed".
 *
 * An editor in a browser knows line feeds only, so other line ends are restored when the text is stored.
 */
export function lineEnds(text) {
  if (!text.includes("\r")) return "\n";
  const withoutPairs = text.replaceAll("\r\n", "");
  return withoutPairs.includes("\r") || withoutPairs.includes("\n") ? "mixed" : "\r\n";
}

/** Return a text of an editor with the line ends that the document had. */
export function withEnds(text, ends) {
  return ends === "\r\n" ? text.replaceAll("\n", "\r\n") : text;
}

/** Return bytes as lines of a hexadecimal dump, as many as `most`. */
export function dump(bytes, most = 256) {
  const lines = [];
  for (let at = 0; at < bytes.length && lines.length < most; at += LINE_BYTES) {
    const part = [...bytes.subarray(at, at + LINE_BYTES)];
    const numbers = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const letters = part.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(8, "0")}  ${numbers.padEnd(LINE_BYTES * 3 - 1)}  ${letters}`);
  }
  return lines.join("\n");
}

/** Return the element that shows bytes. */
export function dumpBlock(bytes) {
  return h("pre.dump", { tabindex: "0", role: "group", "aria-label": "Bytes in hexadecimal" }, dump(bytes));
}

/** Let the browser save bytes as a file. */
export function download(blob, fileName) {
  const url = URL.createObjectURL(blob);
  const anchor = h("a", { href: url, download: fileName, hidden: true });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
