// The figures of /metrics: read them, and the rates between two readings.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };

/** Return the samples of Prometheus' text format: name -> [{labels, value}]. */
export function readMetrics(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const sample = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (sample === null) continue;
    const labels = {};
    for (const [, name, value] of (sample[2] ?? "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\[n"\\]/g, (escape) => ESCAPES[escape]);
    }
    if (!found.has(sample[1])) found.set(sample[1], []);
    found.get(sample[1]).push({ labels, value: Number(sample[3]) });
  }
  return found;
}

/** Return the sum of a metric's samples, of those that `wanted` takes. */
export function sum(metrics, name, wanted = () => true) {
  return (metrics.get(name) ?? []).reduce((total, { labels, value }) => (wanted(labels) ? total + value : total), 0);
}

/** Return the sums of a metric's samples by a label's value, or by a function of the labels. */
export function sumBy(metrics, name, by, wanted = () => true) {
  const found = new Map();
  for (const { labels, value } of metrics.get(name) ?? []) {
    if (!wanted(labels)) continue;
    const group = by(labels);
    found.set(group, (found.get(group) ?? 0) + value);
  }
  return found;
}

/** Return the difference of two sums of counters, for one second; a counter that decreased has restarted. */
export function rates(before, after, seconds) {
  const found = new Map();
  for (const [group, value] of after) {
    const last = before.get(group) ?? 0;
    found.set(group, (value >= last ? value - last : value) / seconds);
  }
  return found;
}

/**
 * Return a quantile of a histogram's growth, in its unit; NaN without growth.
 *
 * @param before, after the sums of its buckets by upper bound ("0.5", "+Inf").
 */
export function quantile(share, before, after) {
  const bounds = [...after.keys()].map((bound) => [bound === "+Inf" ? Infinity : Number(bound), bound]).sort(([a], [b]) => a - b);
  const grown = bounds.map(([number, bound]) => [number, Math.max(0, after.get(bound) - (before.get(bound) ?? 0))]);
  const total = grown.at(-1)?.[1] ?? 0;
  if (total === 0) return NaN;
  let lower = 0;
  let below = 0;
  for (const [bound, many] of grown) {
    if (many >= share * total) {
      if (bound === Infinity) return lower;
      return lower + ((bound - lower) * (share * total - below)) / (many - below || 1);
    }
    lower = bound;
    below = many;
  }
  return lower;
}
