// The gateway's present activity: requests, latencies, operations, memory.

import { request, text as answerText } from "./api.mjs";
import { chart } from "./charts.mjs";
import { h, show } from "./dom.mjs";
import { bytes, count, seconds, short } from "./format.mjs";
import { quantile, rates, readMetrics, sum, sumBy } from "./metrics.mjs";
import { button, empty, problem, requestBar } from "./ui.mjs";

const INTERVAL = 2000;
const MOST_POINTS = 91;
const MOST_OPERATIONS = 5;

// The console's own requests.
const OWN = new Set(["metrics"]);
const isOthers = ({ route }) => !OWN.has(route);

export async function showFigures({ open, signal }) {
  const asked = request("GET", "metrics");
  let last;
  try {
    last = { time: Date.now(), metrics: readMetrics(await answerText(asked, signal)) };
  } catch (error) {
    if (error.code !== "RouteNotFound") throw error;
    show(open({ title: "Figures" }), empty("This gateway has no figures.", h("p", "It was started without the metrics plugin.")));
    return;
  }
  const pause = button("Pause", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Resume" : "Pause";
  });
  let isPaused = false;
  const place = open({ title: "Figures", actions: pause });
  const tiles = h("dl.tiles");
  const requests = chart({ title: "Requests", unit: "a second", format: short, most: MOST_POINTS, colours: { "2xx": 1, "3xx": 4, "4xx": 2, "5xx": 3 } });
  const latency = chart({ title: "Latency", unit: "of requests", format: seconds, most: MOST_POINTS });
  const operations = chart({ title: "Operations", unit: "on documents, a second", format: short, most: MOST_POINTS });
  const memory = chart({ title: "Memory", unit: "of all processes", format: bytes, most: MOST_POINTS });
  const wrong = h("div");
  show(place, wrong, tiles, h("div.charts", requests.element, latency.element, operations.element, memory.element), h("p.quiet", "A new figure every two seconds, while this page is open; its own requests are not counted."), requestBar(asked));
  update(last.metrics);
  memory.add(last.time, memoryOf(last.metrics));

  function update(metrics) {
    const values = [
      ["Requests since the start", count(sum(metrics, "couchgateway_requests_total"))],
      ["Under way", count(Math.max(0, sum(metrics, "couchgateway_requests_under_way") - 1))],
      ["Clients connected", count(sum(metrics, "couchgateway_client_connections"))],
      ["Connections to the cluster", count(sum(metrics, "couchgateway_cluster_connections"))],
      ["Buffered for requests", `${bytes(sum(metrics, "couchgateway_buffered_bytes"))} of ${bytes(sum(metrics, "couchgateway_buffered_limit_bytes"))}`],
    ];
    show(tiles, values.map(([name, value]) => h("div", h("dt", name), h("dd", value))));
  }

  function memoryOf(metrics) {
    return new Map([["resident", sum(metrics, "process_resident_memory_bytes")], ["for requests", sum(metrics, "couchgateway_buffered_bytes")]]);
  }

  function compare(before, now) {
    const elapsed = (now.time - before.time) / 1000;
    const byStatus = (metrics) => sumBy(metrics, "couchgateway_requests_total", ({ status }) => `${status[0]}xx`, isOthers);
    const found = rates(byStatus(before.metrics), byStatus(now.metrics), elapsed);
    requests.add(now.time, new Map([["2xx", 0], ["3xx", 0], ["4xx", 0], ["5xx", 0], ...found]));
    const buckets = (metrics) => sumBy(metrics, "couchgateway_request_seconds_bucket", ({ le }) => le, isOthers);
    const [old, fresh] = [buckets(before.metrics), buckets(now.metrics)];
    latency.add(now.time, new Map([["median", quantile(0.5, old, fresh)], ["95 %", quantile(0.95, old, fresh)], ["99 %", quantile(0.99, old, fresh)]]));
    const byName = (metrics) => sumBy(metrics, "couchgateway_operations_total", ({ operation }) => operation, ({ operation }) => operation !== "open");
    const all = [...byName(now.metrics)].sort(([, a], [, b]) => b - a).map(([name]) => name);
    const speeds = rates(byName(before.metrics), byName(now.metrics), elapsed);
    const shown = new Map(all.slice(0, MOST_OPERATIONS).map((name) => [name, speeds.get(name)]));
    if (all.length > MOST_OPERATIONS) shown.set("others", all.slice(MOST_OPERATIONS).reduce((total, name) => total + speeds.get(name), 0));
    operations.add(now.time, shown);
    memory.add(now.time, memoryOf(now.metrics));
    update(now.metrics);
  }

  (async () => {
    while (!signal.aborted) {
      await new Promise((done) => setTimeout(done, INTERVAL));
      if (signal.aborted || isPaused || document.hidden) continue;
      try {
        const now = { time: Date.now(), metrics: readMetrics(await answerText(asked, signal)) };
        compare(last, now);
        last = now;
        wrong.replaceChildren();
      } catch (error) {
        if (!signal.aborted && !wrong.hasChildNodes()) show(wrong, problem(error, "No new figures"));
      }
    }
  })();
}
