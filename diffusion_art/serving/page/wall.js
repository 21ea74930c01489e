// The gallery: a frame for each work, a label beside it, the newest first. A work has one picture, or two side by side.

import { element, labelOf, settingsText } from "./label.js";
import { dataUrl, fit, fitted, noise } from "./pixels.js";

const TILE_PX = 256; // a picture on the wall is about this wide, on a phone as wide as there is room
const MAT_PX = 16; // between picture and frame, at least
const GAP_PX = 36; // between frames, as style.css has it

export class Wall {
  #frames = new Map(); // work -> its figure
  #sidePx = 32;
  #tilePx = TILE_PX;
  #pairPx = TILE_PX; // each of two side by side

  /** `deeds` are the functions open, vary, download, reuse, remove, again, stop, each of a work. */
  constructor(root, deeds) {
    this.root = root;
    this.deeds = deeds;
    new ResizeObserver(() => this.#measure()).observe(root.parentElement);
    root.addEventListener("keydown", (event) => this.#walk(event));
    this.#measure();
  }

  /** The model's own size, for pictures that are not there yet. */
  set sidePx(sidePx) {
    this.#sidePx = sidePx;
    this.#measure();
  }

  get tilePx() {
    return this.#tilePx;
  }

  /** Hang these works before all others. */
  hang(works) {
    const figures = works.map((work) => this.#figure(work));
    this.root.prepend(...figures);
    works.forEach((work) => this.refresh(work));
  }

  take(work) {
    this.#frames.get(work)?.remove();
    this.#frames.delete(work);
  }

  /** Bring a work's frame up to date. */
  refresh(work) {
    const figure = this.#frames.get(work);
    if (!figure) return;
    const states = work.panels.map((panel) => panel.state);
    figure.dataset.state = ["painting", "waiting", "failed", "stopped"].find((state) => states.includes(state)) ?? "done";
    figure.setAttribute("aria-busy", String(figure.dataset.state === "painting"));
    work.panels.forEach((panel, place) => this.#refreshPanel(work, panel, figure.querySelectorAll(".panel")[place]));
    const deeds = {
      done: [["Vary", "vary"], ["Download", "download"], ["Reuse", "reuse"], ["Remove", "remove"]],
      painting: [["Stop", "stop"]],
      waiting: [["Stop", "stop"]],
      failed: [["Paint again", "again"], ["Remove", "remove"]],
      stopped: [["Paint again", "again"], ["Remove", "remove"]],
    }[figure.dataset.state];
    const row = figure.querySelector(".actions");
    if (row.dataset.of === figure.dataset.state) return;
    row.dataset.of = figure.dataset.state;
    row.replaceChildren(
      ...deeds.map(([words, deed]) => {
        const button = element("button", { type: "button", className: "quiet", onclick: () => this.deeds[deed](work) }, words);
        button.dataset.deed = deed;
        button.setAttribute("aria-label", `${words}: ${work.caption}, seed ${work.panels[0].seed}`);
        return button;
      }),
    );
  }

  #figure(work) {
    const pair = work.panels.length > 1;
    const panels = work.panels.map((panel, place) => {
      const open = element("button", { type: "button", className: "picture", onclick: () => this.deeds.open(work, place) });
      open.append(noise(panel.seed, this.#sidePx));
      const bar = element("div", { className: "progress" }, element("i"));
      bar.setAttribute("role", "progressbar");
      bar.setAttribute("aria-label", "Painting");
      const note = element("p", { className: "note" });
      return element("div", { className: "panel" }, open, bar, note, pair ? this.#version(work, place) : null);
    });
    const recipe = pair ? `seed ${work.panels[0].seed}` : `seed ${work.panels[0].seed}, ${settingsText(work.panels[0].settings)}`;
    const figure = element(
      "figure",
      { className: pair ? "work pair" : "work" },
      element("div", { className: "frame" }, ...panels),
      element(
        "figcaption",
        { className: "label" },
        ...labelOf(work.caption),
        element("p", { className: "recipe" }, recipe),
        element("div", { className: "actions" }),
      ),
    );
    this.#frames.set(work, figure);
    return figure;
  }

  #version(work, place) {
    const [here, there] = [work.panels[place].settings, work.panels[1 - place].settings];
    return element("p", { className: "version" }, element("b", {}, "AB"[place]), ` ${settingsText(here, there)}`);
  }

  #refreshPanel(work, panel, shown) {
    const open = shown.querySelector(".picture");
    const bar = shown.querySelector(".progress");
    shown.dataset.state = panel.state;
    shown.querySelector(".note").textContent = panel.state === "stopped" ? "Stopped" : panel.note;
    bar.hidden = panel.state !== "painting";
    bar.setAttribute("aria-valuenow", String(Math.round(100 * panel.progress)));
    bar.firstChild.style.width = `${100 * Math.max(0.04, panel.progress)}%`;
    const what = panel.state === "done" ? "Look at" : "Not finished";
    open.setAttribute("aria-label", `${what}: ${work.caption}, seed ${panel.seed}, ${settingsText(panel.settings)}`);
    open.disabled = panel.state !== "done";
    const look = panel.image ? "final" : String(panel.looks.length);
    if (open.dataset.look !== look) this.#show(open, panel, look);
  }

  /** The newest look over the one before, which goes when the new one has come up. */
  #show(open, panel, look) {
    open.dataset.look = look;
    const base64 = panel.image ?? panel.looks.at(-1);
    const coming = base64 ? element("img", { src: dataUrl(base64), alt: "", draggable: false }) : noise(panel.seed, this.#sidePx);
    const hang = () => {
      if (open.dataset.look !== look) return; // a newer one was quicker
      this.#fit(coming, open);
      const before = [...open.children];
      open.append(coming);
      const clear = () => before.forEach((old) => old.remove());
      if (coming.getAnimations?.().length) coming.addEventListener("animationend", clear, { once: true });
      else clear();
    };
    if (base64) coming.decode().then(hang, hang);
    else hang();
  }

  #fit(shown, open) {
    fit(shown, open.closest(".pair") ? this.#pairPx : this.#tilePx, shown.naturalWidth || this.#sidePx);
  }

  /** As many columns as there is room for; what is left over widens the mats. */
  #measure() {
    const room = this.root.parentElement;
    const { paddingLeft, paddingRight } = getComputedStyle(room);
    const roomPx = room.clientWidth - Number.parseFloat(paddingLeft) - Number.parseFloat(paddingRight);
    const columns = Math.max(1, Math.floor((roomPx + GAP_PX) / (TILE_PX + 2 * MAT_PX + GAP_PX)));
    const framePx = Math.floor((roomPx - (columns - 1) * GAP_PX) / columns);
    this.#tilePx = fitted(columns > 1 ? framePx - 2 * MAT_PX : Math.min(384, framePx - 2 * MAT_PX), this.#sidePx);
    this.#pairPx = columns > 1 ? this.#tilePx : Math.floor((framePx - 3 * MAT_PX) / 2);
    const root = document.documentElement.style;
    root.setProperty("--columns", String(columns));
    root.setProperty("--mat-width", `${Math.min(2.5 * MAT_PX, Math.max(MAT_PX, (framePx - this.#tilePx) / 2))}px`);
    for (const figure of this.#frames.values()) {
      for (const shown of figure.querySelectorAll("img, canvas")) this.#fit(shown, shown.parentElement);
    }
    for (const canvas of document.querySelectorAll("#ideas canvas")) fit(canvas, this.#tilePx, this.#sidePx);
  }

  /** Arrow keys go to the nearest picture in their direction. */
  #walk(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const from = event.target.closest(".picture");
    if (!way || !from) return;
    const centre = (shown) => {
      const box = shown.getBoundingClientRect();
      return [box.x + box.width / 2, box.y + box.height / 2];
    };
    const [x, y] = centre(from);
    const reach = [...this.root.querySelectorAll(".picture:enabled")].flatMap((shown) => {
      const [along, aside] = centre(shown).map((at, axis) => at - [x, y][axis]);
      const ahead = along * way[0] + aside * way[1];
      const off = Math.abs(along * way[1]) + Math.abs(aside * way[0]);
      return ahead > 8 ? [{ shown, cost: ahead + 3 * off }] : [];
    });
    if (!reach.length) return;
    event.preventDefault();
    reach.reduce((best, next) => (next.cost < best.cost ? next : best)).shown.focus();
  }
}
