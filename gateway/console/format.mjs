// Numbers, sizes, times and flags, as people read them.

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

/** Return a number below 1000 in three digits, without zeros at the end of a fraction. */
function digits(value) {
  return value.toPrecision(3).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

/** Return a number of bytes as text: 0 bytes, 1.5 kB, 20 MB (decimal units). */
export function bytes(count) {
  if (count === null || count === undefined) return "–";
  let unit = 0;
  let value = count;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const text = unit === 0 ? String(Math.round(value)) : digits(value);
  return `${text} ${count === 1 ? "byte" : UNITS[unit]}`;
}

/** Return a whole number with separators. */
export function count(value) {
  return value === null || value === undefined ? "–" : Number(value).toLocaleString("en");
}

/** Return a number of things: 1 document, 3 documents. */
export function many(value, one, several = one + "s") {
  return `${count(value)} ${value === 1 ? one : several}`;
}

/** Return a rate or another quantity in three digits. */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6) return `${digits(value / 1e6)} M`;
  if (size >= 1e4) return `${digits(value / 1e3)} k`;
  return size >= 100 ? String(Math.round(value)) : digits(value);
}

/** Return seconds as text in a fitting unit. */
export function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  return value < 1 ? `${short(value * 1000)} ms` : `${short(value)} s`;
}

const SPANS = [
  [86400 * 365, "year"],
  [86400, "day"],
  [3600, "hour"],
  [60, "minute"],
  [1, "second"],
];

/** Return a length of time in words: "in 3 days", "2 hours ago". */
export function fromNow(instant, now) {
  const distance = Math.round((instant - now) / 1000);
  const [size, unit] = SPANS.find(([size_]) => Math.abs(distance) >= size_ * 0.99) ?? SPANS.at(-1);
  return new Intl.RelativeTimeFormat("en", { numeric: "always" }).format(Math.round(distance / size), unit);
}

/** Return an instant in milliseconds as local time. */
export function instant(value) {
  return new Date(value).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

// The common flags of SDKs: their highest byte names the format.
const FORMATS = { 1: "private", 2: "JSON", 3: "binary", 4: "text" };

/** Return what a document's flags mean. */
export function flags(value) {
  const format = FORMATS[Math.floor(value / 2 ** 24) & 0x0f];
  return format ?? (value === 0 ? "none" : "unknown to SDKs");
}
