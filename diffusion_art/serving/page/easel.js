// What is being painted: a queue of requests, each of which paints one picture or more. Knows no page.
//
// A panel is one picture: { settings, seed, state, image, looks, progress, note }. Its states: waiting, painting, done,
// failed, stopped. A picture is a function of its request, so one that was cut off is asked for again.

import { paint } from "./api.js";
import { Away, Refused } from "./http.js";
import { requestOf } from "./label.js";

const ABREAST = 2; // requests at a time: a browser gives a host six connections, and the health check needs one
const TRIES = { away: 5, busy: 100 };
const BUSY_S = 10; // the longest wait for a busy server: queues empty faster than they fear

export const newPanel = (settings, seed) => ({
  settings,
  seed,
  state: "waiting",
  image: null, // the PNG as base64
  looks: [], // what it looked like on the way, likewise
  progress: 0,
  note: "",
});

export class Easel {
  #waiting = [];
  #running = new Set();
  #held = null; // why nothing is begun: "away" or "locked"
  #timer = null;

  /** `onChange(panels)`, `onAway()`, `onLocked()` and `onRefused(error)` tell the page. */
  constructor({ onChange, onAway, onLocked, onRefused }) {
    Object.assign(this, { onChange, onAway, onLocked, onRefused });
  }

  get busy() {
    return this.#waiting.length + this.#running.size > 0;
  }

  /** Paint these panels with one request: same caption, same settings, seeds that follow each other. */
  add(caption, panels) {
    this.#tell(panels, { state: "waiting", note: "", progress: 0 });
    this.#waiting.push({ caption, panels, tries: { away: 0, busy: 0 }, notBefore: 0 });
    this.#next();
  }

  /** Give up these panels, or all. A request ends once none of its panels is wanted. */
  stop(panels = null) {
    for (const job of [...this.#waiting, ...this.#running]) {
      const unwanted = job.panels.filter((panel) => panel.state !== "done" && (!panels || panels.includes(panel)));
      this.#tell(unwanted, { state: "stopped", note: "" });
      if (job.panels.every((panel) => panel.state === "done" || panel.state === "stopped")) job.control?.abort();
    }
    this.#waiting = this.#waiting.filter((job) => this.#unfinished(job).length);
    this.#next();
  }

  /** The server is gone: what runs is cut off, and waits. */
  hold(why) {
    this.#held = why;
    if (why === "away") for (const job of this.#running) job.control.abort();
  }

  release(why) {
    if (this.#held !== why) return;
    this.#held = null;
    this.#next();
  }

  #unfinished(job) {
    return job.panels.filter((panel) => panel.state === "waiting" || panel.state === "painting");
  }

  #tell(panels, change) {
    for (const panel of panels) Object.assign(panel, change);
    if (panels.length) this.onChange(panels);
  }

  #next() {
    clearTimeout(this.#timer);
    while (!this.#held && this.#running.size < ABREAST) {
      const due = this.#waiting.findIndex((job) => job.notBefore <= Date.now());
      if (due < 0) break;
      this.#run(...this.#waiting.splice(due, 1));
    }
    const soonest = Math.min(...this.#waiting.map((job) => job.notBefore));
    if (!this.#held && soonest > Date.now() && Number.isFinite(soonest)) {
      this.#timer = setTimeout(() => this.#next(), soonest - Date.now() + 5);
    }
  }

  async #run(job) {
    const [first] = job.panels;
    job.control = new AbortController();
    this.#running.add(job);
    this.#tell(this.#unfinished(job), { state: "painting", note: "", looks: [], progress: 0 });
    try {
      const request = requestOf(job.caption, first.settings, first.seed, job.panels.length);
      for await (const event of paint(request, job.control.signal)) this.#take(job, event);
      if (this.#unfinished(job).length) throw new Away("The answer ended before the picture was whole.");
    } catch (error) {
      this.#mishap(job, error);
    } finally {
      this.#running.delete(job);
      this.onChange([]);
      this.#next();
    }
  }

  #take(job, event) {
    const panel = job.panels[event.image_index ?? 0];
    if (!panel || panel.state !== "painting") return; // stopped meanwhile
    if (event.type === "image_generation.partial_image") {
      const looks = [...panel.looks, event.b64_json];
      this.#tell([panel], { looks, progress: event.progress ?? looks.length / 4 });
    } else if (event.type === "image_generation.completed") {
      this.#tell([panel], { state: "done", image: event.b64_json, progress: 1, seed: event.seed ?? panel.seed });
    }
  }

  #mishap(job, error) {
    const left = this.#unfinished(job);
    if (!left.length) return;
    if (error instanceof Away && ++job.tries.away <= TRIES.away) {
      this.#held ??= "away"; // until somebody has looked
      this.#again(job, left, { note: "Waiting for the server" });
      this.onAway();
    } else if (error instanceof Refused && [429, 503].includes(error.status) && ++job.tries.busy <= TRIES.busy) {
      const waitS = Math.min(BUSY_S, Math.max(0.5, error.retryAfterS ?? 2 ** Math.min(job.tries.busy, 4)));
      this.#again(job, left, { note: "The server is busy; it will be asked again", notBefore: Date.now() + 1000 * waitS });
    } else if (error instanceof Refused && error.status === 401) {
      this.#held = "locked";
      this.#again(job, left, { note: "Waiting for a token" });
      this.onLocked(error);
    } else {
      this.#tell(left, { state: "failed", note: error.message });
      this.onRefused(error);
    }
  }

  /** Back into the queue: as it was if nothing of it is done, else picture by picture. */
  #again(job, left, { note, notBefore = 0 }) {
    this.#tell(left, { state: "waiting", note, progress: 0 });
    const rest = left.length === job.panels.length ? [left] : left.map((panel) => [panel]);
    this.#waiting.unshift(...rest.map((panels) => ({ ...job, panels, tries: { ...job.tries }, notBefore })));
  }
}
