// Line charts of the last points, and the same as a table.

import { readMetrics, pointBetween } from "./metrics.js";
import { ask } from "./server.js";

const POINTS = 60;
const TABLE_ROWS = 10;
const CHARTS = [
  { title: "Requests a second", series: [["requests", ""]] },
  { title: "Latency, ms", series: [["p50", "p50 "], ["p99", "p99 "]] },
  { title: "Rows a run", series: [["batch", ""]] },
  { title: "Waiting requests", series: [["waiting", ""]] },
];
const COLUMNS = [
  ["time", "time"], ["requests", "requests/s"], ["rows", "rows/s"], ["p50", "p50 ms"],
  ["p99", "p99 ms"], ["batch", "rows a run"], ["waiting", "waiting"],
];

export function short(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return Number(value.toFixed(digits)).toLocaleString("en");
}

export class Live {
  constructor(figures, table) {
    this.histories = new Map();
    this.before = null;
    this.scope = "";
    this.table = table;
    this.charts = CHARTS.map((chart) => {
      const template = document.getElementById("chart-template");
      const figure = template.content.cloneNode(true).firstElementChild;
      figure.querySelector(".title").textContent = chart.title;
      figures.append(figure);
      return { ...chart, figure };
    });
    const head = table.tHead.insertRow();
    for (const [, title] of COLUMNS) {
      const cell = Object.assign(document.createElement("th"), { scope: "col", textContent: title });
      head.append(cell);
    }
    this.draw();
  }

  async poll() {
    const models = readMetrics(await ask("/metrics"));
    const now = performance.now();
    if (this.before) {
      const seconds = (now - this.before.now) / 1000;
      const time = new Date().toLocaleTimeString("en-GB");
      for (const [name, counts] of models) {
        const before = this.before.models.get(name);
        if (!before) continue;
        const points = this.histories.get(name) ?? [];
        points.push({ time, ...pointBetween(before, counts, seconds) });
        this.histories.set(name, points.slice(-POINTS));
      }
    }
    this.before = { models, now };
    this.draw();
  }

  // What went by during a pause would be one point that is too flat.
  forget() {
    this.before = null;
  }

  rate(name) {
    return this.histories.get(name)?.at(-1)?.requests;
  }

  draw() {
    const points = this.histories.get(this.scope) ?? [];
    for (const chart of this.charts) drawChart(chart, points);
    const rows = points.slice(-TABLE_ROWS).reverse().map((point) => {
      const row = document.createElement("tr");
      for (const [key] of COLUMNS) {
        row.insertCell().textContent = key === "time" ? point.time : short(point[key]);
      }
      return row;
    });
    this.table.tBodies[0].replaceChildren(...rows);
  }
}

function drawChart({ figure, title, series }, points) {
  const values = series.flatMap(([key]) => points.map((point) => point[key] ?? 0));
  const top = niceTop(Math.max(0, ...values));
  const last = points.at(-1);
  const now = figure.querySelector(".now");
  now.replaceChildren();
  series.forEach(([key, label], index) => {
    const part = document.createElement("span");
    part.className = index ? "second" : "";
    part.textContent = `${label}${short(last?.[key])}`;
    now.append(part, " ");
  });
  figure.querySelector(".most").textContent = points.length ? short(top) : "";
  const svg = figure.querySelector("svg");
  svg.setAttribute("aria-label", `${title}: ${now.textContent.trim()}, scale 0 to ${short(top)}`);
  const shapes = [0, 45, 90].map((y) => shape("path", "grid", `M0 ${y}H300`));
  series.forEach(([key], index) => {
    const path = linePath(points, key, top);
    if (!path.line) return;
    if (series.length === 1) shapes.push(shape("path", "area", path.area));
    shapes.push(shape("path", index ? "line second" : "line", path.line));
  });
  svg.replaceChildren(...shapes);
}

// Gaps where nothing was measured; the newest point is at the right edge.
function linePath(points, key, top) {
  let [line, area, started] = ["", "", null];
  const close = () => (started === null ? "" : `V90H${started}Z`);
  points.forEach((point, index) => {
    const x = ((POINTS - points.length + index) / (POINTS - 1)) * 300;
    if (point[key] === null) {
      area += close();
      started = null;
      return;
    }
    const at = `${x.toFixed(1)} ${(90 - (point[key] / top) * 86).toFixed(1)}`;
    line += `${started === null ? "M" : "L"}${at}`;
    // A lone point would have no length and not be seen.
    if (started === null) line += "h.1";
    area += `${started === null ? "M" : "L"}${at}`;
    started ??= x.toFixed(1);
  });
  return { line, area: area + close() };
}

function shape(tag, className, path) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  element.setAttribute("class", className);
  element.setAttribute("d", path);
  return element;
}

function niceTop(most) {
  if (most <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].find((step) => step * power >= most) * power;
}
