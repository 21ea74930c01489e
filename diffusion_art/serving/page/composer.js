// The form: a caption, typed or composed from parts, and the settings to paint it with.

import { PARTS, captionOf, element, partsOf } from "./label.js";
import { keepForm, keptForm } from "./store.js";

const $ = (id) => document.getElementById(id);
const LISTS = { artists: "artists", titles: "titles", styles: "styles", genres: "genres", dates: "dates" };
const VERSIONS = ["a", "b"];
const SHOWN = 400; // suggestions in a list; a browser slows down on thousands
const ROOMY = matchMedia("(min-width: 60rem)");

export class Composer {
  #prompts = [];
  #choices = {};
  #samplers = [];
  #sizes = [];
  #defaults = { steps: 20, guidance: 1, sampler: "" };
  #kept = keptForm();

  /** `onPaint(order)` and `onStop()` are called when the form says so. */
  constructor({ onPaint, onStop }) {
    const form = $("form");
    this.onPaint = onPaint;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    $("stop").addEventListener("click", onStop);
    $("surprise").addEventListener("click", () => this.surprise());
    $("caption").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault(); // a caption is one line
        this.submit();
      }
    });
    $("caption").addEventListener("input", () => this.#captionChanged());
    for (const name of PARTS) $(name).addEventListener("input", () => this.#partsChanged());
    $("compare").addEventListener("change", () => this.#compareChanged());
    for (const range of form.querySelectorAll("input[type=range]")) tie(range, $(range.dataset.for));
    form.addEventListener("change", () => keepForm(this.#state()));
    form.addEventListener("input", () => this.#sum());
    if (this.#kept) this.#restore(this.#kept);
    $("dials").open = ROOMY.matches; // a phone shows the pictures first
  }

  /** What is served: its defaults where nothing was chosen yet, its samplers, its limits. */
  setModel(model) {
    const { defaults = {}, limits = {}, samplers = [] } = model;
    this.#defaults = {
      steps: defaults.num_inference_steps ?? 20,
      guidance: defaults.guidance_scale ?? 1,
      sampler: defaults.sampler ?? samplers[0] ?? "",
    };
    this.#samplers = samplers;
    this.#setSizes(model);
    for (const part of [$("count"), document.querySelector('[data-for="count"]')]) part.max = limits.n ?? 10;
    put($("count"), $("count").value); // the slider stands elsewhere on another scale
    $("caption").maxLength = limits.prompt_characters ?? 1000;
    for (const version of VERSIONS) {
      $(`steps-${version}`).max = limits.num_inference_steps ?? 200;
      $(`guidance-${version}`).max = limits.guidance_scale ?? 20;
      const select = $(`sampler-${version}`);
      const chosen = select.value || this.#kept?.[version]?.sampler;
      select.replaceChildren(...samplers.map((name) => element("option", {}, name)));
      select.value = samplers.includes(chosen) ? chosen : this.#defaults.sampler;
      select.disabled = samplers.length < 2;
    }
    for (const [id, name] of [["steps-a", "steps"], ["guidance-a", "guidance"]]) {
      if ($(id).value === "") put($(id), this.#defaults[name]);
    }
    this.#sum();
  }

  /** What the training set knows; lists that are empty are not shown. */
  setSuggestions({ template = "", years = [], prompts = [], ...lists }) {
    const [first, last = first] = years;
    const dates = first === undefined ? [] : Array.from({ length: last - first + 1 }, (_, i) => String(first + i));
    const choices = { ...lists, dates };
    this.#choices = choices;
    this.#prompts = prompts;
    let known = 0;
    for (const [name, list] of Object.entries(LISTS)) {
      const values = (choices[name] ?? []).slice(0, SHOWN);
      known += values.length;
      $(list).replaceChildren(...values.map((value) => element("option", { value })));
    }
    const composable = known > 0 && template === PARTS.map((name) => `{${name}}`).join(" / ");
    $("parts").hidden = !composable;
    $("parts").open ||= composable && ROOMY.matches;
    $("surprise").hidden = !(composable || this.#prompts.length);
    if (this.#prompts.length) $("caption").placeholder = this.#prompts[0];
  }

  /** Put a caption, and if given one version of the settings, or two, into the form. */
  set({ caption, versions = [], seed = null }) {
    $("caption").value = caption;
    this.#captionChanged();
    versions.forEach((settings, place) => this.#putSettings(VERSIONS[place], settings));
    if (versions.length) {
      $("negative").value = versions[0].negative ?? "";
      if (this.#sizes.includes(versions[0].size)) $("size").value = versions[0].size;
      $("compare").checked = versions.length > 1;
      this.#compareChanged();
    }
    if (seed !== null) $("seed").value = seed;
    keepForm(this.#state());
    this.#sum();
  }

  surprise() {
    const pick = (list) => list?.[Math.floor(Math.random() * list.length)] ?? "";
    const { artists, titles, styles, genres, dates } = this.#choices;
    const composed = captionOf({
      artist: pick(artists),
      title: pick(titles),
      style: pick(styles),
      genre: pick(genres),
      date: pick(dates),
    });
    this.set({ caption: pick(this.#prompts) || composed });
    this.submit();
  }

  submit() {
    const order = this.#order();
    if (order) this.onPaint(order);
  }

  /** How many pictures are asked for at a time. */
  get count() {
    return whole($("count"), 1);
  }

  /** Show a fault beside the caption, or none. */
  complain(message = "") {
    $("fault").textContent = message;
    if (message) $("caption").setAttribute("aria-invalid", "true");
    else $("caption").removeAttribute("aria-invalid");
  }

  focus() {
    $("caption").focus();
  }

  /** What to paint, or null where something is missing, which is then said and pointed to. */
  #order() {
    const caption = $("caption").value.replace(/\s+/g, " ").trim();
    if (!caption) {
      this.complain("Write a caption first: what should the picture show?");
      this.focus();
      return null;
    }
    this.complain();
    const versions = $("compare").checked ? VERSIONS : ["a"];
    const seed = $("seed").value === "" ? null : whole($("seed"), 0);
    return { caption, versions: versions.map((version) => this.#settings(version)), seed, count: this.count };
  }

  #settings(version) {
    return {
      steps: whole($(`steps-${version}`), this.#defaults.steps),
      guidance: decimal($(`guidance-${version}`), this.#defaults.guidance),
      sampler: $(`sampler-${version}`).value || this.#defaults.sampler,
      negative: $("negative").value.trim(),
      ...(this.#sizes.length > 1 && { size: $("size").value }),
    };
  }

  /** The sizes that the model was trained on; no choice where there is but one. */
  #setSizes({ size, painted_sizes: sizes = [] }) {
    const chosen = $("size").value || this.#kept?.a?.size;
    this.#sizes = sizes;
    $("size").replaceChildren(...sizes.map((name) => element("option", {}, name)));
    $("size").value = sizes.includes(chosen) ? chosen : size;
    for (const part of [$("size"), document.querySelector('label[for="size"]')]) part.hidden = sizes.length < 2;
  }

  #putSettings(version, { steps, guidance, sampler }) {
    put($(`steps-${version}`), steps);
    put($(`guidance-${version}`), guidance);
    if (this.#samplers.includes(sampler)) $(`sampler-${version}`).value = sampler;
  }

  /** The settings in a few words, for where they are folded away. */
  #sum() {
    const { steps, guidance } = this.#settings("a");
    const count = $("count").value || 1;
    const words = [`${steps} steps`, `guidance ${guidance}`, count > 1 && `${count} pictures`];
    if ($("compare").checked) words.push("compared");
    $("gist").textContent = `: ${words.filter(Boolean).join(", ")}`;
  }

  /** A caption that is not made of parts is the title, so that it stays when another part is filled in. */
  #captionChanged() {
    this.complain();
    const parts = partsOf($("caption").value) ?? { title: $("caption").value };
    for (const name of PARTS) $(name).value = parts[name] ?? "";
  }

  #partsChanged() {
    this.complain();
    $("caption").value = captionOf(Object.fromEntries(PARTS.map((name) => [name, $(name).value])));
  }

  #compareChanged() {
    const comparing = $("compare").checked;
    $("version-b").hidden = !comparing;
    if (comparing && $("steps-b").value === "") {
      const first = this.#settings("a"); // something to compare with: a quarter of the steps
      this.#putSettings("b", { ...first, steps: Math.max(1, Math.round(first.steps / 4)) });
    }
  }

  #state() {
    const fields = ["caption", "seed", "negative", "count"].map((id) => [id, $(id).value]);
    const written = Object.fromEntries(fields);
    return { ...written, compare: $("compare").checked, a: this.#settings("a"), b: this.#settings("b") };
  }

  #restore(kept) {
    for (const id of ["caption", "seed", "negative"]) $(id).value = kept[id] ?? "";
    put($("count"), kept.count || 1);
    this.#captionChanged();
    this.#putSettings("a", kept.a);
    $("compare").checked = kept.compare;
    if (kept.compare) this.#putSettings("b", kept.b);
    this.#compareChanged();
  }
}

/** A slider and a number that say the same. */
function tie(range, number) {
  const follow = () => {
    range.value = number.value;
    const full = (range.value - range.min) / (range.max - range.min);
    range.style.setProperty("--full", `${100 * full}%`);
  };
  range.addEventListener("input", () => put(number, range.value));
  number.addEventListener("input", follow);
  follow();
}

function put(number, value) {
  number.value = value;
  number.dispatchEvent(new Event("input"));
}

function decimal(number, otherwise) {
  const value = Number.parseFloat(number.value);
  if (!Number.isFinite(value)) return otherwise;
  const inside = Math.min(Number(number.max), Math.max(Number(number.min), value));
  if (inside !== value) put(number, inside);
  return inside;
}

function whole(number, otherwise) {
  const value = Math.round(decimal(number, otherwise));
  if (number.value !== "" && Number(number.value) !== value) put(number, value);
  return value;
}
