// The list of runs: one row each, kept while its figures change.

import * as api from "./api.js";
import { precise } from "./chart.js";
import { $, ago, element, whole } from "./dom.js";

export class List {
  /** `toggled(id, on)` is told when a run is chosen or let go. */
  constructor(toggled) {
    this.toggled = toggled;
    this.rows = new Map();
    this.runs = [];
    this.seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) if (isIntersecting) this.picture(this.rows.get(target.dataset.id));
    });
    $("filter").addEventListener("input", () => this.arrange());
    $("sort").addEventListener("change", () => this.arrange());
  }

  show(runs) {
    this.runs = runs;
    const there = new Set(runs.map((run) => run.id));
    for (const [id, row] of this.rows) {
      if (there.has(id)) continue;
      row.line.remove();
      this.rows.delete(id);
    }
    for (const run of runs) this.fill(this.rows.get(run.id) ?? this.row(run.id), run);
    this.arrange();
  }

  row(id) {
    const row = { id, box: element("input", { type: "checkbox" }), thumb: element("img", { className: "thumb", alt: "" }) };
    row.name = element("span", { className: "name" }, ...breakable(id));
    row.state = element("span", { className: "state" });
    row.rest = element("span");
    row.bar = element("i");
    row.done = element("span", { className: "done" }, row.bar);
    row.loss = element("span", { className: "loss" });
    row.report = element("a", { className: "report", target: "_blank", rel: "noopener" }, "report");
    row.report.setAttribute("aria-label", `Report of ${id}`);
    const what = element("span", { className: "what" }, row.name, element("span", { className: "how" }, row.state, row.rest), row.done);
    row.line = element("li", {}, element("label", {}, row.box, row.thumb, what, row.loss));
    row.line.dataset.id = id;
    row.box.addEventListener("change", () => this.toggled(id, row.box.checked));
    this.rows.set(id, row);
    this.seen.observe(row.line);
    return row;
  }

  fill(row, run) {
    row.run = run;
    row.line.dataset.state = run.state;
    row.line.title = run.reason;
    row.state.textContent = run.state;
    row.rest.textContent = run.state === "failed" && run.reason ? `: ${run.reason}` : `, ${progress(run)}`;
    row.done.hidden = !(run.step && run.max_steps);
    if (!row.done.hidden) row.bar.style.width = `${Math.min(100, (100 * run.step) / run.max_steps)}%`;
    const [train, val] = [run.figures["train/loss"], run.figures["val/loss"]];
    const small = element("small", {}, val === undefined ? (train === undefined ? "" : "train/loss") : `val ${precise(val)}`);
    row.loss.replaceChildren(train === undefined ? "" : precise(train), small, ...(run.report ? [row.report] : []));
    if (run.report) row.report.href = run.report;
    if (row.visible) this.picture(row);
  }

  /** The newest grid of a row that is in view, once. */
  picture(row) {
    if (!row) return;
    row.visible = true;
    const step = row.run?.grid ?? null;
    if (step === null || row.shown === step) return;
    row.shown = step;
    api.grid(row.id, step, { small: true }).then((url) => (row.thumb.src = url), () => (row.shown = null));
  }

  arrange() {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const by = $("sort").value;
    const kept = this.runs.filter((run) => words.every((word) => `${run.id} ${run.state}`.toLowerCase().includes(word)));
    kept.sort((a, b) => order(by, a, b));
    const lines = kept.map((run) => this.rows.get(run.id).line);
    const now = [...$("runs").children];
    if (lines.length !== now.length || lines.some((line, i) => line !== now[i])) $("runs").replaceChildren(...lines);
    $("none").hidden = this.runs.length > 0;
  }

  mark(colours) {
    for (const [id, row] of this.rows) {
      row.box.checked = colours.has(id);
      if (colours.has(id)) row.line.style.setProperty("--of", `var(--c${colours.get(id)})`);
      else row.line.style.removeProperty("--of");
    }
  }
}

/** `step 310 of 800`; of a run that came to its end, when that was. */
function progress(run) {
  if (run.step === null) return "no steps yet";
  if (run.state === "finished") return `step ${whole(run.step)}, ${ago(Date.now() / 1000 - run.updated)}`;
  return `step ${whole(run.step)}${run.max_steps ? ` of ${whole(run.max_steps)}` : ""}`;
}

/** A name that may break after its slashes and dashes. */
function breakable(name) {
  return name.split(/(?<=[/_-])/).flatMap((part) => [part, element("wbr")]);
}

/** Runs that go on come first and keep their places, since all of them are the newest in turn. */
function order(by, a, b) {
  const names = a.id.localeCompare(b.id, "en", { numeric: true });
  if (by === "id") return names;
  if (by !== "updated") return (a.figures[by] ?? Infinity) - (b.figures[by] ?? Infinity) || names;
  const running = (b.state === "running") - (a.state === "running");
  return running || (a.state === "running" ? names : b.updated - a.updated) || names;
}
