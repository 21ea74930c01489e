// The HTTP face, seen from the page: requests, server-sent events, and what can go wrong with them.

/** The server answered, and said no: `message` is its own, `status` 4xx or 5xx. */
export class Refused extends Error {
  constructor(message, { status = 0, code = null, param = null, retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { name: "Refused", status, code, param, retryAfterS });
  }
}

/** No answer, or one that broke off: the server or the way to it is gone. */
export class Away extends Error {
  constructor(message = "The server does not answer.") {
    super(message);
    this.name = "Away";
  }
}

const TOKEN = "diffusion_art.token"; // for as long as the tab is open

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

/** One request. Throws Refused or Away; a request that the page itself aborted ends in Away too. */
async function ask(path, { headers = {}, ...options } = {}) {
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers = { ...headers, Authorization: `Bearer ${token}` };
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options, headers });
  } catch {
    throw new Away();
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let said = {};
  try {
    said = (await response.json()).error ?? {};
  } catch {
    // not ours: a proxy's page perhaps
  }
  const retryAfterS = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  return new Refused(said.message || `The server answered ${response.status} ${response.statusText}.`, {
    status: response.status,
    code: said.code,
    param: said.param,
    retryAfterS: Number.isFinite(retryAfterS) ? retryAfterS : null,
  });
}

async function json(path) {
  return (await ask(path)).json();
}

/** The model that is served, with its defaults and limits. */
export async function model() {
  return (await json("v1/models")).data[0];
}

/** Artists, titles, styles, genres, years and whole prompts of the training set. */
export async function suggestions() {
  return json("v1/suggestions");
}

export async function isUp() {
  try {
    return (await fetch("health", { cache: "no-store", signal: AbortSignal.timeout(5000) })).ok;
  } catch {
    return false;
  }
}

/**
 * Paint; yields the stream's events, which are the looks at a picture on its way and the finished pictures.
 *
 * Throws Refused for an error event as for an error status.
 */
export async function* paint(request, signal) {
  const response = await ask("v1/images/generations", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify({ ...request, stream: true, partial_images: 3, output_format: "png" }),
    signal,
  });
  for await (const text of events(response.body)) {
    if (text === "[DONE]") return;
    const event = JSON.parse(text);
    if (event.error) {
      const status = event.error.code === "unavailable" ? 503 : 500;
      throw new Refused(event.error.message, { status, ...event.error });
    }
    yield event;
  }
}

/** The data of each event of a stream, as https://html.spec.whatwg.org/multipage/server-sent-events.html parses it. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      const held = rest.endsWith("\r") ? 1 : 0; // perhaps half of a line's end
      const lines = rest.slice(0, rest.length - held).split(/\r\n|\n|\r/);
      rest = lines.pop() + rest.slice(rest.length - held);
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } catch (error) {
    throw error instanceof TypeError || error.name === "AbortError" ? new Away("The answer broke off.") : error;
  } finally {
    reader.cancel().catch(() => {});
  }
}
