// The session's wall and form, kept for as long as the tab is open; a reload loses nothing.

const WALL = "diffusion_art.wall";
const FORM = "diffusion_art.form";

/** Keep the finished works, the newest of them where not all fit. */
export function keepWorks(works) {
  let kept = works
    .map((work) => ({ ...work, panels: work.panels.filter((panel) => panel.state === "done") }))
    .filter((work) => work.panels.length);
  while (!put(WALL, kept)) {
    if (!kept.length) return;
    kept = kept.slice(0, Math.floor(kept.length * 0.75)); // the newest come first
  }
}

export function keptWorks() {
  return get(WALL) ?? [];
}

export function keepForm(form) {
  put(FORM, form);
}

export function keptForm() {
  return get(FORM);
}

function put(key, value) {
  try {
    sessionStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false; // full, or closed to this page
  }
}

function get(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key));
  } catch {
    return null;
  }
}
