// One work, looked at closely: large, with its story and what it looked like on the way.

import { asCurl, asPython, element, labelOf } from "./label.js";
import { dataUrl, fit, widthWithin } from "./pixels.js";

const $ = (id) => document.getElementById(id);

export class Viewer {
  #work = null;
  #shown = []; // per picture: which look is on the stage, null for the finished one

  /** `works()` gives the works there are; `deeds` are vary, download, enlarge, reuse and remove, each of a work. */
  constructor({ works, deeds }) {
    this.works = works;
    this.deeds = deeds;
    this.dialog = $("viewer");
    $("close").addEventListener("click", () => this.dialog.close());
    $("previous").addEventListener("click", () => this.walk(-1));
    $("next").addEventListener("click", () => this.walk(1));
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside it
    });
    this.dialog.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const keys = {
        ArrowLeft: () => this.walk(-1),
        ArrowRight: () => this.walk(1),
        d: () => this.#do("download"),
        v: () => this.#do("vary"),
      };
      if (!keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    addEventListener("resize", () => this.dialog.open && this.#fit());
  }

  get open() {
    return this.dialog.open;
  }

  show(work) {
    this.#work = work;
    this.#shown = work.panels.map(() => null);
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    this.#stage();
    $("viewer-title").replaceChildren(...labelOf(work.caption));
    $("facts").replaceChildren(this.#facts());
    this.#film();
    this.#buttons();
    const all = this.#finished();
    $("place").textContent = `${all.indexOf(work) + 1} of ${all.length}`;
    $("previous").disabled = all[0] === work;
    $("next").disabled = all.at(-1) === work;
    const focused = document.activeElement;
    if (!this.dialog.contains(focused) || focused.disabled) this.dialog.focus(); // else the keys go astray
  }

  walk(by) {
    const all = this.#finished();
    const there = all[all.indexOf(this.#work) + by];
    if (there) this.show(there);
  }

  #finished() {
    return this.works().filter((work) => work.panels.every((panel) => panel.state === "done"));
  }

  #do(deed) {
    const work = this.#work;
    if (deed !== "download" && deed !== "enlarge") this.dialog.close();
    this.deeds[deed](work);
  }

  #stage() {
    const pair = this.#work.panels.length > 1;
    const pictures = this.#work.panels.map((panel, place) => {
      const look = this.#shown[place];
      const base64 = look === null ? panel.image : panel.looks[look];
      const image = element("img", { src: dataUrl(base64), alt: `${this.#work.caption}, seed ${panel.seed}` });
      image.decode().then(() => this.#fit(), () => {});
      const caption = pair ? element("figcaption", { className: "version" }, element("b", {}, "AB"[place])) : null;
      return element("figure", { className: "frame" }, image, caption);
    });
    $("stage").replaceChildren(...pictures);
  }

  /** As large as the stage lets the pictures be, each of them whole. */
  #fit() {
    const images = [...$("stage").querySelectorAll("img")].filter((image) => image.naturalWidth);
    const stage = getComputedStyle($("stage"));
    const widthPx = $("stage").clientWidth - Number.parseFloat(stage.paddingLeft) - Number.parseFloat(stage.paddingRight);
    const heightPx = $("stage").clientHeight - Number.parseFloat(stage.paddingTop) - Number.parseFloat(stage.paddingBottom);
    const spare = images.length > 1 ? 96 : 56; // frames, gap and the letters below
    const [eachPx, highPx] = [(widthPx - spare) / images.length, heightPx - spare].map((px) => Math.max(64, px));
    for (const image of images) fit(image, widthWithin(image, eachPx, highPx));
  }

  #facts() {
    const { panels, caption, created } = this.#work;
    const rows = [
      ["Seed", (panel) => panel.seed],
      ["Steps", (panel) => panel.settings.steps],
      ["Guidance", (panel) => panel.settings.guidance],
      ["Sampler", (panel) => panel.settings.sampler],
      ["Size", (panel) => panel.settings.size],
      ["Without", (panel) => panel.settings.negative],
      ["Took", (panel) => (panel.tookS ? `${panel.tookS.toFixed(1)} s` : "")],
    ];
    const table = element("table", { className: "facts" });
    if (panels.length > 1) table.append(element("tr", {}, element("th"), element("th", {}, "A"), element("th", {}, "B")));
    for (const [name, of] of rows) {
      const values = panels.map((panel) => String(of(panel) ?? ""));
      if (!values.some(Boolean)) continue;
      const cells = values.map((value) => element("td", {}, value || "-"));
      const row = element("tr", {}, element("th", { scope: "row" }, name), ...cells);
      row.classList.toggle("differs", new Set(values).size > 1 && name !== "Took");
      table.append(row);
    }
    const when = new Date(created).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const story = element("p", { className: "recipe" }, `Painted at ${when}`);
    return element("div", {}, element("p", { className: "caption" }, caption), table, story);
  }

  /** Each look it had on the way; a press puts it on the stage. */
  #film() {
    const strips = this.#work.panels.map((panel, place) => {
      const frames = [...panel.looks.map((base64, look) => [base64, look]), [panel.image, null]];
      return frames.map(([base64, look]) => {
        const image = element("img", { src: dataUrl(base64), alt: look === null ? "finished" : `look ${look + 1}` });
        image.decode().then(() => fit(image, 48), () => {});
        const button = element("button", { type: "button", className: "picture" }, image);
        button.setAttribute("aria-pressed", String(this.#shown[place] === look));
        button.addEventListener("click", () => {
          this.#shown[place] = look;
          this.#stage();
          for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
        });
        return button;
      });
    });
    const rows = strips.filter((strip) => strip.length > 1).map((strip) => element("div", {}, ...strip));
    $("film").hidden = !rows.length;
    $("film").replaceChildren(element("h3", {}, "How it came about"), ...rows);
  }

  #buttons() {
    const copy = (words, text) => {
      const button = element("button", { type: "button", className: "quiet" }, words);
      button.addEventListener("click", async () => {
        const copied = await toClipboard(this.#work.panels.map((panel) => text(this.#work.caption, panel)).join("\n"));
        button.textContent = copied ? "Copied" : "Cannot copy here";
        setTimeout(() => (button.textContent = words), 1600);
      });
      return button;
    };
    const deed = (words, name, className = "") => {
      const button = element("button", { type: "button", className, onclick: () => this.#do(name) }, words);
      button.dataset.deed = name;
      return button;
    };
    $("viewer-deeds").replaceChildren(
      deed("Download", "download"),
      deed("Vary", "vary"),
      deed("Reuse", "reuse"),
      element("hr"),
      deed("Download large", "enlarge", "quiet"),
      copy("Copy as curl", asCurl),
      copy("Copy as Python", asPython),
      deed("Remove", "remove", "quiet"),
    );
  }
}

/** Whether `text` is on the clipboard now; an address other than https or localhost has none. */
async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
