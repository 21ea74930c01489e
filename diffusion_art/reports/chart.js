// Line charts as SVG: axes with round numbers, a legend above, the values under the pointer. Colours come from CSS.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 58, RIGHT = 14, TOP = 8, BOTTOM = 38;

/** A chart in `element`. `show(lines, options)` draws it, again whenever its width changes.
 *
 * A line is `{label, colour, x, y}`, the colour a number from 0 to 7, and may have `low` and `high` (a band), `faint`
 * (behind the others, without a legend) and `dots`. Options: `title`, `across` (what x is), `hours` (x is in seconds),
 * `log`, `zero` (y begins at 0), `height`, and `legend: false` where colours are explained elsewhere.
 */
export class Chart {
  constructor(element) {
    this.element = element;
    element.classList.add("chart");
    this.width = 0;
    new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width && width !== this.width && this.lines) this.draw();
    }).observe(element);
  }

  show(lines, options = {}) {
    this.lines = lines.filter((line) => line.x.length);
    this.options = options;
    this.draw();
  }

  draw() {
    const { title, height = 250 } = this.options;
    this.width = Math.floor(this.element.clientWidth);
    const parts = [];
    if (title) parts.push(node("figcaption", {}, title));
    if (!this.lines.length) {
      parts.push(node("div", { class: "none" }, "no values yet"));
    } else {
      if (this.options.legend !== false) parts.push(this.legend());
      this.svg = svg("svg", { width: this.width, height, viewBox: `0 0 ${this.width} ${height}`, role: "img" });
      this.svg.setAttribute("aria-label", `${title ?? "curves"}: ${this.lines.map((line) => line.label).join(", ")}`);
      this.scales(height);
      this.axes(height);
      for (const line of this.lines) this.line(line);
      this.cross = this.svg.appendChild(svg("line", { class: "cross", y1: TOP, y2: height - BOTTOM, visibility: "hidden" }));
      this.svg.addEventListener("pointermove", ({ clientX }) => this.point(clientX));
      this.svg.addEventListener("pointerleave", () => this.leave());
      this.tip = node("div", { class: "tip", hidden: "" });
      parts.push(this.svg, this.tip);
    }
    this.element.replaceChildren(...parts);
    if (this.under && this.lines.length) this.point(this.under); // the pointer has not moved, and what is under it may have
  }

  legend() {
    const list = node("ul", { class: "legend" });
    for (const line of this.lines) {
      if (line.faint) continue;
      const mark = node("i", { class: line.dots ? "dots" : "", of: line.colour });
      const item = node("li", {});
      item.append(mark, line.label);
      list.append(item);
    }
    return list;
  }

  scales(height) {
    const drawn = this.lines.filter((line) => !line.faint).map((line) => line.y);
    const log = this.options.log && drawn.flat().some((y) => y > 0);
    const [low, high] = range(drawn.length ? drawn : this.lines.map((line) => line.y), { ...this.options, log });
    let [left, right] = [Infinity, -Infinity];
    for (const { x } of this.lines) [left, right] = [Math.min(left, x[0]), Math.max(right, x[x.length - 1])];
    if (left > 0 && left < 0.25 * right) left = 0;
    if (left === right) [left, right] = [left - 1, right + 1];
    const across = this.width - LEFT - RIGHT, down = height - TOP - BOTTOM;
    const to = log ? Math.log10 : (value) => value;
    this.domain = { left, right, low, high, log };
    this.px = (x) => LEFT + ((x - left) / (right - left)) * across;
    this.py = (y) => {
      if (log && !(y > 0)) return height - BOTTOM;
      const share = (to(y) - to(low)) / (to(high) - to(low));
      return TOP + (1 - Math.min(1.02, Math.max(-0.02, share))) * down;
    };
  }

  axes(height) {
    const { left, right, low, high, log } = this.domain;
    const base = height - BOTTOM;
    for (const tick of log ? decades(low, high) : ticks(low, high, 5)) {
      const y = Math.round(this.py(tick)) + 0.5;
      this.svg.append(svg("line", { class: "rule", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }));
      this.svg.append(svg("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, short(tick)));
    }
    this.svg.append(svg("line", { class: "axis", x1: LEFT, x2: this.width - RIGHT, y1: base + 0.5, y2: base + 0.5 }));
    const { unit, size, name } = this.options.hours ? span(right) : { unit: "", size: 1, name: this.options.across ?? "step" };
    const many = Math.max(2, Math.floor((this.width - LEFT - RIGHT) / 90));
    for (const tick of ticks(left / size, right / size, many)) {
      const x = this.px(tick * size);
      this.svg.append(svg("line", { class: "axis", x1: x, x2: x, y1: base, y2: base + 4 }));
      this.svg.append(svg("text", { x, y: base + 18, "text-anchor": "middle" }, short(tick)));
    }
    const told = this.options.hours ? `time trained, ${unit || name}` : name;
    this.svg.append(svg("text", { x: this.width - RIGHT, y: base + 34, "text-anchor": "end" }, told));
  }

  line(line) {
    const of = { of: line.colour };
    if (line.low) {
      const there = line.x.map((x) => this.px(x).toFixed(1));
      const up = line.high.map((y, i) => `${there[i]},${this.py(y).toFixed(1)}`);
      const down = line.low.map((y, i) => `${there[i]},${this.py(y).toFixed(1)}`).reverse();
      this.svg.append(svg("path", { class: "band", d: `M${up.join("L")}L${down.join("L")}Z`, ...of }));
    }
    const d = line.x.map((x, i) => `${i ? "L" : "M"}${this.px(x).toFixed(1)},${this.py(line.y[i]).toFixed(1)}`).join("");
    this.svg.append(svg("path", { class: line.faint ? "faint" : "", d, ...of }));
    if ((line.dots && line.x.length < 60) || line.x.length === 1) {
      line.x.forEach((x, i) => this.svg.append(svg("circle", { cx: this.px(x), cy: this.py(line.y[i]), r: 3.5, ...of })));
    }
  }

  point(clientX) {
    this.under = clientX;
    const box = this.svg.getBoundingClientRect();
    const x = this.domain.left + ((clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * (this.domain.right - this.domain.left);
    const near = this.lines.filter((line) => !line.faint).map((line) => ({ line, i: nearest(line.x, x) }));
    const at = near.map(({ line, i }) => line.x[i]).sort((a, b) => Math.abs(a - x) - Math.abs(b - x))[0];
    this.cross.setAttribute("x1", this.px(at));
    this.cross.setAttribute("x2", this.px(at));
    this.cross.setAttribute("visibility", "visible");
    const { unit, size } = this.options.hours ? span(this.domain.right) : { unit: this.options.across ?? "step", size: 1 };
    const head = node("b", {}, this.options.hours ? `${precise(at / size)} ${unit}` : `${unit} ${Math.round(at).toLocaleString("en")}`);
    const rows = near.map(({ line, i }) => {
      const row = node("div", {});
      row.append(node("i", { of: line.colour }), node("span", {}, line.label), node("b", {}, precise(line.y[i])));
      return row;
    });
    this.tip.replaceChildren(head, ...rows);
    this.tip.hidden = false;
    const beside = this.px(at) + 12;
    const left = beside + this.tip.offsetWidth > this.width ? this.px(at) - 12 - this.tip.offsetWidth : beside;
    this.tip.style.transform = `translate(${Math.max(0, left)}px, ${this.svg.offsetTop ?? this.svg.parentElement.offsetHeight - box.height}px)`;
  }

  leave() {
    this.under = null;
    this.tip.hidden = true;
    this.cross.setAttribute("visibility", "hidden");
  }
}

/** An exponential running mean that is right from its first value on; `weight` from 0 (none) to below 1. */
export function smooth(y, weight) {
  if (!weight) return y;
  let mean = 0, trust = 0;
  return y.map((value) => {
    mean = weight * mean + (1 - weight) * value;
    trust = weight * trust + (1 - weight);
    return mean / trust;
  });
}

/** The y of a line at x, between its neighbours on a straight line. */
export function between(xs, ys, x) {
  if (x <= xs[0]) return ys[0];
  if (x >= xs[xs.length - 1]) return ys[ys.length - 1];
  let [low, high] = [0, xs.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle;
    else high = middle;
  }
  return ys[low] + ((x - xs[low]) / (xs[high] - xs[low])) * (ys[high] - ys[low]);
}

/** A number as people write it: 12,300; 4.57; 0.0123; 3e-5. */
export function precise(value) {
  if (!Number.isFinite(value)) return "";
  if (value && Math.abs(value) < 1e-3) return value.toExponential(2).replace("e-", "e\u2212");
  return Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });
}

function short(value) {
  if (value && Math.abs(value) < 1e-3) return value.toExponential().replace(/(\.\d\d)\d*/, "$1").replace("e-", "e\u2212");
  if (Math.abs(value) >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (Math.abs(value) >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  return Number(value.toPrecision(6)).toLocaleString("en", { maximumFractionDigits: 6 });
}

/** What is drawn of y: all of it, but for a few first or wild values far above the rest. */
function range(all, { log, zero }) {
  const values = all.flat().filter((y) => Number.isFinite(y) && (!log || y > 0)).sort((a, b) => a - b);
  if (!values.length) return [0, 1];
  let low = values[0], high = values[values.length - 1];
  const usual = values[Math.floor(0.98 * (values.length - 1))];
  if (!log && values.length > 40 && high - low > 3 * (usual - low)) high = low + 1.25 * (usual - low);
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  if (log) return [low / 1.1, high * 1.1];
  const margin = (high - low) * 0.06;
  return [zero || (low >= 0 && low < margin) ? Math.min(0, low) : low - margin, high + margin];
}

function ticks(low, high, many) {
  const rough = (high - low) / many, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

function decades(low, high) {
  const found = [];
  const factors = high / low > 300 ? [1] : high / low > 12 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of factors) {
      const tick = Number((factor * 10 ** power).toPrecision(6));
      if (tick >= low && tick <= high) found.push(tick);
    }
  }
  return found.length > 1 ? found : ticks(low, high, 4).filter((tick) => tick > 0);
}

function span(seconds) {
  if (seconds < 180) return { unit: "seconds", size: 1 };
  return seconds < 3 * 3600 ? { unit: "minutes", size: 60 } : { unit: "hours", size: 3600 };
}

function nearest(xs, x) {
  let [low, high] = [0, xs.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle;
    else high = middle;
  }
  return x - xs[low] < xs[high] - x ? low : high;
}

function svg(name, attributes, text) {
  return dressed(document.createElementNS(SVG, name), attributes, text);
}

function node(name, attributes, text) {
  return dressed(document.createElement(name), attributes, text);
}

function dressed(element, attributes, text) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "of") element.style.setProperty("--of", `var(--c${value % 8})`);
    else element.setAttribute(key, value);
  }
  if (text !== undefined) element.textContent = text;
  return element;
}
