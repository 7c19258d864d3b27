// From two readings of /metrics to what happened between them.

const LINE = /^keras_blocks_(\w+)\{(.*)\} (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// The counts of each model, and under "" those of all models together.
export function readMetrics(text) {
  const models = new Map([["", emptyCounts()]]);
  for (const line of text.split("\n")) {
    const parts = LINE.exec(line);
    if (!parts) continue;
    const labels = {};
    for (const [, name, value] of parts[2].matchAll(LABEL)) {
      labels[name] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    }
    if (!models.has(labels.model)) models.set(labels.model, emptyCounts());
    for (const counts of [models.get(""), models.get(labels.model)]) {
      addTo(counts, parts[1], labels, Number(parts[3]));
    }
  }
  return models;
}

function emptyCounts() {
  return { requests: 0, rows: 0, runs: 0, waiting: 0, latencies: new Map() };
}

function addTo(counts, metric, labels, value) {
  if (metric === "requests_total" && labels.outcome === "success") counts.requests += value;
  else if (metric === "rows_total") counts.rows += value;
  else if (metric === "runs_total") counts.runs += value;
  else if (metric === "waiting_requests") counts.waiting += value;
  else if (metric === "request_seconds_bucket") {
    counts.latencies.set(labels.le, (counts.latencies.get(labels.le) ?? 0) + value);
  }
}

// One point of the charts; null where nothing happened that could be measured.
export function pointBetween(before, after, seconds) {
  // Counts that fell are those of a model that was loaded again.
  const rise = (key) => Math.max(0, after[key] - before[key]);
  const runs = rise("runs");
  const bounds = [...after.latencies].map(([bound, count]) => [
    bound === "+Inf" ? Infinity : Number(bound),
    Math.max(0, count - (before.latencies.get(bound) ?? 0)),
  ]);
  return {
    requests: rise("requests") / seconds,
    rows: rise("rows") / seconds,
    p50: milliseconds(quantile(bounds, 0.5)),
    p99: milliseconds(quantile(bounds, 0.99)),
    batch: runs ? rise("rows") / runs : null,
    waiting: after.waiting,
  };
}

// The value that a share of the observations does not exceed, straight between the bounds.
export function quantile(bounds, share) {
  const sorted = [...bounds].sort((a, b) => a[0] - b[0]);
  const total = sorted.length ? sorted[sorted.length - 1][1] : 0;
  if (!total) return null;
  let [lower, below] = [0, 0];
  for (const [bound, count] of sorted) {
    if (count >= share * total) {
      if (bound === Infinity) return lower;
      return lower + ((bound - lower) * (share * total - below)) / (count - below);
    }
    [lower, below] = [bound, count];
  }
  return lower;
}

function milliseconds(seconds) {
  return seconds === null ? null : seconds * 1000;
}
