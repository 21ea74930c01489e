// Words about pictures: the label beside one, its file's name, the request that paints it again.

export const PARTS = ["artist", "title", "style", "genre", "date"];

/** `artist / title / style / genre / date`, or null where a caption is made otherwise. */
export function partsOf(caption) {
  const parts = caption.split(" / ").map((part) => part.trim());
  return parts.length === PARTS.length ? Object.fromEntries(PARTS.map((name, i) => [name, parts[i]])) : null;
}

/** The caption of these parts; those that are empty are left out. */
export function captionOf(parts) {
  return PARTS.map((name) => parts[name]?.trim()).filter(Boolean).join(" / ");
}

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A museum's label: who, what and when, in which manner. */
export function labelOf(caption) {
  const parts = partsOf(caption);
  if (!parts) return [element("p", { className: "title" }, caption)];
  const lines = [];
  if (parts.artist) lines.push(element("p", { className: "artist" }, parts.artist));
  const title = element("p", { className: "title" }, element("cite", {}, parts.title || "Untitled"));
  if (parts.date) title.append(`, ${parts.date}`);
  lines.push(title);
  const manner = [parts.style, parts.genre].filter(Boolean).join(", ");
  if (manner) lines.push(element("p", { className: "manner" }, manner));
  return lines;
}

/** `20 steps, guidance 3, dpmpp_2m`; only what differs from `other`, if that is given. */
export function settingsText(settings, other = null) {
  const said = {
    steps: `${settings.steps} ${settings.steps === 1 ? "step" : "steps"}`,
    guidance: `guidance ${settings.guidance}`,
    sampler: settings.sampler,
  };
  const names = Object.keys(said).filter((name) => said[name] && (!other || settings[name] !== other[name]));
  return names.map((name) => said[name]).join(", ") || "the same settings";
}

/** A file's name that says caption, seed and settings. */
export function fileName(caption, panel, { suffix = "" } = {}) {
  const words = caption.normalize("NFKD").replace(/[^\w\s/-]/g, "").trim().toLowerCase();
  const slug = words.replace(/[\s/_-]+/g, "-").slice(0, 60).replace(/^-|-$/g, "") || "picture";
  return `${slug}_seed-${panel.seed}_steps-${panel.settings.steps}${suffix}.png`;
}

/** The body of the request that paints `count` pictures from `seed` on. */
export function requestOf(caption, settings, seed, count = 1) {
  const request = { prompt: caption, n: count, seed, num_inference_steps: settings.steps, guidance_scale: settings.guidance };
  if (settings.sampler) request.sampler = settings.sampler;
  if (settings.size) request.size = settings.size;
  if (settings.negative) request.negative_prompt = settings.negative;
  return request;
}

export function asCurl(caption, panel) {
  const request = { ...requestOf(caption, panel.settings, panel.seed), response_format: "b64_json" };
  const body = JSON.stringify(request).replaceAll("'", `'\\''`);
  const url = new URL("v1/images/generations", document.baseURI);
  return `curl -s ${url} -H 'Content-Type: application/json' -d '${body}' | jq -r '.data[0].b64_json' | base64 -d > picture.png`;
}

export function asPython(caption, panel) {
  const { prompt, n, ...extra } = requestOf(caption, panel.settings, panel.seed);
  const named = Object.entries(extra).map(([name, value]) => `"${name}": ${JSON.stringify(value)}`);
  return `from base64 import b64decode
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(new URL("v1", document.baseURI).href)}, api_key="none")
answer = client.images.generate(
    prompt=${JSON.stringify(prompt)},
    response_format="b64_json",
    extra_body={${named.join(", ")}},
)
Path("picture.png").write_bytes(b64decode(answer.data[0].b64_json))
`;
}
