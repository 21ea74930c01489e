// What the page asks of its server. An answer that has not changed since is not sent again.

import { ask, valueOf } from "./http.js";

const known = new Map(); // path -> { etag, value }

/** The answer at a path, and whether it is a new one. */
async function fresh(path) {
  const before = known.get(path);
  const answer = await ask(path, before ? { headers: { "If-None-Match": before.etag } } : {});
  if (answer.status === 304) return { value: before.value, news: false };
  const value = await valueOf(answer);
  known.delete(path);
  known.set(path, { etag: answer.headers.get("etag"), value });
  if (known.size > 8) known.delete(known.keys().next().value);
  return { value, news: true };
}

const query = (name, values) => values.map((value) => `${name}=${encodeURIComponent(value)}`).join("&");

export const runs = () => fresh("api/runs");
export const curves = (ids, metrics) => fresh(`api/curves?${[query("run", ids), query("metric", metrics)].filter(Boolean).join("&")}`);
export const differences = (ids) => fresh(`api/differences?${query("run", ids)}`);

const pictures = new Map(); // path -> promise of a url

/** A grid as a url of this page: pictures are asked for with the token, which an `img` would not show. */
export function grid(id, step, { small = false } = {}) {
  const path = `api/grid?${query("run", [id])}&step=${step}${small ? "&small=true" : ""}`;
  if (!pictures.has(path)) {
    const url = ask(path).then((answer) => answer.blob()).then((blob) => URL.createObjectURL(blob));
    pictures.set(path, url);
    url.catch(() => pictures.delete(path)); // half written: ask again next time
    if (!small) forget();
  }
  return pictures.get(path);
}

function forget() {
  const large = [...pictures.keys()].filter((path) => !path.endsWith("small=true"));
  for (const path of large.slice(0, -60)) {
    pictures.get(path).then(URL.revokeObjectURL, () => {});
    pictures.delete(path);
  }
}
