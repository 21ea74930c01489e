// Small things about elements.

export const $ = (id) => document.getElementById(id);

/** An element with properties, and its content. `of` is one of the colours of runs. */
export function element(name, { of, ...properties } = {}, ...content) {
  const made = Object.assign(document.createElement(name), properties);
  if (of !== undefined) made.style.setProperty("--of", `var(--c${of})`);
  made.append(...content);
  return made;
}

/** 12,300 */
export const whole = (number) => Math.round(number).toLocaleString("en");

/** How long ago, in words. */
export function ago(seconds) {
  if (seconds < 60) return "just now";
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"]].find(([size]) => seconds >= size);
  return `${Math.floor(seconds / size)} ${unit} ago`;
}
