// The watch page: asks every few seconds what is new, and shows it. What is looked at stands in the page's address.

import * as api from "./api.js";
import { Curves, Grids, showDifferences } from "./compare.js";
import { $, element } from "./dom.js";
import { Away, setToken } from "./http.js";
import { List } from "./list.js";

const LOOK_MS = 2000;
const COLOURS = 8; // and so many runs at a time
const FIRST = ["train/loss", "val/loss"];

const colours = new Map(); // of chosen runs, in the order of their choice
const view = { metrics: [], across: "step", smooth: 0.6, log: false };
const list = new List(toggled);
const curves = new Curves();
const grids = new Grids();
let told = null; // the last answer about curves

// ------------------------------------------------------------------------------------------------ what is looked at

function toggled(id, on) {
  if (on && colours.size === COLOURS) say(`At most ${COLOURS} runs at a time.`);
  else if (on) choose(id);
  else colours.delete(id);
  chosen();
}

function choose(id) {
  const taken = new Set(colours.values());
  colours.set(id, [...Array(COLOURS).keys()].find((colour) => !taken.has(colour)));
}

function chosen() {
  list.mark(colours);
  const items = [...colours].map(([id, colour]) => {
    const drop = element("button", { type: "button", title: "Leave it out" }, "×");
    drop.setAttribute("aria-label", `Leave out ${id}`);
    drop.addEventListener("click", () => toggled(id, false));
    return element("li", { of: colour }, element("i"), element("span", { title: id }, id), drop);
  });
  $("chosen").replaceChildren(...items);
  $("hint").hidden = colours.size > 0;
  $("compared").hidden = colours.size === 0;
  remember();
  compare();
}

function remember() {
  const words = new URLSearchParams();
  for (const id of colours.keys()) words.append("run", id);
  for (const metric of view.metrics) words.append("metric", metric);
  words.set("across", view.across);
  words.set("smooth", view.smooth);
  if (view.log) words.set("log", "1");
  history.replaceState(null, "", colours.size ? `#${words}` : location.pathname);
}

function recall() {
  const words = new URLSearchParams(location.hash.slice(1));
  view.metrics = words.getAll("metric");
  view.across = words.get("across") === "time" ? "time" : "step";
  view.smooth = Math.min(0.98, Math.max(0, Number.parseFloat(words.get("smooth") ?? "0.6") || 0));
  view.log = words.get("log") === "1";
  for (const id of words.getAll("run").slice(0, COLOURS)) choose(id);
  $("across").value = view.across;
  $("smooth").value = view.smooth;
  $("smoothed").textContent = view.smooth.toFixed(2);
  $("log").checked = view.log;
}

function showMetrics(names) {
  const key = names.join(" ");
  if ($("metrics").dataset.key !== key) listMetrics(names);
  $("metrics").dataset.key = key;
  for (const box of $("metrics").querySelectorAll("input")) box.checked = view.metrics.includes(box.value);
}

function listMetrics(names) {
  const labels = names.map((name) => {
    const box = element("input", { type: "checkbox", value: name });
    box.addEventListener("change", () => {
      view.metrics = names.filter((one) => $("metrics").querySelector(`input[value="${CSS.escape(one)}"]`).checked);
      remember();
      compare();
    });
    return element("label", {}, box, name);
  });
  $("metrics").replaceChildren($("metrics").firstElementChild, ...labels);
}

// ------------------------------------------------------------------------------------------------ asking and showing

let asked = 0;
let asking = false; // the newest question is under way

/** Ask about the chosen runs, and draw: with `anew` also when nothing is new. An answer that another question has
 * overtaken is not shown, so a look without `anew` asks nothing while a question is under way.
 */
async function compare({ anew = true } = {}) {
  if (asking && !anew) return;
  const mine = ++asked;
  const ids = [...colours.keys()];
  asking = ids.length > 0;
  if (!asking) return;
  try {
    const { value, news } = await api.curves(ids, view.metrics);
    if (mine !== asked || !(news || anew)) return;
    told = value;
    if (!view.metrics.some((name) => told.metrics.includes(name)) && told.metrics.length) {
      const first = FIRST.filter((name) => told.metrics.includes(name));
      view.metrics = first.length ? first : told.metrics.slice(0, 1);
      remember();
      compare();
      return;
    }
    showMetrics(told.metrics);
    draw();
    const { value: differing } = await api.differences(ids);
    if (mine === asked) showDifferences(differing, colours);
  } catch (error) {
    if (mine === asked) trouble(error);
  } finally {
    if (mine === asked) asking = false;
  }
}

function draw() {
  if (!told) return;
  curves.show(told, colours, view);
  grids.show(told, colours);
}

async function look() {
  try {
    const { value, news } = await api.runs();
    $("pulse").dataset.state = "up";
    $("banner").hidden = true;
    $("lock").hidden = true;
    if (news) showRuns(value);
    await compare({ anew: false });
  } catch (error) {
    trouble(error);
  }
}

let begun = false;

function showRuns({ root, runs }) {
  const going = runs.filter((run) => run.state === "running").length;
  $("root").textContent = root;
  document.title = `runs in ${root}`;
  $("tally").textContent = `${runs.length} ${runs.length === 1 ? "run" : "runs"}${going ? `, ${going} running` : ""}`;
  list.show(runs);
  const there = new Set(runs.map((run) => run.id));
  const gone = [...colours.keys()].filter((id) => !there.has(id));
  for (const id of gone) colours.delete(id);
  const first = !begun && !colours.size && runs.length; // something to begin with: the run that wrote last
  if (first) choose(runs[0].id);
  begun ||= runs.length > 0;
  if (gone.length || first) chosen();
  else list.mark(colours);
}

function trouble(error) {
  if (error.status === 401) {
    $("lock").hidden = false;
    $("tally").textContent = "a token is needed";
    return;
  }
  $("pulse").dataset.state = "away";
  say(error instanceof Away ? "The server does not answer. What is shown may be old." : error.message ?? String(error));
  if (!(error instanceof Away) && !error.status) throw error;
}

function say(text) {
  $("banner").textContent = text;
  $("banner").hidden = false;
}

// ------------------------------------------------------------------------------------------------ dials and time

$("across").addEventListener("change", () => ((view.across = $("across").value), remember(), draw()));
$("log").addEventListener("change", () => ((view.log = $("log").checked), remember(), draw()));
$("smooth").addEventListener("input", () => {
  view.smooth = $("smooth").valueAsNumber;
  $("smoothed").textContent = view.smooth.toFixed(2);
  remember();
  draw();
});
$("lock").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken($("token").value.trim());
  look();
});

async function again() {
  try {
    if (document.visibilityState === "visible") await look();
  } finally {
    setTimeout(again, LOOK_MS); // whatever came of this look
  }
}
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && look());
recall();
if (colours.size) chosen();
again();
