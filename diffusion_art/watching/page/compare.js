// What is compared: curves over each other, grids side by side, settings that differ.

import * as api from "./api.js";
import { Chart, between, smooth } from "./chart.js";
import { $, element, whole } from "./dom.js";

const DOTS = 24; // with fewer points each is marked, and nothing is smoothed

export class Curves {
  constructor() {
    this.charts = new Map(); // metric -> Chart
  }

  /** `told` is the server's answer, `colours` a number by run, `view` what the dials say. */
  show(told, colours, view) {
    const untimed = view.across === "time" ? [...colours.keys()].filter((id) => told.runs[id] && !told.runs[id].clock.x.length) : [];
    $("untimed").hidden = !untimed.length;
    $("untimed").textContent = `Without times, trained by an older version: ${untimed.join(", ")}`;
    for (const [metric, chart] of this.charts) {
      if (view.metrics.includes(metric)) continue;
      chart.element.remove();
      this.charts.delete(metric);
    }
    for (const metric of view.metrics) {
      if (!this.charts.has(metric)) this.charts.set(metric, new Chart(element("figure")));
      const chart = this.charts.get(metric);
      if (chart.element.parentElement !== $("charts")) $("charts").append(chart.element);
      const lines = [...colours].flatMap(([id, colour]) => linesOf(told.runs[id], id, metric, colour, view));
      const height = view.metrics.length > 1 ? 260 : 380;
      chart.show(lines, { title: metric, log: view.log, hours: view.across === "time", legend: false, height });
    }
  }
}

function linesOf(run, id, metric, colour, view) {
  const points = run?.curves[metric];
  if (!points?.x.length || (view.across === "time" && !run.clock.x.length)) return [];
  const x = view.across === "time" ? points.x.map((step) => between(run.clock.x, run.clock.y, step)) : points.x;
  const line = { label: id, colour, x, y: points.y, dots: points.x.length < DOTS };
  if (!view.smooth || line.dots) return [{ ...line, low: points.low, high: points.high }];
  return [{ ...line, faint: true }, { ...line, y: smooth(points.y, view.smooth) }];
}

export class Grids {
  constructor() {
    this.steps = [];
    this.newest = true; // the slider stands at its end, and stays there when a grid comes
    this.figures = new Map(); // run -> its figure, and what it shows
    $("place").addEventListener("input", () => {
      this.newest = $("place").valueAsNumber === this.steps.length - 1;
      this.paint();
    });
  }

  show(told, colours) {
    const at = this.steps[$("place").valueAsNumber];
    this.grids = new Map([...colours].map(([id, colour]) => [id, { colour, steps: told.runs[id]?.grids ?? [] }]));
    this.steps = [...new Set([...this.grids.values()].flatMap(({ steps }) => steps))].sort((a, b) => a - b);
    $("samples").hidden = !this.steps.length;
    if (!this.steps.length) return;
    $("place").max = this.steps.length - 1;
    $("place").value = this.newest || at === undefined ? this.steps.length - 1 : nearest(this.steps, at);
    this.paint();
  }

  paint() {
    const step = this.steps[$("place").valueAsNumber];
    $("at").textContent = `step ${whole(step)}`;
    for (const id of [...this.figures.keys()]) if (!this.grids.has(id)) this.figures.delete(id);
    for (const [id, { colour, steps }] of this.grids) {
      const own = steps.findLast((one) => one <= step) ?? steps[0];
      const key = `${own} ${colour}`;
      const before = this.figures.get(id);
      if (before?.key === key) continue;
      const shown = { key };
      shown.figure = figureOf(id, colour, own, before?.figure, () => (shown.key = null)); // ask again at the next painting
      this.figures.set(id, shown);
    }
    const figures = [...this.grids.keys()].map((id) => this.figures.get(id).figure);
    const now = [...$("grids").children];
    if (figures.length !== now.length || figures.some((figure, i) => figure !== now[i])) $("grids").replaceChildren(...figures);
  }
}

/** The figure of a run at a step. The picture that was there before stays until the next has come; `failed` is told if
 * it does not come.
 */
function figureOf(id, colour, step, before, failed) {
  const told = step === undefined ? "" : `step ${whole(step)}`;
  const caption = element("figcaption", {}, element("i", { of: colour }), element("span", { title: id }, id), element("small", {}, told));
  if (step === undefined) return element("figure", {}, caption, element("div", { className: "none" }, "no grids"));
  const picture = before?.querySelector("img") ?? element("img");
  picture.alt = `samples of ${id} at step ${whole(step)}`;
  picture.dataset.step = step;
  const show = (url) => picture.dataset.step === String(step) && (picture.src = url);
  const complain = () => {
    caption.lastChild.textContent = "not there any more";
    failed();
  };
  api.grid(id, step).then(show, complain);
  return element("figure", {}, caption, picture);
}

function nearest(steps, step) {
  const after = steps.findIndex((one) => one >= step);
  return after < 0 ? steps.length - 1 : after;
}

/** The table of settings, a column for each run. */
export function showDifferences(told, colours) {
  const keys = Object.entries(told.keys);
  $("settings").hidden = told.runs.length < 2;
  const head = told.runs.map((id) => element("th", {}, element("i", { of: colours.get(id) }), id));
  const rows = keys.map(([key, values]) => element("tr", {}, element("td", {}, key), ...values.map(cell)));
  if (!rows.length) rows.push(element("tr", {}, element("td", { colSpan: told.runs.length + 1 }, "none")));
  $("differences").replaceChildren(element("tr", {}, element("th"), ...head), ...rows);
}

function cell(value) {
  if (value === null) return element("td", { className: "absent" }, "not set");
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return element("td", { title: text }, text.length > 160 ? `${text.slice(0, 160)}…` : text);
}
