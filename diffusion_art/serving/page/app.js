// The page: form, easel and wall joined, and an eye on whether the server is there.

import * as api from "./api.js";
import { Composer } from "./composer.js";
import { Easel, newPanel } from "./easel.js";
import { Away, setToken } from "./http.js";
import { element, fileName, labelOf } from "./label.js";
import { blobOf, download, enlarged, dataUrl, fit, noise } from "./pixels.js";
import { keepWorks, keptWorks } from "./store.js";
import { Viewer } from "./viewer.js";
import { Wall } from "./wall.js";

const $ = (id) => document.getElementById(id);
const LOOK_S = { up: 5, away: 1 }; // between two looks at the server
const IDEAS = 6;
const SEEDS = 2 ** 32; // as the server counts

let works = []; // the newest first
const workOf = new Map(); // panel -> work
let server = "asking"; // up, away
let ideas = [];
let sidePx = 32;
let saving = null;

const deeds = {
  open: (work) => viewer.show(work),
  vary: (work) => paint({ caption: work.caption, versions: versionsOf(work), seed: null, count: composer.count }),
  download: (work) => each(work, (panel, suffix) => download(blobOf(panel.image), fileName(work.caption, panel, { suffix }))),
  enlarge: (work) =>
    each(work, async (panel, suffix) => {
      const name = fileName(work.caption, panel, { suffix: `${suffix}_large` });
      download(await enlarged(dataUrl(panel.image)), name);
    }),
  reuse: (work) => {
    composer.set({ caption: work.caption, versions: versionsOf(work), seed: work.panels[0].seed });
    composer.focus();
  },
  remove: (work) => {
    const focused = $("works").contains(document.activeElement);
    works = works.filter((other) => other !== work);
    wall.take(work);
    changed();
    if (focused) ($("works").querySelector(".picture:enabled") ?? $("caption")).focus();
  },
  again: (work) => {
    for (const panel of work.panels.filter((one) => one.state !== "done")) easel.add(work.caption, [panel]);
  },
  stop: (work) => easel.stop(work.panels),
};

const wall = new Wall($("works"), deeds);
const viewer = new Viewer({ works: () => works, deeds });
const easel = new Easel({
  onChange: (panels) => {
    for (const panel of panels) clock(panel);
    for (const work of new Set(panels.map((panel) => workOf.get(panel)))) if (work) wall.refresh(work);
    changed();
  },
  onAway: () => look(),
  onLocked: (error) => {
    $("lock").hidden = false;
    $("token").focus();
    say(error.message);
  },
  onRefused: (error) => {
    if (error.param === "prompt") composer.complain(error.message);
    say(error.message);
  },
});
const composer = new Composer({ onPaint: paint, onStop: () => easel.stop() });

/** Begin `count` works of this caption, each in all of the versions, seeds from `seed` on; after the largest comes 0. */
function paint({ caption, versions, seed, count }) {
  const first = seed ?? Math.floor(Math.random() * 1_000_000);
  const begun = Array.from({ length: count }, (_, i) => ({
    caption,
    created: Date.now(),
    panels: versions.map((settings) => newPanel(settings, (first + i) % SEEDS)),
  }));
  hang(begun);
  say(`Painting ${count * versions.length === 1 ? "a picture" : `${count * versions.length} pictures`}`);
  versions.forEach((_, version) => easel.add(caption, begun.map((work) => work.panels[version])));
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("wall").scrollIntoView({ behavior: calm ? "auto" : "smooth" });
  $("wall").scrollTo({ top: 0 });
}

function hang(more) {
  works = [...more, ...works];
  for (const work of more) for (const panel of work.panels) workOf.set(panel, work);
  wall.hang(more);
  changed();
}

const versionsOf = (work) => work.panels.map((panel) => panel.settings);

function each(work, deed) {
  work.panels.forEach((panel, place) => deed(panel, work.panels.length > 1 ? `_${"ab"[place]}` : ""));
}

/** How long a picture took, from its beginning to its end. */
function clock(panel) {
  if (panel.state === "waiting") panel.begunMs = null;
  else if (panel.state === "painting") panel.begunMs ??= performance.now();
  else if (panel.state === "done" && panel.begunMs) panel.tookS ??= (performance.now() - panel.begunMs) / 1000;
}

/** What hangs on the state of the whole: counts, buttons, title, what is kept. */
function changed() {
  const panels = works.flatMap((work) => work.panels);
  const done = panels.filter((panel) => panel.state === "done").length;
  const open = panels.filter((panel) => panel.state === "painting" || panel.state === "waiting").length;
  $("stop").hidden = !open;
  $("clear").hidden = !works.length || open > 0;
  $("wall").classList.toggle("bare", !works.length);
  $("tally").textContent = `${done} ${done === 1 ? "picture" : "pictures"}${open ? `, ${open} to come` : ""}`;
  if (document.title.startsWith("(") && !open) say("Done");
  document.title = open ? `(${open}) diffusion_art` : "diffusion_art";
  clearTimeout(saving);
  saving = setTimeout(() => keepWorks(works), 300);
}

function say(news) {
  $("news").textContent = news;
}

// ------------------------------------------------------------------------------------------------ the server

let looking = null; // the look that is under way
let nextLook = null;

/** See whether the server is there, and act on it when that changed. One look at a time. */
function look() {
  looking ??= (async () => {
    clearTimeout(nextLook);
    try {
      if (!(await api.isUp())) away();
      else await up();
    } finally {
      looking = null;
      nextLook = setTimeout(look, 1000 * LOOK_S[server === "up" ? "up" : "away"]);
    }
  })();
  return looking;
}

function away() {
  easel.hold("away");
  if (server === "away") return;
  server = "away";
  const since = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const comfort = "Your pictures are kept; what was begun goes on when it is back.";
  $("banner").textContent = `The server has been away since ${since}. ${comfort}`;
  $("banner").hidden = false;
  $("pulse").dataset.state = "away";
}

async function up() {
  if (server !== "up" && !(await introduce())) return away();
  const back = server === "away";
  server = "up";
  $("banner").hidden = true;
  $("pulse").dataset.state = "up";
  easel.release("away");
  if (back) say("The server is back");
}

/** Learn what is served; false if the server went meanwhile. One that will not say paints all the same. */
async function introduce() {
  try {
    const model = await api.model();
    sidePx = Number.parseInt(model.size, 10) || sidePx;
    wall.sidePx = sidePx;
    composer.setModel(model);
    const step = model.step ? `step ${model.step.toLocaleString("en")}` : "";
    $("model").textContent = [model.id, step, `${sidePx} px`].filter(Boolean).join(", ");
    $("trained").textContent = model.trained ?? "";
    $("better").textContent = model.better ?? "";
    $("about").hidden = !model.trained;
    const choices = await api.suggestions();
    composer.setSuggestions(choices);
    ideas = (choices.prompts ?? []).slice(0, IDEAS);
    showIdeas();
  } catch (error) {
    if (error instanceof Away) return false;
    if (error.status === 401) $("lock").hidden = false;
    $("model").textContent = error.message;
  }
  return true;
}

/** Frames that wait for their pictures: captions to begin with. */
function showIdeas() {
  $("hint").textContent = ideas.length ? "Write a caption, or begin with one of these." : "Write a caption to begin.";
  $("ideas").replaceChildren(
    ...ideas.map((caption, place) => {
      const canvas = noise(place + 1, sidePx);
      fit(canvas, wall.tilePx, sidePx);
      const begin = element("button", { type: "button", className: "idea" });
      begin.append(element("span", { className: "frame" }, canvas), element("span", { className: "label" }, ...labelOf(caption)));
      begin.setAttribute("aria-label", `Paint: ${caption}`);
      begin.addEventListener("click", () => {
        composer.set({ caption });
        composer.submit();
      });
      return begin;
    }),
  );
}

// ------------------------------------------------------------------------------------------------ keys and switches

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || viewer.open || event.altKey) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) composer.submit();
  else if (event.key === "Escape" && easel.busy) easel.stop();
  else if (event.key === "/" && !event.target.closest("input, textarea, select")) {
    event.preventDefault();
    composer.focus();
  }
});

function unlock() {
  setToken($("token").value.trim());
  $("lock").hidden = true;
  server = "asking"; // introduce it again
  look().then(() => easel.release("locked"));
}
$("unlock").addEventListener("click", unlock);
$("token").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  unlock();
});

$("clear").addEventListener("click", () => {
  for (const work of works) wall.take(work);
  works = [];
  changed();
  composer.focus();
});

addEventListener("pagehide", () => keepWorks(works));
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && look());
hang(keptWorks());
look();
